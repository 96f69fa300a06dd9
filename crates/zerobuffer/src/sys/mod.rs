//! Fence 1: the operating system, in a few small functions. Nothing else in the crate talks to it.
//!
//! Linux with glibc on 64-bit little-endian machines is implemented; elsewhere every call reports
//! `Unsupported`, so that dependants compile and say clearly at run time what is missing.

#[cfg(all(
    not(any(loom, zerobuffer_unsupported)),
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    target_endian = "little"
))]
#[path = "linux/mod.rs"]
mod imp;

// The cfg serves the tests: it builds here what other systems get.
#[cfg(all(
    not(loom),
    any(
        zerobuffer_unsupported,
        not(all(
            target_os = "linux",
            target_env = "gnu",
            target_pointer_width = "64",
            target_endian = "little"
        ))
    )
))]
#[path = "unsupported.rs"]
mod imp;

#[cfg(not(loom))]
mod kernel;
#[cfg(not(loom))]
mod shortage;

/// Under loom there is no operating system, but a model of the one thing that waiting needs.
#[cfg(loom)]
#[path = "model.rs"]
mod imp;

#[cfg(all(feature = "failpoints", not(loom)))]
pub(crate) use imp::signal_self;
#[cfg(not(loom))]
pub(crate) use imp::{
    Epoll, Folder, FolderWatch, Foreign, LockFile, Mapping, Packet, Process, ReadySet, ShmFile,
    Socket, Subscription, WakeFd, effective_uid, fork_generation, free_memory,
    include_in_core_dumps, is_this_thread, make_directories, old_empty_files, overflow_uid,
    process_id, random, stat_object, stat_path, unlink_object, unlink_path,
};
pub(crate) use imp::{Semaphore, monotonic_ns, uncancelled};
#[cfg(not(loom))]
pub(crate) use shortage::Place;

use crate::error::Error;
use std::time::Duration;

/// An error number of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const ABSENT: Self = Self(libc::ENOENT);
    pub(crate) const ENDED: Self = Self(libc::ECONNRESET);
    pub(crate) const NO_DESCRIPTOR: Self = Self(libc::EMFILE);

    /// A signal has interrupted a sleep.
    pub(crate) fn is_interruption(self) -> bool {
        self.0 == libc::EINTR
    }

    /// There is nothing yet, or no room yet: what returns at once would have had to wait.
    pub(crate) fn is_not_yet(self) -> bool {
        self.0 == libc::EAGAIN
    }

    /// Descriptors, buffers or memory have run out.
    pub(crate) fn is_shortage(self) -> bool {
        let runs_out =
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS];
        runs_out.contains(&self.0)
    }

    /// The other end of a connection is closed.
    pub(crate) fn is_end(self) -> bool {
        matches!(self.0, libc::ECONNRESET | libc::EPIPE)
    }

    /// Nobody listens on a socket.
    pub(crate) fn is_refusal(self) -> bool {
        self.0 == libc::ECONNREFUSED
    }

    /// A name stands for nothing.
    pub(crate) fn is_absence(self) -> bool {
        self.0 == libc::ENOENT
    }

    /// The permissions do not allow it.
    pub(crate) fn is_denial(self) -> bool {
        matches!(self.0, libc::EACCES | libc::EPERM)
    }

    /// A name stands for something already.
    pub(crate) fn is_presence(self) -> bool {
        matches!(self.0, libc::EEXIST | libc::EADDRINUSE)
    }

    /// A directory has entries.
    pub(crate) fn is_not_empty(self) -> bool {
        self.0 == libc::ENOTEMPTY
    }

    /// A name stands for something else than a directory.
    pub(crate) fn is_no_folder(self) -> bool {
        matches!(self.0, libc::ENOTDIR | libc::ELOOP)
    }

    /// A descriptor is of something else than a listening socket of the kind that is needed.
    pub(crate) fn is_no_listener(self) -> bool {
        matches!(self.0, libc::ENOTSOCK | libc::EINVAL)
    }
}

/// No number of the system's: what is missing is /proc.
pub(crate) const NO_PROC: Errno = Errno(-1);

/// No number of the system's: its kernel cannot make pages be there.
pub(crate) const NO_POPULATE: Errno = Errno(-2);

impl Errno {
    /// The typed error for `operation` on `object`.
    pub(crate) fn on(self, operation: &'static str, object: &str) -> Error {
        match self {
            Self(libc::EACCES | libc::EPERM) => {
                let found = found(object);
                let (owner, mode) = (found.map(|found| found.uid), found.map(|found| found.mode));
                Error::PermissionDenied { object: object.to_owned(), operation, owner, mode }
            }
            Self(libc::ENOSYS) => Error::Unsupported {
                what: "shared-memory channels need 64-bit little-endian Linux with glibc",
            },
            NO_PROC => Error::Unsupported {
                what: "making a channel without /proc needs Linux 6.10; have /proc mounted in this \
                       container or sandbox",
            },
            NO_POPULATE => {
                Error::Unsupported { what: "pages that are there from the start need Linux 5.14" }
            }
            Self(errno) => Error::System { operation, object: object.to_owned(), errno },
        }
    }
}

