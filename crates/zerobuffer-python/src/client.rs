//! The client of an in-place channel, with what it holds: request buffers and responses.

use crate::buffer::{Exports, is_large, with_bytes};
use crate::errors::{self, closed, duplex};
use crate::two_buffers::TwoBufferClient;
use crate::waiting::{self, not_there, not_yet};
use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{
    ClientConfig, Error, OwnedRequestBuffer, OwnedResponse, RequestLayout, RequestState,
    SharedClient, v1,
};

const CLOSED: &str = "the client is closed; make a new one";

/// A client of an in-place channel. Any thread may use it; several can call at the same time.
///
/// Timeouts are in seconds; None waits for ever, 0 looks once. Closing it (`close()`, or leaving a
/// `with` block) lets the server serve the next client.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Client {
    client: SharedClient,
    send_timeout: Duration,
    resend_not_started: bool,
    closed: AtomicBool,
}

#[pymethods]
impl Client {
    /// Attaches to the server of channel `name`, waiting up to `timeout` for it.
    ///
    /// metadata: what the handler finds in every request of this client.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// send_timeout: how long sending waits for room.
    /// max_in_flight: the most requests in flight, held responses included.
    /// owner: the user id that must own the channel; default this process's user.
    /// resend_not_started: whether `call` sends a request again that the server's end left untouched.
    ///
    /// Raises NotRunning, Busy, BadName, BadConfig, TooLarge, PermissionDenied, ForeignObject or
    /// Incompatible.
    #[new]
    #[pyo3(signature = (name, timeout=Some(5.0), *, metadata=None, wait="default",
        send_timeout=Some(5.0), max_in_flight=4096, owner=None, resend_not_started=false),
        text_signature = "(name, timeout=5.0, *, metadata=None, wait='default', send_timeout=5.0, \
            max_in_flight=4096, owner=None, resend_not_started=False)")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        name: &str,
        timeout: Option<f64>,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        send_timeout: Option<f64>,
        max_in_flight: usize,
        owner: Option<u32>,
        resend_not_started: bool,
    ) -> PyResult<Self> {
        let mut config =
            ClientConfig::new().wait(waiting::strategy(wait)?).max_in_flight(max_in_flight);
        if let Some(metadata) = metadata {
            config = with_bytes(metadata, |bytes| Ok(config.metadata(bytes)))?;
        }
        if let Some(uid) = owner {
            config = config.owner(uid);
        }
        let connect = |slice| zerobuffer::Client::connect_with(name, slice, config.clone());
        let client = waiting::wait(py, waiting::timeout(timeout)?, not_there, connect)?
            .map_err(duplex(py))?;
        Ok(Self {
            client: client.into_shared(),
            send_timeout: waiting::timeout(send_timeout)?,
            resend_not_started,
            closed: AtomicBool::new(false),
        })
    }

    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        self.client.name()
    }

    /// What the server has published about itself; b"" if nothing.
    #[getter]
    fn server_metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.client.server_metadata())
    }

    /// Whether the server is there at this moment.
    #[getter]
    fn is_server_connected(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.client.is_server_connected()
    }

    /// Requests in flight. Those whose responses were given back since a request was sent last are
    /// still counted.
    #[getter]
    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    /// The most bytes that a request can have.
    #[getter]
    fn max_request_size(&self) -> usize {
        self.client.max_request_size()
    }

    /// Copies `data` (bytes, or anything with the buffer protocol) into the ring and sends it. Returns
    /// its sequence number.
    ///
    /// Raises Full if there is no room within the send timeout, TooLarge if there never is, ClaimOpen
    /// while this thread has a request buffer open, PeerDied or PeerClosed.
    fn send_request(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.check_open(py)?;
        with_bytes(data, |bytes| self.send(py, bytes, self.send_timeout)?.map_err(duplex(py)))
    }

    /// A buffer of `size` bytes in the ring, to be filled where the server will read it:
    ///
    ///     with client.acquire_request_buffer(image.nbytes) as buffer:
    ///         np.asarray(buffer)[:] = image.ravel()
    ///     response = client.receive_response_for(buffer.sequence)
    ///
    /// capacity: room for a longer answer. alignment: a power of two up to 4096, of the data's place.
    ///
    /// Raises as send_request does, and BadConfig.
    #[pyo3(signature = (size, *, capacity=0, alignment=1))]
    fn acquire_request_buffer(
        &self,
        py: Python<'_>,
        size: usize,
        capacity: usize,
        alignment: usize,
    ) -> PyResult<RequestBuffer> {
        self.check_open(py)?;
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment);
        let acquire = |slice| self.client.acquire_request_buffer(size, layout, slice);
        let buffer = waiting::wait(py, self.send_timeout, not_yet, acquire)?.map_err(duplex(py))?;
        Ok(RequestBuffer::in_place(buffer))
    }

    /// The oldest answer that is there, waiting for one up to `timeout`. Answers may come in any order:
    /// look at their `sequence`.
    ///
    /// Once the server is gone, what it had answered is delivered first, then each request that is left
    /// is reported once.
    ///
    /// Raises Timeout, which changes nothing; HandlerFailed, PeerDied and PeerClosed about the request
    /// in their `sequence`.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive_response(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Response> {
        self.check_open(py)?;
        let receive = |slice| self.client.receive_response(slice);
        let response = waiting::wait(py, waiting::timeout(timeout)?, not_yet, receive)?;
        response.map(Response::in_place).map_err(duplex(py))
    }

    /// The answer to request `sequence`, waiting for it up to `timeout`. Then the request is given up, as
    /// by cancel(), unless the timeout is 0.
    ///
    /// Raises as receive_response does, and UnknownSequence.
    #[pyo3(signature = (sequence, timeout=Some(5.0)),
        text_signature = "($self, sequence, timeout=5.0)")]
    fn receive_response_for(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        self.check_open(py)?;
        let response = self.receive(py, sequence, waiting::timeout(timeout)?)?;
        response.map(Response::in_place).map_err(duplex(py))
    }

    /// Sends `data` and waits for the answer, both within `timeout`. A request that has no answer by
    /// then is given up.
    ///
    /// Raises as send_request and receive_response do.
    #[pyo3(signature = (data, timeout=Some(5.0)),
        text_signature = "($self, data, timeout=5.0)")]
    fn call(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Response> {
        self.check_open(py)?;
        let timeout = waiting::timeout(timeout)?;
        let answer = with_bytes(data, |bytes| {
            let sequence = match self.client.send_request_within(bytes, Duration::ZERO) {
                Ok(sequence) if !is_large(bytes.len()) => sequence,
                sent => return self.call_slowly(py, bytes, sent, timeout),
            };
            // The usual case reads no clock.
            match self.client.poll_response_for(sequence, Duration::ZERO) {
                Ok(response) => Ok(Ok(response)),
                Err(error) if not_yet(&error) => self.call_slowly(py, bytes, Ok(sequence), timeout),
                Err(error) => self.call_slowly(py, bytes, Err(error), timeout),
            }
        });
        answer?.map(Response::in_place).map_err(duplex(py))
    }

    /// Gives up a request: no answer to it will be delivered. True if it was given up; False if its
    /// answer is there already, or if no such request is waiting.
    fn cancel(&self, sequence: u64) -> bool {
        self.client.cancel(sequence)
    }

    /// Attaches to the channel's present server after the former one has gone; a connection that works
    /// is left as it is. Sequence numbers start again at 1. Returns a list of LostRequest: what is
    /// known of each request that was in flight.
    ///
    /// Raises as Client() does: try again later.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn reconnect<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.check_open(py)?;
        let reconnect = |slice| self.client.reconnect(slice);
        let reconnected = waiting::wait(py, waiting::timeout(timeout)?, not_there, reconnect)?
            .map_err(duplex(py))?;
        let lost = reconnected.lost.into_iter().map(|lost| errors::lost_request(py, lost));
        PyList::new(py, lost.collect::<PyResult<Vec<_>>>()?)
    }

    /// Closes the channel in good order. Responses that are held stay readable.
    fn close(&self, py: Python<'_>) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            py.detach(|| self.client.close());
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
        format!("Client({:?})", self.name())
    }
}

