//! A client's threads that sleep on one connection.
//!
//! Two threads that both sleep on a socket take each other's bells. So one of them, the leader, sleeps on
//! the socket, and the others until the leader has been woken; then all of them check the state. Threads of
//! this process that make what others wait for (room, an end) wake the leader by an eventfd.

use super::bell::Bell;
use crate::atomics::{AtomicU32, Ordering, fence};
use crate::sys::{self, Waited, WakeFd};
use crate::wait::Sleep;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How long the leader sleeps at a time where there is no eventfd.
const SLICE: Duration = Duration::from_millis(10);

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Sleepers {
    bell: Bell,
    state: Mutex<State>,
    changed: Condvar,
    /// Made when a thread sleeps for the first time; `None` if it could not be.
    wake: OnceLock<Option<WakeFd>>,
    /// Threads between `prepare` and the end of their sleep.
    present: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that have prepared and not yet slept or abandoned it.
    prepared: u32,
    /// One thread sleeps on the socket.
    is_led: bool,
    /// Counts what all of them are to check the state for.
    generation: u64,
}

impl Sleepers {
    pub(crate) fn new(bell: Bell) -> Self {
        Self {
            bell,
            state: Mutex::default(),
            changed: Condvar::new(),
            wake: OnceLock::new(),
            present: AtomicU32::new(0),
        }
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads of this process that sleep here check the state that was published before this call.
    #[inline]
    pub(crate) fn wake_own(&self) {
        // Store buffering, as between processes: publish, fence, is anybody there / I am here, fence,
        // check.
        fence(Ordering::SeqCst);
        if self.present.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let mut state = self.lock();
        state.generation += 1;
        self.changed.notify_all();
        if state.is_led
            && let Some(Some(wake)) = self.wake.get()
        {
            wake.ring();
        }
    }

    /// Sleeps on the socket for all of them.
    fn lead(&self, deadline_ns: u64) -> Waited {
        let wake = self.wake.get().and_then(Option::as_ref);
        let end = match wake {
            Some(_) => deadline_ns,
            None => deadline_ns.min(sys::monotonic_ns() + SLICE.as_nanos() as u64),
        };
        match self.bell.socket().wait(wake, end) {
            Ok(true) => Waited::Token,
            Ok(false) => Waited::TimedOut,
            Err(errno) if errno.is_interruption() => Waited::Interrupted,
            // No memory in the kernel: not in a busy loop.
            Err(_) => {
                sys::sleep(Duration::from_millis(1));
                Waited::TimedOut
            }
        }
    }

    /// Sleeps until the leader has been woken.
    fn follow(&self, state: MutexGuard<'_, State>, ticket: u64, deadline_ns: u64) -> Waited {
        let left = Duration::from_nanos(deadline_ns.saturating_sub(sys::monotonic_ns()));
        let same = |state: &mut State| state.generation == ticket && state.is_led;
        let slept = self.changed.wait_timeout_while(state, left, same);
        match slept.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            true => Waited::TimedOut,
            false => Waited::Token,
        }
    }
}

impl Sleep for Sleepers {
    /// The generation that the sleep is to outlast.
    fn prepare(&self) -> Option<u64> {
        self.present.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if !state.is_led {
            self.bell.hear();
            self.bell.arm();
        }
        state.prepared += 1;
        let ticket = state.generation;
        drop(state);
        // The thread that armed did so before this.
        fence(Ordering::SeqCst);
        Some(ticket)
    }

    fn abandon(&self) {
        let mut state = self.lock();
        state.prepared -= 1;
        // Another thread that has prepared relies on the flag.
        if state.prepared == 0 && !state.is_led {
            self.bell.disarm();
        }
        drop(state);
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    fn sleep(&self, ticket: Option<u64>, deadline_ns: u64) -> Waited {
        let mut state = self.lock();
        state.prepared -= 1;
        let ticket = ticket.unwrap_or(state.generation);
        let waited = if state.generation != ticket || self.bell.has_ended() {
            Waited::Token
        } else if state.is_led {
            self.follow(state, ticket, deadline_ns)
        } else {
            self.wake.get_or_init(|| WakeFd::new().ok());
            state.is_led = true;
            drop(state);
            let waited = self.lead(deadline_ns);
            let mut state = self.lock();
            state.is_led = false;
            state.generation += 1;
            self.changed.notify_all();
            waited
        };
        self.present.fetch_sub(1, Ordering::Relaxed);
        waited
    }
}
