//! The connections that are ready, and the threads that check them in turn.

use crate::atomics::{AtomicU32, Ordering, fence};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

/// See the top of this file.
#[derive(Debug)]
pub(super) struct ReadyQueue<T> {
    state: Mutex<State<T>>,
    /// How many there are, for a thread that has a connection in its hands.
    count: AtomicU32,
    /// Threads that sleep, or are about to.
    sleepers: AtomicU32,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// Threads that check the queue until they find a request or sleep.
    lookers: u32,
    /// The service has ended: nothing is kept any more.
    is_closed: bool,
}

/// One thread's way once round the queue.
#[derive(Debug)]
pub(super) struct Round<'l> {
    /// The thread is counted among the lookers.
    is_looking: &'l mut bool,
    /// Connections that are still to be checked; `None` at the start.
    left: Option<usize>,
}

impl<'l> Round<'l> {
    pub(super) fn new(is_looking: &'l mut bool) -> Self {
        Self { is_looking, left: None }
    }
}

/// What becomes of a connection while the thread that has taken its request works on that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HandedOver {
    /// It is in the queue, and another thread checks that.
    IsChecked,
    /// Nobody checks the queue: it is to be armed, unless it was set aside. `wakes`: the queue is not empty, so a thread that sleeps
    /// is to check it.
    IsIdle { wakes: bool },
}

impl<T> ReadyQueue<T> {
    pub(super) fn new() -> Self {
        let state = Mutex::new(State { ready: VecDeque::new(), lookers: 0, is_closed: false });
        Self { state, count: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, after each change.
    fn note_count(&self, state: &State<T>) {
        self.count.store(state.ready.len() as u32, Ordering::Relaxed);
    }

    /// Whether there was nothing a moment ago.
    #[inline(always)]
    pub(super) fn seems_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Adds one. Then a thread that sleeps is to be woken, if there [is](Self::has_sleepers) one.
    pub(super) fn push(&self, one: T) {
        let mut state = self.lock();
        if state.is_closed {
            drop(state);
            return drop(one);
        }
        state.ready.push_back(one);
        self.note_count(&state);
    }

    /// Lets go of all that is there, and of all that a thread that comes late pushes.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        drop(self.take_all());
    }

    /// Hands out all that is there.
    pub(super) fn take_all(&self) -> VecDeque<T> {
        let mut state = self.lock();
        let all = std::mem::take(&mut state.ready);
        self.note_count(&state);
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().ready.is_empty()
    }

    /// Removes what is not wanted any more.
    pub(super) fn retain(&self, is_wanted: impl FnMut(&T) -> bool) {
        let mut state = self.lock();
        state.ready.retain(is_wanted);
        self.note_count(&state);
    }

    /// The next one to check, for a thread that is a looker from now on. `checked` was checked in vain, and
    /// goes to the end.
    pub(super) fn next(&self, checked: Option<T>, round: &mut Round<'_>) -> Option<T> {
        let mut state = self.lock();
        state.ready.extend(checked);
        if !std::mem::replace(round.is_looking, true) {
            state.lookers += 1;
        }
        let left = round.left.unwrap_or(state.ready.len());
        round.left = Some(left.saturating_sub(1));
        let next = if left > 0 { state.ready.pop_front() } else { None };
        self.note_count(&state);
        next
    }

    /// A looker goes to work on a request, and leaves `one` to the others, if there is something to leave.
    pub(super) fn hand_over(&self, one: Option<T>, is_looking: &mut bool) -> HandedOver {
        let mut state = self.lock();
        if std::mem::take(is_looking) {
            state.lookers -= 1;
        }
        if state.lookers == 0 {
            return HandedOver::IsIdle { wakes: !state.ready.is_empty() };
        }
        state.ready.extend(one);
        self.note_count(&state);
        HandedOver::IsChecked
    }

    /// A thread is no looker any more, if it was one. Whether there is something that others may have left to
    /// it.
    pub(super) fn stop_looking(&self, is_looking: &mut bool) -> bool {
        let mut state = self.lock();
        if std::mem::take(is_looking) {
            state.lookers -= 1;
        }
        !state.ready.is_empty()
    }

    // ---- sleep ----

    /// A thread is about to sleep. It must arm [all](Self::take_all) that is there, and
    /// [stop looking](Self::stop_looking), before it does.
    pub(super) fn begin_sleep(&self) {
        // Relaxed: a thread that pushes after this one has stopped looking sees it by the lock.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_sleep(&self) {
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Asked after something was pushed: whether a thread sleeps that may not have seen it.
    pub(super) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::Relaxed) > 0
    }
}

