//! What either side makes of words that the other one, or somebody else, has written.

use super::layout::{METADATA, REQUEST, RESPONSE, SIZE_AND_VERSION, oieb};
use super::words::Words;
use crate::memory::{MemoryProvider, SharedMemory};
use crate::{
    BufferConfig, Client, ClientConfig, ErrorKind, Frame, Server, ServerConfig, WaitStrategy,
};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and the words of its segment.
fn server(what: &str) -> (String, Server, Words) {
    let name = format!("words-{what}-{}", std::process::id());
    let server = Server::create(&name, BufferConfig::new(64, 4096)).unwrap();
    let segment = SharedMemory::open(&format!("{name}_duplex")).unwrap();
    let words = Words::new(segment.map(0, METADATA + 64).unwrap());
    (name, server, words)
}

#[test]
fn later_minor_versions_are_accepted_in_either_block_and_other_majors_are_not() {
    let (name, _server, words) = server("version");
    for block in [REQUEST, RESPONSE] {
        let version = words.at(block + oieb::SIZE_AND_VERSION);
        version.store(SIZE_AND_VERSION | 5 << 40 | 6 << 48, Ordering::Release);
        drop(Client::connect(&name, PATIENCE).unwrap());
        version.store(SIZE_AND_VERSION | 1 << 32, Ordering::Release);
        let error = Client::connect(&name, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("major version is 3, expected 2"), "{error}");
        version.store(SIZE_AND_VERSION, Ordering::Release);
    }
}

#[test]
fn sizes_that_break_a_rule_are_named() {
    let (name, _server, words) = server("sizes");
    for (offset, field) in [
        (REQUEST + oieb::METADATA_SIZE, "OIEB_Request.metadata_size"),
        (RESPONSE + oieb::METADATA_SIZE, "OIEB_Response.metadata_size"),
        (RESPONSE + oieb::PAYLOAD_SIZE, "OIEB_Response.payload_size"),
    ] {
        let word = words.at(offset);
        let good = word.swap(65, Ordering::AcqRel);
        let error = Client::connect(&name, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
        assert!(error.to_string().contains(&format!("{field} is 65")), "{error}");
        word.store(good, Ordering::Release);
    }
    drop(Client::connect(&name, PATIENCE).unwrap());
}

#[test]
fn either_of_the_servers_pid_words_says_that_it_has_closed() {
    for (what, offset) in
        [("reader", REQUEST + oieb::READER_PID), ("writer", RESPONSE + oieb::WRITER_PID)]
    {
        let (name, _server, words) = server(what);
        let client = Client::connect(&name, PATIENCE).unwrap();
        let sequence = client.send_request(b"request").unwrap();
        words.at(offset).store(0, Ordering::Release);
        let error = client.receive_response_for(sequence, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        drop(client);
        let error = Client::connect(&name, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning);
    }
}

#[test]
fn metadata_lengths_that_do_not_fit_their_block_poison_the_channel() {
    for (written, length) in [(7, 0), (1 << 20, 4), (12, 5), (12, u64::MAX), (u64::MAX, 0)] {
        let (name, mut server, words) = server("metadata");
        let config = ClientConfig::new().metadata("four");
        let client = Client::connect_with(&name, PATIENCE, config).unwrap();
        words.at(METADATA).store(length, Ordering::Release);
        words.at(REQUEST + oieb::METADATA_WRITTEN_BYTES).store(written, Ordering::Release);
        let sequence = client.send_request(b"request").unwrap();
        let error = server.receive(PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolViolation, "{written} {length}");
        let error = client.receive_response_for(sequence, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        drop(client);
        // The next client has a segment of its own.
        let client = std::thread::spawn(move || Client::connect(&name, PATIENCE));
        while !client.is_finished() {
            let idle = server.receive(Duration::from_millis(20)).unwrap_err();
            assert_eq!(idle.kind(), ErrorKind::Timeout);
        }
        client.join().unwrap().unwrap();
    }
}

/// While requests come without a pause it may lag; nothing else would ever bring it up to date.
#[test]
fn the_account_of_a_server_is_exact_once_no_request_comes() {
    for wait in [WaitStrategy::SpinThenPark, WaitStrategy::Park] {
        let name = format!("words-account-{}-{wait:?}", std::process::id());
        let config = ServerConfig::new(BufferConfig::new(0, 4096)).wait(wait);
        let mut server = Server::create(&name, config).unwrap();
        server.start(|_: &mut Frame<'_>| {}).unwrap();
        let segment = SharedMemory::open(&format!("{name}_duplex")).unwrap();
        let words = Words::new(segment.map(0, METADATA).unwrap());
        let account = || {
            [oieb::PAYLOAD_WRITTEN_COUNT, oieb::PAYLOAD_WRITTEN_BYTES].map(|field| {
                [REQUEST, RESPONSE].map(|block| words.at(block + field).load(Ordering::Acquire))
            })
        };
        let mut client = Client::connect(&name, PATIENCE).unwrap();
        for _ in 0..70 {
            client.call(b"request", PATIENCE).unwrap();
        }
        let start = Instant::now();
        while account().iter().any(|[requests, responses]| requests != responses) {
            assert!(start.elapsed() < PATIENCE, "{:?}", account());
            std::thread::yield_now();
        }
        assert_eq!(account()[0], [70, 70]);
        server.stop().unwrap();
    }
}
