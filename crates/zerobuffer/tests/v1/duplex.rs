//! Requests and responses over two buffers, in one process. `Reader` and `Writer` play the existing
//! peers that do what ours do not.

use crate::clients::{connect, two_buffers};
use crate::support::{LONG, SOON, Unique, field, peek, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::v1::{self, Draft, DuplexServer, Reader, Reply, RequestView, Writer};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind, Result, ServerConfig};

fn ring() -> BufferConfig {
    BufferConfig::new(256, 1 << 16)
}

fn echo(name: &str) -> DuplexServer {
    let mut server = DuplexServer::create(name, ring()).unwrap();
    server
        .start_immutable(|request: &RequestView, reply: &mut Reply| reply.write(request.data()))
        .unwrap();
    server
}

/// Scenarios 13.1 and 13.7: sizes, in place and by copy.
#[test]
fn echoes_of_all_sizes_come_back() {
    let name = Unique::new("echo");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 1 << 20)).unwrap();
    server
        .start_immutable(|request: &RequestView, reply: &mut Reply| reply.write(request.data()))
        .unwrap();
    assert!(server.is_running());
    let mut client = connect(&name, LONG).unwrap();
    assert!(client.is_server_connected());
    until("the client", || server.is_client_connected());
    for (index, size) in [1, 1024, 102_400, 500_000].into_iter().enumerate() {
        let bytes = vec![index as u8 + 1; size];
        let response = client.call(&bytes, LONG).unwrap();
        assert!(response.data() == bytes && response.len() == size);
        assert_eq!(response.sequence(), 2 * index as u64 + 1);
        drop(response);
        let mut buffer = client.acquire_request_buffer(size).unwrap();
        assert_eq!(client.send_request(b"x").unwrap_err().kind(), ErrorKind::ClaimOpen);
        buffer.data_mut().copy_from_slice(&bytes);
        assert_eq!(buffer.commit().unwrap(), 2 * index as u64 + 2);
        assert!(client.receive_response(LONG).unwrap().data() == bytes);
    }
    drop(client.acquire_request_buffer(10).unwrap());
    assert_eq!((client.in_flight(), server.statistics().requests), (0, 8));
    server.stop().unwrap();
    assert!(!server.is_running());
}

/// A server that is stopping is still there when its client, which has seen the end, connects again.
#[test]
fn a_client_of_a_server_that_went_away_reaches_the_next_one() {
    let name = Unique::new("successor");
    let request_name = format!("{}_request", &*name);
    let stopping = Reader::create(&request_name, ring()).unwrap();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect(&name, LONG));
        until("the client", || stopping.is_writer_connected());
        drop(stopping);
        let _server = echo(&name);
        let mut client = client.join().unwrap().unwrap();
        assert_eq!(client.call(b"hello", LONG).unwrap().data(), b"hello");
    });
}

/// Scenario 13.8, and what `mutable` means in version 1: the request stays, its copy is edited.
#[test]
fn a_mutable_handler_edits_a_copy() {
    let name = Unique::new("mutable");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    server
        .start_mutable(|draft: &mut Draft| {
            let key = draft.metadata()[0];
            draft.data_mut().iter_mut().for_each(|byte| *byte ^= key);
        })
        .unwrap();
    let config = two_buffers().metadata([0x55]);
    let mut client = Client::connect_with(&name, LONG, config).unwrap();
    let response = client.call(&[0x0f; 100], LONG).unwrap();
    assert_eq!(response.data(), [0x5a; 100]);
    let request = crate::support::ring(&format!("{}_request", &*name), 16, 100);
    assert_eq!(request, [0x0f; 100], "the request's own bytes are as sent");
}

