//! Single cases: the ends of the numbers, full rings, and headers that break a rule.

use super::*;
use crate::v2::ring::server::ACCOUNT_EVERY;

/// Sends, serves and returns one request.
fn round_trip(world: &mut World, len: u64) {
    while !world.send(len, 1, true) {
        assert!(world.take(), "only a marker can be in the way");
    }
    while world.taken.is_empty() {
        assert!(world.take());
    }
    assert!(world.answer(0, len) && world.collect(None) && world.release(0));
}

#[test]
fn the_last_sequence_number_is_used_and_the_next_claim_fails() {
    let last = crate::v2::layout::MAX_SEQUENCE;
    let mut world = World::starting_at(256, last - 2, 0, 4);
    round_trip(&mut world, 8);
    assert!(world.send(8, 1, true) && !world.client.is_exhausted());
    let step = world.client.try_claim(Demand::new(192, 1).unwrap()).unwrap();
    assert!(matches!(step, ClaimStep::Full { .. }), "there is a number, and no room: {step:?}");
    world.settle();
    round_trip(&mut world, 8);
    assert!(world.client.is_exhausted());
    let error = world.client.try_claim(Demand::new(8, 1).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SequenceExhausted);
}

#[test]
fn an_exact_fit_leaves_no_room_for_a_marker_and_needs_none() {
    let mut world = World::new(256);
    for _ in 0..5 {
        round_trip(&mut world, 64);
        round_trip(&mut world, 64);
        assert_eq!(world.client.position(), 0);
    }
}

#[test]
fn a_frame_goes_to_the_start_at_once_where_the_rest_and_its_bytes_are_free() {
    let mut world = World::new(256);
    assert!((0..3).all(|_| world.send(8, 1, true)));
    while world.take() {}
    assert!((0..3).all(|_| world.answer(0, 8)));
    assert!((0..2).all(|_| world.collect(Some(0)) && world.release(0)));
    // 64 bytes to the end and 128 at the start: all that is free.
    assert_eq!((world.client.position(), world.client.free()), (192, 192));
    assert!(world.send(64, 1, true));
    assert_eq!((world.client.position(), world.client.free()), (128, 0));
    world.settle();
}

#[test]
fn a_frame_larger_than_what_is_left_waits_behind_a_marker_for_the_drained_ring() {
    let mut world = World::new(256);
    round_trip(&mut world, 8);
    round_trip(&mut world, 8);
    // 128 bytes to the end, 192 needed: with the padding more than the ring has.
    let demand = Demand::new(128, 1).unwrap();
    assert_eq!(world.client.try_claim(demand).unwrap(), ClaimStep::Marker);
    let waits = ClaimStep::Full { needed: 192, free: 128 };
    assert_eq!(world.client.try_claim(demand).unwrap(), waits);
    assert!(world.take(), "the server retires the marker");
    round_trip(&mut world, 128);
    // The marker of a claim that was dropped stays, and the next claim continues behind it.
    assert_eq!(world.client.position(), 192);
    let whole = Demand::new(192, 1).unwrap();
    assert_eq!(world.client.try_claim(whole).unwrap(), ClaimStep::Marker);
    round_trip(&mut world, 8);
    assert_eq!(world.client.position(), 64);
    world.settle();
}

#[test]
fn a_warm_demand_goes_back_to_the_start_of_an_empty_ring_after_a_lap() {
    use crate::v2::ring::client::WARM_SLOTS;
    let mut world = World::new(64 * (WARM_SLOTS + 4));
    let warm = Demand::prefer_cached(8);
    for lap in 0..3 {
        for slot in 1..=WARM_SLOTS {
            assert!(world.send_to(warm, true));
            assert_eq!(world.client.position(), 64 * slot, "lap {lap}");
            world.settle();
        }
    }
    let goes_on = |world: &mut World, demand, slots| {
        assert!(world.send_to(demand, true));
        assert_eq!(world.client.position(), 64 * slots % world.size);
    };
    // Not for larger slots, not for a demand that does not ask for it, nor where anything is in use.
    goes_on(&mut world, Demand::prefer_cached(40), WARM_SLOTS + 2);
    world.settle();
    goes_on(&mut world, Demand::anywhere(8), WARM_SLOTS + 3);
    goes_on(&mut world, warm, WARM_SLOTS + 4);
    world.settle();
}

