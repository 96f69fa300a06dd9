//! Version 1: the writer of a buffer.

use crate::buffer::{has_buffer, is_large, with_bytes};
use crate::errors::{Side, exception};
use crate::private;
use crate::process::Process;
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDelta, PyMemoryView, PySequence, PySlice, PyString};
use pyo3::{IntoPyObjectExt, PyTypeInfo};
use std::thread::ThreadId;
use std::time::Duration;
use zerobuffer::{Error, v1};

const NO_TURN: Error = Error::Timeout {
    waited: Duration::ZERO,
    what: "waiting for another thread to commit its frame",
};
/// Between two looks at whether another thread's frame was committed.
const PAUSE: Duration = Duration::from_millis(1);

/// A frame that is being filled, in memory of this process alone.
struct Open {
    /// Others' writes wait for this thread's commit.
    thread: ThreadId,
    bytes: Py<PyByteArray>,
    size: usize,
}

/// A writer of version 1: it attaches to a buffer that a reader has made, and fills it. Any thread may use
/// it.
#[pyclass(frozen, subclass, module = "zerobuffer")]
pub(crate) struct Writer {
    name: String,
    /// `None` once closed.
    writer: Mutex<Option<Box<v1::Writer>>>,
    /// What get_frame_buffer() has given out.
    open: Mutex<Option<Open>>,
    write_timeout: Mutex<Duration>,
    /// Empty metadata counts as written, though nothing is.
    empty_metadata: Mutex<bool>,
    /// What was written so far.
    statistics: Mutex<v1::WriterStatistics>,
    process: Process,
}

#[pymethods]
impl Writer {
    /// Attaches to the buffer `name`, which a reader has made.
    ///
    /// Raises NotRunning if there is none; Busy, which is a WriterAlreadyConnectedException;
    /// Incompatible, SequenceUnknown, BadName, PermissionDenied or ForeignObject.
    #[new]
    fn new(py: Python<'_>, name: &str) -> PyResult<Self> {
        let writer = py.detach(|| v1::Writer::connect(name, Duration::ZERO)).map_err(raised(py))?;
        Ok(Self {
            name: name.to_owned(),
            writer: Mutex::new(Some(Box::new(writer))),
            open: Mutex::default(),
            write_timeout: Mutex::new(Duration::from_secs(5)),
            empty_metadata: Mutex::new(false),
            statistics: Mutex::default(),
            process: Process::default(),
        })
    }

    /// The buffer's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Describes the stream, once in the buffer's life, before the first frame.
    ///
    /// Raises MetadataAlreadyWrittenException, TooLarge or ReaderDeadException.
    fn set_metadata(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.process.check(py)?;
        let set = with_bytes(data, |bytes| {
            let set = |writer: &mut v1::Writer, _| match writer {
                _ if *self.empty_metadata.lock() => Err(Error::MetadataAlreadyWritten),
                _ if bytes.is_empty() => {
                    *self.empty_metadata.lock() = true;
                    Ok(())
                }
                writer => writer.set_metadata(bytes),
            };
            let timeout = *self.write_timeout.lock();
            waiting::wait(py, timeout, not_yet, |slice| self.step(slice, set))
        });
        set?.map_err(raised(py))
    }

    /// Copies `data` (bytes, anything with the buffer protocol, a list of numbers below 256) into the ring as
    /// one frame, waiting for room up to `write_timeout`.
    ///
    /// Raises BufferFullException, FrameTooLargeException, InvalidFrameSizeException if there are no
    /// bytes, ReaderDeadException, or Busy if another writer has taken over.
    fn write_frame(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.process.check(py)?;
        match data.cast::<PySequence>() {
            Ok(sequence) if !has_buffer(data) && !data.is_instance_of::<PyString>() => {
                let bytes = PyBytes::type_object(py).call1((sequence,))?;
                self.write(py, &bytes, None)
            }
            _ => self.write(py, data, None),
        }
    }

