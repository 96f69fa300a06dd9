//! Loom models of the ring: both sides in all interleavings, and with all values that the memory model
//! lets them read. A slot's data is a cell that loom watches: touching it from both sides without one
//! side's Release being another's Acquire in between is reported.
#![allow(unsafe_code)]

use super::*;
use crate::atomics::{AtomicBool, fence};
use crate::sys::Semaphore;
use crate::v2::layout::{Demand, METADATA};
use crate::wait::models::Immortal;
use crate::wait::{Deadline, WaitStrategy, Waiter, wake};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::time::Duration;

/// Both rings, and the data of each slot.
struct World {
    client: ClientRing,
    server: ServerRing,
    data: Vec<UnsafeCell<u64>>,
}

impl World {
    fn new(size: u64) -> Arc<Self> {
        let geometry = Geometry::new(0, 0, size).unwrap();
        let (control, payload) = (Words::zeroed(METADATA), Words::zeroed(size as usize));
        Arc::new(Self {
            client: ClientRing::new(control.clone(), payload.clone(), &geometry, 4),
            server: ServerRing::new(control, payload, &geometry),
            data: (0..size / 64).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    fn write(&self, start: u64, value: u64) {
        // SAFETY: this is what the model proves: loom fails if another thread may touch the cell.
        self.data[start as usize / 64].with_mut(|data| unsafe { *data = value });
    }

    fn read(&self, start: u64) -> u64 {
        // SAFETY: as in `write`.
        self.data[start as usize / 64].with(|data| unsafe { *data })
    }

    fn send(&self, capacity: u64) -> u64 {
        let demand = Demand::new(capacity, 1).unwrap();
        loop {
            if let ClaimStep::Ready(claim) = self.client.try_claim(demand).unwrap() {
                let start = claim.data_start();
                self.write(start, 1000);
                let sequence = self.client.commit(claim, 8);
                return sequence;
            }
            thread::yield_now();
        }
    }

    fn take(&self) -> Taken {
        loop {
            match self.server.take().expect("a conforming client") {
                Take::Request(taken) => return taken,
                _ => thread::yield_now(),
            }
        }
    }

    fn serve(&self) {
        let taken = self.take();
        assert_eq!(self.read(taken.data_start()), 1000);
        self.write(taken.data_start(), taken.sequence);
        self.server.answer(&taken, 8, 0);
    }

    fn collect(&self, sequence: u64) -> Held {
        loop {
            match self.client.look(sequence).expect("a conforming server") {
                Look::Ready(held) => return held,
                Look::Waiting => thread::yield_now(),
                Look::Unknown => panic!("request {sequence} is not known"),
            }
        }
    }

    fn receive(&self, sequence: u64) {
        let held = self.collect(sequence);
        assert_eq!(self.read(held.data_start()), sequence);
        self.client.release(&held, self.client.is_concurrent());
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.max_branches = 20_000;
    builder.check(model);
}

#[test]
fn a_request_travels_there_and_back_through_a_ring_of_one_slot_again_and_again() {
    check(|| {
        let world = World::new(64);
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..2).for_each(|_| world.serve()))
        };
        for sequence in 1..=2 {
            assert_eq!(world.send(8), sequence);
            world.receive(sequence);
        }
        server.join().unwrap();
    });
}

#[test]
fn a_full_ring_and_its_terminators_are_seen_in_order() {
    check(|| {
        let world = World::new(128);
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..3).for_each(|_| world.serve()))
        };
        assert_eq!((world.send(8), world.send(8)), (1, 2));
        world.receive(1);
        assert_eq!(world.send(8), 3);
        world.receive(2);
        world.receive(3);
        server.join().unwrap();
    });
}

#[test]
fn a_wrap_marker_leads_the_server_to_the_start() {
    check(|| {
        let world = World::new(192);
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..3).for_each(|_| world.serve()))
        };
        for (sequence, capacity) in [(1, 8), (2, 8), (3, 64)] {
            assert_eq!(world.send(capacity), sequence);
            world.receive(sequence);
        }
        server.join().unwrap();
    });
}

#[test]
fn a_frame_as_large_as_the_ring_drains_it() {
    check(|| {
        let world = World::new(128);
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..2).for_each(|_| world.serve()))
        };
        for (sequence, capacity) in [(1, 8), (2, 64)] {
            assert_eq!(world.send(capacity), sequence);
            world.receive(sequence);
        }
        server.join().unwrap();
    });
}

