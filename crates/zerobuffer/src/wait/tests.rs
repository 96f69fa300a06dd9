//! WAIT with real semaphores and peers that only pretend.

use super::*;
use crate::atomics::AtomicBool;
use std::cell::Cell;

fn semaphore(name: &str) -> Semaphore {
    let name = format!("/zb-unit-{name}-{}", std::process::id());
    let semaphore = Semaphore::create_new(&name, 0o600).unwrap();
    Semaphore::unlink(&name).unwrap();
    semaphore
}

/// Publishes, and has ended before anything checks again.
#[derive(Default)]
struct LastWords {
    published: AtomicBool,
    only_a_probe_tells: bool,
    probes: Cell<u32>,
}

impl LastWords {
    fn end(&self) -> Peer {
        self.published.store(true, Ordering::Release);
        Peer::Died
    }
}

impl WaitContext for LastWords {
    fn peer(&self) -> Peer {
        if self.only_a_probe_tells { Peer::Alive } else { self.end() }
    }

    fn probe(&self) -> Peer {
        self.probes.set(self.probes.get() + 1);
        if self.only_a_probe_tells { self.end() } else { Peer::Alive }
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(5)
    }
}

#[test]
fn what_a_peer_published_last_is_delivered_before_its_end_is_reported() {
    let semaphore = semaphore("last");
    for only_a_probe_tells in [false, true] {
        let peer = LastWords { only_a_probe_tells, ..LastWords::default() };
        let cond = || peer.published.load(Ordering::Acquire).then_some(());
        let deadline = Deadline::after(Duration::from_secs(20));
        let waiter = Waiter::new(WaitStrategy::Park);
        assert_eq!(waiter.wait(&semaphore, &deadline, &peer, cond), Ok(()));
    }
}

/// One that believes what it is told about the CPUs.
fn waiter(strategy: WaitStrategy, alone: bool) -> Waiter {
    Waiter::with_cpus(strategy, if alone { 1 } else { 2 })
}

/// A wait whose condition becomes true at check `turn`, counted from 0.
fn spin_until_look(waiter: &Waiter, turn: u32) -> bool {
    let looks = Cell::new(0);
    waiter.spin(|| looks.replace(looks.get() + 1) == turn)
}

#[test]
fn the_first_look_comes_later_when_it_was_too_early_and_at_once_when_the_change_is_there() {
    let waiter = waiter(WaitStrategy::SpinThenPark, false);
    let pause = || waiter.pause.load(Ordering::Relaxed);
    assert_eq!(pause(), 0);
    assert!(spin_until_look(&waiter, 1) && pause() > 0);
    (0..1000).for_each(|_| assert!(spin_until_look(&waiter, 5)));
    assert_eq!(pause(), PAUSE_MAX);
    assert!(spin_until_look(&waiter, SHORT) && !spin_until_look(&waiter, BURST));
    assert_eq!(pause(), PAUSE_MAX, "a long wait teaches nothing");
    (0..1000).for_each(|_| assert!(spin_until_look(&waiter, 0)));
    assert_eq!(pause(), 0);
}

#[test]
fn each_strategy_spins_for_as_long_as_it_says() {
    let bursts = |alone| {
        [WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Spin].map(|strategy| {
            let waiter = waiter(strategy, alone);
            let spins = |waiter: &Waiter| (waiter.burst(), waiter.spin_until(1000));
            // However many CPUs there are by now.
            assert_eq!(spins(&waiter.another()), spins(&waiter));
            spins(&waiter)
        })
    };
    // A thread that asks to spin may be pinned to this CPU, and the other side to another one.
    assert_eq!(bursts(true), [(1, 1000), (1, 1000), (BURST, u64::MAX)]);
    let spinning = [(1, 1000), (BURST, 1000 + SPIN_MAX_NS), (BURST, u64::MAX)];
    assert_eq!(bursts(false), spinning);
}

