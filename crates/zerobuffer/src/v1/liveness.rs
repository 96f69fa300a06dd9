//! Who is alive, as far as version 1 lets one know: a pid in the header, and the reader's lock files.

use super::locks;
use crate::config::Liveness;
use crate::name::BufferName;
use crate::sys::{self, Process};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two checks of the peer while something waits for it (rule T6). Short, because a Python reader
/// that is restarted before this side has released its previous buffer fails permanently (rule L10).
pub(super) const SLICE: Duration = Duration::from_millis(20);
/// Between two checks of a lock: each check can make a reader fail that is being created (rule P2).
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// One side's view of the other's process.
#[derive(Debug)]
pub(super) struct PeerWatch {
    policy: Liveness,
    name: BufferName,
    /// The process that was seen last, by its id. Found once, so that a successor in the same id is
    /// not taken for it (rule P1).
    process: Mutex<Option<(u64, Option<Process>)>>,
    lock_asked: Pace,
}

impl PeerWatch {
    pub(super) fn new(policy: Liveness, name: &BufferName) -> Self {
        Self {
            policy,
            name: name.clone(),
            process: Mutex::new(None),
            lock_asked: Pace::every(LOCK_PAUSE),
        }
    }

    /// Whether the writer whose id is `pid`, which is not 0, is alive.
    pub(super) fn is_writer_alive(&self, pid: u64) -> bool {
        self.policy != Liveness::Pid || self.is_process_alive(pid)
    }

    /// Whether the reader whose id is `pid`, which is not 0, is alive.
    pub(super) fn is_reader_alive(&self, pid: u64) -> bool {
        match self.policy {
            Liveness::Pid => self.is_process_alive(pid),
            Liveness::Lock => !self.lock_asked.is_due() || locks::is_held(&self.name),
            Liveness::None => true,
        }
    }

    fn is_process_alive(&self, pid: u64) -> bool {
        let mut known = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|(known, _)| *known != pid) {
            *known = Some((pid, Process::find(pid)));
        }
        let process = known.as_ref().and_then(|(_, process)| process.as_ref());
        process.is_some_and(Process::is_running)
    }
}

/// Lets something happen once in a while.
#[derive(Debug)]
pub(super) struct Pace {
    every_ns: u64,
    last_ns: AtomicU64,
}

impl Pace {
    pub(super) fn every(pause: Duration) -> Self {
        Self { every_ns: pause.as_nanos() as u64, last_ns: AtomicU64::new(0) }
    }

    /// Whether the pause is over; if so, the next one begins.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        let now = sys::monotonic_ns();
        let due = now.saturating_sub(self.last_ns.load(Ordering::Relaxed)) >= self.every_ns;
        if due {
            self.last_ns.store(now, Ordering::Relaxed);
        }
        due
    }
}
