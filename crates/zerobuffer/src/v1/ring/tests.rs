//! Both rings on heap memory: rules by hand, and a model with random operations.

use super::*;
use crate::error::ErrorKind;
use crate::memory::{HeapMemory, MemoryProvider, SharedMemoryView};
use crate::v1::words::{FrameHeader, Headers};
use proptest::prelude::*;
use std::collections::VecDeque;

struct Pair {
    writer: WriterRing,
    reader: ReaderRing,
    control: Oieb,
    headers: Headers,
    payload: SharedMemoryView,
    size: u64,
    /// The value of the data-ready semaphore.
    tokens: u64,
}

impl Pair {
    fn new(size: u64) -> Self {
        let mut memory = HeapMemory::new();
        memory.allocate(128 + size as usize).unwrap();
        let control = Oieb::new(memory.map(0, 128).unwrap());
        let payload = memory.map(128, size as usize).unwrap();
        let headers = Headers::new(payload.clone());
        control.store(oieb::PAYLOAD_FREE_BYTES, size);
        Self {
            writer: WriterRing::new(control.clone(), headers.clone(), size, 0, 1),
            reader: ReaderRing::new(control.clone(), headers.clone(), size),
            control,
            headers,
            payload,
            size,
            tokens: 0,
        }
    }

    fn get(&self, field: usize) -> u64 {
        self.control.load(field)
    }

    fn free(&self) -> u64 {
        self.get(oieb::PAYLOAD_FREE_BYTES)
    }

    /// Writes a frame of `len` bytes of `fill`, or says that there is no room.
    fn write(&mut self, len: u64, fill: u8) -> Result<Option<u64>> {
        let mut claim = self.writer.claim(len)?;
        if self.writer.shortage(&claim)?.is_some() {
            return Ok(None);
        }
        claim.data_mut(&self.payload).fill(fill);
        self.tokens += 1;
        Ok(Some(self.writer.commit(claim)))
    }

    /// Reads by a token, as the reader does.
    fn read(&mut self) -> Result<Option<Taken>> {
        if self.tokens == 0 {
            return Ok(None);
        }
        self.tokens -= 1;
        match self.reader.look()? {
            Look::Nothing => Ok(None),
            Look::Frame(found) => Ok(Some(self.reader.take(found))),
        }
    }

    fn pass(&mut self, len: u64) {
        self.write(len, 1).unwrap().expect("room");
        let taken = self.read().unwrap().expect("a frame");
        assert_eq!(taken.len, len);
        self.reader.release(&taken);
    }

    /// Pokes a header, as an existing or a broken writer would.
    fn poke(&self, at: u64, len: u64, sequence: u64) {
        self.headers.write(at, FrameHeader { len, sequence });
    }

    fn account(&self, bytes: u64) {
        self.control.at(oieb::PAYLOAD_FREE_BYTES).fetch_sub(bytes, Ordering::AcqRel);
    }
}

#[test]
fn a_frame_arrives_with_its_header_on_the_wire() {
    let mut pair = Pair::new(1024);
    assert_eq!(pair.write(100, 7).unwrap(), Some(1));
    assert_eq!(pair.headers.read(0), FrameHeader { len: 100, sequence: 1 });
    assert_eq!(pair.get(oieb::PAYLOAD_WRITE_POS), 116);
    assert_eq!((pair.free(), pair.get(oieb::PAYLOAD_WRITTEN_COUNT)), (1024 - 116, 1));
    let taken = pair.read().unwrap().unwrap();
    assert_eq!(taken.data(&pair.payload), [7; 100]);
    assert_eq!((taken.sequence, taken.first), (1, true));
    // The position moves at the read, the space comes back at the release.
    assert_eq!((pair.get(oieb::PAYLOAD_READ_POS), pair.free()), (116, 1024 - 116));
    assert_eq!(pair.reader.release(&taken), 1);
    assert_eq!((pair.get(oieb::PAYLOAD_READ_COUNT), pair.free()), (1, 1024));
}

/// Rules R3 and R4: an exact fit leaves position 0 in the header, and a position at the end that a
/// peer has left is taken as the beginning.
#[test]
fn r3_r4_an_exact_fit_ends_at_the_beginning() {
    let mut pair = Pair::new(1024);
    for _ in 0..3 {
        pair.pass(1008);
        assert_eq!((pair.get(oieb::PAYLOAD_WRITE_POS), pair.get(oieb::PAYLOAD_READ_POS)), (0, 0));
        assert_eq!(pair.free(), 1024);
    }
    assert_eq!(pair.writer.statistics.wraps, 0);
    let mut writer = WriterRing::new(pair.control.clone(), pair.headers.clone(), 1024, 1024, 9);
    assert_eq!(writer.claim(10).unwrap().data_start(), 16);
    let claim = writer.claim(10).unwrap();
    assert_eq!(writer.commit(claim), 9);
}

