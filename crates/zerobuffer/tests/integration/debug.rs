//! What `{:?}` prints.

use crate::harness::{LONG, Scene, scene};
use std::fmt::Debug;
use zerobuffer::memory::{HeapMemory, MemoryProvider, SharedMemory};
use zerobuffer::v1::{self, Draft, Reply};
use zerobuffer::{BufferConfig, Client, DuplexChannelFactory, Frame, Server};

/// One line of a length that a person reads, with these words in it.
#[track_caller]
fn is_a_line(value: &impl Debug, words: &[&str]) {
    let line = format!("{value:?}");
    assert!(line.len() < 120 && !line.contains('\n'), "{} bytes: {line}", line.len());
    words.iter().for_each(|word| assert!(line.contains(word), "no {word:?} in {line}"));
}

#[test]
fn a_server_a_client_and_what_they_hold_print_as_one_short_line() {
    scene(|t| {
        let mut server = t.own_server(1 << 16);
        is_a_line(&server, &["Server", t.name(), "running: false"]);
        let client = t.client();
        is_a_line(&client, &["Client", t.name()]);
        let buffer = client.acquire_request_buffer(100).unwrap();
        is_a_line(&buffer, &["RequestBuffer", "len: 100"]);
        let sequence = buffer.commit().unwrap();
        let request = server.receive(LONG).unwrap();
        is_a_line(&request, &["Request", "sequence: 1", "len: 100"]);
        let request = request.into_owned();
        is_a_line(&request, &["OwnedRequest", "sequence: 1", "len: 100"]);
        request.respond();
        let response = client.receive_response_for(sequence, LONG).unwrap();
        is_a_line(&response, &["Response", "sequence: 1", "len: 100"]);
        is_a_line(&response.into_owned(), &["OwnedResponse", "len: 100"]);
        drop(client);
        server.stop().unwrap();
        drop(server);
        movable_clients(t);
    });
}

fn movable_clients(t: &Scene) {
    let mut server = t.own_server(1 << 16);
    server.start(|frame: &mut Frame<'_>| is_a_line(frame, &["Frame", "len: 9"])).unwrap();
    let client = t.client().into_shared();
    drop(client.call(&[0; 9], LONG).unwrap());
    is_a_line(&client, &["SharedClient", t.name()]);
    is_a_line(&client.closer(), &["Closer"]);
    drop(client);
    let client = DuplexChannelFactory::new().create_client(t.name(), LONG).unwrap();
    is_a_line(&client, &["Client", t.name()]);
}

#[test]
fn what_belongs_to_version_1_prints_as_one_short_line() {
    scene(|t| {
        let name = t.other("buffer");
        let reader = v1::Reader::create(&name, BufferConfig::new(0, 1 << 16)).unwrap();
        let mut writer = v1::Writer::connect(&name, LONG).unwrap();
        is_a_line(&reader, &["Reader", &name]);
        is_a_line(&writer, &["Writer", &name, "next_sequence: 1"]);
        let buffer = writer.acquire(50).unwrap();
        is_a_line(&buffer, &["FrameBuffer", "len: 50"]);
        buffer.commit().unwrap();
        let frame = reader.read_frame(LONG).unwrap();
        is_a_line(&frame, &["FrameView", "sequence: 1", "len: 50"]);
        is_a_line(&frame.into_owned(), &["OwnedFrameView", "len: 50"]);

        let mut server = v1::DuplexServer::create(t.name(), BufferConfig::new(0, 1 << 16)).unwrap();
        is_a_line(&server, &["DuplexServer", t.name(), "running: false"]);
        server
            .start_immutable(|request: &v1::RequestView<'_>, reply: &mut Reply<'_>| {
                is_a_line(request, &["RequestView", "len: 30"]);
                is_a_line(reply, &["Reply", "written: false"]);
                reply.write(request.data())
            })
            .unwrap();
        let client = Client::connect(t.name(), LONG).unwrap();
        is_a_line(&client, &["Client", t.name()]);
        let buffer = client.acquire_request_buffer(30).unwrap();
        is_a_line(&buffer, &["RequestBuffer", "len: 30"]);
        buffer.commit().unwrap();
        let response = client.receive_response(LONG).unwrap();
        is_a_line(&response, &["Response", "sequence: 1", "len: 30"]);
        is_a_line(&response.into_owned(), &["OwnedResponse", "len: 30"]);
        drop(client);
        server.stop().unwrap();
        drop(server);
        let factory = DuplexChannelFactory::new();
        let mut server =
            factory.create_mutable_server(t.name(), BufferConfig::new(0, 4096)).unwrap();
        server
            .start_mutable(|draft: &mut Draft<'_>| is_a_line(draft, &["Draft", "len: 3"]))
            .unwrap();
        is_a_line(&server, &["DuplexServer", t.name()]);
        let client = factory.create_client(t.name(), LONG).unwrap();
        is_a_line(&client, &["Client", t.name()]);
        let sequence = client.send_request(&[1; 3]).unwrap();
        is_a_line(&client.receive_response_for(sequence, LONG).unwrap(), &["Response", "len: 3"]);
    });
}

#[test]
fn memory_prints_as_one_short_line() {
    scene(|t| {
        let mut heap = HeapMemory::new();
        heap.allocate(4096).unwrap();
        is_a_line(&heap, &["HeapMemory", "4096"]);
        let mut shared = SharedMemory::create(t.name(), 0o600).unwrap();
        shared.allocate(4096).unwrap();
        is_a_line(&shared, &["SharedMemory", t.name(), "4096"]);
        let view = shared.map(0, 64).unwrap();
        is_a_line(&view, &["SharedMemoryView", "64"]);
        is_a_line(&BufferConfig::over(0, view), &["BufferConfig", "payload_size: 64"]);
        shared.unlink().unwrap();
    });
}

/// As `fn main() -> Result<()>` prints them: with the advice.
#[test]
fn errors_print_as_one_line_with_kind_name_and_advice() {
    scene(|t| {
        let error = Client::connect(t.name(), std::time::Duration::ZERO).unwrap_err();
        let line = format!("{error:?}");
        assert!(!line.contains('\n'), "{line}");
        for word in ["NotRunning: ", t.name(), "start one, wait longer"] {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
        is_a_line(
            &Server::create("a/b", BufferConfig::new(0, 64)).unwrap_err(),
            &["BadName", "a/b"],
        );
    });
}
