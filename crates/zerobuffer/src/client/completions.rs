//! Calls that no thread blocks for: futures and callbacks.
//!
//! A call is sent by the caller itself if there is room and its turn has come. What cannot be sent at once is
//! queued, in order, and sent by the completer: one thread for each client that is started by the first such
//! call, and ends with the connection. It waits for responses among the threads that block for theirs
//! (`turns.rs`), keeps the deadlines, reconnects if requests are to be sent again, and runs the callbacks.
//! A future is a callback that wakes a task.

use super::OwnedResponse;
use super::channel::SEALED;
use super::number::Number;
use super::resend::is_not_started;
use super::shared::{InPlace, Inner, SharedClient};
use crate::error::{Error, Result};
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::{Deadline, Unready, WaitContext, WaitStrategy, Waiter, later};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// For how long the completer still waits on a connection when nothing is under way: the next call finds it
/// there.
const LINGER: Duration = Duration::from_millis(20);
/// How often it checks for room that the server makes, which wakes blocked senders only.
const ROOM_POLL: Duration = Duration::from_millis(1);
/// How long it waits for another thread that reconnects, between two checks of the deadlines.
const ATTEMPT: Duration = Duration::from_millis(5);
/// With more calls under way than this the completer does not spin: it would check all of them again and
/// again.
const SPIN_OVER: usize = 4;

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
    alarm: AtomicBool,
    bell: Mutex<Bell>,
    rung: Condvar,
    parked: Waiter,
    /// The completer is to panic.
    #[cfg(all(test, not(loom)))]
    breaks: AtomicBool,
}

impl std::fmt::Debug for Completions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct State {
    sent: Vec<Sent>,
    queue: VecDeque<Queued>,
    /// The one that the completer is sending, and whether it was cancelled meanwhile.
    in_hand: Option<(u64, bool)>,
    /// No call is due before.
    soonest: u64,
    /// When the completer checks again without a ring; 0: not before it is rung.
    wakes_at: u64,
    running: bool,
    /// The latest completer's.
    thread: Option<JoinHandle<()>>,
    /// The client was dropped.
    over: bool,
}

/// Where the completer sleeps.
#[derive(Default)]
struct Bell {
    /// Among the threads of this connection; otherwise until it is rung.
    at: Option<InPlace>,
}

/// A call that was accepted: it ends by its outcome, or because it is cancelled.
pub(super) struct Call {
    pub(super) id: u64,
    timeout: Duration,
    due: u64,
    /// `None` once it has ended.
    on_done: Option<OnDone>,
    /// Why it is sent again.
    first_error: Option<Error>,
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

    fn deadline(&self) -> Deadline {
        Deadline::at(self.due, self.timeout)
    }

    fn finish(mut self, outcome: Result<OwnedResponse>) {
        if let Some(on_done) = self.on_done.take() {
            // What a callback panics with is its own affair: the next one is to run.
            contain(|| on_done.run(outcome));
        }
    }

    /// Whether its request is sent again by others.
    fn is_attempt(&self) -> bool {
        matches!(self.on_done, Some(OnDone::Attempt(_)))
    }

    fn hand_back(mut self, error: Error, request: Request) {
        if let Some(OnDone::Attempt(on_done)) = self.on_done.take() {
            contain(|| on_done(Attempted::NotStarted(error, request)));
        }
    }

    /// Its callback is dropped, and not called. Of what that panics with its caller hears.
    fn cancel(mut self) {
        drop(self.on_done.take());
    }

