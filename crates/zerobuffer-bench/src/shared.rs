//! Memory that two processes map without a name: nothing is left behind however they end.
#![allow(unsafe_code)]

use anyhow::{Context, Result, ensure};
#[cfg(feature = "iceoryx2")]
use iceoryx2::{
    prelude::ipc, request_mut::RequestMut, request_mut_uninit::RequestMutUninit,
    response_mut::ResponseMut, response_mut_uninit::ResponseMutUninit,
};
use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
#[cfg(feature = "iceoryx2")]
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

/// Has large blocks returned to the system when they are freed, always: what was measured before must
/// not change what a buffer costs.
pub(crate) fn give_memory_back() {
    // SAFETY: no other thread allocates yet; the worst that it can do is nothing.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
}

/// A shared mapping of a file in memory.
#[derive(Debug)]
pub(crate) struct Shared {
    file: File,
    map: MmapRaw,
}

impl Shared {
    /// `len` zero bytes that a process started from now on can open by [`Shared::inherit`].
    pub(crate) fn create(len: usize) -> Result<Self> {
        // No CLOEXEC: the peer inherits the descriptor.
        let file = File::from(memfd_create("zerobuffer-bench", MemfdFlags::empty())?);
        file.set_len(len as u64)?;
        Self::map(file)
    }

    /// What the parent process has created, by the descriptor's number there.
    pub(crate) fn inherit(fd: i32) -> Result<Self> {
        let path = format!("/proc/self/fd/{fd}");
        let file = File::options().read(true).write(true).open(&path).context(path)?;
        Self::map(file)
    }

    fn map(file: File) -> Result<Self> {
        let map = MmapRaw::map_raw(&file).context("map shared memory")?;
        Ok(Self { file, map })
    }

    /// The descriptor's number, for [`Shared::inherit`].
    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// The first word, alone in its cache line: a mapping starts at a page.
    pub(crate) fn word(&self) -> &AtomicU64 {
        assert!(self.map.len() >= 64);
        // SAFETY: the mapping starts at a page boundary, has 64 bytes at least, and lives as long as
        // `self`; all processes access these bytes through atomics only.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast()) }
    }

    /// All bytes, for one process alone.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`, which is borrowed
        // mutably; nobody has told another process of this descriptor (the callers, `limits`, start
        // none while they use it).
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr(), self.map.len()) }
    }
}

/// iceoryx2's loaned memory as it is: clearing it first would be work that its users need not do.
#[cfg(feature = "iceoryx2")]
#[inline]
pub(crate) fn initialised_request(
    request: RequestMutUninit<ipc::Service, [MaybeUninit<u8>], (), [u8], ()>,
) -> RequestMut<ipc::Service, [u8], (), [u8], ()> {
    // SAFETY: the bytes lie in a mapping of a file, which holds zeros or what was written before; every
    // value is a u8.
    unsafe { request.assume_init() }
}

/// The same for a response.
#[cfg(feature = "iceoryx2")]
#[inline]
pub(crate) fn initialised_response(
    response: ResponseMutUninit<ipc::Service, [MaybeUninit<u8>], ()>,
) -> ResponseMut<ipc::Service, [u8], ()> {
    // SAFETY: as in `initialised_request`.
    unsafe { response.assume_init() }
}

/// Two process-shared semaphores, each in a cache line of its own.
#[derive(Debug)]
pub(crate) struct Semaphores(Shared);

/// When a wait for the peer has become hopeless. Made once for many waits, so that the limit does not
/// pay for reading the clock.
pub(crate) struct Patience {
    until: libc::timespec,
}

impl Patience {
    pub(crate) fn seconds(seconds: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tv_sec = (now.as_secs() + seconds) as libc::time_t;
        Self { until: libc::timespec { tv_sec, tv_nsec: now.subsec_nanos().into() } }
    }
}

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Ping,
    Pong,
}

impl Semaphores {
    /// Two empty semaphores that a process started from now on can open by [`Semaphores::inherit`].
    pub(crate) fn create() -> Result<Self> {
        let this = Self(Shared::create(4096)?);
        for side in [Side::Ping, Side::Pong] {
            // SAFETY: `at` points to room for a sem_t in memory that nobody else uses yet.
            let result = unsafe { libc::sem_init(this.at(side), 1, 0) };
            ensure!(result == 0, "sem_init: {}", std::io::Error::last_os_error());
        }
        Ok(this)
    }

    /// What the parent process has created.
    pub(crate) fn inherit(fd: i32) -> Result<Self> {
        Ok(Self(Shared::inherit(fd)?))
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0.fd()
    }

    pub(crate) fn post(&self, side: Side) {
        // SAFETY: `create` has initialised the semaphore, and it is mapped as long as `self` lives.
        unsafe { libc::sem_post(self.at(side)) };
    }

    /// Waits without spinning; false if nothing came until `patience` was over, or a signal came.
    pub(crate) fn wait(&self, side: Side, patience: &Patience) -> bool {
        // SAFETY: the semaphore as in `post`; `until` is a normalised time of CLOCK_REALTIME.
        unsafe { libc::sem_timedwait(self.at(side), &patience.until) == 0 }
    }

    fn at(&self, side: Side) -> *mut libc::sem_t {
        const { assert!(size_of::<libc::sem_t>() <= 64) };
        self.0.map.as_mut_ptr().wrapping_add(64 * side as usize).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_second_mapping_shows_the_same_bytes() {
        let ours = Shared::create(4096).unwrap();
        let theirs = Shared::inherit(ours.fd()).unwrap();
        ours.word().store(42, Ordering::Relaxed);
        assert_eq!(theirs.word().load(Ordering::Relaxed), 42);
    }

    #[test]
    fn tokens_arrive_at_the_other_mapping() {
        let ours = Semaphores::create().unwrap();
        let theirs = Semaphores::inherit(ours.fd()).unwrap();
        let patience = Patience::seconds(5);
        ours.post(Side::Ping);
        assert!(theirs.wait(Side::Ping, &patience));
        theirs.post(Side::Pong);
        assert!(ours.wait(Side::Pong, &patience));
        assert!(!ours.wait(Side::Pong, &Patience::seconds(0)));
    }
}
