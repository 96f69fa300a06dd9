//! Handles that move to other threads and outlive what they came from.

use crate::harness::{LONG, eventually, fails, scene};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, LostRequest, OwnedRequest,
    RequestLayout, RequestState, Server, SharedClient, v1,
};
use zerobuffer_test_support::Sleeper;

fn inverting(name: &str) -> Server {
    let mut server = Server::create(name, BufferConfig::new(64, 4096)).unwrap();
    server
        .start(|frame: &mut Frame<'_>| frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte))
        .unwrap();
    server
}

fn shared(name: &str) -> SharedClient {
    Client::connect(name, LONG).unwrap().into_shared()
}

/// What another request says that was not sent.
#[track_caller]
fn is_served(name: &str) {
    let mut next = Client::connect(name, LONG).unwrap();
    assert_eq!(next.call(&[1], LONG).unwrap().data(), [254]);
}

#[test]
fn an_owned_request_buffer_is_committed_on_any_thread() {
    scene(|t| {
        let mut server = inverting(t.name());
        let mut client = Client::connect(t.name(), LONG).unwrap();
        for turn in 0..200_u8 {
            let mut buffer = client.acquire_request_buffer(3).unwrap().into_owned();
            assert!(matches!(client.send_request(b"x"), Err(Error::ClaimOpen)));
            let committed = std::thread::spawn(move || {
                buffer.data_mut().fill(turn);
                buffer.commit().unwrap()
            });
            // Sends as soon as it can.
            let plain = loop {
                match client.send_request(&[turn, 1]) {
                    Err(Error::ClaimOpen) => std::thread::yield_now(),
                    sent => break sent.unwrap(),
                }
            };
            let response = client.receive_response_for(committed.join().unwrap(), LONG).unwrap();
            assert_eq!(response.data(), [!turn; 3]);
            drop(response);
            assert_eq!(client.receive_response_for(plain, LONG).unwrap().data(), [!turn, 254]);
        }
        drop(client.acquire_request_buffer(4000).unwrap().into_owned());
        assert_eq!(client.call(&[2], LONG).unwrap().data(), [253]);
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_request_buffer_that_outlives_its_client_sends_nothing_to_the_next_ones_server() {
    scene(|t| {
        let mut server = inverting(t.name());
        let client = Client::connect(t.name(), LONG).unwrap();
        let buffer = client.acquire_request_buffer(8).unwrap().into_owned();
        drop(client);
        let shared = shared(t.name());
        let late = shared.acquire_request_buffer(8, RequestLayout::new(), LONG).unwrap();
        shared.close();
        is_served(t.name());
        fails(buffer.commit(), ErrorKind::Closed);
        fails(late.commit(), ErrorKind::Closed);
        is_served(t.name());
        drop(shared);
        server.stop().unwrap();
    });
}

#[test]
fn threads_wait_while_one_of_them_fills_a_request_buffer_and_that_one_is_told() {
    scene(|t| {
        let mut server = inverting(t.name());
        let client = shared(t.name());
        let mut buffer = client.acquire_request_buffer(2, RequestLayout::new(), LONG).unwrap();
        fails(client.send_request(b"x"), ErrorKind::ClaimOpen);
        let second = client.acquire_request_buffer(1, RequestLayout::new(), LONG);
        fails(second, ErrorKind::ClaimOpen);
        fails(client.call(b"x", LONG), ErrorKind::ClaimOpen);
        let sleeper = Sleeper::default();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let brief = Duration::from_millis(20);
                fails(client.send_request_within(b"x", brief), ErrorKind::Full);
                sleeper.enters();
                client.call(&[1], LONG).unwrap().data().to_vec()
            });
            sleeper.expect_sleep();
            buffer.data_mut().copy_from_slice(&[3, 4]);
            let sequence = buffer.commit().unwrap();
            assert_eq!(sequence, 1);
            assert_eq!(client.receive_response_for(sequence, LONG).unwrap().data(), [252, 251]);
            assert_eq!(other.join().unwrap(), [254]);
        });
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_shared_client_receives_any_answer_and_polls_without_cancelling() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 4096)).unwrap();
        let client = shared(t.name());
        let sent = [1, 2, 3].map(|byte| client.send_request(&[byte]).unwrap());
        let mut taken = [(); 3].map(|()| server.receive(LONG).unwrap().into_owned());
        let brief = Duration::from_millis(15);
        fails(client.poll_response_for(sent[0], brief), ErrorKind::Timeout);
        fails(client.receive_response(brief), ErrorKind::Timeout);
        taken.swap(0, 2);
        for request in taken {
            request.respond();
        }
        let first = client.poll_response_for(sent[0], LONG).unwrap();
        assert_eq!((first.sequence(), first.data()), (sent[0], &[1][..]));
        let mut rest = [2_u8, 3].map(|byte| {
            let response = client.receive_response(LONG).unwrap();
            assert_eq!(response.sequence(), sent[usize::from(byte) - 1]);
            response.data()[0]
        });
        rest.sort_unstable();
        assert_eq!(rest, [2, 3]);
        fails(client.poll_response_for(sent[1], LONG), ErrorKind::UnknownSequence);
        drop((first, client));
        server.stop().unwrap();
    });
}

