//! Version 1.

use crate::{LONG, await_thread, every_fault, every_fault_beside};
use std::time::Duration;
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, Error, WaitStrategy, v1};

fn config() -> BufferConfig {
    BufferConfig::new(64, 4096)
}

fn reader(name: &str) -> v1::Reader {
    v1::Reader::create(name, config()).expect("a reader starts")
}

fn writer(name: &str) -> v1::Writer {
    v1::Writer::connect(name, LONG).expect("a writer attaches")
}

#[track_caller]
fn works(reader: &v1::Reader, writer: &mut v1::Writer) {
    writer.write_frame(b"frame").expect("written");
    assert_eq!(reader.read_frame(LONG).expect("there").data(), b"frame");
}

#[test]
fn a_reader_is_created_or_nothing_is() {
    every_fault("v1-create", |run| {
        let name = run.name;
        let _ = run.undone(|| v1::Reader::create(name, config()));
        let reader = reader(name);
        works(&reader, &mut writer(name));
    });
}

#[test]
fn a_reader_takes_over_from_a_dead_one_or_fails_and_the_next_one_does() {
    every_fault("v1-leftover", |run| {
        let name = run.name;
        let mut segment = vec![0; 128 + 64 + 4096];
        (segment[0], segment[4]) = (128, 1);
        std::fs::write(format!("/dev/shm/{name}"), segment).expect("/dev/shm");
        for which in ["w", "r"] {
            std::fs::write(format!("/dev/shm/sem.sem-{which}-{name}"), [0; 32]).expect("/dev/shm");
        }
        let _ = run.typed(|| v1::Reader::create(name, config()));
        let reader = reader(name);
        works(&reader, &mut writer(name));
    });
}

#[test]
fn a_writer_is_attached_or_nothing_is() {
    every_fault("v1-attach", |run| {
        let name = run.name;
        let reader = reader(name);
        let attached = run.undone(|| v1::Writer::connect(name, Duration::ZERO));
        drop(attached);
        works(&reader, &mut writer(name));
    });
}

#[test]
fn frames_are_written_and_read_in_spite_of_what_passes() {
    every_fault("v1-frames-quiet", |run| {
        let config = v1::ReaderConfig::new(config()).wait(WaitStrategy::Park);
        let reader = v1::Reader::create(run.name, config).expect("a reader starts");
        let mut writer = writer(run.name);
        let frame = run.typed(|| {
            writer.write_frame(b"frame")?;
            reader.read_frame(LONG)?;
            match reader.read_frame(Duration::from_millis(25)) {
                Err(Error::Timeout { .. }) => Ok(()),
                other => other.map(drop),
            }
        });
        frame.expect("nothing is seen");
        works(&reader, &mut writer);
        run.silent(|| drop(writer));
    });
}

#[test]
fn a_reader_closes_and_whatever_it_cannot_remove_is_for_the_next_one() {
    every_fault("v1-close-quiet", |run| {
        let reader = reader(run.name);
        run.silent(|| reader.close());
        let reader = self::reader(run.name);
        works(&reader, &mut writer(run.name));
    });
}

#[test]
fn leftovers_are_removed_or_can_be_removed_later() {
    every_fault("v1-leftovers", |run| {
        let name = run.name;
        let mut segment = vec![0; 128 + 64 + 4096];
        (segment[0], segment[4]) = (128, 1);
        std::fs::write(format!("/dev/shm/{name}"), segment).expect("/dev/shm");
        std::fs::write(format!("/dev/shm/sem.sem-w-{name}"), [0; 32]).expect("/dev/shm");
        let _ = run.typed(|| v1::remove_leftovers(name));
        v1::remove_leftovers(name).expect("the same works now");
    });
}

fn serve(name: &str) -> v1::DuplexServer {
    let mut server = v1::DuplexServer::create(name, config()).expect("a server starts");
    server.start_mutable(|draft: &mut v1::Draft<'_>| draft.data_mut().reverse()).expect("a thread");
    await_thread();
    server
}

fn client_config() -> ClientConfig {
    ClientConfig::new().channel(ChannelKind::TwoBuffers).response_buffer(config())
}

#[track_caller]
fn answers(client: &mut Client) {
    assert_eq!(client.call(b"abc", LONG).expect("answered").data(), b"cba");
}

#[test]
fn a_duplex_server_is_created_or_nothing_is() {
    every_fault("v1-duplex", |run| {
        let name = run.name;
        let _ = run.undone(|| v1::DuplexServer::create(name, config()));
        let server = serve(name);
        let mut client = Client::connect_with(name, LONG, client_config()).expect("attaches");
        answers(&mut client);
        drop((client, server));
    });
}

#[test]
fn a_duplex_server_whose_thread_cannot_be_made_can_be_started_again() {
    every_fault("v1-start", |run| {
        let name = run.name;
        let mut server = v1::DuplexServer::create(name, config()).expect("a server");
        let mut start =
            || server.start_mutable(|draft: &mut v1::Draft<'_>| draft.data_mut().reverse());
        if run.undone(&mut start).is_err() {
            start().expect("the same works now");
        }
        let mut client = Client::connect_with(name, LONG, client_config()).expect("attaches");
        answers(&mut client);
        drop((client, server));
    });
}

#[test]
fn a_duplex_client_is_connected_or_nothing_is() {
    let connect = |name: &str| {
        let client = Client::connect_with(name, LONG, client_config());
        answers(&mut client.expect("attaches"));
    };
    // Until it has released the previous client's buffer.
    let await_parting = |server: &v1::DuplexServer| {
        while server.is_client_connected() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let served = |name: &str| {
        let server = serve(name);
        connect(name);
        await_parting(&server);
        server
    };
    every_fault_beside("v1-client", served, |run, server| {
        let name = run.name;
        let short = Duration::from_secs(5);
        match run.undone(|| Client::connect_with(name, short, client_config())) {
            Ok(mut client) => answers(&mut client),
            Err(_) => connect(name),
        }
        await_parting(server);
    });
}
