//! The guard of a request in a server's hands.

use crate::config::bytes;
use crate::error::{null, run, run_or, zb_status};
use crate::server::{Serving, zb_server};
use std::ffi::c_char;
use std::ptr::{null_mut, with_exposed_provenance_mut};
use zerobuffer::v1::{self, Draft, Reply};
use zerobuffer::{Error, Frame, OwnedRequest, Request, Result};

/// A request in a server's hands: bytes in shared memory, to be edited where they lie.
///
/// In a handler it is valid until the handler returns, and its bytes are then the answer. From
/// `zb_server_receive` it is valid until `zb_frame_respond`, `zb_frame_fail` or `zb_frame_abandon`.
///
/// Threads: in a handler, the handler's. A received one is used on the thread that uses the
/// server, unless it was detached.
#[repr(C)]
pub struct zb_frame {
    /// The first byte. For the handler of an immutable server to read only.
    pub data: *mut u8,
    /// Bytes at `data`; `zb_frame_resize` changes it.
    pub len: usize,
    /// The most bytes that the answer can have.
    pub capacity: usize,
    /// The request's number, as its client counts.
    pub sequence: u64,
    /// The library's.
    pub opaque: [u64; 3],
}

/// What a frame is, in its first opaque word; the second one is the address of what it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum State {
    /// A [`Handling`] on the handler's stack.
    InHandler = 0x7a62_2e66_726d_6831,
    /// In its server, if the third word is the server's count of received requests.
    Received = 0x7a62_2e66_726d_7231,
    /// A boxed [`OwnedRequest`].
    Detached = 0x7a62_2e66_726d_6431,
}

/// A request while a handler runs on it.
pub(crate) struct Handling<'h, 'f, 'r> {
    pub(crate) work: Work<'h, 'f, 'r>,
    /// What `zb_frame_fail` said.
    pub(crate) failure: Option<String>,
}

/// What the handler of each kind of server has.
pub(crate) enum Work<'h, 'f, 'r> {
    InPlace(&'h mut Frame<'f>),
    Mutable(&'h mut Draft<'f>),
    Immutable(&'h v1::Request<'f>, &'h mut Reply<'r>),
}

const NOT_HELD: Error = Error::InvalidState { reason: "the frame was answered before" };

impl zb_frame {
    pub(crate) const EMPTY: Self =
        Self { data: null_mut(), len: 0, capacity: 0, sequence: 0, opaque: [0; 3] };

    #[inline(always)]
    pub(crate) fn set<T>(&mut self, state: State, owner: *mut T, serial: u64) {
        self.opaque = [state as u64, owner.expose_provenance() as u64, serial];
    }

    #[inline(always)]
    fn owner<T>(&self, state: State) -> Option<*mut T> {
        let address = self.opaque[1] as usize;
        (self.opaque[0] == state as u64).then(|| with_exposed_provenance_mut(address))
    }

    /// # Safety
    /// The C contract.
    unsafe fn of<'f>(frame: *mut Self) -> Result<&'f mut Self> {
        // SAFETY: the C contract.
        unsafe { frame.as_mut() }.ok_or_else(|| null("frame"))
    }

    /// # Safety
    /// The C contract: the handler has not returned.
    unsafe fn handling<'h, 'f, 'r>(&self) -> Option<&'h mut Handling<'h, 'f, 'r>> {
        // SAFETY: the C contract.
        self.owner(State::InHandler).map(|handling| unsafe { &mut *handling })
    }

    /// # Safety
    /// The C contract: the server is not closed.
    unsafe fn server<'s>(&self) -> Option<&'s mut Serving> {
        // SAFETY: the C contract.
        let server = unsafe { zb_server::of(self.owner(State::Received)?) }.ok()?;
        server.is_at_hand(self.opaque[2]).then_some(server)
    }

    /// Tells the server that this is no longer in the caller's hands.
    ///
    /// # Safety
    /// The C contract, and this is not used again as a received frame.
    unsafe fn give_back(&self) {
        if let Some(server) = self.owner(State::Received) {
            // SAFETY: the C contract.
            unsafe { zb_server::give_back(server, self.opaque[2]) };
        }
    }

    /// The frame in place that this stands for.
    ///
    /// # Safety
    /// The C contract.
    unsafe fn in_place<T>(&self, use_it: impl FnOnce(&mut Frame<'_>) -> Result<T>) -> Result<T> {
        const TWO_BUFFERS: Error =
            Error::Unsupported { what: "to change the length of a frame of two buffers" };
        // SAFETY: the C contract.
        unsafe {
            if let Some(handling) = self.handling() {
                return match &mut handling.work {
                    Work::InPlace(frame) => use_it(frame),
                    _ => Err(TWO_BUFFERS),
                };
            }
            if let Some(request) = self.server().and_then(Serving::request_at_hand) {
                return use_it(request);
            }
            match self.owner::<OwnedRequest>(State::Detached) {
                Some(request) => use_it(&mut *request),
                None => Err(NOT_HELD),
            }
        }
    }
}

/// Changes the length of the answer, up to the capacity; bytes that are added are zero. In place
/// only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_resize(frame: *mut zb_frame, len: usize) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let frame = unsafe { zb_frame::of(frame)? };
        // SAFETY: the C contract.
        unsafe { frame.in_place(|inner| inner.resize(len))? };
        frame.len = len;
        Ok(())
    })
}

