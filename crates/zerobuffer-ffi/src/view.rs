//! The guard of bytes to read: a response, or a version 1 frame.

use crate::buffer::LocalClient;
use crate::error::{ZB_OK, run, run_or, store, zb_status};
use crate::pointers::{given, null};
use std::mem::MaybeUninit;
use std::rc::Rc;
use zerobuffer::v1::OwnedFrameView;
use zerobuffer::{Error, OwnedResponse, Response, Result};

/// Bytes in shared memory that are the caller's to read, until `zb_view_release` releases them.
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
    pub opaque: [MaybeUninit<u64>; 8],
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
    OwnedFrameView = 0x7a62_2e76_6965_7734,
}

/// A response that borrows its client, which it keeps.
pub(crate) struct LocalResponse {
    /// Before the client: dropped first.
    response: Response<'static>,
    client: Rc<LocalClient>,
}

impl LocalResponse {
    /// `response` is one of `client`.
    #[inline(always)]
    pub(crate) fn new(response: Response<'static>, client: &Rc<LocalClient>) -> Self {
        Self { response, client: Rc::clone(client) }
    }

    #[inline(always)]
    fn data(&self) -> &[u8] {
        self.response.data()
    }

    #[inline(always)]
    fn sequence(&self) -> u64 {
        self.response.sequence()
    }
}

impl zb_view {
    pub(crate) const EMPTY: Self =
        Self { data: std::ptr::null(), len: 0, sequence: 0, opaque: [MaybeUninit::new(0); 8] };

    /// Puts a guard into the caller's struct, whatever was there before.
    #[inline(always)]
    pub(crate) fn put<G: Guard>(view: &mut MaybeUninit<Self>, guard: G) {
        let (data, sequence) = (guard.data(), guard.sequence());
        let (data, len) = (data.as_ptr(), data.len());
        let view = view.as_mut_ptr();
        // SAFETY: of a struct that can be written; the guard fits (asserted above).
        unsafe {
            (&raw mut (*view).data).write(data);
            (&raw mut (*view).len).write(len);
            (&raw mut (*view).sequence).write(sequence);
            let opaque = (&raw mut (*view).opaque).cast::<u64>();
            opaque.write(G::TAG);
            opaque.add(1).cast::<G>().write(guard);
        }
    }

    /// Of which type the guard is that the view holds.
    #[inline(always)]
    fn tag(&self) -> u64 {
        // SAFETY: the rule **Guards**: `put` has written it, or it is zero.
        unsafe { self.opaque[0].assume_init() }
    }

    /// Leaves the view empty, and its guard where it lies.
    ///
    /// # Safety
    /// `tag` has just said that it holds one of this type; it is read or dropped there once.
    #[inline(always)]
    unsafe fn take<G: Guard>(&mut self) -> *mut G {
        (self.data, self.len) = (std::ptr::null(), 0);
        self.opaque[0] = MaybeUninit::new(0);
        // SAFETY: of the same struct.
        unsafe { self.opaque.as_mut_ptr().add(1).cast() }
    }

    /// Ends the life of what the view holds.
    #[inline(always)]
    fn release(&mut self) {
        // SAFETY: the tag says so, and is taken away.
        unsafe {
            match self.tag() {
                LocalResponse::TAG => self.take::<LocalResponse>().drop_in_place(),
                tag => self.release_other(tag),
            }
        }
    }

    #[inline(never)]
    fn release_other(&mut self, tag: u64) {
        // SAFETY: the tag says so, and is taken away.
        unsafe {
            match tag {
                OwnedResponse::TAG => self.take::<OwnedResponse>().drop_in_place(),
                OwnedFrameView::TAG => self.take::<OwnedFrameView>().drop_in_place(),
                _ => {}
            }
        }
    }
}

/// Runs a call that fills a view; if it fails or panics, the view holds nothing.
#[inline(always)]
pub(crate) fn receive(
    out: Option<&mut MaybeUninit<zb_view>>,
    call: impl FnOnce(&mut MaybeUninit<zb_view>) -> Result<()>,
) -> zb_status {
    let Some(out) = out else { return store(&null("the view")) };
    let status = run(|| call(out));
    if status != ZB_OK {
        // Here and not inside, for a panic comes this way too. C++ relies on it, and does not fill the struct
        // before the call.
        out.write(zb_view::EMPTY);
    }
    status
}

/// Gives the bytes back, and leaves the view empty. Does nothing for an empty or null one.
#[unsafe(no_mangle)]
pub extern "C" fn zb_view_release(view: Option<&mut zb_view>) {
    run_or((), || {
        if let Some(view) = view {
            view.release();
        }
    });
}

/// Lets a view be released on any thread, and outlive its handle. Its bytes stay where they are.
/// From then on this connection counts with locked instructions, which costs some nanoseconds for
/// each request.
#[unsafe(no_mangle)]
pub extern "C" fn zb_view_detach(view: Option<&mut zb_view>) -> zb_status {
    run(|| {
        let view = given(view, "view")?;
        match view.tag() {
            LocalResponse::TAG => {}
            OwnedResponse::TAG | OwnedFrameView::TAG => return Ok(()),
            _ => return Err(Error::InvalidState { reason: "the view holds nothing" }),
        }
        // SAFETY: the tag says so, and is taken away.
        let LocalResponse { response, client } = unsafe { view.take::<LocalResponse>().read() };
        let place: *mut zb_view = view;
        // SAFETY: as one to memory that can be written; the view is empty.
        zb_view::put(unsafe { &mut *place.cast() }, response.into_owned());
        drop(client);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ZB_INVALID_STATE;

    /// What is in memory that nobody has written.
    fn garbage() -> MaybeUninit<zb_view> {
        let data = std::ptr::without_provenance(0xdead);
        let opaque = [MaybeUninit::new(OwnedFrameView::TAG); 8];
        MaybeUninit::new(zb_view { data, len: 7, sequence: 7, opaque })
    }

    fn is_empty(view: &zb_view) -> bool {
        // SAFETY: all of them were written.
        let opaque = view.opaque.map(|word| unsafe { word.assume_init() });
        (view.data, view.len, view.sequence) == (std::ptr::null(), 0, 0) && opaque == [0; 8]
    }

    #[test]
    fn a_call_that_panics_leaves_an_empty_view() {
        let mut view = garbage();
        let status = receive(Some(&mut view), |_| panic!("on purpose"));
        assert_eq!(status, ZB_INVALID_STATE);
        // SAFETY: written by `garbage`.
        let view = unsafe { view.assume_init_mut() };
        assert!(is_empty(view));
        zb_view_release(Some(view));
    }

    #[test]
    fn a_call_that_fails_leaves_an_empty_view() {
        let mut view = garbage();
        let status = receive(Some(&mut view), |_| Err(Error::ClaimOpen));
        assert_eq!(status, crate::error::ZB_CLAIM_OPEN);
        // SAFETY: written by `garbage`.
        assert!(is_empty(unsafe { view.assume_init_ref() }));
    }
}