/// The client cancels while the server may be taking, working or answering: the slot comes back in
/// every case, and nobody touches its bytes meanwhile.
#[test]
fn cancel_races_with_take_and_answer() {
    check(|| {
        let world = World::new(64);
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let mut next = 1;
                while next <= 2 {
                    match world.server.take().expect("a conforming client") {
                        Take::Request(taken) => {
                            next = taken.sequence + 1;
                            world.write(taken.data_start(), taken.sequence);
                            world.server.answer(&taken, 8, 0);
                        }
                        Take::Skipped => next += 1,
                        Take::Nothing => thread::yield_now(),
                    }
                }
            })
        };
        assert_eq!(world.send(8), 1);
        if !world.client.cancel(1) {
            world.receive(1);
        }
        assert_eq!(world.send(8), 2);
        world.receive(2);
        server.join().unwrap();
    });
}

/// Two workers take in turn and answer at the same time; their counts add up.
#[test]
fn two_workers_answer_at_the_same_time() {
    check(|| {
        let world = World::new(128);
        world.server.set_concurrent();
        assert_eq!((world.send(8), world.send(8)), (1, 2));
        let (first, second) = (world.take(), world.take());
        let worker = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.server.answer(&first, 8, 0))
        };
        world.server.answer(&second, 8, 0);
        worker.join().unwrap();
        assert_eq!(world.server.answered(), 2);
    });
}

/// One thread sends, another receives and releases: the sender reuses bytes only after that.
#[test]
fn the_halves_of_a_client_share_one_table() {
    check(|| {
        let world = World::new(64);
        world.client.set_concurrent();
        let receiver = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                loop {
                    match world.client.next_ready().expect("a conforming server") {
                        Some(held) => {
                            world.read(held.data_start());
                            return world.client.release(&held, world.client.is_concurrent());
                        }
                        None => thread::yield_now(),
                    }
                }
            })
        };
        assert_eq!(world.send(8), 1);
        // The server's part, on this thread: it is not what this model is about.
        world.serve();
        assert_eq!(world.send(8), 2);
        receiver.join().unwrap();
    });
}

/// One thread cancels a request while another one reclaims and swallows its response.
#[test]
fn cancel_races_with_reclaim() {
    check(|| {
        let world = World::new(64);
        world.client.set_concurrent();
        assert_eq!(world.send(8), 1);
        world.serve();
        let canceller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.client.cancel(1))
        };
        world.client.reclaim();
        if !canceller.join().unwrap() {
            let held = world.collect(1);
            world.client.release(&held, world.client.is_concurrent());
        }
        world.client.reclaim();
        assert_eq!(world.client.free(), 64);
    });
}

/// A thread commits a buffer that left its client, while the client counts what is in flight and
/// reclaims what was released: only one of them is the sender.
#[test]
fn who_takes_bytes_back_leaves_an_open_claim_and_its_commit_alone() {
    check(|| reclaim_beside_a_commit(|world| world.client.reclaim()));
}

fn reclaim_beside_a_commit(reclaim: impl Fn(&World)) {
    let world = World::new(192);
    world.client.set_concurrent();
    assert_eq!(world.send(8), 1);
    world.serve();
    let held = world.collect(1);
    let demand = Demand::new(8, 1).unwrap();
    let ClaimStep::Ready(claim) = world.client.try_claim(demand).unwrap() else { panic!("room") };
    world.client.release(&held, world.client.is_concurrent());
    let committer = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.write(claim.data_start(), 1000);
            world.client.commit(claim, 8)
        })
    };
    reclaim(&world);
    assert_eq!(committer.join().unwrap(), 2);
    world.client.reclaim();
    assert_eq!(world.client.free(), 128);
    world.serve();
    world.receive(2);
    world.client.reclaim();
    assert_eq!(world.client.free(), 192);
}

#[test]
#[should_panic]
fn control_bytes_taken_back_beside_a_commit_are_lost() {
    check(|| reclaim_beside_a_commit(|world| world.client.reclaim_without_permit()));
}

/// One thread cancels a request just when its response comes, another one asks for any response: what the
/// first one leaves to be received is found by the second.
#[test]
fn an_answer_that_a_cancel_leaves_is_found() {
    check(|| cancel_beside_a_receive(|client| client.cancel(1)));
}

fn cancel_beside_a_receive(cancel: fn(&ClientRing) -> bool) {
    let world = World::new(64);
    world.client.set_concurrent();
    assert_eq!(world.send(8), 1);
    let taken = world.take();
    world.write(taken.data_start(), 1);
    let server = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.server.answer(&taken, 8, 0))
    };
    let canceller = {
        let world = Arc::clone(&world);
        thread::spawn(move || cancel(&world.client))
    };
    let found = world.client.next_ready().expect("a conforming server");
    server.join().unwrap();
    if !canceller.join().unwrap() && found.is_none() {
        let left = world.client.next_ready().expect("a conforming server");
        assert_eq!(left.expect("the answer").sequence, 1);
    }
}