/// The client's metadata. `data` gets its address, `len` its length; valid as long as the frame
/// is, and its server is not stopped. No bytes if the client has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_metadata(
    frame: *mut zb_frame,
    data: *mut *const u8,
    len: *mut usize,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let (frame, data, len) = unsafe { (zb_frame::of(frame)?, data.as_mut(), len.as_mut()) };
        let (Some(data), Some(len)) = (data, len) else { return Err(null("data or len")) };
        // SAFETY: the C contract.
        let found = unsafe {
            match frame.handling().map(|handling| &handling.work) {
                Some(Work::Mutable(draft)) => address(draft.metadata()),
                Some(Work::Immutable(request, _)) => address(request.metadata()),
                _ => frame.in_place(|inner| Ok(address(inner.metadata())))?,
            }
        };
        (*data, *len) = found;
        Ok(())
    })
}

fn address(bytes: &[u8]) -> (*const u8, usize) {
    (bytes.as_ptr(), bytes.len())
}

/// Answers with a failure: the client gets `ZB_HANDLER_FAILED` and as much of the message, UTF-8
/// of `len` bytes, as fits. A received frame is answered at once and is empty then; in a handler,
/// when it returns, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_fail(
    frame: *mut zb_frame,
    message: *const c_char,
    len: usize,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let (frame, message) =
            unsafe { (zb_frame::of(frame)?, bytes(message.cast(), len, "message")?) };
        let message = String::from_utf8_lossy(message);
        // SAFETY: the C contract.
        if let Some(handling) = unsafe { frame.handling() } {
            handling.failure = Some(message.into_owned());
            return Ok(());
        }
        // SAFETY: the C contract.
        unsafe { answer(frame, |request| request.fail(&message), |request| request.fail(&message)) }
    })
}

/// Gives a received frame up, and leaves it empty: the client gets `ZB_HANDLER_FAILED` with the handler
/// status 3. Does nothing for an empty or null one, and in a handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_abandon(frame: *mut zb_frame) {
    run_or((), || {
        // SAFETY: the C contract.
        let Ok(frame) = (unsafe { zb_frame::of(frame) }) else { return };
        // SAFETY: the C contract.
        if unsafe { frame.handling() }.is_none() {
            // SAFETY: the C contract. That there is nothing to give up is no failure.
            let _ = unsafe { answer(frame, drop, drop) };
        }
    });
}

/// Answers a received frame with its bytes as they are, and leaves it empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_respond(frame: *mut zb_frame) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let frame = unsafe { zb_frame::of(frame)? };
        // SAFETY: the C contract.
        if unsafe { frame.handling() }.is_some() {
            return Err(Error::InvalidState {
                reason: "in a handler the answer goes when it returns",
            });
        }
        // SAFETY: the C contract.
        unsafe { answer(frame, Request::respond, OwnedRequest::respond) }
    })
}

/// Ends a received frame by one of two ways, which say the same for both of its types.
///
/// # Safety
/// The C contract.
#[inline(always)]
unsafe fn answer(
    frame: &mut zb_frame,
    at_hand: impl FnOnce(Request<'static>),
    detached: impl FnOnce(OwnedRequest),
) -> Result<()> {
    // SAFETY: the C contract.
    let request = unsafe { frame.server() }.and_then(Serving::take_request);
    let boxed = frame.owner::<OwnedRequest>(State::Detached);
    let former = std::mem::replace(frame, zb_frame::EMPTY);
    let answered = match (request, boxed) {
        (Some(request), _) => {
            at_hand(request);
            Ok(())
        }
        (None, Some(request)) => {
            // SAFETY: made by `Box::into_raw` in `zb_frame_detach`, and forgotten just now.
            detached(*unsafe { Box::from_raw(request) });
            Ok(())
        }
        (None, None) => Err(NOT_HELD),
    };
    // SAFETY: the C contract; the frame was emptied.
    unsafe { former.give_back() };
    answered
}

/// Lets a received frame be used and answered on any thread, after others that came later, and
/// after its server was stopped. Its bytes stay where they are. From then on this server counts
/// with locked instructions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_detach(frame: *mut zb_frame) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let frame = unsafe { zb_frame::of(frame)? };
        if frame.opaque[0] == State::Detached as u64 {
            return Ok(());
        }
        // SAFETY: the C contract.
        if unsafe { frame.handling() }.is_some() {
            return Err(Error::InvalidState {
                reason: "in a handler the answer goes when it returns",
            });
        }
        // SAFETY: the C contract.
        let request = unsafe { frame.server() }.and_then(Serving::take_request).ok_or(NOT_HELD)?;
        let request = Box::into_raw(Box::new(request.into_owned()));
        // SAFETY: the C contract; the frame becomes a detached one.
        unsafe { frame.give_back() };
        frame.set(State::Detached, request, 0);
        Ok(())
    })
}

/// In the handler of an immutable server: the answer, of `len` bytes, to be filled at `*data`.
/// Exactly once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_reply(
    frame: *mut zb_frame,
    len: usize,
    data: *mut *mut u8,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let (frame, data) = unsafe { (zb_frame::of(frame)?, data.as_mut()) };
        let data = data.ok_or_else(|| null("data"))?;
        *data = null_mut();
        // SAFETY: the C contract.
        match unsafe { frame.handling() }.map(|handling| &mut handling.work) {
            Some(Work::Immutable(_, reply)) => *data = reply.acquire(len)?.as_mut_ptr(),
            _ => {
                return Err(Error::InvalidState {
                    reason: "only the handler of an immutable server replies with other bytes",
                });
            }
        }
        Ok(())
    })
}
