//! Bytes on their way between Python and the library: whatever Python can show as bytes, and the
//! library's memory as Python's buffers.

use crate::process::Process;
use parking_lot::Mutex;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyWeakrefMethods, PyWeakrefReference};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use zerobuffer::memory::SharedMemoryView;

/// Data of this size is copied without the interpreter lock.
const LARGE: usize = 64 * 1024;

/// Calls `take` with the bytes of `object`: `bytes`, or anything with the buffer protocol, in its logical
/// order.
///
/// # Errors
/// `TypeError` for what has no bytes, or holds addresses of this process.
pub(crate) fn with_bytes<R>(
    object: &Bound<'_, PyAny>,
    take: impl FnOnce(&[u8]) -> PyResult<R>,
) -> PyResult<R> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return take(bytes.as_bytes());
    }
    match View::get(object, ffi::PyBUF_FULL_RO) {
        Ok(view) => view.with_bytes(object.py(), take),
        Err(error) => match copied(object)? {
            Some(copy) => take(copy.as_bytes()),
            None => Err(error),
        },
    }
}

/// Whether `object` has the buffer protocol.
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: it is an object, and that is all that is asked for.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// The bytes of an array whose numbers the buffer protocol has no letter for: dates, and types that other
/// packages add to numpy.
fn copied<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Ok(has_objects) = object.getattr("dtype").and_then(|dtype| dtype.getattr("hasobject"))
    else {
        return Ok(None);
    };
    match has_objects.is_truthy()? {
        true => Err(holds_addresses()),
        false => Ok(Some(object.call_method0("tobytes")?.cast_into()?)),
    }
}

fn holds_addresses() -> PyErr {
    PyTypeError::new_err(
        "objects and pointers mean nothing in another process: send numbers, or bytes (pickle makes some)",
    )
}

/// A hold on the bytes that another object shows. Unlike pyo3's it takes what has no shape and no strides
/// to tell, as arrays of ctypes and numbers have not.
pub(crate) struct View {
    raw: Box<ffi::Py_buffer>,
}

impl View {
    pub(crate) fn get(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut raw = Box::new(ffi::Py_buffer::new());
        // SAFETY: `raw` may be filled, and stays at its address until it is released.
        match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *raw, flags) } {
            0 => Ok(Self { raw }),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len.unsigned_abs()
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.raw.buf.cast()
    }

    fn with_bytes<R>(
        &self,
        py: Python<'_>,
        take: impl FnOnce(&[u8]) -> PyResult<R>,
    ) -> PyResult<R> {
        if self.has_addresses() {
            return Err(holds_addresses());
        }
        // SAFETY: the view was filled.
        let in_order = unsafe { ffi::PyBuffer_IsContiguous(&raw const *self.raw, b'C' as _) } != 0;
        match self.len() {
            0 => take(&[]),
            len if in_order => {
                // SAFETY: `self` keeps that many bytes at that address for as long as it lives. Another
                // Python thread may write them while they are copied, as with every consumer of Python's
                // buffers: then the copy holds a mixture, and nothing depends on what it holds.
                take(unsafe { std::slice::from_raw_parts(self.raw.buf.cast(), len) })
            }
            len => {
                let mut copy = vec![0_u8; len];
                let to = copy.as_mut_ptr().cast();
                // SAFETY: `copy` has the length that the view says.
                let status = unsafe {
                    ffi::PyBuffer_ToContiguous(to, &raw const *self.raw, self.raw.len, b'C' as _)
                };
                match status {
                    0 => take(&copy),
                    _ => Err(PyErr::fetch(py)),
                }
            }
        }
    }

    /// Whether its format says that there are Python's objects or addresses in it.
    fn has_addresses(&self) -> bool {
        if self.raw.format.is_null() {
            return false;
        }
        // SAFETY: a format is a C string that lives as long as the view.
        format_has_addresses(unsafe { CStr::from_ptr(self.raw.format) }.to_bytes())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: it was filled, and is released once; the holder of Python's object has the interpreter
        // lock.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.raw) };
    }
}

