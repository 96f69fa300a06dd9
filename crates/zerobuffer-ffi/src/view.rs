//! The guard of bytes to read: an answer, or a version 1 frame.

use crate::client::Local;
use crate::error::{null, run, run_or, zb_status};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use zerobuffer::v1::{OwnedDuplexResponse, OwnedFrame};
use zerobuffer::{Error, OwnedResponse, Response, Result};

/// Bytes in shared memory that are the caller's to read, until `zb_view_release` gives them back.
///
/// It may be moved in memory, as long as one copy of it is used. All zero, or after its release,
/// it holds nothing, and releasing it does nothing.
///
/// Threads: a view of a client for one thread is released on a thread that may use the client.
/// After `zb_view_detach`, and if it comes from another handle, it may be released on any thread,
/// and outlive its handle.
#[repr(C)]
pub struct zb_view {
    /// The first byte; not null as long as something is held.
    pub data: *const u8,
    /// Bytes at `data`.
    pub len: usize,
    /// The number of the request that this answers; of the frame, as its writer counts.
    pub sequence: u64,
    /// The library's.
    pub opaque: [u64; 8],
}

/// In the first opaque word of a view that holds something.
const HELD: u64 = 0x7a62_2e76_6965_7731;

/// What a view holds, in its other opaque words.
pub(crate) enum Guard {
    Local(LocalResponse),
    Shared(OwnedResponse),
    TwoBuffers(OwnedDuplexResponse),
    Frame(OwnedFrame),
}

const _: () = assert!(size_of::<Guard>() <= 7 * 8 && align_of::<Guard>() <= 8);

/// A response that borrows its client, whose handle stays for as long.
pub(crate) struct LocalResponse {
    /// `None` only while it is being dropped or detached.
    pub(crate) response: MaybeUninit<Response<'static>>,
    pub(crate) client: NonNull<Local>,
}

impl LocalResponse {
    #[inline(always)]
    fn response(&self) -> &Response<'static> {
        // SAFETY: it is taken out by `into_owned` and `drop` only, which end this value.
        unsafe { self.response.assume_init_ref() }
    }

    fn into_owned(self) -> OwnedResponse {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, nor dropped.
        let owned = unsafe { this.response.assume_init_read() }.into_owned();
        // SAFETY: the guard was counted when it was made, and its response is gone.
        unsafe { Local::give_back(this.client) };
        owned
    }
}

impl Drop for LocalResponse {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: not taken out before, since that forgets the value.
        unsafe { self.response.assume_init_drop() };
        // SAFETY: the guard was counted when it was made, and its response is gone.
        unsafe { Local::give_back(self.client) };
    }
}

impl zb_view {
    pub(crate) const EMPTY: Self =
        Self { data: std::ptr::null(), len: 0, sequence: 0, opaque: [0; 8] };

    /// Puts a guard into the caller's struct, whatever was there before.
    ///
    /// # Safety
    /// `view` can be written.
    #[inline(always)]
    pub(crate) unsafe fn put(view: NonNull<Self>, guard: Guard) {
        let (data, sequence) = match &guard {
            Guard::Local(local) => (local.response().data(), local.response().sequence()),
            Guard::Shared(response) => (response.data(), response.sequence()),
            Guard::TwoBuffers(response) => (response.data(), response.sequence()),
            Guard::Frame(frame) => (frame.data(), frame.sequence()),
        };
        let (data, len) = (data.as_ptr(), data.len());
        let view = view.as_ptr();
        // SAFETY: `view` can be written; the guard fits (asserted above).
        unsafe {
            (&raw mut (*view).data).write(data);
            (&raw mut (*view).len).write(len);
            (&raw mut (*view).sequence).write(sequence);
            let opaque = (&raw mut (*view).opaque).cast::<u64>();
            opaque.write(HELD);
            opaque.add(1).cast::<Guard>().write(guard);
        }
    }

    /// Takes the guard out and leaves the struct empty.
    ///
    /// # Safety
    /// The C contract.
    #[inline(always)]
    unsafe fn take(view: *mut Self) -> Option<Guard> {
        // SAFETY: the C contract: this library has filled the struct, or it is zero.
        unsafe {
            let opaque = (&raw mut (*view).opaque).cast::<u64>();
            if view.is_null() || opaque.read() != HELD {
                return None;
            }
            opaque.write(0);
            (&raw mut (*view).data).write(std::ptr::null());
            (&raw mut (*view).len).write(0);
            Some(opaque.add(1).cast::<Guard>().read())
        }
    }
}

/// Runs a call that fills a view; if it fails, the view holds nothing.
///
/// # Safety
/// The C contract for `out`.
#[inline(always)]
pub(crate) unsafe fn receive(out: *mut zb_view, call: impl FnOnce() -> Result<Guard>) -> zb_status {
    run(|| {
        let out = NonNull::new(out).ok_or_else(|| null("out"))?;
        match call() {
            Ok(guard) => {
                // SAFETY: the C contract.
                unsafe { zb_view::put(out, guard) };
                Ok(())
            }
            Err(error) => {
                // SAFETY: the C contract.
                unsafe { out.write(zb_view::EMPTY) };
                Err(error)
            }
        }
    })
}

/// Gives the bytes back, and leaves the view empty. Does nothing for an empty or null one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_view_release(view: *mut zb_view) {
    // SAFETY: the C contract.
    run_or((), || drop(unsafe { zb_view::take(view) }));
}

/// Lets a view be released on any thread, and outlive its handle. Its bytes stay where they are.
/// From then on this connection counts with locked instructions, which costs some nanoseconds for
/// each request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_view_detach(view: *mut zb_view) -> zb_status {
    run(|| {
        let out = NonNull::new(view).ok_or_else(|| null("view"))?;
        // SAFETY: the C contract.
        let guard = match unsafe { zb_view::take(view) } {
            Some(Guard::Local(local)) => Guard::Shared(local.into_owned()),
            Some(guard) => guard,
            None => return Err(Error::InvalidState { reason: "the view holds nothing" }),
        };
        // SAFETY: the C contract.
        unsafe { zb_view::put(out, guard) };
        Ok(())
    })
}
