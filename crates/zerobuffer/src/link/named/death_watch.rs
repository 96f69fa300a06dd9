//! How a client learns of its server's death at once, where the system tells.
//!
//! The lock decides whether a server lives; a check costs some microseconds, so waits check it once
//! in a slice. A pidfd reports at once, but no thread can sleep on a pidfd and on a semaphore at the same
//! time; so the library's own thread does (`sys`), and only for those who have waited for a slice
//! already. What it says is a hint, as the server's pid in the segment may stand for another process
//! here: its receiver checks the lock.

use crate::atomics::{AtomicBool, Ordering};
use crate::sys::{self, Subscription};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One connection's wish to be told.
#[derive(Debug, Default)]
pub(crate) struct DeathWatch {
    state: Mutex<State>,
    told: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has waited for long.
    #[default]
    New,
    /// If one is available. Kept for as long as it is wanted.
    Asked(#[allow(dead_code)] Option<Subscription>),
    Over,
}

impl DeathWatch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once for `tell` to be called when the process `pid` ends.
    pub(crate) fn ask(&self, pid: u64, tell: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if matches!(*state, State::New) {
            // A server in this very process dies with it.
            let other = pid != u64::from(sys::process_id());
            *state = State::Asked(other.then(|| Subscription::of(pid, tell)).flatten());
        }
    }

    /// Nobody is to be told any more.
    pub(crate) fn end(&self) {
        let previous = std::mem::replace(&mut *self.state(), State::Over);
        // Ends the thread, if it was the last one: not under the lock.
        drop(previous);
    }

    /// The process has ended.
    pub(crate) fn tell(&self) {
        // Relaxed: who wakes somebody afterwards has a fence between.
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether that was told since the last time.
    #[inline]
    pub(crate) fn was_told(&self) -> bool {
        self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Relaxed)
    }
}
