//! Clients that keep to no rule: what they do ends their own connection, and nothing else.

use crate::peer::handler;
use crate::raw::{Raw, hello};
use crate::scene::{LONG, NAME, Scene, descriptors, eventually};
use std::os::fd::AsRawFd;
use zerobuffer::{Client, Service};

/// A service with a client whose calls must go on, while `attack` goes against it.
fn under_attack(attack: impl FnOnce(&Scene, &Service)) {
    let scene = Scene::new();
    let mut service = scene.service();
    service.start(handler).unwrap();
    let mut client = scene.client();
    let mut call = |number: u64| {
        let response = client.call(&number.to_le_bytes(), LONG).unwrap();
        assert_eq!(response.data(), (number + 1).to_le_bytes());
    };
    call(1);
    attack(&scene, &service);
    call(2);
    eventually("the attackers are forgotten", || service.clients() == 1);
    call(3);
    service.stop().unwrap();
}

#[test]
fn what_is_no_hello_is_closed_without_a_word() {
    under_attack(|scene, _| {
        let mut wrong = hello();
        wrong[0] = b'z';
        for bytes in [&hello()[..63], &[0; 64], &wrong, &[7; 257], &[1]] {
            let mut raw = Raw::connect(scene);
            raw.send(bytes);
            assert_eq!(raw.receive(), b"", "{} bytes", bytes.len());
        }
    });
}

#[test]
fn a_hello_of_another_version_is_refused_with_the_reason() {
    under_attack(|scene, _| {
        for (at, value) in [(8, 2), (12, 9), (12, 0), (32, 2)] {
            let mut wrong = hello();
            wrong[at] = value;
            let mut raw = Raw::connect(scene);
            raw.send(&wrong);
            let reply = raw.receive();
            assert_eq!(reply[12], 1, "byte {at} is {value}");
            assert!(reply.len() > 64, "and says why");
            assert_eq!(raw.receive(), b"");
        }
    });
}

#[test]
fn a_load_is_told_without_a_segment() {
    under_attack(|scene, _| {
        let mut ask = hello();
        ask[12] = 3;
        let mut raw = Raw::connect(scene);
        raw.send(&ask);
        let reply = raw.receive();
        assert_eq!((reply[12], reply[32], reply[36]), (0, 1, 64), "one client of 64");
        assert!(raw.segment.is_none());
        assert_eq!(raw.receive(), b"");
    });
}

#[test]
fn silent_connections_end_and_keep_nobody_out() {
    under_attack(|scene, _| {
        let mut silent: Vec<Raw> = (0..300).map(|_| Raw::connect(scene)).collect();
        let mut client = scene.client();
        client.call(&1_u64.to_le_bytes(), LONG).unwrap();
        for raw in &mut silent {
            assert!(raw.is_ended(), "after two seconds at the latest");
        }
    });
}

#[test]
fn more_bells_than_a_server_has_armed_end_the_connection() {
    under_attack(|scene, _| {
        let mut raw = Raw::attach(scene);
        for _ in 0..50 {
            raw.send(&[1]);
        }
        assert!(raw.is_ended());
    });
}

#[test]
fn a_bell_of_another_length_and_an_empty_one_end_the_connection() {
    under_attack(|scene, _| {
        for bytes in [&b"two"[..], b""] {
            let mut raw = Raw::attach(scene);
            raw.send(bytes);
            assert!(raw.is_ended(), "{} bytes", bytes.len());
        }
    });
}

#[test]
fn descriptors_are_kept_out_or_end_the_connection() {
    under_attack(|scene, _| {
        let before = descriptors("/dev/null");
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut silent = Raw::connect(scene);
        let mut attached = Raw::attach(scene);
        for raw in [&mut silent, &mut attached] {
            let sent = raw.send_descriptor(null.as_raw_fd());
            assert!(!sent || raw.is_ended());
        }
        eventually("none is kept", || descriptors("/dev/null") == before + 1);
    });
}

