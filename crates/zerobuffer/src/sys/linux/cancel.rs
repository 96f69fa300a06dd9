//! Threads that somebody else cancels (pthread_cancel).
//!
//! C ends such a thread where it next calls one of many functions, by unwinding its stack. Neither the
//! frames of Rust nor a channel half changed stand that, so this library has no such place: whatever it asks
//! of the system, and whatever it runs on threads of its own, is done with cancellation off. A thread that is
//! cancelled in a call ends after that call.

use std::ffi::c_int;

const PTHREAD_CANCEL_DISABLE: c_int = 1;

// SAFETY: the declaration is that of glibc's pthread.h.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Runs something that may be a cancellation point, on a thread that cannot be cancelled meanwhile.
#[inline]
pub(crate) fn uncancelled<T>(run: impl FnOnce() -> T) -> T {
    let _restored_at_the_end = Disabled::new();
    run()
}

/// The state that the thread had before, which comes back when this is dropped.
struct Disabled(c_int);

impl Disabled {
    #[inline]
    fn new() -> Self {
        let mut before = PTHREAD_CANCEL_DISABLE;
        // SAFETY: `before` can be written; that state exists, so the call cannot fail.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Self(before)
    }
}

impl Drop for Disabled {
    #[inline]
    fn drop(&mut self) {
        let mut disabled = PTHREAD_CANCEL_DISABLE;
        // SAFETY: as above; the state is one that this thread had.
        unsafe { pthread_setcancelstate(self.0, &raw mut disabled) };
    }
}