#[test]
fn closing_a_shared_client_ends_the_calls_of_other_threads() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 4096)).unwrap();
        let client = shared(t.name());
        std::thread::scope(|scope| {
            let calls = scope.spawn(|| client.call(b"x", LONG).map(drop));
            let taken = server.receive(LONG).unwrap();
            let waits = scope.spawn(|| client.receive_response(LONG).map(drop));
            client.close();
            for ended in [calls.join().unwrap(), waits.join().unwrap()] {
                fails(ended, ErrorKind::Closed);
            }
            taken.respond();
        });
        fails(client.send_request(b"x"), ErrorKind::Closed);
        assert!(!client.is_server_connected());
        server
            .start(|frame: &mut Frame<'_>| frame.data_mut().iter_mut().for_each(|b| *b = !*b))
            .unwrap();
        is_served(t.name());
        client.reconnect(LONG).unwrap();
        assert_eq!(client.call(&[9], LONG).unwrap().data(), [246]);
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_shared_client_that_reconnects_says_what_it_had_in_flight() {
    scene(|t| {
        let config = || zerobuffer::ServerConfig::new(BufferConfig::new(64, 4096)).metadata("one");
        let server = Server::create(t.name(), config()).unwrap();
        let client = Client::connect_with(t.name(), LONG, ClientConfig::new()).unwrap();
        let client = client.into_shared();
        assert_eq!(client.server_metadata(), b"one");
        assert!(client.max_request_size() >= 4000);
        let sent = [b"a", b"b"].map(|data| client.send_request(data).unwrap());
        assert_eq!(client.in_flight(), 2);
        drop(server);
        let none = Duration::from_millis(1);
        fails(client.reconnect(none), ErrorKind::NotRunning);
        let mut server = Server::create(t.name(), config().metadata("two")).unwrap();
        let lost = client.reconnect(LONG).unwrap().lost;
        assert_eq!(lost.iter().map(|lost| lost.sequence).collect::<Vec<_>>(), sent);
        assert!(lost.iter().all(|lost| lost.state == RequestState::NotStarted), "{lost:?}");
        assert_eq!((client.server_metadata(), client.in_flight()), (b"two".to_vec(), 0));
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_number_of_a_previous_connection_never_stands_for_a_request_of_the_next() {
    scene(|t| {
        let config = || BufferConfig::new(64, 4096);
        let mut first = Server::create(t.name(), config()).unwrap();
        let client = shared(t.name());
        let old = [b"a", b"b", b"c"].map(|data| client.send_request(data).unwrap());
        first.receive(LONG).unwrap().respond();
        drop(client.receive_response_for(old[0], LONG).unwrap());
        let in_hand = first.receive(LONG).unwrap().into_owned();
        drop(first);

        let mut server = Server::create(t.name(), config()).unwrap();
        let lost = client.reconnect(LONG).unwrap().lost;
        assert_eq!(lost.iter().map(|lost| lost.sequence).collect::<Vec<_>>(), old[1..]);
        drop(in_hand);
        let new = [b"d", b"e", b"f"].map(|data| client.send_request(data).unwrap());
        assert_eq!(new, [4, 5, 6]);
        for data in [b"d", b"e", b"f"] {
            let mut request = server.receive(LONG).unwrap();
            assert_eq!(request.data(), data);
            request.data_mut().make_ascii_uppercase();
            request.respond();
        }
        assert!(!client.cancel(old[1]));
        for (sequence, state) in
            [(old[1], RequestState::InDoubt), (old[2], RequestState::NotStarted)]
        {
            let error = client.poll_response_for(sequence, LONG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PeerClosed);
            assert_eq!(error.lost_request(), Some(LostRequest { sequence, state }));
        }
        for settled in old {
            for timeout in [Duration::ZERO, LONG] {
                let error = client.receive_response_for(settled, timeout).unwrap_err();
                assert!(
                    matches!(error, Error::UnknownSequence { sequence } if sequence == settled)
                );
            }
        }
        let any = client.receive_response(LONG).unwrap();
        assert_eq!((any.sequence(), any.data()), (new[0], &b"D"[..]));
        let answer = client.receive_response_for(new[1], LONG).unwrap();
        assert_eq!((answer.sequence(), answer.data()), (new[1], &b"E"[..]));
        drop((any, answer));
        assert_eq!(client.receive_response_for(new[2], LONG).unwrap().data(), b"F");
        names_the_new_numbers(&client, &mut server);
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_client_remembers_as_many_lost_requests_as_can_be_in_flight() {
    scene(|t| {
        let server = || Server::create(t.name(), BufferConfig::new(64, 4096)).unwrap();
        let mut first = server();
        // A power of two of them.
        let config = ClientConfig::new().max_in_flight(3);
        let client = Client::connect_with(t.name(), LONG, config).unwrap().into_shared();
        let mut lost = Vec::new();
        for _ in 0..2 {
            lost.extend([b"a", b"b", b"c", b"d"].map(|data| client.send_request(data).unwrap()));
            drop(first);
            first = server();
            assert_eq!(client.reconnect(LONG).unwrap().lost.len(), 4);
        }
        let kinds = lost.iter().map(|sequence| client.receive_response_for(*sequence, LONG));
        let kinds: Vec<_> = kinds.map(|outcome| outcome.unwrap_err().kind()).collect();
        let (forgotten, known) = (ErrorKind::UnknownSequence, ErrorKind::PeerClosed);
        assert_eq!(kinds, [[forgotten; 4], [known; 4]].concat());
        drop(client);
        first.stop().unwrap();
    });
}

/// Waits until another thread is about to reconnect `client`, whose server has ended.
fn until_reconnecting(client: &SharedClient) {
    let probe = || client.reconnect(Duration::ZERO).unwrap_err().kind();
    eventually("another thread reconnects", || probe() == ErrorKind::Timeout);
}

#[test]
fn who_reconnects_second_waits_no_longer_than_its_own_timeout() {
    scene(|t| {
        let server = inverting(t.name());
        let config = ClientConfig::new().resend_not_started(true);
        let client = Client::connect_with(t.name(), LONG, config).unwrap().into_shared();
        drop(server);
        let mut server = std::thread::scope(|scope| {
            let first = scope.spawn(|| client.reconnect(LONG).map(drop));
            until_reconnecting(&client);
            fails(client.call(b"x", Duration::from_millis(20)), ErrorKind::PeerClosed);
            let server = inverting(t.name());
            first.join().unwrap().unwrap();
            server
        });
        assert_eq!(client.call(&[9], LONG).unwrap().data(), [246]);
        drop(client);
        server.stop().unwrap();
    });
}

/// Buffers and errors of a connection that is not a client's first.
fn names_the_new_numbers(client: &SharedClient, server: &mut Server) {
    let mut buffer = client.acquire_request_buffer(8, RequestLayout::new(), LONG).unwrap();
    buffer.data_mut().fill(1);
    let announced = buffer.sequence();
    assert_eq!((announced, buffer.commit().unwrap()), (7, 7));
    server.receive(LONG).unwrap().fail("no");
    match client.receive_response_for(7, LONG).unwrap_err() {
        Error::HandlerFailed { sequence: 7, .. } => {}
        error => panic!("{error:?}"),
    }
    let error = client.receive_response_for(7, LONG).unwrap_err();
    assert!(matches!(error, Error::UnknownSequence { sequence: 7 }), "{error:?}");
    let last = client.send_request(b"x").unwrap();
    assert!(client.cancel(last) && !client.cancel(last));
}

#[test]
fn a_frames_memory_stays_mapped_after_everything_else_is_dropped() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 4096)).unwrap();
        let client = shared(t.name());
        let mut buffer = client.acquire_request_buffer(5, RequestLayout::new(), LONG).unwrap();
        buffer.data_mut().copy_from_slice(b"hello");
        let mut memories = vec![buffer.memory()];
        let announced = buffer.sequence();
        let sequence = buffer.commit().unwrap();
        assert_eq!(announced, sequence);
        let request: OwnedRequest = server.receive(LONG).unwrap().into_owned();
        memories.push(request.memory());
        request.respond();
        let response = client.receive_response_for(sequence, LONG).unwrap();
        memories.push(response.memory());
        drop((response, client));
        server.stop().unwrap();
        drop(server);

        let reader = v1::Reader::create(t.name(), BufferConfig::new(0, 4096)).unwrap();
        let mut writer = v1::Writer::connect(t.name(), LONG).unwrap();
        let mut frame = writer.acquire(5).unwrap();
        frame.data_mut().copy_from_slice(b"hello");
        memories.push(frame.memory());
        frame.commit().unwrap();
        memories.push(reader.read_frame(LONG).unwrap().memory());
        drop((writer, reader));

        let mut server = v1::DuplexServer::create(t.name(), BufferConfig::new(64, 4096)).unwrap();
        server.start_mutable(|_: &mut v1::Draft<'_>| ()).unwrap();
        let client = Client::connect(t.name(), LONG).unwrap();
        let mut buffer = client.acquire_request_buffer(5).unwrap();
        buffer.data_mut().copy_from_slice(b"hello");
        memories.push(buffer.memory());
        let announced = buffer.sequence();
        let sequence = buffer.commit().unwrap();
        assert_eq!(announced, sequence);
        memories.push(client.receive_response_for(sequence, LONG).unwrap().into_owned().memory());
        drop(client);
        server.stop().unwrap();
        drop(server);

        for memory in memories {
            // SAFETY: the view keeps the memory mapped, and nobody writes it any more.
            let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) };
            assert_eq!(bytes, b"hello");
        }
    });
}

#[test]
fn a_buffer_that_outlives_its_client_writes_into_nobody_elses_segment() {
    scene(|t| {
        let mut server = inverting(t.name());
        let outlives = |client: Client| client.acquire_request_buffer(64).unwrap().into_owned();
        let mut former = outlives(t.client());
        let mut next = t.client();
        let sequence = next.send_request(&[1; 64]).unwrap();
        former.data_mut().fill(9);
        let answer = next.receive_response_for(sequence, LONG).unwrap();
        assert_eq!(answer.data(), [254; 64]);
        drop(answer);
        former.data_mut().fill(9);
        fails(former.commit(), ErrorKind::Closed);
        assert_eq!(next.call(&[1], LONG).unwrap().data(), [254]);
        drop(next);
        server.stop().unwrap();
    });
}

#[test]
fn a_buffer_of_a_dead_server_is_not_sent_once_its_client_has_reconnected() {
    scene(|t| {
        let mut server = t.server("");
        let client = t.client().into_shared();
        let buffer = client.acquire_request_buffer(8, RequestLayout::new(), LONG).unwrap();
        t.kill(server);
        t.expect_leftovers();
        server = t.server("");
        client.reconnect(LONG).unwrap();
        fails(buffer.commit(), ErrorKind::InvalidState);
        drop(client);
        server.stop();
    });
}
