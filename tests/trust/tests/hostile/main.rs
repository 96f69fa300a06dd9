//! A hostile process writes chosen and random values into every control word, frame header, metadata
//! length and semaphore of a channel, before and during calls, at full speed.
//!
//! Its victims are two ordinary users of the library in processes of their own, a server and a client.
//! Whatever is written: nobody crashes, no call outlives its deadline, no answer is given to another
//! request, and errors are of the kinds that a bad peer explains. A second channel between the same two
//! processes stays right all the time. Once the scribbling ends, the channel works again by itself.
//!
//! `ZEROBUFFER_HOSTILE_SECONDS` says for how long (default 3), `ZEROBUFFER_TEST_SEED` replays the values.
#![cfg(target_os = "linux")]

mod in_place;
mod scribbler;
mod two_buffers;
mod victim;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use zerobuffer_trust::{names, seed, unique};

/// The variable that makes this program a victim: its role, kind and name.
const VARIABLE: &str = "ZEROBUFFER_TRUST_VICTIM";
/// What a victim's own lines begin with.
const MARK: &str = "@@ ";
/// A victim that says nothing for so long hangs.
const HANG: Duration = Duration::from_secs(90);

/// Not a test: the way into a victim. Returns at once where none is asked for.
#[test]
fn peer_entry() {
    if let Ok(description) = std::env::var(VARIABLE) {
        victim::run(&description);
    }
}

#[test]
fn an_in_place_channel_withstands_a_hostile_process() {
    torment("in-place");
}

#[test]
fn a_channel_of_two_buffers_withstands_a_hostile_process() {
    torment("two-buffers");
}

fn torment(kind: &str) {
    let seconds = std::env::var("ZEROBUFFER_HOSTILE_SECONDS");
    let seconds: u64 = seconds.map_or(3, |seconds| seconds.parse().expect("a number"));
    let (name, seed) = (unique(kind), seed());
    let mut server = Victim::spawn(&format!("server {kind} {name} {seed}"));
    server.expect("ready");
    let mut client = Victim::spawn(&format!("client {kind} {name} {seed}"));
    client.expect("ready");

    let until = Instant::now() + Duration::from_secs(seconds);
    let written = scribbler::scribble(kind, &name, seed, until, || {
        server.check_alive();
        client.check_alive();
    });
    println!("{kind}: {written} words written in {seconds} s");
    assert!(written > 1000 * seconds, "{kind}: hardly anything was written");

    // Left alone, the channel is right again; the client says what it has met.
    client.say("settle");
    println!("{kind}: the client met {}", client.expect("settled"));
    client.end();
    println!("{kind}: the server met {}", server.end());
    assert_eq!(names(&name), [""; 0], "left behind");
}

/// A child process, and the conversation with it.
struct Victim {
    description: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Victim {
    fn spawn(description: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's file"))
            .args(["--exact", "peer_entry", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, description)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test harness of the child writes to the same pipe.
                if let Some((_, said)) = line.split_once(MARK) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let stdin = child.stdin.take().expect("piped");
        Self { description: description.to_owned(), child, stdin, lines }
    }

    #[track_caller]
    fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("{}: it has ended: {status}", self.description);
        }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").expect("the victim listens");
    }

    #[track_caller]
    fn expect(&mut self, start: &str) -> String {
        let line = self.lines.recv_timeout(HANG);
        let line = line.unwrap_or_else(|end| {
            panic!("{}: said nothing: {end}, {:?}", self.description, self.child.try_wait())
        });
        match line.strip_prefix(start) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{}: expected {start:?}, it said {line:?}", self.description),
        }
    }

    /// Ends it in good order, everything as before; returns what it has to say.
    #[track_caller]
    fn end(mut self) -> String {
        self.say("stop");
        let said = self.expect("unchanged");
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{}: {status}", self.description);
        said
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let name = self.description.split(' ').nth(2).expect("a name").to_owned();
            names(&name).iter().for_each(|path| drop(std::fs::remove_file(path)));
        }
    }
}
