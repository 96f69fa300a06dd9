//! Names: leftovers, names that are taken by something else, names that vanish.

use crate::harness::{LONG, SOON, Scene, eventually, fails, names, scene};
use crate::work;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ErrorKind, Frame, Server, ServerConfig};

const SEMAPHORES: [&str; 4] =
    ["request-ready", "response-ready", "response-consumed", "space-available"];

fn segment(name: &str) -> PathBuf {
    format!("/dev/shm/{name}_duplex").into()
}

fn semaphore(name: &str, which: &str) -> PathBuf {
    format!("/dev/shm/sem.sem-{which}-{name}").into()
}

fn serve(name: &str) -> Server {
    let mut server = Server::create(name, BufferConfig::new(0, 4096)).unwrap();
    server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
    server
}

#[track_caller]
fn works(client: &mut Client) {
    work::check(client.call(&work::bytes(3000, 1), LONG).unwrap().data(), 3000, 1);
}

#[test]
fn whatever_a_killed_server_can_leave_behind_is_replaced() {
    scene(|t| {
        let version = 88_u64 | 2 << 32;
        let mut finished = vec![0_u8; 8192];
        finished[..8].copy_from_slice(&version.to_le_bytes());
        for content in [vec![], vec![0; 176], vec![0; 1 << 20], finished] {
            fs::write(segment(t.name()), &content).unwrap();
            fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
            for which in SEMAPHORES {
                // 200 tokens and 3 waiters that are no more.
                let mut bytes = [0_u8; 32];
                (bytes[0], bytes[4], bytes[8]) = (200, 3, 0x80);
                fs::write(semaphore(t.name(), which), bytes).unwrap();
            }
            let server = serve(t.name());
            let mut client = t.client();
            works(&mut client);
            t.expect_few_tokens();
            drop((client, server));
        }
        // Semaphores alone.
        fs::write(semaphore(t.name(), "request-ready"), [0; 32]).unwrap();
        drop(serve(t.name()));
    });
}

/// What stands under a name, to be compared: kind, size, owner, and content.
fn look(path: &Path) -> (u32, u64, u64, Option<Vec<u8>>) {
    let stat = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (stat.mode(), stat.ino(), stat.size(), stat.is_file().then(|| fs::read(path).unwrap()))
}

fn squat(path: &Path, how: &str) {
    match how {
        "link" => symlink("/etc/hostname", path).unwrap(),
        "dangling link" => symlink("/nowhere", path).unwrap(),
        "directory" => fs::create_dir(path).unwrap(),
        "text" => fs::write(path, "A".repeat(8192)).unwrap(),
        "short" => fs::write(path, "A".repeat(31)).unwrap(),
        "longer" => fs::write(path, "A".repeat(33)).unwrap(),
        "empty" => fs::write(path, "").unwrap(),
        "pipe" => {
            let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the path is NUL-terminated.
            assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        }
        how => panic!("{how}"),
    }
}

fn clear(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

#[test]
fn a_server_leaves_whatever_is_not_its_own_as_it_is() {
    scene(|t| {
        let mut cases = Vec::new();
        for how in ["link", "dangling link", "directory", "text", "short", "pipe"] {
            cases.push((segment(t.name()), how));
        }
        for which in SEMAPHORES {
            for how in
                ["link", "dangling link", "directory", "text", "short", "longer", "empty", "pipe"]
            {
                cases.push((semaphore(t.name(), which), how));
            }
        }
        for (path, how) in cases {
            squat(&path, how);
            let before = look(&path);
            let outcome = Server::create(t.name(), BufferConfig::new(0, 4096));
            let error = outcome.err().unwrap_or_else(|| panic!("{how} {path:?}: a server"));
            assert_eq!(error.kind(), ErrorKind::ForeignObject, "{how} {path:?}: {error:?}");
            assert_eq!(look(&path), before, "{how} {path:?}");
            assert_eq!(names(t.name()).len(), 1, "{how} {path:?}: {:?}", names(t.name()));
            clear(&path);
        }
        drop(serve(t.name()));
    });
}

#[test]
fn a_client_leaves_whatever_is_no_channel_as_it_is() {
    scene(|t| {
        let path = segment(t.name());
        for (how, kind) in [
            ("link", ErrorKind::ForeignObject),
            ("dangling link", ErrorKind::ForeignObject),
            ("directory", ErrorKind::ForeignObject),
            ("pipe", ErrorKind::ForeignObject),
            ("short", ErrorKind::ForeignObject),
            // Nobody serves it, whatever it is.
            ("text", ErrorKind::NotRunning),
            ("empty", ErrorKind::NotRunning),
        ] {
            squat(&path, how);
            let before = look(&path);
            let error = Client::connect(t.name(), Duration::ZERO).err().unwrap();
            assert_eq!(error.kind(), kind, "{how}: {error:?}");
            assert_eq!(look(&path), before, "{how}");
            clear(&path);
        }

        let server = serve(t.name());
        for which in SEMAPHORES {
            let path = semaphore(t.name(), which);
            let away = format!("/dev/shm/away-{}", t.name());
            for how in
                ["link", "dangling link", "directory", "pipe", "text", "short", "longer", "empty"]
            {
                fs::rename(&path, &away).unwrap();
                squat(&path, how);
                let before = look(&path);
                let error = Client::connect(t.name(), Duration::ZERO).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::ForeignObject, "{how} {which}: {error:?}");
                assert_eq!(look(&path), before, "{how}");
                clear(&path);
                fs::rename(&away, &path).unwrap();
            }
            fs::rename(&path, &away).unwrap();
            fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
            fs::rename(&away, &path).unwrap();
        }
        works(&mut t.client());
        drop(server);
    });
}

