//! A semaphore as glibc makes one, for loom: the value is an atomic, with glibc's own orderings.

use super::Waited;
use crate::atomics::{AtomicU64, Ordering};

/// Models are not cancelled.
pub(crate) fn uncancelled<T>(run: impl FnOnce() -> T) -> T {
    run()
}

/// A named semaphore's value.
#[derive(Debug)]
pub(crate) struct Semaphore {
    tokens: AtomicU64,
}

impl Semaphore {
    pub(crate) fn with_tokens(tokens: u64) -> Self {
        Self { tokens: AtomicU64::new(tokens) }
    }

    /// `sem_getvalue`: a relaxed load.
    pub(crate) fn value(&self) -> Option<i32> {
        Some(self.tokens.load(Ordering::Relaxed) as i32)
    }

    /// `sem_post`: adds a token with release ordering.
    pub(crate) fn post(&self) {
        self.tokens.fetch_add(1, Ordering::Release);
    }

    /// `sem_trywait`: takes a token with acquire ordering. False: there is none, and `sem_wait` would
    /// sleep.
    pub(crate) fn try_wait(&self) -> bool {
        let tokens = self.tokens.load(Ordering::Relaxed);
        tokens > 0
            && self
                .tokens
                .compare_exchange(tokens, tokens - 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// `sem_clockwait`: time stands still in a model, so it waits until there is a token. If none ever
    /// comes the model does not end, which loom reports.
    pub(crate) fn wait_until(&self, _deadline_ns: u64) -> Waited {
        while !self.try_wait() {
            loom::thread::yield_now();
        }
        Waited::Token
    }
}

/// Time stands still.
pub(crate) fn monotonic_ns() -> u64 {
    0
}
