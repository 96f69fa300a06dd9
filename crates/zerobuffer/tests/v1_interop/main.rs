//! Version 1 against the existing package: `zerobuffer-ipc` 1.3.0 from PyPI, as a process of its own.
//!
//! The names begin with the scenario, by its number among the existing packages' own, or with the rule of
//! `docs/protocol-v1.md`. Faults of the peer are asserted as such, so that a release that mends one is
//! noticed. The Python that has the package is named by `ZEROBUFFER_V1_PYTHON`; `cargo xtask test` makes
//! it and sets the variable.
#![allow(clippy::disallowed_methods)]

#[path = "../v1/support.rs"]
mod support;

mod buffers;
mod duplex;
mod rates;
mod rules;

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use support::{LONG, Peer, Unique, field, peek, poke, ring, set_tokens, tokens, until};
use zerobuffer::v1::{Draft, DuplexServer, Reader, Reply, RequestView, Writer};
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, Error, ErrorKind, ServerConfig};

/// A Python reader deletes every lock file that nobody holds, and what it takes for orphaned (section
/// 6.4 "Stale scan of the peers"): tests that look at leftovers run alone, all others together.
static SCAN: RwLock<()> = RwLock::new(());

/// A client of two buffers.
pub(crate) fn connect(name: &str) -> zerobuffer::Result<Client> {
    connect_for(name, LONG)
}

pub(crate) fn connect_for(name: &str, timeout: Duration) -> zerobuffer::Result<Client> {
    let config = ClientConfig::new().channel(ChannelKind::TwoBuffers);
    Client::connect_with(name, timeout, config)
}

pub(crate) fn together() -> RwLockReadGuard<'static, ()> {
    SCAN.read().unwrap_or_else(|poison| poison.into_inner())
}

pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    SCAN.write().unwrap_or_else(|poison| poison.into_inner())
}

pub(crate) fn python(role: &str, arguments: &[&str]) -> Peer {
    let interpreter = std::env::var("ZEROBUFFER_V1_PYTHON").expect(
        "ZEROBUFFER_V1_PYTHON does not name a Python with the version 1 peer: run `cargo xtask test`",
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/v1_peer.py");
    let mut peer =
        Peer::spawn(std::process::Command::new(interpreter).arg(script).arg(role).args(arguments));
    peer.expect("ready");
    peer
}

pub(crate) fn their_writer(name: &str) -> Peer {
    let mut peer = python("writer", &[name]);
    assert_eq!(peer.reply("connect"), "ok");
    peer
}

pub(crate) fn their_reader(name: &str, metadata: usize, payload: usize) -> Peer {
    let mut peer = python("reader", &[name, &metadata.to_string(), &payload.to_string()]);
    assert_eq!(peer.reply("create"), "ok");
    peer
}

/// Closes their reader; it leaves its two semaphores and nothing else (rule L5, a fault of the peer).
pub(crate) fn close_reader(mut peer: Peer, name: &Unique) {
    assert_eq!(peer.reply("close"), "ok");
    assert_eq!(name.traces().len(), 2, "{:?}", name.traces());
    assert_eq!(name.remove_python_semaphores(), 2);
}

pub(crate) fn our_reader(name: &str, metadata: usize, payload: usize) -> Reader {
    Reader::create(name, BufferConfig::new(metadata, payload)).unwrap()
}

pub(crate) fn our_writer(name: &str) -> Writer {
    Writer::connect(name, LONG).unwrap()
}

/// Byte i of frame `number` is (number + i) mod 256, as the existing tools have it.
pub(crate) fn pattern(number: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|index| (number + index) as u8).collect()
}

pub(crate) fn write(writer: &mut Writer, size: usize) -> zerobuffer::Result<u64> {
    writer.write_frame(&pattern(writer.next_sequence(), size))
}

/// Reads a frame, and checks every byte.
pub(crate) fn read(reader: &Reader) -> (u64, usize) {
    let frame = reader.read_frame(LONG).unwrap();
    assert!(frame.data() == pattern(frame.sequence(), frame.len()), "frame {}", frame.sequence());
    (frame.sequence(), frame.len())
}

zerobuffer_test_support::entry!(support::VARIABLE, our_writer_process);

/// Our writer as a process of its own.
fn our_writer_process(description: &str) {
    let words: Vec<&str> = description.lines().collect();
    let [_, name, frames, size] = words.as_slice() else { panic!("{description:?}") };
    let mut writer = our_writer(name);
    let bytes = vec![3; size.parse().unwrap()];
    for _ in 0..frames.parse::<u64>().unwrap() {
        writer.write_frame(&bytes).unwrap();
    }
}
