//! Version 1: the writer of a buffer.

use crate::buffer::{Exports, is_large, with_bytes};
use crate::errors::{Side, exception};
use crate::process::Process;
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::{Mutex, MutexGuard};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDelta, PyMemoryView};
use self_cell::{MutBorrow, self_cell};
use std::ffi::c_int;
use std::thread::ThreadId;
use std::time::Duration;
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Error, v1};

const NO_TURN: Error = Error::Full { needed: 0, free: 0, in_flight: 0 };
/// Between two looks at whether another thread's frame was committed.
const PAUSE: Duration = Duration::from_millis(1);

type Buffer<'w> = Option<v1::FrameBuffer<'w>>;

self_cell!(
    /// A writer with a frame buffer open.
    struct Filling {
        owner: MutBorrow<Box<v1::Writer>>,
        #[not_covariant]
        dependent: Buffer,
    }
);

enum State {
    Idle(Box<v1::Writer>),
    /// The thread that is filling a frame, too.
    Filling(Filling, ThreadId),
    Closed,
}

/// A writer of version 1: it attaches to a buffer that a reader has made, and fills it. Any thread may use
/// it.
#[pyclass(frozen, subclass, module = "zerobuffer")]
pub(crate) struct Writer {
    name: String,
    state: Mutex<State>,
    write_timeout: Mutex<Duration>,
    /// Empty metadata counts as written, though nothing is.
    empty_metadata: Mutex<bool>,
    /// What was written so far.
    statistics: Mutex<v1::WriterStatistics>,
    /// The frame that get_frame_buffer() has given out.
    given_out: Mutex<Option<Py<Region>>>,
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
        let writer = v1::Writer::connect(name, Duration::ZERO).map_err(raised(py))?;
        Ok(Self {
            name: name.to_owned(),
            state: Mutex::new(State::Idle(Box::new(writer))),
            write_timeout: Mutex::new(Duration::from_secs(5)),
            empty_metadata: Mutex::new(false),
            statistics: Mutex::default(),
            given_out: Mutex::default(),
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

    /// Copies `data` (bytes, or anything with the buffer protocol) into the ring as one frame, waiting
    /// for room up to `write_timeout`.
    ///
    /// Raises BufferFullException, FrameTooLargeException, InvalidFrameSizeException if there are no
    /// bytes, ReaderDeadException, or Busy if another writer has taken over.
    fn write_frame(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.process.check(py)?;
        let timeout = *self.write_timeout.lock();
        let written = with_bytes(data, |bytes| {
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

    /// A writable memoryview of `size` bytes in the ring, to be filled in place and sent by
    /// commit_frame(), which releases it. Other threads' writes wait until then.
    ///
    /// Raises as write_frame does, and ClaimOpen if this thread has one open already.
    fn get_frame_buffer<'py>(
        &self,
        py: Python<'py>,
        size: usize,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        self.process.check(py)?;
        let timeout = *self.write_timeout.lock();
        let memory = waiting::wait(py, timeout, not_yet, |slice| self.open(size, slice))?;
        let memory = memory.map_err(raised(py))?;
        let region = Bound::new(py, Region { memory, exports: Exports::default() })?;
        let view = region.get().exports.data(&region)?;
        *self.given_out.lock() = Some(region.unbind());
        Ok(view)
    }

    /// Sends the frame that get_frame_buffer() has opened, and releases its memoryview.
    ///
    /// Raises BufferError while an array or another view of its bytes is alive, and the frame is open as
    /// before; InvalidState if there is none, ReaderDeadException, or Busy.
    fn commit_frame(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        const NOTHING: Error = Error::InvalidState { reason: "No pending frame to commit" };
        let given_out = self.given_out.lock().take();
        let region = given_out.ok_or(NOTHING).map_err(raised(py))?;
        if let Err(viewed) = region.get().exports.close(py) {
            *self.given_out.lock() = Some(region);
            return Err(viewed);
        }
        py.detach(|| self.commit()).unwrap_or(Err(NOTHING)).map(drop).map_err(raised(py))
    }

    /// Whether the reader is there at this moment.
    fn is_reader_connected(&self, py: Python<'_>) -> PyResult<bool> {
        self.process.check(py)?;
        Ok(py.detach(|| match self.state.try_lock_for(SLICE).as_deref() {
            Some(State::Idle(writer)) => writer.is_reader_connected(),
            Some(State::Closed) => false,
            // It was when the frame was opened, or else the write that is under way will say so.
            Some(State::Filling(..)) | None => true,
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

    /// Detaches. Frames that were written stay there to be read; one that is open is forgotten, and arrays
    /// on it must not be written any more. In a forked child it does nothing.
    fn close(&self, py: Python<'_>) {
        if !self.process.is_this() {
            return;
        }
        if let Some(region) = self.given_out.lock().take() {
            region.get().exports.abandon(py);
        }
        py.detach(|| *self.state.lock() = State::Closed);
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
    /// Sends what is open, if anything is.
    fn commit(&self) -> Option<Result<u64, Error>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Filling(mut filling, _) => {
                let buffer = filling.with_dependent_mut(|_, buffer| buffer.take());
                let committed = buffer.map(v1::FrameBuffer::commit);
                let writer = filling.into_owner().into_inner();
                *self.statistics.lock() = writer.statistics();
                *state = State::Idle(writer);
                committed
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// One turn with the writer, if it is this thread's turn within `slice`.
    fn step<T>(
        &self,
        slice: Duration,
        act: impl Fn(&mut v1::Writer, Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = self.turn(slice)?;
        let State::Idle(writer) = &mut *state else { return Err(NO_TURN) };
        let done = act(writer, slice);
        *self.statistics.lock() = writer.statistics();
        done
    }

    /// The state, which is idle.
    fn turn(&self, slice: Duration) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state.try_lock_for(slice).ok_or(NO_TURN)?;
        match &*state {
            State::Idle(_) => Ok(state),
            State::Closed => Err(Error::InvalidState { reason: "Writer is closed" }),
            State::Filling(_, thread) if *thread == std::thread::current().id() => {
                Err(Error::ClaimOpen)
            }
            State::Filling(..) => {
                drop(state);
                std::thread::sleep(slice.min(PAUSE));
                Err(NO_TURN)
            }
        }
    }

    /// Opens a frame buffer, and returns its memory.
    fn open(&self, size: usize, slice: Duration) -> Result<SharedMemoryView, Error> {
        let mut state = self.turn(slice)?;
        let State::Idle(mut writer) = std::mem::replace(&mut *state, State::Closed) else {
            return Err(NO_TURN);
        };
        writer.set_write_timeout(slice);
        let filling = Filling::try_new_or_recover(MutBorrow::new(writer), |writer| {
            writer.borrow_mut().acquire(size).map(Some)
        });
        match filling {
            Ok(filling) => {
                let memory =
                    filling.with_dependent(|_, buffer| buffer.as_ref().map(|b| b.memory()));
                *state = State::Filling(filling, std::thread::current().id());
                memory.ok_or(NO_TURN)
            }
            Err((writer, error)) => {
                *state = State::Idle(writer.into_inner());
                Err(error)
            }
        }
    }
}

fn raised(py: Python<'_>) -> impl Fn(Error) -> PyErr {
    move |error| exception(py, &error, Side::Writer)
}

/// The bytes of a frame that is being filled, for its memoryview, which keeps them mapped.
#[pyclass(frozen)]
struct Region {
    memory: SharedMemoryView,
    exports: Exports,
}

#[pymethods]
impl Region {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        // SAFETY: Python's call; this object keeps the memory.
        unsafe { this.exports.fill(&slf, view, flags, &this.memory) }
    }

    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's call.
        unsafe { self.exports.released(view) };
    }
}
