//! The client that mends itself.

use crate::buffer::with_bytes;
use crate::calls::{Caller, Calls};
use crate::client::ClientOptions;
use crate::errors::duplex;
use crate::guards::Response;
use crate::sliced::UntilClosed;
use crate::stop::Stop;
use crate::waiting::{self, not_yet};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use zerobuffer::Error;

/// A client that mends itself, for programs that run for long: up to `connections` connections to different
/// servers of a service, or one to an in-place channel. Each call goes out on the connection with the fewest
/// under way, and again elsewhere if a server's end left it not started; new servers are found as they come, all
/// within the call's own timeout. What a server had begun raises PeerDied or PeerClosed, whose request is in doubt.
///
/// Any thread may use it. `close()`, or leaving a `with` block, closes all connections.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Pool {
    name: String,
    pool: Arc<UntilClosed<zerobuffer::Pool>>,
}

#[pymethods]
impl Pool {
    /// Connects to up to `connections` servers of `name` (1 to 1024), waiting up to `timeout` for the first. The
    /// other parameters are those of Client.
    ///
    /// Raises as Client() does.
    #[new]
    #[pyo3(signature = (name, connections=1, timeout=Some(5.0), **options),
        text_signature = "(name, connections=1, timeout=5.0, *, metadata=None, wait='default', \
            max_in_flight=4096, owner=None, ring=0, label=None, directory=None)")]
    fn new(
        py: Python<'_>,
        name: &str,
        connections: usize,
        timeout: Option<f64>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::for_loop(py, name, connections, timeout, None, options)
    }

    /// For AsyncPool: as Pool().
    ///
    /// stop: ends it with Closed once it is set.
    #[staticmethod]
    #[pyo3(signature = (name, connections=1, timeout=Some(5.0), *, stop=None, **options),
        text_signature = "(name, connections=1, timeout=5.0, *, stop=None, metadata=None, \
            wait='default', max_in_flight=4096, owner=None, ring=0, label=None, directory=None)")]
    fn for_loop(
        py: Python<'_>,
        name: &str,
        connections: usize,
        timeout: Option<f64>,
        stop: Option<&Bound<'_, Stop>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let config = ClientOptions::of(py, options)?;
        let timeout = waiting::timeout(timeout)?;
        let connected = waiting::until_signal(py, stop.map(Bound::get), |is_wanted| {
            zerobuffer::Pool::connect_while(name, connections, timeout, config, is_wanted)
        })?;
        let pool = connected.map_err(duplex(py))?;
        let (name, pool) = (pool.name().to_owned(), Arc::new(UntilClosed::new(pool)));
        Ok(Self { name, pool })
    }

    /// The name of the service or channel.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// How many connections there are at the moment, as far as is known.
    #[getter]
    fn connections(&self) -> usize {
        self.pool.get().map_or(0, |pool| pool.connections())
    }

    /// Whether a server of one of the connections is there at this moment. If not, the next call waits for one.
    #[getter]
    fn is_server_connected(&self) -> bool {
        self.pool.get().is_ok_and(|pool| pool.is_server_connected())
    }

    /// Calls under way, of all threads together.
    #[getter]
    fn in_flight(&self) -> usize {
        self.pool.get().map_or(0, |pool| pool.in_flight())
    }

    /// The most bytes that a request can have on each of the connections; 0 if there is none.
    #[getter]
    fn max_request_size(&self) -> usize {
        self.pool.get().map_or(0, |pool| pool.max_request_size())
    }

    /// Sends `data` to a server and waits for the response, all within `timeout`.
    ///
    /// Raises as Client.call does; NotRunning if no server came in time.
    #[pyo3(signature = (data, timeout=Some(5.0)), text_signature = "($self, data, timeout=5.0)")]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        let timeout = waiting::timeout(timeout)?;
        let pool = self.pool.get().map_err(duplex(py))?;
        let (done, outcome) = channel();
        let on_done = move |outcome| drop(done.send(outcome));
        let start = |bytes: &[u8]| py.detach(|| pool.start_call(bytes, timeout, on_done));
        let call = with_bytes(data, |bytes| Ok(start(bytes)))?.map_err(duplex(py))?;
        // The call itself has the deadline: this waits until it has ended.
        let ended = move |slice| match outcome.recv_timeout(slice) {
            Ok(outcome) => Ok(outcome),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { what: "the response", waited: slice })
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Err(Error::Closed)),
        };
        let waited = waiting::wait_detached(py, Duration::MAX, not_yet, ended);
        if waited.is_err() {
            call.cancel();
        }
        let outcome = waited?.and_then(|outcome| outcome);
        outcome.map(Response::new).map_err(duplex(py))
    }

    /// For AsyncPool: calls whose outcomes come to an event loop.
    fn calls(&self, py: Python<'_>) -> PyResult<Calls> {
        self.pool.get().map_err(duplex(py))?;
        Calls::new(Caller::Pool(Arc::clone(&self.pool)))
    }

    /// Closes all connections, for good. Calls of other threads raise Closed. Responses that are held stay
    /// readable.
    fn close(&self, py: Python<'_>) {
        if let Some(pool) = self.pool.take() {
            py.detach(move || pool.close());
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("Pool({:?})", self.name())
    }
}
