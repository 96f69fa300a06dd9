//! Version 1's duplex channel of two buffers: its client, and the server whose handler edits a copy.

use crate::buffer::with_bytes;
use crate::errors::{Side, closed, duplex, exception};
use crate::guards::{RequestBuffer, Response};
use crate::handler::Handler;
use crate::process::Process;
use crate::request::{Request, message};
use crate::server::{server_sizes, sizes};
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::{FairMutex, Mutex};
use pyo3::prelude::*;
use self_cell::self_cell;
use std::time::{Duration, Instant};
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Error, v1};

const CLOSED: Error = Error::Closed;

/// How long a thread that waits for a response keeps others from sending.
const TURN: Duration = Duration::from_millis(5);

/// Whether a server of the two-buffer channel `channel` is there, ours or a deployed one.
#[pyfunction]
pub(crate) fn is_duplex_server_running(py: Python<'_>, channel: &str) -> PyResult<bool> {
    v1::is_duplex_server_running(channel).map_err(duplex(py))
}

type Open<'c> = Option<v1::RequestBuffer<'c>>;

self_cell!(
    /// A client, and the request that it is writing, if it is.
    struct Cell {
        owner: v1::DuplexClient,
        #[not_covariant]
        dependent: Open,
    }
);

/// A [`Cell`] that moves between threads.
struct Everything(Cell);

// SAFETY: the client may move, and is not shared: the mutex around this lets in one thread at a time.
// What keeps the open request from moving are its references to counters in the client, which lies
// in the same cell, moves with it, and is only reached through the same mutex.
unsafe impl Send for Everything {}

/// A client of a channel of two buffers. `zerobuffer.duplex.DuplexClient` is made of it.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct TwoBufferClient {
    name: String,
    /// Fair, so that a thread that waits for answers slice by slice lets others send in between.
    /// `None` once closed.
    client: FairMutex<Option<Everything>>,
    send_timeout: Duration,
    strict_views: bool,
    process: Process,
}