    /// A writable memoryview of `size` bytes, to be filled and sent by commit_frame(); it waits for room as
    /// write_frame() does. Other threads' writes wait until the commit. What this thread writes meanwhile is
    /// sent before; another buffer takes the place of the one that is open.
    ///
    /// The memory is this process's own: it may be kept, and written after the commit, which nobody sees.
    ///
    /// Raises as write_frame does.
    fn get_frame_buffer<'py>(
        &self,
        py: Python<'py>,
        size: usize,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        self.process.check(py)?;
        let timeout = *self.write_timeout.lock();
        let room = |writer: &mut v1::Writer, slice| {
            writer.set_write_timeout(slice);
            writer.acquire(size).map(drop)
        };
        let room = waiting::wait(py, timeout, not_yet, |slice| self.step(slice, room))?;
        room.map_err(raised(py))?;
        let earlier = self.open.lock().take();
        let bytes = match earlier.map(|open| open.bytes.into_bound(py)) {
            Some(earlier) if earlier.len() >= size => earlier,
            earlier => longer(&private::zeros(py, size)?, earlier)?,
        };
        let view = private::view(&bytes, size)?;
        let thread = std::thread::current().id();
        *self.open.lock() = Some(Open { thread, bytes: bytes.unbind(), size });
        Ok(view)
    }

    /// Sends what the buffer of get_frame_buffer() holds at this moment; arrays on it may be alive.
    ///
    /// Raises InvalidState if none is open, and as write_frame does; then nothing is sent.
    fn commit_frame(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        const NOTHING: Error = Error::InvalidState { reason: "No pending frame to commit" };
        let open = self.open.lock().take().ok_or(NOTHING).map_err(raised(py))?;
        self.write(py, open.bytes.bind(py), Some(open.size))
    }

    /// Whether the reader is there at this moment.
    fn is_reader_connected(&self, py: Python<'_>) -> PyResult<bool> {
        self.process.check(py)?;
        Ok(py.detach(|| match self.writer.try_lock_for(SLICE).as_deref() {
            Some(Some(writer)) => writer.is_reader_connected(),
            Some(None) => false,
            // The write that is under way will say so if it is not.
            None => true,
        }))
    }

    /// Frames written so far.
    #[getter]
    fn frames_written(&self, py: Python<'_>) -> PyResult<u64> {
        self.process.check(py)?;
        Ok(self.statistics.lock().frames)
    }

    /// Their bytes.
    #[getter]
    fn bytes_written(&self, py: Python<'_>) -> PyResult<u64> {
        self.process.check(py)?;
        Ok(self.statistics.lock().bytes)
    }

    /// How long writing waits for room, as a timedelta. Default 5 seconds.
    #[getter]
    fn write_timeout<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let timeout = *self.write_timeout.lock();
        timeout.into_bound_py_any(py)
    }

    #[setter]
    fn set_write_timeout(&self, value: &Bound<'_, PyDelta>) -> PyResult<()> {
        let seconds: f64 = value.call_method0("total_seconds")?.extract()?;
        if seconds <= 0.0 {
            return Err(PyValueError::new_err("Write timeout must be positive"));
        }
        *self.write_timeout.lock() = waiting::timeout(Some(seconds))?;
        Ok(())
    }

    /// Detaches. Frames that were written stay there to be read; one that is open is not sent. In a forked
    /// child it does nothing.
    fn close(&self, py: Python<'_>) {
        if !self.process.is_this() {
            return;
        }
        py.detach(|| drop(self.writer.lock().take()));
        // After the writer, so that nobody who has waited for this commit writes in between.
        *self.open.lock() = None;
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
        format!("Writer({:?})", self.name)
    }
}

impl Writer {
    /// Writes `data`, or as many of its bytes, as one frame.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>, size: Option<usize>) -> PyResult<()> {
        let timeout = *self.write_timeout.lock();
        let written = with_bytes(data, |bytes| {
            // A bytearray may have become shorter.
            let bytes = &bytes[..size.map_or(bytes.len(), |size| size.min(bytes.len()))];
            let write = |writer: &mut v1::Writer, slice| {
                writer.set_write_timeout(slice);
                writer.write_frame(bytes)
            };
            match is_large(bytes.len()) {
                true => {
                    waiting::wait_detached(py, timeout, not_yet, |slice| self.step(slice, write))
                }
                false => waiting::wait(py, timeout, not_yet, |slice| self.step(slice, write)),
            }
        });
        written?.map(drop).map_err(raised(py))
    }

    /// One turn with the writer, if it is this thread's turn within `slice`.
    fn step<T>(
        &self,
        slice: Duration,
        act: impl Fn(&mut v1::Writer, Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let this = std::thread::current().id();
        if self.open.lock().as_ref().is_some_and(|open| open.thread != this) {
            std::thread::sleep(slice.min(PAUSE));
            return Err(NO_TURN);
        }
        let mut writer = self.writer.try_lock_for(slice).ok_or(NO_TURN)?;
        let writer = writer.as_mut().ok_or(Error::Closed)?;
        let done = act(writer, slice);
        *self.statistics.lock() = writer.statistics();
        done
    }
}

/// `longer`, beginning with what is in `earlier`.
fn longer<'py>(
    longer: &Bound<'py, PyByteArray>,
    earlier: Option<Bound<'py, PyByteArray>>,
) -> PyResult<Bound<'py, PyByteArray>> {
    if let Some(earlier) = earlier {
        private::view(longer, longer.len())?
            .set_item(PySlice::new(longer.py(), 0, earlier.len() as isize, 1), earlier)?;
    }
    Ok(longer.clone())
}

fn raised(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Writer)
}
