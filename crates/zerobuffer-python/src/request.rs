//! A request in a server's hands.

use crate::buffer::{self, Exports, support};
use crate::errors::duplex;
use parking_lot::Mutex;
use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyModule};
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerobuffer::memory::{HeapMemory, MemoryProvider, SharedMemoryView};
use zerobuffer::{ClientIdentity, Error, OwnedRequest};

const DONE: Error = Error::InvalidState { reason: "the request was answered" };

/// The `zerobuffer.ClientIdentity`.
fn identity<'py>(py: Python<'py>, client: &ClientIdentity) -> PyResult<Bound<'py, PyAny>> {
    let facts = (client.number(), client.pid(), client.uid(), client.gid(), client.label());
    PyModule::import(py, "zerobuffer.types")?.getattr("ClientIdentity")?.call1(facts)
}

/// A request in the server's hands: its bytes, to be edited. It has the buffer protocol, so
/// `np.asarray(request)` is an array on the shared bytes, and changing that changes the response.
///
/// A background handler only edits it. One that was received is answered by respond() or fail(), or at
/// the end of a `with` block: an exception fails it.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Request {
    state: Mutex<Serving>,
    sequence: u64,
    exports: Exports,
    /// `None` for a copy, whose views hold up nothing.
    server: Option<Arc<Told>>,
}

/// The server that a request is from, and whether its log has it that views hold up answers.
pub(crate) struct Told {
    channel: String,
    told: AtomicBool,
}

impl Told {
    pub(crate) fn of(channel: &str) -> Arc<Self> {
        Arc::new(Self { channel: channel.to_owned(), told: AtomicBool::new(false) })
    }
}

struct Serving {
    origin: Origin,
    memory: SharedMemoryView,
    /// What the response says instead, if it is a failure.
    failure: Option<String>,
}

/// Where the request is from.
enum Origin {
    InPlace(OwnedRequest),
    /// A copy, of a server of two buffers, with its client's metadata.
    Copy(Vec<u8>),
    /// In place, and answered as soon as the last view is deleted.
    Viewed(OwnedRequest),
    /// It was answered.
    Done,
}

impl Request {
    pub(crate) fn in_place(request: OwnedRequest, server: &Arc<Told>) -> Self {
        let (memory, sequence) = (request.memory(), request.sequence());
        Self::new(Origin::InPlace(request), memory, sequence, Some(Arc::clone(server)))
    }

    /// A copy of `data`, to be edited.
    pub(crate) fn copy(data: &[u8], metadata: &[u8], sequence: u64) -> Result<Self, Error> {
        let mut heap = HeapMemory::new();
        heap.allocate(data.len())?;
        let memory = heap.map(0, data.len())?;
        // SAFETY: the memory is new, as long as `data`, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), memory.as_ptr(), data.len()) };
        Ok(Self::new(Origin::Copy(metadata.to_vec()), memory, sequence, None))
    }

    fn new(
        origin: Origin,
        memory: SharedMemoryView,
        sequence: u64,
        server: Option<Arc<Told>>,
    ) -> Self {
        let state = Mutex::new(Serving { origin, memory, failure: None });
        Self { state, sequence, exports: Exports::default(), server }
    }

