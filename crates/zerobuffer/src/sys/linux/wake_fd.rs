//! Wakes a thread of this process that polls: an eventfd.

use super::fork::Descriptor;
use super::{kernel, last_errno, uncancelled};
use crate::sys::Errno;

/// Readable from the first ring until it is silenced. In a forked child, where its number may be that of another file,
/// neither does anything.
#[derive(Debug)]
pub(crate) struct WakeFd {
    file: Descriptor,
}

impl WakeFd {
    pub(crate) fn new() -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("eventfd", || {
                // SAFETY: eventfd takes two integers and touches no memory of ours.
                let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    pub(crate) fn ring(&self) {
        if !self.is_this_process() {
            return;
        }
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight bytes that can be read. It fails only if the bell rings already.
        uncancelled(|| unsafe { libc::write(self.file.fd(), one.as_ptr().cast(), one.len()) });
    }

    pub(crate) fn silence(&self) {
        if !self.is_this_process() {
            return;
        }
        let mut rings = [0_u8; 8];
        let (room, len) = (rings.as_mut_ptr().cast(), rings.len());
        // SAFETY: eight bytes that can be written. It fails only if the bell is silent.
        uncancelled(|| unsafe { libc::read(self.file.fd(), room, len) });
    }

    /// Whether this is the process that made it.
    pub(crate) fn is_this_process(&self) -> bool {
        self.file.is_this_process()
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.fd()
    }

    pub(super) fn poll(&self) -> libc::pollfd {
        libc::pollfd { fd: self.file.fd(), events: libc::POLLIN, revents: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: the declarations are those of glibc's pthread.h.
    unsafe extern "C" {
        fn pthread_cancel(thread: libc::pthread_t) -> libc::c_int;
        fn pthread_setcancelstate(state: libc::c_int, old: *mut libc::c_int) -> libc::c_int;
    }

    /// A thread that was cancelled ends at the next cancellation point, which would be a crash here.
    #[test]
    fn a_thread_that_is_cancelled_rings_and_silences_to_the_end() {
        let thread = std::thread::spawn(|| {
            let wake = WakeFd::new().unwrap();
            // SAFETY: this thread exists, and comes to no cancellation point of its own before the next call of these.
            unsafe { pthread_cancel(libc::pthread_self()) };
            wake.ring();
            wake.silence();
            let (mut before, disabled) = (0, 1);
            // SAFETY: `before` can be written.
            unsafe { pthread_setcancelstate(disabled, &raw mut before) };
            assert_eq!(before, 0, "it could be cancelled");
        });
        thread.join().unwrap();
    }
}