/// Holds byte 0 of a segment of these words, as a server does.
fn impostor(t: &Scene, words: &[(usize, u64)], size: usize) -> fs::File {
    let mut bytes = vec![0; size];
    for (offset, value) in words {
        bytes[*offset..*offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(segment(t.name()), bytes).unwrap();
    let file = fs::File::options().read(true).write(true).open(segment(t.name())).unwrap();
    // The former impostor may live on for a moment in a child that another test is starting.
    eventually("the lock on byte 0", || {
        // SAFETY: an all-zero flock is valid, and the descriptor is open.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_WRLCK as libc::c_short;
            lock.l_len = 1;
            libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) == 0
        }
    });
    file
}

#[test]
fn a_client_refuses_segments_of_other_versions_and_impossible_sizes() {
    scene(|t| {
        let version = 88_u64 | 2 << 32;
        let good = [
            (0x00, version),
            (0x20, 4096),
            (0x28, 4096),
            (0x58, version),
            (0x78, 4096),
            (0x80, 4096),
            (0x50, 1),
            (0xa0, 1),
        ];
        let incompatible = ErrorKind::Incompatible;
        let violation = ErrorKind::ProtocolViolation;
        for (changed, size, kind) in [
            // Version 1 has blocks of 128 bytes.
            ((0x00, 128 | 1 << 32), 8192, incompatible),
            ((0x00, 88 | 3 << 32), 8192, incompatible),
            ((0x00, 88 | 1 << 32), 8192, incompatible),
            ((0x58, 88 | 3 << 32), 8192, incompatible),
            ((0x58, 0), 8192, incompatible),
            ((0x20, 4032), 8192, violation),
            ((0x78, 4160), 8192, violation),
            ((0x08, 64), 8192 + 4096, violation),
            ((0x08, 1), 8192, violation),
            ((0x08, u64::MAX - 63), 8192, violation),
            ((0x60, 1 << 62), 8192, violation),
            ((0x00, version), 8192 + 64, violation),
            ((0x00, version), 8192 - 64, violation),
            ((0x00, version), 4096, violation),
            ((0x00, version), 176, violation),
        ] {
            let mut words = good.to_vec();
            words.push(changed);
            let file = impostor(t, &words, size);
            let error = Client::connect(t.name(), Duration::ZERO).err().unwrap();
            assert_eq!(error.kind(), kind, "{changed:x?} {size}: {error:?}");
            drop(file);
        }
        // A newer minor version, and nothing wrong but the semaphores.
        let mut words = good.to_vec();
        words.extend([(0x00, 88 | 2 << 32 | 7 << 40), (0x58, 88 | 2 << 32 | 7 << 40)]);
        let file = impostor(t, &words, 8192);
        let error = fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
        assert!(error.to_string().contains("semaphores"), "{error}");
        drop(file);
        clear(&segment(t.name()));
    });
}

#[test]
fn the_objects_of_two_channels_never_get_into_each_others_way() {
    scene(|t| {
        // The segment of one has the name of a semaphore of the other.
        let one = format!("{}_duplex", t.name());
        let other = format!("sem.sem-request-ready-{}", t.name());
        let server = serve(&one);
        fails(Server::create(&other, BufferConfig::new(0, 4096)), ErrorKind::ForeignObject);
        works(&mut Client::connect(&one, LONG).unwrap());
        drop(server);
        let server = serve(&other);
        fails(Server::create(&one, BufferConfig::new(0, 4096)), ErrorKind::ForeignObject);
        works(&mut Client::connect(&other, LONG).unwrap());
        drop(server);
    });
}