/// Who connects to a given listener before the service has it can attach what it likes on every kernel, as anybody
/// can on an old one. Each of these descriptors takes minutes to close, and nobody waits for that: not the next
/// client, nor one that is served, nor the memory of one that ends.
#[test]
fn descriptors_that_take_long_to_close_hold_up_nobody() {
    let scene = Scene::new();
    let (listener, path) = crate::raw::listener(&scene);
    let (mut load, mut silent) = (hello(), hello());
    (load[12], silent[0]) = (3, b'z');
    // With a hello, with one that is no hello, behind one that is answered at once, as a bell.
    let attacks: [(&[u8], &[u8]); 4] =
        [(b"", &hello()), (b"", &silent), (&load, &[1]), (&hello(), &[1])];
    let mut links = Vec::new();
    let mut attackers = attacks.map(|(first, second)| {
        let raw = Raw::connect(&scene);
        assert!(first.is_empty() || raw.send(first));
        let (socket, peer) = crate::raw::lingering();
        assert!(raw.send_with(second, socket.as_raw_fd()));
        links.push(crate::raw::link_of(socket.as_raw_fd()));
        (raw, peer)
    });
    let config = scene.service_config().listener(listener.as_raw_fd());
    let mut service = Service::create(NAME, config).unwrap();
    service.start(handler).unwrap();
    let mut client = scene.client();
    for (raw, _) in &mut attackers {
        assert!(raw.is_ended());
    }
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    let mut next = scene.client();
    assert_eq!(next.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(next);
    let bytes = || crate::status::parsed(&service)["segment_bytes"].as_u64().unwrap();
    eventually("one client has memory", || bytes() < 2 << 20);
    // While the other ends are still there: none waits for the one before.
    eventually("all are closed", || !links.iter().any(|link| crate::raw::is_open(link)));
    drop(attackers);
    service.stop().unwrap();
    std::fs::remove_file(path).unwrap();
}

/// Every byte of the segment, one place after the other.
#[test]
fn whatever_a_client_writes_into_its_segment_ends_its_own_connection_at_most() {
    under_attack(|scene, _| {
        for fill in [0x00, 0x01, 0x7f, 0xff] {
            let raw = Raw::attach(scene);
            let size = raw.segment.unwrap().1;
            for offset in (0..size.min(16 << 10)).step_by(64).chain([size - 4096, size - 4032]) {
                raw.write(offset, &[fill; 64]);
                raw.send(&[1]);
            }
        }
    });
}

#[test]
fn a_segment_is_sealed_and_its_memory_goes_back_when_its_client_ends() {
    under_attack(|scene, service| {
        let raw = Raw::attach(scene);
        raw.write(8192, b"still here");
        assert_eq!(raw.read(8192), b's');
        // SAFETY: the descriptor is this one's own.
        unsafe { libc::shutdown(raw.socket.as_raw_fd(), libc::SHUT_RDWR) };
        eventually("it is forgotten", || service.clients() == 1);
        eventually("its memory is freed, although it is still mapped", || raw.read(8192) == 0);
    });
}

#[test]
fn a_thousand_connections_that_come_and_go_do_no_harm() {
    under_attack(|scene, _| {
        for round in 0..1000 {
            let raw = Raw::connect(scene);
            if round % 3 == 0 {
                raw.send(&hello());
            }
        }
    });
}

/// Eight attackers at full speed, and a client whose responses stay right.
#[test]
fn the_others_responses_stay_right_while_clients_scribble() {
    let scene = Scene::new();
    let mut service = Service::create(NAME, scene.service_config().workers(2)).unwrap();
    service.start(handler).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (done, scene) = (&done, &scene);
    let mut clients: Vec<Client> = (0..2).map(|_| scene.client()).collect();
    let directory = scene.directory.clone();
    std::thread::scope(|scope| {
        for seed in 0..4_u64 {
            let attacker = Attacker { directory: directory.clone(), seed };
            scope.spawn(move || attacker.run(done));
        }
        let callers: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    for number in 0..2000_u64 {
                        let response = client.call(&number.to_le_bytes(), LONG).unwrap();
                        assert_eq!(response.data(), (number + 1).to_le_bytes());
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    drop(clients);
    service.stop().unwrap();
}

struct Attacker {
    directory: String,
    seed: u64,
}

impl Attacker {
    fn run(self, done: &std::sync::atomic::AtomicBool) {
        let mut random = zerobuffer_test_support::Rng(self.seed + 1);
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let Some(mut raw) = Raw::try_connect(&self.directory) else { continue };
            raw.send(&hello());
            raw.receive();
            let Some((_, size)) = raw.segment else { continue };
            for _ in 0..200 {
                let offset = random.below(size - 8) & !7;
                let offset = if random.below(2) == 0 { offset % 16384 } else { offset };
                raw.write(offset, &random.next_word().to_le_bytes());
                if random.below(4) == 0 {
                    raw.send(&[1]);
                }
            }
        }
    }
}

/// The state of the first request's slot as no client leaves it there: a response.
const STRAY: u64 = 1 << 8 | 2;

#[test]
fn a_word_that_no_client_writes_keeps_no_server_awake() {
    for workers in [1, 2] {
        let scene = Scene::new();
        let server = scene.peer(&format!("role=server ring=65536 workers={workers}"));
        let raw = Raw::attach(&scene);
        raw.write_first_state(65536, STRAY);
        assert!(raw.send(&[1]));
        let sleeps = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S'))
        };
        // Not only between two wake-ups.
        for _ in 0..20 {
            eventually("its threads sleep", || {
                let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid()));
                tasks.expect("/proc").flatten().all(sleeps)
            });
        }
        drop(raw);
        server.finish();
    }
}

