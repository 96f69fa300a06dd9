//! Processes that have forked, or started a program, while connections were open, and servers that share a listener
//! they have inherited.

use crate::peer::STAY;
use crate::scene::{LONG, NAME, Scene, eventually};
use std::os::fd::AsRawFd;
use std::time::Duration;
use zerobuffer::{Client, Closer, ErrorKind, Pool};
use zerobuffer_test_support::Peer;

/// With another program in the child, and without.
const WAYS: [&str; 2] = ["fork", "exec"];

/// A process that outlives the one that has made it.
struct Orphan(i32);

impl Orphan {
    fn of(parent: &mut Peer, way: &str) -> Self {
        Self(parent.ask(way, "child ").parse().expect("its id"))
    }

    #[track_caller]
    fn check_alive(&self) {
        // SAFETY: signal 0 only looks.
        assert_eq!(unsafe { libc::kill(self.0, 0) }, 0, "it has ended");
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        // SAFETY: the process is one that a child of this test's has made.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

#[test]
fn the_death_of_a_server_is_noticed_although_its_child_lives_on() {
    for way in WAYS {
        let scene = Scene::new();
        let mut server = scene.peer("role=server");
        let client = scene.client();
        let sequence = client.send_request(STAY).unwrap();
        server.expect("staying");
        let orphan = Orphan::of(&mut server, way);
        scene.kill(server);
        let error = client.receive_response_for(sequence, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerDied, "{way}");
        // The child keeps no listener either: the next server removes the socket, and is found at once.
        let mut next = scene.peer("role=server");
        assert_eq!(scene.sockets().len(), 1, "{way}");
        serves(&mut scene.client());
        orphan.check_alive();
        next.ask("stop", "stopped");
    }
}

#[test]
fn the_stop_of_a_server_is_noticed_although_its_child_lives_on() {
    for way in WAYS {
        let scene = Scene::new();
        let mut server = scene.peer("role=server");
        let client = scene.client();
        let orphan = Orphan::of(&mut server, way);
        let waiting = std::thread::spawn(move || client.receive_response(LONG).map(drop));
        server.ask("stop", "stopped");
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed, "{way}");
        orphan.check_alive();
    }
}

#[test]
fn the_end_of_a_client_is_noticed_although_its_child_lives_on() {
    for (way, is_killed) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let scene = Scene::new();
        let mut server = scene.peer("role=server");
        let mut client = scene.peer("role=crowd count=3");
        assert_eq!(server.ask("clients", "clients"), "3");
        let orphan = Orphan::of(&mut client, way);
        if is_killed {
            client.kill();
        } else {
            client.ask("leave", "left");
        }
        eventually("they have left", || server.ask("clients", "clients") == "0");
        orphan.check_alive();
        server.ask("stop", "stopped");
    }
}

/// A thread that the child does not have may hold a lock of theirs, and the child has no part of their memory.
#[test]
fn what_a_forked_child_has_to_close_a_pool_and_a_service_does_nothing() {
    let (scene, own) = (Scene::new(), Scene::new());
    let mut service = own.service();
    let mut server = scene.peer("role=server");
    let config = scene.client_config();
    let pool = Pool::connect_with(NAME, 1, LONG, config).unwrap();
    let closes_nothing = || {
        let closers = [pool.closer(), service.closer()];
        let were_closed = closers.iter().all(Closer::is_closed);
        closers.iter().for_each(Closer::close);
        pool.close();
        were_closed && closers.iter().all(Closer::is_closed)
    };
    // SAFETY: of what the child does, only the allocator minds that the child has no other threads, and glibc puts that
    // right.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            libc::_exit(i32::from(!closes_nothing()));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert_eq!(status, 0, "a signal, or the child found a fault");
    assert_eq!(pool.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(pool);
    server.ask("stop", "stopped");
    let error = service.receive(Duration::ZERO).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "it goes on");
}

fn serves(client: &mut Client) {
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
}

#[test]
fn servers_that_share_a_listener_share_its_clients_and_outlive_each_other() {
    let scene = Scene::new();
    let (listener, path) = crate::raw::listener(&scene);
    // For those that are started from here.
    // SAFETY: the call takes integers.
    unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETFD, 0) };
    let server = format!("role=server listener={}", listener.as_raw_fd());
    let mut servers = [(); 3].map(|()| scene.peer(&server));
    let mut clients: Vec<Client> = (0..12).map(|_| scene.client()).collect();
    clients.iter_mut().for_each(serves);
    let mut counts = servers.each_mut().map(|server| server.ask("clients", "clients"));
    let of_first: usize = counts[0].parse().unwrap();
    counts.sort();
    let all: usize = counts.iter().map(|count| count.parse::<usize>().unwrap()).sum();
    assert_eq!(all, 12);
    // One is killed, and one stops: the last one takes all that come.
    let [killed, mut stopped, mut last] = servers;
    killed.kill();
    stopped.ask("stop", "stopped");
    let lost = clients.iter_mut().filter_map(|client| client.call(&[0; 8], LONG).map(drop).err());
    let kinds: Vec<ErrorKind> = lost.map(|error| error.kind()).collect();
    let died = kinds.iter().filter(|kind| **kind == ErrorKind::PeerDied).count();
    assert_eq!(died, of_first, "{kinds:?}");
    assert!(kinds.iter().all(|kind| [ErrorKind::PeerDied, ErrorKind::PeerClosed].contains(kind)));
    let mut more: Vec<Client> = (0..5).map(|_| scene.client()).collect();
    more.iter_mut().for_each(serves);
    drop((clients, more));
    last.ask("stop", "stopped");
    assert!(std::path::Path::new(&path).exists(), "it was given, and is left alone");
    std::fs::remove_file(path).unwrap();
}
