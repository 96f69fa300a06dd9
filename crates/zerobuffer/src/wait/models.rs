//! Loom models of WAIT and WAKE.

use super::*;
use crate::atomics::AtomicU64;
use loom::sync::Arc;
use loom::thread;

/// The peer lives for ever.
pub(crate) struct Immortal;

impl WaitContext for Immortal {
    fn peer(&self) -> Peer {
        Peer::Alive
    }

    fn probe(&self) -> Peer {
        Peer::Alive
    }

    fn slice(&self) -> Duration {
        Duration::MAX
    }
}

fn wait_for(state: &AtomicU64, semaphore: &Semaphore, value: u64) {
    let waiter = Waiter::new(WaitStrategy::Park);
    let deadline = Deadline::after(Duration::MAX);
    let cond = || (state.load(Ordering::Acquire) >= value).then_some(());
    let waited = waiter.wait(semaphore, &deadline, &Immortal, cond);
    assert_eq!(waited, Ok(()));
}

/// The shipped code: whatever token lies about from before, no wake-up is lost.
#[test]
fn every_message_wakes_its_waiter() {
    for stale_tokens in [0, 1] {
        loom::model(move || {
            let state = Arc::new(AtomicU64::new(0));
            let semaphore = Arc::new(Semaphore::with_tokens(stale_tokens));
            let waker = {
                let (state, semaphore) = (Arc::clone(&state), Arc::clone(&semaphore));
                thread::spawn(move || {
                    for message in 1..=2 {
                        state.store(message, Ordering::Release);
                        wake(&semaphore);
                    }
                })
            };
            wait_for(&state, &semaphore, 1);
            wait_for(&state, &semaphore, 2);
            waker.join().unwrap();
            assert!(semaphore.value() <= Some(2), "tokens are bounded");
        });
    }
}

/// One step of each side around a stale token, with each fence as an option. A thread that goes to sleep
/// without having seen the state must find a token.
fn one_step_of_each(waker_fence: bool, waiter_fence: bool) {
    loom::model(move || {
        let state = Arc::new(AtomicU64::new(0));
        let semaphore = Arc::new(Semaphore::with_tokens(1));
        let waker = {
            let (state, semaphore) = (Arc::clone(&state), Arc::clone(&semaphore));
            thread::spawn(move || {
                state.store(1, Ordering::Release);
                if waker_fence {
                    wake(&semaphore);
                } else {
                    post_if_empty(&semaphore);
                }
            })
        };
        let woken = semaphore.try_wait();
        if waiter_fence {
            fence(Ordering::SeqCst);
        }
        let seen = state.load(Ordering::Acquire) == 1;
        waker.join().unwrap();
        assert!(!woken || seen || semaphore.value() > Some(0), "lost wake-up");
    });
}

#[test]
fn with_both_fences_no_wake_up_is_lost() {
    one_step_of_each(true, true);
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn control_without_the_wakers_fence_a_wake_up_is_lost() {
    one_step_of_each(false, true);
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn control_without_the_waiters_fence_a_wake_up_is_lost() {
    one_step_of_each(true, false);
}