/// Whether a format of the buffer protocol (PEP 3118) has a letter for objects or addresses. Names of fields
/// stand between colons.
fn format_has_addresses(format: &[u8]) -> bool {
    let mut in_name = false;
    format.iter().enumerate().any(|(index, letter)| match letter {
        b':' => {
            in_name = !in_name;
            false
        }
        _ if in_name => false,
        // `Zd` is a complex number, `Z` alone the address of a string.
        b'Z' => !matches!(format.get(index + 1), Some(b'f' | b'd' | b'g')),
        letter => b"OPz&X".contains(letter),
    })
}

/// Copies `data` to `at` in the bytes of `frame`, which nobody ends meanwhile; returns how many there were.
///
/// # Errors
/// `TypeError` as [`with_bytes`], `ValueError` if they do not fit.
pub(crate) fn write(
    frame: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    at: usize,
) -> PyResult<usize> {
    let to = View::get(frame, ffi::PyBUF_WRITABLE)?;
    with_bytes(data, |bytes| {
        let size = bytes.len();
        if at.checked_add(size).is_none_or(|end| end > to.len()) {
            let room = to.len();
            return Err(PyValueError::new_err(format!(
                "{size} bytes do not fit at {at} of {room}: acquire a buffer of the right size"
            )));
        }
        // SAFETY: they lie inside, as was just looked at, and the view keeps them there. They are copied as
        // by `memmove`, because `data` may be a view of the same frame.
        let copy = |to: Address| unsafe { ptr::copy(bytes.as_ptr(), to.0.add(at), size) };
        let to = Address(to.raw.buf.cast());
        match is_large(size) {
            true => frame.py().detach(move || copy(to)),
            false => copy(to),
        }
        Ok(size)
    })
}

/// Where the bytes begin that `object` shows, if it shows any.
pub(crate) fn address(object: &Bound<'_, PyAny>) -> Option<usize> {
    View::get(object, ffi::PyBUF_FULL_RO).ok().map(|view| view.raw.buf.addr())
}

/// The bytes of `frame` as a numpy array, see `_support.array`.
pub(crate) fn array<'py>(
    frame: &Bound<'py, PyAny>,
    shape: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    support(frame.py())?.call_method1("array", (frame, shape, dtype))
}

/// The body of `__array__`, see `_support.as_array`.
pub(crate) fn as_array<'py>(
    frame: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    support(frame.py())?.call_method1("as_array", (frame, dtype, copy))
}

/// Says of a frame that was left that views of it are alive, if any are.
///
/// # Errors
/// The warning, where the program has made it one.
pub(crate) fn warn_of_views(py: Python<'_>, what: &str, alive: usize) -> PyResult<()> {
    match alive {
        0 => Ok(()),
        alive => support(py)?.call_method1("warn_of_views", (what, alive)).map(drop),
    }
}

/// The part of the package that is written in Python, for here.
pub(crate) fn support(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    PyModule::import(py, "zerobuffer._support")
}

/// An address that is used without the interpreter lock.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) *mut u8);

// SAFETY: it is only an address; who uses it answers for what lies there.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// Whether copying so many bytes takes long enough to let other threads run.
pub(crate) fn is_large(len: usize) -> bool {
    len >= LARGE
}

/// The Python views of one object's memory. The object owns a [`SharedMemoryView`] for as long as it
/// lives, and every view holds the object, so no view ever dangles; this counts them, for giving a
/// frame back only when nobody views it any more.
///
/// Everything here runs with the interpreter lock; the atomics are for the type system.
#[derive(Default)]
pub(crate) struct Exports {
    /// Views made from the object itself: `memoryview(frame)`, `np.asarray(frame)`.
    direct: AtomicUsize,
    /// The view of the `data` attribute, until it and all slices of it are deleted.
    through_data: AtomicUsize,
    /// `data` is being made.
    making_data: AtomicBool,
    /// The latest view that `data` returned, if anybody has it. A strong reference would be a cycle.
    data: Mutex<Option<Py<PyWeakrefReference>>>,
    /// Nobody may write through a view.
    read_only: bool,
    process: Process,
}