/// Between two readings of the clock by a spinning thread, another thread has had the CPU.
#[test]
fn who_loses_the_cpu_while_it_spins_sleeps_for_a_while_and_spins_again_after_it() {
    let waiter = waiter(WaitStrategy::Spin, false);
    let looks = Cell::new(0);
    let cond = || {
        looks.set(looks.get() + 1);
        if looks.get() == 2 * BURST {
            std::thread::sleep(Duration::from_nanos(2 * LOST_NS));
        }
        None::<()>
    };
    let wait = || {
        let before = looks.get();
        let deadline = Deadline::after(Duration::from_millis(10));
        let end = waiter.wait(&semaphore("lost"), &deadline, &Awake::default(), cond);
        assert_eq!(end, Err(Unready::Timeout));
        looks.get() - before
    };
    // Each sleep lasts for a slice of 2 ms at the most, and there is one look behind it.
    let spun = wait();
    assert!(spun <= 2 * BURST + 10, "{spun} looks");
    let until = waiter.crowded_until_ns.load(Ordering::Relaxed);
    assert!(until > 0 && until <= sys::monotonic_ns() + CROWDED_MIN_NS);
    waiter.crowded_until_ns.store(u64::MAX, Ordering::Relaxed);
    let slept = wait();
    assert!((2..=10).contains(&slept), "{slept} looks");
    assert_eq!((waiter.burst(), waiter.spin_until(0)), (1, 0));
    assert_eq!((waiter.spin_until(u64::MAX), waiter.burst()), (u64::MAX, BURST));
}

#[test]
fn who_loses_the_cpu_again_soon_sleeps_for_twice_as_long() {
    let spinning = waiter(WaitStrategy::Spin, false);
    let crowded = |now| {
        assert!(!spinning.may_go_on_spinning(now - LOST_NS - 1, now));
        spinning.crowded_until_ns.load(Ordering::Relaxed) - now
    };
    let first = 1 << 50;
    assert!(spinning.may_go_on_spinning(first - LOST_NS, first));
    assert_eq!(crowded(first), CROWDED_MIN_NS);
    let again = first + CROWDED_MIN_NS + 1;
    assert_eq!(crowded(again), 2 * CROWDED_MIN_NS);
    let calm = again + 3 * CROWDED_MIN_NS;
    assert_eq!(crowded(calm), CROWDED_MIN_NS);
    (0..20).for_each(|_| _ = crowded(calm));
    assert_eq!(crowded(calm), CROWDED_MAX_NS);
    // Short as that spinning is, it is not to be learned from.
    assert!(waiter(WaitStrategy::SpinThenPark, false).may_go_on_spinning(0, first));
}

#[test]
fn spinning_gets_shorter_when_it_ends_in_sleep_and_longer_when_it_does_not() {
    let waiter = waiter(WaitStrategy::SpinThenPark, false);
    let spin = || waiter.spin_until(0);
    assert_eq!(spin(), SPIN_MAX_NS);
    waiter.learn(true);
    assert_eq!(spin(), SPIN_MAX_NS / 2);
    (0..20).for_each(|_| waiter.learn(true));
    assert_eq!(spin(), SPIN_MIN_NS);
    waiter.learn(false);
    assert_eq!(spin(), SPIN_MIN_NS * 2);
    (0..20).for_each(|_| waiter.learn(false));
    assert_eq!(spin(), SPIN_MAX_NS);
}

/// Where the peer needs this very CPU, looking for it to come keeps it from coming.
#[test]
fn a_wait_like_many_that_ended_in_sleep_sleeps_at_once_but_one_in_a_while_tries_to_spin() {
    let semaphore = semaphore("tired");
    let waiter = waiter(WaitStrategy::SpinThenPark, false);
    let peer = LastWords { only_a_probe_tells: true, ..LastWords::default() };
    let looks = Cell::new(0);
    let wait = |found_by: u32| {
        looks.set(0);
        let cond = || (looks.replace(looks.get() + 1) == found_by).then_some(());
        let _ = waiter.wait(&semaphore, &Deadline::after(Duration::ZERO), &peer, cond);
        looks.get()
    };
    assert!(wait(u32::MAX) > BURST);
    (0..20).for_each(|_| waiter.learn(true));
    let counts: Vec<u32> = (0..4 * TRY_EVERY).map(|_| wait(u32::MAX)).collect();
    assert_eq!(counts.iter().filter(|looks| **looks > BURST).count(), 4);
    assert!(counts.iter().all(|looks| *looks > BURST || *looks <= 3), "{counts:?}");
    // A peer that has become faster is found by such a try, and then waited for again.
    while wait(5) != 6 {}
    assert!(wait(u32::MAX) > BURST);
}

/// Counts what it is told.
#[derive(Default)]
struct Awake(Cell<u32>);

impl WaitContext for Awake {
    fn peer(&self) -> Peer {
        Peer::Alive
    }

    fn probe(&self) -> Peer {
        Peer::Alive
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(2)
    }