impl Client {
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        match self.closed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(closed(py, CLOSED)),
        }
    }

    fn send(&self, py: Python<'_>, data: &[u8], timeout: Duration) -> PyResult<Result<u64, Error>> {
        let step = |slice| self.client.send_request_within(data, slice);
        match is_large(data.len()) {
            true => waiting::wait_detached(py, timeout, not_yet, step),
            false => waiting::wait(py, timeout, not_yet, step),
        }
    }

    /// Waits for one answer; afterwards the request is not waiting any more, whatever happens.
    fn receive(
        &self,
        py: Python<'_>,
        sequence: u64,
        timeout: Duration,
    ) -> PyResult<Result<OwnedResponse, Error>> {
        let poll = |slice| self.client.poll_response_for(sequence, slice);
        let received = waiting::wait(py, timeout, not_yet, poll);
        let late = matches!(received, Ok(Err(Error::Timeout { .. }))) && !timeout.is_zero();
        if (late || received.is_err()) && !self.client.cancel(sequence) {
            // The answer came while the request was being given up.
            let answer = self.client.poll_response_for(sequence, Duration::ZERO);
            if late && answer.is_ok() {
                return Ok(answer);
            }
        }
        received
    }

    /// A call from where it stands: sent as `sent`, not sent for want of room, or failed.
    #[cold]
    fn call_slowly(
        &self,
        py: Python<'_>,
        data: &[u8],
        mut sent: Result<u64, Error>,
        timeout: Duration,
    ) -> PyResult<Result<OwnedResponse, Error>> {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        loop {
            if sent.as_ref().is_err_and(not_yet) {
                sent = self.send(py, data, left())?;
            }
            let outcome = match sent {
                Ok(sequence) => self.receive(py, sequence, left().max(Duration::from_nanos(1)))?,
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if self.resend_not_started && is_not_started(&error) => {
                    let reconnect = |slice| self.client.reconnect(slice);
                    if let Err(error) = waiting::wait(py, left(), not_there, reconnect)? {
                        return Ok(Err(error));
                    }
                    sent = self.send(py, data, left())?;
                }
                Err(Error::Timeout { what, .. }) => {
                    return Ok(Err(Error::Timeout { waited: timeout, what }));
                }
                outcome => return Ok(outcome),
            }
        }
    }
}