impl Exports {
    pub(crate) fn read_only() -> Self {
        Self { read_only: true, ..Self::default() }
    }

    /// The body of `__getbuffer__`.
    ///
    /// # Safety
    /// `view` is what Python passed to `__getbuffer__` of `object`, which keeps `memory` for as long as
    /// it lives.
    pub(crate) unsafe fn fill(
        &self,
        object: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        memory: &SharedMemoryView,
    ) -> PyResult<()> {
        self.process.check(object.py())?;
        let (start, len) = (memory.as_ptr().cast::<c_void>(), memory.len() as isize);
        let read_only = c_int::from(self.read_only);
        // SAFETY: `view` is Python's to be filled, by this function's contract.
        let status = unsafe {
            (*view).obj = ptr::null_mut();
            ffi::PyBuffer_FillInfo(view, object.as_ptr(), start, len, read_only, flags)
        };
        if status != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        let through_data = self.making_data.load(Ordering::Relaxed);
        // SAFETY: the field is the exporter's own.
        unsafe { (*view).internal = ptr::without_provenance_mut(usize::from(through_data)) };
        self.count(through_data).fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The body of `__releasebuffer__`.
    ///
    /// True if it was the last view.
    ///
    /// # Safety
    /// `view` was filled by [`Exports::fill`] of the same object.
    pub(crate) unsafe fn released(&self, view: *mut ffi::Py_buffer) -> bool {
        // SAFETY: by this function's contract.
        let through_data = unsafe { !(*view).internal.is_null() };
        self.count(through_data).fetch_sub(1, Ordering::Relaxed);
        self.alive() == 0
    }

    fn count(&self, through_data: bool) -> &AtomicUsize {
        if through_data { &self.through_data } else { &self.direct }
    }

    /// The body of `data`: the same view for as long as somebody has it.
    pub(crate) fn data<'py>(
        &self,
        object: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        self.process.check(object.py())?;
        if let Some(view) = self.own_view(object.py()) {
            return Ok(view.cast_into()?);
        }
        self.making_data.store(true, Ordering::Relaxed);
        let view = PyMemoryView::from(object);
        self.making_data.store(false, Ordering::Relaxed);
        let view = view?;
        *self.data.lock() = Some(PyWeakrefReference::new(&view)?.unbind());
        Ok(view)
    }

    /// The view of `data`, if somebody still has it and it was not released.
    fn own_view<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.through_data.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let reference = self.data.lock().as_ref().map(|reference| reference.clone_ref(py))?;
        // One that was released may be known still, while slices of it live.
        reference.bind(py).upgrade().filter(|view| view.getattr("nbytes").is_ok())
    }

    /// Releases the view of `data`, which then cannot be used any more, and makes sure that no other
    /// one is left.
    ///
    /// # Errors
    /// `BufferError`: somebody still views the bytes.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.close_data(py)?;
        match self.alive() {
            0 => Ok(()),
            alive => Err(Self::still_viewed(alive)),
        }
    }

    /// Releases the view of `data` if nobody else views through it; how many views are left.
    pub(crate) fn end(&self, py: Python<'_>) -> usize {
        // An array on the view keeps it.
        let _ = self.close_data(py);
        self.alive()
    }

    fn close_data(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(view) = self.own_view(py) {
            view.call_method0("release")?;
        }
        Ok(())
    }

    /// Views that are alive.
    pub(crate) fn alive(&self) -> usize {
        self.direct.load(Ordering::Relaxed) + self.through_data.load(Ordering::Relaxed)
    }

    fn still_viewed(alive: usize) -> PyErr {
        PyBufferError::new_err(format!(
            "{alive} view(s) of this memory are alive (an array, a memoryview, a slice of one): delete \
             them first, or copy what is to be kept"
        ))
    }
}
