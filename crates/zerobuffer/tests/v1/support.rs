//! What the tests of version 1 share: unique names, a look at the objects behind them, and child
//! processes.
#![allow(dead_code)]

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
pub(crate) use zerobuffer_test_support::{LONG, Peer, eventually as until};
use zerobuffer_test_support::{again, names, unique};

/// Well before what would take [`LONG`], and late enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A name that nobody else uses. When it goes, nothing of that name may be left anywhere.
pub(crate) struct Unique(String);

impl Unique {
    pub(crate) fn new(tag: &str) -> Self {
        Self(unique(tag))
    }

    /// All files whose name holds this one.
    pub(crate) fn traces(&self) -> Vec<String> {
        names(&self.0)
    }

    /// Those of them that are shared memory.
    pub(crate) fn traces_in_shm(&self) -> Vec<String> {
        self.traces().into_iter().filter(|path| path.starts_with("/dev/shm/")).collect()
    }

    /// Removes the semaphores that a Python reader never removes (rule L5), and says how many.
    pub(crate) fn remove_python_semaphores(&self) -> usize {
        let semaphores =
            self.traces().into_iter().filter(|path| path.starts_with("/dev/shm/sem.sem-"));
        semaphores.map(|path| std::fs::remove_file(path).unwrap()).count()
    }
}

impl std::ops::Deref for Unique {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Unique {
    fn drop(&mut self) {
        let traces = self.traces();
        for path in &traces {
            let _ = std::fs::remove_file(path);
        }
        if !std::thread::panicking() {
            assert!(traces.is_empty(), "left behind: {traces:?}");
        }
    }
}

/// The fields of the header, by their offsets.
pub(crate) mod field {
    pub(crate) const SIZE_AND_VERSION: u64 = 0x00;
    pub(crate) const METADATA_SIZE: u64 = 0x08;
    pub(crate) const METADATA_FREE: u64 = 0x10;
    pub(crate) const METADATA_WRITTEN: u64 = 0x18;
    pub(crate) const PAYLOAD_SIZE: u64 = 0x20;
    pub(crate) const FREE: u64 = 0x28;
    pub(crate) const WRITE_POS: u64 = 0x30;
    pub(crate) const READ_POS: u64 = 0x38;
    pub(crate) const WRITTEN_COUNT: u64 = 0x40;
    pub(crate) const READ_COUNT: u64 = 0x48;
    pub(crate) const WRITER_PID: u64 = 0x50;
    pub(crate) const READER_PID: u64 = 0x58;
}

/// A word of a buffer's header.
pub(crate) fn peek(name: &str, field: u64) -> u64 {
    let mut word = [0; 8];
    open(name).read_exact_at(&mut word, field).unwrap();
    u64::from_le_bytes(word)
}

/// Writes a word of a buffer's header, as a broken peer would.
pub(crate) fn poke(name: &str, field: u64, value: u64) {
    open(name).write_all_at(&value.to_le_bytes(), field).unwrap();
}

/// Bytes of the ring.
pub(crate) fn ring(name: &str, position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let start = 128 + peek(name, field::METADATA_SIZE);
    open(name).read_exact_at(&mut bytes, start + position).unwrap();
    bytes
}

fn open(name: &str) -> std::fs::File {
    let path = format!("/dev/shm/{name}");
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// The file of the semaphore that counts frames (`w`) or freed space (`r`).
pub(crate) fn semaphore_path(name: &str, which: char) -> String {
    format!("/dev/shm/sem.sem-{which}-{name}")
}

/// The value of a semaphore, as it lies in its file.
pub(crate) fn tokens(name: &str, which: char) -> u32 {
    let bytes = std::fs::read(semaphore_path(name, which)).unwrap();
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

pub(crate) fn set_tokens(name: &str, which: char, value: u32) {
    let path = semaphore_path(name, which);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), 0).unwrap();
}

/// Sets a flag when it goes, also when its test fails: a thread that waits for it ends then.
pub(crate) struct StopAtEnd<'f>(pub(crate) &'f std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that depend on the frame's number, for frames of any length.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new(longest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = (0..longest + 256).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        Self(bytes.collect())
    }

    pub(crate) fn frame(&self, number: u64, len: usize) -> &[u8] {
        let start = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        &self.0[start..start + len]
    }
}

/// The variable that makes this program another process: its role and arguments, a line each.
pub(crate) const VARIABLE: &str = "ZEROBUFFER_TEST_ROLE";

/// This test program itself, in the role of `role`.
pub(crate) fn peer(role: &str, arguments: &[&str]) -> Peer {
    Peer::spawn(&mut again(VARIABLE, &[&[role], arguments].concat().join("\n")))
}
