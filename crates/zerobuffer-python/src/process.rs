//! Objects that a forked child has inherited are its parent's. They say so before they wait for a lock:
//! a thread of the parent that held it when the process forked does not exist to release it.

use crate::errors::{Side, exception};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::{AtomicU32, Ordering};
use zerobuffer::Error;

/// The forks that lead from the process that imported the module to this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process in which an object was made.
pub(crate) struct Process {
    forks: u32,
}

impl Default for Process {
    fn default() -> Self {
        Self { forks: FORKS.load(Ordering::Relaxed) }
    }
}

impl Process {
    pub(crate) fn is_this(&self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// # Errors
    /// `WrongProcess` in a forked child.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        match self.is_this() {
            true => Ok(()),
            false => Err(exception(py, &Error::WrongProcess, Side::Duplex)),
        }
    }
}

#[pyfunction]
fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Has Python count forks: a look at a number costs less than asking the system who one is.
pub(crate) fn count_forks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let options = PyDict::new(module.py());
    options.set_item("after_in_child", wrap_pyfunction!(count_fork, module)?)?;
    module.py().import("os")?.call_method("register_at_fork", (), Some(&options))?;
    Ok(())
}