#[test]
fn a_demand_that_never_fits_is_told_what_would() {
    let world = World::new(256);
    for (asked, alignment, max) in [(193, 1, 192), (u64::MAX, 1, 192), (0, 4096, 0)] {
        let error = world.client.try_claim(Demand::new(asked, alignment).unwrap()).unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { what: "a request", asked: a, max: m } if (a, m) == (asked, max))
        );
    }
    assert_eq!(world.client.max_capacity(), 192);
}

#[test]
fn requests_that_the_server_skipped_make_room_for_the_next_claim() {
    for concurrent in [false, true] {
        let mut world = World::new(256);
        if concurrent {
            world.client.set_concurrent();
        }
        for sequence in 1..=4 {
            assert!(world.send(8, 1, true));
            assert_eq!(world.client.in_flight(), sequence);
        }
        assert!(!world.send(8, 1, true), "the ring is full");
        world.client.cancel_all();
        assert_eq!(world.client.pending().count(), 0);
        world.sent.values_mut().for_each(|sent| sent.cancelled = true);
        assert!(world.take() && world.take());
        // Twice what the first one leaves.
        assert!(world.send(64, 1, true));
        assert!(world.take() && world.take());
        world.settle();
    }
}

/// A segment without a trace serves the next client, though a claim may still be filled.
#[test]
fn a_client_whose_claims_may_outlive_it_leaves_a_trace() {
    let mut world = World::new(256);
    let state = |world: &World| world.server.ring_header(0, slot::STATE).load(Ordering::Acquire);
    assert!(!world.client.is_concurrent());
    world.client.set_concurrent();
    assert!(world.client.is_concurrent());
    assert_eq!(state(&world), Phase::Released.of(0));
    assert!(
        world.server.is_untouched() && !world.server.ready_check()(),
        "no server is affected by it"
    );
    // Only at first: later it would be in the way.
    assert!(world.send(8, 1, true));
    world.client.set_concurrent();
    assert_eq!(state(&world), Phase::Request.of(1));
    assert!(world.take() && !world.server.is_untouched());
    let mut world = World::new(256);
    assert!(world.send(8, 1, true));
    world.client.set_concurrent();
    assert_eq!(state(&world), Phase::Request.of(1));
}

/// What other threads have counted meanwhile is not lost; who is alone does not wait for the line.
#[test]
fn several_threads_add_to_a_counter_and_one_alone_stores_it() {
    for (concurrent, expected) in [(true, 6), (false, 1)] {
        let mut world = World::new(256);
        if concurrent {
            world.server.set_concurrent();
            world.client.set_concurrent();
        }
        let counters = [oieb::PAYLOAD_WRITTEN_COUNT, oieb::PAYLOAD_READ_COUNT];
        let [written, read] = counters.map(|field| RESPONSE + field);
        for counter in [written, read] {
            world.control.at(counter).store(5, Ordering::Relaxed);
        }
        assert!(world.send(8, 1, true) && world.take() && world.answer(0, 8));
        world.server.publish_account();
        assert_eq!(world.word(written), expected);
        assert!(world.collect(None) && world.release(0));
        assert_eq!(world.word(read), expected);
    }
}

#[test]
fn a_server_that_answers_alone_writes_its_account_now_and_then_and_when_it_is_asked_to() {
    let mut world = World::new(256);
    let account = |world: &World| {
        [oieb::PAYLOAD_WRITTEN_COUNT, oieb::PAYLOAD_WRITTEN_BYTES]
            .map(|field| world.word(RESPONSE + field))
    };
    let answer = |world: &mut World| {
        assert!(world.send(8, 1, true) && world.take() && world.answer(0, 8));
        assert!(world.collect(None) && world.release(0));
    };
    for answered in 1..=2 * ACCOUNT_EVERY + 5 {
        answer(&mut world);
        let written = answered / ACCOUNT_EVERY * ACCOUNT_EVERY;
        assert_eq!(account(&world), [written, 64 * written], "after {answered}");
        // What decisions rest on is exact.
        assert_eq!(world.word(REQUEST + oieb::PAYLOAD_READ_COUNT), answered);
        assert_eq!(world.word(RESPONSE + oieb::PAYLOAD_READ_COUNT), answered);
    }
    let answered = 2 * ACCOUNT_EVERY + 5;
    world.server.publish_account();
    assert_eq!(account(&world), [answered, 64 * answered]);
    // Several threads go on from what one has counted.
    answer(&mut world);
    world.server.set_concurrent();
    answer(&mut world);
    assert_eq!(account(&world), [answered + 2, 64 * (answered + 2)]);
    world.settle();
}