#[pymethods]
impl TwoBufferClient {
    /// Connects to the server of `channel`, waiting up to `timeout` for it.
    #[new]
    #[pyo3(signature = (channel, timeout=Some(5.0), *, response_buffer=None, metadata=None,
        wait="default", send_timeout=Some(5.0), strict_views=false),
        text_signature = "(channel, timeout=5.0, *, response_buffer=None, metadata=None, \
            wait='default', send_timeout=5.0, strict_views=False)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        channel: &str,
        timeout: Option<f64>,
        response_buffer: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        send_timeout: Option<f64>,
        strict_views: bool,
    ) -> PyResult<Self> {
        let mut config = v1::DuplexClientConfig::new().wait(waiting::strategy(wait)?);
        if let Some(sizes) = response_buffer.map(|config| sizes(Some(config))).transpose()? {
            config = config.response_buffer(sizes);
        }
        if let Some(metadata) = metadata {
            config = with_bytes(metadata, |bytes| Ok(config.metadata(bytes)))?;
        }
        // Each step is tried for a slice; a wait for room is repeated.
        config = config.send_timeout(SLICE);
        let timeout = waiting::timeout(timeout)?;
        // In one go: a server needs its time to answer a client.
        let client = py.detach(|| v1::DuplexClient::connect_with(channel, timeout, config));
        let cell = Cell::new(client.map_err(sending(py))?, |_| None);
        Ok(Self {
            name: channel.to_owned(),
            client: FairMutex::new(Some(Everything(cell))),
            send_timeout: waiting::timeout(send_timeout)?,
            strict_views,
            process: Process::default(),
        })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Whether the server reads requests and is attached to the responses.
    #[getter]
    fn is_server_connected(&self, py: Python<'_>) -> bool {
        self.look(py, |client| client.is_server_connected()).unwrap_or(false)
    }

    #[getter]
    fn in_flight(&self, py: Python<'_>) -> usize {
        self.look(py, v1::DuplexClient::in_flight).unwrap_or(0)
    }

    #[getter]
    fn max_request_size(&self, py: Python<'_>) -> usize {
        self.look(py, v1::DuplexClient::max_request_size).unwrap_or(0)
    }

    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.process.check(py)?;
        with_bytes(data, |bytes| {
            let send = |slice| self.with(slice, |cell| cell.borrow_owner().send_request(bytes));
            waiting::wait_detached(py, self.send_timeout, not_yet, send)?.map_err(sending(py))
        })
    }

    /// A buffer of `size` bytes in the ring, to be filled in place and committed.
    fn acquire_request_buffer(slf: &Bound<'_, Self>, size: usize) -> PyResult<RequestBuffer> {
        let (py, this) = (slf.py(), slf.get());
        this.process.check(py)?;
        let acquire = |slice| this.with(slice, |cell| open(cell, size));
        let (memory, sequence) = waiting::wait_detached(py, this.send_timeout, not_yet, acquire)?
            .map_err(sending(py))?;
        Ok(RequestBuffer::two_buffers(slf.clone().unbind(), memory, sequence, this.strict_views))
    }

    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive_response(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Response> {
        self.receive(py, waiting::timeout(timeout)?, |client, slice| {
            client.receive_response(slice).map(v1::DuplexResponse::into_owned)
        })
    }

    #[pyo3(signature = (sequence, timeout=Some(5.0)),
        text_signature = "($self, sequence, timeout=5.0)")]
    fn receive_response_for(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        let timeout = waiting::timeout(timeout)?;
        let received = self.receive(py, timeout, |client, slice| {
            client.poll_response_for(sequence, slice).map(v1::DuplexResponse::into_owned)
        });
        if received.is_err() && !timeout.is_zero() {
            // Timed out or interrupted; after another error there is nothing to cancel.
            self.cancel(py, sequence);
        }
        received
    }

    #[pyo3(signature = (data, timeout=Some(5.0)),
        text_signature = "($self, data, timeout=5.0)")]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        let sequence = self.send_request(py, data)?;
        self.receive_response_for(py, sequence, timeout)
    }

    fn cancel(&self, py: Python<'_>, sequence: u64) -> bool {
        self.look(py, |client| client.cancel(sequence)).unwrap_or(false)
    }

    /// Closes both buffers. Responses that are held stay readable. In a forked child it does nothing.
    fn close(&self, py: Python<'_>) {
        if self.process.is_this() {
            py.detach(|| drop(self.client.lock().take()));
        }
    }
}

impl TwoBufferClient {
    /// Sends the request that is open.
    pub(crate) fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        self.process.check(py)?;
        let committed = py.detach(|| {
            let mut client = self.client.lock();
            let cell = &mut client.as_mut().ok_or(CLOSED)?.0;
            let nothing = Error::InvalidState { reason: "No pending request to commit" };
            let buffer = cell.with_dependent_mut(|_, open| open.take());
            buffer.map_or(Err(nothing), v1::RequestBuffer::commit)
        });
        committed.map_err(sending(py))
    }

    /// Sends nothing of the request that is open.
    pub(crate) fn abandon(&self, py: Python<'_>) {
        if !self.process.is_this() {
            return;
        }
        py.detach(|| {
            if let Some(Everything(cell)) = &mut *self.client.lock() {
                cell.with_dependent_mut(|_, open| *open = None);
            }
        });
    }

    /// Calls `act` when it is this thread's turn within `slice`.
    fn with<T>(
        &self,
        slice: Duration,
        act: impl FnOnce(&mut Cell) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let no_turn = Error::Timeout { waited: slice, what: "waiting for another thread" };
        let mut client = self.client.try_lock_for(slice).ok_or(no_turn)?;
        act(&mut client.as_mut().ok_or(CLOSED)?.0)
    }

    /// `None` once closed, and in a forked child.
    fn look<T: Send>(
        &self,
        py: Python<'_>,
        look: impl Fn(&v1::DuplexClient) -> T + Send + Sync,
    ) -> Option<T> {
        if !self.process.is_this() {
            return None;
        }
        py.detach(|| self.client.lock().as_ref().map(|client| look(client.0.borrow_owner())))
    }

    /// Receives turn by turn, so that other threads can send in between.
    fn receive(
        &self,
        py: Python<'_>,
        timeout: Duration,
        receive: impl Fn(&v1::DuplexClient, Duration) -> Result<v1::OwnedDuplexResponse, Error>
        + Send
        + Sync,
    ) -> PyResult<Response> {
        self.process.check(py)?;
        let step = |slice: Duration| {
            let start = Instant::now();
            loop {
                let left = slice.saturating_sub(start.elapsed());
                let turn = |cell: &mut Cell| receive(cell.borrow_owner(), left.min(TURN));
                match self.with(left, turn) {
                    Err(error) if not_yet(&error) && !left.is_zero() => {}
                    received => return received,
                }
            }
        };
        let response = waiting::wait(py, timeout, not_yet, step)?;
        response.map(Response::two_buffers).map_err(receiving(py))
    }
}