/// Rule R9: one count for a marker and one for a frame, on both sides.
#[test]
fn r9_a_wrap_is_marked_counted_and_accounted() {
    let mut pair = Pair::new(1024);
    pair.pass(908);
    // 100 bytes to the end, a frame of 200: marker, waste, beginning (scenario 5.5).
    pair.write(200, 3).unwrap().unwrap();
    assert_eq!(pair.headers.read(924), FrameHeader::WRAP);
    assert_eq!((pair.get(oieb::PAYLOAD_WRITTEN_COUNT), pair.free()), (3, 1024 - 100 - 216));
    let taken = pair.read().unwrap().unwrap();
    assert_eq!((taken.data_start, taken.sequence), (16, 2));
    assert_eq!((pair.get(oieb::PAYLOAD_READ_COUNT), pair.free()), (3, 1024 - 216));
    pair.reader.release(&taken);
    assert_eq!((pair.free(), pair.reader.statistics.wraps), (1024, 1));
}

/// Rule R1, the reader's half: a rest too short for a header is passed without touching it.
#[test]
fn r1_a_short_rest_of_an_existing_writer_is_passed() {
    let mut pair = Pair::new(1024);
    // The C++ writer: a frame that leaves 8 bytes, then a wrap with neither marker nor count.
    pair.poke(0, 1000, 1);
    pair.account(1016);
    pair.tokens += 1;
    let taken = pair.read().unwrap().unwrap();
    pair.reader.release(&taken);
    pair.payload.map(1016, 8).unwrap();
    pair.account(8);
    pair.poke(0, 50, 2);
    pair.account(66);
    pair.tokens += 1;
    let taken = pair.read().unwrap().unwrap();
    assert_eq!((taken.sequence, taken.data_start), (2, 16));
    pair.reader.release(&taken);
    assert_eq!((pair.free(), pair.get(oieb::PAYLOAD_READ_COUNT)), (1024, 2));
}

/// Rule R1, the writer's half: whatever is written, no rest of 1 to 15 bytes is left.
#[test]
fn r1_our_writer_never_leaves_a_short_rest() {
    let mut pair = Pair::new(1024);
    for len in (1..=400).chain(390..488) {
        pair.pass(len);
        let rest = 1024 - pair.get(oieb::PAYLOAD_WRITE_POS);
        assert!(rest >= 16, "{len} left {rest}");
    }
}

/// Rule R2.
#[test]
fn r2_a_frame_that_can_never_be_placed_is_refused_at_once() {
    let mut pair = Pair::new(1024);
    pair.pass(600);
    let error = pair.write(700, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldNeverFit);
    // Scenario 4.8 as it is at the peers: 6144, then 7168 in a ring of 10240.
    let mut pair = Pair::new(10240);
    pair.pass(6144);
    assert_eq!(pair.write(7168, 0).unwrap_err().kind(), ErrorKind::WouldNeverFit);
}

/// Rule R5: a marker is 0 with 0; a header of 0 bytes with the next sequence is an empty frame of C#.
#[test]
fn r5_an_empty_frame_of_csharp_is_no_marker() {
    let mut pair = Pair::new(1024);
    pair.pass(100);
    pair.poke(116, 0, 2);
    pair.account(16);
    pair.tokens += 1;
    let taken = pair.read().unwrap().unwrap();
    assert_eq!((taken.len, taken.sequence), (0, 2));
    pair.reader.release(&taken);
    assert_eq!((pair.get(oieb::PAYLOAD_READ_POS), pair.free()), (132, 1024));
    assert_eq!(pair.write(0, 0).unwrap_err().kind(), ErrorKind::EmptyFrame);
}

/// Rule R6: frames are released in any order, space is returned in ring order.
#[test]
fn r6_space_of_a_later_frame_waits_for_the_earlier_one() {
    let mut pair = Pair::new(1024);
    pair.write(496, 1).unwrap();
    pair.write(496, 2).unwrap();
    let first = pair.read().unwrap().unwrap();
    let second = pair.read().unwrap().unwrap();
    assert_eq!(pair.reader.release(&second), 0);
    assert_eq!(pair.free(), 0, "an existing reader would let the writer overwrite the first frame");
    assert_eq!(pair.write(496, 3).unwrap(), None);
    assert_eq!(first.data(&pair.payload), [1; 496]);
    assert_eq!(pair.reader.release(&first), 2);
    assert_eq!(pair.free(), 1024);
}

