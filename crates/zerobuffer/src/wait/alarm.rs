//! One thread of this process tells another one that there is something to do.
//!
//! ```text
//! who tells                               who works
//! 1 publish what there is to do           3 silence the descriptor
//! 2 raise the alarm                       4 lower the alarm
//!   and, if it was down: ring             5 look for what there is to do
//! ```
//!
//! A thread that finds the alarm raised leaves it at that: it is seen at 5, or somebody has yet to ring. So the worker
//! must lower the alarm before it looks, and silence the descriptor before that: what it silences afterwards
//! might be a ring for what it has not seen. Raising and lowering are read-modify-writes of one word: the one
//! that comes later sees all that came before the earlier one.

use crate::atomics::{AtomicBool, Ordering};

/// There is something to do.
#[derive(Debug, Default)]
pub(crate) struct Alarm(AtomicBool);

impl Alarm {
    /// After what is to be done was published. Whether it was down: then the worker is to be woken.
    pub(crate) fn raise(&self) -> bool {
        // AcqRel: Release pairs with the Acquire in `lower`.
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Before what is to be done is looked for.
    pub(crate) fn lower(&self) {
        // AcqRel: Acquire pairs with the Release in `raise`.
        self.0.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn is_raised(&self) -> bool {
        // Relaxed: a hint; `lower` orders what is looked for.
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Default)]
    struct Office {
        work: [AtomicU64; 2],
        alarm: Alarm,
        /// The descriptor, which the kernel keeps in order.
        rings: AtomicU64,
    }

    impl Office {
        fn tell(&self, number: usize) {
            self.work[number].store(1, Ordering::Relaxed);
            if self.alarm.raise() {
                self.rings.swap(1, Ordering::AcqRel);
            }
        }

        fn silence(&self) {
            self.rings.swap(0, Ordering::AcqRel);
        }

        fn look(&self) -> u64 {
            self.work.iter().map(|work| work.load(Ordering::Relaxed)).sum()
        }
    }

    /// Two threads tell while one works: what it has not seen, the descriptor tells.
    fn one_turn(work: fn(&Office) -> u64) {
        loom::model(move || {
            let office = Arc::new(Office::default());
            let tellers: Vec<_> = (0..2)
                .map(|number| {
                    let office = Arc::clone(&office);
                    thread::spawn(move || office.tell(number))
                })
                .collect();
            let seen = work(&office);
            tellers.into_iter().for_each(|teller| teller.join().unwrap());
            let is_readable = office.rings.load(Ordering::Acquire) != 0;
            assert!(seen == 2 || is_readable, "never told");
        });
    }

    #[test]
    fn what_the_worker_does_not_see_is_told() {
        one_turn(|office| {
            office.silence();
            office.alarm.lower();
            office.look()
        });
    }

    #[test]
    #[should_panic(expected = "never told")]
    fn control_a_worker_that_lowers_the_alarm_after_it_has_looked_is_never_told() {
        one_turn(|office| {
            office.silence();
            let seen = office.look();
            office.alarm.lower();
            seen
        });
    }

    #[test]
    #[should_panic(expected = "never told")]
    fn control_a_worker_that_silences_the_descriptor_after_it_has_looked_is_never_told() {
        one_turn(|office| {
            office.alarm.lower();
            let seen = office.look();
            office.silence();
            seen
        });
    }
}
