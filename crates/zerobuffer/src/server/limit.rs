//! How many requests of one client are worked on at the same time.

use crate::atomics::{AtomicBool, Ordering, fence};
use std::fmt;

/// A connection with as many requests in hand as it may have is *set aside*: nobody looks at it until one of
/// them is answered.
///
/// ```text
/// a thread that takes                     a thread that answers
/// 1 set the mark                          3 count the answer
///   fence(SeqCst)                           fence(SeqCst), that of WAKE
/// 2 count what is in hand                 4 take the mark away, and resume
/// ```
///
/// Store buffering, as in `wait`: one fence comes first, so 2 sees the answer, or 4 sees the mark.
pub(super) struct Limit {
    /// At least 1.
    most: u64,
    is_set_aside: AtomicBool,
    /// Brings the connection back to those that are looked at.
    resume: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Limit {
    pub(super) fn new(most: u64, resume: impl Fn() + Send + Sync + 'static) -> Self {
        Self { most, is_set_aside: AtomicBool::new(false), resume: Box::new(resume) }
    }

    /// Whether so many are in hand.
    pub(super) fn is_reached(&self, in_hand: u64) -> bool {
        in_hand >= self.most
    }

    /// By the one thread that takes: whether the connection is set aside, or comes back by `resume` already. It
    /// is this thread's no more then.
    pub(super) fn sets_aside(&self, in_hand: impl Fn() -> u64) -> bool {
        if !self.is_reached(in_hand()) {
            return false;
        }
        // Release: pairs with the Acquire in `unset` of the thread that answers. The fence orders it with what is
        // counted below.
        self.is_set_aside.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.is_reached(in_hand()) || !self.unset()
    }

    /// After the answer was counted and a SeqCst fence.
    pub(super) fn answered(&self) {
        if self.is_set_aside.load(Ordering::Relaxed) && self.unset() {
            (self.resume)();
        }
    }

    /// Takes the mark away; false if somebody else has.
    fn unset(&self) -> bool {
        // Acquire: pairs with the Release in `sets_aside`. What the thread that has set it did with the connection
        // is seen by the next thread that has it.
        self.is_set_aside.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    /// One thread finds as many in hand as there may be, another one answers: the connection is this thread's, or
    /// it is resumed, once.
    /// The next one that has it sees where in the ring the taking thread has come to.
    fn set_aside_against_answer(sets_aside: fn(&Limit, &AtomicU64) -> bool) {
        loom::model(move || {
            let (in_hand, resumed) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
            let position = Arc::new(AtomicU64::new(0));
            let resume = {
                let (resumed, position) = (Arc::clone(&resumed), Arc::clone(&position));
                move || {
                    assert_eq!(position.load(Ordering::Relaxed), 1, "taken twice");
                    resumed.fetch_add(1, Ordering::Relaxed);
                }
            };
            let limit = Arc::new(Limit::new(1, resume));
            let answerer = {
                let (in_hand, limit) = (Arc::clone(&in_hand), Arc::clone(&limit));
                thread::spawn(move || {
                    in_hand.store(0, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    limit.answered();
                })
            };
            position.store(1, Ordering::Relaxed);
            let is_aside = sets_aside(&limit, &in_hand);
            answerer.join().unwrap();
            assert_eq!(resumed.load(Ordering::Relaxed), u64::from(is_aside), "lost or twice there");
        });
    }

    #[test]
    fn a_connection_that_is_set_aside_comes_back_once() {
        set_aside_against_answer(|limit, in_hand| {
            limit.sets_aside(|| in_hand.load(Ordering::Relaxed))
        });
    }

    /// The control: without the fence of the thread that takes.
    #[test]
    #[should_panic(expected = "lost or twice there")]
    fn a_connection_that_is_set_aside_without_a_fence_is_lost() {
        set_aside_against_answer(|limit, in_hand| {
            limit.is_set_aside.store(true, Ordering::Release);
            limit.is_reached(in_hand.load(Ordering::Relaxed)) || !limit.unset()
        });
    }

    /// The control: the connection is handed over with nothing that publishes it.
    #[test]
    #[should_panic(expected = "taken twice")]
    fn a_connection_that_is_set_aside_by_a_relaxed_store_is_served_from_where_it_was() {
        set_aside_against_answer(|limit, in_hand| {
            limit.is_set_aside.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            limit.is_reached(in_hand.load(Ordering::Relaxed)) || !limit.unset()
        });
    }
}
