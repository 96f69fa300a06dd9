//! What signals do to each command: those that were to be ignored when it started do nothing, and the others end it,
//! whatever it waits for.

use crate::stream::making;
use crate::support::{
    Ended, Folder, Name, Served, check_call, kill, noise, run, until, until_connected, wait,
    with_signals, zerobuffer,
};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The command, with a signal ignored from its start on: HUP as `nohup` does it, INT as a script does it with what it
/// has in the background.
fn ignoring(signal: &str, args: &[&str]) -> Command {
    let signals = ["--default-signal=HUP,INT,TERM", &format!("--ignore-signal={signal}")];
    let mut command = with_signals(&signals, args);
    command.stdin(Stdio::piped());
    command
}

/// Until this process catches SIGTERM (15), as it does once it listens for signals.
fn until_it_listens(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    until("the command to listen for signals", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (15 - 1) != 0
    });
}

fn ended(child: Child) -> Ended {
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_server_that_was_started_with_a_signal_ignored_serves_on() {
    for (signal, processes) in [("HUP", "1"), ("INT", "1"), ("HUP", "2")] {
        let name = Name::new("ignored");
        let args = ["serve", &name, "--json", "--filter", "echo", "--processes", processes];
        let server = Served::of(&mut ignoring(signal, &args));
        kill(server.child.id(), signal);
        for pid in server.greeting["server_pids"].as_array().unwrap() {
            kill(pid.as_u64().unwrap() as u32, signal);
        }
        check_call(&name, &[]);
        let (code, farewell) = server.stop_by("TERM");
        assert_eq!((code, &farewell["reason"]), (Some(0), &"SIGTERM".into()), "{signal}");
    }
}

#[test]
fn a_call_that_was_started_with_a_signal_ignored_goes_on() {
    let (folder, name) = (Folder::new(), Name::new("nohup"));
    let server = Served::start(&name, &["--filter", "echo"]);
    let (output, frames) = (folder.path("out"), noise(2 * 100));
    let args = ["call", &name, "--raw", "-", "--size", "10x10x1", "--out", &output];
    let mut child = ignoring("HUP", &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&frames[..100]).unwrap();
    until_it_listens(&child);
    kill(child.id(), "HUP");
    stdin.write_all(&frames[100..]).unwrap();
    drop(stdin);
    ended(child).ok();
    assert_eq!(std::fs::read(&output).unwrap(), frames);
    server.stop();
}

#[test]
fn a_writer_that_was_started_with_a_signal_ignored_goes_on() {
    let name = Name::new("writes");
    let args = ["writer", &*name, "-n", "3", "--timeout-ms", "0"];
    let writing = ignoring("HUP", &args).spawn().unwrap();
    until_it_listens(&writing);
    kill(writing.id(), "HUP");
    run(&["reader", &name, "-n", "3", "--verify", "sequential", "--timeout-ms", "40000"]).ok();
    ended(writing).ok();
}

#[test]
fn a_signal_ends_a_call_whose_response_nobody_reads() {
    let (folder, name) = (Folder::new(), Name::new("fifo"));
    let server = Served::start(&name, &["--filter", "echo", "--max-clients", "1"]);
    let (input, fifo) = (folder.write("in", b"a request"), folder.path("fifo"));
    make_pipe(&fifo);
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let args = ["call", &name, "--raw", &input, "--out", &fifo, "--wait", "10"];
        let mut child = zerobuffer(&args).spawn().unwrap();
        until_connected(&child);
        // Its response is there at once, and then it waits for a reader.
        std::thread::sleep(Duration::from_millis(200));
        kill(child.id(), signal);
        assert_eq!(wait(&mut child), None, "{signal}");
        assert_eq!(child.wait().unwrap().signal(), Some(number));
    }
    check_call(&name, &[]);
    server.stop();
}

fn make_pipe(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_signal_ends_a_command_that_waits_for_its_input() {
    let (folder, name) = (Folder::new(), Name::new("input"));
    let (pipe, out) = (folder.path("pipe"), folder.path("demo"));
    make_pipe(&pipe);
    let (demo, writer) =
        (["demo", "--image", &pipe, "--out", &out], ["writer", &*name, "--metadata-file", &pipe]);
    let check = |args: &[&str]| {
        let mut child = zerobuffer(args).spawn().unwrap();
        // Time to come there.
        std::thread::sleep(Duration::from_millis(300));
        kill(child.id(), "TERM");
        let code = wait(&mut child);
        assert!(
            code == Some(143) || child.wait().unwrap().signal() == Some(15),
            "{args:?} {code:?}"
        );
    };
    check(&demo);
    check(&writer);
    // Now there is a program at the other end, which writes nothing.
    let _other_end = File::options().read(true).write(true).open(&pipe).unwrap();
    let reading = making(&name, &["reader", &name, "-n", "0", "--timeout-ms", "0"]);
    check(&demo);
    check(&writer);
    ended(reading).ok();
}

#[test]
fn a_signal_ends_the_wait_for_a_server_at_once() {
    let name = Name::new("waits");
    let server = Served::start(&name, &["--filter", "echo"]);
    kill(server.child.id(), "STOP");
    let waits = ["call", &name, "--raw", "/dev/null", "--out", "/dev/null", "--wait", "1000000"];
    for more in [&[][..], &["--ring", "1GiB"]] {
        let mut child = zerobuffer(&[&waits[..], more].concat()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        kill(child.id(), "INT");
        assert_eq!(wait(&mut child), None, "{more:?}");
        assert_eq!(child.wait().unwrap().signal(), Some(2));
    }
    kill(server.child.id(), "CONT");
    server.stop();
}