#[test]
fn a_slot_that_is_released_keeps_its_state_word_until_the_next_frame() {
    let mut world = World::new(64);
    let state = |world: &World| world.server.ring_header(0, slot::STATE).load(Ordering::Relaxed);
    for sequence in 1..=3 {
        assert!(world.send(8, 1, true) && world.take() && world.answer(0, 8));
        assert!(world.collect(None) && world.release(0));
        assert_eq!(state(&world), Phase::Response.of(sequence));
        assert!(!world.take(), "nothing new");
    }
    world.settle();
}

#[test]
fn a_number_of_more_than_56_bits_stands_for_no_request() {
    let mut world = World::new(256);
    assert!(world.send(8, 1, true) && world.take() && world.answer(0, 8));
    let alias = 1 + (1 << 56);
    assert_eq!(world.client.look_at_once(alias), None);
    assert_eq!(world.client.look(alias), Ok(Look::Unknown));
    assert!(!world.client.cancel(alias));
    world.settle();
}

#[test]
fn the_table_bounds_the_requests_in_flight() {
    let mut world = World::starting_at(1024, 1, 0, 3);
    for _ in 0..5 {
        // A power of two of them.
        for _ in 0..4 {
            assert!(world.send(8, 1, true));
        }
        let step = world.client.try_claim(Demand::new(8, 1).unwrap()).unwrap();
        assert_eq!(step, ClaimStep::Full { needed: 64, free: 1024 - 4 * 64 });
        world.settle();
    }
}

/// Writes a header where the server looks next.
fn write_header(
    world: &World,
    position: u64,
    len: u64,
    sequence: u64,
    state: u64,
    shape: SlotShape,
) {
    let header = |field: usize| world.server.ring_header(position, field);
    header(slot::PAYLOAD_SIZE).store(len, Ordering::Relaxed);
    header(slot::SEQUENCE_NUMBER).store(sequence, Ordering::Relaxed);
    header(slot::SHAPE).store(shape.to_word(), Ordering::Relaxed);
    header(slot::STATE).store(state, Ordering::Release);
}

const SMALL: SlotShape = SlotShape { stride: 1, data_offset: 32, status: 0 };
const LARGE: SlotShape = SlotShape { stride: 128, data_offset: 4096, status: 0 };

/// What a hostile client writes into the header of a frame, the field that gives it away, and what
/// would have been allowed.
#[test]
fn every_header_field_that_breaks_a_rule_is_found() {
    let marker = Phase::Wrap.of(1);
    let cases: &[(&str, u64, u64, u64, Phase, SlotShape)] = &[
        ("frame.stride", 128, 0, 1, Phase::Request, SlotShape { stride: 0, ..SMALL }),
        ("frame.stride", 128, 0, 1, Phase::Request, SlotShape { stride: 129, ..SMALL }),
        ("frame.stride", 128, 0, 1, Phase::Request, SlotShape { stride: u32::MAX, ..SMALL }),
        ("frame.data_offset", 64, 0, 1, Phase::Request, SlotShape { data_offset: 0, ..SMALL }),
        ("frame.data_offset", 64, 0, 1, Phase::Request, SlotShape { data_offset: 33, ..SMALL }),
        ("frame.data_offset", 64, 0, 1, Phase::Request, SlotShape { data_offset: 96, ..SMALL }),
        ("frame.data_offset", 4096, 0, 1, Phase::Request, SlotShape { data_offset: 4128, ..LARGE }),
        ("frame.payload_size", 32, 33, 1, Phase::Request, SMALL),
        ("frame.payload_size", 32, u64::MAX, 1, Phase::Cancelled, SMALL),
        ("frame.sequence_number", 1, 0, 2, Phase::Request, SMALL),
        ("frame.sequence_number", 1, 0, 0, Phase::Cancelled, SMALL),
        ("frame.state (wrap marker)", 0, 0, 0, Phase::Wrap, SlotShape { data_offset: 32, ..LARGE }),
        ("frame.stride", 128, 0, 0, Phase::Wrap, SMALL),
    ];
    for (field, allowed, len, sequence, phase, shape) in cases {
        let world = World::new(8192);
        write_header(&world, 0, *len, *sequence, phase.of(1), *shape);
        let violation = world.server.take().expect_err(field);
        assert_eq!((violation.field, violation.allowed), (*field, *allowed));
        if *field == "frame.state (wrap marker)" {
            assert_eq!(violation.observed, marker);
        }
    }
}

