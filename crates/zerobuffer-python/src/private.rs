//! Memory of this process alone, which version 1 hands out: writable, and valid for as long as anybody
//! holds it. It is Python's own `bytearray`, so nothing here counts views.

use crate::buffer::{Address, is_large};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView, PySlice};
use std::ffi::c_int;

/// A copy of `bytes`.
pub(crate) fn copy_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyByteArray>> {
    if !is_large(bytes.len()) {
        return Ok(PyByteArray::new(py, bytes));
    }
    let len = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: without an address Python makes an array of that length, and leaves its bytes as they are.
    let made = unsafe { ffi::PyByteArray_FromStringAndSize(std::ptr::null(), len) };
    // SAFETY: it is a new reference, or null with an exception set.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, made) }?.cast_into::<PyByteArray>()?;
    let to = Address(copy.data());
    py.detach(|| {
        let Address(to) = { to };
        // SAFETY: the array has that many bytes, and nothing else uses it yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    });
    Ok(copy)
}

/// Bytes of 0.
pub(crate) fn zeros(py: Python<'_>, len: usize) -> PyResult<Bound<'_, PyByteArray>> {
    PyByteArray::new_with(py, len, |_| Ok(()))
}

/// A view of the first `len` bytes.
pub(crate) fn view<'py>(
    bytes: &Bound<'py, PyByteArray>,
    len: usize,
) -> PyResult<Bound<'py, PyMemoryView>> {
    let view = PyMemoryView::from(bytes)?;
    match bytes.len() {
        all if all == len => Ok(view),
        _ => {
            let slice = PySlice::new(bytes.py(), 0, len as isize, 1);
            Ok(view.get_item(slice)?.cast_into()?)
        }
    }
}

/// The body of `__getbuffer__` of an object that shows `bytes`. The view holds them, not that object.
///
/// # Safety
/// `view` is what Python passed to `__getbuffer__`.
pub(crate) unsafe fn fill(
    bytes: &Bound<'_, PyByteArray>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // SAFETY: `view` is Python's to be filled, by this function's contract.
    match unsafe { ffi::PyObject_GetBuffer(bytes.as_ptr(), view, flags) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(bytes.py())),
    }
}
