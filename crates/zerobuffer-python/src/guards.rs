//! What a client holds in its hands: a request to fill, a response to read.

use crate::buffer::{self, Exports};
use crate::errors::{closed, duplex};
use parking_lot::Mutex;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Error, OwnedRequestBuffer, OwnedResponse};

const DONE: Error =
    Error::InvalidState { reason: "the request was sent or abandoned; acquire another buffer" };

/// A request that is being written where the server will read it. It has the buffer protocol, so
/// `np.asarray(buffer)` and `memoryview(buffer)` show its bytes, which hold whatever was there before.
///
/// Leaving a `with` block sends it; leaving it by an exception sends nothing. Views may stay: what is
/// written through them later can only disturb this client.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct RequestBuffer {
    state: Mutex<OpenBuffer>,
    exports: Exports,
    /// It is not sent while views of it are alive.
    strict: bool,
}

struct OpenBuffer {
    /// `None` once it was committed or abandoned.
    open: Option<OwnedRequestBuffer>,
    memory: SharedMemoryView,
    sequence: u64,
}

impl RequestBuffer {
    pub(crate) fn new(buffer: OwnedRequestBuffer, strict: bool) -> Self {
        let (memory, sequence) = (buffer.memory(), buffer.sequence());
        let state = Mutex::new(OpenBuffer { open: Some(buffer), memory, sequence });
        Self { state, exports: Exports::default(), strict }
    }

    fn done(py: Python<'_>) -> PyErr {
        duplex(py)(DONE)
    }

    fn is_done(&self) -> bool {
        self.state.lock().open.is_none()
    }

    /// The end of it: one call gets what is open.
    fn take(&self) -> Option<OwnedRequestBuffer> {
        self.state.lock().open.take()
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
        if slf.get().is_done() {
            return Err(Self::done(slf.py()));
        }
        slf.get().exports.data(slf)
    }

    /// The most bytes that request and answer may have.
    #[getter]
    fn capacity(&self) -> usize {
        match &*self.state.lock() {
            OpenBuffer { open: Some(buffer), .. } => buffer.capacity(),
            OpenBuffer { memory, .. } => memory.len(),
        }
    }

    /// Changes the request's length.
    ///
    /// Raises TooLarge beyond the capacity, BufferError while a view is alive.
    fn resize(&self, py: Python<'_>, size: usize) -> PyResult<()> {
        if self.is_done() {
            return Err(Self::done(py));
        }
        self.exports.close(py)?;
        let resized = match &mut *self.state.lock() {
            OpenBuffer { open: Some(buffer), memory, .. } => {
                buffer.resize(size).map(|()| *memory = buffer.memory())
            }
            _ => Err(DONE),
        };
        resized.map_err(duplex(py))
    }

    /// Copies `data`, an array or whatever else has bytes, to the place `at` of the request, and returns how
    /// many bytes that were. The request's length stays as it is.
    ///
    /// Raises ValueError if they do not fit, TypeError for objects, pointers and what has no bytes.
    #[pyo3(signature = (data, at=0))]
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>, at: usize) -> PyResult<usize> {
        buffer::write(slf, data, at)
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

    /// For numpy, which asks here once the request was sent or abandoned: an error then.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::as_array(slf, dtype, copy)
    }

    /// Sends the request, and returns its sequence number. Arrays and other views of its bytes may be
    /// alive: what is written through them from now on can disturb this client's requests.
    ///
    /// Raises InvalidState if it was sent before or if the client was closed. BufferError if the client has
    /// strict_views and a view is alive: then nothing is sent, and the buffer is abandoned.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        let buffer = self.take().ok_or_else(|| Self::done(py))?;
        match self.exports.end(py) {
            alive if self.strict && alive > 0 => Err(PyBufferError::new_err(format!(
                "{alive} view(s) of this request are alive (an array, a memoryview, a slice of one), \
                 and the client has strict_views: nothing was sent, acquire another buffer"
            ))),
            _ => buffer.commit().map_err(duplex(py)),
        }
    }

    /// Sends nothing, and releases `data`. What is written later through arrays that are alive can disturb
    /// this client's requests, as after commit().
    fn abandon(&self, py: Python<'_>) {
        drop(self.take());
        self.exports.end(py);
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
            _ if self.is_done() => {}
            true => drop(self.commit(py)?),
            false => self.abandon(py),
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
            OpenBuffer { open: None, .. } => Err(DONE),
            OpenBuffer { memory, .. } => Ok(memory.clone()),
        };
        let memory = memory.map_err(duplex(slf.py()))?;
        // SAFETY: Python's call; `state` keeps the memory, whose replacement waits for all views.
        unsafe { this.exports.fill(&slf, view, flags, &memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        unsafe { self.exports.released(view) };
    }
}

/// A response, read where the server left it. It has the buffer protocol, so `np.asarray(response)`
/// shows its bytes without a copy; they may be changed, too, which nobody else sees.
///
/// Its place in the ring is released by release(), at the end of a `with` block, or with the object; but not
/// before the last array or other view of it is deleted.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Response {
    /// It has the memory, too: views keep it here.
    held: Mutex<Option<OwnedResponse>>,
    /// It was released; views that are left keep its place.
    ended: AtomicBool,
    size: usize,
    sequence: u64,
    exports: Exports,
}

impl Response {
    pub(crate) fn new(response: OwnedResponse) -> Self {
        let (size, sequence) = (response.len(), response.sequence());
        let held = Mutex::new(Some(response));
        let ended = AtomicBool::new(false);
        Self { held, ended, size, sequence, exports: Exports::default() }
    }

    fn check_held(&self, py: Python<'_>) -> PyResult<()> {
        match self.ended.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Self::released(py)),
        }
    }

    fn released(py: Python<'_>) -> PyErr {
        closed(py, "the response was released; copy what is to be kept")
    }

    /// Ends it; how many views keep its place.
    fn end(&self, py: Python<'_>) -> usize {
        if self.ended.swap(true, Ordering::Relaxed) {
            return 0;
        }
        let alive = self.exports.end(py);
        if alive == 0 {
            self.let_go();
        }
        alive
    }

    fn let_go(&self) {
        let held = self.held.lock().take();
        drop(held);
    }
}

#[pymethods]
impl Response {
    /// The sequence number of the request that this is the response to.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A memoryview of the bytes. It is released with the response.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        slf.get().check_held(slf.py())?;
        slf.get().exports.data(slf)
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

    /// For numpy, which asks here once the response was released: an error then.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::as_array(slf, dtype, copy)
    }

    /// Releases the bytes' place in the ring. Called again it does nothing.
    ///
    /// While an array or another view of them is alive, the place stays taken: it is released with the last
    /// one, and a ResourceWarning says so.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        buffer::warn_of_views(py, "response", self.end(py))
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
        match self.end(py) {
            // The exception's traceback keeps views; it is what the program has to hear of.
            _ if !value.is_none() => Ok(()),
            alive => buffer::warn_of_views(py, "response", alive),
        }
    }

    fn __len__(&self) -> usize {
        self.size
    }

    fn __repr__(&self) -> String {
        format!("Response(sequence={}, size={})", self.sequence, self.size)
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        this.check_held(slf.py())?;
        let memory = this.held.lock().as_ref().map(OwnedResponse::memory);
        let memory = memory.ok_or_else(|| Self::released(slf.py()))?;
        // SAFETY: Python's call; `held` keeps the memory for as long as there are views of it.
        unsafe { this.exports.fill(&slf, view, flags, &memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        let is_last = unsafe { self.exports.released(view) };
        if is_last && self.ended.load(Ordering::Relaxed) {
            self.let_go();
        }
    }
}