#[test]
fn headers_at_their_limits_are_taken() {
    for (len, shape) in [
        (32, SMALL),
        (0, SlotShape { data_offset: 64, ..SMALL }),
        (4096, LARGE),
        (8160, SlotShape { data_offset: 32, ..LARGE }),
    ] {
        let world = World::new(8192);
        write_header(&world, 0, len, 1, Phase::Request.of(1), shape);
        assert!(matches!(world.server.take(), Ok(Take::Request(taken)) if taken.len == len));
    }
}

/// Behind a request, where a marker may be.
#[test]
fn markers_that_break_a_rule_are_found() {
    let good = SlotShape { stride: 3, ..SMALL };
    for (field, len, sequence, shape) in [
        ("", 0, 0, good),
        ("frame.payload_size", 1, 0, good),
        ("frame.sequence_number", 0, 2, good),
        ("frame.stride", 0, 0, SlotShape { stride: 2, ..good }),
        ("frame.stride", 0, 0, SlotShape { stride: 4, ..good }),
        ("frame.data_offset", 0, 0, SlotShape { data_offset: 16, ..good }),
    ] {
        let mut world = World::new(256);
        round_trip(&mut world, 8);
        write_header(&world, 64, len, sequence, Phase::Wrap.of(2), shape);
        match world.server.take() {
            Ok(take) => assert_eq!((take, field), (Take::Skipped, "")),
            Err(violation) => assert_eq!(violation.field, field),
        }
    }
}

#[test]
fn an_answer_that_breaks_a_rule_is_found() {
    for (state, len, field) in [
        (Phase::Response.of(1), 33, "frame.payload_size"),
        (Phase::Response.of(2), 8, "frame.state"),
        (Phase::Released.of(1), 8, "frame.state"),
        (Phase::Cancelled.of(1), 8, "frame.state"),
        (EMPTY, 8, "frame.state"),
        (u64::MAX, 8, "frame.state"),
    ] {
        for latest in [true, false] {
            let mut world = World::new(256);
            assert!(world.send(8, 1, true) && (latest || world.send(8, 1, true)));
            let header = |field: usize| world.server.ring_header(0, field);
            header(slot::PAYLOAD_SIZE).store(len, Ordering::Relaxed);
            header(slot::STATE).store(state, Ordering::Release);
            assert_eq!(world.client.look(1).expect_err(field).field, field);
        }
    }
}

/// Another thread has entered a request in the table, and has not stored its state word yet.
#[test]
fn a_request_is_waiting_before_it_is_published() {
    let mut world = World::new(256);
    assert!(world.send(8, 1, true) && world.send(8, 1, true));
    let state = world.server.ring_header(64, slot::STATE);
    for before in [EMPTY, Phase::Released.of(1), Phase::Request.of(1)] {
        state.store(before, Ordering::Relaxed);
        world.client.set_committed(1);
        assert_eq!(world.client.look(2), Ok(Look::Waiting));
        assert_eq!(world.client.look(1), Ok(Look::Waiting));
    }
    state.store(Phase::Response.of(2), Ordering::Relaxed);
    assert!(matches!(world.client.look(2), Ok(Look::Ready(_))));
}

#[test]
fn the_bytes_of_a_later_answer_come_back_with_those_of_the_first() {
    let mut world = World::new(256);
    assert!((0..3).all(|_| world.send(8, 1, true)));
    while world.take() {}
    assert!((0..3).all(|_| world.answer(0, 8)));
    // The pick is among those that are not released.
    assert!((0..3).all(|pick| world.collect(Some(pick))));
    assert!(world.release(1) && world.client.free() == 64);
    assert!(world.release(0) && world.client.free() == 192, "both");
    world.settle();
}

#[test]
fn a_header_changed_by_the_server_does_not_move_the_clients_slot() {
    let mut world = World::new(1024);
    assert!(world.send(100, 1, true) && world.send(8, 1, true));
    assert!(world.take() && world.take() && world.answer(0, 100) && world.answer(0, 8));
    let shape = SlotShape { stride: 9, data_offset: 4096, status: 0 };
    world.server.ring_header(0, slot::SHAPE).store(shape.to_word(), Ordering::Relaxed);
    assert!(world.collect(None) && world.collect(None));
    world.settle();
}
