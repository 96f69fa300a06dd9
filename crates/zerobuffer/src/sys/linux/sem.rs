//! Named semaphores of glibc: a 32-byte file `/dev/shm/sem.{name}` that holds a `sem_t`.

use super::shm::{Mapping, ShmFile, check, stat_object};
use super::{c_name, kernel};
use crate::sys::{Errno, ObjectStat, Waited};
use std::sync::atomic::{AtomicU32, Ordering};

// SAFETY: the declaration is that of glibc's semaphore.h.
unsafe extern "C" {
    /// glibc 2.30 and later; not in every release of the libc crate.
    fn sem_clockwait(
        sem: *mut libc::sem_t,
        clock: libc::clockid_t,
        abstime: *const libc::timespec,
    ) -> libc::c_int;
}

/// A named semaphore, mapped.
///
/// It is opened through its file and not with `sem_open`, which maps whatever length the file has and
/// dies of SIGBUS on a file that is too short.
#[derive(Debug)]
pub(crate) struct Semaphore {
    mapping: Mapping,
}

impl Semaphore {
    /// Creates the semaphore with value 0; fails with EEXIST if the name is taken.
    ///
    /// The file gets its name when it is complete, so nobody ever sees a half-made semaphore. `sem_open`
    /// does the same by way of a temporary name, which stays for ever if the process is killed then.
    pub(crate) fn create_new(name: &str, mode: u32) -> Result<Self, Errno> {
        let file = ShmFile::create_hidden(mode)?;
        file.reserve(size_of::<libc::sem_t>() as u64)?;
        let semaphore = Self::map(&file)?;
        kernel::call("sem_init", || {
            // SAFETY: `raw` points to a mapped sem_t that nobody else knows of yet. A semaphore that
            // is shared between processes is the same as a named one.
            check(unsafe { libc::sem_init(semaphore.raw(), 1, 0) })
        })?;
        file.publish(&file_name(name))?;
        Ok(semaphore)
    }

    /// What the semaphore's name stands for; `None` if it stands for nothing.
    pub(crate) fn stat(name: &str) -> Result<Option<ObjectStat>, Errno> {
        stat_object(&file_name(name))
    }

    /// Opens the semaphore's file, for a look at it before [`Semaphore::map`].
    pub(crate) fn open_file(name: &str) -> Result<ShmFile, Errno> {
        ShmFile::open(&file_name(name))
    }

    /// Whether the file is exactly a semaphore's.
    pub(crate) fn is_semaphore(stat: &ObjectStat) -> bool {
        stat.regular && stat.size == size_of::<libc::sem_t>() as u64
    }

    /// Maps the semaphore in `file`, which [`Semaphore::is_semaphore`] has confirmed.
    pub(crate) fn map(file: &ShmFile) -> Result<Self, Errno> {
        Ok(Self { mapping: Mapping::new(file, size_of::<libc::sem_t>())? })
    }

    /// Removes a semaphore's name.
    pub(crate) fn unlink(name: &str) -> Result<(), Errno> {
        let name = c_name(name)?;
        kernel::call("sem_unlink", || {
            // SAFETY: `name` is NUL-terminated and outlives the call.
            check(unsafe { libc::sem_unlink(name.as_ptr()) })
        })
    }

    fn raw(&self) -> *mut libc::sem_t {
        self.mapping.base().as_ptr().cast()
    }

    /// The number of tokens, or `None` if the peer has written nonsense there.
    ///
    /// It is asked with every message, so it is read where glibc keeps it since version 2.21: in the
    /// low half of the first word (protocol v2, appendix B, and a test below).
    #[inline]
    pub(crate) fn value(&self) -> Option<i32> {
        // SAFETY: `raw` points to a mapped sem_t for the life of `self`, which starts at a page; every
        // process accesses its first word through glibc's atomic operations, or as here.
        let value = unsafe { AtomicU32::from_ptr(self.raw().cast()) };
        // Relaxed, as in sem_getvalue: the fence before is the caller's.
        i32::try_from(value.load(Ordering::Relaxed)).ok()
    }

    /// Adds a token. A full semaphore (EOVERFLOW) counts as success: tokens are hints.
    pub(crate) fn post(&self) {
        let _ = kernel::call("sem_post", || {
            // SAFETY: `raw` points to a mapped sem_t for the life of `self`; glibc's operations are
            // atomic on the 16 bytes that it holds, whatever value they have.
            check(unsafe { libc::sem_post(self.raw()) })
        });
    }

    /// Takes a token if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> bool {
        let taken = kernel::call_again("sem_trywait", || {
            // SAFETY: `raw` points to a mapped sem_t for the life of `self`. Without a token, and on
            // any damage, the call fails at once.
            check(unsafe { libc::sem_trywait(self.raw()) })
        });
        taken.is_ok()
    }

    /// Takes a token, waiting until `deadline_ns` of CLOCK_MONOTONIC at the most.
    pub(crate) fn wait_until(&self, deadline_ns: u64) -> Waited {
        let deadline = libc::timespec {
            tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (deadline_ns % 1_000_000_000) as libc::c_long,
        };
        let waited = kernel::call("sem_clockwait", || {
            // SAFETY: `raw` points to a mapped sem_t for the life of `self`, `deadline` is normalised.
            check(unsafe { sem_clockwait(self.raw(), libc::CLOCK_MONOTONIC, &deadline) })
        });
        match waited {
            Ok(()) => Waited::Token,
            Err(Errno(libc::EINTR)) => Waited::Interrupted,
            // ETIMEDOUT; any other answer can only come of a damaged semaphore, and is a time-out
            // that comes early: the waiter looks at the state and at the peer, and goes on.
            Err(_) => Waited::TimedOut,
        }
    }
}

/// glibc keeps the semaphore `/x` in the shared-memory file `/sem.x`.
fn file_name(name: &str) -> String {
    format!("/sem.{}", name.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_one_that_glibc_tells() {
        let name = format!("/sem-value-test-{}", std::process::id());
        let semaphore = Semaphore::create_new(&name, 0o600).unwrap();
        Semaphore::unlink(&name).unwrap();
        for tokens in 0..3 {
            let mut told = -1;
            // SAFETY: `raw` points to a mapped sem_t, and `told` can be written.
            unsafe { libc::sem_getvalue(semaphore.raw(), &mut told) };
            assert_eq!((semaphore.value(), told), (Some(tokens), tokens));
            semaphore.post();
        }
        assert_eq!(semaphore.wait_until(0), Waited::Token);
        assert_eq!(semaphore.value(), Some(2));
    }
}
