//! Version 1's duplex channel of two buffers: its client, and the server whose handler edits a copy.

use crate::buffer::{self, with_bytes};
use crate::errors::{Side, closed, duplex, exception};
use crate::handler::Handler;
use crate::private;
use crate::process::Process;
use crate::reader::Frame;
use crate::request::{Request, message};
use crate::server::{server_sizes, sizes};
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::{FairMutex, Mutex};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{
    ChannelKind, Client, ClientConfig, Error, OwnedResponse, RequestLayout, ServerConfig,
    SharedClient, v1,
};

const CLOSED: Error = Error::Closed;
const NOT_OPEN: Error =
    Error::InvalidState { reason: "the request was sent or abandoned; acquire another buffer" };

/// How long a thread that waits for a response keeps others from sending.
const TURN: Duration = Duration::from_millis(5);

/// Whether a server of the two-buffer channel `channel` is there, of this library or of an existing v1 program.
#[pyfunction]
pub(crate) fn is_duplex_server_running(py: Python<'_>, channel: &str) -> PyResult<bool> {
    v1::is_duplex_server_running(channel).map_err(duplex(py))
}

/// A client, and the request that is being filled for it.
struct State {
    client: SharedClient,
    /// Which request is open: nothing else is sent before it.
    open: Option<u64>,
    /// How many were opened so far.
    opened: u64,
}

/// A client of a channel of two buffers. `zerobuffer.duplex.DuplexClient` is made of it.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct TwoBufferClient {
    name: String,
    /// Fair, so that a thread that waits for responses slice by slice lets others send in between.
    /// `None` once closed.
    client: FairMutex<Option<State>>,
    send_timeout: Duration,
    process: Process,
}

#[pymethods]
impl TwoBufferClient {
    /// Connects to the server of `channel`, waiting up to `timeout` for it.
    #[new]
    #[pyo3(signature = (channel, timeout=Some(5.0), *, response_buffer=None, metadata=None,
        wait="default", send_timeout=Some(5.0)),
        text_signature = "(channel, timeout=5.0, *, response_buffer=None, metadata=None, \
            wait='default', send_timeout=5.0)")]
    fn new(
        py: Python<'_>,
        channel: &str,
        timeout: Option<f64>,
        response_buffer: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        send_timeout: Option<f64>,
    ) -> PyResult<Self> {
        let config = ClientConfig::new().channel(ChannelKind::TwoBuffers);
        let mut config = config.wait(waiting::strategy(wait)?);
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
        let client = py.detach(|| Client::connect_with(channel, timeout, config));
        let client = client.map_err(sending(py))?.into_shared();
        let state = State { client, open: None, opened: 0 };
        Ok(Self {
            name: channel.to_owned(),
            client: FairMutex::new(Some(state)),
            send_timeout: waiting::timeout(send_timeout)?,
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
        self.look(py, SharedClient::in_flight).unwrap_or(0)
    }

    #[getter]
    fn max_request_size(&self, py: Python<'_>) -> usize {
        self.look(py, SharedClient::max_request_size).unwrap_or(0)
    }

    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.send(py, data, None)
    }

    /// Memory for a request of `size` bytes, once there is room for it in the ring.
    fn acquire_request_buffer(slf: &Bound<'_, Self>, size: usize) -> PyResult<PrivateRequest> {
        let (py, this) = (slf.py(), slf.get());
        this.process.check(py)?;
        let acquire = |slice| {
            this.with(slice, |state| {
                state.check_none_is_open()?;
                let layout = RequestLayout::new();
                let sequence = state.client.acquire_request_buffer(size, layout, slice)?.sequence();
                state.opened += 1;
                state.open = Some(state.opened);
                Ok((sequence, state.opened))
            })
        };
        let acquired = waiting::wait_detached(py, this.send_timeout, not_yet, acquire)?;
        let (sequence, number) = acquired.map_err(sending(py))?;
        let bytes = private::zeros(py, size).inspect_err(|_| this.abandon(py, number))?;
        let (client, bytes) = (slf.clone().unbind(), bytes.unbind());
        Ok(PrivateRequest { client, number, sequence, done: AtomicBool::new(false), bytes })
    }

    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive_response(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Frame> {
        self.receive(py, waiting::timeout(timeout)?, |client, slice| client.receive_response(slice))
    }

    #[pyo3(signature = (sequence, timeout=Some(5.0)),
        text_signature = "($self, sequence, timeout=5.0)")]
    fn receive_response_for(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Option<f64>,
    ) -> PyResult<Frame> {
        let timeout = waiting::timeout(timeout)?;
        let received =
            self.receive(py, timeout, |client, slice| client.poll_response_for(sequence, slice));
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
    ) -> PyResult<Frame> {
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
    /// Sends `data`, as the open request `open` or as one of its own.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, open: Option<u64>) -> PyResult<u64> {
        self.process.check(py)?;
        with_bytes(data, |bytes| {
            let send = |slice| {
                self.with(slice, |state| {
                    match open {
                        None => state.check_none_is_open()?,
                        Some(_) if state.open == open => {}
                        Some(_) => return Err(NOT_OPEN),
                    }
                    let sequence = state.client.send_request(bytes)?;
                    state.open = None;
                    Ok(sequence)
                })
            };
            waiting::wait_detached(py, self.send_timeout, not_yet, send)?.map_err(sending(py))
        })
    }

    /// Sends nothing of the request that is open, if it is `number`.
    fn abandon(&self, py: Python<'_>, number: u64) {
        if !self.process.is_this() {
            return;
        }
        py.detach(|| {
            if let Some(state) = &mut *self.client.lock()
                && state.open == Some(number)
            {
                state.open = None;
            }
        });
    }

    /// Calls `act` when it is this thread's turn within `slice`.
    fn with<T>(
        &self,
        slice: Duration,
        act: impl FnOnce(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let no_turn = Error::Timeout { waited: slice, what: "waiting for another thread" };
        let mut client = self.client.try_lock_for(slice).ok_or(no_turn)?;
        act(client.as_mut().ok_or(CLOSED)?)
    }

    /// `None` once closed, and in a forked child.
    fn look<T: Send>(
        &self,
        py: Python<'_>,
        look: impl Fn(&SharedClient) -> T + Send + Sync,
    ) -> Option<T> {
        if !self.process.is_this() {
            return None;
        }
        py.detach(|| self.client.lock().as_ref().map(|state| look(&state.client)))
    }

    /// Receives turn by turn, so that other threads can send in between.
    fn receive(
        &self,
        py: Python<'_>,
        timeout: Duration,
        receive: impl Fn(&SharedClient, Duration) -> Result<OwnedResponse, Error> + Send + Sync,
    ) -> PyResult<Frame> {
        self.process.check(py)?;
        let step = |slice: Duration| {
            let start = Instant::now();
            loop {
                let left = slice.saturating_sub(start.elapsed());
                let turn = |state: &mut State| receive(&state.client, left.min(TURN));
                match self.with(left, turn) {
                    Err(error) if not_yet(&error) && !left.is_zero() => {}
                    received => return received,
                }
            }
        };
        let response = waiting::wait(py, timeout, not_yet, step)?;
        Frame::response(py, response.map_err(receiving(py))?)
    }
}

