//! A server that comes back, and a client that finds it again.

use crate::harness::{LONG, SOON, eventually, fails, scene};
use crate::peer::{Op, edited, op};
use crate::work;
use std::time::Duration;
use zerobuffer::{
    ClientConfig, Error, ErrorKind, LostRequest, OwnedResponse, RequestLayout, RequestState,
    Response,
};
use zerobuffer_test_support::Sleeper;

fn resending() -> ClientConfig {
    ClientConfig::new().resend_not_started(true)
}

#[test]
fn a_client_reconnects_to_the_successor_of_a_killed_server() {
    scene(|t| {
        let server = t.server("");
        let mut client = t.client();
        work::check(client.call(&work::bytes(100, 1), LONG).unwrap().data(), 100, 1);
        t.kill(server);
        fails(client.call(&work::bytes(100, 2), LONG), ErrorKind::PeerDied);
        fails(client.reconnect(Duration::from_millis(20)), ErrorKind::NotRunning);
        let server = t.server("metadata=successor payload=131072");
        // The old connection does not come back to life by that.
        fails(client.call(&work::bytes(100, 3), LONG), ErrorKind::PeerDied);
        let report = client.reconnect(LONG).unwrap();
        assert!(report.resent.is_empty() && report.lost.is_empty(), "{report:?}");
        assert_eq!(client.server_metadata(), b"successor");
        let answer = client.call(&work::bytes(100_000, 4), LONG).unwrap();
        assert_eq!(answer.sequence(), 3, "numbers go on, the lost call's included");
        work::check(answer.data(), 100_000, 4);
        drop(answer);
        drop(client);
        server.stop();
    });
}

#[test]
fn pipelined_requests_that_were_not_started_are_sent_again_with_their_bytes_intact() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client_with(resending());
        let answered = client.send_request(&op(Op::Edit, 1, 300)).unwrap();
        let in_doubt = client.send_request(&op(Op::Stick, 50, 300)).unwrap();
        server.expect("stuck");
        let requests: Vec<_> = (0..20).map(|n| op(Op::Edit, n, 10 + n as usize * 77)).collect();
        let sent: Vec<_> =
            requests.iter().map(|request| client.send_request(request).unwrap()).collect();
        t.kill(server);
        fails(client.reconnect(Duration::from_millis(20)), ErrorKind::NotRunning);

        let mut server = t.server("handler=ops");
        let report = client.reconnect(LONG).unwrap();
        let state = RequestState::InDoubt;
        let expected = [answered, in_doubt].map(|sequence| LostRequest { sequence, state });
        assert_eq!(report.lost, expected);
        let old: Vec<_> = report.resent.iter().map(|(old, _)| *old).collect();
        assert_eq!(old, sent);
        for ((_, new), request) in report.resent.iter().zip(&requests) {
            let answer = client.receive_response(LONG).unwrap();
            assert_eq!((answer.sequence(), answer.data()), (*new, &edited(request)[..]));
        }
        assert_eq!(server.ask("calls", ""), "20", "each once");
        drop(client);
        server.stop();
    });
}

#[test]
fn requests_are_not_sent_again_unless_the_configuration_says_so() {
    scene(|t| {
        let server = t.server("handler=none");
        let mut client = t.client();
        let sequence = client.send_request(&[1; 50]).unwrap();
        t.kill(server);
        let mut server = t.server("handler=ops");
        let report = client.reconnect(LONG).unwrap();
        let state = RequestState::NotStarted;
        assert_eq!(report.lost, [LostRequest { sequence, state }]);
        assert!(report.resent.is_empty());
        assert_eq!(server.ask("calls", ""), "0");
        drop(client);
        server.stop();
    });
}

#[test]
fn a_call_survives_a_restart_if_it_was_not_started() {
    scene(|t| {
        for shared in [false, true] {
            let server = t.server("handler=none");
            let mut client = Some(t.client_with(resending()));
            let request = op(Op::Edit, 3, 5000);
            let data = request.clone();
            let sleeper = std::sync::Arc::new(Sleeper::default());
            let caller = std::sync::Arc::clone(&sleeper);
            let call = std::thread::spawn(move || {
                let mut client = client.take().unwrap();
                caller.enters();
                if shared {
                    client.into_shared().call(&data, LONG).map(|answer| answer.data().to_vec())
                } else {
                    client.call(&data, LONG).map(|answer| answer.data().to_vec())
                }
            });
            sleeper.expect_sleep();
            t.kill(server);
            let mut server = t.server("handler=ops");
            assert_eq!(call.join().unwrap().unwrap(), edited(&request));
            assert_eq!(server.ask("calls", ""), "1");
            server.stop();
        }
    });
}

