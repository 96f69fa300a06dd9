//! Completing calls that no thread blocks for: what has its response or its end, what is due, what can be sent.
//!
//! The thread `zb-completer` does it, and sleeps in between; or a program's event loop does, turn by turn, see
//! [`EventLoopClient`](super::EventLoopClient).

use super::OwnedResponse;
use super::channel::end_error;
use super::completions::{
    Call, Completions, Fill, Queued, Request, SendTurn, Sent, contain, has_ended,
};
use super::number::Number;
use super::resend::is_not_started;
use super::shared::{InPlace, Inner, SharedClient};
use crate::error::{Error, Result};
use crate::link::Awaited;
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::{Deadline, Unready, WaitContext, later};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

/// For how long the thread still waits on a connection when nothing is under way: the next call finds it there.
const LINGER: Duration = Duration::from_millis(20);
/// How long it waits for another thread that reconnects, between two checks of the deadlines.
const ATTEMPT: Duration = Duration::from_millis(5);
/// With more calls under way than this the thread does not spin: it would check all of them again and again.
const SPIN_OVER: usize = 4;

/// Wakes the completer when its turn to send has come.
struct Ringer(Weak<Completions>);

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        if let Some(calls) = self.0.upgrade() {
            calls.ring();
        }
    }
}

/// Completes the calls of one client.
pub(super) struct Completer {
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
    pub(super) fn new(calls: &Arc<Completions>, client: &Arc<Inner>) -> Self {
        let (calls, client) = (Arc::clone(calls), Arc::downgrade(client));
        Self { calls, client, turn: None, wants_room: false, probes_at: 0, last: None }
    }

