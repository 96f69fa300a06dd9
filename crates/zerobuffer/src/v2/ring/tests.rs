//! Property tests: random operations on both rings against a plain queue, in rings of all sizes, with
//! payload bytes that look like headers.

use super::*;
use crate::error::{ErrorKind, RequestState};
use crate::memory::{HeapMemory, MemoryProvider, SharedMemoryView};
use crate::v2::layout::{Demand, METADATA, Phase, REQUEST, RESPONSE, SlotShape, oieb};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

mod cases;

/// What the model knows about a request that is in the ring.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    bytes: Range<u64>,
    data: Vec<u8>,
    alignment: u64,
    cancelled: bool,
    addressed: bool,
}

/// Both rings on one heap block, and the queue that they are compared with.
struct World {
    client: ClientRing,
    server: ServerRing,
    control: Words,
    payload: SharedMemoryView,
    size: u64,
    next: u64,
    sent: BTreeMap<u64, Sent>,
    queue: VecDeque<u64>,
    taken: Vec<Taken>,
    answered: BTreeMap<u64, Vec<u8>>,
    held: Vec<Held>,
    returned: u64,
    published: u64,
    /// Some requests are sent with an addressee.
    addressing: bool,
}

impl World {
    fn new(size: u64) -> Self {
        Self::starting_at(size, 1, 0, 1 << 7)
    }

    fn starting_at(size: u64, first: u64, written: u64, max_in_flight: usize) -> Self {
        let geometry = Geometry::new(0, 0, size).unwrap();
        let mut memory = HeapMemory::new();
        memory.allocate(geometry.total() as usize).unwrap();
        let control = Words::new(memory.map(0, METADATA).unwrap());
        let payload = memory.map(geometry.payload_offset as usize, size as usize).unwrap();
        for block in [REQUEST, RESPONSE] {
            control.at(block + oieb::PAYLOAD_FREE_BYTES).store(size, Ordering::Release);
        }
        control.at(REQUEST + oieb::PAYLOAD_WRITTEN_BYTES).store(written, Ordering::Release);
        let words = || (control.clone(), Words::new(payload.clone()));
        let ((c1, p1), (c2, p2)) = (words(), words());
        Self {
            client: ClientRing::new(c1, p1, &geometry, max_in_flight).starting_at(first, written),
            server: ServerRing::new(c2, p2, &geometry).starting_at(first),
            control,
            payload,
            size,
            next: first,
            sent: BTreeMap::new(),
            queue: VecDeque::new(),
            taken: Vec::new(),
            answered: BTreeMap::new(),
            held: Vec::new(),
            returned: 0,
            published: written,
            addressing: false,
        }
    }

    fn word(&self, offset: usize) -> u64 {
        self.control.at(offset).load(Ordering::Acquire)
    }

    /// Claims, fills and commits; false if the ring was full. `keep` false: drops the claim.
    fn send(&mut self, len: u64, alignment: u64, keep: bool) -> bool {
        self.send_to(Demand::new(len, alignment).unwrap(), keep)
    }