    fn woken(&self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn who_sleeps_takes_a_token_and_says_so_and_who_spins_leaves_it() {
    for (strategy, tokens, woken) in [
        (WaitStrategy::Park, 1, 1),
        (WaitStrategy::Park, 0, 0),
        (WaitStrategy::SpinThenPark, 1, 1),
        (WaitStrategy::Spin, 1, 0),
    ] {
        let semaphore = semaphore("strategy");
        (0..tokens).for_each(|_| semaphore.post());
        let watch = Awake::default();
        let deadline = Deadline::after(Duration::from_millis(10));
        let waiter = waiter(strategy, false);
        let end = waiter.wait(&semaphore, &deadline, &watch, || None::<()>);
        assert_eq!(end, Err(Unready::Timeout));
        // The tests themselves may have so little of the CPU that nobody spins on it.
        let woken = if waiter.burst() < BURST { tokens as u32 } else { woken };
        assert_eq!(watch.0.get(), woken, "{strategy:?} with {tokens} tokens");
        assert_eq!(semaphore.value(), Some(tokens - woken as i32));
    }
}

#[test]
fn a_wait_ends_early_if_it_is_asked_to() {
    struct Stopped;
    impl WaitContext for Stopped {
        fn peer(&self) -> Peer {
            Peer::Alive
        }
        fn probe(&self) -> Peer {
            Peer::Alive
        }
        fn slice(&self) -> Duration {
            Duration::MAX
        }
        fn stopped(&self) -> bool {
            true
        }
    }
    let deadline = Deadline::after(Duration::MAX);
    let semaphore = semaphore("stopped");
    let waiter = waiter(WaitStrategy::Park, false);
    let end = waiter.wait(&semaphore, &deadline, &Stopped, || None::<()>);
    assert_eq!(end, Err(Unready::Stopped));
    assert_eq!(deadline.timeout(), Duration::MAX);
}

#[test]
fn waits_shorter_than_a_slice_probe_once_in_a_slice() {
    let semaphore = semaphore("short");
    let peer = LastWords { only_a_probe_tells: true, ..LastWords::default() };
    let waiter = Waiter::new(WaitStrategy::SpinThenPark);
    let start = std::time::Instant::now();
    let mut waits = 0;
    while start.elapsed() < Duration::from_millis(50) {
        let deadline = Deadline::after(Duration::ZERO);
        let end = waiter.wait(&semaphore, &deadline, &peer, || None::<()>);
        assert!(matches!(end, Err(Unready::Timeout | Unready::Gone(Peer::Died))), "{end:?}");
        waits += 1;
    }
    let probes = peer.probes.get();
    assert!((1..=11).contains(&probes) && waits > probes, "{probes} probes in {waits} waits");
}

#[test]
fn a_deadline_stands_from_the_first_look_at_the_clock() {
    let hour = Duration::from_secs(3600);
    let deadline = Deadline::after(hour);
    let left = deadline.left();
    assert!(left > hour / 2 && left <= hour, "{left:?}");
    let now = sys::monotonic_ns();
    assert!(deadline.at_ns(now) <= now + 3600 * 1_000_000_000);
    assert_eq!(deadline.at_ns(now), deadline.at_ns(now + 5), "it does not move");
    assert!(deadline.left() <= left);
    assert_eq!(Deadline::after(Duration::from_nanos(7)).at_ns(1000), 1007);
    assert_eq!(Deadline::after(Duration::MAX).at_ns(1000), u64::MAX);
    assert_eq!(Deadline::after(Duration::ZERO).left(), Duration::ZERO);
}

/// However often one side wakes the other, which may be busy.
#[test]
fn a_wake_up_posts_only_where_no_token_is() {
    for wake in [wake, post_if_empty] {
        let semaphore = semaphore("tokens");
        assert_eq!(semaphore.value(), Some(0));
        for _ in 0..3 {
            wake(&semaphore);
            assert_eq!(semaphore.value(), Some(1));
        }
        let soon = sys::monotonic_ns() + 20_000_000_000;
        assert_eq!(semaphore.wait_until(soon), Waited::Token);
        assert_eq!(semaphore.value(), Some(0));
        wake(&semaphore);
        assert_eq!(semaphore.value(), Some(1));
    }
}

/// While a wait spins, each check counts, and none follows the one that succeeds.
#[test]
fn a_change_is_found_by_the_first_check_or_any_later_one() {
    let semaphore = semaphore("change");
    for look in [0, 1, BURST, 3 * BURST, 3 * BURST + 1] {
        for strategy in [WaitStrategy::SpinThenPark, WaitStrategy::Spin] {
            let looks = Cell::new(0);
            let cond = || (looks.replace(looks.get() + 1) == look).then_some(look);
            let deadline = Deadline::after(Duration::from_secs(20));
            let watch = Awake::default();
            let found = waiter(strategy, false).wait(&semaphore, &deadline, &watch, cond);
            assert_eq!(found, Ok(look));
            assert_eq!(looks.get(), look + 1);
        }
    }
}
