//! What ends a connecting that another thread does not await any more.

use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// For what connects in a thread of its own: says that nobody wants the connection any more.
#[pyclass(frozen, module = "zerobuffer._native")]
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ends what was given this, within some 50 ms, with Closed; and what will be.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
