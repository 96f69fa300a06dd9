//! Reconnections beside other threads: what is sent is in a list or refused, a number is one request's,
//! and what was closed stays closed.

use crate::harness::{LONG, Scene, eventually, fails, scene};
use crate::work;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, Reconnected, RequestLayout,
    RequestState, Result, Server,
};
use zerobuffer_test_support::Sleeper;

fn counting(t: &Scene) -> Server {
    let mut server = Server::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
    server.start(|frame: &mut Frame<'_>| frame.data_mut()[0] += 1).unwrap();
    server
}

/// All numbers that the report speaks of as the former connection's.
fn listed(report: &Reconnected) -> HashSet<u64> {
    let resent = report.resent.iter().map(|(former, _)| *former);
    resent.chain(report.lost.iter().map(|lost| lost.sequence)).collect()
}

/// Either it was sent, and is in the list, or it was refused.
fn is_listed_or_refused(report: &Reconnected, committed: Result<u64>) {
    match committed {
        Ok(number) => assert!(listed(report).contains(&number), "{number} is not in {report:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidState, "{error:?}"),
    }
}

#[test]
fn a_call_that_meets_another_threads_reconnection_is_sent_on_the_new_connection() {
    scene(|t| {
        let server = Server::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
        let client = t.client().into_shared();
        let (inside, is_inside) = channel();
        let (go, goes) = channel();
        let shared = &client;
        std::thread::scope(|scope| {
            let call = scope.spawn(move || {
                let mut fills = 0;
                let answer = shared.call_with(
                    1,
                    RequestLayout::new(),
                    |to| {
                        fills += 1;
                        to[0] = 1;
                        if fills == 1 {
                            inside.send(()).unwrap();
                            goes.recv().unwrap();
                        }
                    },
                    LONG,
                );
                answer.map(|answer| (answer.data()[0], fills))
            });
            is_inside.recv().unwrap();
            // Waits for its turn to send, behind the other one.
            let queued = scope.spawn(|| client.send_request_within(&[5], LONG));
            let late = scope.spawn(|| client.acquire_request_buffer(1, RequestLayout::new(), LONG));
            drop(server);
            let _server = counting(t);
            client.reconnect(LONG).unwrap();
            let mut buffer = late.join().unwrap().unwrap();
            buffer.data_mut()[0] = 7;
            let number = buffer.commit().unwrap();
            assert_eq!(client.receive_response_for(number, LONG).unwrap().data(), [8]);
            let number = queued.join().unwrap().unwrap();
            assert_eq!(client.receive_response_for(number, LONG).unwrap().data(), [6]);
            go.send(()).unwrap();
            assert_eq!(call.join().unwrap().unwrap(), (2, 2), "filled twice, sent once");
        });
    });
}

#[test]
fn what_a_callers_code_sends_while_it_fills_a_request_is_refused_at_once() {
    scene(|t| {
        let _server = counting(t);
        let client = t.client().into_shared();
        let forever = Duration::MAX;
        let layout = RequestLayout::new();
        let nested = |to: &mut [u8]| {
            fails(client.call(&[1], forever), ErrorKind::ClaimOpen);
            fails(client.send_request_within(&[1], forever), ErrorKind::ClaimOpen);
            fails(client.acquire_request_buffer(1, layout, forever), ErrorKind::ClaimOpen);
            to[0] = 1;
        };
        assert_eq!(client.call_with(1, layout, nested, LONG).unwrap().data(), [2]);
        assert_eq!(client.call(&[2], LONG).unwrap().data(), [3]);
    });
}

/// The new server has room for one of the two requests that are sent again, so the reconnection takes
/// time, and a third one is committed meanwhile.
#[test]
fn a_request_that_is_committed_while_its_client_reconnects_is_in_the_list_or_refused() {
    scene(|t| {
        let server = Server::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
        let config = ClientConfig::new().resend_not_started(true);
        let mut client = Client::connect_with(t.name(), LONG, config).unwrap();
        let sent = [10, 20].map(|fill| client.send_request(&[fill; 40]).unwrap());
        let mut buffer = client.acquire_request_buffer(40).unwrap().into_owned();
        buffer.data_mut().fill(30);
        drop(server);
        let mut server = Server::create(t.name(), BufferConfig::new(0, 128)).unwrap();
        let (report, committed) = std::thread::scope(|scope| {
            let reconnected = scope.spawn(|| client.reconnect(Duration::from_millis(300)));
            eventually("it is attached", || server.is_client_connected());
            // It waits for room now, or is about to.
            std::thread::sleep(Duration::from_millis(50));
            let committed = buffer.commit();
            (reconnected.join().unwrap().unwrap(), committed)
        });
        assert!(listed(&report).is_superset(&sent.into()), "{report:?}");
        is_listed_or_refused(&report, committed);
        assert_eq!(report.resent.len(), 1);
        let again = report.resent[0].1;
        assert!(again > sent[1], "a number of its own: {report:?}");
        server.start(|frame: &mut Frame<'_>| frame.data_mut()[0] += 1).unwrap();
        for old in sent {
            let asked = client.receive_response_for(old, LONG);
            assert!(matches!(asked, Err(Error::UnknownSequence { sequence }) if sequence == old));
        }
        assert_eq!(client.receive_response_for(again, LONG).unwrap().data()[..2], [11, 10]);
        let next = client.send_request(&[40; 40]).unwrap();
        assert!(next > again);
        assert_eq!(client.receive_response_for(next, LONG).unwrap().data()[0], 41);
    });
}

/// Over and over, with a server that lives: the former connection is listed and closed while another
/// thread commits to it.
#[test]
fn no_request_is_forgotten_between_the_list_and_the_end_of_a_connection() {
    scene(|t| {
        let _server = counting(t);
        let mut client = t.client();
        let mut numbers = HashSet::new();
        let start = Instant::now();
        let mut round = 0_u32;
        while start.elapsed() < Duration::from_secs(2) * work::factor() {
            round += 1;
            let buffer = client.acquire_request_buffer(8).unwrap().into_owned();
            let go = AtomicBool::new(false);
            let (report, committed) = std::thread::scope(|scope| {
                let committing = scope.spawn(|| {
                    while !go.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                    (0..round * 37 % 4000).for_each(|_| std::hint::spin_loop());
                    buffer.commit()
                });
                go.store(true, Ordering::Relaxed);
                (client.reconnect(LONG).unwrap(), committing.join().unwrap())
            });
            if let Ok(number) = committed {
                assert!(numbers.insert(number), "{number} stands for two requests");
            }
            is_listed_or_refused(&report, committed);
            assert!(report.lost.iter().all(|lost| lost.state == RequestState::InDoubt));
        }
    });
}

#[test]
fn a_closed_client_stays_closed_until_its_owner_reconnects() {
    scene(|t| {
        let _server = counting(t);
        let config = ClientConfig::new().resend_not_started(true);
        let client = t.client_with(config).into_shared();
        for _ in 0..20 {
            assert_eq!(client.call(&[1], LONG).unwrap().data(), [2]);
            client.close();
            fails(client.call(&[1], LONG), ErrorKind::Closed);
            fails(client.send_request(&[1]), ErrorKind::Closed);
            fails(client.receive_response(LONG), ErrorKind::Closed);
            assert!(!client.is_server_connected());
            client.reconnect(LONG).unwrap();
        }
    });
}

/// The server takes nothing and goes, so that calls send again what was not started, when the client is
/// closed: no call, and no reconnection that is under way, opens it again.
#[test]
fn a_close_is_not_undone_by_a_call_or_a_reconnection_under_way() {
    scene(|t| {
        for round in 0..10 {
            let server = Server::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
            let config = ClientConfig::new().resend_not_started(true);
            let client = t.client_with(config).into_shared();
            let sleepers: [Sleeper; 4] = Default::default();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|number| {
                        let (client, sleepers) = (&client, &sleepers);
                        scope.spawn(move || {
                            sleepers[usize::from(number)].enters();
                            match number {
                                0 => client.reconnect(LONG).map(drop),
                                _ => client.call(&[number], LONG).map(drop),
                            }
                        })
                    })
                    .collect();
                sleepers.iter().for_each(Sleeper::expect_sleep);
                drop(server);
                std::thread::sleep(Duration::from_millis(round));
                client.close();
                let _server = counting(t);
                let mut ends = threads.into_iter().map(|thread| thread.join().unwrap());
                // It may have found nothing to do before the server went.
                let _reconnected = ends.next();
                for end in ends {
                    fails(end, ErrorKind::Closed);
                }
                assert!(!client.is_server_connected());
                fails(client.call(&[1], LONG), ErrorKind::Closed);
                client.reconnect(LONG).unwrap();
                assert_eq!(client.call(&[1], LONG).unwrap().data(), [2]);
            });
        }
    });
}