    /// As `send`, with any demand.
    fn send_to(&mut self, demand: Demand, keep: bool) -> bool {
        let (len, alignment) = (demand.capacity(), demand.alignment());
        let free_before = self.client.free();
        let step = match self.client.try_claim(demand) {
            Ok(step) => step,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert!(demand.slot_len(0).is_none_or(|slot| slot > self.size));
                return false;
            }
        };
        let claim = match step {
            ClaimStep::Ready(claim) => claim,
            ClaimStep::Full { needed, free } => {
                assert!(needed <= self.size && free <= self.size);
                assert_eq!(self.client.claim_at_once(demand), None);
                return false;
            }
            ClaimStep::Marker => {
                assert_eq!(self.client.position(), 0, "a marker leads to the start");
                return false;
            }
        };
        assert_eq!(self.client.claim_at_once(demand), None, "one claim at a time");
        let second = self.client.try_claim(demand).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::ClaimOpen);
        let (wraps, found) = (claim.wraps(), (claim.data_start(), claim.capacity()));
        self.client.abandon(claim);
        if !keep {
            assert!(self.client.free() >= free_before, "a dropped claim changes nothing");
            return false;
        }
        let at_once = self.client.claim_at_once(demand);
        assert_eq!(at_once.is_none(), wraps);
        let mut claim = at_once.unwrap_or_else(|| match self.client.try_claim(demand).unwrap() {
            ClaimStep::Ready(claim) => claim,
            step => panic!("{step:?} after the claim was dropped"),
        });
        assert_eq!((claim.data_start(), claim.capacity()), found);
        let start = claim.data_start();
        assert_eq!(start % alignment.max(32), 0);
        let bytes = start..start + claim.capacity();
        for (sequence, other) in &self.sent {
            if other.cancelled && self.answered.contains_key(sequence) {
                continue; // Its late response was swallowed, and its bytes came back.
            }
            let apart = bytes.end <= other.bytes.start || other.bytes.end <= bytes.start;
            assert!(apart, "{bytes:?} overlaps request {sequence} at {:?}", other.bytes);
        }
        let sequence = self.next;
        self.next += 1;
        let capacity = claim.capacity();
        treacherous_bytes(claim.data_mut(&self.payload, capacity), sequence);
        let data = claim.data_mut(&self.payload, len).to_vec();
        let addressed = self.addressing && sequence.is_multiple_of(4);
        if addressed {
            claim = claim.addressed();
        }
        assert_eq!(self.client.next_sequence(), sequence);
        assert_eq!(self.client.commit(claim, len), sequence);
        for block in [REQUEST, RESPONSE] {
            assert_eq!(self.word(block + oieb::PAYLOAD_FREE_BYTES), self.client.free());
        }
        self.queue.push_back(sequence);
        self.sent.insert(sequence, Sent { bytes, data, alignment, cancelled: false, addressed });
        true
    }

    /// One look of the server; false if there was nothing.
    fn take(&mut self) -> bool {
        let ready = self.server.ready_check()();
        let took = match self.server.take_at_once() {
            Some(taken) => Take::Request(taken),
            None => {
                let took = self.server.take().expect("a conforming client");
                assert!(!matches!(took, Take::Request(_)), "a request is taken at once");
                took
            }
        };
        assert_eq!(ready, took != Take::Nothing);
        match took {
            Take::Nothing => {
                assert!(self.queue.is_empty(), "request {:?} is not seen", self.queue.front());
                false
            }
            Take::Skipped => {
                let front = self.queue.front().copied();
                if front.is_some_and(|n| self.sent[&n].cancelled)
                    && self.word(REQUEST + oieb::PAYLOAD_READ_COUNT) == front.unwrap()
                {
                    self.sent.remove(&self.queue.pop_front().unwrap());
                }
                true
            }
            Take::Request(taken) => {
                let sequence = self.queue.pop_front().expect("only what was sent");
                assert_eq!(taken.sequence, sequence, "in order");
                let sent = &self.sent[&sequence];
                assert_eq!(taken.data(&self.payload, taken.len), sent.data, "as sent");
                assert_eq!(taken.capacity(), sent.bytes.end - sent.bytes.start);
                assert_eq!(self.word(REQUEST + oieb::PAYLOAD_READ_COUNT), sequence);
                self.taken.push(taken);
                true
            }
        }
    }

    /// Edits and answers one of the taken requests.
    fn answer(&mut self, pick: usize, len: u64) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let mut taken = self.taken.swap_remove(pick % self.taken.len());
        let len = len % (taken.capacity() + 1);
        for byte in taken.data_mut(&self.payload, len) {
            *byte = !*byte;
        }
        let data = taken.data(&self.payload, len).to_vec();
        self.server.answer(&taken, len, status_of(taken.sequence));
        self.answered.insert(taken.sequence, data);
        true
    }

    /// Collects one response: a given one, or the oldest.
    fn collect(&mut self, pick: Option<usize>) -> bool {
        let ready: Vec<u64> =
            self.answered.keys().copied().filter(|n| !self.sent[n].cancelled).collect();
        let found = match pick {
            Some(pick) if !self.sent.is_empty() => {
                let sequence = *self.sent.keys().nth(pick % self.sent.len()).unwrap();
                let is_ready = self.client.ready_check(sequence)();
                let at_once = self.client.look_at_once(sequence);
                let usual = ready.contains(&sequence) && status_of(sequence) == 0;
                assert_eq!(at_once.is_some(), usual, "the answer to {sequence} at once");
                match at_once.map_or_else(|| self.client.look(sequence).unwrap(), Look::Ready) {
                    Look::Ready(held) => {
                        assert!(is_ready, "the answer to {sequence}");
                        Some(held)
                    }
                    look => {
                        assert!(!ready.contains(&sequence), "the answer to {sequence} is not seen");
                        assert_eq!(look == Look::Waiting, self.is_waiting(sequence));
                        assert!(look != Look::Waiting || !is_ready, "{sequence} was not ready");
                        None
                    }
                }
            }
            _ => {
                let found = self.client.next_ready().unwrap();
                let oldest = ready.iter().copied().find(|n| !self.sent[n].addressed);
                assert_eq!(found.as_ref().map(|held| held.sequence), oldest);
                found
            }
        };
        let Some(held) = found else { return false };
        let answer = self.answered.remove(&held.sequence).expect("answered before");
        assert_eq!(held.data(&self.payload), answer, "answer {} as edited", held.sequence);
        assert_eq!(held.status, status_of(held.sequence));
        self.held.push(held);
        true
    }

    /// Sent, not cancelled, and not collected.
    fn is_pending(&self, sequence: u64) -> bool {
        let held = self.held.iter().any(|held| held.sequence == sequence);
        self.sent.get(&sequence).is_some_and(|sent| !sent.cancelled) && !held
    }

    fn is_waiting(&self, sequence: u64) -> bool {
        self.is_pending(sequence) && !self.answered.contains_key(&sequence)
    }

    /// What either side could tell about every request, should the other one die now.
    fn check_what_is_known(&self) {
        let pending: Vec<u64> =
            self.sent.keys().copied().filter(|sequence| self.is_pending(*sequence)).collect();
        assert_eq!(self.client.pending().collect::<Vec<_>>(), pending);
        assert_eq!(self.server.in_hand(), self.taken.len() as u64);
        assert!(self.client.in_flight() >= (pending.len() + self.held.len()) as u64);
        for sequence in self.sent.keys().copied() {
            let pending = pending.contains(&sequence);
            let slot = self.client.pending_slot(sequence);
            assert_eq!(slot.is_some(), pending, "the slot of {sequence}");
            let Some((held, demand)) = slot else { continue };
            let sent = &self.sent[&sequence];
            assert_eq!(demand.capacity(), sent.bytes.end - sent.bytes.start);
            assert_eq!(demand.alignment(), sent.alignment);
            assert_eq!(self.client.is_answered(sequence), self.answered.contains_key(&sequence));
            let state = if self.queue.contains(&sequence) {
                assert_eq!(held.data(&self.payload), sent.data, "as sent");
                RequestState::NotStarted
            } else {
                RequestState::InDoubt
            };
            assert_eq!(self.client.state_after_death(sequence), state);
        }
    }

    fn release(&mut self, pick: usize) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let held = self.held.swap_remove(pick % self.held.len());
        self.client.release(&held, self.client.is_concurrent());
        assert_eq!(self.word(REQUEST + oieb::PAYLOAD_FREE_BYTES), self.client.free());
        self.sent.remove(&held.sequence);
        self.returned += 1;
        true
    }

    /// Gives one of the requests an addressee, or takes it away.
    fn address(&mut self, pick: usize, addressed: bool) {
        let pick = pick % self.sent.len().max(1);
        let Some((sequence, sent)) = self.sent.iter_mut().nth(pick) else { return };
        let before = std::mem::replace(&mut sent.addressed, addressed);
        let changed = self.client.set_addressed(*sequence, addressed);
        assert!(!changed || before != addressed || sent.cancelled, "request {sequence}");
    }

    fn cancel(&mut self, pick: usize) {
        if self.sent.is_empty() {
            return;
        }
        let sequence = *self.sent.keys().nth(pick % self.sent.len()).unwrap();
        let expected = self.is_waiting(sequence);
        assert_eq!(self.client.cancel(sequence), expected, "cancel {sequence}");
        self.sent.get_mut(&sequence).unwrap().cancelled |= expected;
    }

    /// Late responses to cancelled requests are swallowed sooner or later; the model does it now.
    fn forget_swallowed(&mut self) {
        let late: Vec<u64> =
            self.answered.keys().copied().filter(|n| self.sent[n].cancelled).collect();
        for sequence in late {
            self.answered.remove(&sequence);
            self.sent.remove(&sequence);
            self.returned += 1;
        }
    }

    /// Lets everything run its course, and checks that nothing is lost.
    fn settle(&mut self) {
        while self.take() {}
        while self.answer(0, 7) {}
        (0..self.sent.len()).for_each(|pick| self.address(pick, false));
        while self.collect(None) {}
        self.forget_swallowed();
        while self.release(0) {}
        self.client.reclaim();
        assert_eq!(self.client.free(), self.size, "all bytes came back");
        assert_eq!(self.client.in_flight(), 0);
        for block in [REQUEST, RESPONSE] {
            assert_eq!(self.word(block + oieb::PAYLOAD_FREE_BYTES), self.size);
        }
        self.server.publish_account();
        let answered = self.word(RESPONSE + oieb::PAYLOAD_WRITTEN_COUNT);
        assert_eq!(answered, self.server.answered());
        assert_eq!(answered, self.word(RESPONSE + oieb::PAYLOAD_READ_COUNT));
        assert_eq!(answered, self.returned);
        let served = self.word(RESPONSE + oieb::PAYLOAD_WRITTEN_BYTES);
        let claimed = self.word(REQUEST + oieb::PAYLOAD_WRITTEN_BYTES);
        assert_eq!(served, claimed.wrapping_sub(self.published), "padding included, on both sides");
    }
}