#[test]
fn a_word_that_no_client_writes_makes_no_descriptor_readable() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let scene = Scene::new();
    let mut service = Service::create(NAME, scene.service_config().ring(65536)).unwrap();
    let raw = Raw::attach(&scene);
    raw.write_first_state(65536, STRAY);
    assert!(raw.send(&[1]));
    eventually("it has heard the bell and goes back to sleep", || {
        assert!(service.try_receive().unwrap().is_none());
        let mut descriptors = [PollFd::new(&service, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut descriptors, Some(&now)).unwrap() == 0
    });
}

/// A server between a client and a real one: it passes the hello on, and the reply as `reply` does.
fn between(reply: impl FnOnce(&Raw, &[u8], &std::os::fd::OwnedFd)) -> zerobuffer::Result<()> {
    let (scene, real) = (Scene::new(), Scene::new());
    let server = real.peer("role=server");
    let (listener, path) = crate::raw::listener(&scene);
    let outcome = std::thread::scope(|scope| {
        let config = scene.client_config().channel(zerobuffer::ChannelKind::Service);
        let calling = scope.spawn(|| {
            let mut client = zerobuffer::Client::connect_with(NAME, LONG, config)?;
            client.call(b"a number", LONG).map(drop)
        });
        let mut client = crate::raw::accepted(&listener);
        let worker = Raw::connect(&real);
        assert!(worker.send(&client.receive()));
        let (bytes, segment) = worker.receive_file();
        reply(&client, &bytes, &segment.expect("accepted"));
        calling.join().unwrap()
    });
    std::fs::remove_file(path).unwrap();
    server.finish();
    outcome
}

/// What a server sends to a client takes as long to close as it wishes, too.
#[test]
fn descriptors_of_a_server_that_take_long_to_close_hold_up_no_client() {
    let (socket, peer) = crate::raw::lingering();
    let link = crate::raw::link_of(socket.as_raw_fd());
    let in_place_of_the_segment = between(|client, reply, _| {
        assert!(client.send_with(reply, socket.as_raw_fd()));
        drop(socket);
    });
    let is_violation = |outcome: zerobuffer::Result<()>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), zerobuffer::ErrorKind::ProtocolViolation, "{error}");
    };
    is_violation(in_place_of_the_segment);
    eventually("it is closed", || !crate::raw::is_open(&link));
    drop(peer);

    let (socket, peer) = crate::raw::lingering();
    let link = crate::raw::link_of(socket.as_raw_fd());
    let with_a_bell = between(|client, reply, segment| {
        assert!(client.send_with(reply, segment.as_raw_fd()));
        // Sent before the client could have it kept out, or not at all.
        let _ = client.send_descriptor(socket.as_raw_fd());
        drop(socket);
    });
    assert!(with_a_bell.is_err());
    eventually("it is closed", || !crate::raw::is_open(&link));
    drop(peer);
}