    /// As a thread.
    pub(super) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        if let Err(panic) = served {
            // Nothing is known of what it was at, so nothing is kept.
            self.calls.bell().at = None;
            self.end_after(panic);
        }
    }

    /// Once, for an event loop. Returns when it is to be called again at the latest, as
    /// [`monotonic_ns`](sys::monotonic_ns) counts; `u64::MAX` for never.
    pub(super) fn run_once(&mut self) -> u64 {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        if let Err(panic) = worked {
            self.turn = None;
            self.end_after(panic);
        }
        let mut state = self.calls.state();
        // Once nothing is under way the time stays: it comes for nothing, once, and no call that is due later
        // has to move it.
        let is_over = state.is_empty() && state.soonest <= sys::monotonic_ns();
        state.wakes_at = if is_over { u64::MAX } else { state.soonest };
        state.wakes_at
    }

    fn end_after(&self, panic: Box<dyn Any + Send>) {
        contain(|| drop(panic));
        contain(|| self.calls.end_all());
    }

    /// All that there is to do at the moment.
    fn work(&mut self) {
        self.complete();
        // After the alarm was lowered: a test that sets it and rings is heard.
        #[cfg(all(test, not(loom)))]
        assert!(!self.calls.breaks.swap(false, Ordering::Relaxed), "the completer panics");
        self.send_queued();
    }

    fn serve(&mut self) {
        loop {
            self.work();
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
        let until = if idle { later(now, LINGER) } else { state.soonest };
        let first = state.sent.first().map(|sent| &sent.connection);
        let in_line = self.turn.as_ref().map(|turn| &turn.connection);
        let is_left_alone = || idle && calls.came_at_once.load(Ordering::Relaxed);
        let last = self.last.as_ref().filter(|_| !is_left_alone());
        let Some(connection) = first.or(in_line).or(last).cloned() else {
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
        // Its turn to send has come, so no other thread waits for room. While responses are to come it waits
        // for those, and for room at the same time: it is woken for room made by this process, and on a
        // service for all other as well. A channel's server makes room for what waits behind a response, or
        // the wait notices it in its next slice.
        let awaited = match self.wants_room && count == 0 {
            true => Awaited::Room,
            false => Awaited::Response,
        };
        calls.bell().at = Some((connection.clone(), awaited));
        let waiter = if count > SPIN_OVER { &calls.parked } else { connection.channel.waiter() };
        let deadline = Deadline::at(until, Duration::ZERO);
        let found = || {
            let freed = || self.wants_room && connection.channel.may_have_room();
            let ready = || calls.state().sent.iter().any(Sent::is_ready);
            let is_over = calls.alarm.is_raised() || is_left_alone();
            (is_over || freed() || ready()).then_some(())
        };
        let waited = match awaited {
            Awaited::Room => connection.channel.await_room_by(waiter, &deadline, found),
            Awaited::Response => connection.wait_by(waiter, &deadline, found),
        };
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
        self.calls.alarm.lower();
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
        state.settle(&taken);
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
    fn put_back(&self, mut again: Vec<Again>) {
        if again.is_empty() {
            return;
        }
        let mut state = self.calls.state();
        let is_cancelled = |again: &mut Again| state.is_settled_as_cancelled(again.call().id);
        let cancelled: Vec<_> = again.extract_if(.., is_cancelled).collect();
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
        drop(state);
        cancelled.into_iter().for_each(Again::cancel);
    }

    /// Ends a call by `end`, unless it was cancelled while this thread had it in its hands.
    fn end(&self, call: Call, end: impl FnOnce(Call)) {
        let is_cancelled = self.calls.state().is_settled_as_cancelled(call.id);
        match is_cancelled {
            true => {
                contain(|| call.cancel());
                // With the request that it may hold.
                contain(|| drop(end));
            }
            false => end(call),
        }
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
                            return self.send_again(sent, error, bytes, demand);
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
        let outcome = outcome.map(|held| OwnedResponse::new(Arc::clone(channel), held));
        self.end(sent.call, |call| call.finish(outcome));
        None
    }

    /// `None`: it is sent again by others.
    fn send_again(
        &self,
        mut sent: Sent,
        error: Error,
        bytes: Vec<u8>,
        demand: Demand,
    ) -> Option<Again> {
        let size = bytes.len();
        let fill: Fill = Box::new(move |to: &mut [u8]| to.copy_from_slice(&bytes));
        let request = Request { size, demand, fill };
        if sent.call.is_attempt() {
            self.end(sent.call, |call| call.hand_back(error, request));
            return None;
        }
        sent.call.first_error.get_or_insert(error);
        Some(Again::Resent(sent.number, Queued { call: sent.call, request }))
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

    /// Attaches to the next server, as long as no call is due, this one is wanted, and the client is there.
    fn replace(&self, client: &SharedClient, failed: &InPlace, queued: Queued) -> Progress {
        let (due, timeout) = (queued.call.due, queued.call.timeout);
        let is_over = || {
            let state = self.calls.state();
            let is_due = sys::monotonic_ns() >= state.soonest.min(due);
            is_due || state.over || state.is_cancelled_in_hand()
        };
        let until = self.calls.state().soonest.min(due);
        match client.replace_failed_in_place(failed, &Deadline::at(until, timeout), &is_over) {
            Ok(()) => Progress::Retry(queued),
            Err(_) if is_over() => {
                // There is nothing to wait on: the attempt was the wait.
                self.calls.alarm.raise();
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
            return match connection.channel.end() {
                _ if connection.channel.is_sealed() => Err(connection.why_refused()),
                // Its turn may never come, and there is nothing to wait on until then.
                Some(Unready::Gone(peer)) => Err(end_error(peer, None)),
                _ => Ok(None),
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

impl Again {
    fn call(&self) -> &Call {
        match self {
            Self::Waits(sent) => &sent.call,
            Self::Resent(_, queued) => &queued.call,
        }
    }

    fn cancel(self) {
        match self {
            Self::Waits(Sent { connection, number, call }) => {
                contain(|| connection.channel.abandon(number));
                contain(|| call.cancel());
            }
            Self::Resent(_, Queued { call, request }) => {
                contain(|| call.cancel());
                contain(|| drop(request));
            }
        }
    }
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
