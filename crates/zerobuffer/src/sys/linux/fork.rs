//! What happens to our descriptors and handles when the process forks.
//!
//! A role lock belongs to the open file, and a forked child would keep that file open: the parent's
//! death would go unnoticed for as long as the child lives. So a `pthread_atfork` handler closes, in
//! the child, every descriptor of ours, and counts a generation up by which handles recognise that
//! they are in the wrong process.

use super::signals::BlockedSignals;
use super::{kernel, last_errno};
use crate::sys::Errno;
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts the forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Held while a descriptor is opened and entered, or closed and struck off, while a mapping is made,
/// and across `fork`: so no child is born with a descriptor that is not in the list, or with a mapping.
/// Its holder takes no signals: a handler that forks would wait for the very thread that it interrupts.
///
/// Who waits for it sleeps: its holder may need this CPU, or the kernel's threads may, for as long as a call takes.
/// One of POSIX, which says what becomes of it across a fork.
static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made to be used by all threads, and is touched by the calls for it alone.
unsafe impl Sync for Gate {}

/// The head of a list that only grows; entries of closed descriptors are used again.
static DESCRIPTORS: AtomicPtr<Entry> = AtomicPtr::new(std::ptr::null_mut());

const UNUSED: i32 = -1;

struct Entry {
    fd: AtomicI32,
    next: *const Entry,
}

/// The number of forks that lead to this process; a handle made under another number is not ours.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// A descriptor that the library keeps, and the only way to make one: it is entered in the list of those
/// that a forked child closes, it is never that of a standard stream, and it is closed when dropped.
///
/// In a forked child it is inert: it is closed there already, and drop does nothing.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: i32,
    generation: u32,
    is_apart: bool,
}

impl Descriptor {
    /// Runs `open`, which makes a descriptor that is close-on-exec.
    pub(super) fn open(open: impl FnOnce() -> Result<i32, Errno>) -> Result<Self, Errno> {
        install_handlers()?;
        let _gate = ForkLock::enter();
        Self::enter(open()?)
    }

    /// As [`Descriptor::open`], for a call that makes any number of descriptors, which it adds to the list.
    pub(super) fn open_all<T>(
        open: impl FnOnce(&mut Vec<i32>) -> Result<T, Errno>,
    ) -> Result<(T, Vec<Self>), Errno> {
        install_handlers()?;
        let (value, entered) = {
            let _gate = ForkLock::enter();
            let mut fds = Vec::new();
            let value = open(&mut fds)?;
            (value, fds.into_iter().map(Self::enter).collect::<Vec<_>>())
        };
        // Outside of the gate, through which those that are dropped go.
        Ok((value, entered.into_iter().collect::<Result<_, _>>()?))
    }

    /// Inside of the gate: takes a descriptor over and enters it in the list.
    fn enter(fd: i32) -> Result<Self, Errno> {
        let fd = above_standard_streams(fd)?;
        match entries().find(|entry| entry.fd.load(Ordering::Relaxed) == UNUSED) {
            Some(entry) => entry.fd.store(fd, Ordering::Relaxed),
            None => {
                let next = DESCRIPTORS.load(Ordering::Relaxed);
                let entry = Box::new(Entry { fd: AtomicI32::new(fd), next });
                // Release: pairs with the Acquire in `entries`.
                DESCRIPTORS.store(Box::into_raw(entry), Ordering::Release);
            }
        }
        Ok(Self { fd, generation: generation(), is_apart: false })
    }

    /// The number, for a system call; open for as long as `self` lives, in the process that made it.
    pub(super) fn fd(&self) -> i32 {
        self.fd
    }

    /// Whether this is the process that made it.
    pub(super) fn is_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// Has it closed, at its end, without holding up other threads that open, close or fork: for what the kernel
    /// takes its time with. A child that is born meanwhile keeps its copy.
    pub(super) fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// Closes it [apart](Self::apart): what a peer had a hand in, whose end can take as long as the peer wishes.
    pub(super) fn close_apart(self) {
        drop(self.apart());
    }

    fn strike_off(&self) {
        if let Some(entry) = entries().find(|entry| entry.fd.load(Ordering::Relaxed) == self.fd) {
            entry.fd.store(UNUSED, Ordering::Relaxed);
        }
    }

    /// Once, at the end of `self`.
    fn close(&self) {
        // The descriptor is closed whatever the call returns, EINTR included.
        let _ = kernel::call("close", || {
            // SAFETY: `self` owns the descriptor, which nobody uses after drop.
            super::shm::check(unsafe { libc::close(self.fd) })
        });
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_this_process() {
            let gate = ForkLock::enter();
            self.strike_off();
            if self.is_apart {
                drop(gate);
            }
            self.close();
        }
    }
}

/// Moves a new descriptor out of the way of the standard streams. A program may have been started without
/// them, and would write its next message into whatever has their numbers.
pub(super) fn above_standard_streams(fd: i32) -> Result<i32, Errno> {
    if fd > libc::STDERR_FILENO {
        return Ok(fd);
    }
    let moved = kernel::call("dup", || {
        // SAFETY: the call makes a descriptor, close-on-exec as `fd` is, and touches no memory.
        let moved = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) };
        if moved < 0 { Err(last_errno()) } else { Ok(moved) }
    });
    // SAFETY: `fd` was made by the caller just now, and is not used again.
    super::uncancelled(|| unsafe { libc::close(fd) });
    moved
}

