//! One client of two buffers for many threads, and what becomes of its requests when the connection is
//! replaced.

use crate::clients::{connect, two_buffers};
use crate::support::{LONG, Unique, until};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zerobuffer::v1::{Draft, DuplexServer};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind, RequestLayout, RequestState};

fn serve(name: &str, handler: impl FnMut(&mut Draft<'_>) + Send + 'static) -> DuplexServer {
    let mut server = DuplexServer::create(name, BufferConfig::new(0, 1 << 16)).unwrap();
    server.start_mutable(handler).unwrap();
    server
}

fn invert(draft: &mut Draft<'_>) {
    draft.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
}

/// A server that takes each request only when the test says so.
fn hesitant(name: &str) -> (DuplexServer, Sender<()>) {
    let (open, opened): (_, Receiver<()>) = channel();
    let server = serve(name, move |draft| {
        // Or until its client has closed, which cannot connect again before.
        let shut = Err(RecvTimeoutError::Timeout);
        while opened.recv_timeout(Duration::from_millis(1)) == shut && !draft.cancelled() {}
        invert(draft);
    });
    (server, open)
}

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

#[test]
fn many_threads_call_and_each_gets_its_own_response() {
    let name = Unique::new("many-call");
    let _server = serve(&name, invert);
    // Room for few at a time: the others wait for it.
    let config = two_buffers().response_buffer(BufferConfig::new(0, 4096));
    let client = Client::connect_with(&name, LONG, config).unwrap().into_shared();
    assert!(!client.is_in_place() && client.is_server_connected());
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let client = client.clone();
            scope.spawn(move || {
                for round in 0..200_u8 {
                    let data = vec![thread ^ round; 1 + usize::from(round) * 3];
                    let response = client.call(&data, LONG).unwrap();
                    assert_eq!(response.data(), vec![!(thread ^ round); data.len()]);
                }
            });
        }
    });
    assert_eq!(client.in_flight(), 0);
    assert!(!client.is_desynchronised());
}

#[test]
fn any_response_and_a_certain_one_can_be_waited_for_at_the_same_time() {
    let name = Unique::new("many-mixed");
    let _server = serve(&name, invert);
    let client = connect(&name, LONG).unwrap().into_shared();
    let others = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let (client, others) = (&client, &others);
        scope.spawn(move || {
            for _ in 0..300 {
                let response = client.receive_response(LONG).unwrap();
                others.lock().unwrap().push((response.sequence(), response.data().to_vec()));
            }
        });
        for _ in 0..3 {
            scope.spawn(move || {
                for round in 0..100 {
                    assert_eq!(client.call(&[round; 9], LONG).unwrap().data(), [!round; 9]);
                    // Nobody asks for this one by its number.
                    client.send_request_within(&[200, round], LONG).unwrap();
                }
            });
        }
    });
    let others = others.lock().unwrap();
    assert!(others.iter().all(|(_, data)| data[0] == !200), "a response that a call waited for");
}

#[test]
fn a_cancelled_request_ends_its_wait_and_its_response_is_swallowed() {
    let name = Unique::new("many-cancel");
    let (_server, open) = hesitant(&name);
    let client = connect(&name, LONG).unwrap().into_shared();
    let first = client.send_request(b"first").unwrap();
    let second = client.send_request(b"second").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| kind(client.receive_response_for(first, Duration::MAX)));
        until("the cancellation", || client.cancel(first));
        assert_eq!(waits.join().unwrap(), ErrorKind::UnknownSequence);
    });
    assert!(!client.cancel(first) && client.is_desynchronised());
    assert_eq!(kind(client.call(b"late", Duration::from_millis(1))), ErrorKind::Timeout);
    (0..3).for_each(|_| open.send(()).unwrap());
    let response = client.receive_response_for(second, LONG).unwrap();
    assert_eq!(response.data(), b"second".map(|byte| !byte));
    drop(open);
    assert_eq!(client.call(b"next", LONG).unwrap().data(), b"next".map(|byte| !byte));
    assert!(!client.is_desynchronised());
}

#[test]
fn an_open_buffer_keeps_other_threads_from_sending_and_may_outlive_the_client() {
    let name = Unique::new("many-open");
    let _server = serve(&name, invert);
    let client = connect(&name, LONG).unwrap().into_shared();
    let layout = RequestLayout::new();
    let mut buffer = client.acquire_request_buffer(4, layout, LONG).unwrap();
    assert_eq!(kind(client.send_request(b"mine")), ErrorKind::ClaimOpen);
    assert_eq!(kind(buffer.resize(3)), ErrorKind::InvalidState);
    buffer.resize(4).unwrap();
    buffer.data_mut().copy_from_slice(b"open");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| client.call(b"other", LONG).unwrap().data().to_vec());
        let sequence = scope.spawn(move || buffer.commit().unwrap()).join().unwrap();
        let response = client.receive_response_for(sequence, LONG).unwrap();
        assert_eq!(response.data(), b"open".map(|byte| !byte));
        assert_eq!(other.join().unwrap(), b"other".map(|byte| !byte));
    });
    let left = client.acquire_request_buffer(4, layout, LONG).unwrap();
    drop(client);
    assert_eq!(kind(left.commit()), ErrorKind::Closed);
    // The server serves the next client.
    assert_eq!(connect(&name, LONG).unwrap().call(b"x", LONG).unwrap().data(), [!b'x']);
}

