//! Waiting for the peer, and waking it (protocol v2, section 7 "Waiting and waking").
//!
//! The state words are the truth, semaphores are hints: a waiter reads the state first and last, a
//! waker posts only when the semaphore is empty.
//!
//! # Why there are two fences
//!
//! ```text
//! waker                                   waiter
//! 1 publish the state (Release store)     3 take the token
//!   fence(SeqCst)                           fence(SeqCst)
//! 2 read the semaphore's value            4 read the state
//! ```
//!
//! This is store buffering: the waker stores the state and loads the value, the waiter stores the
//! value (by taking a token) and loads the state. A wake-up would be lost if the waker saw the old
//! token at 2 (and did not post) while the waiter, having taken that token, saw the old state at 4
//! (and went to sleep). With a SeqCst fence on each side one fence comes first in their single order:
//! if it is the waker's, 4 sees the state; if it is the waiter's, 2 sees the token taken, and posts.
//! Without the waker's fence x86 itself reorders 1 after 2. Without the waiter's fence CPUs like
//! ARM may do 4 before 3, because glibc takes the token with acquire ordering only. The loom models in
//! `models.rs` check it, and with each fence removed, as a control, they fail.

pub(crate) mod alarm;
pub(crate) mod bell;
pub(crate) mod crowd;

use crate::atomics::{AtomicU32, AtomicU64, Ordering, fence, load_fence, spin_hint};
use crate::failpoint::failpoint;
use crate::sys::{self, Semaphore, Waited};
use std::time::Duration;

/// How a side waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Spin for a while, then sleep. The time spent spinning adapts to what the latest waits were
    /// worth, and is zero where only one CPU is usable. Right for nearly every program.
    #[default]
    SpinThenPark,
    /// Sleep at once: the least CPU time, and a system call on both sides for each message.
    Park,
    /// Spin and do not sleep: the lowest latency, for a core that has nothing else to do. Pin each side to
    /// a CPU of its own.
    ///
    /// A thread that loses the CPU to another one while it spins sleeps instead for the next 100 ms, and for
    /// longer if that happens repeatedly: where the peer needs this very CPU, spinning would only keep
    /// it waiting, and deadlines would be missed.
    Spin,
}

/// When a call must return.
///
/// The clock is read after the first check has found nothing, not before: a call that finds its response at
/// once pays nothing for its deadline.
#[derive(Debug)]
pub(crate) struct Deadline {
    timeout: Duration,
    /// In nanoseconds of the monotonic clock; `None` until the first slow turn.
    at: std::cell::Cell<Option<u64>>,
}

impl Deadline {
    #[inline]
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { timeout, at: std::cell::Cell::new(None) }
    }

    /// The deadline at a time of the monotonic clock, of a call that was given `timeout`.
    pub(crate) fn at(due_ns: u64, timeout: Duration) -> Self {
        Self { timeout, at: std::cell::Cell::new(Some(due_ns)) }
    }

    /// The time, in nanoseconds of the monotonic clock.
    pub(crate) fn due_ns(&self) -> u64 {
        self.at_ns(sys::monotonic_ns())
    }

    /// The timeout as it was asked for.
    #[inline]
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time left; zero once the deadline has passed.
    pub(crate) fn left(&self) -> Duration {
        let now = sys::monotonic_ns();
        Duration::from_nanos(self.at_ns(now).saturating_sub(now))
    }

    fn at_ns(&self, now: u64) -> u64 {
        self.at.get().unwrap_or_else(|| {
            let at = later(now, self.timeout);
            self.at.set(Some(at));
            at
        })
    }
}

/// How long it may go unnoticed that a caller does not want any more what it waits for.
pub(crate) const NOTICE: Duration = Duration::from_millis(50);

/// The time `after` a time, in nanoseconds; the end of time if that is too far away.
pub(crate) fn later(now: u64, after: Duration) -> u64 {
    now.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
}

/// The state of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Alive,
    /// It closed the channel cleanly.
    Closed,
    /// Its process has died, or has released the segment without closing.
    Died,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unready {
    Timeout,
    /// The peer has closed or died, and what was waited for had not come before.
    Gone(Peer),
    /// The wait was asked to return early.
    Stopped,
}

