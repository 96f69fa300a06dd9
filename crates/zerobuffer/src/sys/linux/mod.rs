//! Linux with glibc.
#![allow(unsafe_code)]

mod cancel;
mod epoll;
mod folder;
mod fork;
mod lockfile;
mod memory;
mod process;
mod random;
mod sem;
mod shm;
mod signals;
mod socket;
mod thread;
mod wake_fd;
mod watch;

pub(crate) use cancel::uncancelled;
pub(crate) use epoll::{Epoll, ReadySet};
pub(crate) use folder::{Folder, FolderWatch};
pub(crate) use fork::generation as fork_generation;
pub(crate) use lockfile::{LockFile, make_directories, old_empty_files, stat_path, unlink_path};
pub(crate) use memory::{free_memory, overflow_uid};
pub(crate) use process::Process;
#[cfg(feature = "failpoints")]
pub(crate) use process::signal_self;
pub(crate) use random::random;
pub(crate) use sem::Semaphore;
pub(crate) use shm::{
    Mapping, ShmFile, has_no_inodes, include_in_core_dumps, stat_object, unlink_object,
};
pub(crate) use signals::without_signals;
pub(crate) use socket::{Foreign, Packet, Socket};
pub(crate) use thread::stand_back;
pub(crate) use wake_fd::WakeFd;
pub(crate) use watch::Subscription;

use super::{Errno, kernel};
use std::ffi::CString;
use std::os::unix::thread::JoinHandleExt;

/// The last error number of the calling thread.
fn last_errno() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to. CLOCK_MONOTONIC exists on every Linux, so the
    // call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether a thread is the calling one. Not by `std::thread::current`, which panics where the thread-local
/// values no longer exist: in the destructors of a C++ program's static objects, say.
pub(crate) fn is_this_thread<T>(thread: &std::thread::JoinHandle<T>) -> bool {
    // SAFETY: pthread_self has no preconditions and cannot fail.
    thread.as_pthread_t() == unsafe { libc::pthread_self() }
}

/// The effective user id of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// The id of this process, as its own namespace sees it.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

/// A POSIX object name as C wants it. Names are built by this crate from checked channel names, so a
/// NUL byte inside is impossible; should it happen, the call fails as for any other invalid name.
fn c_name(name: &str) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno(libc::EINVAL))
}
