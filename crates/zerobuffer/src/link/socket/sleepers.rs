//! A client's threads that sleep on one connection.
//!
//! Two threads that both sleep on a socket take each other's bells. So one of them, the leader, sleeps on
//! the socket, and the others until the leader has been woken; then all of them check the state. Threads of
//! this process that make what others wait for (room, an end) wake the leader by an eventfd. That is lent to it for as
//! long as it sleeps: a connection at rest has no descriptor but its socket. A program's event loop can be the
//! leader, too; then no thread sleeps here.

use super::bell::Bell;
use crate::atomics::{AtomicU32, Ordering, fence};
use crate::sys::{self, Errno, ReadySet, Waited, WakeFd};
use crate::wait::crowd::{Crowd, Part};
use crate::wait::{Sleep, bell};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How long the leader sleeps at a time where there is no eventfd.
const SLICE: Duration = Duration::from_millis(10);

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Sleepers {
    bell: Bell,
    state: Mutex<State>,
    changed: Condvar,
    /// Threads between `prepare` and the end of their sleep.
    present: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    crowd: Crowd,
    /// What wakes the leader; `None` if there was no descriptor for it.
    wake: Option<Arc<WakeFd>>,
    /// That was rung since it was lent.
    is_rung: bool,
}

impl Sleepers {
    pub(crate) fn new(bell: Bell) -> Self {
        SPARE.connections.fetch_add(1, Ordering::Relaxed);
        Self { bell, state: Mutex::default(), changed: Condvar::new(), present: AtomicU32::new(0) }
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on an event loop sleeps here and no thread does, on the descriptor that is returned. It is
    /// the leader for ever: what wakes threads here rings it.
    pub(crate) fn lead_by_event_loop(&self) -> Result<ReadySet, Errno> {
        let wake = Arc::new(WakeFd::new()?);
        let ready = ReadySet::new(self.bell.socket(), &wake)?;
        let mut state = self.lock();
        state.crowd.lead_for_ever();
        state.wake = Some(wake);
        drop(state);
        self.present.fetch_add(1, Ordering::SeqCst);
        Ok(ready)
    }

    /// The event loop is about to look at the state. What it does not see makes the descriptor readable.
    pub(crate) fn listen(&self) {
        let silence = || self.lock().wake.iter().for_each(|wake| wake.silence());
        let hear = || {
            self.bell.hear();
            // It may have come together with a bell, and an edge-triggered loop is told once.
            self.bell.probe();
        };
        bell::listen(silence, hear, || self.bell.arm());
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
        state.crowd.call();
        self.changed.notify_all();
        state.is_rung = true;
        if let Some(wake) = &state.wake {
            wake.ring();
        }
    }

    /// Sleeps on the socket for all of them.
    fn lead(&self, wake: Option<&WakeFd>, deadline_ns: u64) -> Waited {
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
        let follows = |state: &mut State| state.crowd.follows(ticket);
        let slept = self.changed.wait_timeout_while(state, left, follows);
        match slept.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            true => Waited::TimedOut,
            false => Waited::Token,
        }
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        if SPARE.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            SPARE.clear();
        }
    }
}

/// Eventfds that nobody sleeps on at the moment; none where there are no connections.
#[derive(Debug)]
struct Spare {
    kept: Mutex<Vec<Arc<WakeFd>>>,
    connections: AtomicUsize,
}

static SPARE: Spare = Spare { kept: Mutex::new(Vec::new()), connections: AtomicUsize::new(0) };

impl Spare {
    /// So many are kept.
    const MOST: usize = 16;

    /// Nobody waits here: the lock may be that of a thread that a forked child does not have.
    fn taken(&self) -> Option<MutexGuard<'_, Vec<Arc<WakeFd>>>> {
        match self.kept.try_lock() {
            Ok(spare) => Some(spare),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// `None` if there is no descriptor left.
    fn lend(&self) -> Option<Arc<WakeFd>> {
        let kept = self.taken().and_then(|mut spare| {
            // Those of the process that this one was forked from are closed here.
            spare.retain(|wake| wake.is_this_process());
            spare.pop()
        });
        kept.or_else(|| WakeFd::new().ok().map(Arc::new))
    }

    fn clear(&self) {
        let kept = self.taken().map(|mut kept| std::mem::take(&mut *kept));
        drop(kept);
    }

    /// Nobody rings it any more.
    fn take_back(&self, wake: Arc<WakeFd>, is_rung: bool) {
        if is_rung {
            wake.silence();
        }
        if let Some(mut spare) = self.taken()
            && spare.len() < Self::MOST
        {
            spare.push(wake);
        }
    }
}

impl Sleep for Sleepers {
    /// The generation that the sleep is to outlast.
    fn prepare(&self) -> Option<u64> {
        self.present.fetch_add(1, Ordering::Relaxed);
        let ticket = self.lock().crowd.prepare(|| {
            let has_heard = self.bell.hear();
            self.bell.arm();
            has_heard
        });
        // The thread that armed did so before this.
        fence(Ordering::SeqCst);
        Some(ticket)
    }

    fn abandon(&self) {
        let mut state = self.lock();
        // Another thread that has prepared relies on the flag.
        if state.crowd.abandon() {
            self.bell.disarm();
        }
        drop(state);
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    fn sleep(&self, ticket: Option<u64>, deadline_ns: u64) -> Waited {
        let mut state = self.lock();
        let ticket = ticket.unwrap_or_default();
        let waited = match state.crowd.sleep(ticket, self.bell.has_ended()) {
            Part::Check => Waited::Token,
            Part::Follow => self.follow(state, ticket, deadline_ns),
            Part::Lead => {
                let wake = SPARE.lend();
                (state.wake, state.is_rung) = (wake.clone(), false);
                drop(state);
                let waited = self.lead(wake.as_deref(), deadline_ns);
                let mut state = self.lock();
                state.crowd.step_down();
                state.wake = None;
                self.changed.notify_all();
                let is_rung = state.is_rung;
                drop(state);
                wake.into_iter().for_each(|wake| SPARE.take_back(wake, is_rung));
                waited
            }
        };
        self.present.fetch_sub(1, Ordering::Relaxed);
        waited
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::link::socket::bell::Side;
    use crate::link::socket::bell::tests::bell;

    #[test]
    fn a_bell_that_another_thread_hears_ends_the_sleep_of_one_that_has_looked() {
        let (bell, peer) = bell(Side::Client);
        let sleepers = Sleepers::new(bell);
        // One looks, and is rung for.
        let ticket = sleepers.prepare();
        assert_eq!(sleepers.bell.own_flag().swap(0, Ordering::Relaxed), 1);
        peer.send(&[1]).unwrap();
        // Another one comes, and goes again.
        sleepers.prepare();
        sleepers.abandon();
        let soon = sys::monotonic_ns() + 1_000_000_000;
        assert_eq!(sleepers.sleep(ticket, soon), Waited::Token);
    }
}
