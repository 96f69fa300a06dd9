//! Many requests at once: pipelined, out of order, from many threads.

use crate::harness::{LONG, fails, scene};
use crate::peer::{Op, edited, op};
use crate::work::{self, Rng};
use std::collections::HashMap;
use std::time::Duration;
use zerobuffer::{ClientConfig, Error, ErrorKind, RequestLayout};

#[test]
fn one_thousand_requests_in_flight_are_all_answered() {
    scene(|t| {
        let server = t.server("payload=1048576");
        let client = t.client();
        let mut rng = Rng(work::seed());
        let sent: Vec<_> = (0..1000)
            .map(|_| {
                let (len, seed) = (rng.below(900), rng.next_word());
                (client.send_request(&work::bytes(len, seed)).unwrap(), len, seed)
            })
            .collect();
        assert_eq!(client.in_flight(), 1000);
        for (n, (sequence, len, seed)) in sent.into_iter().enumerate() {
            assert_eq!(sequence, n as u64 + 1);
            let answer = client.receive_response(LONG).unwrap();
            assert_eq!(answer.sequence(), sequence);
            work::check(answer.data(), len, seed);
        }
        assert_eq!(client.in_flight(), 0);
        t.expect_few_tokens();
        drop(client);
        server.stop();
    });
}

#[test]
fn four_workers_overtake_each_other_and_every_answer_finds_its_request() {
    scene(|t| {
        let server = t.server("payload=1048576 workers=4 handler=ops");
        let client = t.client();
        let slow = op(Op::Sleep, 2000, 50);
        let late = client.send_request(&slow).unwrap();
        for n in 0..50 {
            let quick = op(Op::Edit, n, 40);
            let sequence = client.send_request(&quick).unwrap();
            let answer = client.receive_response(LONG).unwrap();
            assert_eq!(answer.sequence(), sequence, "overtakes the slow one");
            assert_eq!(answer.data(), edited(&quick));
        }
        let answer = client.receive_response(LONG).unwrap();
        assert_eq!((answer.sequence(), answer.data()), (late, &edited(&slow)[..]));
        drop(answer);

        // Collected in an order of their own, too.
        let mut rng = Rng(work::seed());
        let mut waiting = HashMap::new();
        for _ in 0..2000 {
            let request = op(Op::Edit, rng.next_word(), 9 + rng.below(500));
            waiting.insert(client.send_request(&request).unwrap(), request);
            if waiting.len() > 30 {
                let nth = rng.below(waiting.len());
                let sequence = *waiting.keys().nth(nth).unwrap();
                let answer = match rng.below(2) {
                    0 => client.receive_response(LONG).unwrap(),
                    _ => client.receive_response_for(sequence, LONG).unwrap(),
                };
                assert_eq!(answer.data(), edited(&waiting.remove(&answer.sequence()).unwrap()));
            }
        }
        while !waiting.is_empty() {
            let answer = client.receive_response(LONG).unwrap();
            assert_eq!(answer.data(), edited(&waiting.remove(&answer.sequence()).unwrap()));
        }
        t.expect_few_tokens();
        drop(client);
        server.stop();
    });
}

#[test]
fn one_thread_sends_while_another_one_receives() {
    scene(|t| {
        // Small enough that the sender waits for space all the time.
        let server = t.server("payload=4096");
        let client = t.client().into_shared();
        let (sender, receiver) = (&client, &client);
        let seed = work::seed();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut rng = Rng(seed);
                for _ in 0..3000 {
                    let (len, seed) = (rng.below(2000), rng.next_word());
                    sender.send_request(&work::bytes(len, seed)).unwrap();
                }
            });
            let mut rng = Rng(seed);
            for n in 1..=3000 {
                let (len, seed) = (rng.below(2000), rng.next_word());
                let answer = match n % 2 {
                    0 => receiver.receive_response(LONG).unwrap(),
                    // Waits for a request that may not have been sent yet.
                    _ => loop {
                        match receiver.receive_response_for(n, LONG) {
                            Err(Error::UnknownSequence { .. }) => std::thread::yield_now(),
                            answer => break answer.unwrap(),
                        }
                    },
                };
                assert_eq!(answer.sequence(), n);
                work::check(answer.data(), len, seed);
            }
        });
        t.expect_few_tokens();
        drop(client.call(&work::bytes(4000, 1), LONG).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn eight_threads_call_through_one_client_when_parking() {
    eight_threads("park");
}

#[test]
fn eight_threads_call_through_one_client_when_spinning_first() {
    eight_threads("both");
}

#[test]
fn eight_threads_call_through_one_client_when_spinning() {
    eight_threads("spin");
}

fn eight_threads(wait: &'static str) {
    // Eleven threads that never sleep have two CPUs here, and perhaps not for themselves.
    let calls = if wait == "spin" { 60 } else { 300 };
    scene(move |t| {
        let server = t.server(&format!("payload=8192 workers=3 wait={wait}"));
        let config = ClientConfig::new().wait(crate::peer::strategy(wait));
        let client = t.client_with(config).into_shared();
        let seed = work::seed();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let client = client.clone();
                scope.spawn(move || {
                    let mut rng = Rng(seed + thread);
                    for _ in 0..calls {
                        let (len, seed) = (rng.below(1500), rng.next_word());
                        let data = work::bytes(len, seed);
                        let answer = client
                            .call_with(
                                len,
                                RequestLayout::new(),
                                |to| to.copy_from_slice(&data),
                                LONG,
                            )
                            .unwrap();
                        work::check(answer.data(), len, seed);
                    }
                });
            }
        });
        t.expect_few_tokens();
        drop(client.call(&work::bytes(8000, 7), LONG).unwrap());
        drop(client);
        server.stop();
    });
}

#[test]
fn threads_of_a_shared_client_that_time_out_do_not_disturb_the_others() {
    scene(|t| {
        let server = t.server("payload=65536 workers=4 handler=ops");
        let client = t.client().into_shared();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let client = client.clone();
                scope.spawn(move || {
                    for n in 0..60 {
                        if thread % 2 == 0 {
                            let request = op(Op::Sleep, 5, 100);
                            match client.call(&request, Duration::from_millis(2)) {
                                Ok(answer) => assert_eq!(answer.data(), edited(&request)),
                                Err(error) => assert!(
                                    matches!(error, Error::Timeout { .. } | Error::Full { .. }),
                                    "{error:?}"
                                ),
                            }
                        } else {
                            let request = op(Op::Edit, n, 300);
                            assert_eq!(
                                client.call(&request, LONG).unwrap().data(),
                                edited(&request)
                            );
                        }
                    }
                });
            }
        });
        // All late answers are swallowed: the whole ring is there again.
        drop(client.call(&vec![0; 65_000], LONG).unwrap());
        fails(client.receive_response_for(1, LONG), ErrorKind::UnknownSequence);
        t.expect_few_tokens();
        drop(client);
        server.stop();
    });
}