    /// Copies the edited bytes out, into as many; or the failure that was answered instead.
    pub(crate) fn copy_to(&self, data: &mut [u8]) -> Result<(), String> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let memory = &state.memory;
        assert_eq!(memory.len(), data.len(), "a copy keeps its length");
        // SAFETY: both are that long. A view that the handler has leaked to another thread may be
        // written meanwhile; then a mixture is copied.
        unsafe { std::ptr::copy_nonoverlapping(memory.as_ptr(), data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    /// Answers, a failure if there is one, at once or with the last view. `None` if it was answered before.
    pub(crate) fn answer(&self, py: Python<'_>, failure: Option<String>) -> Option<()> {
        let mut state = self.state.lock();
        let request = match std::mem::replace(&mut state.origin, Origin::Done) {
            Origin::InPlace(request) => Some(request),
            // A view of a copy disturbs nothing.
            Origin::Copy(_) => None,
            answered => {
                state.origin = answered;
                return None;
            }
        };
        state.failure = failure;
        drop(state);
        let alive = self.exports.end(py);
        if let Some(request) = request {
            self.state.lock().origin = Origin::Viewed(request);
            if alive == 0 {
                self.publish();
            }
        }
        Some(())
    }

    /// Says that views keep the response back, if any do: as a warning each time, and in the log for each
    /// server once, because its client waits meanwhile.
    ///
    /// # Errors
    /// The warning, where the program has made it one.
    pub(crate) fn tell_of_views(&self, py: Python<'_>) -> PyResult<()> {
        let alive = self.kept_back();
        let server = self.server.as_ref().filter(|_| alive > 0);
        if let Some(server) = server.filter(|server| !server.told.swap(true, Ordering::Relaxed)) {
            let facts = (&server.channel, self.sequence, alive);
            support(py)?.call_method1("log_views", facts)?;
        }
        buffer::warn_of_views(py, "request", alive)
    }

    /// Views that keep the response back.
    fn kept_back(&self) -> usize {
        match self.state.lock().origin {
            Origin::Viewed(_) => self.exports.alive(),
            _ => 0,
        }
    }

    /// Sends the response that has waited for the last view, if one has.
    fn publish(&self) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.origin, Origin::Done) {
            Origin::Viewed(request) => match &state.failure {
                Some(message) => request.fail(message),
                None => request.respond(),
            },
            origin => state.origin = origin,
        }
    }

    /// Whether `object` shows the request's own bytes: what a handler that has edited them may return.
    pub(crate) fn is_shown_by(&self, object: &Bound<'_, PyAny>) -> bool {
        let memory = self.state.lock().memory.clone();
        let start = memory.as_ptr().addr();
        buffer::address(object).is_some_and(|at| (start..=start + memory.len()).contains(&at))
    }

    fn check_unanswered(&self, py: Python<'_>) -> PyResult<()> {
        let is_answered = matches!(self.state.lock().origin, Origin::Done | Origin::Viewed(_));
        if is_answered { Err(Self::done(py)) } else { Ok(()) }
    }

    fn done(py: Python<'_>) -> PyErr {
        duplex(py)(DONE)
    }
}

/// What the client is told of an exception: its type, and its text if it has one.
pub(crate) fn message(py: Python<'_>, error: &PyErr) -> String {
    let kind = error.get_type(py).name().map(|name| name.to_string());
    let kind = kind.unwrap_or_else(|_| "an exception".to_owned());
    match error.value(py).str().map(|text| text.to_string()) {
        Ok(text) if !text.is_empty() => format!("{kind}: {text}"),
        _ => kind,
    }
}