/// Every third request fails.
fn status_of(sequence: u64) -> u16 {
    if sequence.is_multiple_of(3) { 7 } else { 0 }
}

/// Bytes that look like the state words, and the headers, that the server will look for next.
fn treacherous_bytes(data: &mut [u8], sequence: u64) {
    let phases = [Phase::Request, Phase::Cancelled, Phase::Wrap, Phase::Response];
    for (index, chunk) in data.chunks_mut(8).enumerate() {
        let ahead = sequence + 1 + (index as u64 / 8) % 3;
        let word = match index % 4 {
            0 => 8,
            1 => ahead,
            2 => phases[index / 4 % phases.len()].of(ahead),
            _ => SlotShape { stride: 1, data_offset: 32, status: 0 }.to_word(),
        };
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Send { demand: Demand, keep: bool },
    Take,
    Answer(usize, u64),
    Collect(Option<usize>),
    Release(usize),
    Cancel(usize),
    Address(usize, bool),
}

fn operation(size: u64) -> impl Strategy<Value = Operation> {
    let len = prop_oneof![
        4 => 0..=96_u64,
        3 => 0..=size / 2,
        1 => 0..=size + 64,
        1 => Just(size.saturating_sub(64)),
        1 => Just((size / 2).saturating_sub(64)),
    ];
    let demand = prop_oneof![
        6 => len.clone().prop_map(Demand::anywhere),
        4 => len.clone().prop_map(Demand::prefer_cached),
        2 => (len, 0..=12_u32).prop_map(|(len, bit)| Demand::new(len, 1 << bit).unwrap()),
    ];
    prop_oneof![
        5 => (demand, prop::bool::weighted(0.9))
            .prop_map(|(demand, keep)| Operation::Send { demand, keep }),
        4 => Just(Operation::Take),
        4 => (any::<usize>(), 0..=size).prop_map(|(pick, len)| Operation::Answer(pick, len)),
        4 => prop::option::of(any::<usize>()).prop_map(Operation::Collect),
        4 => any::<usize>().prop_map(Operation::Release),
        1 => any::<usize>().prop_map(Operation::Cancel),
        2 => any::<(usize, bool)>().prop_map(|(pick, to)| Operation::Address(pick, to)),
    ]
}

fn run(world: &mut World, operations: &[Operation]) {
    world.addressing = true;
    for operation in operations {
        match *operation {
            Operation::Send { demand, keep } => drop(world.send_to(demand, keep)),
            Operation::Take => drop(world.take()),
            Operation::Answer(pick, len) => drop(world.answer(pick, len)),
            Operation::Collect(pick) => drop(world.collect(pick)),
            Operation::Release(pick) => drop(world.release(pick)),
            Operation::Cancel(pick) => world.cancel(pick),
            Operation::Address(pick, addressed) => world.address(pick, addressed),
        }
    }
}

/// Whatever came before: once the ring is empty, every request that is not too large can be placed.
fn place_largest(world: &mut World) {
    world.addressing = false;
    let largest = world.client.max_capacity();
    for len in [largest, 0, largest, largest / 2, largest] {
        while !world.send(len, 1, true) {
            assert!(world.take(), "only a marker can be in the way");
        }
        world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_rings_together_are_a_queue_whatever_the_operations(
        (size, operations) in prop_oneof![
            Just(64_u64), Just(128), Just(192), Just(256), Just(320), Just(1024), Just(8192)
        ].prop_flat_map(|size| (Just(size), prop::collection::vec(operation(size), 0..80))),
        concurrent: bool,
        max_in_flight in prop_oneof![Just(4_usize), Just(1 << 7)],
    ) {
        let mut world = World::starting_at(size, 1, 0, max_in_flight);
        if concurrent {
            world.server.set_concurrent();
            world.client.set_concurrent();
        }
        run(&mut world, &operations);
        world.check_what_is_known();
        world.settle();
        place_largest(&mut world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn byte_counters_wrap_at_two_to_the_64(
        operations in prop::collection::vec(operation(256), 0..80),
        behind in 0..2000_u64,
    ) {
        let mut world = World::starting_at(256, 1, u64::MAX - behind, 1 << 7);
        run(&mut world, &operations);
        world.check_what_is_known();
        world.settle();
    }
}
