//! The sign that a thread waits inside a call.

use crate::eventually;
use std::sync::atomic::{AtomicI32, Ordering};

/// A thread of this process that is about to wait.
#[derive(Debug, Default)]
pub struct Sleeper(AtomicI32);

impl Sleeper {
    /// To be called by that thread, right before the call that waits.
    pub fn enters(&self) {
        // SAFETY: the call has no preconditions.
        self.0.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    }

    /// Whether it has entered, and sleeps in the kernel or has ended since.
    pub fn sleeps(&self) -> bool {
        let id = self.0.load(Ordering::Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
        // Its state stands behind its name, which is in parentheses.
        let sleeps =
            |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"));
        id != 0 && stat.map_or(true, sleeps)
    }

    /// Waits until it sleeps.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn expect_sleep(&self) {
        eventually("a thread that waits", || self.sleeps());
    }
}
