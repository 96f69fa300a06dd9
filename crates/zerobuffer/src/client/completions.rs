//! Calls that no thread blocks for: futures and callbacks.
//!
//! A call is sent by the caller itself if there is room and its turn has come. What cannot be sent at once is
//! queued, in order, and sent by the completer (`completer.rs`): one thread for each client that is started by
//! the first such call, and ends with the connection. It waits for responses among the threads that block for
//! theirs (`turns.rs`), keeps the deadlines, reconnects if requests are to be sent again, and runs the callbacks.
//! A future is a callback that wakes a task. In a client of an event loop (`event_loop.rs`) that loop takes the
//! thread's place.

use super::OwnedResponse;
use super::channel::SEALED;
use super::completer::Completer;
use super::number::Number;
use super::resend::is_not_started;
use super::shared::{InPlace, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Awaited;
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::alarm::Alarm;
use crate::wait::{Deadline, WaitStrategy, Waiter};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What becomes of calls whose completer has panicked.
const BROKEN: Error = Error::InvalidState {
    reason: "the thread zb-completer panicked, and what became of the request is not known; \
             the next call starts another thread",
};

/// What a call ends with.
pub(super) enum OnDone {
    Outcome(Box<dyn FnOnce(Result<OwnedResponse>) + Send>),
    /// For the caller who makes the call again elsewhere.
    Attempt(Box<dyn FnOnce(Attempted) + Send>),
}

/// What an attempt at a call ends with.
pub(super) enum Attempted {
    Done(Result<OwnedResponse>),
    /// The server ended before it took the request, which can be sent again.
    NotStarted(Error, Request),
}

impl OnDone {
    fn run(self, outcome: Result<OwnedResponse>) {
        match self {
            Self::Outcome(on_done) => on_done(outcome),
            Self::Attempt(on_done) => on_done(Attempted::Done(outcome)),
        }
    }
}

pub(super) type Fill = Box<dyn FnMut(&mut [u8]) + Send>;

/// The calls of one client that no thread blocks for.
pub(super) struct Completions {
    state: Mutex<State>,
    pub(super) next_id: AtomicU64,
    /// The completer is to check everything.
    pub(super) alarm: Alarm,
    bell: Mutex<Bell>,
    rung: Condvar,
    pub(super) parked: Waiter,
    /// The latest response came while its caller spun: the completer is not to wait for the next one.
    pub(super) came_at_once: AtomicBool,
    /// An event loop completes the calls, and no thread.
    has_event_loop: AtomicBool,
    /// The completer is to panic.
    #[cfg(all(test, not(loom)))]
    pub(super) breaks: AtomicBool,
}

impl std::fmt::Debug for Completions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) sent: Vec<Sent>,
    pub(super) queue: VecDeque<Queued>,
    /// The one that the completer is sending, and whether it was cancelled meanwhile.
    pub(super) in_hand: Option<(u64, bool)>,
    /// Those that the completer has taken out and not ended yet, each with whether it was cancelled meanwhile.
    settling: VecDeque<(u64, bool)>,
    /// No call is due before.
    pub(super) soonest: u64,
    /// When the completer checks again without a ring; 0: not before it is rung.
    pub(super) wakes_at: u64,
    pub(super) running: bool,
    /// The latest completer's.
    thread: Option<JoinHandle<()>>,
    /// The client was dropped.
    pub(super) over: bool,
}

/// Where the completer sleeps.
#[derive(Default)]
pub(super) struct Bell {
    /// On this connection, for this; otherwise until it is rung.
    pub(super) at: Option<(InPlace, Awaited)>,
}

/// A call that was accepted: it ends by its outcome, or because it is cancelled.
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) timeout: Duration,
    pub(super) due: u64,
    /// `None` once it has ended.
    on_done: Option<OnDone>,
    /// Why it is sent again.
    pub(super) first_error: Option<Error>,
}

/// Waits for its response.
pub(super) struct Sent {
    pub(super) call: Call,
    pub(super) connection: InPlace,
    pub(super) number: Number,
}

/// Waits to be sent.
pub(super) struct Queued {
    pub(super) call: Call,
    pub(super) request: Request,
}

pub(super) struct Request {
    pub(super) size: usize,
    pub(super) demand: Demand,
    pub(super) fill: Fill,
}

impl Call {
    pub(super) fn new(id: u64, timeout: Duration, due: u64, on_done: OnDone) -> Self {
        Self { id, timeout, due, on_done: Some(on_done), first_error: None }
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::at(self.due, self.timeout)
    }

    pub(super) fn finish(mut self, outcome: Result<OwnedResponse>) {
        if let Some(on_done) = self.on_done.take() {
            // What a callback panics with is its own affair: the next one is to run.
            contain(|| on_done.run(outcome));
        }
    }

