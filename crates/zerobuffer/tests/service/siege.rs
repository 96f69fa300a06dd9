//! A hostile client against a server in a process of its own, while another client calls it: that one's responses stay
//! right, and the server ends up with as much of the system's as it had before.

use crate::raw::{Raw, hello, lingering};
use crate::scene::{LONG, NAME, Scene, allow_descriptors, eventually};
use std::os::fd::{AsRawFd, OwnedFd};
use zerobuffer::Service;
use zerobuffer_test_support::{Peer, not_run};

/// What connections may cost a server at once, in descriptors: those that say nothing, clients and what is being made for
/// them, those that are accepted in one turn, and those that are being closed.
const MOST: usize = 256 + 2 * 64 + 64 + 256;

/// Connections that say nothing and that the attacker keeps open: far more than a server does.
const KEPT: usize = 1500;

/// What a process has of the system's.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    kibibytes: usize,
}

impl Holdings {
    fn of(server: &Peer) -> Self {
        let count = |what| {
            std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).expect("/proc").count()
        };
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("/proc");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("told");
        let kibibytes = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        Self { descriptors: count("fd"), threads: count("task"), kibibytes }
    }

    /// The same again, with what an allocator keeps for the next time.
    fn has_come_back(self, server: &Peer) -> bool {
        let now = Self::of(server);
        now.descriptors <= self.descriptors
            && now.threads <= self.threads
            && now.kibibytes <= self.kibibytes + 8192
    }
}

/// A server that is called all the time, and `attack`, which comes twice: the first one shows what a server needs once.
fn besiege(attack: impl Fn(&Scene, &Peer, Holdings)) {
    let scene = Scene::new();
    let mut server = scene.peer("role=server workers=2");
    let mut caller = scene.peer("role=client");
    caller.expect("under way");
    let first = Holdings::of(&server);
    attack(&scene, &server, first);
    eventually("only the caller is left", || server.ask("clients", "clients") == "1");
    eventually("descriptors have come back", || {
        Holdings::of(&server).descriptors <= first.descriptors
    });
    let before = Holdings::of(&server);
    attack(&scene, &server, before);
    eventually("what the attack took has come back", || before.has_come_back(&server));
    let done = caller.ask("stop", "done ");
    assert!(done.ends_with("in doubt 0"), "{done}");
    server.ask("stop", "stopped");
}

/// A hello of the smallest ring.
fn modest() -> [u8; 64] {
    let mut hello = hello();
    hello[16] = 64;
    hello
}

#[test]
fn thousands_of_connections_in_a_row_cost_a_server_no_more_than_a_few_at_once() {
    if !allow_descriptors(2 * KEPT as u64) {
        return not_run("connections in a row", "the limit of descriptors is lower");
    }
    besiege(|scene, server, before| {
        let mut silent = std::collections::VecDeque::new();
        for round in 0..5000 {
            let raw = Raw::connect(scene);
            match round % 8 {
                0 => drop(raw.send(&modest())),
                1 => drop(raw.send(b"nonsense")),
                _ => silent.push_back(raw),
            }
            if silent.len() > KEPT {
                silent.pop_front();
            }
            if round % 500 == 0 {
                let now = Holdings::of(server);
                assert!(now.descriptors < before.descriptors + MOST, "{now:?} of {before:?}");
                assert!(now.threads <= before.threads, "{now:?} of {before:?}");
            }
        }
    });
}

#[test]
fn floods_of_bells_end_their_own_connections() {
    besiege(|scene, _, _| {
        for _ in 0..50 {
            let mut raw = Raw::attach(scene);
            let mut more = true;
            while more {
                // Until it is refused: by the end, or for want of room.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                // SAFETY: one byte that can be read.
                more =
                    unsafe { libc::send(raw.socket.as_raw_fd(), [1_u8].as_ptr().cast(), 1, flags) }
                        == 1;
            }
            assert!(raw.is_ended());
        }
    });
}

#[test]
fn mappings_that_are_kept_keep_no_memory() {
    besiege(|scene, _, _| keep_mappings(scene));
}

