//! What happens to our descriptors and handles when the process forks.
//!
//! A role lock belongs to the open file, and a forked child would keep that file open: the parent's
//! death would go unnoticed for as long as the child lives. So a `pthread_atfork` handler closes, in
//! the child, every descriptor of ours, and counts a generation up by which handles recognise that
//! they are in the wrong process.

use super::kernel;
use crate::sys::Errno;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts the forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Held while a descriptor is opened and entered, or closed and struck off, while a mapping is made,
/// and across `fork`: so no child is born with a descriptor that is not in the list, or with a mapping.
static GATE: AtomicBool = AtomicBool::new(false);

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

/// Runs `open`, which makes a descriptor, and enters the descriptor in the list of those that a
/// forked child must close.
pub(super) fn register(open: impl FnOnce() -> Result<i32, Errno>) -> Result<i32, Errno> {
    install_handlers()?;
    let _gate = Gate::enter();
    let fd = open()?;
    match entries().find(|entry| entry.fd.load(Ordering::Relaxed) == UNUSED) {
        Some(entry) => entry.fd.store(fd, Ordering::Relaxed),
        None => {
            let next = DESCRIPTORS.load(Ordering::Relaxed);
            let entry = Box::new(Entry { fd: AtomicI32::new(fd), next });
            // Release: pairs with the Acquire in `entries`.
            DESCRIPTORS.store(Box::into_raw(entry), Ordering::Release);
        }
    }
    Ok(fd)
}

/// Runs `map`, which makes a mapping that is not for children, while nobody can fork: between its
/// `mmap` and its `madvise` a child would inherit it, and keep the open file, with its lock, alive.
pub(super) fn unforked<T>(map: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    install_handlers()?;
    let _gate = Gate::enter();
    map()
}

/// Strikes `fd` off the list and closes it.
pub(super) fn close(fd: i32) {
    let _gate = Gate::enter();
    if let Some(entry) = entries().find(|entry| entry.fd.load(Ordering::Relaxed) == fd) {
        entry.fd.store(UNUSED, Ordering::Relaxed);
    }
    // The descriptor is gone whatever the call returns, EINTR included.
    let _ = kernel::call("close", || {
        // SAFETY: the caller owns `fd` and does not use it again.
        super::shm::check(unsafe { libc::close(fd) })
    });
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

struct Gate;

impl Gate {
    fn enter() -> Self {
        lock_gate();
        Self
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        unlock_gate();
    }
}

extern "C" fn lock_gate() {
    // Acquire: pairs with the Release in `unlock_gate`.
    while GATE.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
}

extern "C" fn unlock_gate() {
    // Release: pairs with the Acquire in `lock_gate`.
    GATE.store(false, Ordering::Release);
}

/// In the child of a fork: only async-signal-safe calls are allowed here.
extern "C" fn forget_parent() {
    for entry in entries() {
        let fd = entry.fd.swap(UNUSED, Ordering::Relaxed);
        if fd != UNUSED {
            // SAFETY: the descriptor is the child's copy of one of ours. Handles in the child see
            // another generation and never use it. It is closed, not unlocked: F_UNLCK would free
            // the parent's lock, which lives in the shared open file.
            unsafe { libc::close(fd) };
        }
    }
    super::watch::forget();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    unlock_gate();
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
                libc::pthread_atfork(Some(lock_gate), Some(unlock_gate), Some(forget_parent))
            } {
                0 => Ok(()),
                errno => Err(Errno(errno)),
            }
        })?;
        INSTALLED.store(true, Ordering::Relaxed);
    }
    Ok(())
}
