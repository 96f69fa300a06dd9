//! What a broken peer may do to the words that a buffer's reader writes once: it must not keep everybody
//! else out for ever.

use crate::clients::connect;
use crate::support::{LONG, SOON, Unique, field, peek, poke, until};
use std::time::Duration;
use zerobuffer::v1::{Draft, DuplexServer, Reader, Reply, RequestView, Writer};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind};

/// The words of a header that nobody changes while the buffer lives, with a value that they never have.
const FIXED: [(u64, u64); 5] = [
    (field::SIZE_AND_VERSION, 0x1_ffff_ff02),
    (field::SIZE_AND_VERSION, 0x2_0000_0080),
    (field::METADATA_SIZE, 1 << 40),
    (field::PAYLOAD_SIZE, 64),
    (field::READER_PID, 1 << 30),
];

fn ring() -> BufferConfig {
    BufferConfig::new(256, 1 << 16)
}

/// Rule R17 for the reader: a buffer to which no writer can attach any more is an error and not silence,
/// at every call, and making it anew is the remedy.
#[test]
fn r17_a_reader_says_that_its_own_words_were_written_over() {
    for (word, value) in FIXED {
        let name = Unique::new("own-words");
        let reader = Reader::create(&name, ring()).unwrap();
        let mut writer = Writer::connect(&name, LONG).unwrap();
        writer.write_frame(b"before").unwrap();
        poke(&name, word, value);
        assert_eq!(reader.read_frame(LONG).unwrap().data(), b"before");
        let error = reader.read_frame(LONG).unwrap_err();
        let seen = matches!(error, Error::ProtocolViolation { observed, .. } if observed == value);
        assert!(seen, "{word:#x}: {error:?}");
        let again = reader.read_frame(Duration::ZERO).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::ProtocolViolation);
        drop((writer, reader));
        let reader = Reader::create(&name, ring()).unwrap();
        Writer::connect(&name, LONG).unwrap().write_frame(b"after").unwrap();
        assert_eq!(reader.read_frame(LONG).unwrap().data(), b"after");
    }
}

