//! The client that mends itself.

use crate::buffer::with_bytes;
use crate::client::{Options, config};
use crate::errors::{self, duplex};
use crate::guards::{HeldResponses, Response};
use crate::waiting::{self, SLICE, not_there};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use zerobuffer::Error;

/// A client that mends itself, for programs that run for long: up to `connections` connections to different
/// servers of a service, or one to an in-place channel. Each call goes out on the connection with the fewest
/// under way, and again elsewhere if a server's end left it not started; new servers are found as they come, all
/// within the call's own timeout. What a server had begun raises PeerDied or PeerClosed, whose request is in doubt.
///
/// Any thread may use it. `close()`, or leaving a `with` block, closes all connections.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Pool {
    pool: zerobuffer::Pool,
    held: HeldResponses,
}

#[pymethods]
impl Pool {
    /// Connects to up to `connections` servers of `name` (1 to 1024), waiting up to `timeout` for the first. The
    /// other parameters are those of Client.
    ///
    /// Raises as Client() does.
    #[new]
    #[pyo3(signature = (name, connections=1, timeout=Some(5.0), *, metadata=None, wait="default",
        max_in_flight=4096, owner=None, ring=0, label=None, directory=None),
        text_signature = "(name, connections=1, timeout=5.0, *, metadata=None, wait='default', \
            max_in_flight=4096, owner=None, ring=0, label=None, directory=None)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        name: &str,
        connections: usize,
        timeout: Option<f64>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        max_in_flight: usize,
        owner: Option<u32>,
        ring: usize,
        label: Option<String>,
        directory: Option<PathBuf>,
    ) -> PyResult<Self> {
        let options = Options { metadata, wait, max_in_flight, owner, ring, label, directory };
        let config = config(py, options)?;
        let connect =
            |slice| zerobuffer::Pool::connect_with(name, connections, slice, config.clone());
        let pool = waiting::wait(py, waiting::timeout(timeout)?, not_there, connect)?
            .map_err(duplex(py))?;
        Ok(Self { pool, held: HeldResponses::default() })
    }

    /// The name of the service or channel.
    #[getter]
    fn name(&self) -> &str {
        self.pool.name()
    }

    /// How many connections there are at the moment, as far as is known.
    #[getter]
    fn connections(&self) -> usize {
        self.pool.connections()
    }

    /// Whether a server of one of the connections is there at this moment. If not, the next call waits for one.
    #[getter]
    fn is_server_connected(&self) -> bool {
        self.pool.is_server_connected()
    }

    /// Calls under way, of all threads together.
    #[getter]
    fn in_flight(&self) -> usize {
        self.pool.in_flight()
    }

    /// The most bytes that a request can have on each of the connections; 0 if there is none.
    #[getter]
    fn max_request_size(&self) -> usize {
        self.pool.max_request_size()
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
        let raised = |error: Error| errors::sending(py, &error, self.held.count());
        let (done, outcome) = channel();
        let on_done = move |outcome| drop(done.send(outcome));
        let start = |bytes: &[u8]| py.detach(|| self.pool.start_call(bytes, timeout, on_done));
        let call = with_bytes(data, |bytes| Ok(start(bytes)))?.map_err(raised)?;
        // Its own, so that the loop can lend it to code without the interpreter.
        let outcome = std::sync::Mutex::new(outcome);
        loop {
            let next = py.detach(|| {
                let outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                outcome.recv_timeout(SLICE)
            });
            match next {
                Ok(outcome) => {
                    return outcome
                        .map(|response| Response::new(response, &self.held))
                        .map_err(raised);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(interrupted) = py.check_signals() {
                        call.cancel();
                        return Err(interrupted);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(raised(Error::Closed)),
            }
        }
    }

    /// Closes all connections, for good. Calls of other threads raise Closed. Responses that are held stay
    /// readable.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.pool.close());
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
