//! Several threads of one client at the same time: nothing is lost between them.

use crate::harness::{LONG, eventually, fails, scene};
use crate::work;
use std::hint::spin_loop;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, Error, ErrorKind, Frame, OwnedRequestBuffer, RequestLayout, Response, Server,
    ServerConfig, WaitStrategy,
};

/// So many requests of 200 bytes fill a ring of 64 KiB, a slot having 320.
const FILLS: usize = 204;

fn echo(name: &str) -> Server {
    let config = ServerConfig::new(BufferConfig::new(0, 1 << 16)).wait(WaitStrategy::Spin);
    let mut server = Server::create(name, config).unwrap();
    server.start(|_: &mut Frame<'_>| {}).unwrap();
    server
}

/// The client's thread gives answers back and counts what is in flight, while another thread commits:
/// afterwards all of the ring can be used, and no byte of it twice.
#[test]
fn counting_what_is_in_flight_leaves_a_commit_on_another_thread_alone() {
    scene(|t| {
        let _server = echo(t.name());
        let client = t.client();
        let ask = |fill: u8| -> Result<Response<'_>, Error> {
            let sequence = client.send_request(&[fill; 200])?;
            client.receive_response_for(sequence, LONG)
        };
        let buffer = Mutex::new(None::<OwnedRequestBuffer>);
        let (go, end) = (AtomicBool::new(false), AtomicBool::new(false));
        let committed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    if go.swap(false, Ordering::Acquire) {
                        let buffer = buffer.lock().unwrap().take().unwrap();
                        committed.store(buffer.commit().unwrap(), Ordering::Release);
                    }
                    spin_loop();
                }
            });
            for round in 0..100 * work::factor() as usize {
                let mut held: Vec<_> = (0..32).map(|_| ask(1).unwrap()).collect();
                while !held.is_empty() {
                    let acquired = client.acquire_request_buffer(200).unwrap();
                    *buffer.lock().unwrap() = Some(acquired.into_owned());
                    go.store(true, Ordering::Release);
                    // From some nanoseconds to a microsecond: a commit is over in less.
                    for n in 0..(round * 31 + held.len() * 7) % 1024 {
                        std::hint::black_box(n);
                    }
                    for _ in 0..4 {
                        drop(held.remove(0));
                        client.in_flight();
                    }
                    let sequence = wait_for(&committed);
                    drop(client.receive_response_for(sequence, LONG).unwrap());
                }
                let held: Vec<_> =
                    (0..FILLS).map_while(|n| Some((n, ask(n as u8).ok()?))).collect();
                if held.len() != FILLS || held.iter().any(|(n, r)| r.data() != [*n as u8; 200]) {
                    end.store(true, Ordering::Relaxed);
                    panic!("round {round}: {} of {FILLS} fit, or were overwritten", held.len());
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    });
}

fn wait_for(number: &AtomicU64) -> u64 {
    loop {
        match number.swap(0, Ordering::Acquire) {
            0 => spin_loop(),
            number => return number,
        }
    }
}

