//! A service in operation: sockets that systemd makes, containers, and restarts that nobody notices
//! (docs/containers.md).

use crate::support::{
    Folder, Name, RUNTIME, Served, check_call, directory_of, noise, run, sockets, zerobuffer,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::{Client, ClientConfig};
use zerobuffer_test_support::not_run;

const LONG: Duration = Duration::from_secs(60);

fn make_directory(path: &str) {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}

/// A listening socket as systemd makes it, and its path.
fn listening(name: &str) -> (OwnedFd, String) {
    let directory = directory_of(name);
    make_directory(&directory);
    // A path has 108 bytes at most; one through a descriptor is short.
    let folder = std::fs::File::open(&directory).unwrap();
    let short = format!("/proc/self/fd/{}/systemd.sock", folder.as_raw_fd());
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(short).unwrap()).unwrap();
    listen(&socket, 64).unwrap();
    (socket, format!("{directory}/systemd.sock"))
}

/// `zerobuffer serve` with these arguments, started as systemd does it: the socket is descriptor 3, and two
/// variables say so.
fn activated(socket: &OwnedFd, variables: &str, args: &[&str]) -> Command {
    let command = zerobuffer(args);
    let script = format!("export {variables}; exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::from(socket.try_clone().unwrap()));
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

const HANDED_OVER: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

#[test]
fn a_socket_that_systemd_hands_over_is_served_and_outlives_its_servers() {
    for more in [&[][..], &["--processes", "2"]] {
        let (name, folder) = (Name::new("activated"), Folder::new());
        let (socket, path) = listening(&name);
        // As soon as the socket listens, clients can come.
        let (input, output) = (folder.write("in", b"early"), folder.path("out"));
        let early = ["call", &*name, "--raw", &input, "--out", &output, "--wait", "60"];
        let early = { zerobuffer(&early) }.spawn().unwrap();
        for _ in 0..2 {
            let args = [&["serve", &*name, "--json", "--filter", "echo"], more].concat();
            let server = Served::of(&mut activated(&socket, HANDED_OVER, &args));
            assert!(server.greeting.get("directory").is_none(), "{}", server.greeting);
            check_call(&name, &["--connections", "3"]);
            server.stop();
            assert_eq!(sockets(&name), ["systemd.sock"]);
        }
        let early: crate::support::Ended = early.wait_with_output().unwrap().into();
        early.ok();
        assert_eq!(std::fs::read(output).unwrap(), b"early");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn sockets_for_another_process_are_left_alone_and_wrong_ones_refused() {
    let name = Name::new("handed");
    let (socket, path) = listening(&name);
    let args = ["serve", &*name, "--json", "--filter", "echo"];
    let server = Served::of(&mut activated(&socket, "LISTEN_PID=1 LISTEN_FDS=1", &args));
    assert_eq!(server.greeting["directory"], directory_of(&name));
    assert_eq!(sockets(&name).len(), 2);
    server.stop();
    std::fs::remove_file(path).unwrap();

    let refused = |socket: &OwnedFd, variables: &str, args: &[&str], words: &str| {
        let args = [&["serve", &*name, "--filter", "echo"], args].concat();
        let ended = activated(socket, variables, &args).output().unwrap();
        crate::support::Ended::from(ended).failed(2, words);
    };
    refused(&socket, "LISTEN_PID=$$ LISTEN_FDS=2", &[], "one ListenSequentialPacket=");
    refused(&socket, HANDED_OVER, &["--channel"], "a channel has none");
    let file = OwnedFd::from(std::fs::File::open("/proc/self/stat").unwrap());
    refused(&file, HANDED_OVER, &[], "SOCK_SEQPACKET");
}

#[test]
fn a_server_that_hangs_is_not_tried_again_once_the_time_is_over() {
    let name = Name::new("silent");
    // It listens, and nobody replies. One try takes longer than there is time.
    let (socket, path) = listening(&name);
    let args = ["call", &*name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "0.1"];
    run(&args).failed(3, "does not reply");
    rustix::io::ioctl_fionbio(&socket, true).unwrap();
    let tries = std::iter::from_fn(|| accept(&socket).ok()).count();
    assert_eq!(tries, 1);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_rolling_restart_fails_no_call() {
    let name = Name::new("rolling");
    let start = || Served::start(&name, &["--filter", "invert", "--payload", "1MiB"]);
    let mut server = start();
    let stop = AtomicBool::new(false);
    let config = ClientConfig::new().directory(RUNTIME).ring(1 << 16).resend_not_started(true);
    let calls = std::thread::scope(|scope| {
        let call = || {
            let mut client = Client::connect_with(&name, LONG, config.clone()).unwrap();
            let mut calls = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let number = calls.to_le_bytes();
                let response = client.call(&number, LONG).expect("no call fails");
                assert_eq!(response.data(), number.map(|byte| !byte));
                calls += 1;
            }
            calls
        };
        let callers = [scope.spawn(call), scope.spawn(call)];
        for _ in 0..5 {
            let next = start();
            std::mem::replace(&mut server, next).stop();
            // The new one has clients once it responds.
            check_invert(&name);
        }
        stop.store(true, Ordering::Relaxed);
        callers.map(|caller| caller.join().unwrap())
    });
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    server.stop();
}

fn check_invert(name: &str) {
    let folder = Folder::new();
    let (input, output) = (folder.write("in", &[0; 9]), folder.path("out"));
    run(&["call", name, "--raw", &input, "--out", &output, "--wait", "60"]).ok();
    assert_eq!(std::fs::read(output).unwrap(), [255; 9]);
}

/// The command in a container of its own: process ids, mounts, System V and POSIX objects, a `/dev/shm` of
/// 64 MiB, and a runtime directory in which `shared` is mounted as the service's directory.
fn contained(folder: &Folder, shared: &str, name: &str, args: &[&str]) -> Command {
    let runtime = folder.path("runtime");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--ipc", "--mount", "--propagation", "private"]);
    command.args(["--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    command.arg(
        "mount -t tmpfs -o size=64m none /dev/shm && mount -t tmpfs -o mode=700 none \"$ZEROBUFFER_DIR\" \
         && mkdir -m 700 \"$ZEROBUFFER_DIR/$1\" && mount --bind \"$2\" \"$ZEROBUFFER_DIR/$1\" \
         && shift 2 && exec \"$0\" \"$@\"",
    );
    command.arg(env!("CARGO_BIN_EXE_zerobuffer")).args([name, shared]).args(args);
    command.env("ZEROBUFFER_DIR", runtime).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn two_containers_share_one_directory_and_nothing_else() {
    let (name, folder) = (Name::new("contained"), Folder::new());
    let shared = folder.path("shared");
    make_directory(&shared);
    make_directory(&folder.path("runtime"));
    let probe = contained(&folder, &shared, &name, &["--version"]).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return not_run("containers", String::from_utf8_lossy(&output.stderr).trim());
        }
        Err(error) => return not_run("containers", &format!("unshare: {error}")),
    }
    let args = ["serve", &*name, "--json", "--filter", "invert", "--stop-on-eof", "--ring", "1MiB"];
    let mut server = Served::of(contained(&folder, &shared, &name, &args).stdin(Stdio::piped()));
    let bytes = noise(100 << 20);
    let (input, output) = (folder.write("in", &bytes), folder.path("out"));
    let args = ["call", &*name, "--raw", &input, "--out", &output, "--ring", "256MiB"];
    let ended = contained(&folder, &shared, &name, &args).output().unwrap();
    crate::support::Ended::from(ended).ok();
    let inverted: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    assert!(std::fs::read(output).unwrap() == inverted);
    drop(server.child.stdin.take());
    assert_eq!(server.farewell().0, Some(0));
    assert_eq!(std::fs::read_dir(shared).unwrap().count(), 0, "and the directory is there");
}