    /// Whether its request is sent again by others.
    pub(super) fn is_attempt(&self) -> bool {
        matches!(self.on_done, Some(OnDone::Attempt(_)))
    }

    /// For the caller who sends it again elsewhere.
    pub(super) fn hand_back(mut self, error: Error, request: Request) {
        if let Some(OnDone::Attempt(on_done)) = self.on_done.take() {
            contain(|| on_done(Attempted::NotStarted(error, request)));
        }
    }

    /// Its callback is dropped, and not called. Of what that panics with its caller hears.
    pub(super) fn cancel(mut self) {
        drop(self.on_done.take());
    }

    /// Ends with what went wrong first, unless a server that lives has no room.
    pub(super) fn fail(mut self, error: Error) {
        let is_said_of_next = matches!(error.kind(), ErrorKind::Full | ErrorKind::TooLarge);
        let error = match self.first_error.take() {
            Some(first) if !is_said_of_next => first.unless_closed(error),
            _ => error,
        };
        self.finish(Err(error));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nothing drops a call that has not ended, but a panic.
        if let Some(on_done) = self.on_done.take() {
            contain(|| on_done.run(Err(BROKEN)));
        }
    }
}

/// Runs code of the user's, and lets no panic out.
pub(super) fn contain(run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    // Its drop is the user's code too.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(panic);
    }
}

impl Sent {
    /// Whether its response has come, or its connection has ended.
    pub(super) fn is_ready(&self) -> bool {
        self.connection.channel.is_ready(self.number) || self.connection.channel.end().is_some()
    }
}

/// A turn to send, taken without waiting.
pub(super) struct SendTurn {
    pub(super) connection: InPlace,
    pub(super) ticket: u64,
}

impl Drop for SendTurn {
    fn drop(&mut self) {
        // As for a `Turn`: an event loop's client may be dropped in a forked child.
        if self.connection.channel.segment.is_this_process() {
            self.connection.senders.leave(self.ticket);
        }
    }
}

impl Completions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            next_id: AtomicU64::new(0),
            came_at_once: AtomicBool::new(false),
            alarm: Alarm::default(),
            bell: Mutex::default(),
            rung: Condvar::new(),
            parked: Waiter::new(WaitStrategy::Park),
            has_event_loop: AtomicBool::new(false),
            #[cfg(all(test, not(loom)))]
            breaks: AtomicBool::new(false),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the completer, if there is one, check everything.
    pub(super) fn ring(&self) {
        let bell = self.bell();
        // A thread asks for it under the lock, or after the fence of its wait on a connection.
        let is_first = self.alarm.raise();
        if !is_first && self.has_event_loop() {
            // Its descriptor is readable, or is about to be.
            return;
        }
        let at = bell.at.clone();
        drop(bell);
        self.rung.notify_all();
        if let Some((connection, awaited)) = at {
            connection.channel.wake(awaited);
            connection.receivers.notify();
        }
    }

    /// No call is made any more. Waits for the completer, and so for a callback that is running.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        let thread = state.thread.take();
        drop(state);
        self.ring();
        // Its own thread may be the one that has dropped the client.
        if let Some(thread) = thread.filter(|thread| !sys::is_this_thread(thread)) {
            sys::join(thread);
        }
    }

    /// Whether the calling thread is the completer.
    pub(super) fn is_this_thread(&self) -> bool {
        self.state().thread.as_ref().is_some_and(sys::is_this_thread)
    }

    /// From now on an event loop completes the calls, all of which are on this connection. To be called
    /// before the first one.
    pub(super) fn use_event_loop(&self, connection: InPlace) {
        self.bell().at = Some((connection, Awaited::Response));
        self.has_event_loop.store(true, Ordering::Relaxed);
    }

    /// Lets go of the connection, which keeps these calls, at the end of the event loop's client.
    pub(super) fn leave_event_loop(&self) {
        let at = self.bell().at.take();
        drop(at);
    }

    fn has_event_loop(&self) -> bool {
        self.has_event_loop.load(Ordering::Relaxed)
    }

    /// Starts the completer unless it runs.
    pub(super) fn ensure_completer(self: &Arc<Self>, client: &Arc<Inner>) -> Result<()> {
        let mut state = self.state();
        if self.has_event_loop() {
            state.running = true;
        }
        if !state.running {
            let completer = Completer::new(self, client);
            let thread = sys::spawn("zb-completer", move || completer.run())?;
            state.running = true;
            state.thread = Some(thread);
        }
        Ok(())
    }

    /// Returns whether there is a completer for it, as [`Completions::add_queued`] does.
    pub(super) fn add_sent(&self, sent: Sent) -> bool {
        let (connection, number) = (sent.connection.clone(), sent.number);
        let mut state = self.state();
        let overslept = state.expects(sent.call.due);
        state.sent.push(sent);
        let is_served = state.running;
        drop(state);
        // The response or the end may have come before the completer had the request.
        let channel = &connection.channel;
        if overslept || channel.is_ready(number) || channel.end().is_some() {
            self.ring();
        }
        is_served
    }

    /// Returns whether there is a completer for it: one that has found nothing to do on a closed client may
    /// have ended since it was ensured.
    pub(super) fn add_queued(&self, queued: Queued) -> bool {
        let mut state = self.state();
        state.expects(queued.call.due);
        state.queue.push_back(queued);
        let is_served = state.running;
        drop(state);
        self.ring();
        is_served
    }

    /// Takes the call out, wherever it is. True if nothing will come of it.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let mut state = self.state();
        if let Some(index) = state.sent.iter().position(|sent| sent.call.id == id) {
            let Sent { connection, number, call } = state.sent.swap_remove(index);
            drop(state);
            connection.channel.abandon(number);
            call.cancel();
            return true;
        }
        if let Some(index) = state.queue.iter().position(|queued| queued.call.id == id) {
            let queued = state.queue.remove(index);
            drop(state);
            // It may have had the turn to send, which the completer passes on.
            self.ring();
            if let Some(Queued { call, request }) = queued {
                call.cancel();
                drop(request);
            }
            return true;
        }
        let State { in_hand, settling, .. } = &mut *state;
        let found = in_hand.iter_mut().chain(settling).find(|(other, _)| *other == id);
        found.map(|(_, cancelled)| *cancelled = true).is_some()
    }
}

