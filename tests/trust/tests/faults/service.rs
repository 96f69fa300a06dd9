//! Services. Some of their calls are made by threads of the library's own: the one at the door, those that run the
//! handler, and the two that end connections.

use crate::{LONG, Run, every_fault_in};
use std::time::Duration;
use zerobuffer::{
    Client, ClientConfig, Error, ErrorKind, Frame, Servers, Service, ServiceConfig, WaitStrategy,
};
use zerobuffer_test_support::{Census, eventually};

const DOOR: &str = "zb-door-";
const ENDS: &str = "zb-ends";
const CLOSES: &str = "zb-closes";
const HANDLER: &str = "zerobuffer-";
/// For what a fault may keep from happening.
const SHORT: Duration = Duration::from_millis(300);

/// The runtime directory of a test.
fn directory(name: &str) -> String {
    format!("/tmp/{name}")
}

/// Removes it at the end.
struct Directory(String);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn service_config(name: &str) -> ServiceConfig {
    let config = ServiceConfig::new().ring(1 << 16).metadata("server").wait(WaitStrategy::Park);
    config.directory(directory(name))
}

fn client_config(name: &str) -> ClientConfig {
    ClientConfig::new().metadata("client").wait(WaitStrategy::Park).directory(directory(name))
}

fn invert(frame: &mut Frame<'_>) {
    frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
}

fn serve(name: &str) -> Service {
    let mut service = Service::create(name, service_config(name)).expect("a service starts");
    service.start(invert).expect("its threads start");
    await_threads(HANDLER);
    service
}

/// Waits until the threads of a service can be counted: each gives itself its name.
fn await_threads(last: &str) {
    let names = || std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let names = || names().flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
    let is_there = |start: &str| names().any(|name| name.starts_with(start));
    eventually("its threads", || [DOOR, ENDS, CLOSES, last].into_iter().all(is_there));
}

fn attach(name: &str, timeout: Duration) -> Result<Client, Error> {
    Client::connect_with(name, timeout, client_config(name))
}

fn connect(name: &str) -> Client {
    attach(name, LONG).expect("a client attaches")
}

#[track_caller]
fn works(client: &mut Client) {
    assert_eq!(client.call(&[1, 2, 3], LONG).expect("answered").data(), [254, 253, 252]);
}

/// A client that may have lost its server, on account of the fault.
#[track_caller]
fn works_again(client: &mut Client) {
    match client.call(&[1, 2, 3], LONG).map(|response| response.data().to_vec()) {
        Ok(response) => assert_eq!(response, [254, 253, 252]),
        Err(
            Error::PeerClosed { .. } | Error::PeerDied { .. } | Error::ProtocolViolation { .. },
        ) => {
            client.reconnect(LONG).expect("the same works now");
            works(client);
        }
        Err(error) => panic!("{error}"),
    }
}

/// In the calling thread, or in one of the library's.
#[track_caller]
fn every_fault(what: &str, thread: &'static str, operation: impl Fn(&mut Run<'_>)) {
    let take = |name: &str| Census::of_services(&directory(name));
    let living = |name: &str| Directory(directory(name));
    every_fault_in(what, thread, take, living, |run, _| operation(run));
}

fn all_left(service: &Service) {
    eventually("no client is left", || service.clients() == 0);
}

#[test]
fn a_service_is_created_or_nothing_is() {
    every_fault("s-create", "", |run| {
        let name = run.name;
        let _ = run.undone(|| Service::create(name, service_config(name)));
        let service = serve(name);
        works(&mut connect(name));
        drop(service);
    });
}

#[test]
fn a_service_whose_threads_cannot_be_made_can_be_started_again() {
    every_fault("s-start", "", |run| {
        let name = run.name;
        let mut service = Service::create(name, service_config(name).workers(3)).expect("created");
        await_threads(ENDS);
        if run.undone(|| service.start(invert)).is_err() {
            assert!(!service.is_running());
            service.start(invert).expect("the same works now");
        }
        works(&mut connect(name));
        service.stop().expect("stops");
    });
}

#[test]
fn a_services_client_is_attached_or_nothing_is() {
    every_fault("s-attach", "", |run| {
        let (name, service) = (run.name, serve(run.name));
        match run.typed(|| attach(name, Duration::ZERO)) {
            Ok(mut client) => works(&mut client),
            Err(_) => works(&mut connect(name)),
        }
        all_left(&service);
    });
}

/// It watches the directories meanwhile.
#[test]
fn a_client_that_waits_for_a_service_attaches_in_spite_of_what_passes() {
    every_fault("s-attach-wait", "", |run| {
        let name = run.name;
        let later = std::thread::spawn({
            let name = name.to_owned();
            move || {
                std::thread::sleep(Duration::from_millis(5));
                serve(&name)
            }
        });
        let attached = run.typed(|| attach(name, LONG));
        let service = later.join().expect("it starts");
        drop(attached);
        works(&mut connect(name));
        drop(service);
    });
}

#[test]
fn a_call_to_a_service_is_answered_or_fails() {
    every_fault("s-call", "", |run| {
        let (name, service) = (run.name, serve(run.name));
        let mut client = connect(name);
        let answer =
            run.typed(|| client.call(&[1, 2, 3], SHORT).map(|answer| answer.data().to_vec()));
        if let Ok(answer) = answer {
            assert_eq!(answer, [254, 253, 252]);
        }
        works_again(&mut client);
        run.silent(|| drop(client));
        all_left(&service);
    });
}

