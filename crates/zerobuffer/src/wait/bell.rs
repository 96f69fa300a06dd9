//! Waking a peer that sleeps on a socket (docs/protocol-service.md, section 5 "Waking").
//!
//! The state words are the truth here too. A side that is about to sleep says so in a word of its own, its
//! *flag*; the peer that clears the flag rings the bell, which is one byte on the socket.
//!
//! # Why there are two fences
//!
//! ```text
//! waker                                   sleeper
//! 1 publish the state (Release store)     3 raise the flag
//!   fence(SeqCst)                           fence(SeqCst)
//! 2 read the flag                         4 check the state, then sleep
//! ```
//!
//! Store buffering, as with a semaphore: if the waker missed the flag at 2 while the sleeper missed the
//! state at 4, nobody would ring and the sleeper would sleep for ever, since no slice of time repairs it.
//! With a SeqCst fence on each side one of them comes first: if it is the waker's, 4 sees the state; if it
//! is the sleeper's, 2 sees the flag.

use crate::atomics::{AtomicU32, Ordering, fence};

/// WAKE: the peer checks the state that was published before this call. `ring` sends the byte.
#[inline(always)]
pub(crate) fn wake_sleeper(flag: &AtomicU32, ring: impl FnOnce()) {
    // See the top of this file. The cfg serves the litmus test alone.
    #[cfg(not(zerobuffer_without_wake_fence))]
    fence(Ordering::SeqCst);
    ring_if_armed(flag, ring);
}

#[inline(always)]
fn ring_if_armed(flag: &AtomicU32, ring: impl FnOnce()) {
    // Relaxed: the fence orders the load, and one of several wakers is to ring, whichever.
    if flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0 {
        ring();
    }
}

/// The first half of SLEEP: raises this side's flag. Afterwards the state is to be checked once more.
/// Whether it was down before, so that one more bell can come.
pub(crate) fn arm(flag: &AtomicU32) -> bool {
    let was_down = raise(flag);
    fence(Ordering::SeqCst);
    was_down
}

/// SLEEP up to the second look, for one that sleeps elsewhere: in an event loop, on the socket and on a
/// descriptor that threads of this process ring. What was published before is to be looked for after this, and
/// everything else makes one of the two readable.
pub(crate) fn listen(silence: impl FnOnce(), hear: impl FnOnce(), arm: impl FnOnce()) {
    silence();
    hear();
    arm();
}

fn raise(flag: &AtomicU32) -> bool {
    // Relaxed: the fence behind it orders it.
    flag.swap(1, Ordering::Relaxed) == 0
}