/// Rule X1, scenarios 13.2 and 13.3: pipelined requests, answers in order, each to its own.
#[test]
fn x1_pipelined_requests_are_answered_in_their_order() {
    let name = Unique::new("pipeline");
    let _server = echo(&name);
    let client = connect(&name, LONG).unwrap();
    for round in 0..20_u64 {
        let sent: Vec<u64> = (0..20)
            .map(|index| client.send_request(&(round * 20 + index).to_le_bytes()).unwrap())
            .collect();
        assert_eq!(client.in_flight(), 20);
        let held: Vec<_> = (0..20).map(|_| client.receive_response(LONG).unwrap()).collect();
        for (index, (sequence, response)) in sent.iter().zip(&held).enumerate() {
            assert_eq!(response.sequence(), *sequence);
            assert_eq!(response.data(), (round * 20 + index as u64).to_le_bytes());
        }
    }
    // Out of order by request: the ones between are kept.
    let sent: Vec<u64> = (0..5_u8).map(|n| client.send_request(&[n]).unwrap()).collect();
    assert_eq!(client.receive_response_for(sent[3], LONG).unwrap().data(), [3]);
    assert_eq!(client.receive_response_for(sent[1], LONG).unwrap().data(), [1]);
    assert_eq!(client.receive_response(LONG).unwrap().data(), [0]);
    assert_eq!(client.receive_response(LONG).unwrap().into_owned().data(), [2]);
    assert_eq!(client.receive_response(LONG).unwrap().data(), [4]);
    let error = client.receive_response_for(sent[3], LONG).unwrap_err();
    assert!(matches!(error, Error::UnknownSequence { .. }));
}

/// Rule X1: without a response to send instead, a failing handler ends the channel; the client learns
/// it at once, and a new one is served.
#[test]
fn x1_a_failing_handler_closes_the_channel() {
    let name = Unique::new("failing");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    server
        .start_immutable(
            |request: &RequestView, reply: &mut Reply| -> std::result::Result<(), String> {
                match request.data() {
                    b"error" => return Err("no".to_owned()),
                    b"panic" => panic!("of course"),
                    b"silence" => {}
                    b"half" => drop(reply.acquire(10)),
                    b"empty" => return reply.write(&[]).map_err(|error| error.to_string()),
                    b"twice" => {
                        reply.write(b"once").unwrap();
                        assert_eq!(reply.write(b"x").unwrap_err().kind(), ErrorKind::InvalidState);
                    }
                    b"too long" => {
                        return reply.write(&vec![1; 40 << 20]).map_err(|e| e.to_string());
                    }
                    other => reply.write(other).unwrap(),
                }
                Ok(())
            },
        )
        .unwrap();
    let failing = ["error", "panic", "silence", "empty", "too long"];
    for request in failing {
        let mut client = connect(&name, LONG).unwrap();
        assert_eq!(client.call(b"twice", LONG).unwrap().data(), b"once");
        let next = client.send_request(b"before");
        let start = Instant::now();
        assert!(next.is_ok());
        let failed = client.send_request(request.as_bytes()).unwrap();
        assert_eq!(client.receive_response(LONG).unwrap().data(), b"before");
        let error = client.receive_response(LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed, "{request}");
        assert_eq!(error.lost_request().unwrap().sequence, failed);
        assert!(start.elapsed() < SOON);
        until("the end of the requests", || {
            client.send_request(b"x").is_err_and(|e| e.kind() == ErrorKind::PeerClosed)
        });
    }
    assert_eq!(server.statistics().failures, failing.len() as u64);
    assert!(server.is_running());
}

/// Rule X1: with one, exactly one response goes out for each request, and the pairs stay.
#[test]
fn x1_a_failure_response_keeps_the_pairs_together() {
    let name = Unique::new("failure-response");
    let config = ServerConfig::new(ring())
        .failure_response(|message| format!("failed: {message}").into_bytes());
    let mut server = DuplexServer::create(&name, config).unwrap();
    server
        .start_mutable(|draft: &mut Draft| match draft.data()[0] {
            0 => Err("zero"),
            1 => panic!("one"),
            _ => {
                draft.data_mut()[0] += 1;
                Ok(())
            }
        })
        .unwrap();
    let mut client = connect(&name, LONG).unwrap();
    for round in 0..30_u8 {
        let expected = match round % 3 {
            0 => b"failed: zero".to_vec(),
            1 => b"failed: one".to_vec(),
            _ => vec![3],
        };
        assert_eq!(client.call(&[round % 3], LONG).unwrap().data(), expected);
    }
    let header = peek(&format!("{}_response", &*name), field::WRITTEN_COUNT);
    assert!(header >= 30);
    assert_eq!(server.statistics().failures, 20);
}