/// The same between two writers, where nothing is waited for, or the next writer is.
#[test]
fn r17_a_reader_whose_writer_has_ended_says_so_as_well() {
    for waits_for_writer in [false, true] {
        let name = Unique::new("own-words-between");
        let reader = Reader::create(&name, ring()).unwrap();
        Writer::connect(&name, LONG).unwrap().write_frame(b"last").unwrap();
        assert_eq!(reader.read_frame(LONG).unwrap().data(), b"last");
        assert_eq!(reader.read_frame(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
        poke(&name, field::PAYLOAD_SIZE, 0);
        if waits_for_writer {
            let error = reader.wait_for_writer(LONG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
        }
        until("the notice", || {
            reader.read_frame(LONG).unwrap_err().kind() == ErrorKind::ProtocolViolation
        });
    }
}

/// The same for who never waits.
#[test]
fn r17_a_polling_reader_says_so_as_well() {
    let name = Unique::new("own-words-polled");
    let reader = Reader::create(&name, ring()).unwrap();
    poke(&name, field::SIZE_AND_VERSION, 0);
    until("the notice", || {
        reader.read_frame(Duration::ZERO).unwrap_err().kind() == ErrorKind::ProtocolViolation
    });
}

/// What was sent before words were written over is whole, and is delivered, all of it, whichever side notices the
/// damage first.
#[test]
fn r17_frames_before_the_damage_are_delivered_all_of_them() {
    // The account is the one word here that others change; nobody reads it where there is nothing to read.
    for (word, value) in FIXED.into_iter().chain([(field::FREE, 1 << 40)]) {
        for looked_at_before in [false, true] {
            let name = Unique::new("own-words-frames");
            let reader = Reader::create(&name, ring()).unwrap();
            let mut writer = Writer::connect(&name, LONG).unwrap();
            (0..20_u8).for_each(|n| assert!(writer.write_frame(&[n; 100]).is_ok()));
            drop(writer);
            poke(&name, word, value);
            if looked_at_before && word != field::FREE {
                let error = reader.wait_for_writer(LONG).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
            }
            for n in 0..20 {
                assert_eq!(reader.read_frame(LONG).unwrap().data(), [n; 100], "{word:#x}");
            }
            let end = match word {
                field::FREE => ErrorKind::PeerClosed,
                _ => ErrorKind::ProtocolViolation,
            };
            until("the end", || reader.read_frame(LONG).unwrap_err().kind() == end);
        }
    }
}

/// Until its server has seen the damage, a buffer that is incompatible, or its reader dead, is what
/// clients find.
fn connect_at_last(name: &str) -> Client {
    let mut client = None;
    until("a sound buffer", || {
        client = connect(name, Duration::from_secs(1)).ok();
        client.is_some()
    });
    client.unwrap()
}

/// A server makes its request buffer anew, whether it has a client or not.
#[test]
fn r17_a_server_recovers_from_words_that_were_written_over() {
    for with_client in [false, true] {
        for (word, value) in FIXED {
            let name = Unique::new("server-words");
            let mut server = DuplexServer::create(&name, ring()).unwrap();
            server.start_mutable(|_: &mut Draft<'_>| {}).unwrap();
            let client = with_client.then(|| connect(&name, LONG).unwrap());
            poke(&format!("{}_request", &*name), word, value);
            if let Some(client) = client {
                until("the end", || !client.is_server_connected());
            }
            assert_eq!(connect_at_last(&name).call(b"hello", LONG).unwrap().data(), b"hello");
        }
    }
}

/// What clients leave that are killed in the middle of a write, as each step of it stands in the header: a wrap that
/// is accounted for and not made, and a frame that is there and not accounted for. Their successors are there before
/// the server can have looked.
#[test]
fn x4_a_successor_gets_a_sound_buffer_where_a_client_was_killed_in_a_write() {
    for (word, change) in [(field::FREE, -100), (field::WRITE_POS, 116)] {
        let name = Unique::new("killed-in-a-write");
        let request = format!("{}_request", &*name);
        let mut server = DuplexServer::create(&name, ring()).unwrap();
        server.start_mutable(|_: &mut Draft<'_>| {}).unwrap();
        let mut client = connect(&name, LONG).unwrap();
        assert_eq!(client.call(b"hello", LONG).unwrap().data(), b"hello");
        until("a drained ring", || {
            peek(&request, field::FREE) == peek(&request, field::PAYLOAD_SIZE)
        });
        poke(&request, word, peek(&request, word).wrapping_add_signed(change));
        drop(client);
        let mut successor = connect(&name, SOON).unwrap();
        assert_eq!(successor.call(b"hello", LONG).unwrap().data(), b"hello");
    }
}

/// A client that does not read its responses, and a server that waits for room for the third.
struct Blocked {
    server: DuplexServer,
    request: String,
    responses: Reader,
    requests: Writer,
}

impl Blocked {
    fn new(name: &str) -> Self {
        let (request, response) = (format!("{name}_request"), format!("{name}_response"));
        let mut server = DuplexServer::create(name, ring()).unwrap();
        server
            .start_immutable(|_: &RequestView<'_>, reply: &mut Reply<'_>| reply.write(&[9; 1500]))
            .unwrap();
        let mut requests = Writer::connect(&request, LONG).unwrap();
        let responses = Reader::create(&response, BufferConfig::new(0, 4096)).unwrap();
        until("the server", || responses.is_writer_connected());
        (0..3).for_each(|_| assert!(requests.write_frame(b"x").is_ok()));
        until("a full ring", || server.statistics().requests == 3);
        Self { server, request, responses, requests }
    }
}

/// Rule X4: the request buffer says as well as the response buffer that a client has ended. What a client
/// leaves behind may look alive: its process lives on, or its id means another one by now.
#[test]
fn x4_a_server_does_not_wait_for_room_where_its_client_sends_no_more() {
    let name = Unique::new("blocked-gone");
    let Blocked { server, responses, requests, .. } = Blocked::new(&name);
    drop(requests);
    until("the end of the connection", || !server.is_client_connected());
    drop(responses);
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"x", LONG).unwrap().len(), 1500);
}

/// As above, while the client is there.
#[test]
fn r17_a_server_that_waits_for_room_sees_that_its_own_words_were_written_over() {
    let name = Unique::new("blocked-words");
    let Blocked { server, request, responses, requests } = Blocked::new(&name);
    let old = peek(&request, field::SIZE_AND_VERSION);
    poke(&request, field::SIZE_AND_VERSION, 0x1_ffff_ff02);
    until("another buffer", || {
        std::fs::exists(format!("/dev/shm/{request}")).unwrap()
            && peek(&request, field::SIZE_AND_VERSION) == old
    });
    drop((responses, requests));
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"x", LONG).unwrap().len(), 1500);
    drop((client, server));
}
