//! Named semaphores of glibc: a 32-byte file `/dev/shm/sem.{name}` that holds a `sem_t`.
//!
//! They are worked on here, and not by glibc's functions, which trust every word of it: one of them is
//! combined with the number of the kernel's operation, and what the kernel then refuses ends the process.
//! A peer that writes nonsense there could end this one. Here nothing is believed but the word of value
//! and waiters, and any value of that is fine. Peers that use glibc notice no difference (protocol
//! v2, appendix B; the tests below play both parts).

use super::shm::{Mapping, ShmFile, check, stat_object};
use super::{c_name, kernel, last_errno};
use crate::sys::{Errno, Identity, ObjectStat, Pages, Waited};
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest value (SEM_VALUE_MAX).
const MAX_VALUE: u32 = i32::MAX as u32;
/// One waiter, in the upper half of the word.
const WAITER: u64 = 1 << 32;
/// Attempts, within one wait, at a token that other threads keep taking.
const MAX_TURNS: u32 = 100;

/// A named semaphore, mapped.
///
/// It is opened through its file and not with `sem_open`, which maps whatever length the file has and
/// dies of SIGBUS on a file that is too short.
#[derive(Debug)]
pub(crate) struct Semaphore {
    mapping: Mapping,
    identity: Identity,
}

impl Semaphore {
    /// Bytes of a semaphore's file.
    pub(crate) const FILE_SIZE: u64 = size_of::<libc::sem_t>() as u64;