/// Rule X1: a request that was cancelled is exposed, its late response swallowed, and the next call
/// gets its own.
#[test]
fn x1_a_late_response_is_swallowed_and_shown() {
    let name = Unique::new("late");
    let slow = Arc::new(AtomicBool::new(true));
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    let be_slow = Arc::clone(&slow);
    server
        .start_mutable(move |_: &mut Draft| {
            while be_slow.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        })
        .unwrap();
    let mut client = connect(&name, LONG).unwrap();
    let start = Instant::now();
    let error = client.call(b"first", Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    assert!(client.is_desynchronised());
    let second = client.send_request(b"second").unwrap();
    assert!(client.cancel(second) && !client.cancel(second));
    slow.store(false, Ordering::Relaxed);
    assert_eq!(client.call(b"third", LONG).unwrap().data(), b"third");
    assert!(!client.is_desynchronised());
    // Also where any response will do.
    slow.store(true, Ordering::Relaxed);
    assert!(client.call(b"cancelled", Duration::from_millis(10)).is_err());
    let next = client.send_request(b"next").unwrap();
    slow.store(false, Ordering::Relaxed);
    let response = client.receive_response(LONG).unwrap();
    assert_eq!((response.sequence(), response.data()), (next, &b"next"[..]));
    drop(response);
    // A look gives nothing up.
    slow.store(true, Ordering::Relaxed);
    let fourth = client.send_request(b"fourth").unwrap();
    assert!(client.receive_response_for(fourth, Duration::ZERO).is_err());
    slow.store(false, Ordering::Relaxed);
    assert_eq!(client.receive_response_for(fourth, LONG).unwrap().data(), b"fourth");
}

/// A server such as those of existing v1 programs: the test reads requests and writes responses as it likes.
struct Existing {
    requests: Reader,
    name: String,
}

impl Existing {
    fn new(name: &str) -> Self {
        let requests = Reader::create(&format!("{name}_request"), ring()).unwrap();
        Self { requests, name: name.to_owned() }
    }

    fn responses(&self) -> Writer {
        Writer::connect(&format!("{}_response", self.name), LONG).unwrap()
    }

    fn take(&self) -> Vec<u8> {
        self.requests.read_frame(LONG).unwrap().data().to_vec()
    }
}

/// Rule X1 with an existing server whose handler sends more than it should.
#[test]
fn x1_a_response_that_nobody_asked_for_ends_the_pairing() {
    let name = Unique::new("surplus");
    let server = Existing::new(&name);
    let sent = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = connect(&name, LONG).unwrap();
            assert_eq!(client.call(b"one", LONG).unwrap().data(), b"one");
            assert!(!client.is_desynchronised());
            sent.wait();
            let error = client.send_request(b"two").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Desynchronised);
            assert!(client.is_desynchronised());
            let error = client.send_request(b"three").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Desynchronised);
        });
        let mut responses = server.responses();
        server.take();
        responses.write_frame(b"one").unwrap();
        responses.write_frame(b"and one more").unwrap();
        sent.wait();
        client.join().unwrap();
    });
}

/// Rules X2 and X3: the client attaches to the requests first, then its response buffer is there within
/// milliseconds, and it sends nothing before the server has attached to that.
#[test]
fn x2_x3_a_client_announces_itself_in_order_and_waits_for_its_server() {
    let name = Unique::new("order");
    let server = Existing::new(&name);
    let response_buffer = format!("/dev/shm/{}_response", &*name);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = connect(&name, LONG).unwrap();
            client.call(b"request", LONG).unwrap().data().to_vec()
        });
        server.requests.wait_for_writer(LONG).unwrap();
        let start = Instant::now();
        until("the response buffer", || std::fs::exists(&response_buffer).unwrap());
        assert!(start.elapsed() < SOON);
        let error = server.requests.read_frame(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "nothing before the server has attached");
        let mut responses = server.responses();
        assert_eq!(server.take(), b"request");
        responses.write_frame(b"response").unwrap();
        assert_eq!(client.join().unwrap(), b"response");
    });
}

