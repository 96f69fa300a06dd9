//! A client of a service that an event loop drives: what `AsyncClient` is built on where there is a descriptor.
//! Nothing waits here, neither a thread of Python nor one of the library.

use crate::calls::{Outcome, listed};
use crate::errors::{self, duplex};
use crate::process::Process;
use crate::sliced::UntilClosed;
use crate::stop::Stop;
use crate::waiting;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;
use zerobuffer::{ClientConfig, Error, EventLoopClient};

/// Calls to one server of a service, for one event loop.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct LoopClient {
    name: String,
    /// How to connect again.
    config: ClientConfig,
    client: UntilClosed<Arc<EventLoopClient>>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    /// Nobody wants another connection any more.
    closed: Stop,
    process: Process,
}

impl LoopClient {
    pub(crate) fn new(client: zerobuffer::Client, config: ClientConfig) -> Result<Self, Error> {
        let name = client.name().to_owned();
        Ok(Self {
            name,
            config,
            client: UntilClosed::new(Arc::new(client.into_event_loop()?)),
            outcomes: Arc::default(),
            closed: Stop::default(),
            process: Process::default(),
        })
    }
}

#[pymethods]
impl LoopClient {
    /// The service's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// What the server has published about itself; b"" if nothing.
    #[getter]
    fn server_metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let client = self.client.get().map_err(duplex(py))?;
        Ok(PyBytes::new(py, &client.server_metadata()))
    }

    /// Whether the server is there at this moment.
    #[getter]
    fn is_server_connected(&self) -> bool {
        self.client.get().is_ok_and(|client| client.is_server_connected())
    }

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
        self.client.start(py, data, timeout, move |outcome| outcomes.lock().push((key, outcome)))
    }

    /// Cancels a call: no outcome of it comes. False if it is done already.
    fn cancel(&self, call: u64) -> bool {
        self.client.cancel(call)
    }

    /// Readable when `process` is to be called; -1 once it is closed.
    fn fileno(&self) -> RawFd {
        self.client.get().map_or(-1, |client| client.as_raw_fd())
    }

    /// To be called when the descriptor is readable, and after the time that it returns: in how many seconds it is
    /// to be called again at the latest, or None; and the outcomes: key, response or None, exception or None.
    fn process<'py>(&self, py: Python<'py>) -> PyResult<(Option<f64>, Bound<'py, PyList>)> {
        self.process.check(py)?;
        let until = match self.client.get() {
            Ok(client) => py.detach(|| client.process()),
            Err(_) => None,
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let outcomes = std::mem::take(&mut *self.outcomes.lock());
        Ok((left.map(|left| left.as_secs_f64()), listed(py, outcomes)?))
    }

    /// Another one for the service's present server, or None if this one's is there.
    ///
    /// Raises as Client() does, and Closed if this one is closed meanwhile.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Self>> {
        let client = self.client.get().map_err(duplex(py))?;
        if client.is_server_connected() {
            return Ok(None);
        }
        drop(client);
        let (name, timeout) = (format!("service:{}", self.name), waiting::timeout(timeout)?);
        let connected = waiting::until_signal(py, Some(&self.closed), |is_wanted| {
            zerobuffer::Client::connect_while(&name, timeout, self.config.clone(), is_wanted)
        })?;
        let next = connected.and_then(|client| Self::new(client, self.config.clone()));
        next.map(Some).map_err(errors::duplex(py))
    }

    /// Closes the connection cleanly, for good, and the descriptor with it, which no loop may watch any more.
    /// Calls under way end with Closed, which `process` tells.
    fn close(&self, py: Python<'_>) {
        self.closed.set();
        if self.process.is_this()
            && let Some(client) = self.client.take()
        {
            py.detach(move || drop(client));
        }
    }
}
