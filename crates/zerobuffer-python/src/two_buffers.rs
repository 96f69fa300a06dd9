//! Version 1's duplex channel of two buffers: its client, and the server whose handler edits a copy.

use crate::buffer::{self, is_large, with_bytes};
use crate::errors::{Side, closed, duplex, exception};
use crate::handler::Handler;
use crate::private;
use crate::process::Process;
use crate::reader::Frame;
use crate::request::{Request, message};
use crate::server::{server_sizes, sizes};
use crate::sliced::SlicedClient;
use crate::stop::Stop;
use crate::waiting::{self, after};
use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};
use std::ffi::c_int;
use std::time::{Duration, Instant};
use zerobuffer::{
    ChannelKind, Client, ClientConfig, Error, OwnedRequestBuffer, RequestLayout, ServerConfig, v1,
};

const NOT_OPEN: Error =
    Error::InvalidState { reason: "the request was sent or abandoned; acquire another buffer" };

/// Whether a server of the two-buffer channel `channel` is there, of this library or of an existing v1 program.
#[pyfunction]
pub(crate) fn is_duplex_server_running(py: Python<'_>, channel: &str) -> PyResult<bool> {
    v1::is_duplex_server_running(channel).map_err(duplex(py))
}

/// A client of a channel of two buffers. `zerobuffer.duplex.DuplexClient` is made of it.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct TwoBufferClient {
    client: SlicedClient,
}

#[pymethods]
impl TwoBufferClient {
    /// Connects to the server of `channel`, waiting up to `timeout` for it.
    ///
    /// stop: ends that with Closed once it is set.
    #[new]
    #[pyo3(signature = (channel, timeout=Some(5.0), *, response_buffer=None, metadata=None,
        wait="default", send_timeout=Some(5.0), stop=None),
        text_signature = "(channel, timeout=5.0, *, response_buffer=None, metadata=None, \
            wait='default', send_timeout=5.0, stop=None)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        channel: &str,
        timeout: Option<f64>,
        response_buffer: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        send_timeout: Option<f64>,
        stop: Option<&Bound<'_, Stop>>,
    ) -> PyResult<Self> {
        let config = ClientConfig::new().channel(ChannelKind::TwoBuffers);
        let mut config = config.wait(waiting::strategy(wait)?);
        if let Some(sizes) = response_buffer.map(|config| sizes(Some(config))).transpose()? {
            config = config.response_buffer(sizes);
        }
        if let Some(metadata) = metadata {
            config = with_bytes(metadata, |bytes| Ok(config.metadata(bytes)))?;
        }
        let (timeout, send_timeout) = (waiting::timeout(timeout)?, waiting::timeout(send_timeout)?);
        let connected = waiting::until_signal(py, stop.map(Bound::get), |is_wanted| {
            Client::connect_while(channel, timeout, config, is_wanted)
        })?;
        let client = connected.map_err(sending(py))?;
        Ok(Self { client: SlicedClient::new(client, send_timeout, false) })
    }

    #[getter]
    fn name(&self) -> &str {
        self.client.name()
    }

    /// Whether the server reads requests and is attached to the responses.
    #[getter]
    fn is_server_connected(&self) -> bool {
        self.client.is_server_connected()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    #[getter]
    fn max_request_size(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.client.open(py)?.shared.max_request_size())
    }

    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        let client = self.client.open(py)?;
        let send = |bytes: &[u8]| client.send(py, bytes, client.send_timeout);
        with_bytes(data, |bytes| send(bytes)?.map_err(sending(py)))
    }

    /// Memory for a request of `size` bytes, once there is room for it in the ring.
    fn acquire_request_buffer(&self, py: Python<'_>, size: usize) -> PyResult<PrivateRequest> {
        let client = self.client.open(py)?;
        let acquired = client.acquire(py, size, RequestLayout::new())?;
        let place = acquired.map_err(sending(py))?;
        let (sequence, bytes) = (place.sequence(), private::zeros(py, size)?.unbind());
        Ok(PrivateRequest { place: Mutex::new(Some(place)), sequence, bytes })
    }

    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive_response(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Frame> {
        let client = self.client.open(py)?;
        let response = client.receive_any(py, waiting::timeout(timeout)?)?;
        Frame::response(py, response.map_err(receiving(py))?)
    }

    #[pyo3(signature = (sequence, timeout=Some(5.0)),
        text_signature = "($self, sequence, timeout=5.0)")]
    fn receive_response_for(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Option<f64>,
    ) -> PyResult<Frame> {
        let client = self.client.open(py)?;
        let response = client.receive(py, sequence, waiting::timeout(timeout)?)?;
        Frame::response(py, response.map_err(receiving(py))?)
    }

    /// Sends `data` and waits for the response, both within `timeout`. A request that has no response by then is
    /// cancelled.
    #[pyo3(signature = (data, timeout=Some(5.0)),
        text_signature = "($self, data, timeout=5.0)")]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Frame> {
        let (client, start) = (self.client.open(py)?, Instant::now());
        let timeout = waiting::timeout(timeout)?;
        let send = |bytes: &[u8]| client.send(py, bytes, timeout);
        let sequence = with_bytes(data, |bytes| send(bytes)?.map_err(sending(py)))?;
        // A moment, where none is left: without any time the request would not be cancelled.
        let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
        let response = client.receive(py, sequence, left)?;
        Frame::response(py, response.map_err(|error| receiving(py)(after(error, timeout)))?)
    }

    fn cancel(&self, sequence: u64) -> bool {
        self.client.cancel(sequence)
    }

    /// Closes both buffers. Responses that are held stay readable. In a forked child it does nothing.
    fn close(&self, py: Python<'_>) {
        self.client.close(py);
    }
}

fn sending(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Requests)
}

fn receiving(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Responses)
}

/// A request that is being filled, in memory of this process alone. It has the buffer protocol; views of it
/// may stay, and nobody sees what is written through them after the commit.
///
/// Leaving a `with` block sends it; leaving it by an exception sends nothing.
#[pyclass(frozen, module = "zerobuffer._native")]
pub(crate) struct PrivateRequest {
    /// Where the bytes are copied to; `None` once they were, or the request was abandoned.
    place: Mutex<Option<OwnedRequestBuffer>>,
    sequence: u64,
    bytes: Py<PyByteArray>,
}

impl PrivateRequest {
    fn is_open(&self) -> bool {
        self.place.lock().is_some()
    }

    fn open<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyByteArray>> {
        match self.is_open() {
            true => Ok(self.bytes.bind(py)),
            false => Err(sending(py)(NOT_OPEN)),
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
        // One call gets what is open.
        let place = self.place.lock().take();
        let mut place = place.ok_or_else(|| sending(py)(NOT_OPEN))?;
        with_bytes(self.bytes.bind(py), |bytes| {
            let commit = move || {
                // Empty in a forked child, which the commit says.
                let to = place.data_mut();
                let len = to.len().min(bytes.len());
                to[..len].copy_from_slice(&bytes[..len]);
                place.commit()
            };
            if is_large(bytes.len()) { py.detach(commit) } else { commit() }.map_err(sending(py))
        })
    }

    /// Sends nothing. Called again, or after commit(), it does nothing.
    fn abandon(&self) {
        let place = self.place.lock().take();
        drop(place);
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
            true if self.is_open() => self.commit(py).map(drop),
            _ => {
                self.abandon();
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
