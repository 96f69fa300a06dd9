//! What a core dump of a process with channels would hold. A program of its own: the choice is the process's.
#![cfg(all(target_os = "linux", not(zerobuffer_unsupported)))]

use std::time::Duration;
use zerobuffer::memory::{MemoryProvider, SharedMemory, include_in_core_dumps};
use zerobuffer::{BufferConfig, Client, Pages, Server, ServerConfig, v1};

const LONG: Duration = Duration::from_secs(20);

/// The shared memory that is mapped here, and whether a core dump has it.
fn mappings() -> Vec<(String, bool)> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = Vec::new();
    let mut current = None;
    for line in maps.lines() {
        if let Some((_, path)) = line.split_once("/dev/shm/") {
            current = Some(path.to_owned());
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let dumped = !flags.split_whitespace().any(|flag| flag == "dd");
            found.extend(current.take().map(|path| (path, dumped)));
        }
    }
    found
}

#[track_caller]
fn expect(at_least: usize, dumped: bool) {
    let all = mappings();
    assert!(all.len() >= at_least, "{all:?}");
    assert!(all.iter().all(|(_, in_dump)| *in_dump == dumped), "{all:?}");
}

/// Both ends of both protocols, and plain memory; then all names go.
fn check(name: &str, dumped: bool) {
    let config = ServerConfig::new(BufferConfig::new(64, 4 << 20));
    for pages in [Pages::OnDemand, Pages::Prefaulted, Pages::Huge] {
        let mut server = Server::create(name, config.clone().pages(pages)).unwrap();
        let client = Client::connect(name, LONG).unwrap();
        // A segment and four semaphores at either end.
        expect(10, dumped);
        // The names go, the client's mapping stays.
        server.stop().unwrap();
        expect(5, dumped);
        drop((client, server));
    }
    let reader = v1::Reader::create(name, BufferConfig::new(64, 4096)).unwrap();
    let writer = v1::Writer::connect(name, LONG).unwrap();
    let mut memory = SharedMemory::create(&format!("{name}-plain"), 0o600).unwrap();
    memory.allocate(4096).unwrap();
    // A segment and two semaphores at either end.
    expect(7, dumped);
    memory.unlink().unwrap();
    drop((reader, writer));
}

#[test]
fn what_channels_carry_is_in_no_core_dump_unless_the_process_asks_for_it() {
    let name = format!("core-{}", std::process::id());
    check(&name, false);
    include_in_core_dumps(true);
    check(&name, true);
    include_in_core_dumps(false);
    check(&name, false);
}
