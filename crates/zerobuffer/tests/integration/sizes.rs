//! Round trips of all sizes, through rings of all sizes.

use crate::harness::{LONG, Scene, scene};
use crate::peer::strategy;
use crate::work::{self, Rng};
use std::collections::VecDeque;
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ClientConfig, Error, ErrorKind, RequestLayout};

#[test]
fn requests_from_nothing_to_one_mebibyte_come_back_edited() {
    scene(|t| {
        let server = t.server("payload=2097152");
        let mut client = t.client();
        for len in [0, 1, 31, 32, 33, 63, 64, 65, 4096, 1 << 20, 0] {
            let seed = len as u64;
            work::check(client.call(&work::bytes(len, seed), LONG).unwrap().data(), len, seed);

            let sequence = client.send_request(&work::bytes(len, seed + 1)).unwrap();
            let answer = client.receive_response(LONG).unwrap();
            assert_eq!(answer.sequence(), sequence);
            work::check(answer.data(), len, seed + 1);
            drop(answer);

            let mut buffer = client.acquire_request_buffer(len).unwrap();
            buffer.data_mut().copy_from_slice(&work::bytes(len, seed + 2));
            let sequence = buffer.commit().unwrap();
            let answer = client.receive_response_for(sequence, LONG).unwrap();
            work::check(answer.data(), len, seed + 2);
        }
        assert_eq!(client.in_flight(), 0);
        t.expect_few_tokens();
        drop(client);
        server.stop();
    });
}

#[test]
fn a_ring_for_frames_holds_as_many_as_it_was_made_for_and_not_one_more_wherever_they_start() {
    scene(|t| {
        for (size, in_flight) in [(0, 1), (1, 3), (32, 2), (33, 2), (64, 5), (1000, 1), (6000, 3)] {
            let ring = BufferConfig::for_frames(size, in_flight).payload_size();
            let server = t.server(&format!("payload={ring}"));
            let config = ClientConfig::new().send_timeout(Duration::ZERO);
            let client = t.client_with(config);
            // Each round begins one frame further on, the last one where the first began.
            for round in 0..=in_flight {
                let call = |n: usize| {
                    let sequence = client.send_request(&work::bytes(size, n as u64))?;
                    client.receive_response_for(sequence, LONG)
                };
                let held: Vec<_> = (0..in_flight).map(|n| call(n).unwrap()).collect();
                assert_eq!(
                    client.send_request(&vec![0; size]).unwrap_err().kind(),
                    ErrorKind::Full
                );
                for (n, response) in held.iter().enumerate() {
                    work::check(response.data(), size, n as u64);
                }
                drop(held);
                drop(call(round).unwrap());
            }
            drop(client);
            server.stop();
        }
    });
}