/// What the name of an object in an error stands for: shared memory, a semaphore, or a path.
#[cfg(not(loom))]
fn found(object: &str) -> Option<ObjectStat> {
    match object.strip_prefix('/') {
        Some(name) if !name.contains('/') => {
            let found = stat_object(object).ok().flatten();
            found.or_else(|| Semaphore::stat(object).ok().flatten())
        }
        _ => stat_path(object).ok().flatten(),
    }
}

#[cfg(loom)]
fn found(_: &str) -> Option<ObjectStat> {
    None
}

/// `None` in place of the error that there is no such object.
#[cfg(not(loom))]
pub(crate) fn if_there<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Err(Errno(libc::ENOENT)) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// False in place of the error that the name is taken.
#[cfg(not(loom))]
pub(crate) fn unless_taken(outcome: Result<(), Errno>) -> Result<bool, Errno> {
    match outcome {
        Err(Errno(libc::EEXIST)) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// Whether an object could not be made because its name is taken.
#[cfg(not(loom))]
pub(crate) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::System { errno: libc::EEXIST, .. })
}

/// Whether a folder cannot be made, or cannot be had, where it should be.
#[cfg(not(loom))]
pub(crate) fn has_no_folder(error: &Error) -> bool {
    let missing =
        matches!(error, Error::System { errno: libc::ENOENT | libc::EROFS | libc::ENOTDIR, .. });
    missing || matches!(error, Error::PermissionDenied { .. })
}

/// Which file a name or a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What a named object is, as its open file says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectStat {
    pub(crate) identity: Identity,
    pub(crate) size: u64,
    /// Bytes that have memory or disk of their own already; less than the size where there are holes.
    pub(crate) reserved: u64,
    pub(crate) uid: u32,
    /// The permission bits.
    pub(crate) mode: u32,
    pub(crate) regular: bool,
}

/// The process at the other end of a socket, when it connected or listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerProcess {
    /// 0 if this process's pid namespace does not know it.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What one of many watched sockets has to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    /// The socket's number.
    pub(crate) number: u64,
    /// The other end is closed or shut down.
    pub(crate) has_ended: bool,
}

/// What a directory is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FolderStat {
    pub(crate) uid: u32,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// A socket in a directory.
#[derive(Debug)]
pub(crate) struct SocketEntry {
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// Since it was made.
    pub(crate) age: Duration,
}

/// When the pages of a mapped segment are faulted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pages {
    /// One by one, as they are touched first: nothing to wait for at the start, and a fault of a
    /// microsecond or so for each 4 KiB of the ring's first round. They are reserved all the same.
    #[default]
    OnDemand,
    /// All at the start, so that the first requests are as fast as later ones. Takes about a
    /// millisecond for each MiB. Linux 5.14 or later.
    Prefaulted,
    /// As `Prefaulted`, in huge pages (2 MiB) as far as the kernel can give them: fewer misses where
    /// handlers jump about in large frames; next to nothing for those that go from one end to the
    /// other. Takes about ten milliseconds for each MiB. Linux 6.1 or later, otherwise as `Prefaulted`.
    Huge,
}

/// How a timed wait on a semaphore ended.
// Never made where there is no system to wait on.
#[cfg_attr(any(loom, zerobuffer_unsupported), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// A token was taken.
    Token,
    /// The time is up.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Lets the calling thread sleep.
#[cfg(not(loom))]
pub(crate) fn sleep(time: std::time::Duration) {
    #[allow(clippy::disallowed_methods)]
    uncancelled(|| std::thread::sleep(time));
}

/// Waits for the end of a thread. What it had to say, or panicked with, is not asked for.
#[cfg(not(loom))]
pub(crate) fn join<T>(thread: std::thread::JoinHandle<T>) {
    #[allow(clippy::disallowed_methods)]
    let _ = uncancelled(|| thread.join());
}

/// Starts a thread, on which handlers may run: it cannot be cancelled.
#[cfg(not(loom))]
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    let spawned = kernel::call("pthread_create", || {
        builder
            .spawn(|| uncancelled(body))
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EAGAIN)))
    });
    spawned.map_err(|errno| errno.on("start the thread", name))
}

/// The same for a thread of the library's own: it takes no signals, which are for the program's threads.
#[cfg(not(loom))]
pub(crate) fn spawn_without_signals<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Error> {
    // A new thread inherits the mask.
    imp::without_signals(|| spawn(name, body))
}

/// The same for work that comes when others want it: it never interrupts the threads that serve.
#[cfg(not(loom))]
pub(crate) fn spawn_behind<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Error> {
    spawn_without_signals(name, || {
        imp::stand_back();
        body()
    })
}

/// How many CPUs this process may run on: affinity and cgroup quota considered. 1 when unknown, which
/// means that nobody spins.
pub(crate) fn usable_cpus() -> usize {
    // It reads files of the cgroup.
    uncancelled(std::thread::available_parallelism).map_or(1, usize::from)
}
