//! Memory that is not there, and objects of other users.

use crate::harness::{LONG, Scene, fails, names, not_run, scene};
use crate::work;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind, Frame, Server, ServerConfig};
use zerobuffer_test_support::with_mount;

#[test]
fn a_server_that_asks_for_more_memory_than_there_is_leaves_nothing_behind() {
    scene(|t| {
        let name = t.name().to_owned();
        with_mount("a /dev/shm of 8 MiB", "/dev/shm", "size=8m", move || on_a_small_disk(&name));
    });
}

fn on_a_small_disk(name: &str) {
    const MIB: usize = 1 << 20;
    let create = |payload| Server::create(name, BufferConfig::new(0, payload));
    for payload in [8 * MIB, 9 * MIB, 20 * MIB, 200 << 30] {
        let error = fails(create(payload), ErrorKind::NoSpace);
        let enough = matches!(error, Error::NoSpace { needed, .. } if needed > payload as u64);
        assert!(enough, "{error:?}");
        assert_eq!(names(name), [""; 0]);
    }
    // A failed try does not fill the disk meanwhile, to the loss of others.
    let done = &AtomicBool::new(false);
    let least = std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut least = free();
            while !done.load(Ordering::Relaxed) {
                least = least.min(free());
            }
            least
        });
        for _ in 0..100 {
            fails(create(9 * MIB), ErrorKind::NoSpace);
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert!(least >= 7 * MIB as u64, "only {least} bytes were left for others");

    // Room for the segment, none for the semaphores.
    let rest = free();
    let mut server = create(rest as usize - 4096 - 2 * 4096).err();
    if let Some(error) = server.take() {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    }
    assert_eq!(names(name), [""; 0]);

    // Pages are reserved: a process that fills the disk later does no harm.
    let mut server = create(4 * MIB).unwrap();
    server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
    let mut client = Client::connect(name, LONG).unwrap();
    let filled = fs::write("/dev/shm/filler", vec![1; 8 * MIB]);
    assert!(filled.is_err() && free() == 0);
    let len = client.max_request_size();
    work::check(client.call(&work::bytes(len, 1), LONG).unwrap().data(), len, 1);
    drop(client);
    // The next segment takes the place of the old one, or waits for the process that fills it first.
    fs::write("/dev/shm/filler2", vec![1; 8 * MIB]).unwrap_err();
    if let Err(error) = Client::connect(name, Duration::from_millis(100)) {
        assert_eq!(error.kind(), ErrorKind::NotRunning, "{error:?}");
    }
    assert!(server.is_running());
    fs::remove_file("/dev/shm/filler").unwrap();
    fs::remove_file("/dev/shm/filler2").unwrap();
    let mut client = Client::connect(name, LONG).unwrap();
    work::check(client.call(&work::bytes(len, 2), LONG).unwrap().data(), len, 2);
    drop((client, server));
    assert_eq!(names(name), [""; 0]);
}

fn free() -> u64 {
    // SAFETY: an all-zero statvfs is valid, and the path is NUL-terminated.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(c"/dev/shm".as_ptr(), &mut stat), 0);
        stat.f_bavail * stat.f_bsize
    }
}

/// Runs `body` where it can become another user, or says that `what` was not tested.
fn as_root(what: &str, body: impl FnOnce(&Scene) + Send + 'static) {
    // SAFETY: geteuid has no preconditions.
    match unsafe { libc::geteuid() } {
        0 => scene(body),
        _ => not_run(what, "needs root"),
    }
}

