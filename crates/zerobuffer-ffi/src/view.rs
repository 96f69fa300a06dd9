//! The guard of bytes to read: an answer, or a version 1 frame.

use crate::client::Local;
use crate::error::{ZB_OK, null, run, run_or, store, zb_status};
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

/// What a view can hold: bytes, and whose they are. It lies in the view's other opaque words, and the
/// first one says of which type it is: so it is neither wrapped nor copied on its way in and out.
pub(crate) trait Guard {
    /// Of this type alone, and not zero.
    const TAG: u64;

    fn data(&self) -> &[u8];
    fn sequence(&self) -> u64;
}

macro_rules! guards {
    ($($type:ty = $tag:literal),* $(,)?) => {$(
        impl Guard for $type {
            const TAG: u64 = $tag;

            #[inline(always)]
            fn data(&self) -> &[u8] {
                self.data()
            }

            #[inline(always)]
            fn sequence(&self) -> u64 {
                self.sequence()
            }
        }

        const _: () = assert!(size_of::<$type>() <= 7 * 8 && align_of::<$type>() <= 8);
    )*};
}

guards! {
    LocalResponse = 0x7a62_2e76_6965_7731,
    OwnedResponse = 0x7a62_2e76_6965_7732,
    OwnedDuplexResponse = 0x7a62_2e76_6965_7733,
    OwnedFrame = 0x7a62_2e76_6965_7734,
}

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

    #[inline(always)]
    fn data(&self) -> &[u8] {
        self.response().data()
    }

    #[inline(always)]
    fn sequence(&self) -> u64 {
        self.response().sequence()
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
    pub(crate) unsafe fn put<G: Guard>(view: NonNull<Self>, guard: G) {
        let (data, sequence) = (guard.data(), guard.sequence());
        let (data, len) = (data.as_ptr(), data.len());
        let view = view.as_ptr();
        // SAFETY: `view` can be written; the guard fits (asserted above).
        unsafe {
            (&raw mut (*view).data).write(data);
            (&raw mut (*view).len).write(len);
            (&raw mut (*view).sequence).write(sequence);
            let opaque = (&raw mut (*view).opaque).cast::<u64>();
            opaque.write(G::TAG);
            opaque.add(1).cast::<G>().write(guard);
        }
    }

    /// Leaves the struct empty, and says of which type the guard was that it held.
    ///
    /// # Safety
    /// The C contract.
    #[inline(always)]
    unsafe fn empty(view: NonNull<Self>) -> u64 {
        let view = view.as_ptr();
        // SAFETY: the C contract: this library has filled the struct, or it is zero.
        unsafe {
            (&raw mut (*view).data).write(std::ptr::null());
            (&raw mut (*view).len).write(0);
            (&raw mut (*view).opaque).cast::<u64>().replace(0)
        }
    }

    /// Where the guard lies.
    #[inline(always)]
    fn guard<G: Guard>(view: NonNull<Self>) -> *mut G {
        // SAFETY: of the same struct.
        unsafe { (&raw mut (*view.as_ptr()).opaque).cast::<u64>().add(1).cast() }
    }

    /// Ends the life of what a view held.
    ///
    /// # Safety
    /// The C contract, and `tag` is what [`zb_view::empty`] has just said of it.
    #[inline(always)]
    unsafe fn drop_guard(view: NonNull<Self>, tag: u64) {
        // SAFETY: `put` has written one of this type, and the view does not say so any more.
        unsafe {
            if tag == LocalResponse::TAG {
                Self::guard::<LocalResponse>(view).drop_in_place();
            } else {
                Self::drop_other(view, tag);
            }
        }
    }

    /// # Safety
    /// As [`zb_view::drop_guard`].
    #[inline(never)]
    unsafe fn drop_other(view: NonNull<Self>, tag: u64) {
        // SAFETY: the caller's.
        unsafe {
            match tag {
                OwnedResponse::TAG => Self::guard::<OwnedResponse>(view).drop_in_place(),
                OwnedDuplexResponse::TAG => {
                    Self::guard::<OwnedDuplexResponse>(view).drop_in_place();
                }
                OwnedFrame::TAG => Self::guard::<OwnedFrame>(view).drop_in_place(),
                _ => {}
            }
        }
    }
}

/// Runs a call that fills a view; if it fails or panics, the view holds nothing.
///
/// # Safety
/// The C contract for `out`.
#[inline(always)]
pub(crate) unsafe fn receive(
    out: *mut zb_view,
    call: impl FnOnce(NonNull<zb_view>) -> Result<()>,
) -> zb_status {
    let Some(out) = NonNull::new(out) else { return store(&null("out")) };
    let status = run(|| call(out));
    if status != ZB_OK {
        // Here and not inside, for a panic comes this way too. Whoever made the struct relies on it: C++ does
        // not fill it before the call.
        // SAFETY: the C contract.
        unsafe { out.write(zb_view::EMPTY) };
    }
    status
}

/// Gives the bytes back, and leaves the view empty. Does nothing for an empty or null one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_view_release(view: *mut zb_view) {
    run_or((), || {
        let Some(view) = NonNull::new(view) else { return };
        // SAFETY: the C contract.
        unsafe {
            let tag = zb_view::empty(view);
            zb_view::drop_guard(view, tag);
        }
    });
}

/// Lets a view be released on any thread, and outlive its handle. Its bytes stay where they are.
/// From then on this connection counts with locked instructions, which costs some nanoseconds for
/// each request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_view_detach(view: *mut zb_view) -> zb_status {
    run(|| {
        let out = NonNull::new(view).ok_or_else(|| null("view"))?;
        // SAFETY: the C contract.
        match unsafe { (&raw const (*view).opaque).cast::<u64>().read() } {
            LocalResponse::TAG => {}
            OwnedResponse::TAG | OwnedDuplexResponse::TAG | OwnedFrame::TAG => return Ok(()),
            _ => return Err(Error::InvalidState { reason: "the view holds nothing" }),
        }
        // SAFETY: the C contract; the tag says of which type the guard is.
        unsafe {
            zb_view::empty(out);
            let local = zb_view::guard::<LocalResponse>(out).read();
            zb_view::put(out, local.into_owned());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ZB_INVALID_STATE;

    /// What is in memory that nobody has written.
    fn garbage() -> zb_view {
        let data = std::ptr::without_provenance(0xdead);
        zb_view { data, len: 7, sequence: 7, opaque: [OwnedFrame::TAG; 8] }
    }

    #[test]
    fn a_call_that_panics_leaves_an_empty_view() {
        let mut view = garbage();
        // SAFETY: it can be written.
        let status = unsafe { receive(&raw mut view, |_| panic!("on purpose")) };
        assert_eq!(status, ZB_INVALID_STATE);
        assert_eq!((view.data, view.len, view.sequence), (std::ptr::null(), 0, 0));
        assert_eq!(view.opaque, [0; 8]);
        // SAFETY: it is empty.
        unsafe { zb_view_release(&raw mut view) };
    }

    #[test]
    fn a_call_that_fails_leaves_an_empty_view() {
        let mut view = garbage();
        // SAFETY: it can be written.
        let status = unsafe { receive(&raw mut view, |_| Err(Error::ClaimOpen)) };
        assert_eq!(status, crate::error::ZB_CLAIM_OPEN);
        assert_eq!((view.data, view.opaque), (std::ptr::null(), [0; 8]));
    }
}