#[test]
fn a_pair_goes_on_when_its_names_are_removed_and_the_server_then_makes_new_ones() {
    scene(|t| {
        let server = t.server("payload=4096");
        let mut client = t.client();
        works(&mut client);
        names(t.name()).iter().for_each(|path| fs::remove_file(path).unwrap());
        for _ in 0..30 {
            works(&mut client);
            std::thread::sleep(Duration::from_millis(5));
        }
        fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
        drop(client);
        let mut client = Client::connect(t.name(), SOON).unwrap();
        works(&mut client);
        drop(client);

        // With nobody attached, too.
        drop(Client::connect(t.name(), SOON).unwrap());
        names(t.name()).iter().for_each(|path| fs::remove_file(path).unwrap());
        let mut client = Client::connect(t.name(), SOON).unwrap();
        works(&mut client);
        drop(client);
        server.stop();
    });
}

#[test]
fn an_idle_server_makes_anew_whatever_of_its_objects_is_lost() {
    scene(|t| {
        let server = t.server("payload=4096");
        let all = names(t.name());
        assert_eq!(all.len(), 5);
        for replaced in [false, true] {
            for lost in &all {
                let inode = || fs::metadata(segment(t.name())).map_or(0, |found| found.ino());
                // The server has replaced what the latest client has used, and is idle.
                let mut client = Client::connect(t.name(), LONG).unwrap();
                works(&mut client);
                let old = inode();
                drop(client);
                eventually("an idle server", || ![0, old].contains(&inode()));
                eventually("all names", || names(t.name()) == all);
                let bytes = fs::read(lost).unwrap();
                fs::remove_file(lost).unwrap();
                if replaced {
                    fs::write(lost, bytes).unwrap();
                }
                // A client may come before the server has seen it, and wait for nobody.
                eventually("service", || {
                    Client::connect(t.name(), LONG).unwrap().call(&[1; 50], SOON).is_ok()
                });
                // Between two clients there are none for a moment.
                eventually(lost, || names(t.name()) == all);
            }
        }
        server.stop();
    });
}

#[test]
fn a_server_whose_names_went_to_another_one_touches_nothing_of_it() {
    scene(|t| {
        let mut old = t.server("payload=4096");
        let mut client = t.client();
        works(&mut client);
        names(t.name()).iter().for_each(|path| fs::remove_file(path).unwrap());
        let new = t.server("payload=4096 metadata=new");
        works(&mut client);
        drop(client);
        // The old one stops when it finds the name taken.
        eventually("the end of the old server", || old.ask("running", "") == "false");
        let mut client = t.client();
        assert_eq!(client.server_metadata(), b"new");
        assert!(old.ask("stop", "failed").starts_with("AlreadyRunning"));
        works(&mut client);
        drop(client);
        drop(old);
        works(&mut t.client());
        new.stop();
    });
}

/// Its semaphores would stay for ever: the next server of the name removes them, and there may be none.
#[test]
fn a_server_whose_segments_name_was_removed_leaves_no_semaphore_behind() {
    scene(|t| {
        for some in [false, true] {
            let mut server = serve(t.name());
            // With a client attached the server goes on with what it has.
            let mut client = t.client();
            works(&mut client);
            fs::remove_file(segment(t.name())).unwrap();
            // Somebody else's, by now.
            if some {
                fs::remove_file(semaphore(t.name(), SEMAPHORES[1])).unwrap();
            }
            works(&mut client);
            server.stop().unwrap();
            assert_eq!(crate::harness::names(t.name()), [""; 0]);
        }
    });
}

#[test]
fn bad_names_are_refused_by_both_sides() {
    scene(|_| {
        let long = "x".repeat(201);
        for name in ["", ".", "..", ".x", "/", "a/b", "../a", "a\0b", "a b", "ä", "a\n", &long] {
            fails(Client::connect(name, LONG), ErrorKind::BadName);
            fails(Server::create(name, ServerConfig::default()), ErrorKind::BadName);
        }
    });
}

#[test]
fn the_longest_name_works() {
    scene(|t| {
        let name = format!("{}{}", t.name(), "x".repeat(200 - t.name().len()));
        let server = serve(&name);
        works(&mut Client::connect(&name, LONG).unwrap());
        drop(server);
    });
}