/// Rule R6 for the bytes that a wrap skips: they wait for the frames before them.
#[test]
fn r6_waste_waits_for_the_frames_before_it() {
    let mut pair = Pair::new(1024);
    pair.write(496, 1).unwrap();
    pair.write(372, 2).unwrap();
    let first = pair.read().unwrap().unwrap();
    pair.reader.release(&first);
    let held = pair.read().unwrap().unwrap();
    // 124 bytes to the end: 200 more wrap.
    pair.write(200, 3).unwrap().unwrap();
    let wrapped = pair.read().unwrap().unwrap();
    pair.reader.release(&wrapped);
    // The held frame starts at 512: nothing behind 216 and before it is more than 296 bytes.
    assert_eq!(pair.free(), 296);
    assert_eq!(pair.write(296 - 16, 4).unwrap(), Some(4));
    assert_eq!(pair.write(1, 5).unwrap(), None);
    assert_eq!(held.data(&pair.payload), [2; 372]);
    assert_eq!(pair.reader.release(&held), 2);
    assert_eq!(pair.free(), 1024 - 296);
}

/// Rule R8: an account that cannot be is reported, not repaired.
#[test]
fn r8_more_free_bytes_than_the_ring_has_is_a_violation() {
    let mut pair = Pair::new(1024);
    pair.control.store(oieb::PAYLOAD_FREE_BYTES, 1025);
    assert_eq!(pair.reader.look().unwrap_err().kind(), ErrorKind::ProtocolViolation);
    assert_eq!(pair.write(1, 0).unwrap_err().kind(), ErrorKind::ProtocolViolation);
    assert_eq!(pair.free(), 1025);
}

/// Rule R10: a token without a frame changes nothing, on an empty ring and in the middle of a wrap.
#[test]
fn r10_a_surplus_token_is_dropped_without_a_trace() {
    let mut pair = Pair::new(1024);
    pair.tokens = 1;
    assert_eq!(pair.read().unwrap(), None);
    pair.pass(500);
    pair.tokens = 1;
    assert_eq!(pair.read().unwrap(), None);
    // An existing writer between its marker and its frame: old bytes at 0 must not be believed.
    pair.poke(516, 0, 0);
    pair.account(508);
    pair.tokens = 1;
    assert_eq!(pair.read().unwrap(), None);
    assert_eq!((pair.get(oieb::PAYLOAD_READ_POS), pair.free()), (516, 1024 - 508));
    pair.poke(0, 600, 2);
    pair.account(616 - 108);
    assert!(matches!(pair.reader.look().unwrap(), Look::Frame(found) if !found.accounted));
}

/// Rule R11: a published frame shows itself without a token, a half-published one does not.
#[test]
fn r11_a_published_frame_is_recognised_without_its_token() {
    let mut pair = Pair::new(1024);
    pair.poke(0, 10, 1);
    assert!(matches!(pair.reader.look().unwrap(), Look::Frame(found) if !found.accounted));
    pair.account(26);
    let Look::Frame(found) = pair.reader.look().unwrap() else { panic!("published") };
    assert!(found.accounted);
    let taken = pair.reader.take(found);
    pair.reader.release(&taken);
    // Its token comes late: it is a surplus token.
    pair.tokens = 1;
    assert_eq!(pair.read().unwrap(), None);
    assert_eq!(pair.free(), 1024);
}

/// Rule R13: a writer that starts again is accepted with proof, and old frames are no proof.
#[test]
fn r13_a_restart_at_1_is_accepted_only_if_it_is_accounted_for() {
    let mut pair = Pair::new(1024);
    pair.pass(100);
    pair.pass(100);
    let mut second = WriterRing::new(pair.control.clone(), pair.headers.clone(), 1024, 232, 1);
    let claim = second.claim(50).unwrap();
    second.commit(claim);
    pair.tokens += 1;
    let taken = pair.read().unwrap().unwrap();
    assert!(taken.first && taken.sequence == 1);
    assert_eq!(pair.reader.statistics.restarts, 1);
    pair.reader.release(&taken);
    // An old frame with sequence 1 at the read position, and a surplus token.
    pair.poke(298, 30, 1);
    pair.tokens = 1;
    assert_eq!(pair.read().unwrap(), None);
}

