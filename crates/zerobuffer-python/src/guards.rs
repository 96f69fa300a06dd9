//! What a client holds in its hands: a request to fill, an answer to read.

use crate::buffer::{self, Exports};
use crate::errors::{closed, duplex};
use crate::two_buffers::TwoBufferClient;
use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ffi::c_int;
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Error, OwnedRequestBuffer, OwnedResponse, v1};

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
    pub(crate) fn in_place(buffer: OwnedRequestBuffer) -> Self {
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

    /// Copies `data`, an array or whatever else has bytes, to the place `at` of the request, and returns how
    /// many bytes that were. The request's length stays as it is.
    ///
    /// Raises ValueError if they do not fit, TypeError for objects, pointers and what has no bytes.
    #[pyo3(signature = (data, at=0))]
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>, at: usize) -> PyResult<usize> {
        buffer::write(slf, data, at)
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// Raises BufferError while an array or another view of its bytes is alive, InvalidState if it was
    /// sent before or if the client was closed.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        self.exports.close(py)?;
        let open = std::mem::replace(&mut self.state.lock().open, Open::Done);
        match open {
            Open::InPlace(buffer) => buffer.commit().map_err(duplex(py)),
            Open::TwoBuffers(client) => client.get().commit(py),
            Open::Done => Err(Self::done(py)),
        }
    }

    /// Sends nothing, and releases `data`. Arrays that are alive must not be written any more: their place
    /// is used again.
    fn abandon(&self, py: Python<'_>) {
        self.exports.abandon(py);
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