fn sending(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Requests)
}

fn receiving(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Responses)
}

impl State {
    fn check_none_is_open(&self) -> Result<(), Error> {
        match self.open {
            None => Ok(()),
            Some(_) => Err(Error::ClaimOpen),
        }
    }
}

/// A request that is being filled, in memory of this process alone. It has the buffer protocol; views of it
/// may stay, and nobody sees what is written through them after the commit.
///
/// Leaving a `with` block sends it; leaving it by an exception sends nothing.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct PrivateRequest {
    client: Py<TwoBufferClient>,
    /// Which of the client's it is.
    number: u64,
    sequence: u64,
    /// It was sent or abandoned.
    done: AtomicBool,
    bytes: Py<PyByteArray>,
}

impl PrivateRequest {
    fn open<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyByteArray>> {
        match self.done.load(Ordering::Relaxed) {
            false => Ok(self.bytes.bind(py)),
            true => Err(sending(py)(NOT_OPEN)),
        }
    }
}

#[pymethods]
impl PrivateRequest {
    /// The sequence number that the request gets.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A writable memoryview of the bytes.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let bytes = self.open(py)?;
        private::view(bytes, bytes.len())
    }

    /// Copies `data`, whatever has bytes, to the place `at`, and returns how many bytes that were.
    #[pyo3(signature = (data, at=0))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>, at: usize) -> PyResult<usize> {
        buffer::write(self.open(py)?, data, at)
    }

    /// The bytes as a numpy array of this shape and type, without a copy; by default all bytes in a row.
    #[pyo3(signature = (shape=None, dtype=None))]
    fn array<'py>(
        slf: &Bound<'py, Self>,
        shape: Option<&Bound<'py, PyAny>>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::array(slf, shape, dtype)
    }

    /// For numpy, which asks here once the request was sent or abandoned: an error then.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::as_array(slf, dtype, copy)
    }

    /// Sends what the bytes are at this moment, and returns the sequence number.
    ///
    /// Raises InvalidState if it was sent or abandoned.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        let (client, bytes) = (self.client.get(), self.open(py)?);
        self.done.store(true, Ordering::Relaxed);
        let sent = client.send(py, bytes, Some(self.number));
        sent.inspect_err(|_| client.abandon(py, self.number))
    }

    /// Sends nothing. Called again, or after commit(), it does nothing.
    fn abandon(&self, py: Python<'_>) {
        if !self.done.swap(true, Ordering::Relaxed) {
            self.client.get().abandon(py, self.number);
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match value.is_none() {
            true if !self.done.load(Ordering::Relaxed) => self.commit(py).map(drop),
            _ => {
                self.abandon(py);
                Ok(())
            }
        }
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.bytes.bind(py).len()
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let bytes = slf.get().open(slf.py())?;
        // SAFETY: Python's call, passed on: the view is then one of the array, which counts it.
        unsafe { private::fill(bytes, view, flags) }
    }
}

impl Drop for PrivateRequest {
    fn drop(&mut self) {
        // Without an interpreter there is no client that goes on.
        let _ = Python::try_attach(|py| self.abandon(py));
    }
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
        let config = ServerConfig::new(server_sizes(config)?)
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
