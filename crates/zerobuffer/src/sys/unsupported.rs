//! Systems without an implementation: everything that makes an object fails with ENOSYS, which the
//! callers turn into `Error::Unsupported`; nothing else can be reached.

use super::{Errno, ObjectStat, Pages, Waited};
use crate::tenure::Wanted;
use std::convert::Infallible;
use std::ptr::NonNull;

const UNSUPPORTED: Errno = Errno(libc::ENOSYS);

/// No thread is ever made here.
pub(crate) fn is_this_thread<T>(_: &std::thread::JoinHandle<T>) -> bool {
    false
}

/// Nothing runs here that a cancelled thread could end in.
pub(crate) fn uncancelled<T>(run: impl FnOnce() -> T) -> T {
    run()
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct ShmFile(Infallible);

impl ShmFile {
    pub(crate) fn open(_: &str) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn create_hidden(_: u32) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn publish(&self, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn stat(&self) -> Result<ObjectStat, Errno> {
        match self.0 {}
    }
    pub(crate) fn reserve(&self, _: u64, _: Wanted<'_>) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn try_lock(&self, _: u64) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn unlock(&self, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn is_locked_elsewhere(&self, _: u64) -> Result<bool, Errno> {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct Mapping(Infallible);

impl Mapping {
    pub(crate) fn new(file: &ShmFile, _: usize, _: Pages) -> Result<Self, Errno> {
        match file.0 {}
    }
    pub(crate) fn fault_in(&self, _: Pages, _: Wanted<'_>) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn base(&self) -> NonNull<u8> {
        match self.0 {}
    }
    pub(crate) fn len(&self) -> usize {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct Semaphore(Infallible);

impl Semaphore {
    pub(crate) const FILE_SIZE: u64 = 32;

    pub(crate) fn create_new(_: &str, _: u32) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn stat(_: &str) -> Result<Option<ObjectStat>, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn open_file(_: &str) -> Result<ShmFile, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn is_semaphore(_: &ObjectStat) -> bool {
        false
    }
    pub(crate) fn map(file: &ShmFile) -> Result<Self, Errno> {
        match file.0 {}
    }
    pub(crate) fn is_named(&self, _: &str) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn unlink(_: &str) -> Result<(), Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn value(&self) -> Option<i32> {
        match self.0 {}
    }
    pub(crate) fn post(&self) {
        match self.0 {}
    }
    pub(crate) fn try_wait(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn wait_until(&self, _: u64) -> Waited {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct LockFile(Infallible);

impl LockFile {
    pub(crate) fn open(_: &str) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn open_to_probe(_: &str) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn create_hidden(_: &str, _: u32) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn link(&mut self, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn try_lock(&self) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn is_free(&self) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn stat(&self) -> Result<ObjectStat, Errno> {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct Process(Infallible);

impl Process {
    pub(crate) fn find(_: u64) -> Option<Self> {
        None
    }
    pub(crate) fn is_running(&self) -> bool {
        match self.0 {}
    }
}

pub(crate) fn stat_path(_: &str) -> Result<Option<ObjectStat>, Errno> {
    Err(UNSUPPORTED)
}

pub(crate) fn unlink_path(_: &str) -> Result<(), Errno> {
    Err(UNSUPPORTED)
}

pub(crate) fn make_directories(_: &str) -> Result<(), Errno> {
    Err(UNSUPPORTED)
}

pub(crate) fn has_no_inodes(_: &str) -> bool {
    false
}

pub(crate) fn fork_generation() -> u32 {
    0
}

/// Nobody is ever told.
#[derive(Debug)]
pub(crate) struct Subscription(Infallible);

impl Subscription {
    pub(crate) fn of(_: u64, _: impl FnOnce() + Send + 'static) -> Option<Self> {
        None
    }
}

/// Nothing can be reached here.
#[cfg(feature = "failpoints")]
pub(crate) fn signal_self(_: i32) {}

pub(crate) fn monotonic_ns() -> u64 {
    0
}

pub(crate) fn old_empty_files(_: &str, _: std::time::Duration) -> Vec<String> {
    Vec::new()
}

pub(crate) fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    run()
}

/// There are no mappings.
pub(crate) fn include_in_core_dumps(_: bool) {}

pub(crate) fn effective_uid() -> u32 {
    0
}

pub(crate) fn process_id() -> u32 {
    std::process::id()
}

pub(crate) fn unlink_object(_: &str) -> Result<(), Errno> {
    Err(UNSUPPORTED)
}

pub(crate) fn stat_object(_: &str) -> Result<Option<ObjectStat>, Errno> {
    Err(UNSUPPORTED)
}

#[cfg(all(test, zerobuffer_unsupported))]
mod tests {
    use crate::{BufferConfig, Client, ErrorKind, Server, memory::SharedMemory};
    use std::time::Duration;

    #[test]
    fn on_unsupported_systems_every_way_in_says_so() {
        let server = Server::create("channel", BufferConfig::default()).unwrap_err();
        let client = Client::connect("channel", Duration::ZERO).unwrap_err();
        let memory = SharedMemory::create("segment", 0o600).unwrap_err();
        for error in [server, client, memory] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
}
