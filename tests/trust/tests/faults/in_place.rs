//! The in-place channel.

use crate::{LONG, await_thread, every_fault};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, Server, ServerConfig, WaitStrategy,
};

fn config() -> ServerConfig {
    let buffer = BufferConfig::new(256, 1 << 16);
    ServerConfig::new(buffer).metadata("server").wait(WaitStrategy::Park)
}

fn invert(frame: &mut Frame<'_>) {
    frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
}

fn serve(name: &str) -> Server {
    let mut server = Server::create(name, config()).expect("a server starts");
    server.start(invert).expect("its thread starts");
    await_thread();
    server
}

fn connect(name: &str) -> Client {
    Client::connect(name, LONG).expect("a client attaches")
}

#[track_caller]
fn works(client: &mut Client) {
    assert_eq!(client.call(&[1, 2, 3], LONG).expect("answered").data(), [254, 253, 252]);
}

/// What a server leaves behind that was killed: its objects, unlocked.
fn leave_behind(name: &str) {
    let mut segment = vec![0; 8192];
    (segment[0], segment[4]) = (88, 2);
    std::fs::write(format!("/dev/shm/{name}_duplex"), segment).expect("/dev/shm");
    for which in ["request-ready", "response-ready", "response-consumed", "space-available"] {
        std::fs::write(format!("/dev/shm/sem.sem-{which}-{name}"), [0; 32]).expect("/dev/shm");
    }
}

#[test]
fn a_server_is_created_or_nothing_is() {
    every_fault("create", |run| {
        let name = run.name;
        let _ = run.undone(|| Server::create(name, config()));
        let server = serve(name);
        works(&mut connect(name));
        drop(server);
    });
}

#[test]
fn a_server_takes_over_from_a_dead_one_or_fails_and_the_next_one_does() {
    every_fault("leftover", |run| {
        let name = run.name;
        leave_behind(name);
        let _ = run.typed(|| Server::create(name, config()));
        let server = serve(name);
        works(&mut connect(name));
        drop(server);
    });
}

#[test]
fn a_server_whose_threads_cannot_be_made_can_be_started_again() {
    every_fault("start", |run| {
        let mut server = Server::create(run.name, config().workers(3)).expect("a server");
        if run.undone(|| server.start(invert)).is_err() {
            assert!(!server.is_running());
            server.start(invert).expect("the same works now");
        }
        works(&mut connect(run.name));
        server.stop().expect("stops");
    });
}

#[test]
fn a_client_is_attached_or_nothing_is() {
    every_fault("attach", |run| {
        let name = run.name;
        let server = serve(name);
        works(&mut connect(name));
        drop(connect(name));
        let with = || ClientConfig::new().metadata("client");
        match run.undone(|| Client::connect_with(name, Duration::ZERO, with())) {
            Ok(mut client) => works(&mut client),
            Err(_) => works(&mut Client::connect_with(name, LONG, with()).expect("attaches")),
        }
        works(&mut connect(name));
        drop(server);
    });
}

#[test]
fn a_client_that_may_wait_attaches_in_spite_of_what_passes() {
    every_fault("attach-wait", |run| {
        let name = run.name;
        let server = serve(name);
        works(&mut connect(name));
        drop(connect(name));
        let attached = run.undone(|| Client::connect(name, Duration::from_secs(5)));
        drop(attached);
        works(&mut connect(name));
        drop(server);
    });
}

#[test]
fn a_call_is_answered_or_ends_at_its_deadline() {
    every_fault("call-quiet", |run| {
        let mut server = Server::create(run.name, config()).expect("a server starts");
        // Longer than a slice, so that the client looks whether the server lives.
        let slow = |frame: &mut Frame<'_>| {
            std::thread::sleep(Duration::from_millis(12));
            invert(frame);
        };
        server.start(slow).expect("its thread starts");
        let config = ClientConfig::new().wait(WaitStrategy::Park);
        let mut client = Client::connect_with(run.name, LONG, config).expect("attaches");
        let answer = run.typed(|| client.call(&[1, 2, 3], LONG));
        assert_eq!(answer.expect("answered all the same").data(), [254, 253, 252]);
        works(&mut client);
        run.silent(|| drop(client));
        works(&mut connect(run.name));
        server.stop().expect("stops");
    });
}

#[test]
fn a_server_receives_and_answers_in_spite_of_what_passes() {
    every_fault("receive-quiet", |run| {
        let mut server = Server::create(run.name, config()).expect("a server starts");
        let client = connect(run.name);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(25));
            let sent = client.send_request(&[1, 2, 3]).expect("sent");
            let answer = client.receive_response_for(sent, LONG).expect("answered");
            assert_eq!(answer.data(), [3, 2, 1]);
        });
        let mut request = run.typed(|| server.receive(LONG)).expect("received");
        request.data_mut().reverse();
        request.respond();
        sender.join().expect("answered");
        server.stop().expect("stops");
    });
}

/// A server without a thread goes on to the next client.
#[test]
fn a_stale_segment_is_replaced_sooner_or_later() {
    every_fault("retire", |run| {
        let mut server = Server::create(run.name, config()).expect("a server starts");
        let client = connect(run.name);
        client.send_request(&[9]).expect("sent");
        server.receive(LONG).expect("received").respond();
        drop(client);
        let timeout = Duration::from_millis(60);
        let passed = run.typed(|| match server.receive(timeout) {
            Err(Error::Timeout { .. }) => Ok(()),
            other => other.map(drop),
        });
        drop(passed);
        // Now, or at the next try.
        let name = run.name;
        let client = std::thread::spawn({
            let name = name.to_owned();
            move || {
                let mut client = connect(&name);
                works(&mut client);
            }
        });
        while !client.is_finished() {
            match server.receive(Duration::from_millis(5)) {
                Ok(mut request) => {
                    request.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
                    request.respond();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}"),
            }
        }
        client.join().expect("served");
        server.stop().expect("stops");
    });
}

#[test]
fn a_server_stops_and_whatever_it_cannot_remove_is_for_the_next_one() {
    every_fault("stop", |run| {
        let mut server = serve(run.name);
        let mut client = connect(run.name);
        works(&mut client);
        drop(client);
        // The server's thread has replaced the segment: what is left to remove is this thread's.
        drop(connect(run.name));
        let _ = run.typed(|| server.stop());
        drop(server);
        let server = serve(run.name);
        works(&mut connect(run.name));
        drop(server);
    });
}

#[test]
fn a_client_reconnects_or_can_try_again() {
    every_fault("reconnect", |run| {
        let server = serve(run.name);
        let mut client = connect(run.name);
        works(&mut client);
        drop(server);
        let server = serve(run.name);
        let _ = run.typed(|| client.reconnect(Duration::ZERO));
        client.reconnect(LONG).expect("the same works now");
        works(&mut client);
        drop((client, server));
    });
}