/// What a wait checks besides its condition.
pub(crate) trait WaitContext {
    /// Cheap, in memory only: has the peer closed the channel? Checked in every slow turn.
    fn peer(&self) -> Peer;
    /// May cost a system call: is the peer there? Asked whenever a slice has passed.
    fn probe(&self) -> Peer;
    /// The time between two probes, as things are now.
    fn slice(&self) -> Duration;
    /// Whether to return early, with [`Unready::Stopped`].
    fn stopped(&self) -> bool {
        false
    }
    /// A token was taken: any other thread that may be waiting for it should check.
    fn woken(&self) {}
}

/// What a side sleeps on until the other one wakes it.
pub(crate) trait Sleep {
    /// From now on the peer wakes this thread. `None`: it always does. Otherwise the state is to be checked
    /// once more before [`Sleep::sleep`], which gets what this returns, or [`Sleep::abandon`].
    fn prepare(&self) -> Option<u64>;
    /// The state was there: there is no sleep after [`Sleep::prepare`].
    fn abandon(&self);
    /// Sleeps until it is woken, or until `deadline_ns` of the monotonic clock at the most.
    fn sleep(&self, prepared: Option<u64>, deadline_ns: u64) -> Waited;
}

impl Sleep for Semaphore {
    #[inline]
    fn prepare(&self) -> Option<u64> {
        None
    }

    fn abandon(&self) {}

    #[inline]
    fn sleep(&self, _prepared: Option<u64>, deadline_ns: u64) -> Waited {
        self.wait_until(deadline_ns)
    }
}

/// Checks between two readings of the clock.
const BURST: u32 = 256;
/// Checks at the beginning of a wait, which are closer together.
const SHORT: u32 = 64;
/// The longest pause before the first check, in quarters of a load fence: some 350 ns.
const PAUSE_MAX: u32 = 4 * 96;
/// The spinning time lies between these two; doubled when it was worth it, halved when not.
const SPIN_MAX_NS: u64 = 50_000;
const SPIN_MIN_NS: u64 = 1_000;
/// While it is not worth it, one wait of so many spins all the same.
const TRY_EVERY: u32 = 32;

/// A thread that spins reads the clock every few microseconds. If the time between two readings was longer than
/// this, another thread has had the CPU.
const LOST_NS: u64 = 1_000_000;
/// For how long the thread does not spin then: twice as long each time that it soon lost the CPU again.
const CROWDED_MIN_NS: u64 = 100_000_000;
const CROWDED_MAX_NS: u64 = 64 * CROWDED_MIN_NS;

/// One side's way to wait; remembers how long spinning is worth it.
#[derive(Debug)]
pub(crate) struct Waiter {
    strategy: WaitStrategy,
    /// How often a wait checks between two readings of the clock: once if it does not spin.
    burst: AtomicU32,
    /// One CPU was usable when this was made: it is not worth trying to spin.
    alone: bool,
    spin_ns: AtomicU64,
    /// Waits in which spinning found nothing, or would have found nothing.
    slept: AtomicU32,
    /// For how long, and until when, other threads are assumed to need this CPU.
    crowded_ns: AtomicU64,
    crowded_until_ns: AtomicU64,
    /// The pause before the first check of [`Waiter::spin`], in quarters of a load fence.
    pause: AtomicU32,
    /// When the peer was probed last.
    probed_ns: AtomicU64,
}

impl Waiter {
    pub(crate) fn new(strategy: WaitStrategy) -> Self {
        Self::with_cpus(strategy, sys::usable_cpus())
    }

    /// The number of usable CPUs does not say whether the peer needs one of them: two processes that are
    /// pinned to a CPU each have one. So `Spin` does not ask, and finds out by losing its CPU.
    fn with_cpus(strategy: WaitStrategy, usable: usize) -> Self {
        Self::unlearned(strategy, strategy == WaitStrategy::SpinThenPark && usable < 2)
    }

    /// One more for another thread, with nothing learned yet: how many CPUs are usable is not asked again.
    pub(crate) fn another(&self) -> Self {
        Self::unlearned(self.strategy, self.alone)
    }

    fn unlearned(strategy: WaitStrategy, alone: bool) -> Self {
        let spins = strategy != WaitStrategy::Park && !alone;
        Self {
            strategy,
            burst: AtomicU32::new(if spins { BURST } else { 1 }),
            alone,
            crowded_ns: AtomicU64::new(0),
            crowded_until_ns: AtomicU64::new(0),
            spin_ns: AtomicU64::new(SPIN_MAX_NS),
            slept: AtomicU32::new(0),
            pause: AtomicU32::new(0),
            probed_ns: AtomicU64::new(0),
        }
    }