/// A thread was woken by the bell that wakes all. It is silenced, but for the end: that has rung once, for
/// every thread, and may have done so before this one silences it.
pub(super) fn silence(
    silence: impl FnOnce(),
    is_stopping: impl FnOnce() -> bool,
    ring: impl FnOnce(),
) {
    silence();
    // Store buffering: who stops says so, fences, and rings. Either that is seen here, or the ring comes later.
    fence(Ordering::SeqCst);
    if is_stopping() {
        ring();
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::{AtomicBool, AtomicU64};
    use loom::sync::Arc;
    use loom::thread;

    /// One thread puts a connection into the queue as `push` does it, another one goes to sleep. It may sleep
    /// only if it is woken, or if nothing is there.
    fn push_against_sleep(
        push: impl Fn(&ReadyQueue<u64>, &AtomicU64) + Send + Sync + Copy + 'static,
    ) {
        loom::model(move || {
            let queue = Arc::new(ReadyQueue::new());
            let wakes = Arc::new(AtomicU64::new(0));
            let pusher = {
                let (queue, wakes) = (Arc::clone(&queue), Arc::clone(&wakes));
                thread::spawn(move || push(&queue, &wakes))
            };
            let mut is_looking = false;
            let next = |is_looking: &mut bool| queue.next(None, &mut Round::new(is_looking));
            let mut found = next(&mut is_looking);
            if found.is_none() {
                queue.begin_sleep();
                found = queue.take_all().pop_front();
            }
            let sleeps = found.is_none() && !queue.stop_looking(&mut is_looking);
            pusher.join().unwrap();
            assert!(!sleeps || wakes.load(Ordering::Relaxed) > 0, "it sleeps on");
            if !sleeps {
                assert_eq!(found.or_else(|| next(&mut is_looking)), Some(7));
            }
        });
    }

    fn push(queue: &ReadyQueue<u64>) {
        queue.push(7);
    }

    fn wake(queue: &ReadyQueue<u64>, wakes: &AtomicU64) {
        if queue.has_sleepers() {
            wakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_pushed_is_found_or_wakes() {
        push_against_sleep(|queue, wakes| {
            push(queue);
            wake(queue, wakes);
        });
    }

    /// The control: the question comes too early.
    #[test]
    #[should_panic(expected = "it sleeps on")]
    fn a_thread_that_is_asked_for_before_the_push_is_missed() {
        push_against_sleep(|queue, wakes| {
            wake(queue, wakes);
            push(queue);
        });
    }

    /// Two threads check the queue. One takes a request and hands the connection over, the other one goes to
    /// sleep: it must see it, or the first one must know that nobody checks.
    fn hand_over_against_sleep(
        stop_looking: impl Fn(&ReadyQueue<u64>, &mut bool) -> bool + Send + Sync + Copy + 'static,
    ) {
        loom::model(move || {
            let queue = Arc::new(ReadyQueue::new());
            let (mut looks, mut is_looking) = (false, false);
            let _ = queue.next(None, &mut Round::new(&mut looks));
            let _ = queue.next(None, &mut Round::new(&mut is_looking));
            let taker = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.hand_over(Some(7), &mut looks))
            };
            queue.begin_sleep();
            let found = queue.take_all().pop_front();
            let sleeps = found.is_none() && !stop_looking(&queue, &mut is_looking);
            let handed_over = taker.join().unwrap();
            assert!(
                !sleeps || handed_over != HandedOver::IsChecked,
                "left to a thread that sleeps"
            );
        });
    }

    #[test]
    fn a_connection_is_left_only_to_a_thread_that_checks() {
        hand_over_against_sleep(ReadyQueue::stop_looking);
    }

    /// One thread silences a ring of before while another one stops the service: threads that sleep on must be
    /// woken, so the bell rings on.
    fn silence_against_stop(
        silenced: impl Fn(&AtomicU64, &AtomicBool) + Send + Sync + Copy + 'static,
    ) {
        loom::model(move || {
            let bell = Arc::new((AtomicU64::new(1), AtomicBool::new(false)));
            let stopper = {
                let bell = Arc::clone(&bell);
                thread::spawn(move || {
                    let (rings, is_stopping) = &*bell;
                    is_stopping.store(true, Ordering::Release);
                    fence(Ordering::SeqCst);
                    rings.fetch_add(1, Ordering::Relaxed);
                })
            };
            silenced(&bell.0, &bell.1);
            stopper.join().unwrap();
            assert!(bell.0.load(Ordering::Relaxed) > 0, "the others sleep on");
        });
    }

    #[test]
    fn the_end_is_not_silenced() {
        silence_against_stop(|rings, is_stopping| {
            silence(
                || _ = rings.swap(0, Ordering::Relaxed),
                || is_stopping.load(Ordering::Acquire),
                || _ = rings.fetch_add(1, Ordering::Relaxed),
            );
        });
    }

    /// The control: the question comes too early.
    #[test]
    #[should_panic(expected = "the others sleep on")]
    fn an_end_that_is_asked_for_before_is_silenced() {
        silence_against_stop(|rings, is_stopping| {
            if !is_stopping.load(Ordering::Acquire) {
                rings.swap(0, Ordering::Relaxed);
            }
        });
    }

    /// The control: a thread that sleeps without saying so.
    #[test]
    #[should_panic(expected = "left to a thread that sleeps")]
    fn a_looker_that_does_not_say_that_it_sleeps_is_relied_on() {
        hand_over_against_sleep(|queue, _| !queue.lock().ready.is_empty());
    }
}
