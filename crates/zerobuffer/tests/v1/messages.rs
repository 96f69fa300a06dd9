//! What errors say: of a buffer, of a channel, and of what is behind them.

use crate::clients::{connect, two_buffers};
use crate::support::{LONG, Unique};
use std::time::Duration;
use zerobuffer::v1::{Draft, DuplexServer, Reader, Writer};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind, RequestState};

/// Four bytes for each pixel of 1920 x 1080.
const PICTURE: usize = 1920 * 1080 * 4;

fn checked(error: Error, kind: ErrorKind, words: &[&str]) -> Error {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    words.iter().for_each(|word| assert!(message.contains(word), "no {word:?} in: {message}"));
    error
}

#[test]
fn errors_of_plain_buffers_speak_of_readers_and_writers() {
    let name = Unique::new("words");
    let (none, config) = (Duration::ZERO, BufferConfig::new(0, 1024));
    let mut errors = Vec::new();
    let mut note = |error: Error, kind, words: &[&str]| errors.push(checked(error, kind, words));
    note(Writer::connect(&name, none).unwrap_err(), ErrorKind::NotRunning, &["no reader", &name]);
    note(Writer::connect("a/b", none).unwrap_err(), ErrorKind::BadName, &["bad name"]);
    note(Reader::create("", config.clone()).unwrap_err(), ErrorKind::BadName, &["bad name"]);
    let reader = Reader::create(&name, config.clone()).unwrap();
    let second = Reader::create(&name, config.clone()).unwrap_err();
    note(second, ErrorKind::AlreadyRunning, &["already has a reader", &name]);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    note(Writer::connect(&name, none).unwrap_err(), ErrorKind::Busy, &["already has a writer"]);
    writer.set_write_timeout(none);
    writer.write_frame(&[0; 800]).unwrap();
    let full = writer.write_frame(&[0; 500]).unwrap_err();
    note(full, ErrorKind::Full, &["1 frames in flight"]);
    drop(reader.read_frame(LONG).unwrap());
    drop(writer);
    note(reader.read_frame(LONG).unwrap_err(), ErrorKind::PeerClosed, &["the peer"]);
    let mut writer = Writer::connect(&name, LONG).unwrap();
    drop(reader);
    note(writer.write_frame(b"x").unwrap_err(), ErrorKind::PeerClosed, &["the peer"]);
    for error in errors {
        for word in ["server", "client", "channel", "request", "response", "answer"] {
            assert!(!error.to_string().contains(word), "{word:?} in: {error}");
        }
    }
}

#[test]
fn errors_of_two_buffers_speak_of_their_channel() {
    let name = Unique::new("channel-words");
    let said = |words: &str| format!("{words} channel \"{}\"", &*name);
    let error = connect(&name, Duration::ZERO).unwrap_err();
    checked(error, ErrorKind::NotRunning, &[&said("no server for")]);
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 1024)).unwrap();
    let error = DuplexServer::create(&name, BufferConfig::new(0, 1024)).unwrap_err();
    checked(error, ErrorKind::AlreadyRunning, &[said("").trim_start(), "already has a server"]);
    server.start_mutable(|_: &mut Draft<'_>| {}).unwrap();
    let _client = connect(&name, LONG).unwrap();
    let error = connect(&name, Duration::ZERO).unwrap_err();
    checked(error, ErrorKind::Busy, &[said("").trim_start(), "already has a client"]);
}

#[test]
fn lengths_that_the_ring_cannot_take_are_told_with_those_that_it_can() {
    let name = Unique::new("lengths");
    let _reader = Reader::create(&name, BufferConfig::new(0, 1024)).unwrap();
    let mut writer = Writer::connect(&name, LONG).unwrap();
    let error = writer.write_frame(&[0; 1000]).unwrap_err();
    checked(error, ErrorKind::TooLarge, &["1000 bytes", "at most 992 bytes", "or exactly 1008"]);
    checked(writer.write_frame(&[0; 1009]).unwrap_err(), ErrorKind::TooLarge, &["at most 1008"]);
    writer.write_frame(&[0; 1008]).unwrap();
}

#[test]
fn the_default_response_buffer_fits_a_picture_and_one_that_is_too_small_is_named_as_the_cause() {
    let name = Unique::new("picture");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 24 << 20)).unwrap();
    server.start_mutable(|draft: &mut Draft<'_>| draft.data_mut()[0] += 1).unwrap();
    let picture = vec![7; PICTURE];
    let mut client = connect(&name, LONG).unwrap();
    for _ in 0..5 {
        let response = client.call(&picture, LONG).unwrap();
        assert_eq!((response.len(), response.data()[0], response.data()[1]), (PICTURE, 8, 7));
    }
    // What may be in flight is bounded by half of it.
    (0..2).for_each(|_| assert!(client.send_request(&picture).is_ok()));
    let error = client.send_request(&picture).unwrap_err();
    checked(error, ErrorKind::Full, &["2 frames in flight"]);
    drop(client);
    let small = two_buffers().response_buffer(BufferConfig::new(0, 4 << 20));
    let mut client = Client::connect_with(&name, LONG, small).unwrap();
    let error = client.call(&picture, LONG).unwrap_err();
    let words = ["in doubt", "too long", "8294400 bytes", "2097128", "response buffer"];
    let error = checked(error, ErrorKind::PeerClosed, &words);
    assert_eq!(error.lost_request().unwrap().state, RequestState::InDoubt);
}

/// An existing server drops a response that does not fit; played by one that sends none.
#[test]
fn a_response_that_never_comes_is_told_with_a_buffer_that_is_too_small_for_it() {
    for (len, is_told) in [(100, false), (3000, true)] {
        let name = Unique::new("dropped");
        let [request, response] = ["request", "response"].map(|side| format!("{}_{side}", &*name));
        let _requests = Reader::create(&request, BufferConfig::new(0, 8192)).unwrap();
        std::thread::scope(|scope| {
            let responses = scope.spawn(|| Writer::connect(&response, LONG).unwrap());
            let small = two_buffers().response_buffer(BufferConfig::new(0, 1024));
            let mut client = Client::connect_with(&name, LONG, small).unwrap();
            let _responses = responses.join().unwrap();
            let error = client.call(&vec![0; len], Duration::from_millis(20)).unwrap_err();
            let error = checked(error, ErrorKind::Timeout, &["waiting for the response"]);
            assert_eq!(error.to_string().contains("make that buffer larger"), is_told, "{error}");
        });
    }
}
