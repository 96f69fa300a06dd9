//! Sizes that a peer claims, and that must not cost this side the memory.

use crate::harness::{LONG, fails, scene};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, Pages, Server, ServerConfig,
};

const MIB: u64 = 1 << 20;

/// A segment as a server leaves it that claims these sizes and has reserved nothing: all of it is holes.
struct Claimed {
    name: String,
    /// Holds the server's lock.
    segment: File,
}

impl Claimed {
    fn new(name: &str, metadata: u64, payload: u64) -> Self {
        let path = format!("/dev/shm/{name}_duplex");
        let segment = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let start = (0xb0 + 64 + metadata).next_multiple_of(4096);
        segment.set_len(start + payload).unwrap();
        // SAFETY: an all-zero flock is a valid value; the descriptor is open.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (libc::F_WRLCK as libc::c_short, 1);
            assert_eq!(libc::fcntl(segment.as_raw_fd(), libc::F_OFD_SETLK, &lock), 0);
        }
        let pid = u64::from(std::process::id());
        let first = 88 | 2 << 32;
        let requests = [first, 64, 64, 0, payload, payload, 0, 0, 0, 0, pid];
        let responses = [first, metadata, 0, metadata, payload, payload, 0, 0, 0, pid, 0];
        for (index, word) in requests.into_iter().chain(responses).enumerate() {
            segment.write_all_at(&word.to_le_bytes(), index as u64 * 8).unwrap();
        }
        segment.write_all_at(&metadata.saturating_sub(8).to_le_bytes(), 0xb0 + 64).unwrap();
        for which in ["request-ready", "response-ready", "response-consumed", "space-available"] {
            std::fs::write(format!("/dev/shm/sem.sem-{which}-{name}"), [0; 32]).unwrap();
        }
        Self { name: name.to_owned(), segment }
    }

    /// Bytes that lie in memory.
    fn reserved(&self) -> u64 {
        self.segment.metadata().unwrap().blocks() * 512
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/dev/shm/{}_duplex", self.name));
        for which in ["request-ready", "response-ready", "response-consumed", "space-available"] {
            let _ = std::fs::remove_file(format!("/dev/shm/sem.sem-{which}-{}", self.name));
        }
    }
}

#[test]
fn metadata_that_a_server_claims_to_have_written_are_refused_and_not_copied_if_they_are_huge() {
    scene(|t| {
        for metadata in [1 << 42, 1 << 30, 65 * MIB] {
            let claimed = Claimed::new(t.name(), metadata, 4096);
            let error = fails(Client::connect(t.name(), LONG), ErrorKind::ProtocolViolation);
            let Error::ProtocolViolation { field, observed, allowed } = error else { panic!() };
            assert_eq!(field, "oieb.metadata_written_bytes");
            assert_eq!((observed, allowed), (metadata, 64 * MIB));
            assert!(claimed.reserved() < MIB, "{} bytes", claimed.reserved());
        }
        // The largest that are taken: holes are zeros.
        let _claimed = Claimed::new(t.name(), 64 * MIB, 4096);
        let client = Client::connect(t.name(), LONG).unwrap();
        assert_eq!(client.server_metadata().len() as u64, 64 * MIB - 8);
    });
}

#[test]
fn a_server_does_not_make_metadata_blocks_that_clients_refuse() {
    scene(|t| {
        let too_large = BufferConfig::new(64 * MIB as usize + 1, 4096);
        let error = fails(Server::create(t.name(), too_large), ErrorKind::BadConfig);
        assert!(error.to_string().contains("metadata size is 67108865"), "{error}");
    });
}

/// Whose pages are touched first pays for them, which is not to be the client for all that a server claims.
#[test]
fn pages_that_a_server_has_not_reserved_are_not_faulted_in() {
    scene(|t| {
        let claimed = Claimed::new(t.name(), 0, 1 << 37);
        for pages in [Pages::Prefaulted, Pages::Huge] {
            let config = ClientConfig::new().pages(pages);
            let connected = Client::connect_with(t.name(), Duration::ZERO, config);
            fails(connected, ErrorKind::ProtocolViolation);
            assert!(claimed.reserved() < MIB, "{} bytes", claimed.reserved());
        }
        drop(Client::connect(t.name(), LONG).unwrap());
    });
}

#[test]
fn of_a_failed_handlers_message_only_the_beginning_is_kept() {
    scene(|t| {
        let config = ServerConfig::new(BufferConfig::new(0, 4 * MIB as usize));
        let mut server = Server::create(t.name(), config).unwrap();
        // Each of its bytes would take three: no text begins with it.
        server
            .start(|frame: &mut Frame<'_>| -> Result<(), String> {
                Err("\u{e4}".repeat(frame.capacity() / 2))
            })
            .unwrap();
        let mut client = t.client();
        let error = fails(client.call(&vec![0; 2 * MIB as usize], LONG), ErrorKind::HandlerFailed);
        let Error::HandlerFailed { message, .. } = error else { panic!() };
        assert_eq!(message, "\u{e4}".repeat((32 << 10) - 2) + "…");
        server.stop().unwrap();
    });
}