    /// Ends with what went wrong first, unless a server that lives has no room.
    fn fail(mut self, error: Error) {
        let is_said_of_next = matches!(error, Error::Full { .. } | Error::TooLarge { .. });
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
    fn is_ready(&self) -> bool {
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
        self.connection.senders.leave(self.ticket);
    }
}

impl Completions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            next_id: AtomicU64::new(0),
            alarm: AtomicBool::new(false),
            bell: Mutex::default(),
            rung: Condvar::new(),
            parked: Waiter::new(WaitStrategy::Park),
            #[cfg(all(test, not(loom)))]
            breaks: AtomicBool::new(false),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the completer, if there is one, check everything.
    pub(super) fn ring(&self) {
        let bell = self.bell();
        // Relaxed: under the lock; and a thread that waits on a connection reads it after the semaphore's fence.
        self.alarm.store(true, Ordering::Relaxed);
        let at = bell.at.clone();
        drop(bell);
        self.rung.notify_all();
        if let Some(connection) = at {
            connection.channel.wake_receivers();
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

    /// Starts the completer unless it runs.
    pub(super) fn ensure_completer(self: &Arc<Self>, client: &Arc<Inner>) -> Result<()> {
        let mut state = self.state();
        if !state.running {
            let (calls, client) = (Arc::clone(self), Arc::downgrade(client));
            let completer = Completer {
                calls,
                client,
                turn: None,
                wants_room: false,
                probes_at: 0,
                last: None,
            };
            let thread = sys::spawn_without_signals("zb-completer", move || completer.run())?;
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
            if let Some(Queued { call, request }) = queued {
                call.cancel();
                drop(request);
            }
            return true;
        }
        match &mut state.in_hand {
            Some((in_hand, cancelled)) if *in_hand == id => {
                *cancelled = true;
                true
            }
            _ => false,
        }
    }
}

impl Completions {
    /// Ends every call, without a completer: the next call starts one.
    fn end_all(&self) {
        let mut state = self.state();
        let (sent, queue) = (std::mem::take(&mut state.sent), std::mem::take(&mut state.queue));
        (state.in_hand, state.running) = (None, false);
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
    fn expects(&mut self, due: u64) -> bool {
        // The one in hand may come back to the queue, and was counted when it was added.
        if self.is_empty() {
            self.soonest = due;
        }
        self.soonest = self.soonest.min(due);
        self.wakes_at == 0 || due < self.wakes_at
    }

    fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.queue.is_empty() && self.in_hand.is_none()
    }

    fn count_soonest(&mut self) {
        let sent = self.sent.iter().map(|sent| sent.call.due);
        let queued = self.queue.iter().map(|queued| queued.call.due);
        self.soonest = sent.chain(queued).min().unwrap_or(u64::MAX);
    }
}

/// Wakes the completer when its turn to send has come.
struct Ringer(Weak<Completions>);

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        if let Some(calls) = self.0.upgrade() {
            calls.ring();
        }
    }
}

/// The thread that completes calls.
struct Completer {
    calls: Arc<Completions>,
    client: Weak<Inner>,
    /// In line to send, or inside: what is queued.
    turn: Option<SendTurn>,
    /// It is the turn of what is queued first, and the ring has no room.
    wants_room: bool,
    /// When it checks for the server's death, whatever else it does.
    probes_at: u64,
    /// The latest connection that a call was sent on.
    last: Option<InPlace>,
}

