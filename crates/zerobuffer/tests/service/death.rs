//! Processes that are killed, stopped and forked.

use crate::peer::STAY;
use crate::scene::{LONG, NAME, Scene, eventually};
use std::sync::mpsc::channel;
use std::time::Duration;
use zerobuffer::{ErrorKind, Frame, RequestState, Service};

#[test]
fn a_killed_servers_clients_learn_what_became_of_each_request() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client();
    let answered = client.send_request(&1_u64.to_le_bytes()).unwrap();
    let taken = client.send_request(STAY).unwrap();
    let waiting = client.send_request(&2_u64.to_le_bytes()).unwrap();
    server.expect("staying");
    scene.kill(server);
    let response = client.receive_response_for(answered, LONG).unwrap();
    assert_eq!(response.data(), 2_u64.to_le_bytes());
    for (sequence, state) in [(taken, RequestState::InDoubt), (waiting, RequestState::NotStarted)] {
        let error = client.receive_response_for(sequence, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerDied);
        assert_eq!(error.lost_request().map(|lost| lost.state), Some(state));
    }
    assert_eq!(client.send_request(b"more").unwrap_err().kind(), ErrorKind::PeerDied);
}

/// A thread that sleeps is woken by the end of the socket: there is no slice after which it would look.
#[test]
fn a_client_that_sleeps_hears_of_its_servers_death() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut client = scene.client();
    let pid = server.pid();
    let killer = std::thread::spawn(move || {
        server.expect("staying");
        std::thread::sleep(Duration::from_millis(20));
        // SAFETY: the process is the test's own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        server
    });
    let error = client.call(STAY, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    scene.kill(killer.join().unwrap());
}

#[test]
fn a_killed_client_is_forgotten_and_the_others_are_served() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut other = scene.client();
    let mut killed: Vec<_> = (0..3).map(|_| scene.peer("role=client")).collect();
    for peer in &mut killed {
        peer.expect("under way");
    }
    assert_eq!(server.ask("clients", "clients"), "4");
    killed.into_iter().for_each(zerobuffer_test_support::Peer::kill);
    eventually("one is left", || server.ask("clients", "clients") == "1");
    assert_eq!(other.call(&5_u64.to_le_bytes(), LONG).unwrap().data(), 6_u64.to_le_bytes());
    server.ask("stop", "stopped");
}

#[test]
fn a_handler_hears_that_its_client_has_died() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server workers=2");
    let client = scene.client();
    client.send_request(STAY).unwrap();
    server.expect("staying");
    drop(client);
    server.expect("cancelled");
    server.ask("stop", "stopped");
}

/// The only thread that takes requests is in a handler the whole time.
#[test]
fn clients_that_end_are_noticed_while_every_handler_is_busy() {
    let scene = Scene::new();
    let config = scene.service_config().max_clients(2);
    let mut service = Service::create(NAME, config).unwrap();
    let (says, said) = channel();
    let (release, released) = channel::<()>();
    service
        .start_mut(move |frame: &mut Frame<'_>| {
            says.send("busy").unwrap();
            while !frame.cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            says.send("cancelled").unwrap();
            let _ = released.recv();
        })
        .unwrap();
    let killed = scene.peer("role=client");
    assert_eq!(said.recv(), Ok("busy"));
    let idle = scene.client();
    assert_eq!(service.clients(), 2);
    drop(idle);
    eventually("one that was closed is forgotten", || service.clients() == 1);
    eventually("its memory is free", || mappings_of(&service) == 1);
    killed.kill();
    eventually("one that was killed is forgotten", || service.clients() == 0);
    assert_eq!(said.recv(), Ok("cancelled"));
    assert_eq!(mappings_of(&service), 1, "the handler has it");
    let next = [(); 2].map(|()| scene.client());
    assert_eq!(service.clients(), 2, "both places are free");
    drop(release);
    eventually("its memory is free, too", || mappings_of(&service) == 2);
    drop(next);
    service.stop().unwrap();
}

/// Segments that a service has, by the bytes that it counts.
fn mappings_of(service: &Service) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&service.status().unwrap()).unwrap();
    let one = (1 << 20) + 4096 + 3 * 4096;
    status["segment_bytes"].as_u64().unwrap() / one
}

/// A child that lives on holds nothing of its parent's: neither the socket nor the memory.
#[test]
fn the_end_of_a_client_that_has_forked_is_noticed() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client();
    assert_eq!(server.ask("clients", "clients"), "1");
    // SAFETY: the child makes calls that are allowed after a fork, and no others.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::pause();
            libc::_exit(0);
        }
        child
    };
    drop(client);
    eventually("it has left", || server.ask("clients", "clients") == "0");
    // SAFETY: the process is the test's own child.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    server.ask("stop", "stopped");
}

#[test]
fn a_stopped_server_is_alive_and_another_one_takes_new_clients() {
    let scene = Scene::new();
    let mut stopped = scene.peer("role=server");
    stopped.freeze();
    let mut server = scene.peer("role=server");
    let mut client = scene.client();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    assert_eq!(server.ask("clients", "clients"), "1");
    stopped.go_on();
    drop(client);
    server.ask("stop", "stopped");
    stopped.ask("stop", "stopped");
}

#[test]
fn dead_servers_sockets_are_passed_over_and_removed_by_the_next_server() {
    let scene = Scene::new();
    for _ in 0..3 {
        scene.kill(scene.peer("role=server"));
    }
    // The next one has removed that of the one before.
    assert_eq!(scene.sockets().len(), 1);
    let mut server = scene.peer("role=server");
    let mut client = scene.client();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(client);
    server.ask("stop", "stopped");
}
