//! File systems that one thread alone sees.

use crate::not_run;
use std::ffi::CString;
use std::io::{Error, Result};

/// Runs `body` on a thread with a new file system, empty and of these `options`, at `place`; notes that
/// `what` was not tested where nothing may be mounted.
///
/// # Panics
/// If `body` does.
pub fn with_mount(
    what: &str,
    place: &'static str,
    options: &'static str,
    body: impl FnOnce() + Send + 'static,
) {
    let what = what.to_owned();
    let thread = std::thread::spawn(move || match mount(place, options) {
        Ok(()) => body(),
        Err(error) => not_run(&what, &format!("no right to mount: {error}")),
    });
    thread.join().expect("it holds there");
}

fn mount(place: &str, options: &str) -> Result<()> {
    let check = |result: i32| match result {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    };
    let [place, options] = [place, options].map(|text| CString::new(text).expect("no NUL"));
    let (nothing, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    let (root, tmpfs) = (c"/".as_ptr(), c"tmpfs".as_ptr());
    // SAFETY: all strings are NUL-terminated; the calls have no other memory effects. The mount
    // namespace is this thread's alone.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(nothing, root, nothing, private, nothing.cast()))?;
        check(libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, options.as_ptr().cast()))
    }
}
