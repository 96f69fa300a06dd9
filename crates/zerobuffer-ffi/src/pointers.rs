//! How pointers of C come in, and the rules of the header that make it sound. Each rule has a name here, which
//! the `// SAFETY:` comments of this crate use:
//!
//! - **Pointers**: a pointer that is not null leads to a value of its type, or to as many bytes as the call says.
//!   The value stays until the call returns, and nobody else writes it meanwhile.
//! - **Handles**: a handle was made by `..._create` or `..._connect`, and `..._close` was not called with it.
//! - **Guards**: a guard was filled by this library or is all zero, and one copy of it is used.
//! - **Threads**: a handle, and the guards that it gave out, are used on one thread at a time, except for what
//!   the documentation of the handle allows on others.
//!
//! The compiler turns the first two into types: `Option<&T>` and `Option<&mut T>` are pointers that may be null,
//! `Option<&mut MaybeUninit<T>>` is one to memory that nobody has written, `Option<Box<T>>` is a handle that is
//! given to be freed. Only what has a length in another parameter comes in as a raw pointer, through the
//! functions below.

use crate::error::{run, zb_status};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use zerobuffer::{Error, Result};

/// A parameter that must not be null.
#[inline(always)]
pub(crate) fn given<T>(parameter: Option<T>, what: &'static str) -> Result<T> {
    parameter.ok_or_else(|| null(what))
}

/// A null pointer where there must be something.
#[cold]
pub(crate) fn null(what: &'static str) -> Error {
    Error::BadConfig { what, asked: 0, allowed: "a pointer that is not null" }
}

/// A parameter's bytes, or numbers; none may have any address.
///
/// # Safety
/// The rule **Pointers** for `len` of them at `data`, during `'a`.
#[inline]
pub(crate) unsafe fn bytes<'a, T>(
    data: *const T,
    len: usize,
    what: &'static str,
) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null(what));
    }
    let most = isize::MAX as usize / size_of::<T>();
    if len > most {
        return Err(Error::TooLarge { what, asked: len as u64, max: most as u64 });
    }
    // SAFETY: not null, not longer than memory can be, and the caller's rule **Pointers**.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// A name.
///
/// # Safety
/// The rule **Pointers** for a text that ends with a zero byte, during `'a`.
pub(crate) unsafe fn name<'a>(name: *const c_char) -> Result<&'a str> {
    if name.is_null() {
        return Err(null("name"));
    }
    // SAFETY: not null, and the caller's rule **Pointers**.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map_err(|_| Error::BadName {
        name: name.to_string_lossy().chars().take(64).collect(),
        reason: "it is not UTF-8",
    })
}

/// A text of a configuration; `None` for a null pointer.
///
/// # Safety
/// As for [`name`].
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &'static str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller's rule **Pointers**.
    let text = unsafe { CStr::from_ptr(text) };
    let valid = |error: std::str::Utf8Error| error.valid_up_to() as u64;
    let refused = |error| Error::BadConfig { what, asked: valid(error), allowed: "UTF-8" };
    text.to_str().map(Some).map_err(refused)
}