#[test]
fn a_call_that_was_started_is_never_sent_again_by_itself() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client_with(resending());
        let call = std::thread::spawn(move || client.call(&op(Op::Stick, 10, 900), LONG).map(drop));
        server.expect("stuck");
        t.kill(server);
        let mut server = t.server("handler=ops");
        let lost = fails(call.join().unwrap(), ErrorKind::PeerDied).lost_request();
        assert_eq!(lost.map(|lost| lost.state), Some(RequestState::InDoubt));
        assert_eq!(server.ask("calls", ""), "0");
        server.stop();
    });
}

#[test]
fn a_call_survives_an_orderly_restart_with_a_full_queue() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client_with(resending());
        let slow = op(Op::Sleep, 100, 100);
        client.send_request(&slow).unwrap();
        let requests: Vec<_> = (0..5).map(|n| op(Op::Edit, n, 300)).collect();
        for request in &requests {
            client.send_request(request).unwrap();
        }
        eventually("the first is taken", || server.ask("calls", "") == "1");
        server.say("stop");
        let answer = client.receive_response(LONG).unwrap();
        assert_eq!(answer.data(), edited(&slow));
        drop(answer);
        server.stopped();
        let server = t.server("handler=ops");
        let report = client.reconnect(LONG).unwrap();
        assert!(report.lost.is_empty(), "{report:?}");
        assert_eq!(report.resent, [(2, 7), (3, 8), (4, 9), (5, 10), (6, 11)]);
        for request in &requests {
            assert_eq!(client.receive_response(LONG).unwrap().data(), edited(request));
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn a_request_that_is_sent_again_keeps_its_capacity_and_its_alignment() {
    scene(|t| {
        let server = t.server("handler=none payload=65536");
        let mut client = t.client_with(resending());
        // Something unaligned before it.
        client.send_request(&op(Op::Edit, 0, 100)).unwrap();
        let layout = RequestLayout::new().capacity(3000).alignment(1024);
        let mut buffer = client.acquire_request_buffer_with(20, layout).unwrap();
        buffer.data_mut().copy_from_slice(&op(Op::Facts, 0, 20));
        buffer.commit().unwrap();
        t.kill(server);
        let server = t.server("handler=ops payload=65536");
        assert_eq!(client.reconnect(LONG).unwrap().resent.len(), 2);
        drop(client.receive_response(LONG).unwrap());
        match client.receive_response(LONG).unwrap_err() {
            Error::HandlerFailed { message, .. } => {
                let words = crate::peer::Words::new(&message);
                assert_eq!(words.get::<usize>("len"), 20);
                assert!(words.get::<usize>("capacity") >= 3000, "{message}");
                assert_eq!(words.get::<usize>("page") % 1024, 0, "{message}");
            }
            error => panic!("{error:?}"),
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn requests_that_the_successor_cannot_take_are_reported_and_the_others_are_sent_again() {
    scene(|t| {
        let server = t.server("handler=none payload=65536");
        let mut client = t.client_with(resending());
        for len in [100, 50_000, 200] {
            client.send_request(&op(Op::Edit, 0, len)).unwrap();
        }
        t.kill(server);
        let server = t.server("handler=ops payload=4096");
        let report = client.reconnect(LONG).unwrap();
        assert_eq!(report.resent, [(1, 4)]);
        let state = RequestState::NotStarted;
        assert_eq!(report.lost, [2, 3].map(|sequence| LostRequest { sequence, state }));
        let answer = client.receive_response(LONG).unwrap();
        assert_eq!(answer.data(), edited(&op(Op::Edit, 0, 100)));
        drop(answer);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_client_starts_over_with_a_server_that_lives() {
    scene(|t| {
        let server = t.server("");
        let mut client = t.client();
        for seed in 0..20 {
            let kept = client.send_request(&work::bytes(100, seed)).unwrap();
            let report = client.reconnect(SOON).unwrap();
            let state = RequestState::InDoubt;
            assert_eq!(report.lost, [LostRequest { sequence: kept, state }]);
            work::check(client.call(&work::bytes(90, seed), LONG).unwrap().data(), 90, seed);
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn reconnecting_one_thread_leaves_a_connection_that_works_to_the_others() {
    scene(|t| {
        let mut server = t.server("handler=ops workers=2");
        let client = t.client().into_shared();
        let call = client.clone();
        let request = op(Op::Gate, 0, 100);
        let expected = edited(&request);
        let waiting = std::thread::spawn(move || call.call(&request, LONG));
        server.expect("gate");
        // As a thread does that was late to learn of a death, when another one has reconnected already.
        client.reconnect(SOON).unwrap();
        server.say("open");
        assert_eq!(waiting.join().unwrap().unwrap().data(), expected);
        drop(client);
        server.stop();
    });
}

#[test]
fn starting_over_later_still_reports_what_was_in_flight() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client();
        let stuck = client.send_request(&op(Op::Gate, 0, 100)).unwrap();
        server.expect("gate");
        // Its one thread is busy: nobody makes a new segment yet.
        for _ in 0..3 {
            let error = client.reconnect(Duration::from_millis(5)).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotRunning), "{error:?}");
        }
        server.say("open");
        let report = client.reconnect(LONG).unwrap();
        let state = RequestState::InDoubt;
        assert_eq!(report.lost, [LostRequest { sequence: stuck, state }]);
        assert_eq!(client.in_flight(), 0);
        drop(client);
        server.stop();
    });
}

#[test]
fn threads_keep_calling_across_five_kills() {
    scene(|t| {
        let mut server = Some(t.server("handler=ops workers=2"));
        let client = t.client_with(resending()).into_shared();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (stop, shared) = (&stop, &client);
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        let (mut right, mut n) = (0, 0);
                        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                            n += 1;
                            let request = op(Op::Edit, n, 100 + thread * 1000);
                            match shared.call(&request, LONG) {
                                Ok(answer) => {
                                    assert_eq!(answer.data(), edited(&request));
                                    right += 1;
                                }
                                // The one thing that may not be repeated.
                                Err(error) => assert_eq!(
                                    error.lost_request().map(|lost| lost.state),
                                    Some(RequestState::InDoubt),
                                    "{error:?}"
                                ),
                            }
                        }
                        right
                    })
                })
                .collect();
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(60));
                t.kill(server.take().unwrap());
                server = Some(t.server("handler=ops workers=2"));
            }
            std::thread::sleep(Duration::from_millis(60));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let right: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
            assert!(right > 0);
        });
        drop(client);
        server.unwrap().stop();
    });
}

