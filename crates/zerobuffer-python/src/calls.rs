//! Calls that no thread waits for: what `AsyncClient` is built on.
//!
//! A call is started on the event loop's thread. Its outcome is left here by the library's thread, which
//! never needs the interpreter, and a byte in a socket tells the loop to take it.

use crate::buffer::{is_large, with_bytes};
use crate::errors;
use crate::guards::{HeldResponses, Response};
use crate::process::Process;
use crate::sliced::UntilClosed;
use crate::waiting;
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use zerobuffer::{Error, OwnedResponse};

/// Calls of one client, for one event loop.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Calls {
    client: Arc<UntilClosed>,
    /// Responses of the client that the program holds.
    held: HeldResponses,
    outcomes: Arc<Outcomes>,
    process: Process,
}

/// The outcome of a call, with the key that its caller gave it.
type Outcome = (u64, Result<OwnedResponse, Error>);

struct Outcomes {
    waiting: Mutex<Vec<Outcome>>,
    /// A byte is written when the first outcome comes in. Both ends live as long as this, so writing never
    /// finds a closed socket.
    bell: UnixStream,
    loop_end: UnixStream,
}

impl Outcomes {
    fn new() -> std::io::Result<Self> {
        let (bell, loop_end) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        loop_end.set_nonblocking(true)?;
        Ok(Self { waiting: Mutex::default(), bell, loop_end })
    }

    fn add(&self, outcome: Outcome) {
        let mut waiting = self.waiting.lock();
        let is_first = waiting.is_empty();
        waiting.push(outcome);
        drop(waiting);
        if is_first {
            // A full socket has bytes enough to wake the loop.
            let _ = (&self.bell).write(&[0]);
        }
    }

    /// All outcomes that are there. The bytes go first: a byte that comes later belongs to an outcome that may
    /// be left.
    fn take(&self) -> Vec<Outcome> {
        let mut bytes = [0; 64];
        loop {
            match (&self.loop_end).read(&mut bytes) {
                Ok(read) if read == bytes.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl Calls {
    pub(crate) fn new(client: &Arc<UntilClosed>, held: &HeldResponses) -> PyResult<Self> {
        let outcomes = Outcomes::new().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self {
            client: Arc::clone(client),
            held: held.clone(),
            outcomes: Arc::new(outcomes),
            process: Process::default(),
        })
    }
}

#[pymethods]
impl Calls {
    /// Starts a call that ends within `timeout`. Its outcome comes under `key`. Returns the number by which
    /// `cancel` knows it.
    fn start(
        &self,
        py: Python<'_>,
        key: u64,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let timeout = waiting::timeout(timeout)?;
        let client = self.client.get().map_err(errors::duplex(py))?;
        let start = |bytes: &[u8]| {
            let outcomes = Arc::clone(&self.outcomes);
            client.start_call(bytes, timeout, move |outcome| outcomes.add((key, outcome)))
        };
        let call = with_bytes(data, |bytes| {
            Ok(if is_large(bytes.len()) { py.detach(|| start(bytes)) } else { start(bytes) })
        })?;
        Ok(call.map_err(errors::duplex(py))?.id())
    }

    /// Cancels a call: no outcome of it comes. False if it is done already.
    fn cancel(&self, call: u64) -> bool {
        self.client.get().is_ok_and(|client| client.cancel_call(call))
    }

    /// Readable while there are outcomes.
    fn fileno(&self) -> RawFd {
        self.outcomes.loop_end.as_raw_fd()
    }

    /// The outcomes that are there: key, response or None, exception or None.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // The bytes of a parent are not a child's to read.
        self.process.check(py)?;
        let mut taken = Vec::new();
        for (key, outcome) in self.outcomes.take() {
            let (response, error) = match outcome {
                Ok(response) => (Some(Response::new(response, &self.held)), None),
                Err(error) => {
                    let held = self.held.count();
                    (None, Some(errors::sending(py, &error, held).into_value(py)))
                }
            };
            taken.push((key, response, error));
        }
        PyList::new(py, taken)
    }
}