/// Whether the server was gone before it took the request.
fn is_not_started(error: &Error) -> bool {
    match error {
        Error::PeerDied { request } | Error::PeerClosed { request } => {
            request.is_none_or(|request| request.state == RequestState::NotStarted)
        }
        _ => false,
    }
}

/// A request that is being written where the server will read it. It has the buffer protocol, so
/// `np.asarray(buffer)` and `memoryview(buffer)` show its bytes, which hold whatever was there before.
///
/// Leaving a `with` block sends it; leaving it by an exception sends nothing.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct RequestBuffer {
    state: Mutex<Filling>,
    exports: Exports,
}

struct Filling {
    open: Open,
    memory: SharedMemoryView,
    sequence: u64,
}

/// Where the request goes.
enum Open {
    InPlace(OwnedRequestBuffer),
    TwoBuffers(Py<TwoBufferClient>),
    /// It was committed or abandoned.
    Done,
}

impl RequestBuffer {
    fn in_place(buffer: OwnedRequestBuffer) -> Self {
        let (memory, sequence) = (buffer.memory(), buffer.sequence());
        let state = Filling { open: Open::InPlace(buffer), memory, sequence };
        Self { state: Mutex::new(state), exports: Exports::default() }
    }

    pub(crate) fn two_buffers(
        client: Py<TwoBufferClient>,
        memory: SharedMemoryView,
        sequence: u64,
    ) -> Self {
        let state = Filling { open: Open::TwoBuffers(client), memory, sequence };
        Self { state: Mutex::new(state), exports: Exports::default() }
    }

    fn done(py: Python<'_>) -> PyErr {
        closed(py, "the request was sent or abandoned; acquire another buffer")
    }
}

