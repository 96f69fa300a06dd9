//! The life of a server, and what its end means to clients.

use crate::support::{
    Folder, Name, Served, check_call, directory_of, in_shm, kill, noise, run, sockets, until,
    until_connected, wait, zerobuffer,
};
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
        let server = Served::start(&name, &["--filter", "echo", "--payload", "1MiB", "--channel"]);
        assert_eq!(in_shm(&name).len(), 5);
        assert_eq!(server.greeting["kind"], "channel");
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
    let mut server = Served::start(&name, &["--filter", "echo", "--channel"]);
    let call = endless_call(&name, &folder);
    until_attached(&name, &call);
    kill(server.child.id(), "KILL");
    let ended = ended(call);
    assert_eq!(ended.code, Some(4), "{}", ended.text());
    let error = &ended.json()["error"];
    assert_eq!(error["kind"], "peer_died");
    assert!(error["message"].as_str().unwrap().contains("the peer process died"), "{error}");
    wait(&mut server.child);

    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null"]).ok();
    server.stop();
}

/// Stops the process until it is told to continue.
fn hang(server: &Served) {
    kill(server.child.id(), "STOP");
    let stat = format!("/proc/{}/stat", server.child.id());
    until("the server to hang", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
}

#[test]
fn a_service_that_hangs_is_no_server_and_its_clients_wait_no_longer_than_their_timeout() {
    let (name, folder) = (Name::new("stuck"), Folder::new());
    let server = Served::start(&name, &["--filter", "echo"]);
    let input = folder.write("in", &noise(100));
    let args = ["call", &name, "--raw", &input, "--out", "/dev/null"];
    let endless = [&args[..], &["--timeout", "0.3", "--repeat", "1000000000"]].concat();
    let call = zerobuffer(&endless).spawn().unwrap();
    until_connected(&call);
    hang(&server);
    ended(call).failed(6, "--timeout");
    run(&[&args[..], &["--wait", "0"]].concat()).failed(3, "does not reply");
    kill(server.child.id(), "CONT");
    run(&[&args[..], &["--wait", "5"]].concat()).ok();
    server.stop();
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_timeout() {
    let name = Name::new("hang");
    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    hang(&server);
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
    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    let call = endless_call(&name, &folder);
    until_attached(&name, &call);
    server.stop();
    let ended = ended(call);
    assert_eq!((ended.code, &ended.json()["error"]["kind"]), (Some(4), &"peer_closed".into()));
}

#[test]
fn killed_clients_do_not_disturb_the_server() {
    let (name, folder) = (Name::new("clients"), Folder::new());
    let server = Served::start(&name, &["--filter", "echo", "--workers", "2", "--channel"]);
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
    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    let second = run(&["serve", &name, "--filter", "echo", "--channel"]);
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
    until("the server", || sockets(&name).iter().any(|socket| socket.ends_with(".sock")));
    // It exists a moment before it serves.
    run(&["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "5"])
        .failed(7, "blur");
    kill(child.id(), "TERM");
    let ended = ended(child);
    assert_eq!(ended.code, Some(0));
    let text = ended.text();
    assert!(
        text.contains("with blur, redact (33,554,432 bytes of ring for each client)"),
        "{text}"
    );
    assert!(text.contains("(SIGTERM): 1 frames, 1 of them refused, 0 bytes"), "{text}");
    assert!(ended.stderr.contains("attached"), "{}", ended.stderr);
}

#[test]
fn a_service_serves_two_clients_at_once_and_leaves_an_empty_directory() {
    for signal in ["TERM", "INT", "HUP"] {
        let (name, folder) = (Name::new("two"), Folder::new());
        let server = Served::start(&name, &["--filter", "echo", "--payload", "1MiB"]);
        assert_eq!(server.greeting["kind"], "service");
        assert_eq!(server.greeting["directory"], directory_of(&name));
        assert_eq!((sockets(&name).len(), in_shm(&name)), (1, vec![]));
        let calls = [endless_call(&name, &folder), endless_call(&name, &folder)];
        calls.iter().for_each(until_connected);
        // A third and a fourth one, while those are there.
        check_call(&name, &[]);
        check_call(&format!("service:{}", &*name), &[]);
        let (code, farewell) = server.stop_by(signal);
        assert_eq!((code, &farewell["reason"]), (Some(0), &format!("SIG{signal}").into()));
        for call in calls {
            let ended = ended(call);
            assert_eq!(
                (ended.code, &ended.json()["error"]["kind"]),
                (Some(4), &"peer_closed".into())
            );
        }
        assert_eq!(sockets(&name), [""; 0]);
        assert!(std::fs::exists(directory_of(&name)).unwrap());
    }
}

#[test]
fn a_service_removes_its_directory_if_that_was_asked_for() {
    let name = Name::new("remove");
    let server = Served::start(&name, &["--filter", "echo", "--remove-directory"]);
    assert!(std::fs::exists(directory_of(&name)).unwrap());
    server.stop();
    assert!(!std::fs::exists(directory_of(&name)).unwrap());
}

#[test]
fn one_call_has_several_connections() {
    let (name, folder) = (Name::new("several"), Folder::new());
    let server = Served::start(&name, &["--filter", "invert", "--payload", "1MiB"]);
    let input = folder.write("in", &noise(5000));
    let args = ["call", &name, "--raw", &input, "--out", "/dev/null", "--repeat", "50"];
    let ended = run(&[&args[..], &["--connections", "4", "--json"]].concat());
    let said = ended.json();
    assert_eq!((ended.code, &said["connections"]), (Some(0), &4.into()));
    assert_eq!((&said["requests"], &said["differing_answers"]), (&200.into(), &0.into()));
    let (_, farewell) = server.stop_by("TERM");
    assert_eq!(farewell["frames"], 200);

    // One of 25 responses is wrong, on whatever connection.
    let server = Served::start(&name, &["--filter", "invert", "--spoil", "25"]);
    let ended = run(&[&args[..], &["--connections", "4", "--json"]].concat());
    assert_eq!(ended.code, Some(1), "{}", ended.text());
    server.stop();

    for kind in ["--channel", "--two-buffers"] {
        let server = Served::start(&name, &["--filter", "echo", kind]);
        let ended = run(&[&args[..], &["--connections", "2", "--wait", "0.3"]].concat());
        assert!(matches!(ended.code, Some(2 | 5)), "{}", ended.stderr);
        assert!(ended.stderr.contains("one client at a time"), "{}", ended.stderr);
        server.stop();
    }
}

#[test]
fn a_full_service_says_so_and_a_larger_ring_can_be_asked_for() {
    let (name, folder) = (Name::new("full"), Folder::new());
    let args = ["--filter", "echo", "--max-clients", "1", "--ring", "64KiB", "--max-ring", "1MiB"];
    let server = Served::start(&name, &args);
    let mut call = endless_call(&name, &folder);
    until_connected(&call);
    let args = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "0.1"];
    run(&args).failed(5, "--max-clients");
    call.kill().unwrap();
    call.wait().unwrap();
    let input = folder.write("in", &noise(100_000));
    let args = ["call", &name, "--raw", &input, "--out", "/dev/null", "--wait", "10"];
    run(&args).failed(9, "`call --ring 256MiB`");
    run(&[&args[..], &["--ring", "1MiB"]].concat()).ok();
    run(&[&args[..], &["--ring", "2MiB"]].concat()).failed(9, "1048576");
    server.stop();
}

#[test]
fn a_server_process_that_is_killed_is_replaced_and_nothing_stays() {
    let (name, folder) = (Name::new("processes"), Folder::new());
    let mut server = Served::start(&name, &["--filter", "echo", "--processes", "2"]);
    let pids = server.greeting["server_pids"].as_array().unwrap().clone();
    let pids: Vec<u32> = pids.iter().map(|pid| pid.as_u64().unwrap() as u32).collect();
    assert_eq!((pids.len(), sockets(&name).len()), (2, 2));
    check_call(&name, &["--connections", "4"]);
    kill(pids[0], "KILL");
    let children = format!("/proc/{0}/task/{0}/children", server.child.id());
    until("another process in its place", || {
        let children = std::fs::read_to_string(&children).unwrap();
        let children: Vec<&str> = children.split_whitespace().collect();
        children.len() == 2 && !children.contains(&&*pids[0].to_string())
    });
    let replaced = server.next_line();
    assert_eq!((&replaced["event"], &replaced["pid"]), (&"replaced".into(), &pids[0].into()));
    assert!(replaced["status"].as_str().unwrap().contains("signal: 9"), "{replaced}");
    let new = replaced["by"].as_u64().unwrap() as u32;
    assert!(!pids.contains(&new));
    // The new one has removed the dead one's socket.
    assert_eq!(sockets(&name).len(), 2);
    check_call(&name, &["--connections", "4"]);
    let call = endless_call(&name, &folder);
    until_connected(&call);
    let (code, farewell) = server.stop_by("TERM");
    assert_eq!((code, &farewell["event"]), (Some(0), &"stopped".into()));
    assert_eq!(ended(call).code, Some(4));
    for pid in [pids[1], new] {
        assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap());
    }
    assert_eq!(sockets(&name), [""; 0]);
}

#[test]
fn server_processes_end_with_the_one_that_started_them() {
    let name = Name::new("orphans");
    let mut server = Served::start(&name, &["--filter", "echo", "--processes", "2"]);
    kill(server.child.id(), "KILL");
    wait(&mut server.child);
    until("the servers to stop", || sockets(&name).is_empty());
}

#[test]
fn a_killed_service_ends_the_call_and_its_successor_clears_up() {
    let (name, folder) = (Name::new("dead"), Folder::new());
    let mut server = Served::start(&name, &["--filter", "echo"]);
    let call = endless_call(&name, &folder);
    until_connected(&call);
    kill(server.child.id(), "KILL");
    let ended = ended(call);
    assert_eq!((ended.code, &ended.json()["error"]["kind"]), (Some(4), &"peer_died".into()));
    wait(&mut server.child);
    let dead = sockets(&name);
    let args = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "0.1"];
    run(&args).failed(3, "serve");
    let server = Served::start(&name, &["--filter", "echo"]);
    assert!(sockets(&name).len() == 1 && sockets(&name) != dead);
    check_call(&name, &[]);
    server.stop();
}

#[test]
fn a_service_is_refused_beside_a_live_channel_of_its_name() {
    let (name, folder) = (Name::new("beside"), Folder::new());
    let mut server = Served::start(&name, &["--filter", "echo", "--channel"]);
    // If it served all the same, it would stop at once.
    let serving = ["serve", &name, "--filter", "echo", "--stop-on-eof"];
    let words = format!("channel \"{}\" has a server", &*name);
    run(&serving).failed(5, &words);
    let call = endless_call(&name, &folder);
    until_attached(&name, &call);
    run(&serving).failed(5, &words);
    run(&[&serving[..], &["--processes", "2"]].concat()).failed(5, &words);
    let beside = Served::start(&name, &["--filter", "echo", "--beside-channel"]);
    check_call(&format!("service:{}", &*name), &[]);
    beside.stop();
    // A dead one's leftovers are no channel.
    kill(server.child.id(), "KILL");
    wait(&mut server.child);
    ended(call);
    let service = Served::start(&name, &["--filter", "echo"]);
    check_call(&name, &[]);
    service.stop();
    let server = Served::start(&name, &["--filter", "echo", "--channel"]);
    check_call(&format!("channel:{}", &*name), &[]);
    server.stop();
}