impl Completer {
    fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        if let Err(panic) = served {
            // Nothing is known of what it was at, so nothing is kept.
            self.calls.bell().at = None;
            contain(|| drop(panic));
            contain(|| self.calls.end_all());
        }
    }

    fn serve(&mut self) {
        loop {
            #[cfg(all(test, not(loom)))]
            assert!(!self.calls.breaks.swap(false, Ordering::Relaxed), "the completer panics");
            self.complete();
            self.send_queued();
            if self.is_over() {
                return;
            }
            self.sleep();
        }
    }

    /// Whether there is nothing to do any more; the next call starts another completer.
    fn is_over(&self) -> bool {
        let idle = self.calls.state().is_empty();
        // Not under the lock: what is dropped here may be the client.
        let is_closed = idle && self.client.upgrade().is_none_or(|client| client.is_closed());
        let mut state = self.calls.state();
        let over = state.is_empty() && (state.over || is_closed);
        state.running = !over;
        over
    }

    /// Sleeps until there may be something to do.
    fn sleep(&mut self) {
        let calls = &*self.calls;
        let now = sys::monotonic_ns();
        let mut state = calls.state();
        let count = state.sent.len();
        let idle = state.is_empty();
        let mut until = if idle { later(now, LINGER) } else { state.soonest };
        if self.wants_room {
            until = until.min(later(now, ROOM_POLL));
        }
        let first = state.sent.first().map(|sent| &sent.connection);
        let in_line = self.turn.as_ref().map(|turn| &turn.connection);
        let Some(connection) = first.or(in_line).or(self.last.as_ref()).cloned() else {
            let until = (!idle).then_some(until);
            state.wakes_at = until.unwrap_or(0);
            drop(state);
            calls.await_ring(until);
            return;
        };
        state.wakes_at = until;
        drop(state);
        if now >= self.probes_at {
            // Waits that all end early would not notice that the server has died.
            connection.channel.probe();
            self.probes_at = later(now, connection.channel.slice());
        }
        calls.bell().at = Some(connection.clone());
        let waiter = if count > SPIN_OVER { &calls.parked } else { connection.channel.waiter() };
        let waited = connection.wait_by(waiter, &Deadline::at(until, Duration::ZERO), || {
            let freed = || self.wants_room && !connection.channel.is_room_wanted();
            let ready = || calls.state().sent.iter().any(Sent::is_ready);
            (calls.alarm.load(Ordering::Relaxed) || freed() || ready()).then_some(())
        });
        calls.bell().at = None;
        self.last = Some(connection.clone());
        let nothing_came = idle && waited == Err(Unready::Timeout);
        if nothing_came || connection.channel.end().is_some() {
            self.last = None;
        }
    }

    /// Takes out and ends what has its response, is due, or was sent on a connection that has ended.
    fn complete(&self) {
        let now = sys::monotonic_ns();
        let mut state = self.calls.state();
        // Before the lists are read: whatever is added after that rings again.
        self.calls.alarm.store(false, Ordering::Relaxed);
        let expired = state.soonest <= now;
        let taken: Vec<Sent> = state
            .sent
            .extract_if(.., |sent| (expired && sent.call.due <= now) || sent.is_ready())
            .collect();
        let mut late = Vec::new();
        if expired {
            let (due, waiting) = state.queue.drain(..).partition(|queued| queued.call.due <= now);
            (late, state.queue) = (Vec::from_iter::<VecDeque<Queued>>(due), waiting);
            state.count_soonest();
        }
        drop(state);
        let mut again = Vec::new();
        for sent in taken {
            again.extend(self.settle(sent, now));
        }
        for Queued { call, request } in late {
            let error = self.why_not_sent(request.size);
            contain(|| drop(request));
            call.fail(error);
        }
        self.put_back(again);
    }

    /// What is sent again goes before what was never sent.
    fn put_back(&self, again: Vec<Again>) {
        if again.is_empty() {
            return;
        }
        let mut state = self.calls.state();
        let mut resent = Vec::new();
        for again in again {
            match again {
                Again::Waits(sent) => state.sent.push(sent),
                Again::Resent(number, queued) => resent.push((number.for_caller(), queued)),
            }
        }
        resent.sort_by_key(|(number, _)| *number);
        for (_, queued) in resent.into_iter().rev() {
            state.queue.push_front(queued);
        }
        state.count_soonest();
    }

    /// Why a request was not sent in time.
    fn why_not_sent(&self, size: usize) -> Error {
        let client = self.client.upgrade().map(SharedClient::of);
        match client.map(|client| client.in_place()) {
            Some(Ok(connection)) => connection.why_not_sent(size).never_sent(),
            _ => Error::Closed,
        }
    }

    /// Ends one call, unless it goes on.
    fn settle(&self, sent: Sent, now: u64) -> Option<Again> {
        let (channel, number) = (&sent.connection.channel, sent.number);
        let deadline = sent.call.deadline();
        let end = channel.end();
        // The server may have responded and ended since: the response comes before the end.
        fence(Ordering::SeqCst);
        let outcome = if let Err(error) = channel.check() {
            Err(error)
        } else if let Some(looked) = channel.look(number) {
            channel.settle(number, &deadline, Ok(looked))
        } else {
            match end {
                Some(Unready::Gone(peer)) => {
                    let resends = sent.call.is_attempt() || self.resends();
                    let bytes = resends.then(|| channel.pending_bytes(number)).flatten();
                    let outcome = channel.settle(number, &deadline, Err(Unready::Gone(peer)));
                    match (outcome, bytes) {
                        (Err(error), Some((bytes, demand))) if is_not_started(&error) => {
                            return sent.send_again(error, bytes, demand);
                        }
                        (outcome, _) => outcome,
                    }
                }
                Some(Unready::Stopped) => channel.settle(number, &deadline, Err(Unready::Stopped)),
                _ if sent.call.due <= now => {
                    channel.settle(number, &deadline, Err(Unready::Timeout))
                }
                _ => return Some(Again::Waits(sent)),
            }
        };
        match outcome {
            Ok(held) => {
                let response = OwnedResponse::new(Arc::clone(channel), held);
                sent.call.finish(Ok(response));
            }
            Err(error) => sent.call.finish(Err(error)),
        }
        None
    }

    fn resends(&self) -> bool {
        self.client.upgrade().is_some_and(|client| client.config.resend_not_started)
    }

    /// Sends what is queued, as far as there is room.
    fn send_queued(&mut self) {
        self.wants_room = false;
        loop {
            let mut state = self.calls.state();
            let Some(queued) = state.queue.pop_front() else {
                drop(state);
                self.turn = None;
                return;
            };
            state.in_hand = Some((queued.call.id, false));
            drop(state);
            let outcome = self.send_one(queued);
            let mut state = self.calls.state();
            let cancelled = state.in_hand.take().is_some_and(|(_, cancelled)| cancelled);
            let goes_on = match outcome {
                Progress::Sent(Sent { call, connection, number }) if cancelled => {
                    drop(state);
                    connection.channel.abandon(number);
                    contain(|| call.cancel());
                    true
                }
                Progress::Waits(Queued { call, request })
                | Progress::Retry(Queued { call, request })
                | Progress::NotStarted(Queued { call, request }, _)
                    if cancelled =>
                {
                    // What a callback drops may use the client: not under the lock.
                    drop(state);
                    contain(|| call.cancel());
                    contain(|| drop(request));
                    true
                }
                Progress::Failed(call, _) if cancelled => {
                    drop(state);
                    contain(|| call.cancel());
                    true
                }
                Progress::Sent(sent) => {
                    // The completer checks for its response before it sleeps.
                    state.expects(sent.call.due);
                    state.sent.push(sent);
                    true
                }
                Progress::Waits(queued) => {
                    state.queue.push_front(queued);
                    false
                }
                Progress::Retry(queued) => {
                    state.queue.push_front(queued);
                    true
                }
                Progress::NotStarted(Queued { call, request }, error) => {
                    drop(state);
                    call.hand_back(error, request);
                    true
                }
                Progress::Failed(call, error) => {
                    drop(state);
                    call.fail(error);
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    fn send_one(&mut self, mut queued: Queued) -> Progress {
        let Some(client) = self.client.upgrade().map(SharedClient::of) else {
            return queued.failed(Error::Closed);
        };
        if queued.call.due <= sys::monotonic_ns() {
            let error = self.why_not_sent(queued.request.size);
            return queued.failed(error);
        }
        let connection = match client.in_place() {
            Ok(connection) => connection,
            Err(error) => return queued.failed(error),
        };
        let error = match self.try_send(&connection, &mut queued.request) {
            Ok(Some(number)) => {
                self.turn = None;
                self.last = Some(connection.clone());
                let Queued { call, request } = queued;
                contain(|| drop(request));
                return Progress::Sent(Sent { call, connection, number });
            }
            Ok(None) => return Progress::Waits(queued),
            Err(error) => error.never_sent(),
        };
        self.turn = None;
        if !has_ended(&error) {
            return queued.failed(error);
        }
        let soon = later(sys::monotonic_ns(), ATTEMPT);
        if client.was_replaced_in_place(&connection, &Deadline::at(soon, ATTEMPT)) {
            return Progress::Retry(queued);
        }
        if queued.call.is_attempt() {
            return Progress::NotStarted(queued, error);
        }
        if !client.inner.config.resend_not_started {
            return queued.failed(error);
        }
        queued.call.first_error.get_or_insert(error);
        self.replace(&client, &connection, queued)
    }

    /// Attaches to the next server, as long as no call is due.
    fn replace(&self, client: &SharedClient, failed: &InPlace, queued: Queued) -> Progress {
        let (due, timeout) = (queued.call.due, queued.call.timeout);
        let is_due = || sys::monotonic_ns() >= self.calls.state().soonest.min(due);
        let until = self.calls.state().soonest.min(due);
        match client.replace_failed_in_place(failed, &Deadline::at(until, timeout), &is_due) {
            Ok(()) => Progress::Retry(queued),
            Err(_) if is_due() => {
                // There is nothing to wait on: the attempt was the wait.
                self.calls.alarm.store(true, Ordering::Relaxed);
                Progress::Waits(queued)
            }
            Err(error) => queued.failed(error),
        }
    }

    fn try_send(&mut self, connection: &InPlace, request: &mut Request) -> Result<Option<Number>> {
        if self.turn.as_ref().is_some_and(|turn| !turn.connection.is(connection)) {
            self.turn = None;
        }
        connection.channel.check()?;
        if self.turn.is_none() {
            let waker = Waker::from(Arc::new(Ringer(Arc::downgrade(&self.calls))));
            let ticket = connection.senders.join(waker).map_err(|_| connection.why_refused())?;
            self.turn = Some(SendTurn { connection: connection.clone(), ticket });
        }
        let is_inside =
            self.turn.as_ref().is_some_and(|turn| connection.senders.is_inside(turn.ticket));
        if !is_inside {
            // It is rung when it is.
            connection.channel.check()?;
            return match connection.channel.is_sealed() {
                true => Err(connection.why_refused()),
                false => Ok(None),
            };
        }
        let Request { size, demand, fill } = request;
        let mut send = || {
            let send = AssertUnwindSafe(|| connection.send_once(*size, *demand, &mut *fill));
            let panicked = Error::InvalidState { reason: "the code that fills it panicked" };
            catch_unwind(send).unwrap_or(Err(panicked))
        };
        if let Some(number) = send()? {
            return Ok(Some(number));
        }
        self.wants_room = true;
        connection.channel.want_room();
        send()
    }
}

/// Where a call goes on that was taken out.
enum Again {
    Waits(Sent),
    Resent(Number, Queued),
}

enum Progress {
    Sent(Sent),
    /// Until something changes.
    Waits(Queued),
    Retry(Queued),
    /// It is sent again by others.
    NotStarted(Queued, Error),
    Failed(Call, Error),
}

impl Queued {
    fn failed(self, error: Error) -> Progress {
        contain(|| drop(self.request));
        Progress::Failed(self.call, error)
    }
}

impl Sent {
    /// `None`: it is sent again by others.
    fn send_again(mut self, error: Error, bytes: Vec<u8>, demand: Demand) -> Option<Again> {
        let size = bytes.len();
        let fill: Fill = Box::new(move |to: &mut [u8]| to.copy_from_slice(&bytes));
        let request = Request { size, demand, fill };
        if self.call.is_attempt() {
            self.call.hand_back(error, request);
            return None;
        }
        self.call.first_error.get_or_insert(error);
        Some(Again::Resent(self.number, Queued { call: self.call, request }))
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
    fn await_ring(&self, until: Option<u64>) {
        let mut bell = self.bell();
        while !self.alarm.load(Ordering::Relaxed) {
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