/// Rule R13, the writer's half: the last sequence is found in the ring's own bytes.
#[test]
fn r13_the_last_sequence_is_read_from_the_lap() {
    let last = |pair: &Pair| {
        let field = |field| pair.get(field);
        let used = Used {
            size: pair.size,
            read: field(oieb::PAYLOAD_READ_POS),
            write: field(oieb::PAYLOAD_WRITE_POS),
            written: field(oieb::PAYLOAD_WRITTEN_COUNT),
        };
        last_sequence(&pair.headers, used)
    };
    let mut pair = Pair::new(1024);
    assert_eq!(last(&pair), None);
    for sequence in 1..200 {
        pair.pass(1 + sequence * 37 % 480);
        assert_eq!(last(&pair), Some(sequence));
    }
    // Unread frames, and a claim across the wrap that was dropped after its bytes were written.
    let mut pair = Pair::new(1024);
    pair.pass(484);
    pair.write(400, 9).unwrap();
    let mut claim = pair.writer.claim(200).unwrap();
    claim.data_mut(&pair.payload).fill(0xff);
    let _ = claim;
    assert_eq!(last(&pair), Some(2));
    // The same with all frames read: the last one shows by its end, unless another may be meant.
    let mut pair = Pair::new(1024);
    pair.pass(184);
    pair.pass(184);
    pair.pass(484);
    let mut claim = pair.writer.claim(300).unwrap();
    claim.data_mut(&pair.payload).fill(0xff);
    assert_eq!(last(&pair), Some(3));
    pair.poke(600, 900 - 616, 2);
    assert_eq!(last(&pair), None);
    pair.poke(600, 900 - 616, 9);
    assert_eq!(last(&pair), Some(3), "nine frames were not written");
    // The same, and the writer died behind the marker, with a header at the beginning.
    pair.poke(900, 0, 0);
    pair.account(1024 - 900);
    pair.control.store(oieb::PAYLOAD_WRITE_POS, 0);
    pair.poke(0, 300, 4);
    assert_eq!(last(&pair), Some(3));
    // A writer that died in the middle of a wrap: marker, account and position, but no frame.
    let mut pair = Pair::new(1024);
    pair.pass(400);
    pair.pass(300);
    pair.poke(732, 0, 0);
    pair.account(1024 - 732);
    pair.control.store(oieb::PAYLOAD_WRITE_POS, 0);
    assert_eq!(last(&pair), Some(2));
    // Exact fit: the lap is the whole ring.
    let mut pair = Pair::new(1024);
    pair.pass(484);
    pair.pass(508);
    assert_eq!((pair.get(oieb::PAYLOAD_WRITE_POS), last(&pair)), (0, Some(2)));
}

/// Rule R14: a claim that is dropped changes nothing.
#[test]
fn r14_an_abandoned_claim_leaves_no_trace() {
    let mut pair = Pair::new(1024);
    pair.pass(900);
    let words = |pair: &Pair| (0..12).map(|word| pair.get(word * 8)).collect::<Vec<_>>();
    let before = words(&pair);
    let mut claim = pair.writer.claim(300).unwrap();
    claim.data_mut(&pair.payload).fill(0xff);
    let _ = claim;
    assert_eq!(words(&pair), before);
    assert_eq!(pair.write(300, 1).unwrap(), Some(2));
}

/// Rule R15 and scenarios 5.2, 6.1, 10.2: what was published and is no valid frame is an error each
/// time, and nothing moves.
#[test]
fn r15_a_bad_frame_is_an_error_and_nothing_moves() {
    for (len, sequence, kind) in [
        (100, 4, ErrorKind::SequenceGap),
        (1009, 3, ErrorKind::ProtocolViolation),
        (u64::MAX, 3, ErrorKind::ProtocolViolation),
        (0, 0, ErrorKind::ProtocolViolation),
        (100, 0, ErrorKind::ProtocolViolation),
    ] {
        let mut pair = Pair::new(1024);
        pair.pass(10);
        pair.pass(10);
        pair.poke(52, len, sequence);
        if (len, sequence) == (0, 0) {
            // A marker, and behind it something that is no frame.
            pair.poke(0, 5000, 3);
        }
        pair.account(1000);
        pair.tokens = 1;
        for _ in 0..2 {
            assert_eq!(pair.reader.look().unwrap_err().kind(), kind, "{len} {sequence}");
        }
        assert_eq!(pair.get(oieb::PAYLOAD_READ_POS), 52);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64),
    Read,
    Release(prop::sample::Index),
    SurplusToken,
    NewWriter,
}