    /// Creates the semaphore with value 0; fails with EEXIST if the name is taken.
    ///
    /// The file gets its name when it is complete, so nobody ever sees a half-made semaphore. `sem_open`
    /// does the same by way of a temporary name, which stays for ever if the process is killed then.
    pub(crate) fn create_new(name: &str, mode: u32) -> Result<Self, Errno> {
        let file = ShmFile::create_hidden(mode)?;
        file.reserve(Self::FILE_SIZE, &|| true)?;
        let semaphore = Self::map(&file)?;
        kernel::call("sem_init", || {
            // SAFETY: `raw` points to a mapped sem_t that nothing else knows yet. A semaphore that
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

    /// Opens the semaphore's file, to check it before [`Semaphore::map`].
    pub(crate) fn open_file(name: &str) -> Result<ShmFile, Errno> {
        ShmFile::open(&file_name(name))
    }

    /// Whether the file is exactly a semaphore's.
    pub(crate) fn is_semaphore(stat: &ObjectStat) -> bool {
        stat.regular && stat.size == Self::FILE_SIZE
    }

    /// Maps the semaphore in `file`, which [`Semaphore::is_semaphore`] has confirmed.
    pub(crate) fn map(file: &ShmFile) -> Result<Self, Errno> {
        let identity = file.stat()?.identity;
        let mapping = Mapping::new(file, Self::FILE_SIZE as usize, Pages::OnDemand)?;
        Ok(Self { mapping, identity })
    }

    /// Whether the name still stands for this very semaphore.
    pub(crate) fn is_named(&self, name: &str) -> Result<bool, Errno> {
        Ok(Self::stat(name)?.is_some_and(|stat| stat.identity == self.identity))
    }

    /// Removes a semaphore's name.
    pub(crate) fn unlink(name: &str) -> Result<(), Errno> {
        let name = c_name(name)?;
        kernel::call("sem_unlink", || {
            // SAFETY: `name` is NUL-terminated and outlives the call.
            check(unsafe { libc::sem_unlink(name.as_ptr()) })
        })
    }

    /// For glibc's own functions, while nobody else has the semaphore.
    fn raw(&self) -> *mut libc::sem_t {
        self.mapping.base().as_ptr().cast()
    }

    /// Value and waiters.
    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping, which starts at a page, has a sem_t's 32 bytes and lives as long as
        // `self`; every process accesses its first word by atomic operations, glibc's or these.
        unsafe { AtomicU64::from_ptr(self.mapping.base().as_ptr().cast()) }
    }

    /// The number of tokens, or `None` if the peer has written nonsense there.
    #[inline]
    pub(crate) fn value(&self) -> Option<i32> {
        // Relaxed, as in sem_getvalue: the fence before is the caller's.
        i32::try_from(self.word().load(Ordering::Relaxed) as u32).ok()
    }

    /// Adds a token. A full semaphore counts as success: tokens are hints.
    ///
    /// One addition, and no comparison that a peer who keeps writing there could make fail for ever. What
    /// was not full a moment ago has room for a token of each thread that posts at this moment.
    // Out of line: most wakers find a token there.
    #[inline(never)]
    pub(crate) fn post(&self) {
        let word = self.word();
        if word.load(Ordering::Relaxed) as u32 >= MAX_VALUE {
            return;
        }
        // Release: pairs with the Acquire in `take`.
        let before = word.fetch_add(1, Ordering::Release);
        if before >= WAITER {
            // Whatever the kernel returns: a waiter checks again in its next slice.
            let _ = self.futex(libc::FUTEX_WAKE, 1, None);
        }
    }

    /// Takes a token if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> bool {
        self.take(1)
    }

    /// Takes what `amount` says off the word, if there is a token.
    #[inline]
    fn take(&self, amount: u64) -> bool {
        let word = self.word();
        let mut seen = word.load(Ordering::Relaxed);
        for _ in 0..MAX_TURNS {
            if seen as u32 == 0 {
                return false;
            }
            // Acquire: pairs with the Release in `post`.
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            let less = seen.wrapping_sub(amount);
            match word.compare_exchange_weak(seen, less, acquire, relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Takes a token, waiting until `deadline_ns` of CLOCK_MONOTONIC at the most.
    pub(crate) fn wait_until(&self, deadline_ns: u64) -> Waited {
        if self.try_wait() {
            return Waited::Token;
        }
        let deadline = libc::timespec {
            tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (deadline_ns % 1_000_000_000) as libc::c_long,
        };
        // Announced before the value is read: from now on every post wakes. Relaxed, as in glibc:
        // the kernel reads the same word.
        self.word().fetch_add(WAITER, Ordering::Relaxed);
        for _ in 0..MAX_TURNS {
            // Waiter and token at once.
            if self.take(WAITER + 1) {
                return Waited::Token;
            }
            let end = match self.futex(libc::FUTEX_WAIT_BITSET, 0, Some(&deadline)) {
                // Woken, or there was a token: look.
                Ok(()) | Err(Errno(libc::EAGAIN)) => continue,
                Err(Errno(libc::EINTR)) => Waited::Interrupted,
                // ETIMEDOUT, or what never happens: it comes early, the waiter checks the state
                // and the peer, and continues.
                Err(_) => Waited::TimedOut,
            };
            self.word().fetch_sub(WAITER, Ordering::Relaxed);
            return end;
        }
        // Others take every token; the waiter reads the clock, and tries again.
        self.word().fetch_sub(WAITER, Ordering::Relaxed);
        Waited::TimedOut
    }

    /// The system call behind waiting (until there is another value than `value`) and waking (`value`
    /// many). Between processes, and with the monotonic clock: neither flag for anything else is given.
    fn futex(&self, operation: i32, value: u32, end: Option<&libc::timespec>) -> Result<(), Errno> {
        let end = end.map_or(std::ptr::null(), std::ptr::from_ref);
        let nowhere = std::ptr::null::<u32>();
        kernel::call("futex", || {
            // SAFETY: the value is the lower half of the word, on a little-endian machine its first
            // four bytes, which stay mapped as long as `self` lives; `end` is null or a normalised
            // time that outlives the call; the kernel does nothing but compare and sleep, or wake.
            let result = unsafe {
                let address = self.mapping.base().as_ptr().cast::<u32>();
                let any = libc::FUTEX_BITSET_MATCH_ANY;
                libc::syscall(libc::SYS_futex, address, operation, value, end, nowhere, any)
            };
            if result < 0 { Err(last_errno()) } else { Ok(()) }
        })
    }
}

/// glibc keeps the semaphore `/x` in the shared-memory file `/sem.x`.
fn file_name(name: &str) -> String {
    format!("/sem.{}", name.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Does `step` on a process of its own, one instruction at a time, and has a peer change the word after
    /// each of them.
    #[cfg(target_arch = "x86_64")]
    fn under_a_peer_that_always_comes_between(what: &str, step: fn(&Semaphore)) {
        const ENOUGH: u32 = 100_000;
        let name = format!("/sem-{what}-test-{}", std::process::id());
        let semaphore = Semaphore::create_new(&name, 0o600).unwrap();
        // SAFETY: of what the child does here, only the allocator is affected by the missing threads, and
        // glibc repairs it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // A mapping is not inherited.
            let own = Semaphore::map(&Semaphore::open_file(&name).unwrap()).unwrap();
            // SAFETY: none of the calls touches memory.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
            }
            step(&own);
            // SAFETY: as above.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: `status` can be written.
        let mut wait = || unsafe {
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        let stopped = libc::WIFSTOPPED(wait());
        Semaphore::unlink(&name).unwrap();
        assert!(stopped);
        let mut steps = 0;
        let ended = loop {
            // Each time another number of tokens, so that a taker goes on, and no waiters: nobody is woken.
            semaphore.word().store(u64::from(1 + steps), Ordering::Relaxed);
            // SAFETY: the child is stopped, and no address is given.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0) }, 0);
            if !libc::WIFSTOPPED(wait()) {
                break true;
            }
            steps += 1;
            if steps == ENOUGH {
                break false;
            }
        };
        if !ended {
            // SAFETY: the child was not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            wait();
        }
        assert!(ended, "{what}: not done after {ENOUGH} instructions");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_peer_that_keeps_writing_over_the_word_keeps_nobody_in_a_call() {
        under_a_peer_that_always_comes_between("post", Semaphore::post);
        under_a_peer_that_always_comes_between("take", |semaphore| _ = semaphore.try_wait());
    }

    // SAFETY: the declaration is that of glibc's semaphore.h.
    unsafe extern "C" {
        fn sem_clockwait(
            sem: *mut libc::sem_t,
            clock: libc::clockid_t,
            abstime: *const libc::timespec,
        ) -> libc::c_int;
    }

    fn semaphore(what: &str) -> Semaphore {
        let name = format!("/sem-{what}-test-{}", std::process::id());
        let semaphore = Semaphore::create_new(&name, 0o600).unwrap();
        Semaphore::unlink(&name).unwrap();
        semaphore
    }

    fn in_a_minute() -> u64 {
        crate::sys::monotonic_ns() + 60_000_000_000
    }

    #[test]
    fn the_value_is_the_one_that_glibc_tells() {
        let semaphore = semaphore("value");
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

    #[test]
    fn tokens_and_wake_ups_go_to_glibc_and_come_from_it() {
        let semaphore = &semaphore("glibc");
        let sleeps = || while semaphore.word().load(Ordering::Relaxed) < WAITER {};
        for _ in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let end = libc::timespec { tv_sec: i64::MAX, tv_nsec: 0 };
                    let clock = libc::CLOCK_MONOTONIC;
                    // SAFETY: `raw` points to a mapped sem_t, and `end` is a normalised time.
                    assert_eq!(unsafe { sem_clockwait(semaphore.raw(), clock, &end) }, 0);
                });
                sleeps();
                semaphore.post();
            });
            assert_eq!(semaphore.word().load(Ordering::Relaxed), 0);
            std::thread::scope(|scope| {
                let waited = scope.spawn(|| semaphore.wait_until(in_a_minute()));
                sleeps();
                // SAFETY: `raw` points to a mapped sem_t.
                assert_eq!(unsafe { libc::sem_post(semaphore.raw()) }, 0);
                assert_eq!(waited.join().unwrap(), Waited::Token);
            });
            assert_eq!(semaphore.word().load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_wait_ends_at_its_time_and_not_before() {
        let semaphore = semaphore("time");
        let (start, pause) = (Instant::now(), Duration::from_millis(20));
        let end = crate::sys::monotonic_ns() + pause.as_nanos() as u64;
        assert_eq!(semaphore.wait_until(end), Waited::TimedOut);
        assert!(start.elapsed() >= pause);
        assert_eq!(semaphore.word().load(Ordering::Relaxed), 0);
    }

    /// glibc ends the process on most of these.
    #[test]
    fn nonsense_in_any_word_does_no_harm() {
        let semaphore = semaphore("nonsense");
        let base = semaphore.raw().cast::<u64>();
        for value in [0, 1, u64::MAX, 1 << 31, 1 << 63, 0x7fff_ffff, 0x8000_0000_0000_0000 | 12] {
            for word in 0..4 {
                // SAFETY: a sem_t has four words; there is no other thread.
                unsafe { base.add(word).write_volatile(value) };
                semaphore.post();
                let _ = semaphore.try_wait();
                for _ in 0..3 {
                    let end = crate::sys::monotonic_ns() + 1_000_000;
                    let _ = semaphore.wait_until(end);
                }
            }
        }
    }
}
