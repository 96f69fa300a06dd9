//! A request in a server's hands.

use crate::buffer::{self, Exports};
use crate::errors::{closed, duplex};
use parking_lot::Mutex;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use std::ffi::c_int;
use zerobuffer::memory::{HeapMemory, MemoryProvider, SharedMemoryView};
use zerobuffer::{Error, OwnedRequest};

/// A request in the server's hands: its bytes, to be edited. It has the buffer protocol, so
/// `np.asarray(request)` is an array on the shared bytes, and changing that changes the answer.
///
/// A background handler only edits it. One that was received is answered by respond() or fail(), or at
/// the end of a `with` block: an exception fails it.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Request {
    state: Mutex<Serving>,
    sequence: u64,
    exports: Exports,
}

struct Serving {
    from: From,
    memory: SharedMemoryView,
    /// What the answer says instead, if it is a failure.
    failure: Option<String>,
}

/// Where the request is from.
enum From {
    InPlace(OwnedRequest),
    /// A copy, of a server of two buffers, with its client's metadata.
    Copy(Vec<u8>),
    /// It was answered.
    Done,
}

impl Request {
    pub(crate) fn in_place(request: OwnedRequest) -> Self {
        let (memory, sequence) = (request.memory(), request.sequence());
        let state = Serving { from: From::InPlace(request), memory, failure: None };
        Self { state: Mutex::new(state), sequence, exports: Exports::default() }
    }

    /// A copy of `data`, to be edited.
    pub(crate) fn copy(data: &[u8], metadata: &[u8], sequence: u64) -> Result<Self, Error> {
        let mut heap = HeapMemory::new();
        heap.allocate(data.len())?;
        let memory = heap.map(0, data.len())?;
        // SAFETY: the memory is new, as long as `data`, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), memory.as_ptr(), data.len()) };
        let state = Serving { from: From::Copy(metadata.to_vec()), memory, failure: None };
        Ok(Self { state: Mutex::new(state), sequence, exports: Exports::default() })
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

    /// Answers after a handler, and returns what there is to report.
    pub(crate) fn finish(&self, py: Python<'_>, outcome: PyResult<()>) -> Option<PyErr> {
        let is_answered = matches!(self.state.lock().from, From::Done);
        let (error, told) = match outcome {
            Ok(()) if is_answered => return None,
            Ok(()) => match self.respond(py) {
                Ok(()) => return None,
                // Short, because it has to fit the request's place.
                Err(error) => (error, "handler kept a view: copy data".to_owned()),
            },
            Err(error) => {
                let told = message(py, &error);
                (error, told)
            }
        };
        self.answer_failure(py, &told);
        Some(error)
    }

    fn answer_failure(&self, py: Python<'_>, message: &str) {
        self.exports.abandon(py);
        let mut state = self.state.lock();
        state.failure = Some(message.to_owned());
        let from = std::mem::replace(&mut state.from, From::Done);
        drop(state);
        if let From::InPlace(request) = from {
            // Arrays that are alive keep the memory, and show whatever comes there.
            request.fail(message);
        }
    }

    fn check_unanswered(&self, py: Python<'_>) -> PyResult<()> {
        let is_answered = matches!(self.state.lock().from, From::Done);
        if is_answered { Err(Self::done(py)) } else { Ok(()) }
    }

    fn done(py: Python<'_>) -> PyErr {
        closed(py, "the request was answered")
    }
}

/// An exception's text, or its type if it has none.
pub(crate) fn message(py: Python<'_>, error: &PyErr) -> String {
    let text = error.value(py).str().map(|text| text.to_string()).unwrap_or_default();
    match text.is_empty() {
        true => error.get_type(py).to_string(),
        false => text,
    }
}

#[pymethods]
impl Request {
    /// The request's sequence number; its answer carries the same one.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The metadata of the client that sent it; b"" if it has none.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match &self.state.lock().from {
            From::InPlace(request) => Ok(PyBytes::new(py, request.metadata())),
            From::Copy(metadata) => Ok(PyBytes::new(py, metadata)),
            From::Done => Err(Self::done(py)),
        }
    }

    /// A writable memoryview of the bytes. It is released when the request is answered.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        slf.get().exports.data(slf)
    }

    /// The length in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.state.lock().memory.len()
    }

    /// The most bytes that the answer can have.
    #[getter]
    fn capacity(&self) -> usize {
        match &*self.state.lock() {
            Serving { from: From::InPlace(request), .. } => request.capacity(),
            Serving { memory, .. } => memory.len(),
        }
    }

    /// Changes the length, for an answer that is longer or shorter; bytes that are added are zero.
    ///
    /// Raises TooLarge beyond the capacity, BufferError while a view is alive.
    fn resize(&self, py: Python<'_>, size: usize) -> PyResult<()> {
        self.check_unanswered(py)?;
        self.exports.close(py)?;
        let mut state = self.state.lock();
        let Serving { from, memory, .. } = &mut *state;
        match from {
            From::InPlace(request) => {
                request.resize(size).map_err(duplex(py))?;
                *memory = request.memory();
                Ok(())
            }
            From::Copy(_) if size == memory.len() => Ok(()),
            From::Copy(_) => {
                let what = "an answer of another length than its request's, through two buffers";
                Err(duplex(py)(Error::Unsupported { what }))
            }
            From::Done => Err(Self::done(py)),
        }
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
    /// Raises BufferError while an array or another view of them is alive, and InvalidState if it was
    /// answered before.
    fn respond(&self, py: Python<'_>) -> PyResult<()> {
        self.check_unanswered(py)?;
        self.exports.close(py)?;
        let from = std::mem::replace(&mut self.state.lock().from, From::Done);
        match from {
            From::InPlace(request) => {
                request.respond();
                Ok(())
            }
            From::Copy(_) | From::Done => Ok(()),
        }
    }

    /// Answers with a failure: the client gets HandlerFailed with as much of `message` as fits.
    ///
    /// Raises BufferError and InvalidState as respond() does.
    fn fail(&self, py: Python<'_>, message: &str) -> PyResult<()> {
        self.check_unanswered(py)?;
        self.exports.close(py)?;
        self.answer_failure(py, message);
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
        let is_answered = matches!(self.state.lock().from, From::Done);
        if is_answered {
            return Ok(());
        }
        if value.is_none() {
            return self.respond(py);
        }
        self.answer_failure(py, &message(py, &PyErr::from_value(value.clone())));
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
            Serving { from: From::Done, .. } => return Err(Self::done(slf.py())),
            Serving { memory, .. } => memory.clone(),
        };
        // SAFETY: Python's call; `state` keeps the memory, whose replacement waits for all views.
        unsafe { this.exports.fill(&slf, view, flags, &memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        unsafe { self.exports.released(view) };
    }
}
