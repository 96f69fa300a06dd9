//! Words of shared memory, for tools that are written in Python.

use crate::buffer::View;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Adds `delta` to the 64-bit number at `offset` of a writable `memory`, in one step for all processes, and
/// returns what it was. It begins again at 0 behind its end.
#[pyfunction]
#[pyo3(signature = (memory, offset, delta, /))]
pub(crate) fn add_u64(memory: &Bound<'_, PyAny>, offset: usize, delta: i64) -> PyResult<u64> {
    let view = View::get(memory, ffi::PyBUF_WRITABLE)?;
    let word = view.start().wrapping_add(offset).cast::<AtomicU64>();
    let is_inside = offset.checked_add(8).is_some_and(|end| end <= view.len());
    if !is_inside || !word.is_aligned() {
        return Err(PyValueError::new_err(format!(
            "at {offset} of {} bytes lies no aligned number of 8 bytes",
            view.len()
        )));
    }
    // SAFETY: it lies inside of the writable bytes that the view holds, and is aligned.
    let word = unsafe { &*word };
    // AcqRel: pairs with the same in the readers and writers of this word.
    Ok(word.fetch_add(delta.cast_unsigned(), Ordering::AcqRel))
}
