//! Calls that no thread waits for: what `AsyncClient` is built on.
//!
//! A call is started on the event loop's thread. Its outcome is left here by the library's thread, which
//! never needs the interpreter, and a byte in a socket tells the loop to take it.

use crate::buffer::{is_large, with_bytes};
use crate::errors;
use crate::guards::Response;
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
use std::time::Duration;
use zerobuffer::{CallHandle, Error, EventLoopClient, OwnedResponse, SharedClient};

/// Calls of one client, for one event loop.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Calls {
    client: Caller,
    outcomes: Arc<Outcomes>,
    process: Process,
}

/// The outcome of a call, with the key that its caller gave it.
pub(crate) type Outcome = (u64, Result<OwnedResponse, Error>);

/// Whose calls they are.
pub(crate) enum Caller {
    Client(Arc<UntilClosed<SharedClient>>),
    Pool(Arc<UntilClosed<zerobuffer::Pool>>),
}

/// What makes calls that no thread waits for.
pub(crate) trait Start: Clone + Send + Sync {
    fn start(
        &self,
        data: &[u8],
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse, Error>) + Send + 'static,
    ) -> Result<CallHandle, Error>;

    fn cancel(&self, call: u64) -> bool;
}

macro_rules! starts {
    ($($caller:ty),*) => {
        $(impl Start for $caller {
            fn start(
                &self,
                data: &[u8],
                timeout: Duration,
                on_done: impl FnOnce(Result<OwnedResponse, Error>) + Send + 'static,
            ) -> Result<CallHandle, Error> {
                self.start_call(data, timeout, on_done)
            }

            fn cancel(&self, call: u64) -> bool {
                self.cancel_call(call)
            }
        })*
    };
}

starts!(SharedClient, zerobuffer::Pool, Arc<EventLoopClient>);

impl<T: Start> UntilClosed<T> {
    /// Starts a call that ends within `timeout`, and returns the number by which `cancel` knows it.
    pub(crate) fn start(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        on_done: impl FnOnce(Result<OwnedResponse, Error>) + Send + 'static,
    ) -> PyResult<u64> {
        let timeout = waiting::timeout(timeout)?;
        let client = self.get().map_err(errors::duplex(py))?;
        let start = |bytes: &[u8]| client.start(bytes, timeout, on_done);
        let call = with_bytes(data, |bytes| {
            Ok(if is_large(bytes.len()) { py.detach(|| start(bytes)) } else { start(bytes) })
        })?;
        Ok(call.map_err(errors::duplex(py))?.id())
    }

    /// Cancels a call: no outcome of it comes. False if it is done already.
    pub(crate) fn cancel(&self, call: u64) -> bool {
        self.get().is_ok_and(|client| client.cancel(call))
    }
}

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
    pub(crate) fn new(client: Caller) -> PyResult<Self> {
        let outcomes = Outcomes::new().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { client, outcomes: Arc::new(outcomes), process: Process::default() })
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
        let outcomes = Arc::clone(&self.outcomes);
        let on_done = move |outcome| outcomes.add((key, outcome));
        match &self.client {
            Caller::Client(client) => client.start(py, data, timeout, on_done),
            Caller::Pool(pool) => pool.start(py, data, timeout, on_done),
        }
    }

    /// Cancels a call: no outcome of it comes. False if it is done already.
    fn cancel(&self, call: u64) -> bool {
        match &self.client {
            Caller::Client(client) => client.cancel(call),
            Caller::Pool(pool) => pool.cancel(call),
        }
    }

    /// Readable while there are outcomes.
    fn fileno(&self) -> RawFd {
        self.outcomes.loop_end.as_raw_fd()
    }

    /// The outcomes that are there: key, response or None, exception or None.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // The bytes of a parent are not a child's to read.
        self.process.check(py)?;
        listed(py, self.outcomes.take())
    }
}

/// Key, response or None, exception or None of each.
pub(crate) fn listed(py: Python<'_>, outcomes: Vec<Outcome>) -> PyResult<Bound<'_, PyList>> {
    let mut taken = Vec::new();
    for (key, outcome) in outcomes {
        let (response, error) = match outcome {
            Ok(response) => (Some(Response::new(response)), None),
            Err(error) => (None, Some(errors::duplex(py)(error).into_value(py))),
        };
        taken.push((key, response, error));
    }
    PyList::new(py, taken)
}