/// One thread gives sixteen requests up, one after the other, while their answers come and another thread
/// receives: each of them is either cancelled or received.
#[test]
fn an_answer_that_a_cancel_on_another_thread_leaves_is_received() {
    const AT_ONCE: u64 = 16;
    scene(|t| {
        let _server = echo(t.name());
        let client = t.client().into_shared();
        // The first number to cancel, and 1000 and how many were.
        let (from, cancelled) = (AtomicU64::new(0), AtomicU64::new(0));
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    let first = from.swap(0, Ordering::Acquire);
                    if first > 0 {
                        let numbers = first..first + AT_ONCE;
                        let cancelled_one = numbers.filter(|number| client.cancel(*number)).count();
                        cancelled.store(1000 + cancelled_one as u64, Ordering::Release);
                    }
                    spin_loop();
                }
            });
            let start = Instant::now();
            let long_enough = Duration::from_secs(2) * work::factor();
            let mut round = 0;
            while start.elapsed() < long_enough {
                round += 1;
                cancelled.store(0, Ordering::Relaxed);
                let first = (0..AT_ONCE).map(|_| client.send_request(&[0; 8]).unwrap()).min();
                (0..round % 200).for_each(|_| spin_loop());
                from.store(first.unwrap(), Ordering::Release);
                let mut received = 0;
                let patience = Instant::now();
                loop {
                    match client.receive_response(Duration::from_micros(20)) {
                        Ok(_) => received += 1,
                        Err(Error::Timeout { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    match cancelled.load(Ordering::Acquire) {
                        0 => {}
                        count if received + (count - 1000) == AT_ONCE => break,
                        count if patience.elapsed() > LONG => {
                            end.store(true, Ordering::Relaxed);
                            let count = count - 1000;
                            panic!("round {round}: {received} received, {count} cancelled");
                        }
                        _ => {}
                    }
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    });
}

/// A request that a caller's code has begun to write is dropped when that code panics, and the client continues.
#[test]
fn a_panic_while_a_request_is_filled_leaves_the_client_as_it_was() {
    scene(|t| {
        let _server = echo(t.name());
        let client = t.client().into_shared();
        let panics = std::panic::AssertUnwindSafe(|| {
            let fill = |_: &mut [u8]| panic!("on purpose");
            client.call_with(100, RequestLayout::new(), fill, LONG).map(drop)
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(client.in_flight(), 0);
        assert_eq!(client.call(&[7; 100], LONG).unwrap().data(), [7; 100]);
    });
}

/// Two threads call and one takes whatever comes: each of them gets what is its own, also of what the
/// server's end leaves.
#[test]
fn a_thread_that_takes_any_response_takes_none_of_a_call() {
    scene(|t| {
        let server = echo(t.name());
        let client = t.client().into_shared();
        let rounds = 20_000 * work::factor();
        std::thread::scope(|scope| {
            for thread in [1, 2] {
                let client = &client;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        assert_eq!(client.call(&[thread; 8], LONG).unwrap().data(), [thread; 8]);
                    }
                });
            }
            for _ in 0..rounds {
                client.send_request(&[3; 8]).unwrap();
                assert_eq!(client.receive_response(LONG).unwrap().data(), [3; 8]);
            }
        });
        drop(server);
        let silent = Server::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
        client.reconnect(LONG).unwrap();
        let sent = client.send_request(&[3; 8]).unwrap();
        std::thread::scope(|scope| {
            let call = scope.spawn(|| client.call(&[1; 8], LONG).unwrap_err());
            eventually("the call is sent", || client.in_flight() == 2);
            drop(silent);
            let error = client.receive_response(LONG).unwrap_err();
            assert_eq!(error.lost_request().map(|lost| lost.sequence), Some(sent));
            assert_eq!(client.receive_response(LONG).unwrap_err().lost_request(), None);
            assert_eq!(call.join().unwrap().lost_request().unwrap().sequence, sent + 1);
        });
    });
}

/// The response to a call in slices is there before the caller asks for it by its number: a short request, and
/// one that takes a turn to be sent.
#[test]
fn a_thread_that_takes_any_response_takes_none_of_a_call_in_slices() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let client = t.client().into_shared();
        for size in [5, 5000] {
            let ControlFlow::Continue(call) = client.try_call(&vec![1; size], LONG).unwrap() else {
                panic!("nobody has responded");
            };
            let any = client.send_request(&[2; 8]).unwrap();
            for _ in 0..2 {
                server.receive(LONG).unwrap().respond();
            }
            assert_eq!(client.receive_response(LONG).unwrap().sequence(), any);
            fails(client.receive_response(Duration::ZERO), ErrorKind::Timeout);
            let response = client.poll_response_for(call, Duration::ZERO).unwrap();
            assert_eq!(response.data(), vec![1; size]);
        }
    });
}
