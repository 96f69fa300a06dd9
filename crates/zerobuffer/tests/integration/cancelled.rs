//! Whether a request is still wanted, as its handler asks; the client is another process.

use crate::harness::{LONG, Peer, Scene, scene};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use zerobuffer::{BufferConfig, Closer, ErrorKind, Frame, RequestState, Server, ServerConfig};

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
        for _ in 0..2 {
            // Long enough for the request to be taken.
            client.say("call len=100 seed=1 ms=1000");
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

/// Edits all bytes, waits in the middle until its server is being stopped, and stops early where nobody wants
/// the response, as `cancelled` says.
fn edits_while_its_server_stops(
    closer: Closer,
    began: Sender<()>,
) -> impl FnMut(&mut Frame<'_>) + Send {
    move |frame| {
        for at in 0..frame.len() {
            if at == frame.len() / 2 {
                began.send(()).unwrap();
                while !closer.is_closed() {
                    std::thread::yield_now();
                }
            }
            if frame.cancelled() {
                return;
            }
            frame.data_mut()[at] ^= 0xff;
        }
    }
}

#[test]
fn a_handler_finishes_its_response_while_its_server_stops() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let (began, begun) = channel();
        server.start_mut(edits_while_its_server_stops(server.closer(), began)).unwrap();
        let client = t.client();
        let sequence = client.send_request(&[1; 20_000]).unwrap();
        begun.recv_timeout(LONG).unwrap();
        let stopping = std::thread::spawn(move || server.stop());
        let response = client.receive_response_for(sequence, LONG).unwrap();
        assert!(response.data().iter().all(|byte| *byte == 0xfe), "half a response");
        drop(response);
        drop(client);
        stopping.join().unwrap().unwrap();
    });
}

#[test]
fn nothing_comes_of_a_handler_that_is_in_its_work_past_the_stop_timeout() {
    scene(|t| {
        let config = ServerConfig::new(BufferConfig::new(0, 1 << 16));
        let config = config.stop_timeout(Duration::from_millis(20));
        let mut server = Server::create(t.name(), config).unwrap();
        let (began, begun) = channel();
        let handler = move |frame: &mut Frame<'_>| {
            began.send(()).unwrap();
            while !frame.cancelled() {
                frame.data_mut()[0] ^= 1;
                std::thread::yield_now();
            }
        };
        server.start_mut(handler).unwrap();
        let client = t.client();
        let sequence = client.send_request(&[0]).unwrap();
        begun.recv_timeout(LONG).unwrap();
        server.stop().unwrap();
        // Its thread, which drops the handler last.
        assert_eq!(begun.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
        let error = client.receive_response_for(sequence, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        assert_eq!(error.lost_request().unwrap().state, RequestState::InDoubt);
    });
}

#[test]
fn a_pulled_request_is_wanted_while_the_server_closes() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        let closer = server.closer();
        let mut client = t.client_peer("");
        client.say("call len=0 seed=1");
        let request = server.receive(LONG).unwrap();
        closer.close();
        assert!(!request.cancelled());
        request.respond();
        client.expect("ok");
        client.stop();
        server.stop().unwrap();
    });
}