fn steps(size: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..size).prop_map(Step::Write),
        4 => (1..=size / 2 - 24).prop_map(Step::Write),
        6 => Just(Step::Read),
        5 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => Just(Step::SurplusToken),
        1 => Just(Step::NewWriter),
    ];
    prop::collection::vec(step, 1..80)
}

/// Runs the steps on both rings and on a queue, and compares.
fn follow_model(size: u64, steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
    let mut pair = Pair::new(size);
    let mut queued: VecDeque<(u64, u64)> = VecDeque::new();
    let mut held: Vec<Taken> = Vec::new();
    let mut next = 1;
    let fill = |sequence: u64| (sequence * 31 + 7) as u8;
    for step in steps {
        match step {
            Step::Write(len) => match pair.write(len, fill(next)) {
                Ok(Some(sequence)) => {
                    prop_assert_eq!(sequence, next);
                    queued.push_back((sequence, len));
                    next += 1;
                }
                Ok(None) => {
                    prop_assert!(!queued.is_empty() || !held.is_empty(), "room for {}", len)
                }
                Err(_) => prop_assert!(len > size / 2 - 24, "{} refused", len),
            },
            Step::Read if pair.tokens == 0 => prop_assert!(queued.is_empty()),
            Step::Read => match pair.read() {
                Ok(Some(taken)) => {
                    let (sequence, len) = queued.pop_front().expect("nothing was written");
                    prop_assert_eq!((taken.sequence, taken.len), (sequence, len));
                    held.push(taken);
                }
                Ok(None) => prop_assert!(queued.is_empty(), "a token and {} frames", queued.len()),
                Err(error) => prop_assert!(false, "{}", error),
            },
            Step::Release(_) if held.is_empty() => {}
            Step::Release(index) => {
                let taken = held.swap_remove(index.index(held.len()));
                pair.reader.release(&taken);
            }
            Step::SurplusToken => pair.tokens += 1,
            Step::NewWriter => {
                let read = pair.get(oieb::PAYLOAD_READ_POS);
                let write = pair.get(oieb::PAYLOAD_WRITE_POS);
                let written = pair.get(oieb::PAYLOAD_WRITTEN_COUNT);
                let used = Used { size, read, write, written };
                let last = last_sequence(&pair.headers, used).unwrap_or(0);
                prop_assert_eq!(last + 1, next, "the new writer goes on");
                let (control, headers) = (pair.control.clone(), pair.headers.clone());
                pair.writer = WriterRing::new(control, headers, size, write, next);
            }
        }
        for taken in &held {
            let data = taken.data(&pair.payload);
            prop_assert!(data == vec![fill(taken.sequence); data.len()], "overwritten");
        }
        prop_assert!(pair.free() <= size);
        let rest = size - pair.get(oieb::PAYLOAD_WRITE_POS);
        prop_assert!(rest >= 16, "a rest of {}", rest);
    }
    empty(pair, queued, held)
}

/// Takes and releases all that is left: everything comes, and the ring is as new.
fn empty(
    mut pair: Pair,
    mut queued: VecDeque<(u64, u64)>,
    held: Vec<Taken>,
) -> std::result::Result<(), TestCaseError> {
    let size = pair.size;
    while let Some(taken) = pair.read().map_err(|e| TestCaseError::fail(e.to_string()))? {
        let (sequence, _) = queued.pop_front().expect("nothing was written");
        prop_assert_eq!(taken.sequence, sequence);
        pair.reader.release(&taken);
    }
    for taken in held {
        pair.reader.release(&taken);
    }
    while pair.tokens > 0 {
        if let Some(taken) = pair.read().unwrap() {
            queued.pop_front();
            pair.reader.release(&taken);
        }
    }
    prop_assert!(queued.is_empty());
    prop_assert_eq!(pair.free(), size);
    prop_assert_eq!(pair.get(oieb::PAYLOAD_READ_COUNT), pair.get(oieb::PAYLOAD_WRITTEN_COUNT));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, ..ProptestConfig::default() })]

    #[test]
    fn a_small_ring_behaves_as_a_queue(steps in steps(256)) {
        follow_model(256, steps)?;
    }

    #[test]
    fn a_ring_behaves_as_a_queue(steps in steps(1024)) {
        follow_model(1024, steps)?;
    }
}