#[test]
fn a_close_ends_the_waits_of_all_threads_and_a_reconnection_opens_it_again() {
    let name = Unique::new("many-close");
    let (server, open) = hesitant(&name);
    let client = connect(&name, LONG).unwrap().into_shared();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| kind(client.call(b"unanswered", Duration::MAX))))
            .collect();
        until("the requests", || client.in_flight() == 4);
        client.close();
        for call in calls {
            assert_eq!(call.join().unwrap(), ErrorKind::Closed);
        }
    });
    assert_eq!(kind(client.call(b"x", LONG)), ErrorKind::Closed);
    drop(open);
    until("the server to see it", || !server.is_client_connected());
    assert!(client.reconnect(LONG).unwrap().lost.is_empty());
    assert_eq!(client.call(b"x", LONG).unwrap().data(), [!b'x']);
    client.closer().close();
    assert_eq!(kind(client.reconnect(LONG)), ErrorKind::Closed);
}

/// A handler that sees its client leave stops, and what it leaves is no response to anybody.
#[test]
fn what_a_handler_leaves_whose_client_closes_is_no_response() {
    let name = Unique::new("half-response");
    let _server = serve(&name, |draft| while !draft.cancelled() {});
    for round in 0..100 {
        let client = connect(&name, LONG).unwrap().into_shared();
        std::thread::scope(|scope| {
            let call = scope.spawn(|| kind(client.call(b"unanswered", Duration::MAX)));
            until("the request", || client.in_flight() == 1);
            client.close();
            assert_eq!(call.join().unwrap(), ErrorKind::Closed, "round {round}");
        });
    }
}

#[test]
fn what_was_in_flight_at_a_reconnection_is_in_doubt_and_numbers_go_on() {
    let name = Unique::new("many-reconnect");
    let (server, open) = hesitant(&name);
    let client = connect(&name, LONG).unwrap().into_shared();
    let old = client.send_request(b"old").unwrap();
    assert!(client.reconnect(LONG).unwrap().lost.is_empty(), "it works, and is left as it is");
    drop((open, server));
    let _server = serve(&name, invert);
    let report = client.reconnect(LONG).unwrap();
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.sequence, lost.state)).collect();
    if lost != [(old, RequestState::InDoubt)] {
        // The server may have responded to it when it was told to stop.
        assert!(lost.is_empty() || lost[0].0 == old, "{lost:?}");
    }
    let new = client.send_request(b"new").unwrap();
    assert_eq!(new, old + 1);
    assert_eq!(client.receive_response_for(new, LONG).unwrap().data(), b"new".map(|byte| !byte));
    assert_eq!(kind(client.receive_response_for(old, LONG)), ErrorKind::PeerClosed);
    assert_eq!(kind(client.receive_response_for(old, LONG)), ErrorKind::UnknownSequence);
}

#[test]
fn a_client_of_one_thread_reconnects_to_the_next_server() {
    let name = Unique::new("one-reconnect");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 1 << 16)).unwrap();
    // A server that cannot respond closes the channel, and serves the next client.
    server.start_mutable(|_: &mut Draft<'_>| Err::<(), _>("on purpose")).unwrap();
    let mut client = connect(&name, LONG).unwrap();
    let lost = client.send_request(b"a").unwrap();
    let report = client.reconnect(LONG).unwrap();
    drop(server);
    assert_eq!(report.lost.len(), 1);
    assert_eq!((report.lost[0].sequence, report.lost[0].state), (lost, RequestState::InDoubt));
    assert_eq!(kind(client.call(b"x", LONG)), ErrorKind::PeerClosed);
    assert_eq!(kind(client.reconnect(Duration::ZERO)), ErrorKind::NotRunning);
    let _server = serve(&name, invert);
    assert!(client.reconnect(LONG).unwrap().lost.is_empty());
    let response = client.call(b"x", LONG).unwrap();
    assert_eq!((response.data(), response.sequence() > lost), (&[!b'x'][..], true));
}

#[test]
fn a_call_is_made_again_at_the_next_server_if_it_could_not_be_sent() {
    let name = Unique::new("one-resend");
    let server = serve(&name, invert);
    let config = two_buffers().resend_not_started(true);
    let mut client = Client::connect_with(&name, LONG, config).unwrap();
    drop(client.call(b"x", LONG).unwrap());
    drop(server);
    let _server = serve(&name, invert);
    assert_eq!(client.call(b"again", LONG).unwrap().data(), b"again".map(|byte| !byte));
}

#[test]
fn a_call_that_no_thread_waits_for_is_refused_over_two_buffers() {
    let name = Unique::new("many-async");
    let _server = serve(&name, invert);
    let client = connect(&name, LONG).unwrap().into_shared();
    let refused = client.start_call(b"call", LONG, |_| panic!("refused, so never called"));
    assert_eq!(kind(refused), ErrorKind::Unsupported);
    assert_eq!(client.call(b"next", LONG).unwrap().data(), b"next".map(|byte| !byte));
}
