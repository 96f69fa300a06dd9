//! Version 1: the reader of a buffer, and its frames.

use crate::buffer::{self, Exports};
use crate::errors::{Side, exception};
use crate::private;
use crate::process::Process;
use crate::server::sizes;
use crate::waiting::{self, not_yet};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Error, OwnedResponse, v1};

/// A reader of version 1: it creates the buffer, owns it, and removes it when it is closed. Any thread
/// may use it.
#[pyclass(frozen, subclass, module = "zerobuffer")]
pub(crate) struct Reader {
    name: String,
    /// `None` once closed; calls that are under way have a reference of their own.
    reader: Mutex<Option<Arc<v1::Reader>>>,
    /// Whether its frames are copies.
    copies: bool,
    /// What was read, once closed.
    last: Mutex<v1::ReaderStatistics>,
    process: Process,
}

#[pymethods]
impl Reader {
    /// Creates the buffer `name` with the sizes in `config`, a BufferConfig.
    ///
    /// Its frames are memory of this process alone, copied when they are read. With `copy=False` they are the
    /// shared bytes themselves, read-only.
    ///
    /// Raises AlreadyRunning, NoSpace, ForeignObject, BadName, BadConfig or PermissionDenied.
    #[new]
    #[pyo3(signature = (name, config=None, *, copy=true))]
    fn new(
        py: Python<'_>,
        name: &str,
        config: Option<&Bound<'_, PyAny>>,
        copy: bool,
    ) -> PyResult<Self> {
        let config = sizes(config)?;
        // Reserving the memory may take a while.
        let reader = py.detach(|| v1::Reader::create(name, config)).map_err(raised(py))?;
        let reader = Mutex::new(Some(Arc::new(reader)));
        let (last, process) = (Mutex::default(), Process::default());
        Ok(Self { name: name.to_owned(), reader, copies: copy, last, process })
    }

    /// The buffer's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The next frame, waiting for it up to `timeout` seconds (None: for ever); None if there is none
    /// by then.
    ///
    /// Raises WriterDeadException once the writer has ended and everything was read, or if none has come
    /// in that time (then it is a NotConnectedYet); SequenceError; ProtocolViolation.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn read_frame(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Frame>> {
        self.process.check(py)?;
        let read = |slice: Duration| {
            let reader = self.get()?;
            reader.read_frame(slice).map(v1::FrameView::into_owned)
        };
        match waiting::wait(py, waiting::timeout(timeout)?, not_yet, read)? {
            Ok(frame) => Frame::read(py, frame, self.copies).map(Some),
            Err(Error::Timeout { .. }) => Ok(None),
            Err(error) => Err(raised(py)(error)),
        }
    }

    /// Gives a frame's space back to the writer, as `frame.dispose()` does.
    fn release_frame(&self, py: Python<'_>, frame: &Frame) -> PyResult<()> {
        frame.dispose(py)
    }

    /// A memoryview of a copy of the metadata; None if the writer has set none.
    fn get_metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        self.process.check(py)?;
        let metadata = self.get().and_then(|reader| reader.metadata()).map_err(raised(py))?;
        let view = |bytes: Vec<u8>| private::view(&PyByteArray::new(py, &bytes), bytes.len());
        metadata.map(view).transpose()
    }

    /// Whether a live writer is attached, waiting for one up to `timeout_ms` milliseconds.
    #[pyo3(signature = (timeout_ms=None))]
    fn is_writer_connected(&self, py: Python<'_>, timeout_ms: Option<u64>) -> PyResult<bool> {
        self.process.check(py)?;
        let timeout = Duration::from_millis(timeout_ms.unwrap_or(0));
        let connected = waiting::wait(py, timeout, not_yet, |slice| match self.get() {
            Ok(reader) => reader.wait_for_writer(slice),
            Err(error) => Err(error),
        });
        Ok(connected?.is_ok())
    }

    /// Frames read so far.
    #[getter]
    fn frames_read(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.statistics(py)?.frames)
    }

    /// Their bytes.
    #[getter]
    fn bytes_read(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.statistics(py)?.bytes)
    }

    /// Removes the buffer. Frames that are held stay readable. In a forked child it does nothing.
    fn close(&self, py: Python<'_>) {
        if !self.process.is_this() {
            return;
        }
        let Some(reader) = self.reader.lock().take() else { return };
        *self.last.lock() = reader.statistics();
        py.detach(|| drop_last(reader));
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
        format!("Reader({:?})", self.name)
    }
}

impl Reader {
    fn get(&self) -> Result<Arc<v1::Reader>, Error> {
        self.reader.lock().clone().ok_or(Error::Closed)
    }

    fn statistics(&self, py: Python<'_>) -> PyResult<v1::ReaderStatistics> {
        self.process.check(py)?;
        Ok(self.get().map_or_else(|_| *self.last.lock(), |reader| reader.statistics()))
    }
}

/// Waits until no call uses the reader any more: each looks again every slice.
fn drop_last(mut reader: Arc<v1::Reader>) {
    while let Err(shared) = Arc::try_unwrap(reader) {
        std::thread::sleep(Duration::from_millis(1));
        reader = shared;
    }
}

