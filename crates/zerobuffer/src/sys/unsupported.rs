//! Systems without an implementation: everything that makes an object fails with ENOSYS, which the
//! callers turn into `Error::Unsupported`; nothing else can be reached.

use super::{Errno, FolderStat, ObjectStat, Pages, PeerProcess, Readiness, SocketEntry, Waited};
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
    pub(crate) fn create_memory(_: &str) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn seal_size(&self) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn is_size_sealed(&self) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn of_text(_: &str, _: &[u8]) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn is_sealed(&self) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn read(&self, _: usize) -> Result<Vec<u8>, Errno> {
        match self.0 {}
    }
    pub(crate) fn check_room(&self, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn reserve_step(&self, _: u64, _: u64) -> Result<u64, Errno> {
        match self.0 {}
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
    pub(crate) fn punch(&self) -> Result<(), Errno> {
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
pub(crate) struct Socket(Infallible);

/// Never made here.
#[derive(Debug)]
pub(crate) struct Foreign(Infallible);

impl Foreign {
    pub(crate) fn close(self) {
        match self.0 {}
    }
}

/// Never received here.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) len: usize,
    pub(crate) file: Option<ShmFile>,
    pub(crate) descriptors: usize,
    pub(crate) is_cut: bool,
}

impl Socket {
    pub(crate) fn new() -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn adopt(_: i32) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn bind(&self, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn listen(&self) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn connect(&self, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        match self.0 {}
    }
    pub(crate) fn send(&self, _: &[u8]) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn send_with(&self, _: &[u8], _: &ShmFile) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn receive(&self, _: &mut [u8]) -> Result<usize, Errno> {
        match self.0 {}
    }
    pub(crate) fn receive_with(&self, _: &mut [u8]) -> Result<(usize, Option<Foreign>), Errno> {
        match self.0 {}
    }
    pub(crate) fn receive_file(&self, _: &mut [u8]) -> Result<Packet, Errno> {
        match self.0 {}
    }
    pub(crate) fn refuse_descriptors(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn peer(&self) -> Result<PeerProcess, Errno> {
        match self.0 {}
    }
    pub(crate) fn peer_groups(&self) -> Vec<u32> {
        match self.0 {}
    }
    pub(crate) fn shut_down(&self) {
        match self.0 {}
    }
    pub(crate) fn has_ended(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn wait(&self, _: Option<&WakeFd>, _: u64) -> Result<bool, Errno> {
        match self.0 {}
    }
    pub(crate) fn wait_for_any(_: &[&Self], _: u64) -> Result<bool, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn close(self) {
        match self.0 {}
    }
    pub(crate) fn drain(&self) -> Vec<Foreign> {
        match self.0 {}
    }
    pub(crate) fn is_this_process(&self) -> bool {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct WakeFd(Infallible);

impl WakeFd {
    pub(crate) fn new() -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn ring(&self) {
        match self.0 {}
    }
    pub(crate) fn silence(&self) {
        match self.0 {}
    }
    pub(crate) fn is_this_process(&self) -> bool {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct Epoll(Infallible);

impl Epoll {
    pub(crate) fn new() -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn add(&self, _: &Socket, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn add_end(&self, _: &Socket, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn add_set(&self, _: &Self, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn add_listener(&self, _: &Socket, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn add_wake(&self, _: &WakeFd, _: u64) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn remove(&self, _: &Socket) {
        match self.0 {}
    }
    #[cfg(unix)]
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
    pub(crate) fn wait(&self, _: u64, _: impl FnMut(Readiness)) -> Result<(), Errno> {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct ReadySet(Infallible);

impl ReadySet {
    pub(crate) fn new(_: &Socket, _: &WakeFd) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn forget(&self, _: &Socket) {
        match self.0 {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for ReadySet {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct Folder(Infallible);

impl Folder {
    pub(crate) fn open(_: &str) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn make(_: &str, _: u32) -> Result<(), Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn path(&self) -> &str {
        match self.0 {}
    }
    pub(crate) fn stat(&self) -> Result<FolderStat, Errno> {
        match self.0 {}
    }
    pub(crate) fn set_group(&self, _: u32) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn address(&self, _: &str) -> String {
        match self.0 {}
    }
    pub(crate) fn sockets(&self) -> Result<Vec<SocketEntry>, Errno> {
        match self.0 {}
    }
    pub(crate) fn is_local(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn set_mode(&self, _: &str, _: u32) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn rename(&self, _: &str, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn unlink(&self, _: &str) -> Result<(), Errno> {
        match self.0 {}
    }
    pub(crate) fn remove(&self) -> Result<(), Errno> {
        match self.0 {}
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) struct FolderWatch(Infallible);

impl FolderWatch {
    pub(crate) fn of<'p>(_: impl IntoIterator<Item = &'p str>) -> Result<Self, Errno> {
        Err(UNSUPPORTED)
    }
    pub(crate) fn wait(&self, _: u64) -> Result<bool, Errno> {
        match self.0 {}
    }
}

pub(crate) fn random() -> Result<u64, Errno> {
    Err(UNSUPPORTED)
}

pub(crate) fn free_memory() -> Option<u64> {
    None
}

pub(crate) fn overflow_uid() -> u32 {
    u32::MAX
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

/// There are no threads.
pub(crate) fn stand_back() {}

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