fn sending(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Requests)
}

fn receiving(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Responses)
}

fn open(cell: &mut Cell, size: usize) -> Result<(SharedMemoryView, u64), Error> {
    cell.with_dependent_mut(|client, open| {
        let buffer = client.acquire_request_buffer(size)?;
        let opened = (buffer.memory(), buffer.sequence());
        *open = Some(buffer);
        Ok(opened)
    })
}

/// A server of two buffers whose handler edits a copy of the request. It serves one client after the
/// other.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct TwoBufferServer {
    name: String,
    server: Mutex<v1::DuplexServer>,
    process: Process,
}

#[pymethods]
impl TwoBufferServer {
    #[new]
    #[pyo3(signature = (channel, config=None, *, wait="default", mode=0o600, stop_timeout=2.0))]
    fn new(
        py: Python<'_>,
        channel: &str,
        config: Option<&Bound<'_, PyAny>>,
        wait: &str,
        mode: u32,
        stop_timeout: f64,
    ) -> PyResult<Self> {
        let config = v1::DuplexServerConfig::new(server_sizes(config)?)
            .wait(waiting::strategy(wait)?)
            .mode(mode)
            .stop_timeout(waiting::timeout(Some(stop_timeout))?);
        let created = py.detach(|| v1::DuplexServer::create(channel, config));
        let server = Mutex::new(created.map_err(duplex(py))?);
        Ok(Self { name: channel.to_owned(), server, process: Process::default() })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Runs `handler(request)` on a copy of every request, in the background.
    #[pyo3(signature = (handler, on_error=None))]
    fn start(
        &self,
        handler: &Bound<'_, PyAny>,
        on_error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = handler.py();
        self.process.check(py)?;
        let handler = Handler::new(&self.name, handler, on_error)?;
        let run = move |draft: &mut v1::Draft<'_>| {
            let answered = Python::try_attach(|py| answer(py, draft, &handler));
            answered.unwrap_or_else(|| Err("the interpreter is shutting down".to_owned()))
        };
        let Some(mut server) = self.server.try_lock() else {
            return Err(closed(py, "another thread is stopping this server"));
        };
        server.start_mutable(run).map_err(duplex(py))
    }

    #[getter]
    fn is_running(&self) -> bool {
        self.server.try_lock().is_some_and(|server| server.is_running())
    }

    #[getter]
    fn is_client_connected(&self) -> bool {
        self.server.try_lock().is_some_and(|server| server.is_client_connected())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        let stopped = py.detach(|| self.server.lock().stop());
        stopped.map_err(|error| exception(py, &error, Side::Duplex))
    }
}

impl Drop for TwoBufferServer {
    fn drop(&mut self) {
        // Its end waits for handlers, and they for the interpreter lock.
        Python::try_attach(|py| py.detach(|| drop(self.server.get_mut().stop())));
    }
}

/// Runs the handler on a copy of the request, and copies its work back.
fn answer(py: Python<'_>, draft: &mut v1::Draft<'_>, handler: &Handler) -> Result<(), String> {
    let copy = Request::copy(draft.data(), draft.metadata(), draft.sequence());
    let copy = copy.map_err(|error| error.to_string())?;
    let request = Bound::new(py, copy).map_err(|error| message(py, &error))?;
    handler.run(&request);
    request.get().copy_to(draft.data_mut())
}