#[pymethods]
impl RequestBuffer {
    /// The sequence number that the request gets, or has got.
    #[getter]
    fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// A writable memoryview of the bytes. It is released when the request is sent or abandoned.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        slf.get().exports.data(slf)
    }

    /// The most bytes that request and answer may have.
    #[getter]
    fn capacity(&self) -> usize {
        match &*self.state.lock() {
            Filling { open: Open::InPlace(buffer), .. } => buffer.capacity(),
            Filling { memory, .. } => memory.len(),
        }
    }

    /// Changes the request's length, in an in-place channel.
    ///
    /// Raises TooLarge beyond the capacity, BufferError while a view is alive.
    fn resize(&self, py: Python<'_>, size: usize) -> PyResult<()> {
        self.exports.close(py)?;
        let mut state = self.state.lock();
        let Filling { open, memory, .. } = &mut *state;
        match open {
            Open::InPlace(buffer) => {
                buffer.resize(size).map_err(duplex(py))?;
                *memory = buffer.memory();
                Ok(())
            }
            Open::TwoBuffers(_) => {
                let what = "changing the length of a request of two buffers; acquire another one";
                Err(duplex(py)(Error::Unsupported { what }))
            }
            Open::Done => Err(Self::done(py)),
        }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// Raises BufferError while an array or another view of its bytes is alive (in an in-place
    /// channel), InvalidState if it was sent before or if the client was closed.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        let is_in_place = matches!(self.state.lock().open, Open::InPlace(_));
        if is_in_place {
            // The server edits these very bytes; those of two buffers are only copied from.
            self.exports.close(py)?;
        }
        let open = std::mem::replace(&mut self.state.lock().open, Open::Done);
        match open {
            Open::InPlace(buffer) => buffer.commit().map_err(duplex(py)),
            Open::TwoBuffers(client) => client.get().commit(py),
            Open::Done => Err(Self::done(py)),
        }
    }

    /// Sends nothing. What was written is forgotten, and views that are alive show whatever comes there.
    fn abandon(&self, py: Python<'_>) {
        let open = std::mem::replace(&mut self.state.lock().open, Open::Done);
        if let Open::TwoBuffers(client) = open {
            client.get().abandon(py);
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
        let is_done = matches!(self.state.lock().open, Open::Done);
        if is_done {
            return Ok(());
        }
        if value.is_none() {
            self.commit(py)?;
        } else {
            self.abandon(py);
        }
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.state.lock().memory.len()
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let memory = match &*this.state.lock() {
            Filling { open: Open::Done, .. } => return Err(Self::done(slf.py())),
            Filling { memory, .. } => memory.clone(),
        };
        // SAFETY: Python's call; `state` keeps the memory, whose replacement waits for all views.
        unsafe { this.exports.fill(&slf, view, flags, &memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        unsafe { self.exports.released(view) };
    }
}

/// An answer, read where the server left it. It has the buffer protocol, so `np.asarray(response)`
/// shows its bytes without a copy; they may be changed, too, which nobody else sees.
///
/// Its place in the ring is given back by release(), at the end of a `with` block, or with the object.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Response {
    held: Mutex<Option<Held>>,
    memory: SharedMemoryView,
    sequence: u64,
    exports: Exports,
}

/// What gives the bytes back when it is dropped.
#[expect(dead_code, reason = "they are held, and that is all")]
enum Held {
    InPlace(OwnedResponse),
    TwoBuffers(v1::OwnedDuplexResponse),
}

impl Response {
    pub(crate) fn in_place(response: OwnedResponse) -> Self {
        let (memory, sequence) = (response.memory(), response.sequence());
        Self::new(Held::InPlace(response), memory, sequence)
    }

    pub(crate) fn two_buffers(response: v1::OwnedDuplexResponse) -> Self {
        let (memory, sequence) = (response.memory(), response.sequence());
        Self::new(Held::TwoBuffers(response), memory, sequence)
    }

    fn new(held: Held, memory: SharedMemoryView, sequence: u64) -> Self {
        Self { held: Mutex::new(Some(held)), memory, sequence, exports: Exports::default() }
    }
}

#[pymethods]
impl Response {
    /// The sequence number of the request that this is the answer to.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A memoryview of the bytes. It is released with the response.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        slf.get().exports.data(slf)
    }

    /// Gives the bytes back to the ring. Called again it does nothing.
    ///
    /// Raises BufferError while an array or another view of them is alive, and the response is held
    /// as before.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        if self.held.lock().is_some() {
            self.exports.close(py)?;
            *self.held.lock() = None;
        }
        Ok(())
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
        match self.release(py) {
            // The exception's traceback keeps views; they keep the response until they are gone.
            Err(_) if !value.is_none() => Ok(()),
            released => released,
        }
    }

    fn __len__(&self) -> usize {
        self.memory.len()
    }

    fn __repr__(&self) -> String {
        format!("Response(sequence={}, size={})", self.sequence, self.memory.len())
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        if this.held.lock().is_none() {
            return Err(closed(slf.py(), "the response was given back"));
        }
        // SAFETY: Python's call; this object keeps the memory.
        unsafe { this.exports.fill(&slf, view, flags, &this.memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        unsafe { self.exports.released(view) };
    }
}
