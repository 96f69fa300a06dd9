//! A server without a handler, which takes its requests itself; the client is another process.

use crate::harness::{LONG, fails, scene};
use crate::work;
use std::time::Duration;
use zerobuffer::{Error, ErrorKind, OwnedRequest};

#[test]
fn requests_are_received_edited_and_answered() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        fails(server.receive(Duration::ZERO), ErrorKind::Timeout);
        let mut client = t.client_peer("");
        for (n, len) in [0, 1, 33, 4096, 60_000].into_iter().enumerate() {
            client.say(&format!("call len={len} seed={len}"));
            let mut request = server.receive(LONG).unwrap();
            assert_eq!((request.sequence(), request.len()), (n as u64 + 1, len));
            assert_eq!(request.data(), work::bytes(len, len as u64));
            work::edit(request.data_mut());
            request.respond();
            client.expect("ok");
        }
        client.stop();
        server.stop().unwrap();
        fails(server.receive(LONG), ErrorKind::Closed);
    });
}

#[test]
fn a_request_that_is_failed_or_dropped_fails_at_the_client_at_once() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let mut client = t.client_peer("");
        client.say("call len=100 seed=1");
        server.receive(LONG).unwrap().fail("not today");
        assert!(client.expect("err HandlerFailed").contains("not today"));
        client.say("call len=100 seed=1");
        drop(server.receive(LONG).unwrap());
        assert!(client.expect("err HandlerFailed").contains("status 3"));
        client.say("call len=100 seed=1");
        drop(server.receive(LONG).unwrap().into_owned());
        assert!(client.expect("err HandlerFailed").contains("status 3"));
        client.say("call len=100 seed=1");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _request = server.receive(LONG).unwrap();
            std::panic::resume_unwind(Box::new("no message wanted"));
        }));
        assert!(outcome.is_err());
        assert!(client.expect("err HandlerFailed").contains("status 3"));
        client.stop();
    });
}

#[test]
fn owned_requests_are_answered_out_of_order_from_another_thread() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let mut client = t.client_peer("");
        for seed in 0..20 {
            client.ask(&format!("send len={} seed={seed}", 10 + seed), "ok");
        }
        let mut requests: Vec<OwnedRequest> =
            (0..20).map(|_| server.receive(LONG).unwrap().into_owned()).collect();
        fails(server.receive(Duration::from_millis(1)), ErrorKind::Timeout);
        requests.reverse();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for mut request in requests {
                    work::edit(request.data_mut());
                    request.respond();
                    client.ask("receive", "ok");
                }
                // And one the usual way.
                client.say("call len=50 seed=3");
                client.expect("ok");
                client.stop();
            });
            let mut request = server.receive(LONG).unwrap();
            work::edit(request.data_mut());
            request.respond();
        });
    });
}

#[test]
fn a_request_outlives_its_client_and_its_server() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let mut client = t.client_peer("");
        client.ask("send len=50000 seed=1", "ok");
        let mut kept = server.receive(LONG).unwrap().into_owned();
        client.stop();
        // The next client is served on a new segment, while the old one is still in use.
        let mut next = t.client_peer_while(|| {
            let _ = server.receive(Duration::from_millis(5));
        });
        next.say("call len=50000 seed=2");
        let mut request = server.receive(LONG).unwrap();
        work::edit(request.data_mut());
        work::edit(kept.data_mut());
        request.respond();
        next.expect("ok");
        next.stop();
        server.stop().unwrap();
        drop(server);
        work::check(kept.data(), 50_000, 1);
        kept.respond();
    });
}

#[test]
fn a_server_that_only_looks_serves_one_client_after_the_other() {
    scene(|t| {
        let mut server = t.own_server(4096);
        for seed in 0..5 {
            // Zero: a look and no more, as in somebody's event loop.
            let mut client = t.client_peer_while(|| {
                let _ = server.receive(Duration::ZERO);
            });
            client.say(&format!("call len=100 seed={seed}"));
            let mut request = loop {
                match server.receive(Duration::ZERO) {
                    Ok(request) => break request,
                    Err(Error::Timeout { .. }) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => panic!("{error}"),
                }
            };
            work::edit(request.data_mut());
            request.respond();
            client.expect("ok");
            match seed % 2 {
                0 => client.kill(),
                _ => client.stop(),
            }
        }
    });
}

#[test]
fn a_server_that_stops_waits_for_requests_in_other_hands() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let mut client = t.client_peer("");
        client.say("call len=100 seed=1");
        let mut request = server.receive(LONG).unwrap().into_owned();
        let worker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            work::edit(request.data_mut());
            request.respond();
        });
        server.stop().unwrap();
        client.expect("ok");
        worker.join().unwrap();
        client.stop();
    });
}