/// As programs do where every microsecond counts.
#[test]
fn mappings_that_are_kept_keep_no_memory_of_a_server_that_locks_its_own() {
    // SAFETY: the call has no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return not_run("a server that locks its memory", "only root may lock any amount");
    }
    let scene = Scene::new();
    let server = scene.peer("role=server locked=yes");
    keep_mappings(&scene);
    server.finish();
}

fn keep_mappings(scene: &Scene) {
    let kept: Vec<(Raw, OwnedFd)> = (0..40)
        .map(|round| {
            let mut raw = Raw::connect(scene);
            assert!(raw.send(&hello()));
            let (reply, file) = raw.receive_file();
            assert_eq!(reply[12], 0, "accepted");
            let file = file.expect("its segment");
            raw.map(&file);
            raw.write(8192 + round, b"mine");
            // SAFETY: the descriptor is this one's own.
            unsafe { libc::shutdown(raw.socket.as_raw_fd(), libc::SHUT_RDWR) };
            (raw, file)
        })
        .collect();
    let blocks = |file: &OwnedFd| {
        // SAFETY: an all-zero stat is valid, and the descriptor is open.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            assert_eq!(libc::fstat(file.as_raw_fd(), &mut stat), 0);
            stat.st_blocks
        }
    };
    eventually("the memory is freed", || kept.iter().all(|(_, file)| blocks(file) == 0));
}

/// Attached before the server was there, so that no kernel can keep them out: with the hello, and with a bell.
#[test]
fn descriptors_whose_close_blocks_hold_up_nobody() {
    let scene = Scene::new();
    let (listener, path) = crate::raw::listener(&scene);
    let (sender, receiver) = lingering();
    let with_bell = Raw::connect(&scene);
    assert!(with_bell.send(&modest()) && with_bell.send_descriptor(sender.as_raw_fd()));
    let with_hello = Raw::connect(&scene);
    assert!(with_hello.send_descriptor(sender.as_raw_fd()));
    drop(with_hello);
    // Not the last one: that is the server's.
    drop(sender);
    let config = scene.service_config().listener(listener.as_raw_fd());
    let mut service = Service::create(NAME, config).unwrap();
    service.start(crate::peer::handler).unwrap();
    let mut client = scene.client();
    for number in 0..100_u64 {
        let response = client.call(&number.to_le_bytes(), LONG).expect("nobody is held up");
        assert_eq!(response.data(), (number + 1).to_le_bytes());
    }
    eventually("the attacker has left", || service.clients() == 1);
    // Its end ends the wait of the thread that closes the other end.
    drop(receiver);
    drop((with_bell, client));
    service.stop().unwrap();
    std::fs::remove_file(path).unwrap();
}

/// What new and departing clients have a server do is done by threads that interrupt none of those that serve, and take no
/// signals.
#[test]
fn threads_that_let_clients_in_and_out_do_not_interrupt_those_that_serve() {
    let scene = Scene::new();
    let server = scene.peer("role=server");
    let threads = || {
        let all = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc");
        let thread = |task: std::fs::DirEntry| {
            // None of a thread that has just ended.
            let read = |file| std::fs::read_to_string(task.path().join(file)).ok();
            let (stat, status) = (read("stat")?, read("status")?);
            let (name, fields) =
                stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).expect("a name");
            // The state is field 3, and the policy field 41.
            let policy =
                fields.split_whitespace().nth(41 - 3).and_then(|policy| policy.parse().ok());
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            Some((name.to_owned(), policy.expect("a number"), blocked.expect("a mask")))
        };
        all.flatten().filter_map(thread).collect::<Vec<(String, i32, u64)>>()
    };
    let stands_back =
        |name: &str| ["zb-door-", "zb-ends-", "zb-closes-"].iter().any(|one| name.starts_with(one));
    let terminate = 1 << (libc::SIGTERM - 1);
    let is_right = |(name, policy, blocked): &(String, i32, u64)| {
        let wanted = if stands_back(name) { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        *policy == wanted && stands_back(name) == (blocked & terminate != 0)
    };
    // A thread that makes another one takes no signals meanwhile, so this becomes true once all are there.
    eventually("three threads to stand back, and the others to take signals", || {
        let all = threads();
        all.iter().filter(|(name, ..)| stands_back(name)).count() == 3 && all.iter().all(is_right)
    });
    server.finish();
}
