//! Loom models of the ring: both sides in all interleavings, and with all values that the memory model
//! lets them read. A slot's data is a cell that loom watches: touching it from both sides without one
//! side's Release being another's Acquire in between is reported.
#![allow(unsafe_code)]

use super::*;
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
        self.client.release(&held);
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

/// One thread sends, another receives and gives back: the sender reuses bytes only after that.
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
                            return world.client.release(&held);
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

/// One thread gives a request up while another one reclaims and swallows its answer.
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
            world.client.release(&held);
        }
        world.client.reclaim();
        assert_eq!(world.client.free(), 64);
    });
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
        world.client.release(&held);
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
