//! Who closes an object ends every wait in it, whatever thread that is on.

use crate::harness::{LONG, Scene, eventually, fails, scene};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Closer, ErrorKind, OwnedResponse, RequestLayout, Result,
    Server, SharedClient, WaitStrategy,
};
use zerobuffer_test_support::Sleeper;

const FOR_EVER: Duration = Duration::MAX;

/// Runs `wait` on its own thread, closes once it has begun, and returns how it ended.
fn closed_while<T: Send>(closer: &Closer, wait: impl FnOnce() -> Result<T> + Send) -> ErrorKind {
    let sleeper = Sleeper::default();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            sleeper.enters();
            wait().map(drop)
        });
        sleeper.expect_sleep();
        closer.close();
        waiting.join().unwrap().unwrap_err().kind()
    })
}

/// A server that answers nothing, and takes nothing.
fn silent(t: &Scene) -> Server {
    Server::create(t.name(), BufferConfig::new(0, 4096)).unwrap()
}

#[test]
fn a_close_ends_the_wait_of_a_client_in_each_of_its_calls() {
    scene(|t| {
        let waits: [fn(&mut Client) -> Result<()>; 5] = [
            |client| client.call(b"x", FOR_EVER).map(drop),
            |client| client.receive_response(FOR_EVER).map(drop),
            |client| {
                let sequence = client.send_request(b"x")?;
                client.receive_response_for(sequence, FOR_EVER).map(drop)
            },
            |client| (0..).try_for_each(|_| client.send_request(&[0; 1000]).map(drop)),
            |client| {
                let _first = client.send_request(&[0; 2000])?;
                client.acquire_request_buffer(3000).map(drop)
            },
        ];
        for strategy in [WaitStrategy::SpinThenPark, WaitStrategy::Park, WaitStrategy::Spin] {
            for wait in waits {
                let _server = silent(t);
                let config = ClientConfig::new().wait(strategy).send_timeout(FOR_EVER);
                let mut client = t.client_with(config);
                let closer = client.closer();
                assert!(!closer.is_closed());
                assert_eq!(closed_while(&closer, || wait(&mut client)), ErrorKind::Closed);
                assert!(closer.is_closed() && !client.is_server_connected());
                fails(client.call(b"x", FOR_EVER), ErrorKind::Closed);
                fails(client.send_request(b"x"), ErrorKind::Closed);
                fails(client.acquire_request_buffer(1), ErrorKind::Closed);
                fails(client.receive_response(FOR_EVER), ErrorKind::Closed);
                fails(client.receive_response_for(1, Duration::ZERO), ErrorKind::Closed);
                fails(client.reconnect(FOR_EVER), ErrorKind::Closed);
                closer.close();
                drop(client);
                closer.close();
            }
        }
    });
}

#[test]
fn a_close_ends_a_reconnection_that_waits_for_a_server() {
    scene(|t| {
        let server = silent(t);
        let config = || ClientConfig::new().resend_not_started(true);
        let mut client = t.client_with(config());
        drop(server);
        let closer = client.closer();
        assert_eq!(closed_while(&closer, || client.reconnect(FOR_EVER)), ErrorKind::Closed);
        let server = silent(t);
        let mut client = t.client_with(config());
        drop(server);
        let closer = client.closer();
        let called = closed_while(&closer, || client.call(b"x", FOR_EVER).map(drop));
        assert_eq!(called, ErrorKind::Closed);
    });
}

#[test]
fn a_buffer_of_a_closed_client_is_not_sent() {
    scene(|t| {
        let mut server = silent(t);
        let client = t.client();
        let owned = client.acquire_request_buffer(8).unwrap().into_owned();
        client.closer().close();
        fails(owned.commit(), ErrorKind::Closed);
        let client_of_one_thread = client;
        drop(client_of_one_thread);
        fails(server.receive(Duration::ZERO), ErrorKind::Timeout);
        let client = t.client();
        let buffer = client.acquire_request_buffer(8).unwrap();
        client.closer().close();
        fails(buffer.commit(), ErrorKind::Closed);
    });
}

type Wait = fn(&SharedClient) -> Result<Option<OwnedResponse>>;

/// Five threads, each waiting in another way, one of them with everybody's turn to send in its hands.
#[test]
fn a_close_ends_the_waits_of_all_threads_of_a_shared_client() {
    scene(|t| {
        let waits: [Wait; 5] = [
            |client| client.call(b"x", FOR_EVER).map(Some),
            |client| client.receive_response(FOR_EVER).map(Some),
            |client| client.send_request_within(&[0; 4000], FOR_EVER).map(|_| None),
            |client| client.acquire_request_buffer(9, RequestLayout::new(), FOR_EVER).map(|_| None),
            |client| client.poll_response_for(1, FOR_EVER).map(Some),
        ];
        for (strategy, for_good) in [
            (WaitStrategy::SpinThenPark, true),
            (WaitStrategy::Park, false),
            (WaitStrategy::Spin, false),
        ] {
            let mut server = silent(t);
            let client = t.client_with(ClientConfig::new().wait(strategy)).into_shared();
            assert_eq!(client.send_request(b"first").unwrap(), 1);
            // A thread that sends now waits for this.
            let open = client.acquire_request_buffer(8, RequestLayout::new(), LONG).unwrap();
            let sleepers: Vec<_> = (0..2 * waits.len()).map(|_| Sleeper::default()).collect();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..2)
                    .flat_map(|_| waits)
                    .zip(&sleepers)
                    .map(|(wait, sleeper)| {
                        let client = client.clone();
                        scope.spawn(move || {
                            sleeper.enters();
                            wait(&client)
                        })
                    })
                    .collect();
                sleepers.iter().for_each(Sleeper::expect_sleep);
                match for_good {
                    true => client.closer().close(),
                    false => client.close(),
                }
                for thread in threads {
                    fails(thread.join().unwrap(), ErrorKind::Closed);
                }
            });
            fails(open.commit(), ErrorKind::Closed);
            for wait in waits {
                fails(wait(&client), ErrorKind::Closed);
            }
            server.start(|_: &mut zerobuffer::Frame<'_>| {}).unwrap();
            assert_eq!(client.reconnect(LONG).is_err(), for_good);
            assert_eq!(client.is_server_connected(), !for_good);
        }
    });
}

#[test]
fn a_close_ends_the_wait_of_a_server_for_a_request() {
    scene(|t| {
        for attached in [false, true] {
            let mut server = silent(t);
            let client = attached.then(|| t.client());
            let closer = server.closer();
            let received = closed_while(&closer, || server.receive(FOR_EVER).map(drop));
            assert_eq!(received, ErrorKind::Closed);
            fails(server.receive(FOR_EVER), ErrorKind::Closed);
            assert!(closer.is_closed());
            drop(client);
            server.stop().unwrap();
            drop(server);
            assert!(closer.is_closed());
            closer.close();
        }
    });
}

#[test]
fn a_close_ends_the_background_threads_of_a_server() {
    scene(|t| {
        let config = zerobuffer::ServerConfig::new(BufferConfig::new(0, 4096)).workers(3);
        let mut server = Server::create(t.name(), config).unwrap();
        server.start(|frame: &mut zerobuffer::Frame<'_>| frame.data_mut().reverse()).unwrap();
        let mut client = t.client();
        assert_eq!(client.call(b"ab", LONG).unwrap().data(), b"ba");
        server.closer().close();
        eventually("its threads end", || !server.is_running());
        server.stop().unwrap();
        fails(client.call(b"ab", LONG), ErrorKind::PeerClosed);
    });
}