#[test]
fn another_users_channel_is_closed_by_default() {
    as_root("channels of the default mode, as another user", |t| {
        let server = t.server("");
        let mut stranger = t.peer("role=client uid=65534");
        stranger.expect("ready");
        let start = Instant::now();
        for owner in ["", "owner=0"] {
            let said = stranger.ask(&format!("connect ms=20000 {owner}"), "err PermissionDenied");
            for word in ["_duplex", "owner: user 0", "mode 0600", "set a wider `mode`"] {
                assert!(said.contains(word), "no {word:?} in: {said}");
            }
        }
        assert!(start.elapsed() < LONG, "is not waited for");
        // A stranger's server of the same name.
        let mut rival = t.peer("role=server uid=65534");
        rival.expect("failed ForeignObject");
        drop(rival);
        let mut client = t.client();
        work::check(client.call(&work::bytes(10, 1), LONG).unwrap().data(), 10, 1);
        drop(client);
        stranger.stop();
        server.stop();
    });
}

#[test]
fn a_channel_of_a_wider_mode_serves_other_users_that_trust_its_owner() {
    as_root("channels of a wider mode, as another user", |t| {
        let server = t.server("mode=666");
        let mut stranger = t.peer("role=client uid=65534");
        stranger.expect("ready");
        let said = stranger.ask("connect", "err ForeignObject");
        assert!(said.contains("set `owner` to 0"), "{said}");
        stranger.ask("connect owner=1", "err ForeignObject");
        stranger.ask("connect owner=0", "ok");
        stranger.ask("call len=30000 seed=1", "ok");
        stranger.ask("close", "ok");
        stranger.stop();
        // A leftover of another user is not ours to clean up, even though the mode would allow it. The
        // server has made its next segment when the next client has seen it.
        drop(t.client());
        t.kill(server);
        let mut rival = t.peer("role=server uid=65534");
        rival.expect("failed ForeignObject");
    });
}

#[test]
fn a_semaphore_of_another_user_is_left_alone() {
    as_root("semaphores of another user", |t| {
        let path = format!("/dev/shm/sem.sem-space-available-{}", t.name());
        fs::write(&path, [0; 32]).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let outcome = Server::create(t.name(), BufferConfig::default());
        let error = fails(outcome, ErrorKind::ForeignObject);
        assert!(matches!(error, Error::ForeignObject { uid: 65_534, .. }), "{error:?}");
        assert_eq!(names(t.name()).len(), 1);
        fs::remove_file(&path).unwrap();
    });
}

#[test]
fn the_objects_have_the_mode_that_was_asked_for_whatever_the_umask_is() {
    scene(|t| {
        for (mode, expected) in [("", 0o600), ("mode=660", 0o660), ("mode=666", 0o666)] {
            let server = t.server(mode);
            let files = names(t.name());
            assert_eq!(files.len(), 5, "{files:?}");
            for file in files {
                let stat = fs::metadata(&file).unwrap();
                assert_eq!(stat.mode() & 0o777, expected, "{file}");
            }
            server.stop();
        }
    });
}

#[test]
fn one_hundred_channels_in_one_process_come_and_go() {
    scene(|t| {
        let mut servers: Vec<_> = (0..100)
            .map(|n| {
                let config = ServerConfig::new(BufferConfig::new(0, 4096));
                let mut server = Server::create(&t.other(&format!("{n}x")), config).unwrap();
                server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
                server
            })
            .collect();
        let mut clients: Vec<_> =
            (0..100).map(|n| Client::connect(&t.other(&format!("{n}x")), LONG).unwrap()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let seed = n as u64;
            work::check(client.call(&work::bytes(1000, seed), LONG).unwrap().data(), 1000, seed);
        }
        drop(clients);
        servers.iter_mut().for_each(|server| server.stop().unwrap());
    });
}

#[test]
fn an_error_of_the_system_that_is_a_shortage_says_what_helps() {
    for (operation, errno, helps) in [
        ("open", libc::EMFILE, "`ulimit -n`"),
        ("open", libc::ENFILE, "fs.file-max"),
        ("map", libc::ENOMEM, "`ulimit -v`"),
        ("start the thread", libc::EAGAIN, "`ulimit -u`"),
    ] {
        let text = Error::System { operation, object: "x".to_owned(), errno }.to_string();
        assert!(text.starts_with(&format!("{operation} failed on x: ")), "{text}");
        assert!(text.contains(helps), "{text}");
    }
}
