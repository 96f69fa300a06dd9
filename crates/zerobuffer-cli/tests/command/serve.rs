//! The life of a server, and what its end means to clients.

use crate::support::{Folder, Name, Served, in_shm, kill, noise, run, until, wait, zerobuffer};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A client that calls until something stops it.
fn endless_call(name: &str, folder: &Folder) -> std::process::Child {
    let input = folder.write("in", &noise(100));
    let args = ["call", name, "--raw", &input, "--out", "/dev/null", "--repeat", "1000000000"];
    zerobuffer(&[&args[..], &["--json"]].concat()).spawn().unwrap()
}

fn ended(child: std::process::Child) -> crate::support::Ended {
    child.wait_with_output().unwrap().into()
}

/// Until this process is the channel's client, as the segment says (docs/protocol-v2.md, 4.2).
fn until_attached(name: &str, client: &std::process::Child) {
    const WRITER_PID: u64 = 0x48;
    until("the client to attach", || {
        let mut pid = [0; 8];
        std::fs::File::open(format!("/dev/shm/{name}_duplex"))
            .and_then(|segment| segment.read_exact_at(&mut pid, WRITER_PID))
            .is_ok_and(|()| u64::from_le_bytes(pid) == u64::from(client.id()))
    });
}

#[test]
fn signals_stop_a_server_in_good_order() {
    for signal in ["TERM", "INT", "HUP"] {
        let name = Name::new("stop");
        let server = Served::start(&name, &["--filter", "echo", "--payload", "1MiB"]);
        assert_eq!(in_shm(&name).len(), 5);
        assert_eq!(server.greeting["segment"], format!("/dev/shm/{}_duplex", &*name));
        assert_eq!(server.greeting["payload_bytes"], 1 << 20);
        let (code, farewell) = server.stop_by(signal);
        assert_eq!((code, &farewell["event"]), (Some(0), &"stopped".into()));
        assert_eq!(farewell["reason"], format!("SIG{signal}"));
        assert_eq!(in_shm(&name), [""; 0]);
    }
}

#[test]
fn a_server_stops_with_its_standard_input_only_if_that_was_asked_for() {
    let name = Name::new("eof");
    let mut server = Served::start(&name, &["--filter", "echo", "--stop-on-eof"]);
    drop(server.child.stdin.take());
    let (code, farewell) = server.farewell();
    assert_eq!((code, &farewell["reason"]), (Some(0), &"end_of_input".into()));

    let mut server = Served::start(&name, &["--filter", "echo"]);
    drop(server.child.stdin.take());
    std::thread::sleep(Duration::from_millis(100));
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null"]).ok();
    server.stop();
}

#[test]
fn a_client_waits_for_a_late_server() {
    let (name, folder) = (Name::new("late"), Folder::new());
    let input = folder.write("in", b"patience");
    let output = folder.path("out");
    let call = zerobuffer(&["call", &name, "--raw", &input, "--out", &output, "--wait", "20"]);
    let call = { call }.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let server = Served::start(&name, &["--filter", "echo"]);
    ended(call).ok();
    assert_eq!(std::fs::read(output).unwrap(), b"patience");
    server.stop();
}

#[test]
fn no_server_is_told_apart_and_said_in_json_too() {
    let name = Name::new("none");
    let args = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "0.2"];
    let start = Instant::now();
    run(&args).failed(3, "hint: `zerobuffer serve");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let ended = run(&[&args[..], &["--json"]].concat());
    let said = ended.json();
    assert_eq!((ended.code, &said["ok"]), (Some(3), &false.into()));
    assert_eq!(
        (&said["error"]["kind"], &said["error"]["exit_code"]),
        (&"not_running".into(), &3.into())
    );
    assert!(said["error"]["message"].as_str().unwrap().contains(&*name));
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_killed_server_ends_the_call_and_its_successor_clears_up() {
    let (name, folder) = (Name::new("kill"), Folder::new());
    let mut server = Served::start(&name, &["--filter", "echo"]);
    let call = endless_call(&name, &folder);
    until_attached(&name, &call);
    kill(server.child.id(), "KILL");
    let ended = ended(call);
    assert_eq!(ended.code, Some(4), "{}", ended.text());
    let error = &ended.json()["error"];
    assert_eq!(error["kind"], "peer_died");
    assert!(error["message"].as_str().unwrap().contains("the peer process died"), "{error}");
    wait(&mut server.child);

    let server = Served::start(&name, &["--filter", "echo"]);
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null"]).ok();
    server.stop();
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_timeout() {
    let name = Name::new("hang");
    let server = Served::start(&name, &["--filter", "echo"]);
    kill(server.child.id(), "STOP");
    let stat = format!("/proc/{}/stat", server.child.id());
    until("the server to hang", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    let args = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--timeout", "0.3"];
    let start = Instant::now();
    run(&args).failed(6, "--timeout");
    assert!((300..10_000).contains(&start.elapsed().as_millis()));
    kill(server.child.id(), "CONT");
    run(&args).ok();
    server.stop();
}

#[test]
fn a_stopped_server_ends_the_call_in_good_order() {
    let (name, folder) = (Name::new("close"), Folder::new());
    let server = Served::start(&name, &["--filter", "echo"]);
    let call = endless_call(&name, &folder);
    until_attached(&name, &call);
    server.stop();
    let ended = ended(call);
    assert_eq!((ended.code, &ended.json()["error"]["kind"]), (Some(4), &"peer_closed".into()));
}

#[test]
fn killed_clients_do_not_disturb_the_server() {
    let (name, folder) = (Name::new("clients"), Folder::new());
    let server = Served::start(&name, &["--filter", "echo", "--workers", "2"]);
    for _ in 0..3 {
        let mut call = endless_call(&name, &folder);
        until_attached(&name, &call);
        call.kill().unwrap();
        call.wait().unwrap();
        run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "5"]).ok();
    }
    server.stop();
}

#[test]
fn one_channel_has_one_server_and_one_client() {
    let (name, folder) = (Name::new("taken"), Folder::new());
    let server = Served::start(&name, &["--filter", "echo"]);
    let second = run(&["serve", &name, "--filter", "echo"]);
    second.failed(5, "already has a server");
    let mut call = endless_call(&name, &folder);
    until_attached(&name, &call);
    let args = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "0.1"];
    run(&args).failed(5, "--wait");
    call.kill().unwrap();
    call.wait().unwrap();
    server.stop();
}

#[test]
fn people_get_sentences() {
    let name = Name::new("words");
    let child = zerobuffer(&["serve", &name, "--filter", "blur,redact", "-v"]).spawn().unwrap();
    until("the server", || in_shm(&name).len() == 5);
    // It exists a moment before it serves.
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "5"])
        .failed(7, "blur");
    kill(child.id(), "TERM");
    let ended = ended(child);
    assert_eq!(ended.code, Some(0));
    let text = ended.text();
    assert!(text.contains("with blur, redact (33,554,432 bytes of ring)"), "{text}");
    assert!(text.contains("(SIGTERM): 1 frames, 1 of them refused, 0 bytes"), "{text}");
    assert!(ended.stderr.contains("created"), "{}", ended.stderr);
}