/// How many threads sleep until an answer comes: the upper half of the semaphore's word.
fn sleepers(t: &Scene) -> u32 {
    let semaphore = File::open(format!("/dev/shm/sem.sem-response-ready-{}", t.name())).unwrap();
    let mut count = [0; 4];
    semaphore.read_exact_at(&mut count, 4).unwrap();
    u32::from_le_bytes(count)
}

/// One thread finds an answer that cannot be; the others, which wait for good ones, hear of it, and do not
/// send theirs again.
#[test]
fn a_violation_ends_the_waits_of_all_threads() {
    scene(|t| {
        let server = Server::create(t.name(), BufferConfig::new(0, 4096)).unwrap();
        let client = t.client().into_shared();
        let violation = ErrorKind::ProtocolViolation;
        let [first, second] = [1, 2].map(|fill| client.send_request(&[fill]).unwrap());
        std::thread::scope(|scope| {
            let leads = scope.spawn(|| client.receive_response_for(first, LONG).map(drop));
            eventually("it waits", || sleepers(t) > 0);
            let follows = scope.spawn(|| client.receive_response_for(first, LONG).map(drop));
            // No state that a request can have: behind the control part, in the second slot.
            let path = format!("/dev/shm/{}_duplex", t.name());
            let segment = File::options().write(true).open(path).unwrap();
            segment.write_all_at(&[0xff; 8], 4096 + 64 + 16).unwrap();
            fails(client.receive_response_for(second, LONG), violation);
            fails(leads.join().unwrap(), violation);
            fails(follows.join().unwrap(), violation);
        });
        drop(server);
    });
}

/// As an open buffer of a client of one thread: it stays readable and writable, and is not sent.
#[test]
fn an_open_buffer_does_not_keep_the_channel_from_the_next_client() {
    scene(|t| {
        let _server = counting(t);
        let client = t.client().into_shared();
        let buffer = client.acquire_request_buffer(1, RequestLayout::new(), LONG).unwrap();
        drop(client);
        let mut next = Client::connect(t.name(), LONG).unwrap();
        assert_eq!(next.call(&[1], LONG).unwrap().data(), [2]);
        fails(buffer.commit(), ErrorKind::Closed);
    });
}
