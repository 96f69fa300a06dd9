//! Words that a channel's server writes once, written over by a broken peer: no client can attach then,
//! and the server must notice by itself.

use crate::harness::{LONG, Scene, eventually, fails, scene};
use std::os::unix::fs::FileExt;
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, ErrorKind, Frame, LostRequest, RequestState, Server,
    ServerConfig,
};

/// By their offsets: in the header of the requests size and version, the sizes, the reader's id; in that
/// of the responses the same with the writer's id and what the metadata take; and the length of those.
const FIXED: [u64; 10] =
    [0x00, 0x08, 0x20, 0x50, 0x58, 0x58 + 0x08, 0x58 + 0x18, 0x58 + 0x20, 0x58 + 0x48, 0xb0 + 64];

fn server(t: &Scene) -> Server {
    let config = ServerConfig::new(BufferConfig::new(64, 1 << 16)).metadata("metadata");
    let mut server = Server::create(t.name(), config).unwrap();
    server.start(|frame: &mut Frame<'_>| frame.data_mut()[0] += 1).unwrap();
    server
}

fn write_over(t: &Scene, offset: u64) {
    let path = format!("/dev/shm/{}_duplex", t.name());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&0x7fff_ff02_u64.to_le_bytes(), offset).unwrap();
}

#[test]
fn a_server_without_a_client_replaces_a_segment_whose_fixed_words_were_written_over() {
    scene(|t| {
        for offset in FIXED {
            let mut server = server(t);
            write_over(t, offset);
            check_next_client(t);
            server.stop().unwrap();
        }
    });
}

/// Its client has private copies of what it needs, and goes on; the next one gets a new segment.
#[test]
fn a_server_with_a_client_replaces_such_a_segment_when_the_client_has_ended() {
    scene(|t| {
        for offset in FIXED {
            let mut server = server(t);
            let mut client = t.client();
            write_over(t, offset);
            for round in 0..10 {
                assert_eq!(client.call(&[round; 9], LONG).unwrap().data()[0], round + 1);
            }
            drop(client);
            check_next_client(t);
            server.stop().unwrap();
        }
    });
}

/// What the client's own metadata take is the client's to say. A server that does not believe it takes
/// nothing: so nothing is in its hands that it would wait for when it stops.
#[test]
fn a_server_takes_nothing_from_a_client_whose_metadata_are_nonsense_and_stops_at_once() {
    scene(|t| {
        for pulls in [false, true] {
            let forever = Duration::from_secs(3600);
            let config = ServerConfig::new(BufferConfig::new(64, 1 << 16)).stop_timeout(forever);
            let mut server = Server::create(t.name(), config).unwrap();
            if !pulls {
                server.start(|_: &mut Frame<'_>| {}).unwrap();
            }
            let client = t.client_with(ClientConfig::new().metadata("me"));
            write_over(t, 0x18);
            let sequence = client.send_request(&[1; 100]).unwrap();
            if pulls {
                fails(server.receive(LONG).map(drop), ErrorKind::ProtocolViolation);
            }
            let error = fails(client.receive_response(LONG), ErrorKind::PeerClosed);
            let state = RequestState::NotStarted;
            assert_eq!(error.lost_request(), Some(LostRequest { sequence, state }));
            server.stop().unwrap();
        }
    });
}

#[track_caller]
fn check_next_client(t: &Scene) {
    let mut next = None;
    eventually("a sound segment", || {
        let timeout = Duration::from_secs(1);
        let connected = Client::connect(t.name(), timeout).ok();
        // Metadata that were written over keep nobody out.
        next = connected.filter(|client| client.server_metadata() == b"metadata");
        next.is_some()
    });
    assert_eq!(next.unwrap().call(&[7; 9], LONG).unwrap().data()[0], 8);
}
