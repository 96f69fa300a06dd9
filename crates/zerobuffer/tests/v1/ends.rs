//! Ends that stay ends, and an idle server that loses its objects.

use crate::clients::connect;
use crate::support::{LONG, Unique, until};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use zerobuffer::v1::{Draft, DuplexServer};
use zerobuffer::{BufferConfig, ErrorKind, ServerConfig};

/// What there is of a channel's request buffer.
fn request_traces(name: &Unique) -> Vec<String> {
    name.traces().into_iter().filter(|path| path.contains("_request")).collect()
}

#[test]
fn a_handler_that_does_not_return_leaves_nothing_under_the_name_of_a_stopped_server() {
    let name = Unique::new("stuck");
    let config = ServerConfig::new(BufferConfig::new(0, 4096)).stop_timeout(Duration::ZERO);
    let mut server = DuplexServer::create(&name, config).unwrap();
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let wait = move |_: &mut Draft<'_>| {
        let _ = gate.lock().unwrap().recv();
    };
    server.start_mutable(wait).unwrap();
    let client = connect(&name, LONG).unwrap();
    client.send_request(b"x").unwrap();
    until("a stuck handler", || server.statistics().requests == 1);
    server.stop().unwrap();
    assert_eq!(request_traces(&name), [""; 0]);
    drop(DuplexServer::create(&name, BufferConfig::new(0, 64)).unwrap());
    assert!(client.send_request(b"y").is_err());
    drop((open, client));
    until("the end of the thread", || name.traces().is_empty());
}

/// Stops a server at the very moment when it makes its request buffer anew.
#[test]
fn a_server_that_is_making_a_new_request_buffer_stops_for_good() {
    for round in 0..15 {
        let name = Unique::new("renewing");
        let semaphore = format!("/dev/shm/sem.sem-w-{}_request", &*name);
        let inode = || std::fs::metadata(&semaphore).map(|found| found.ino()).unwrap_or(0);
        let config = ServerConfig::new(BufferConfig::new(0, 64 << 20));
        let config = config.stop_timeout(Duration::ZERO);
        let mut server = DuplexServer::create(&name, config).unwrap();
        // Without a response to failures the channel is closed, and made anew.
        server.start_mutable(|_: &mut Draft<'_>| Err::<(), _>("on purpose")).unwrap();
        let first = inode();
        let mut client = connect(&name, LONG).unwrap();
        assert!(client.call(b"x", LONG).is_err());
        drop(client);
        until("another buffer", || ![0, first].contains(&inode()));
        std::thread::sleep(Duration::from_millis(round));
        server.stop().unwrap();
        assert_eq!(name.traces(), [""; 0], "round {round}");
        drop(DuplexServer::create(&name, BufferConfig::new(0, 64)).unwrap());
    }
}

#[test]
fn an_idle_server_makes_anew_whatever_of_its_request_buffer_is_lost() {
    let name = Unique::new("lost");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
    server.start_mutable(|draft: &mut Draft<'_>| draft.data_mut().reverse()).unwrap();
    let mut all = request_traces(&name);
    all.sort();
    assert_eq!(all.len(), 5);
    for lost in &all {
        std::fs::remove_file(lost).unwrap();
        until("all names", || {
            let mut now = request_traces(&name);
            now.sort();
            now == all
        });
        // A client may meet the buffer that is being removed.
        until("service", || {
            let mut client = connect(&name, LONG).unwrap();
            client.call(b"ab", LONG).is_ok_and(|response| response.data() == b"ba")
        });
    }
    assert!(server.is_running());
    server.stop().unwrap();
}

#[test]
fn a_reader_whose_segments_name_was_removed_leaves_nothing_behind() {
    let name = Unique::new("nameless");
    let reader = zerobuffer::v1::Reader::create(&name, BufferConfig::new(0, 4096)).unwrap();
    std::fs::remove_file(format!("/dev/shm/{}", &*name)).unwrap();
    drop(reader);
    assert_eq!(name.traces(), [""; 0]);
}

/// Also if the same process comes again at once, and the handler finds its id there as before.
#[test]
fn a_handler_notices_that_its_client_has_closed_and_come_again() {
    let name = Unique::new("come-again");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let ((began, begun), (ended, end)) = (channel(), channel());
    let handler = move |draft: &mut Draft<'_>| {
        began.send(()).unwrap();
        while !draft.cancelled() {
            std::thread::yield_now();
        }
        ended.send(()).unwrap();
    };
    server.start_mutable(handler).unwrap();
    let mut client = connect(&name, LONG).unwrap();
    for _ in 0..30 {
        client.send_request(b"x").unwrap();
        begun.recv_timeout(LONG).unwrap();
        drop(client);
        client = connect(&name, LONG).unwrap();
        end.recv_timeout(LONG).unwrap();
    }
}

#[test]
fn a_handler_finishes_its_response_while_its_server_stops() {
    let name = Unique::new("edits-on");
    let mut server = DuplexServer::create(&name, BufferConfig::new(0, 1 << 16)).unwrap();
    let closer = server.closer();
    let (began, begun) = channel();
    let handler = move |draft: &mut Draft<'_>| {
        began.send(()).unwrap();
        while !closer.is_closed() {
            std::thread::yield_now();
        }
        for at in 0..draft.len() {
            if draft.cancelled() {
                return;
            }
            draft.data_mut()[at] ^= 0xff;
        }
    };
    server.start_mutable(handler).unwrap();
    let client = connect(&name, LONG).unwrap();
    let sequence = client.send_request(&[1; 20_000]).unwrap();
    begun.recv_timeout(LONG).unwrap();
    server.stop().unwrap();
    let response = client.receive_response_for(sequence, LONG).unwrap();
    assert!(response.data().iter().all(|byte| *byte == 0xfe), "half a response");
}

/// Version 1 can still send it then, whole.
#[test]
fn a_handler_that_is_in_its_work_past_the_stop_timeout_is_not_told_that_nobody_waits() {
    let name = Unique::new("edits-late");
    let config = ServerConfig::new(BufferConfig::new(0, 4096)).stop_timeout(Duration::ZERO);
    let mut server = DuplexServer::create(&name, config).unwrap();
    let ((began, begun), (open, gate)) = (channel(), channel::<()>());
    let handler = move |draft: &mut Draft<'_>| {
        began.send(()).unwrap();
        gate.recv().unwrap();
        if !draft.cancelled() {
            draft.data_mut()[0] = 2;
        }
    };
    server.start_mutable(handler).unwrap();
    let client = connect(&name, LONG).unwrap();
    let sequence = client.send_request(&[1]).unwrap();
    begun.recv_timeout(LONG).unwrap();
    server.stop().unwrap();
    open.send(()).unwrap();
    assert_eq!(begun.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    match client.receive_response_for(sequence, LONG) {
        Ok(response) => assert_eq!(response.data(), [2]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PeerClosed),
    }
}
