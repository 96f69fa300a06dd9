//! Threads that sleep on one line, where each bell wakes one that receives it: one of them leads and sleeps on the line, the
//! others follow it. The state alone; its owner keeps it under a lock, and has the line and the means to sleep.
//!
//! A thread prepares, looks for what it waits for, and then sleeps or abandons it. What may have come for it between its look
//! and its sleep must end the sleep at once: a bell rests on the line until the leader hears it, and everything else
//! counts the generation up.

/// See the top of this file.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Threads that have prepared and not yet slept or abandoned it.
    prepared: u32,
    /// One thread sleeps on the line.
    is_led: bool,
    /// Counts what all of them are to check the state for.
    generation: u64,
}

/// What a thread that has prepared is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It checks the state once more.
    Check,
    /// It sleeps on the line, and then [steps down](Crowd::step_down).
    Lead,
    /// It sleeps until the generation is another one, or nobody leads.
    Follow,
}

impl Crowd {
    /// A thread is about to sleep. `hear_and_arm` receives old bells and raises the flag, and says whether there were any.
    /// Returns the generation that the sleep is to outlast.
    pub(crate) fn prepare(&mut self, hear_and_arm: impl FnOnce() -> bool) -> u64 {
        // A leader has the flag raised, and bells are its own to hear.
        if !self.is_led && hear_and_arm() && self.prepared > 0 {
            // One that has looked already may have been rung for.
            self.generation += 1;
        }
        self.prepared += 1;
        self.generation
    }

    /// A thread has prepared and does not sleep. Whether the flag is of use to nobody any more; then it is lowered before
    /// another thread prepares.
    pub(crate) fn abandon(&mut self) -> bool {
        self.prepared -= 1;
        self.prepared == 0 && !self.is_led
    }

    /// A thread goes to sleep that has prepared in the generation `ticket`. `is_over`: no bell comes any more.
    pub(crate) fn sleep(&mut self, ticket: u64, is_over: bool) -> Part {
        self.prepared -= 1;
        if self.generation != ticket || is_over {
            return Part::Check;
        }
        if std::mem::replace(&mut self.is_led, true) { Part::Follow } else { Part::Lead }
    }

    /// Whether one that follows sleeps on.
    pub(crate) fn follows(&self, ticket: u64) -> bool {
        self.generation == ticket && self.is_led
    }

    /// The leader has slept: all check the state, and one of them leads next.
    pub(crate) fn step_down(&mut self) {
        self.is_led = false;
        self.generation += 1;
    }

    /// Nobody else ever leads from now on.
    pub(crate) fn lead_for_ever(&mut self) {
        self.is_led = true;
    }

    /// A thread of this process has published something that all are to check.
    pub(crate) fn call(&mut self) {
        self.generation += 1;
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::{AtomicU32, AtomicU64, Ordering, fence};
    use crate::wait::bell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// What a connection's two sides share, and the client's threads among themselves.
    #[derive(Default)]
    struct Line {
        state: AtomicU64,
        flag: AtomicU32,
        bells: AtomicU64,
        crowd: Mutex<Crowd>,
    }

    impl Line {
        fn publish(&self) {
            self.state.fetch_add(1, Ordering::AcqRel);
            bell::wake_sleeper(&self.flag, || _ = self.bells.fetch_add(1, Ordering::AcqRel));
        }

        fn prepare(&self, says_what_it_heard: bool) -> u64 {
            let hear_and_arm = || {
                let heard = self.bells.swap(0, Ordering::AcqRel) > 0;
                bell::arm(&self.flag);
                heard && says_what_it_heard
            };
            let ticket = self.crowd.lock().unwrap().prepare(hear_and_arm);
            fence(Ordering::SeqCst);
            ticket
        }

        fn abandon(&self) {
            // Under the lock: another thread that prepares must raise the flag after this.
            let mut crowd = self.crowd.lock().unwrap();
            if crowd.abandon() {
                bell::disarm(&self.flag);
            }
        }

        /// One turn of a thread that waits for what is published once: its part, or `None` if it has seen it.
        fn turn(&self, says_what_it_heard: bool) -> Option<Part> {
            let ticket = self.prepare(says_what_it_heard);
            if self.state.load(Ordering::Acquire) == 0 {
                return Some(self.crowd.lock().unwrap().sleep(ticket, false));
            }
            self.abandon();
            None
        }
    }

    /// A thread waits for what the peer publishes, beside another one that does as `other` says. If it sleeps, there must be
    /// a bell that wakes it.
    fn one_waits_beside(other: fn(&Line, bool), says_what_it_heard: bool) {
        let mut model = loom::model::Builder::new();
        // All orders would take minutes.
        model.preemption_bound = Some(3);
        model.check(move || {
            let line = Arc::new(Line::default());
            let of = |run: fn(&Line, bool)| {
                let line = Arc::clone(&line);
                thread::spawn(move || run(&line, says_what_it_heard))
            };
            let threads = [of(|line, _| line.publish()), of(other)];
            let part = line.turn(says_what_it_heard);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let is_rung = line.bells.load(Ordering::Acquire) > 0;
            assert!(part != Some(Part::Lead) || is_rung, "lost bell");
            // One that leads wakes all that follow it, and it was rung for.
            assert!(part != Some(Part::Follow) || is_rung, "lost leader");
        });
    }

    /// It looks for something else, which is there already.
    fn looks(line: &Line, says_what_it_heard: bool) {
        line.prepare(says_what_it_heard);
        line.abandon();
    }

    fn waits(line: &Line, says_what_it_heard: bool) {
        line.turn(says_what_it_heard);
    }

    #[test]
    fn a_bell_that_another_thread_hears_is_not_lost() {
        one_waits_beside(looks, true);
    }

    #[test]
    fn two_threads_that_wait_on_one_line_are_both_woken() {
        one_waits_beside(waits, true);
    }

    /// The controls.
    #[test]
    #[should_panic(expected = "lost bell")]
    fn control_a_bell_that_is_heard_beside_one_that_looks_is_lost_if_nothing_is_said() {
        one_waits_beside(looks, false);
    }

    #[test]
    #[should_panic(expected = "lost bell")]
    fn control_a_bell_that_is_heard_beside_one_that_waits_is_lost_if_nothing_is_said() {
        one_waits_beside(waits, false);
    }
}