/// Runs `map`, which makes a mapping that is not for children, while nobody can fork: between its
/// `mmap` and its `madvise` a child would inherit it, and keep the open file, with its lock, alive.
pub(super) fn unforked<T>(map: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    install_handlers()?;
    let _gate = ForkLock::enter();
    map()
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    // Acquire: pairs with the Release in `register`, so the entry's fields are visible.
    let mut next: *const Entry = DESCRIPTORS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: entries are leaked boxes that are never freed, and `next` was set before the entry
        // was published and never changes.
        let entry = unsafe { next.as_ref() }?;
        next = entry.next;
        Some(entry)
    })
}

struct ForkLock {
    _blocked: BlockedSignals,
}

impl ForkLock {
    fn enter() -> Self {
        let blocked = BlockedSignals::all();
        // SAFETY: the mutex is initialised, and never destroyed. Its holder does not come here again: no signal
        // handler interrupts it, and nothing that is run inside of the gate enters it.
        let result = unsafe { libc::pthread_mutex_lock(GATE.0.get()) };
        debug_assert_eq!(result, 0, "a mutex of the usual kind");
        Self { _blocked: blocked }
    }
}

impl Drop for ForkLock {
    /// Signals are let in again after this, when the fields are dropped.
    fn drop(&mut self) {
        // SAFETY: this thread has locked it in `enter`, or is the child's copy of the one that has.
        unsafe { libc::pthread_mutex_unlock(GATE.0.get()) };
    }
}

/// The gate of the thread that is forking, from before the fork until after it.
static FORKING: Forking = Forking(Cell::new(None));

struct Forking(Cell<Option<ForkLock>>);

// SAFETY: the cell is touched by `before_fork` after it has entered the gate, and by `after_fork` before it
// leaves it: the gate is the lock around it.
unsafe impl Sync for Forking {}

extern "C" fn before_fork() {
    let gate = ForkLock::enter();
    FORKING.0.set(Some(gate));
}

extern "C" fn after_fork() {
    let gate = FORKING.0.take();
    drop(gate);
}

/// In the child of a fork: only async-signal-safe calls are allowed here.
extern "C" fn forget_parent() {
    for entry in entries() {
        let fd = entry.fd.swap(UNUSED, Ordering::Relaxed);
        if fd != UNUSED {
            // SAFETY: the descriptor is the child's copy of one of ours. Handles in the child see
            // another generation and never use it. It is closed, not unlocked: F_UNLCK would free
            // the parent's lock, which lives in the shared open file.
            super::uncancelled(|| unsafe { libc::close(fd) });
        }
    }
    super::watch::forget();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    after_fork();
}

/// Without the handlers a fork would break the promises of liveness silently, so nothing is opened
/// where they cannot be had; the next try asks again.
fn install_handlers() -> Result<(), Errno> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    static INSTALLING: Mutex<()> = Mutex::new(());
    if INSTALLED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let _turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !INSTALLED.load(Ordering::Relaxed) {
        kernel::call("pthread_atfork", || {
            // SAFETY: the handlers are functions of this library, which is never unloaded while
            // handles exist; the child's handler touches atomics and calls close only.
            match unsafe {
                libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(forget_parent))
            } {
                0 => Ok(()),
                errno => Err(Errno(errno)),
            }
        })?;
        INSTALLED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    static FORKS: AtomicU32 = AtomicU32::new(0);

    /// A signal handler that forks; its child ends at once.
    extern "C" fn fork_and_count(_: libc::c_int) {
        // SAFETY: the child makes one call that is allowed there; the parent waits for its own child.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(0);
            }
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    /// The system call that a thread of this process is in, if it is in one.
    fn call_of(thread: i32) -> Option<i64> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap();
        text.split(' ').next().and_then(|number| number.parse().ok())
    }

    /// One that looks again and again keeps the CPU from the holder, and from whom the holder waits for.
    #[test]
    fn who_waits_for_the_gate_sleeps() {
        let (tell, told) = channel();
        let waiter = unforked(|| {
            let waiter = std::thread::spawn(move || {
                // SAFETY: the call has no arguments.
                tell.send(unsafe { libc::gettid() }).unwrap();
                unforked(|| Ok(())).unwrap();
            });
            let thread = told.recv().unwrap();
            let start = std::time::Instant::now();
            while call_of(thread) != Some(libc::SYS_futex) {
                assert!(start.elapsed() < Duration::from_secs(20), "it does not sleep");
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(waiter)
        });
        waiter.unwrap().join().unwrap();
    }

    #[test]
    fn a_signal_handler_may_fork_whatever_it_interrupts() {
        // SAFETY: the handler touches an atomic; no other test uses this signal.
        unsafe { libc::signal(libc::SIGUSR2, fork_and_count as *const () as libc::sighandler_t) };
        // SAFETY: the signal goes to this thread, which has a handler for it.
        let interrupt = || unsafe { libc::raise(libc::SIGUSR2) };
        let (done, finished) = channel();
        std::thread::spawn(move || {
            let during = unforked(|| {
                interrupt();
                Ok(FORKS.load(Ordering::Relaxed))
            });
            let descriptor = Descriptor::open(|| {
                interrupt();
                // SAFETY: the call makes a descriptor and touches no memory of ours.
                Ok(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
            });
            drop(descriptor.unwrap());
            before_fork();
            interrupt();
            let between = FORKS.load(Ordering::Relaxed);
            after_fork();
            done.send((during, between, FORKS.load(Ordering::Relaxed))).unwrap();
        });
        // It is let in when the list is in order again, and not before.
        assert_eq!(finished.recv_timeout(Duration::from_secs(20)), Ok((Ok(0), 2, 3)));
    }
}
