//! What a client can do with requests and responses: hold, release, cancel, and be refused.

use crate::harness::{LONG, eventually, fails, scene};
use crate::peer::{Op, edited, op};
use crate::work::{self, Rng};
use std::time::Duration;
use zerobuffer::{ClientConfig, Error, ErrorKind, RequestLayout};
use zerobuffer_test_support::Sleeper;

#[test]
fn responses_are_released_in_any_order_and_from_any_thread() {
    scene(|t| {
        let server = t.server("payload=65536");
        let client = t.client_with(ClientConfig::new().send_timeout(Duration::from_millis(30)));
        let mut rng = Rng(work::seed());
        for turn in 0..30 {
            let mut held = Vec::new();
            let needed = loop {
                let (len, seed) = (rng.below(3000), rng.next_word());
                match client.send_request(&work::bytes(len, seed)) {
                    Ok(sequence) => {
                        let answer = client.receive_response_for(sequence, LONG).unwrap();
                        held.push((answer.into_owned(), len, seed));
                    }
                    Err(Error::Full { needed, free, in_flight, .. }) => {
                        assert_eq!(in_flight, held.len() as u64);
                        assert!(free < needed);
                        break needed;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert!(needed <= 65_536 && held.len() > 10, "{needed} {}", held.len());
            for (answer, len, seed) in &held {
                work::check(answer.data(), *len, *seed);
            }
            for n in (1..held.len()).rev() {
                held.swap(n, rng.below(n + 1));
            }
            if turn % 2 == 0 {
                let rest = held.split_off(held.len() / 2);
                std::thread::scope(|scope| {
                    scope.spawn(move || drop(rest));
                    scope.spawn(move || drop(held));
                });
            }
        }
        assert_eq!(client.in_flight(), 0);
        // Nothing of the ring is lost.
        let all = client.max_request_size();
        let sequence = client.send_request(&work::bytes(all, 9)).unwrap();
        work::check(client.receive_response_for(sequence, LONG).unwrap().data(), all, 9);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_sender_that_waits_for_space_is_woken_by_a_response_released_on_another_thread() {
    scene(|t| {
        let server = t.server("payload=4096");
        let client = t.client();
        let sequence = client.send_request(&[1; 4000]).unwrap();
        let answer = client.receive_response_for(sequence, LONG).unwrap().into_owned();
        let sleeper = &Sleeper::default();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sleeper.expect_sleep();
                drop(answer);
            });
            sleeper.enters();
            let sequence = client.send_request(&work::bytes(4000, 3)).unwrap();
            work::check(client.receive_response_for(sequence, LONG).unwrap().data(), 4000, 3);
        });
        drop(client);
        server.stop();
    });
}

#[test]
fn the_bytes_of_a_held_response_never_change() {
    scene(|t| {
        let server = t.server("payload=16384");
        let client = t.client_with(ClientConfig::new().send_timeout(Duration::from_millis(1)));
        let mut rng = Rng(work::seed());
        let mut held = Vec::new();
        for _ in 0..2000 {
            let (len, seed) = (rng.below(900), rng.next_word());
            let sequence = match client.send_request(&work::bytes(len, seed)) {
                Ok(sequence) => sequence,
                // The oldest slot is the one that is held: nothing behind it can be used again.
                Err(Error::Full { .. }) => {
                    held.remove(0);
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            held.push((client.receive_response_for(sequence, LONG).unwrap(), len, seed));
            if held.len() > 6 {
                let (answer, len, seed) = held.swap_remove(rng.below(held.len()));
                work::check(answer.data(), len, seed);
            }
        }
        drop(held);
        assert_eq!(client.in_flight(), 0);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_response_outlives_its_client_and_the_next_client_is_served_meanwhile() {
    scene(|t| {
        let server = t.server("payload=4096");
        let mut client = t.client();
        let answer = client.call(&work::bytes(1000, 5), LONG).unwrap().into_owned();
        drop(client);
        let mut next = t.client();
        for seed in 0..50 {
            work::check(next.call(&work::bytes(900, seed), LONG).unwrap().data(), 900, seed);
        }
        work::check(answer.data(), 1000, 5);
        std::thread::spawn(move || drop(answer)).join().unwrap();
        drop(next);
        server.stop();
    });
}

#[test]
fn a_full_ring_says_what_is_needed_free_and_in_flight() {
    scene(|t| {
        let server = t.server("payload=1024 handler=none");
        let client = t.client_with(ClientConfig::new().send_timeout(Duration::ZERO));
        client.send_request(&[0; 400]).unwrap();
        let error = client.send_request(&[0; 600]).unwrap_err();
        match error {
            Error::Full { needed, free, in_flight, .. } => {
                assert_eq!((free, in_flight), (1024 - 512, 1));
                assert!(needed > free, "{needed}");
            }
            error => panic!("{error:?}"),
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn no_more_requests_are_in_flight_than_the_configuration_allows() {
    scene(|t| {
        let server = t.server("payload=65536");
        let config = ClientConfig::new().max_in_flight(4).send_timeout(Duration::from_millis(20));
        let client = t.client_with(config);
        for _ in 0..4 {
            client.send_request(&[1]).unwrap();
        }
        let error = client.send_request(&[1]).unwrap_err();
        assert!(matches!(error, Error::Full { in_flight: 4, .. }), "{error:?}");
        drop(client.receive_response(LONG).unwrap());
        client.send_request(&[1]).unwrap();
        for requests in [0, usize::MAX] {
            let config = ClientConfig::new().max_in_flight(requests);
            let outcome = zerobuffer::Client::connect_with(t.name(), LONG, config);
            fails(outcome, ErrorKind::BadConfig);
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn requests_that_never_fit_are_refused_with_what_would() {
    scene(|t| {
        let server = t.server("payload=1024");
        let mut client = t.client();
        for len in [961, 1024, 1 << 30] {
            let error = fails(client.acquire_request_buffer(len), ErrorKind::TooLarge);
            assert!(
                matches!(error, Error::TooLarge { asked, max: 960, .. } if asked == len as u64),
                "{error:?}"
            );
        }
        for capacity in [usize::MAX, usize::MAX - 64, 1 << 62] {
            let layout = RequestLayout::new().capacity(capacity).alignment(4096);
            fails(client.acquire_request_buffer_with(1, layout), ErrorKind::TooLarge);
        }
        let mut buffer = client.acquire_request_buffer(10).unwrap();
        fails(buffer.resize(33), ErrorKind::TooLarge);
        drop(buffer);
        assert_eq!(client.max_request_size(), 960);
        drop(client.call(&[3; 960], LONG).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn one_request_buffer_is_open_at_a_time_and_a_dropped_one_leaves_no_trace() {
    scene(|t| {
        let server = t.server("payload=1024");
        let mut client = t.client();
        for _ in 0..100 {
            let mut buffer = client.acquire_request_buffer(700).unwrap();
            buffer.data_mut().fill(0x01);
            fails(client.acquire_request_buffer(1), ErrorKind::ClaimOpen);
            fails(client.send_request(&[1]), ErrorKind::ClaimOpen);
        }
        assert_eq!(client.in_flight(), 0);
        let mut buffer = client.acquire_request_buffer(700).unwrap();
        buffer.data_mut()[..5].copy_from_slice(&work::bytes(5, 5));
        buffer.resize(5).unwrap();
        assert_eq!(buffer.commit().unwrap(), 1, "dropped buffers use no sequence number");
        work::check(client.receive_response_for(1, LONG).unwrap().data(), 5, 5);
        work::check(client.call(&work::bytes(900, 6), LONG).unwrap().data(), 900, 6);
        drop(client);
        server.stop();
    });
}

#[test]
fn sequence_numbers_that_nobody_waits_for_are_unknown() {
    scene(|t| {
        let server = t.server("payload=1024");
        let mut client = t.client();
        let sequence = client.call(&[1], LONG).unwrap().sequence();
        for unknown in [0, sequence, sequence + 1, 1 << 56, u64::MAX] {
            let error =
                fails(client.receive_response_for(unknown, LONG), ErrorKind::UnknownSequence);
            assert!(matches!(error, Error::UnknownSequence { sequence } if sequence == unknown));
            assert!(!client.cancel(unknown));
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn a_request_cancelled_before_the_server_takes_it_is_never_handled() {
    scene(|t| {
        let mut server = t.server("payload=4096 handler=ops");
        let client = t.client();
        let first = client.send_request(&op(Op::Gate, 0, 20)).unwrap();
        server.expect("gate");
        let cancelled_one = client.send_request(&op(Op::Edit, 1, 2000)).unwrap();
        assert!(client.cancel(cancelled_one));
        assert!(!client.cancel(cancelled_one), "only once");
        fails(client.receive_response_for(cancelled_one, LONG), ErrorKind::UnknownSequence);
        let third = client.send_request(&op(Op::Edit, 2, 20)).unwrap();
        server.say("open");
        drop(client.receive_response_for(first, LONG).unwrap());
        drop(client.receive_response_for(third, LONG).unwrap());
        assert_eq!(server.ask("calls", ""), "2");
        // Its bytes come back, too.
        let all = client.max_request_size();
        drop(client.acquire_request_buffer(all).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn the_answer_to_a_request_cancelled_at_work_is_swallowed() {
    scene(|t| {
        let mut server = t.server("payload=4096 handler=ops");
        let mut client = t.client();
        let cancelled_one = client.send_request(&op(Op::Gate, 0, 2000)).unwrap();
        server.expect("gate");
        assert!(client.cancel(cancelled_one));
        server.say("open");
        let request = op(Op::Edit, 1, 20);
        let answer = client.call(&request, LONG).unwrap();
        assert_eq!((answer.sequence(), answer.data()), (cancelled_one + 1, &edited(&request)[..]));
        drop(answer);
        fails(client.receive_response(Duration::ZERO), ErrorKind::Timeout);
        let all = client.max_request_size();
        drop(client.acquire_request_buffer(all).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn a_request_that_is_answered_cannot_be_cancelled_any_more() {
    scene(|t| {
        let server = t.server("payload=4096");
        let client = t.client();
        let first = client.send_request(&work::bytes(50, 1)).unwrap();
        let second = client.send_request(&work::bytes(50, 2)).unwrap();
        work::check(client.receive_response_for(second, LONG).unwrap().data(), 50, 2);
        assert!(!client.cancel(first), "one worker has answered it before the second");
        work::check(client.receive_response(LONG).unwrap().data(), 50, 1);
        drop(client);
        server.stop();
    });
}

#[test]
fn the_late_answer_to_a_call_that_timed_out_is_swallowed_and_the_next_call_is_right() {
    scene(|t| {
        let server = t.server("payload=4096 handler=ops");
        let mut client = t.client();
        for n in 0..5 {
            let error = fails(
                client.call(&op(Op::Sleep, 100, 3000), Duration::from_millis(20)),
                ErrorKind::Timeout,
            );
            assert!(matches!(error, Error::Timeout { waited, .. } if waited.as_millis() == 20));
            let request = op(Op::Edit, n, 3000);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn a_zero_timeout_only_looks() {
    scene(|t| {
        let mut server = t.server("payload=4096 handler=ops");
        let client = t.client();
        let request = op(Op::Gate, 0, 100);
        let sequence = client.send_request(&request).unwrap();
        server.expect("gate");
        for _ in 0..100 {
            fails(client.receive_response_for(sequence, Duration::ZERO), ErrorKind::Timeout);
            fails(client.receive_response(Duration::ZERO), ErrorKind::Timeout);
        }
        server.say("open");
        let mut answer = None;
        eventually("the answer", || {
            answer = client.receive_response_for(sequence, Duration::ZERO).ok();
            answer.is_some()
        });
        assert_eq!(answer.unwrap().data(), edited(&request));
        drop(client);
        server.stop();
    });
}
