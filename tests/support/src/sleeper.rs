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

    fn folder(&self) -> Option<String> {
        let id = self.0.load(Ordering::Relaxed);
        (id != 0).then(|| format!("/proc/self/task/{id}"))
    }

    /// Waits until it has entered, and sleeps in the kernel or has ended since. One that spins has run for
    /// five milliseconds since then, which is longer than any call takes that does not wait.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn expect_sleep(&self) {
        let mut first = None;
        eventually("a thread that waits", || {
            let Some(folder) = self.folder() else { return false };
            let now = run_time(&folder);
            let since = *first.get_or_insert(now);
            sleeps(&folder) || now.saturating_sub(since) > 5_000_000
        });
    }

    /// Waits until it has gone to sleep so many times from now on: what it does again and again between
    /// two pauses, it has done with what is there now.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn expect_naps(&self, count: u64) {
        eventually("a thread that waits", || self.folder().is_some());
        expect_naps(&self.folder().unwrap_or_default(), count);
    }
}

/// Whether the thread of this folder in /proc sleeps in the kernel, or has ended.
fn sleeps(folder: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("{folder}/stat")) else { return true };
    // Its state stands behind its name, which is in parentheses.
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
}

/// Nanoseconds for which the thread of this folder in /proc has run.
fn run_time(folder: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{folder}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Waits until the thread of this folder in /proc has gone to sleep so many times, or has ended.
#[track_caller]
pub(crate) fn expect_naps(folder: &str, count: u64) {
    let naps = || {
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("counted by Linux").trim().parse::<u64>().ok()
    };
    let Some(before) = naps() else { return };
    eventually("a thread that pauses", || naps().is_none_or(|now| now >= before + count));
}