/// What became of the request is worth more than why there is no other server.
#[test]
fn a_call_whose_server_does_not_come_back_in_time_ends_with_its_first_error() {
    scene(|t| {
        let timeout = Duration::from_millis(100);
        let without_server = || {
            let server = t.own_server(4096);
            let client = t.client_with(resending());
            drop(server);
            client
        };
        let first = |outcome: Result<OwnedResponse, Error>| {
            let error = fails(outcome, ErrorKind::PeerClosed);
            let state = error.lost_request().map(|lost| lost.state);
            assert_eq!(state, Some(RequestState::NotStarted));
        };
        let mut client = without_server();
        first(client.call(b"request", timeout).map(Response::into_owned));
        let client = without_server().into_shared();
        first(client.call(b"request", timeout));
        let client = without_server().into_shared();
        let (done, outcomes) = std::sync::mpsc::channel();
        client.start_call(b"request", timeout, move |outcome| done.send(outcome).unwrap()).unwrap();
        first(outcomes.recv_timeout(LONG).unwrap());
        // What was closed meanwhile is closed.
        let client = without_server().into_shared();
        std::thread::scope(|scope| {
            let call = scope.spawn(|| client.call(b"request", LONG));
            eventually("the call is sent", || client.in_flight() == 1);
            client.close();
            fails(call.join().unwrap(), ErrorKind::Closed);
        });
    });
}