impl Completions {
    /// Ends every call, without a completer: the next call starts one.
    pub(super) fn end_all(&self) {
        let mut state = self.state();
        let (sent, queue) = (std::mem::take(&mut state.sent), std::mem::take(&mut state.queue));
        (state.in_hand, state.running) = (None, false);
        state.settling.clear();
        drop(state);
        for Sent { call, connection, number } in sent {
            contain(|| connection.channel.abandon(number));
            call.finish(Err(BROKEN));
        }
        for Queued { call, request } in queue {
            call.finish(Err(BROKEN));
            contain(|| drop(request));
        }
    }
}

impl State {
    /// Notes that a call is due then. Whether the completer would check too late for it.
    pub(super) fn expects(&mut self, due: u64) -> bool {
        // The one in hand may come back to the queue, and was counted when it was added.
        if self.is_empty() {
            self.soonest = due;
        }
        self.soonest = self.soonest.min(due);
        self.wakes_at == 0 || due < self.wakes_at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.queue.is_empty() && self.in_hand.is_none()
    }

    /// The completer takes these out.
    pub(super) fn settle(&mut self, taken: &[Sent]) {
        self.settling.extend(taken.iter().map(|sent| (sent.call.id, false)));
    }

    /// What became of one of them is known, and it cannot be cancelled here any more. Whether it was.
    pub(super) fn is_settled_as_cancelled(&mut self, id: u64) -> bool {
        // Mostly the first one.
        let index = self.settling.iter().position(|(settling, _)| *settling == id);
        index.and_then(|index| self.settling.remove(index)).is_some_and(|(_, cancelled)| cancelled)
    }

    pub(super) fn is_cancelled_in_hand(&self) -> bool {
        self.in_hand.is_some_and(|(_, cancelled)| cancelled)
    }

    pub(super) fn count_soonest(&mut self) {
        let sent = self.sent.iter().map(|sent| sent.call.due);
        let queued = self.queue.iter().map(|queued| queued.call.due);
        self.soonest = sent.chain(queued).min().unwrap_or(u64::MAX);
    }
}

/// Whether an error says that the connection has ended.
pub(super) fn has_ended(error: &Error) -> bool {
    matches!(error, Error::PeerDied { .. } | Error::PeerClosed { .. } | Error::InvalidState { .. })
        && (is_not_started(error) || is_sealed(error))
}

pub(super) fn is_sealed(error: &Error) -> bool {
    let Error::InvalidState { reason } = error else { return false };
    matches!(SEALED, Error::InvalidState { reason: sealed } if sealed == *reason)
}

impl Completions {
    /// Sleeps until it is rung, or until a time.
    pub(super) fn await_ring(&self, until: Option<u64>) {
        let mut bell = self.bell();
        while !self.alarm.is_raised() {
            let waited = match until {
                None => self.rung.wait(bell).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_sub(sys::monotonic_ns());
                    if left == 0 {
                        return;
                    }
                    let left = Duration::from_nanos(left);
                    self.rung.wait_timeout(bell, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            bell = waited;
        }
    }
}

impl State {
    pub(super) fn may_overtake_nothing(&self) -> bool {
        self.queue.is_empty() && self.in_hand.is_none()
    }
}

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests;
