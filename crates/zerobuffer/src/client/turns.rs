//! How the threads of one connection take turns, at sending and at waiting.

use super::current::Pin;
use crate::atomics::{AtomicU64, Ordering};
use crate::wait::Deadline;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::ThreadId;
use std::time::Duration;

/// Threads that wait for responses: one leads, the others follow.
#[derive(Debug, Default)]
pub(super) struct LeaderFollowers {
    state: Mutex<CrowdState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CrowdState {
    led: bool,
    /// Threads that sleep until the next turn.
    followers: u32,
    /// Counts the reasons to check again.
    turn: u64,
}

impl LeaderFollowers {
    fn lock(&self) -> MutexGuard<'_, CrowdState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be read before the look that precedes [`LeaderFollowers::follow`]: whatever comes after it ends the
    /// sleep.
    pub(super) fn turn(&self) -> u64 {
        self.lock().turn
    }

    pub(super) fn try_lead(&self) -> bool {
        !std::mem::replace(&mut self.lock().led, true)
    }

    pub(super) fn step_down(&self) {
        let mut state = self.lock();
        state.led = false;
        self.next_turn(state);
    }

    pub(super) fn notify(&self) {
        self.next_turn(self.lock());
    }

    /// A system call only if somebody sleeps.
    fn next_turn(&self, mut state: MutexGuard<'_, CrowdState>) {
        state.turn += 1;
        if state.followers > 0 {
            drop(state);
            self.changed.notify_all();
        }
    }

    pub(super) fn follow(&self, turn: u64, at_most: Duration) {
        let mut state = self.lock();
        state.followers += 1;
        let slept = self.changed.wait_timeout_while(state, at_most, |state| state.turn == turn);
        slept.unwrap_or_else(PoisonError::into_inner).0.followers -= 1;
    }
}

/// One thread at a time, in the order in which they came, the others waiting with a deadline.
#[derive(Debug, Default)]
pub(super) struct FairLock {
    queue: Mutex<Queue>,
    moved: Condvar,
    /// How many are inside or wait; all, once nobody is let in any more.
    busy: AtomicU64,
    /// A thread that holds it may do what the one inside may, as long as nobody is inside or waits.
    pin: Arc<Pin>,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    /// The first one is inside.
    tickets: VecDeque<u64>,
    /// The thread inside, if it has come out with an open request buffer.
    opener: Option<ThreadId>,
    /// In line without a thread that waits, and what to wake when it is inside.
    in_line: Option<(u64, Waker)>,
    /// Nobody is let in any more.
    closed: bool,
}

/// Why the gate did not let a thread in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is inside already, with a request buffer.
    OpenHere,
    Closed,
    Timeout,
}

impl FairLock {
    pub(super) fn beside(pin: &Arc<Pin>) -> Self {
        Self { pin: Arc::clone(pin), ..Self::default() }
    }

    /// Whether nobody is inside or waits, for a thread that holds the pin: until it releases the pin,
    /// nobody gets in.
    #[inline(always)]
    pub(super) fn is_free(&self) -> bool {
        // Acquire: pairs with the Release in `count`: what was done inside is seen.
        self.busy.load(Ordering::Acquire) == 0
    }

