//! A hostile process writes chosen and random values into every control word, frame header, metadata
//! length and semaphore of a channel, before and during calls, at full speed.
//!
//! Its victims are two ordinary users of the library in processes of their own, a server and a client.
//! Whatever is written: nobody crashes, no call outlives its deadline, no response is given to another
//! request, and errors are of the kinds that a bad peer explains. A second channel between the same two
//! processes stays right all the time. Once the scribbling ends, the channel works again without help.
//!
//! `ZEROBUFFER_HOSTILE_SECONDS` says for how long (default 3), `ZEROBUFFER_TEST_SEED` replays the values.
#![cfg(target_os = "linux")]

mod in_place;
mod scribbler;
mod two_buffers;
mod victim;

use std::time::{Duration, Instant};
use zerobuffer_test_support::{Peer, again, entry, names, seed, unique};

/// The variable that makes this program a victim: its role, kind and name.
const VARIABLE: &str = "ZEROBUFFER_TRUST_VICTIM";

entry!(VARIABLE, victim::run);

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
    let _leftovers = Leftovers(name.clone());
    let mut server = victim("server", kind, &name, seed);
    let mut client = victim("client", kind, &name, seed);

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
    client.ask("stop", "unchanged");
    client.finish();
    println!("{kind}: the server met {}", server.ask("stop", "unchanged"));
    server.finish();
    assert_eq!(names(&name), [""; 0], "left behind");
}

/// A child process that is ready.
fn victim(role: &str, kind: &str, name: &str, seed: u64) -> Peer {
    let mut victim = Peer::spawn(&mut again(VARIABLE, &format!("{role} {kind} {name} {seed}")));
    victim.expect("ready");
    victim
}

/// Removes what is left if the test fails.
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            names(&self.0).iter().for_each(|path| drop(std::fs::remove_file(path)));
        }
    }
}