#[pymethods]
impl Request {
    /// The request's sequence number; its response carries the same one.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The metadata of the client that sent it; b"" if it has none.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let metadata = match &self.state.lock().origin {
            Origin::InPlace(request) => Ok(PyBytes::new(py, request.metadata())),
            Origin::Copy(metadata) => Ok(PyBytes::new(py, metadata)),
            Origin::Viewed(_) | Origin::Done => Err(DONE),
        };
        metadata.map_err(duplex(py))
    }

    /// Who sent it: a ClientIdentity, with number, pid, uid, gid and label. None on a channel, which has one
    /// client.
    #[getter]
    fn client<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let client = match &self.state.lock().origin {
            Origin::InPlace(request) => Ok(request.client().cloned()),
            Origin::Copy(_) => Ok(None),
            Origin::Viewed(_) | Origin::Done => Err(DONE),
        };
        let client = client.map_err(duplex(py))?;
        client.map(|client| identity(py, &client)).transpose()
    }

    /// Whether nobody gets the response any more: the client has cancelled the request, has closed or died. A
    /// long handler checks it between two steps, and returns when it is true.
    ///
    /// A server that is being stopped still delivers the response, so this stays false: finish it, or raise.
    /// Only when the server's stop_timeout has passed, and the client has got PeerClosed, is it true as well: a
    /// later response is not delivered.
    #[getter]
    fn cancelled(&self) -> bool {
        match &self.state.lock().origin {
            Origin::InPlace(request) => request.cancelled(),
            Origin::Copy(_) | Origin::Viewed(_) | Origin::Done => false,
        }
    }

    /// A writable memoryview of the bytes. It is released when the request is answered.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        slf.get().check_unanswered(slf.py())?;
        slf.get().exports.data(slf)
    }

    /// The length in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.state.lock().memory.len()
    }

    /// The most bytes that the response can have.
    #[getter]
    fn capacity(&self) -> usize {
        match &*self.state.lock() {
            Serving { origin: Origin::InPlace(request), .. } => request.capacity(),
            Serving { memory, .. } => memory.len(),
        }
    }

    /// Changes the length, for a response that is longer or shorter; bytes that are added are zero.
    ///
    /// Raises TooLarge beyond the capacity, BufferError while a view is alive.
    fn resize(&self, py: Python<'_>, size: usize) -> PyResult<()> {
        self.check_unanswered(py)?;
        self.exports.close(py)?;
        let resized = match &mut *self.state.lock() {
            Serving { origin: Origin::InPlace(request), memory, .. } => {
                request.resize(size).map(|()| *memory = request.memory())
            }
            Serving { origin: Origin::Copy(_), memory, .. } if size == memory.len() => Ok(()),
            Serving { origin: Origin::Copy(_), .. } => {
                let what = "an answer of another length than its request's, through two buffers";
                Err(Error::Unsupported { what })
            }
            Serving { origin: Origin::Viewed(_) | Origin::Done, .. } => Err(DONE),
        };
        resized.map_err(duplex(py))
    }

    /// The bytes as a numpy array of this shape and type, without a copy; by default all bytes in a row.
    ///
    /// Raises ValueError if the array would have another size.
    #[pyo3(signature = (shape=None, dtype=None))]
    fn array<'py>(
        slf: &Bound<'py, Self>,
        shape: Option<&Bound<'py, PyAny>>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::array(slf, shape, dtype)
    }

    /// For numpy, which asks here once the request was answered: an error then.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::as_array(slf, dtype, copy)
    }

    /// Copies `data`, an array or whatever else has bytes, to the place `at` of the request, and returns how
    /// many bytes that were. The length stays as it is.
    ///
    /// Raises ValueError if they do not fit, TypeError for objects, pointers and what has no bytes.
    #[pyo3(signature = (data, at=0))]
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>, at: usize) -> PyResult<usize> {
        buffer::write(slf, data, at)
    }

    /// Answers with the bytes as they are now.
    ///
    /// While an array or another view of them is alive, the bytes stay the holder's: the response goes out
    /// with the last one, and a ResourceWarning says so.
    ///
    /// Raises InvalidState if it was answered before.
    fn respond(&self, py: Python<'_>) -> PyResult<()> {
        self.answer(py, None).ok_or_else(|| Self::done(py))?;
        self.tell_of_views(py)
    }

    /// Answers with a failure: the client gets HandlerFailed with as much of `message` as fits. Views keep it
    /// back as they do with respond().
    ///
    /// Raises InvalidState if it was answered before.
    fn fail(&self, py: Python<'_>, message: String) -> PyResult<()> {
        self.answer(py, Some(message)).ok_or_else(|| Self::done(py))?;
        self.tell_of_views(py)
    }

    /// For AsyncServer, once a handler's failure was answered and reported: lets go of its own arrays, in the frames
    /// of its traceback, which others may keep; and tells of views that keep the response back all the same.
    pub(crate) fn clear_frames(&self, error: &Bound<'_, PyBaseException>) -> PyResult<()> {
        let py = error.py();
        if self.kept_back() > 0 {
            support(py)?.call_method1("clear_frames", (error,))?;
        }
        self.tell_of_views(py)
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
        if value.is_none() {
            self.answer(py, None);
            return self.tell_of_views(py);
        }
        // The exception's traceback keeps views; it is what the program has to hear of.
        self.answer(py, Some(message(py, &PyErr::from_value(value.clone()))));
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.size()
    }

    fn __repr__(&self) -> String {
        format!("Request(sequence={}, size={})", self.sequence, self.size())
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let memory = match &*this.state.lock() {
            Serving { origin: Origin::Viewed(_) | Origin::Done, .. } => Err(DONE),
            Serving { memory, .. } => Ok(memory.clone()),
        };
        let memory = memory.map_err(duplex(slf.py()))?;
        // SAFETY: Python's call; `state` keeps the memory, whose replacement waits for all views.
        unsafe { this.exports.fill(&slf, view, flags, &memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        let is_last = unsafe { self.exports.released(view) };
        if is_last {
            self.publish();
        }
    }
}
