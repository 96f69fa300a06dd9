//! A thread that takes no signals for a while.

use std::ptr::null_mut;

/// What a thread's own instructions raise. Were they blocked, the kernel would end the process without asking the handler
/// that makes exceptions of them, or a report.
const FAULTS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// The calling thread takes no signals from others for as long as this lives.
pub(super) struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    pub(super) fn all() -> Self {
        // SAFETY: all-zero sets are valid to be written to, and these calls fail for bad arguments only.
        unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
            libc::sigfillset(&mut all);
            for fault in FAULTS {
                libc::sigdelset(&mut all, fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the system gave out.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, null_mut()) };
    }
}

/// Runs something while the calling thread takes no signals.
pub(crate) fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    let _blocked = BlockedSignals::all();
    run()
}