#[test]
#[should_panic]
fn control_an_answer_behind_a_passing_state_is_lost() {
    check(|| cancel_beside_a_receive(|client| client.cancel_by_way_of_abandoned(1)));
}

/// The same for a call that asks for this very response: a request that is being cancelled is not unknown yet.
#[test]
fn an_answer_that_a_cancel_leaves_is_not_unknown_to_who_waits_for_it() {
    check(|| {
        let world = World::new(64);
        world.client.set_concurrent();
        assert_eq!(world.send(8), 1);
        let taken = world.take();
        world.write(taken.data_start(), 1);
        world.server.answer(&taken, 8, 0);
        let canceller = {
            let world = Arc::clone(&world);
            // Twice, as two threads may: it is being cancelled, is not, and is again.
            thread::spawn(move || world.client.cancel(1) || world.client.cancel(1))
        };
        // The response has arrived, so it cannot be cancelled any more.
        let _held = world.collect(1);
        assert!(!canceller.join().unwrap());
    });
}

/// One thread waits for a certain answer, which a second one may be cancelling, while a third one takes any:
/// it goes to the first one, or to nobody.
#[test]
fn an_addressed_answer_goes_to_its_addressee_alone() {
    check(|| addressee_beside_a_receive_of_any(true));
}

fn addressee_beside_a_receive_of_any(addressed: bool) {
    let world = World::new(64);
    world.client.set_concurrent();
    assert_eq!(world.send(8), 1);
    world.client.set_addressed(1, addressed);
    world.serve();
    let canceller = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.client.cancel(1))
    };
    let any = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.client.next_ready().expect("a conforming server"))
    };
    let _held = world.collect(1);
    assert!(!canceller.join().unwrap() && any.join().unwrap().is_none());
}

#[test]
#[should_panic]
fn control_without_an_addressee_anybody_takes_the_answer() {
    check(|| addressee_beside_a_receive_of_any(false));
}

/// One thread says that it waits for room and looks for it, another one releases a response and looks for
/// waiters: one of them sees the other.
fn a_release_beside_a_wait_for_room(ordered: bool) {
    let world = World::new(64);
    world.client.set_concurrent();
    assert_eq!(world.send(8), 1);
    world.serve();
    let held = world.collect(1);
    let waits = Arc::new(AtomicU64::new(0));
    let releaser = {
        let (world, waits) = (Arc::clone(&world), Arc::clone(&waits));
        thread::spawn(move || {
            world.client.release(&held, world.client.is_concurrent());
            waits.load(Ordering::Relaxed) == 1
        })
    };
    waits.store(1, Ordering::Relaxed);
    if ordered {
        world.client.order_after_releases();
    }
    let demand = Demand::new(8, 1).unwrap();
    let found = matches!(world.client.try_claim(demand), Ok(ClaimStep::Ready(_)));
    assert!(releaser.join().unwrap() || found, "lost room");
}

#[test]
fn room_is_found_or_its_waiter_is_seen() {
    check(|| a_release_beside_a_wait_for_room(true));
}

#[test]
#[should_panic(expected = "lost room")]
fn control_without_the_order_room_is_lost() {
    check(|| a_release_beside_a_wait_for_room(false));
}

/// One thread looks for any response and passes cancelled requests, another one looks for room: late responses are in
/// nobody's way, as nothing would wake the second one once they are swallowed.
#[test]
fn late_responses_that_a_receiver_swallows_are_room_all_the_time() {
    check(|| {
        let world = World::new(128);
        world.client.set_concurrent();
        assert_eq!((world.send(8), world.send(8)), (1, 2));
        for sequence in 1..=2 {
            let taken = world.take();
            assert!(world.client.cancel(sequence));
            world.server.answer(&taken, 8, 0);
        }
        let sender = {
            let world = Arc::clone(&world);
            // As large as the ring.
            let demand = Demand::new(64, 1).unwrap();
            thread::spawn(move || world.client.try_claim(demand).expect("it fits"))
        };
        assert_eq!(world.client.next_ready().expect("a conforming server"), None);
        let found = sender.join().unwrap();
        assert!(matches!(found, ClaimStep::Ready(_)), "{found:?}");
    });
}

/// A connection that is closed while its client's threads are at work: the last of them frees the memory.
#[derive(Default)]
struct Closing {
    closed: AtomicBool,
    /// As `ClientChannel::room_waits`.
    asks: AtomicBool,
    freed: AtomicBool,
}

impl Closing {
    fn free_if_unheld(&self, world: &World) {
        if self.closed.load(Ordering::Relaxed)
            && world.client.is_unheld()
            && !self.freed.swap(true, Ordering::Relaxed)
        {
            world.write(0, 0);
        }
    }