#[test]
fn one_hundred_mebibytes_fill_the_ring_exactly_and_come_back_edited() {
    scene(|t| {
        const SIZE: usize = 100 << 20;
        let server = t.server(&format!("payload={}", SIZE + 64));
        let mut client = t.client();
        assert_eq!(client.max_request_size(), SIZE);
        for (len, seed) in [(SIZE, 1), (10, 2), (SIZE, 3)] {
            let mut buffer = client.acquire_request_buffer(len).unwrap();
            buffer.data_mut().copy_from_slice(&work::bytes(len, seed));
            let sequence = buffer.commit().unwrap();
            let answer = client.receive_response_for(sequence, LONG).unwrap();
            work::check(answer.data(), len, seed);
        }
        drop(client.call(&[], LONG).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn ten_thousand_mixed_sizes_wrap_in_every_way_when_parking() {
    scene(|t| mixed_sizes(t, "park"));
}

#[test]
fn ten_thousand_mixed_sizes_wrap_in_every_way_when_spinning() {
    scene(|t| mixed_sizes(t, "spin"));
}

#[test]
fn ten_thousand_mixed_sizes_wrap_in_every_way_when_spinning_first() {
    scene(|t| mixed_sizes(t, "both"));
}

fn mixed_sizes(t: &Scene, wait: &str) {
    let seed = work::seed();
    let rings = [64, 128, 192, 256, 320, 448, 1024, 4160, 16_384, 131_072];
    let count = 10_000 / rings.len() * work::factor() as usize;
    for (n, ring) in rings.into_iter().enumerate() {
        // The same name each time: also ten servers, one after the other.
        let server = t.server(&format!("payload={ring} wait={wait}"));
        let config = ClientConfig::new().wait(strategy(wait));
        let eager = t.client_with(config.send_timeout(Duration::ZERO));
        pipeline(&eager, ring, count, seed + n as u64);
        t.expect_few_tokens();
        drop(eager);
        server.stop();
    }
}

/// Sends and receives at random, in a way that often fills the ring to the last byte and often asks
/// for more than half of it.
fn pipeline(client: &Client, ring: usize, count: usize, seed: u64) {
    let mut rng = Rng(seed);
    let mut waiting = VecDeque::new();
    let mut sent = 0;
    while sent < count || !waiting.is_empty() {
        let may_send = sent < count && waiting.len() < 100;
        if may_send && (waiting.is_empty() || rng.below(3) > 0) {
            let (len, seed) = (length(&mut rng, client.max_request_size(), ring), rng.next_word());
            // No time to wait: draining the ring takes several tries, with markers left in between.
            match send(client, len, seed, &mut rng) {
                Ok(sequence) => {
                    waiting.push_back((sequence, len, seed));
                    sent += 1;
                    continue;
                }
                Err(Error::Full { needed, free, in_flight, .. }) => {
                    assert!(needed > free || in_flight > 0, "{needed} {free} {in_flight}");
                    assert!(in_flight >= waiting.len() as u64);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let Some((sequence, len, seed)) = waiting.pop_front() else { continue };
        let answer = match rng.below(2) {
            0 => client.receive_response(LONG).unwrap(),
            _ => client.receive_response_for(sequence, LONG).unwrap(),
        };
        assert_eq!(answer.sequence(), sequence, "one worker answers in order");
        work::check(answer.data(), len, seed);
    }
    let error = client.receive_response_for(1, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownSequence);
}

/// Sometimes with more room, or aligned, or both.
fn send(client: &Client, len: usize, seed: u64, rng: &mut Rng) -> Result<u64, Error> {
    let data = work::bytes(len, seed);
    if rng.below(4) > 0 {
        return client.send_request(&data);
    }
    let capacity = len + rng.below(100);
    let layout = RequestLayout::new().capacity(capacity).alignment(1 << rng.below(13));
    let mut buffer = match client.acquire_request_buffer_with(len, layout) {
        // Not in a ring as small as this one.
        Err(Error::TooLarge { .. }) => return client.send_request(&data),
        buffer => buffer?,
    };
    buffer.data_mut().copy_from_slice(&data);
    buffer.commit()
}

fn length(rng: &mut Rng, largest: usize, ring: usize) -> usize {
    let slots = ring / 64;
    match rng.below(8) {
        0 => largest,
        1 => rng.below(largest + 1),
        2 => largest / 2 + rng.below(largest / 2 + 1),
        // Whole slots: these fit exactly, sooner or later.
        3 | 4 => ((1 + rng.below(slots)) * 64).saturating_sub(64).min(largest),
        5 => 32,
        6 => 33.min(largest),
        _ => rng.below(largest.min(64) + 1),
    }
}

/// A header that the server would take for a frame of `sequence`, if it ever looked there.
fn forged(sequence: u64) -> [u8; 64] {
    let mut line = [0; 64];
    let words = [8, sequence, sequence << 8 | 1, 1 | 32 << 32];
    for (at, word) in line.chunks_exact_mut(8).zip(words) {
        at.copy_from_slice(&u64::to_le_bytes(word));
    }
    line
}

#[test]
fn payload_that_looks_like_headers_is_never_taken_for_frames() {
    scene(|t| {
        for ring in [1024, 4096] {
            let mut server = t.server(&format!("handler=keep payload={ring}"));
            let client = t.client();
            let mut rng = Rng(work::seed());
            for sequence in 1..=3000 {
                let len = rng.below(ring - 64) / 64 * 64 + 64;
                let mut buffer = client.acquire_request_buffer(len.min(ring - 64)).unwrap();
                // Every line claims to be one of the next frames.
                for (n, line) in buffer.data_mut().chunks_exact_mut(64).enumerate() {
                    line.copy_from_slice(&forged(sequence + 1 + n as u64 % 6));
                }
                let sent = buffer.data_mut().to_vec();
                assert_eq!(buffer.commit().unwrap(), sequence);
                let answer = client.receive_response(LONG).unwrap();
                assert_eq!(answer.sequence(), sequence);
                assert!(answer.data() == sent, "request {sequence}");
            }
            drop(client);
            assert_eq!(server.ask("calls", ""), "3000");
            server.stop();
        }
    });
}