    /// After each change of the queue. A thread that is inside passes the pin then, which orders this before
    /// what the next holder of the pin reads.
    fn count(&self, queue: &Queue) {
        let busy = if queue.closed { u64::MAX } else { queue.tickets.len() as u64 };
        // Release: pairs with the Acquire in `is_free`.
        self.busy.store(busy, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all who came before have left. What is returned must be given to
    /// [`FairLock::leave`].
    pub(super) fn enter(&self, deadline: &Deadline) -> std::result::Result<u64, Refused> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        let ticket = queue.take_ticket();
        self.count(&queue);
        while queue.tickets.front() != Some(&ticket) {
            let is_here = |opener| opener == std::thread::current().id();
            let left = deadline.left();
            let refused = if queue.closed {
                Some(Refused::Closed)
            } else if queue.opener.is_some_and(is_here) {
                Some(Refused::OpenHere)
            } else {
                left.is_zero().then_some(Refused::Timeout)
            };
            if let Some(refused) = refused {
                self.take_out(queue, ticket);
                return Err(refused);
            }
            queue = self.moved.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        self.pin.pass();
        Ok(ticket)
    }

    /// Enters if nobody is inside, or waits.
    pub(super) fn try_enter(&self) -> std::result::Result<Option<u64>, Refused> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        let ticket = queue.tickets.is_empty().then(|| queue.take_ticket());
        self.count(&queue);
        drop(queue);
        self.pin.pass();
        Ok(ticket)
    }

    /// Gets in line without waiting, one at a time: `waker` is woken when the ticket is inside, see
    /// [`FairLock::is_inside`], or when nobody is let in any more.
    pub(super) fn join(&self, waker: Waker) -> std::result::Result<u64, Refused> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        let ticket = queue.take_ticket();
        queue.in_line = Some((ticket, waker));
        self.count(&queue);
        Ok(ticket)
    }

    pub(super) fn is_inside(&self, ticket: u64) -> bool {
        let is_inside = self.lock().tickets.front() == Some(&ticket);
        if is_inside {
            self.pin.pass();
        }
        is_inside
    }

    /// Sends everybody who waits away, and lets nobody in.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        self.count(&queue);
        let in_line = queue.in_line.take();
        drop(queue);
        self.moved.notify_all();
        if let Some((_, waker)) = in_line {
            waker.wake();
        }
    }

    /// The thread inside goes on to something else before it leaves.
    pub(super) fn opened(&self) {
        self.lock().opener = Some(std::thread::current().id());
    }

    pub(super) fn leave(&self, ticket: u64) {
        let mut queue = self.lock();
        // Not by one that is still in line: the thread inside may have a request buffer open.
        if queue.tickets.front() == Some(&ticket) {
            queue.opener = None;
        }
        self.take_out(queue, ticket);
    }

    /// A system call only if somebody waits.
    fn take_out(&self, mut queue: MutexGuard<'_, Queue>, ticket: u64) {
        queue.tickets.retain(|waiting| *waiting != ticket);
        self.count(&queue);
        let next = queue.tickets.front().copied();
        let in_line = queue.in_line.take_if(|(in_line, _)| next == Some(*in_line));
        drop(queue);
        if let Some((_, waker)) = in_line {
            waker.wake();
        } else if next.is_some() {
            self.moved.notify_all();
        }
    }
}

impl Queue {
    fn take_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.push_back(ticket);
        ticket
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_threads_in_as_they_came_and_forgets_those_that_timed_out() {
        let gate = FairLock::default();
        let order = Mutex::new(Vec::new());
        let inside = gate.enter(&Deadline::after(Duration::ZERO)).unwrap();
        let refused = gate.enter(&Deadline::after(Duration::from_millis(1)));
        assert_eq!(refused, Err(Refused::Timeout));
        std::thread::scope(|scope| {
            for number in 0..5 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let inside = gate.enter(&Deadline::after(Duration::from_secs(60))).unwrap();
                    order.lock().unwrap().push(number);
                    gate.leave(inside);
                });
                while gate.lock().tickets.len() < number + 2 {
                    std::thread::yield_now();
                }
            }
            gate.leave(inside);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn one_that_leaves_the_line_does_not_close_the_buffer_of_the_thread_inside() {
        let gate = FairLock::default();
        let now = Deadline::after(Duration::ZERO);
        let inside = gate.enter(&now).unwrap();
        gate.opened();
        let in_line = gate.join(Waker::noop().clone()).unwrap();
        gate.leave(in_line);
        assert_eq!(gate.enter(&now), Err(Refused::OpenHere));
        gate.leave(inside);
        assert!(gate.enter(&now).is_ok());
    }
}