fn raised(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Reader)
}

/// A frame. It has the buffer protocol: `np.asarray(frame)` shows its bytes. They are a copy of one's own,
/// writable, and valid for as long as anybody holds them; those of a reader with `copy=False` are the shared
/// ones, read-only.
///
/// Its space goes back to the writer by dispose(), at the end of a `with` block, or with the object.
#[pyclass(frozen, module = "zerobuffer")]
pub(crate) struct Frame {
    held: Mutex<Option<Held>>,
    /// It was disposed of; views of shared bytes that are left keep its place.
    ended: AtomicBool,
    bytes: Bytes,
    sequence: u64,
    size: usize,
}

/// What gives the space back when it is dropped.
#[expect(dead_code, reason = "they are held, and that is all")]
enum Held {
    Frame(v1::OwnedFrameView),
    Response(OwnedResponse),
}

/// What a frame shows.
enum Bytes {
    Copied(Py<PyByteArray>),
    Shared { memory: SharedMemoryView, exports: Exports },
}

impl Frame {
    fn read(py: Python<'_>, frame: v1::OwnedFrameView, copies: bool) -> PyResult<Self> {
        let (size, sequence) = (frame.len(), frame.sequence());
        let bytes = match copies {
            true => Bytes::Copied(private::copy_of(py, frame.data())?.unbind()),
            false => Bytes::Shared { memory: frame.memory(), exports: Exports::read_only() },
        };
        Ok(Self::new(Held::Frame(frame), bytes, size, sequence))
    }

    /// A response of a channel of two buffers.
    pub(crate) fn response(py: Python<'_>, response: OwnedResponse) -> PyResult<Self> {
        let (size, sequence) = (response.len(), response.sequence());
        let bytes = Bytes::Copied(private::copy_of(py, response.data())?.unbind());
        Ok(Self::new(Held::Response(response), bytes, size, sequence))
    }

    fn new(held: Held, bytes: Bytes, size: usize, sequence: u64) -> Self {
        let (held, ended) = (Mutex::new(Some(held)), AtomicBool::new(false));
        Self { held, ended, bytes, sequence, size }
    }

    fn is_disposed(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn check_held(&self) -> PyResult<()> {
        match self.is_disposed() {
            false => Ok(()),
            true => Err(PyValueError::new_err("Cannot access data of disposed frame")),
        }
    }

    /// Ends it; how many views keep its space.
    fn end(&self, py: Python<'_>) -> usize {
        if self.ended.swap(true, Ordering::Relaxed) {
            return 0;
        }
        let alive = match &self.bytes {
            Bytes::Copied(_) => 0,
            Bytes::Shared { exports, .. } => exports.end(py),
        };
        if alive == 0 {
            self.release();
        }
        alive
    }

    fn release(&self) {
        let held = self.held.lock().take();
        drop(held);
    }
}

#[pymethods]
impl Frame {
    /// A memoryview of the bytes. It stays valid when the frame is disposed of; with `copy=False` it is
    /// released then.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        let this = slf.get();
        this.check_held()?;
        match &this.bytes {
            Bytes::Copied(bytes) => private::view(bytes.bind(slf.py()), this.size),
            Bytes::Shared { exports, .. } => exports.data(slf),
        }
    }

    /// The length in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.size
    }

    /// The sequence number, as the writer counts.
    #[getter]
    fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the frame has bytes and was not disposed of.
    #[getter]
    fn is_valid(&self) -> bool {
        !self.is_disposed() && self.size > 0
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

    /// For numpy, which asks here once the frame was disposed of: an error then.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        buffer::as_array(slf, dtype, copy)
    }

    /// Gives the space back to the writer. Called again it does nothing.
    ///
    /// With `copy=False`, while an array or another view is alive, the space stays taken: it is released
    /// with the last one, and a ResourceWarning says so.
    fn dispose(&self, py: Python<'_>) -> PyResult<()> {
        buffer::warn_of_views(py, "frame", self.end(py))
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
            alive => buffer::warn_of_views(py, "frame", alive),
        }
    }

    fn __len__(&self) -> usize {
        self.size
    }

    fn __bytes__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::data(slf)?.call_method0("tobytes")
    }

    fn __repr__(&self) -> String {
        format!("Frame(sequence={}, size={})", self.sequence, self.size)
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        this.check_held()?;
        match &this.bytes {
            // SAFETY: Python's call, passed on: the view is then one of the array, which counts it.
            Bytes::Copied(bytes) => unsafe { private::fill(bytes.bind(slf.py()), view, flags) },
            // SAFETY: Python's call; this object keeps the memory.
            Bytes::Shared { memory, exports } => unsafe { exports.fill(&slf, view, flags, memory) },
        }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        if let Bytes::Shared { exports, .. } = &self.bytes {
            // SAFETY: Python's call.
            let is_last = unsafe { exports.released(view) };
            if is_last && self.is_disposed() {
                self.release();
            }
        }
    }
}