#[test]
fn a_services_client_reconnects_or_can_try_again() {
    every_fault("s-reconnect", "", |run| {
        let (name, service) = (run.name, serve(run.name));
        let mut client = connect(name);
        works(&mut client);
        drop(service);
        let service = serve(name);
        let _ = run.typed(|| client.reconnect(Duration::ZERO));
        client.reconnect(LONG).expect("the same works now");
        works(&mut client);
        drop((client, service));
    });
}

#[test]
fn a_service_without_a_handler_receives_in_spite_of_what_passes() {
    every_fault("s-receive-quiet", "", |run| {
        let name = run.name;
        let mut service = Service::create(name, service_config(name)).expect("created");
        let client = connect(name);
        let sender = std::thread::spawn(move || {
            let sent = client.send_request(&[1, 2, 3]).expect("sent");
            client.receive_response_for(sent, LONG).map(|answer| answer.data().to_vec())
        });
        let request = run.typed(|| match service.receive(SHORT) {
            Ok(mut request) => {
                invert_bytes(request.data_mut());
                request.respond();
                Ok(())
            }
            // The client's connection was ended, on account of the fault.
            Err(Error::Timeout { .. }) => Ok(()),
            Err(error) => Err(error),
        });
        request.expect("nothing that ends the service");
        service.stop().expect("stops");
        match sender.join().expect("ends") {
            Ok(answer) => assert_eq!(answer, [254, 253, 252]),
            Err(Error::PeerClosed { .. } | Error::PeerDied { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

fn invert_bytes(data: &mut [u8]) {
    data.iter_mut().for_each(|byte| *byte = !*byte);
}

#[test]
fn a_service_stops_and_whatever_it_cannot_remove_is_for_the_next_one() {
    every_fault("s-stop-quiet", "", |run| {
        let mut service = serve(run.name);
        let mut client = connect(run.name);
        works(&mut client);
        let _ = run.typed(|| service.stop());
        drop((service, client));
        let service = serve(run.name);
        works(&mut connect(run.name));
        drop(service);
    });
}

#[test]
fn a_status_is_read_or_fails() {
    every_fault("s-status", "", |run| {
        let (name, service) = (run.name, serve(run.name));
        let servers = Servers::of(name).expect("a name").directory(directory(name));
        let told = run.undone(|| servers.status(SHORT)?.pop().unwrap_or_else(|| Ok(String::new())));
        assert!(told.is_err() || told.is_ok_and(|text| text.contains("\"limits\"")));
        let told = servers.status(LONG).expect("it listens").pop().expect("one");
        assert!(told.expect("told").contains("\"limits\""));
        drop(service);
    });
}

#[test]
fn what_a_dead_server_has_left_is_removed_or_that_fails() {
    every_fault("s-clean", "", |run| {
        let name = run.name;
        drop(serve(name));
        let servers = Servers::of(name).expect("a name").directory(directory(name));
        let socket = std::os::unix::net::UnixListener::bind(format!(
            "{}/{name}/0123456789abcdef.sock",
            directory(name)
        ));
        // Of a server that was killed: nobody listens.
        drop(socket.expect("bound"));
        let _ = run.typed(|| servers.clean());
        assert!(servers.clean().expect("the same works now"));
    });
}

/// Accepting, the handshake, the segment, and watching the connection.
#[test]
fn whatever_fails_at_the_door_a_client_is_let_in_at_the_next_try() {
    every_fault("s-door-quiet", DOOR, |run| {
        let (name, service) = (run.name, serve(run.name));
        let timeout = if run.lasting { SHORT } else { LONG };
        let _ = run.typed(|| attach(name, timeout).map(|mut client| works(&mut client)));
        works(&mut connect(name));
        all_left(&service);
    });
}

#[test]
fn whatever_fails_at_the_door_says_so_to_a_client_that_tries_once() {
    every_fault("s-door-once", DOOR, |run| {
        let (name, service) = (run.name, serve(run.name));
        let _ = run.typed(|| attach(name, Duration::ZERO).map(|mut client| works(&mut client)));
        works(&mut connect(name));
        all_left(&service);
    });
}

#[test]
fn a_connection_on_which_a_call_fails_is_served_or_ends() {
    every_fault("s-serve-quiet", HANDLER, |run| {
        let (name, service) = (run.name, serve(run.name));
        let (mut client, mut other) = (connect(name), connect(name));
        let _ = run.typed(|| match client.call(&[1, 2, 3], SHORT) {
            Ok(answer) => {
                assert_eq!(answer.data(), [254, 253, 252]);
                Ok(())
            }
            Err(error) => {
                // A server that takes its client for dead frees the memory, in which there are zeros then.
                let kinds = [
                    ErrorKind::Timeout,
                    ErrorKind::PeerClosed,
                    ErrorKind::PeerDied,
                    ErrorKind::ProtocolViolation,
                ];
                assert!(kinds.contains(&error.kind()), "{error}");
                Err(Error::Timeout { waited: SHORT, what: "waiting for a response" })
            }
        });
        works(&mut other);
        works_again(&mut client);
        drop((client, other));
        all_left(&service);
    });
}

#[test]
fn the_memory_and_the_socket_of_a_client_that_has_left_go_whatever_fails() {
    every_fault("s-ends-quiet", ENDS, |run| {
        let mut service = serve(run.name);
        let mut client = connect(run.name);
        works(&mut client);
        run.silent(|| {
            drop(client);
            all_left(&service);
            service.stop().expect("stops");
        });
    });
}
