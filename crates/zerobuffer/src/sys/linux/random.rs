//! Random numbers, and what this process may still have of the memory.

use super::{kernel, last_errno};
use crate::sys::Errno;

/// A random number that nobody can guess.
pub(crate) fn random() -> Result<u64, Errno> {
    let mut bytes = [0_u8; 8];
    kernel::call_again("getrandom", || {
        // SAFETY: `bytes` can be written.
        let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        // So few bytes come at once.
        if count < 0 { Err(last_errno()) } else { Ok(()) }
    })?;
    Ok(u64::from_ne_bytes(bytes))
}