/// Rule X3: a server that looks alive and never attaches is not taken for one.
#[test]
fn x3_a_server_that_does_not_answer_is_not_running() {
    let name = Unique::new("mute");
    let error = connect(&name, Duration::from_millis(30)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    assert!(!v1::is_duplex_server_running(&name).unwrap());
    let server = Existing::new(&name);
    assert!(v1::is_duplex_server_running(&name).unwrap());
    let error = connect(&name, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    assert_eq!(peek(&format!("{}_request", &*name), field::WRITER_PID), 0, "undone");
    drop(server);
}

/// Rule X2: the server creates its buffer in `create`, and waits for a client without limit.
#[test]
fn x2_a_server_is_there_at_once_and_waits() {
    let name = Unique::new("patient");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    assert!(std::fs::exists(format!("/dev/shm/{}_request", &*name)).unwrap());
    assert!(!server.is_running());
    server.start_mutable(|_: &mut Draft| {}).unwrap();
    let error = server.start_mutable(|_: &mut Draft| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.is_running() && !server.is_client_connected());
    let error = DuplexServer::create(&name, ring()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"x", LONG).unwrap().data(), b"x");
}

/// Rule X4: one client after the other, each with its own metadata, in one process or several.
#[test]
fn x4_one_client_after_the_other_is_served() {
    let name = Unique::new("clients");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    server
        .start_immutable(|request: &RequestView, reply: &mut Reply| reply.write(request.metadata()))
        .unwrap();
    for round in 0..10_u8 {
        let metadata = vec![round + 1; 1 + round as usize];
        let config = two_buffers().metadata(metadata.clone());
        let mut client = Client::connect_with(&name, LONG, config).unwrap();
        assert_eq!(client.call(b"who?", LONG).unwrap().data(), metadata);
        let error = connect(&name, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        // Requests left behind are not answered to the next client.
        client.send_request(b"left behind").unwrap();
    }
    assert_eq!(server.statistics().clients, 10);
}

/// Rule X4: what a former client said about itself is not taken for the next one's.
#[test]
fn x4_a_client_without_metadata_does_not_inherit_any() {
    let name = Unique::new("inherit");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    server
        .start_immutable(|request: &RequestView, reply: &mut Reply| {
            reply.write(&[request.metadata().len() as u8])
        })
        .unwrap();
    for _ in 0..10 {
        let config = two_buffers().metadata([7; 7]);
        let mut client = Client::connect_with(&name, LONG, config).unwrap();
        assert_eq!(client.call(b"who?", LONG).unwrap().data(), [7]);
        drop(client);
        let mut client = connect(&name, LONG).unwrap();
        assert_eq!(client.call(b"who?", LONG).unwrap().data(), [0]);
    }
}

/// Rule X4: an existing C++ server stays attached to the response buffer of its first client, whose metadata stay, too.
#[test]
fn x4_a_later_client_of_a_server_that_serves_one_is_told_what_to_do() {
    let name = Unique::new("once");
    let server = Existing::new(&name);
    let described = || two_buffers().metadata([7; 7]);
    let first = std::thread::scope(|scope| {
        let client = scope.spawn(|| Client::connect_with(&name, LONG, described()).unwrap());
        server.requests.wait_for_writer(LONG).unwrap();
        let responses = server.responses();
        (client.join().unwrap(), responses)
    });
    let (client, _responses) = first;
    drop(client);
    let patience = Duration::from_millis(50);
    let error = Client::connect_with(&name, patience, described()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MetadataAlreadyWritten);
    let words = [&*name, "a previous client's metadata", "start it again"];
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in: {text}"));
    let error = connect(&name, patience).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    assert!(error.to_string().contains("serves one client"), "{error}");
}

/// Rule X5: what is in flight is bounded by the response buffer.
#[test]
fn x5_requests_in_flight_are_bounded_by_the_response_buffer() {
    let name = Unique::new("bounded");
    let _server = echo(&name);
    let config = two_buffers().response_buffer(BufferConfig::new(0, 4096));
    let client = Client::connect_with(&name, LONG, config.clone()).unwrap();
    for _ in 0..2 {
        client.send_request(&[1; 1000]).unwrap();
    }
    let error = client.send_request(&[1; 1000]).unwrap_err();
    assert!(matches!(error, Error::Full { needed: 1016, free: 16, in_flight: 2, .. }), "{error}");
    client.receive_response(LONG).unwrap();
    client.send_request(&[1; 1000]).unwrap();
    drop(client);
    let client = Client::connect_with(&name, LONG, config.max_in_flight(1)).unwrap();
    client.send_request(b"x").unwrap();
    assert_eq!(client.send_request(b"x").unwrap_err().kind(), ErrorKind::Full);
}

/// Scenario 13.6: a full response ring holds our server up, and it goes on when there is room.
#[test]
fn a_full_response_ring_blocks_the_server_until_there_is_room() {
    let name = Unique::new("blocked");
    let config = ServerConfig::new(ring()).stop_timeout(LONG);
    let mut server = DuplexServer::create(&name, config).unwrap();
    server.start_immutable(|_: &RequestView, reply: &mut Reply| reply.write(&[9; 1500])).unwrap();
    let config = two_buffers().response_buffer(BufferConfig::new(0, 4096));
    let client = Client::connect_with(&name, LONG, config).unwrap();
    for _ in 0..10 {
        client.send_request(b"x").unwrap();
    }
    until("a full ring", || server.statistics().responses == 2);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.statistics().responses, 2);
    for sequence in 1..=10 {
        let response = client.receive_response(LONG).unwrap();
        assert_eq!((response.sequence(), response.len()), (sequence, 1500));
    }
    // And a blocked server can be stopped.
    for _ in 0..10 {
        client.send_request(b"x").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < SOON);
}

/// Rule X6: the response buffer's size is the client's choice, and modest by default.
#[test]
fn x6_the_response_buffer_is_configurable() {
    let name = Unique::new("response-size");
    let _server = echo(&name);
    let size = || std::fs::metadata(format!("/dev/shm/{}_response", &*name)).unwrap().len();
    let client = connect(&name, LONG).unwrap();
    assert_eq!(size(), 128 + 4096 + (32 << 20));
    drop(client);
    let config = two_buffers().response_buffer(BufferConfig::new(0, 1 << 20));
    let _client = Client::connect_with(&name, LONG, config).unwrap();
    assert_eq!(size(), 128 + (1 << 20));
}

/// Scenario 13.4: a slow handler takes its time for each request.
#[test]
fn a_slow_handler_is_waited_for() {
    let name = Unique::new("slow-handler");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    server.start_mutable(|_: &mut Draft| std::thread::sleep(Duration::from_millis(100))).unwrap();
    let mut client = connect(&name, LONG).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        client.call(b"x", LONG).unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
}

/// Scenario 13.10: a server that goes with responses pending tells its client, and the name is free.
#[test]
fn a_stopped_server_is_noticed_and_its_name_free() {
    let name = Unique::new("stopped");
    let mut server = echo(&name);
    let client = connect(&name, LONG).unwrap();
    let sent: Vec<u64> = (0..3).map(|_| client.send_request(b"x").unwrap()).collect();
    until("the answers", || server.statistics().responses == 3);
    server.stop().unwrap();
    let again = echo(&name);
    for sequence in sent {
        assert_eq!(client.receive_response(LONG).unwrap().sequence(), sequence);
    }
    let error = client.receive_response(LONG).unwrap_err();
    assert_eq!((error.kind(), error.lost_request()), (ErrorKind::PeerClosed, None));
    assert_eq!(client.send_request(b"x").unwrap_err().kind(), ErrorKind::PeerClosed);
    drop(client);
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"again", LONG).unwrap().data(), b"again");
    drop(again);
}

/// A handler may return nothing, a `Result` of the library's, or one of its own.
#[test]
fn handlers_return_what_they_like() {
    let name = Unique::new("outcomes");
    let mut server = DuplexServer::create(&name, ring()).unwrap();
    let handler = |request: &RequestView<'_>, reply: &mut Reply<'_>| -> Result<()> {
        reply.write(&request.sequence().to_le_bytes())
    };
    server.start_immutable(handler).unwrap();
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"?", LONG).unwrap().data(), 1_u64.to_le_bytes());
}