/// Copies `data` to where the caller wants it, or only says how long it is.
///
/// # Safety
/// The rule **Pointers** for `capacity` bytes at `buffer`, unless that is null.
pub(crate) unsafe fn copy_out(
    data: &[u8],
    buffer: *mut u8,
    capacity: usize,
    len: Option<&mut MaybeUninit<usize>>,
) -> Result<()> {
    given(len, "len")?.write(data.len());
    if buffer.is_null() {
        return Ok(());
    }
    let (asked, max) = (data.len() as u64, capacity as u64);
    if asked > max {
        return Err(Error::TooLarge { what: "the result", asked, max });
    }
    // SAFETY: there are `capacity` bytes (the caller's rule **Pointers**), which are enough; and the caller's
    // memory is not ours.
    unsafe { buffer.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    Ok(())
}

/// A struct that starts with its size.
///
/// # Safety
/// All fields are integers and raw pointers, the first one a `usize`: any bytes are a value.
pub(crate) unsafe trait SizePrefixed: Copy {
    /// Its name in the header.
    const NAME: &'static str;
    /// Its size in the first header that had it.
    const FIRST: usize;
}

/// `T`, or `T = N` if fields were added to one that had N bytes.
macro_rules! size_prefixed {
    ($($type:ident $(= $first:literal)?),*) => { $(
        // SAFETY: integers and raw pointers only, `size` first.
        unsafe impl crate::pointers::SizePrefixed for $type {
            const NAME: &'static str = concat!("size of ", stringify!($type));
            #[allow(unused)]
            const FIRST: usize = [$($first,)? size_of::<$type>()][0];
        }
        const _: () = assert!(std::mem::offset_of!($type, size) == 0);
    )* };
}

pub(crate) use size_prefixed;

/// A copy of the caller's struct, which may be that of an older header, which knows fewer fields, or of a newer one as
/// long as it asks for nothing that this library does not know. `None` for a null pointer.
///
/// # Safety
/// The rule **Pointers** for as many bytes as the struct's first field says.
pub(crate) unsafe fn read<T: SizePrefixed>(config: *const T) -> Result<Option<T>> {
    if config.is_null() {
        return Ok(None);
    }
    let known = size_of::<T>();
    // SAFETY: the caller's rule **Pointers**; the size comes first (`SizePrefixed`).
    let size = unsafe { config.cast::<usize>().read_unaligned() };
    let wrong = Error::BadConfig {
        what: T::NAME,
        asked: size as u64,
        allowed: "sizeof of the struct, with zeros in fields that this version does not know",
    };
    // A size that nobody can mean must not be followed into memory.
    if size < T::FIRST || size > known + 4096 {
        return Err(wrong);
    }
    // SAFETY: the caller says that there are `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(config.cast::<u8>(), size) };
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        return Err(wrong);
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: neither is shorter. All bytes of T are written, and its fields may have any value (`SizePrefixed`).
    unsafe {
        copy.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), size.min(known));
        Ok(Some(copy.assume_init()))
    }
}

/// What every `..._create` and `..._connect` does: stores the handle of what `make` returns, or null.
///
/// # Safety
/// The rule **Pointers** for a text at `name`, and for `config` and all that it leads to.
pub(crate) unsafe fn create<C: SizePrefixed, H>(
    name: *const c_char,
    config: *const C,
    handle: Option<&mut MaybeUninit<*mut H>>,
    make: impl FnOnce(&str, Option<C>) -> Result<H>,
) -> zb_status {
    run(|| {
        let handle = given(handle, "the handle's place")?.write(std::ptr::null_mut());
        // SAFETY: the caller's.
        let made = unsafe { make(self::name(name)?, read(config)?)? };
        *handle = Box::into_raw(Box::new(made));
        Ok(())
    })
}

/// Fills as much of the caller's struct as its first field says that there is; `made` of the same size.
///
/// # Safety
/// The rule **Pointers** for as many bytes as the struct's first field says.
pub(crate) unsafe fn fill<T: SizePrefixed>(
    state: *mut T,
    what: &'static str,
    make: impl FnOnce(usize) -> T,
) -> Result<()> {
    if state.is_null() {
        return Err(null(what));
    }
    // SAFETY: the caller's rule **Pointers**; the size comes first (`SizePrefixed`).
    let size = unsafe { state.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() {
        let allowed = "sizeof of the struct";
        return Err(Error::BadConfig { what: T::NAME, asked: size as u64, allowed });
    }
    let (made, len) = (make(size), size.min(size_of::<T>()));
    // SAFETY: there are `size` bytes, of which `len` are written.
    unsafe { (&raw const made).cast::<u8>().copy_to_nonoverlapping(state.cast(), len) };
    Ok(())
}