    /// The first part of WAIT alone, as a cheap check: whether `ready` became true within the time that a wait
    /// spins without a clock. If not, [`Waiter::wait`] must follow.
    ///
    /// The first check comes after a pause that adapts. A check that is too early takes the line from the
    /// peer just when the peer wants to write it, which costs a line transfer on top of the one that
    /// carries the change. So the pause grows when a first check found nothing but one of the next did,
    /// and shrinks slowly when the first one did: where the change is always there already, it becomes zero.
    #[inline(always)]
    pub(crate) fn spin(&self, ready: impl Fn() -> bool) -> bool {
        let pause = self.pause.load(Ordering::Relaxed);
        for _ in 0..pause / 4 {
            load_fence();
        }
        let check = |turn| {
            let is_ready = ready();
            if is_ready {
                self.pause.store(next_pause(pause, turn), Ordering::Relaxed);
            }
            is_ready
        };
        if check(0) {
            return true;
        }
        for turn in 1..self.burst() {
            if turn >= SHORT {
                spin_hint();
            } else {
                // As a pause: a spin hint may take 40 ns and more, which is most of a round trip. No
                // pause at all is worse: the CPU discards speculated loads when the line changes.
                load_fence();
            }
            if check(turn) {
                return true;
            }
        }
        false
    }

    #[inline]
    fn burst(&self) -> u32 {
        self.burst.load(Ordering::Relaxed)
    }

    /// Whether this wait does not spin, as the latest ones all ended in sleep: where the peer needs this very
    /// CPU, spinning would only delay the peer. Every few waits it is tried again.
    #[inline]
    fn sleeps_at_once(&self) -> bool {
        self.is_tired() && !self.slept.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRY_EVERY)
    }

    /// Whether the latest waits that were not over at once all ended in sleep.
    #[inline]
    fn is_tired(&self) -> bool {
        self.strategy == WaitStrategy::SpinThenPark
            && self.spin_ns.load(Ordering::Relaxed) <= SPIN_MIN_NS
    }

    /// WAIT: until `cond` returns something. It is asked at least once, and once more before the wait reports
    /// anything else. The peer posts `semaphore` to wake this side.
    #[inline]
    pub(crate) fn wait<T>(
        &self,
        semaphore: &impl Sleep,
        deadline: &Deadline,
        watch: &impl WaitContext,
        mut cond: impl FnMut() -> Option<T>,
    ) -> Result<T, Unready> {
        let burst = if self.sleeps_at_once() { 1 } else { self.burst() };
        if let Some(value) = look(burst, &mut cond) {
            if burst > 1 && self.is_tired() {
                self.learn(false);
            }
            return Ok(value);
        }
        self.wait_slowly(semaphore, deadline, watch, cond, burst)
    }

    #[cold]
    fn wait_slowly<T>(
        &self,
        semaphore: &impl Sleep,
        deadline: &Deadline,
        watch: &impl WaitContext,
        mut cond: impl FnMut() -> Option<T>,
        burst: u32,
    ) -> Result<T, Unready> {
        let start = sys::monotonic_ns();
        let deadline = deadline.at_ns(start);
        let mut spin_until = self.spin_until(start);
        if burst == 1 && self.is_tired() {
            spin_until = start;
        }
        let mut looked_at = start;
        let next_probe = |now| later(now, watch.slice());
        let mut probe_at = next_probe(start);
        let mut parked = false;
        loop {
            if let Some(value) = look(if parked { 1 } else { burst }, &mut cond) {
                self.learn(parked);
                if !parked && self.strategy == WaitStrategy::Spin {
                    // It may have come while the peer had this CPU.
                    self.may_go_on_spinning(looked_at, sys::monotonic_ns());
                }
                return Ok(value);
            }
            let now = sys::monotonic_ns();
            let mut peer = watch.peer();
            // Repeated waits of less than a slice must learn of a death as well.
            let overdue =
                || now >= deadline && now >= next_probe(self.probed_ns.load(Ordering::Relaxed));
            if peer == Peer::Alive && (now >= probe_at || overdue()) {
                peer = watch.probe();
                probe_at = next_probe(now);
                self.probed_ns.store(now, Ordering::Relaxed);
            }
            let end = if watch.stopped() {
                Some(Unready::Stopped)
            } else if peer != Peer::Alive {
                Some(Unready::Gone(peer))
            } else if now >= deadline {
                Some(Unready::Timeout)
            } else {
                None
            };
            if let Some(end) = end {
                // The peer may have published and ended since the last check: deliver before the end.
                fence(Ordering::SeqCst);
                return cond().ok_or(end);
            }
            if now < spin_until && self.may_go_on_spinning(looked_at, now) {
                looked_at = now;
                continue;
            }
            (parked, spin_until) = (true, now);
            failpoint!("wait.before_sleep");
            let prepared = semaphore.prepare();
            if prepared.is_some()
                && let Some(value) = cond()
            {
                semaphore.abandon();
                self.learn(true);
                return Ok(value);
            }
            if semaphore.sleep(prepared, deadline.min(probe_at)) == Waited::Token {
                // See the top of this file: glibc took the token with acquire ordering only.
                fence(Ordering::SeqCst);
                failpoint!("wait.token_taken");
                watch.woken();
                // A peer that has just attached is checked more often than a missing one.
                probe_at = probe_at.min(next_probe(sys::monotonic_ns()));
            }
        }
    }

    fn spin_until(&self, start: u64) -> u64 {
        match self.strategy {
            _ if self.alone => start,
            WaitStrategy::Park => start,
            WaitStrategy::SpinThenPark => start + self.spin_ns.load(Ordering::Relaxed),
            WaitStrategy::Spin if start < self.crowded_until_ns.load(Ordering::Relaxed) => start,
            WaitStrategy::Spin => {
                self.burst.store(BURST, Ordering::Relaxed);
                u64::MAX
            }
        }
    }

    /// Whether a spinning thread keeps its CPU, as far as the last reading of the clock and this one show.
    fn may_go_on_spinning(&self, looked_at: u64, now: u64) -> bool {
        let lost = self.strategy == WaitStrategy::Spin && now - looked_at > LOST_NS;
        if lost {
            self.make_room(now);
        }
        !lost
    }

    /// Another thread took the CPU during the spin: the next waits sleep.
    fn make_room(&self, now: u64) {
        let until = self.crowded_until_ns.load(Ordering::Relaxed);
        let again = now < until.saturating_add(CROWDED_MIN_NS);
        let before = if again { self.crowded_ns.load(Ordering::Relaxed) } else { 0 };
        let crowded = (2 * before).clamp(CROWDED_MIN_NS, CROWDED_MAX_NS);
        self.crowded_ns.store(crowded, Ordering::Relaxed);
        self.crowded_until_ns.store(now.saturating_add(crowded), Ordering::Relaxed);
        self.burst.store(1, Ordering::Relaxed);
    }

    /// Spinning longer is worth it if that is how the wait ended, and not if it ended in sleep.
    fn learn(&self, parked: bool) {
        let spin = self.spin_ns.load(Ordering::Relaxed);
        let spin = if parked { spin / 2 } else { spin * 2 };
        self.spin_ns.store(spin.clamp(SPIN_MIN_NS, SPIN_MAX_NS), Ordering::Relaxed);
    }
}

