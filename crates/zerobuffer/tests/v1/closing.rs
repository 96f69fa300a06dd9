//! Who closes a reader, a writer or a client ends every wait in it.

use crate::clients::connect;
use crate::support::Unique;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use zerobuffer::{BufferConfig, Error, ErrorKind, v1};

const FOR_EVER: Duration = Duration::MAX;
const LONG: Duration = Duration::from_secs(20);

fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

/// Waits until all have begun, and most likely are asleep: not to be asleep yet must be just as well.
fn begun(threads: usize, began: &AtomicUsize) {
    while began.load(Ordering::Relaxed) < threads {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(5));
}

#[test]
fn a_close_ends_the_waits_of_all_threads_of_a_reader() {
    let name = Unique::new("close-reader");
    let reader = v1::Reader::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let (closer, began) = (reader.closer(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (reader, began) = (&reader, &began);
                scope.spawn(move || {
                    began.fetch_add(1, Ordering::Relaxed);
                    match number {
                        0 => kind(reader.wait_for_writer(FOR_EVER)),
                        _ => kind(reader.read_frame(None)),
                    }
                })
            })
            .collect();
        begun(threads.len(), &began);
        closer.close();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), ErrorKind::Closed);
        }
    });
    assert!(closer.is_closed());
    assert_eq!(kind(reader.read_frame(Duration::ZERO)), ErrorKind::Closed);
    drop(reader);
    closer.close();
}

#[test]
fn a_close_ends_a_writers_wait_for_room_and_the_next_writer_is_none_the_wiser() {
    let name = Unique::new("close-writer");
    let reader = v1::Reader::create(&name, BufferConfig::new(0, 256)).unwrap();
    let config = v1::WriterConfig::new().write_timeout(FOR_EVER);
    let mut writer = v1::Writer::connect_with(&name, LONG, config).unwrap();
    writer.write_frame(&[1; 100]).unwrap();
    let (closer, began) = (writer.closer(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            began.store(1, Ordering::Relaxed);
            kind((0..).try_for_each(|_| writer.write_frame(&[1; 100]).map(drop)))
        });
        begun(1, &began);
        closer.close();
        assert_eq!(thread.join().unwrap(), ErrorKind::Closed);
    });
    assert_eq!(kind(writer.write_frame(&[3])), ErrorKind::Closed);
    assert_eq!(kind(writer.acquire(3).map(drop)), ErrorKind::Closed);
    drop(writer);
    drop(reader.read_frame(LONG).unwrap());
    let mut writer = v1::Writer::connect(&name, LONG).unwrap();
    while let Ok(frame) = reader.read_frame(Duration::ZERO) {
        assert_eq!(frame.data(), [1; 100]);
    }
    for round in 0..20 {
        writer.write_frame(&[round; 100]).unwrap();
        assert_eq!(reader.read_frame(LONG).unwrap().data(), [round; 100]);
    }
}

#[test]
fn a_close_ends_the_waits_of_a_client_of_two_buffers() {
    let name = Unique::new("close-duplex");
    let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let (open, opened) = std::sync::mpsc::channel::<()>();
    server
        .start_mutable(move |_: &mut v1::Draft<'_>| {
            // Until the test has seen the client come back.
            let _ = opened.recv();
        })
        .unwrap();
    let mut client = connect(&name, LONG).unwrap();
    let (closer, began) = (client.closer(), AtomicUsize::new(0));
    let client = std::thread::scope(|scope| {
        let began = &began;
        let thread = scope.spawn(move || {
            began.store(1, Ordering::Relaxed);
            (kind(client.call(b"x", FOR_EVER)), client)
        });
        begun(1, began);
        closer.close();
        let (ended, client) = thread.join().unwrap();
        assert_eq!(ended, ErrorKind::Closed);
        client
    });
    drop(open);
    assert_eq!(kind(client.send_request(b"x")), ErrorKind::Closed);
    assert_eq!(kind(client.receive_response(FOR_EVER)), ErrorKind::Closed);
    drop(client);
    let mut client = connect(&name, LONG).unwrap();
    assert_eq!(client.call(b"x", LONG).unwrap().data(), b"x");
    drop(client);
    server.closer().close();
    server.stop().unwrap();
}