/// Takes the flag down without having slept. False: the peer did, and a bell is on its way.
pub(crate) fn disarm(flag: &AtomicU32) -> bool {
    flag.swap(0, Ordering::Relaxed) != 0
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    /// What two sides share: a state word, the sleeper's flag, and the bytes on the socket, which the
    /// kernel hands over in order.
    #[derive(Default)]
    struct Line {
        state: AtomicU64,
        flag: AtomicU32,
        bells: AtomicU64,
    }

    impl Line {
        fn ring(&self) {
            self.bells.fetch_add(1, Ordering::AcqRel);
        }

        /// `recv` without blocking, until there is no byte.
        fn drain(&self) -> u64 {
            self.bells.swap(0, Ordering::AcqRel)
        }

        /// `poll`: time stands still in a model, so a bell that never comes never ends it, which loom
        /// reports.
        fn sleep(&self) {
            while self.bells.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
        }
    }

    /// The sleeper's side as `link::socket` goes about it; how many bells came, and how often it armed.
    fn sleep_until(line: &Line, value: u64, armed: &mut u64, rung: &mut u64) {
        loop {
            *rung += line.drain();
            *armed += u64::from(arm(&line.flag));
            if line.state.load(Ordering::Acquire) >= value {
                *armed -= u64::from(disarm(&line.flag));
                return;
            }
            line.sleep();
        }
    }

    #[test]
    fn every_message_wakes_its_sleeper_and_no_bell_is_one_too_many() {
        loom::model(|| {
            let line = Arc::new(Line::default());
            let waker = {
                let line = Arc::clone(&line);
                thread::spawn(move || {
                    for message in 1..=2 {
                        line.state.store(message, Ordering::Release);
                        wake_sleeper(&line.flag, || line.ring());
                    }
                })
            };
            let (mut armed, mut rung) = (0, 0);
            sleep_until(&line, 1, &mut armed, &mut rung);
            sleep_until(&line, 2, &mut armed, &mut rung);
            waker.join().unwrap();
            rung += line.drain();
            assert!(rung <= armed, "{rung} bells for {armed} armings");
        });
    }

    #[test]
    fn two_wakers_ring_once_for_each_arming() {
        let mut model = loom::model::Builder::new();
        // All orders would take hours.
        model.preemption_bound = Some(2);
        model.check(|| {
            let line = Arc::new(Line::default());
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let line = Arc::clone(&line);
                    thread::spawn(move || {
                        line.state.fetch_add(1, Ordering::AcqRel);
                        wake_sleeper(&line.flag, || line.ring());
                    })
                })
                .collect();
            let (mut armed, mut rung) = (0, 0);
            sleep_until(&line, 2, &mut armed, &mut rung);
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
            rung += line.drain();
            assert!(rung <= armed, "{rung} bells for {armed} armings");
        });
    }

    /// A turn of an event loop, beside the peer and another thread of this process, each of which has
    /// something for it. What it does not see makes one of its descriptors readable.
    fn one_turn(turn: fn(&Line, &AtomicU64, &dyn Fn())) {
        loom::model(move || {
            let (line, own) = (Arc::new(Line::default()), Arc::new(AtomicU64::new(0)));
            let wake = Arc::new(AtomicU64::new(0));
            let peer = {
                let line = Arc::clone(&line);
                thread::spawn(move || {
                    line.state.store(1, Ordering::Release);
                    wake_sleeper(&line.flag, || line.ring());
                })
            };
            let thread = {
                let (own, wake) = (Arc::clone(&own), Arc::clone(&wake));
                thread::spawn(move || {
                    own.store(1, Ordering::Release);
                    // The kernel keeps the descriptor's changes in order.
                    wake.swap(1, Ordering::AcqRel);
                })
            };
            let seen = std::cell::Cell::new((false, false));
            turn(&line, &wake, &|| {
                let states = [&line.state, &own].map(|state| state.load(Ordering::Acquire) == 1);
                seen.set(states.into());
            });
            peer.join().unwrap();
            thread.join().unwrap();
            let (seen, seen_own) = seen.get();
            assert!(seen || line.drain() > 0, "lost bell");
            assert!(seen_own || wake.load(Ordering::Acquire) != 0, "lost wake-up");
        });
    }

    fn silence(wake: &AtomicU64) {
        wake.swap(0, Ordering::AcqRel);
    }

    fn hear(line: &Line) {
        line.drain();
    }

    fn sleep_here(line: &Line) {
        arm(&line.flag);
    }

    #[test]
    fn an_event_loop_loses_nothing() {
        one_turn(|line, wake, look| {
            listen(|| silence(wake), || hear(line), || sleep_here(line));
            look();
        });
    }

    #[test]
    #[should_panic(expected = "lost bell")]
    fn control_an_event_loop_that_looks_before_it_arms_loses_a_bell() {
        one_turn(|line, wake, look| {
            listen(|| silence(wake), || hear(line), look);
            sleep_here(line);
        });
    }

    #[test]
    #[should_panic(expected = "lost wake-up")]
    fn control_an_event_loop_that_silences_what_it_has_not_looked_for_loses_a_wake_up() {
        one_turn(|line, wake, look| {
            listen(|| hear(line), || sleep_here(line), look);
            silence(wake);
        });
    }

    /// One step of each side, with each fence as an option. A sleeper that has not seen the state must
    /// find a bell.
    fn one_step_of_each(waker_fence: bool, sleeper_fence: bool) {
        loom::model(move || {
            let line = Arc::new(Line::default());
            let waker = {
                let line = Arc::clone(&line);
                thread::spawn(move || {
                    line.state.store(1, Ordering::Release);
                    if waker_fence {
                        wake_sleeper(&line.flag, || line.ring());
                    } else {
                        ring_if_armed(&line.flag, || line.ring());
                    }
                })
            };
            if sleeper_fence {
                arm(&line.flag);
            } else {
                raise(&line.flag);
            }
            let seen = line.state.load(Ordering::Acquire) == 1;
            waker.join().unwrap();
            assert!(seen || line.drain() > 0, "lost wake-up");
        });
    }

    #[test]
    fn with_both_fences_no_bell_is_lost() {
        one_step_of_each(true, true);
    }

    #[test]
    #[should_panic(expected = "lost wake-up")]
    fn control_without_the_wakers_fence_a_bell_is_lost() {
        one_step_of_each(false, true);
    }

    #[test]
    #[should_panic(expected = "lost wake-up")]
    fn control_without_the_sleepers_fence_a_bell_is_lost() {
        one_step_of_each(true, false);
    }
}