    fn close(&self, world: &World, without: &str) {
        self.closed.store(true, Ordering::Relaxed);
        world.client.cancel_all();
        if without != "end" {
            world.client.end_collecting();
        }
        self.asks.store(true, Ordering::Relaxed);
        if without != "order" {
            world.client.order_after_releases();
        }
        self.free_if_unheld(world);
    }

    fn receive(&self, world: &World) {
        if let Ok(Look::Ready(held)) = world.client.look(1) {
            assert_eq!(world.read(0), 1, "its bytes are there");
            world.client.release(&held, true);
            if self.asks.load(Ordering::Relaxed) {
                self.free_if_unheld(world);
            }
        }
    }

    fn cancel(&self, world: &World) {
        world.client.cancel(1);
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            world.client.end_collecting();
            self.free_if_unheld(world);
        }
    }
}

/// A response is there; one thread closes while others do what they do with it.
fn close_beside(others: &[fn(&Closing, &World)], without: &str) {
    let world = World::new(64);
    world.client.set_concurrent();
    assert_eq!(world.send(8), 1);
    let taken = world.take();
    world.write(0, 1);
    world.server.answer(&taken, 8, 0);
    let closing = Arc::new(Closing::default());
    let spawn = |run: &fn(&Closing, &World)| {
        let (world, closing, run) = (Arc::clone(&world), Arc::clone(&closing), *run);
        thread::spawn(move || run(&closing, &world))
    };
    let others: Vec<_> = others.iter().map(spawn).collect();
    closing.close(&world, without);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert!(closing.freed.load(Ordering::Relaxed), "kept for ever");
}

#[test]
fn a_close_beside_a_receive_frees_the_memory_once_it_is_released() {
    check(|| close_beside(&[Closing::receive], ""));
}

#[test]
fn a_close_beside_a_cancel_frees_the_memory() {
    check(|| close_beside(&[Closing::cancel], ""));
}

#[test]
fn a_close_beside_a_cancel_and_a_receive_frees_the_memory_once_it_is_released() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| close_beside(&[Closing::cancel, Closing::receive], ""));
}

#[test]
#[should_panic(expected = "kept for ever")]
fn control_a_close_without_the_order_leaves_the_memory() {
    check(|| close_beside(&[Closing::receive], "order"));
}

/// What is there and not collected keeps the memory.
#[test]
#[should_panic(expected = "kept for ever")]
fn control_a_close_that_lets_threads_go_on_collecting_leaves_the_memory() {
    check(|| close_beside(&[Closing::cancel], "end"));
}

/// Both sides sleep until the other one wakes them: the ring and the semaphores together.
#[test]
fn a_round_trip_in_which_both_sides_sleep() {
    check(|| {
        let world = World::new(64);
        let semaphores = Arc::new([Semaphore::with_tokens(0), Semaphore::with_tokens(1)]);
        let server = {
            let (world, semaphores) = (Arc::clone(&world), Arc::clone(&semaphores));
            thread::spawn(move || {
                let taken = sleep_until(&semaphores[0], || {
                    match world.server.take().expect("a conforming client") {
                        Take::Request(taken) => Some(taken),
                        _ => None,
                    }
                });
                world.write(taken.data_start(), taken.sequence);
                world.server.answer(&taken, 8, 0);
                wake(&semaphores[1]);
            })
        };
        assert_eq!(world.send(8), 1);
        wake(&semaphores[0]);
        let held = sleep_until(&semaphores[1], || {
            match world.client.look(1).expect("a conforming server") {
                Look::Ready(held) => Some(held),
                _ => None,
            }
        });
        assert_eq!(world.read(held.data_start()), 1);
        world.client.release(&held, world.client.is_concurrent());
        server.join().unwrap();
    });
}

fn sleep_until<T>(semaphore: &Semaphore, cond: impl FnMut() -> Option<T>) -> T {
    let waiter = Waiter::new(WaitStrategy::Park);
    let waited = waiter.wait(semaphore, &Deadline::after(Duration::MAX), &Immortal, cond);
    waited.ok().expect("nothing else ends this wait")
}

/// The models can fail: a hand-over without Release is reported.
#[test]
#[should_panic]
fn control_a_relaxed_hand_over_is_found() {
    check(|| {
        let world = World::new(64);
        let client = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.write(32, 1000);
                world.client_state(0).store(1, Ordering::Relaxed);
            })
        };
        if world.client_state(0).load(Ordering::Acquire) == 1 {
            world.read(32);
        }
        client.join().unwrap();
    });
}

impl World {
    fn client_state(&self, position: u64) -> &AtomicU64 {
        self.server.ring_header(position, slot::STATE)
    }
}