/// The pause before the first check of the next wait, after one in which check `turn` succeeded.
///
/// A look too early costs ten times as much as a step of the pause, so it grows four times as fast as it
/// shrinks. A wait that was long for other reasons teaches nothing.
#[inline]
fn next_pause(pause: u32, turn: u32) -> u32 {
    match turn {
        0 => pause.saturating_sub(1),
        1..SHORT => (pause + 4).min(PAUSE_MAX),
        _ => pause,
    }
}

/// Looks `times` times in a row.
#[inline]
fn look<T>(times: u32, mut cond: impl FnMut() -> Option<T>) -> Option<T> {
    for turn in 0..times {
        if turn > 0 {
            spin_hint();
        }
        let value = cond();
        if value.is_some() {
            return value;
        }
    }
    None
}

/// WAKE: a thread that waits on `semaphore` sees the state that was published before this call.
#[inline]
pub(crate) fn wake(semaphore: &Semaphore) {
    // See the top of this file: the state is published before the value is read. The cfg serves the
    // litmus test alone, which must notice that the fence is missing.
    #[cfg(not(zerobuffer_without_wake_fence))]
    fence(Ordering::SeqCst);
    post_if_empty(semaphore);
}

/// WAKE for a waiter that checks again in every slice: without the fence a wake-up may come a
/// slice late, but costs nothing now.
#[inline]
pub(crate) fn post_if_empty(semaphore: &Semaphore) {
    if semaphore.value().is_none_or(|tokens| tokens <= 0) {
        semaphore.post();
    }
}

#[cfg(all(test, loom))]
pub(crate) mod models;

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests;
