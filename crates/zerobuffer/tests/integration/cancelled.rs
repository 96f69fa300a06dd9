//! Whether a request is still wanted, as its handler asks; the client is another process.

use crate::harness::{LONG, Peer, Scene, scene};
use std::sync::mpsc::{Receiver, channel};
use zerobuffer::{Frame, Server};

/// A server whose handler works on each request until it is not wanted any more. It tells when it begins,
/// and when it has stopped.
fn working_server(t: &Scene) -> (Server, Receiver<()>, Receiver<()>) {
    let mut server = t.own_server(1 << 16);
    let ((began, begun), (ended, end)) = (channel(), channel());
    let handler = move |frame: &mut Frame<'_>| {
        assert!(!frame.cancelled(), "its client waits");
        let _ = began.send(());
        while !frame.cancelled() {
            std::thread::yield_now();
        }
        let _ = ended.send(());
    };
    server.start_mut(handler).unwrap();
    (server, begun, end)
}

/// The same for requests that are taken one by one, with `end` on the request's client.
fn pulled(end: impl FnOnce(&Scene, Peer) + Send + 'static) {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let mut client = t.client_peer("");
        client.ask("send len=100 seed=1", "ok");
        client.ask("send len=100 seed=2", "ok");
        let first = server.receive(LONG).unwrap().into_owned();
        let second = server.receive(LONG).unwrap();
        assert!(!first.cancelled() && !second.cancelled());
        end(t, client);
        while !first.cancelled() || !second.cancelled() {
            std::thread::yield_now();
        }
        second.respond();
        // The next client is served, and what is left of the last one stays unwanted.
        let mut next = t.client_peer_while(|| {
            let _ = server.receive(std::time::Duration::ZERO);
        });
        assert!(first.cancelled());
        next.ask("send len=100 seed=3", "ok");
        let third = server.receive(LONG).unwrap();
        assert!(!third.cancelled());
        drop(third);
        next.stop();
    });
}

#[test]
fn a_request_whose_client_was_killed_is_not_wanted() {
    pulled(|t, client| t.kill(client));
}

#[test]
fn a_request_whose_client_has_closed_is_not_wanted() {
    pulled(|_, client| client.stop());
}

#[test]
fn a_request_whose_call_has_timed_out_is_not_wanted() {
    scene(|t| {
        let (mut server, begun, end) = working_server(t);
        let mut client = t.client_peer("");
        for _ in 0..3 {
            client.say("call len=100 seed=1 ms=20");
            begun.recv_timeout(LONG).unwrap();
            client.expect("err Timeout");
            end.recv_timeout(LONG).unwrap();
        }
        client.stop();
        server.stop().unwrap();
    });
}

#[test]
fn a_running_handler_notices_that_its_client_was_killed() {
    scene(|t| {
        let (mut server, begun, end) = working_server(t);
        let mut client = t.client_peer("");
        client.say("call len=100 seed=1");
        begun.recv_timeout(LONG).unwrap();
        t.kill(client);
        end.recv_timeout(LONG).unwrap();
        server.stop().unwrap();
    });
}

#[test]
fn a_running_handler_notices_that_its_server_is_being_stopped() {
    scene(|t| {
        let (mut server, begun, end) = working_server(t);
        let mut client = t.client_peer("");
        client.say("call len=0 seed=1");
        begun.recv_timeout(LONG).unwrap();
        server.stop().unwrap();
        end.recv_timeout(LONG).unwrap();
        // What the handler has returned with is a response all the same.
        client.expect("ok");
        client.stop();
    });
}

#[test]
fn a_pulled_request_is_not_wanted_once_the_server_is_closed() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let closer = server.closer();
        let mut client = t.client_peer("");
        client.ask("send len=100 seed=1", "ok");
        let request = server.receive(LONG).unwrap();
        assert!(!request.cancelled());
        closer.close();
        assert!(request.cancelled());
        request.respond();
        client.stop();
        server.stop().unwrap();
    });
}
