//! The one door to the kernel: every system call of this crate that can fail goes through here, so a
//! build for tests (feature `faults`) can make any of them fail, and none of them is a cancellation point.

use super::Errno;

/// Makes one system call; `name` is its manual page.
#[inline(always)]
pub(super) fn call<T>(
    name: &'static str,
    run: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    #[cfg(feature = "faults")]
    if let Some(errno) = crate::faults::strike(name) {
        // Whatever these return, the descriptor or the mapping no longer exists afterwards.
        if matches!(name, "close" | "munmap") {
            let _ = run();
        }
        return Err(Errno(errno));
    }
    #[cfg(not(feature = "faults"))]
    let _ = name;
    super::uncancelled(run)
}

/// As [`call`], again for as long as a signal interrupts it.
#[inline(always)]
pub(super) fn call_again<T>(
    name: &'static str,
    mut run: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    loop {
        match call(name, &mut run) {
            Err(Errno(libc::EINTR)) => {}
            outcome => return outcome,
        }
    }
}
