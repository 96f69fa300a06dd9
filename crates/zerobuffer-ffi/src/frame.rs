//! The guard of a request in a server's hands.

use crate::error::{run, run_or, zb_status};
use crate::lender::Lender;
use crate::pointers::{bytes, given};
use std::ffi::c_char;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{null_mut, with_exposed_provenance, with_exposed_provenance_mut};
use std::rc::Rc;
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::v1::{self, Draft, Reply};
use zerobuffer::{ClientIdentity, Error, Frame, OwnedRequest, Request, Result, Server, Service};

/// A request in a server's hands: bytes in shared memory, to be edited where they lie.
///
/// In a handler it is valid until the handler returns, and its bytes are then the response. From
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
    /// The most bytes that the response can have.
    pub capacity: usize,
    /// The request's number, as its client counts.
    pub sequence: u64,
    /// The library's.
    pub opaque: [u64; 3],
}

/// What a frame is, in its first opaque word; the second one is an address.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum State {
    /// Of a [`Handling`] on the handler's stack.
    InHandler = 0x7a62_2e66_726d_6831,
    /// Of a [`LocalServer`]; the third word is the number of its guard.
    Received = 0x7a62_2e66_726d_7231,
    /// Of a boxed [`OwnedRequest`].
    Detached = 0x7a62_2e66_726d_6431,
}

/// A server. The request that was received has it exclusively.
pub(crate) type LocalServer = Lender<Serving, Request<'static>>;

/// A server, and what the end of one leaves in the caller's hands.
pub(crate) struct Serving {
    pub(crate) server: Any,
    /// Of a request that the server's end has answered while the caller had it: its bytes stay mapped until the
    /// frame is released.
    pub(crate) kept: Option<SharedMemoryView>,
}

// There are few servers.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Any {
    InPlace(Server),
    Service(Service),
    TwoBuffers { server: v1::DuplexServer, mutable: bool },
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
    Immutable(&'h v1::RequestView<'f>, &'h mut Reply<'r>),
}

/// What a frame stands for.
enum Origin<'h> {
    Handler(&'h mut Handling<'h, 'h, 'h>),
    Received(&'h LocalServer),
    /// Stays boxed until it is taken.
    Detached(ManuallyDrop<Box<OwnedRequest>>),
}

const NOT_HELD: Error = Error::InvalidState { reason: "the frame was answered before" };
const IN_HANDLER: Error =
    Error::InvalidState { reason: "in a handler the answer goes when it returns" };
const TWO_BUFFERS: Error =
    Error::Unsupported { what: "to change the length of a frame of two buffers" };

impl zb_frame {
    pub(crate) const EMPTY: Self =
        Self { data: null_mut(), len: 0, capacity: 0, sequence: 0, opaque: [0; 3] };

    #[inline(always)]
    pub(crate) fn new(data: *mut u8, len: usize, capacity: usize, sequence: u64) -> Self {
        Self { data, len, capacity, sequence, opaque: [0; 3] }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, state: State, address: u64, serial: u64) {
        self.opaque = [state as u64, address, serial];
    }

    /// What it stands for; fails if that was answered before.
    #[inline(always)]
    fn origin(&self) -> Result<Origin<'_>> {
        let [tag, address, serial] = self.opaque;
        // SAFETY: the rule **Guards**: this library has stored the address of one of these with its tag. A
        // handler's lives until the handler returns, a box until the frame is emptied.
        unsafe {
            let pointer = address as usize;
            if tag == State::InHandler as u64 {
                return Ok(Origin::Handler(&mut *with_exposed_provenance_mut(pointer)));
            }
            if tag == State::Received as u64 {
                let server = LocalServer::at(address);
                return match server.serial() == serial {
                    true => Ok(Origin::Received(server)),
                    false => Err(NOT_HELD),
                };
            }
            if tag == State::Detached as u64 {
                let request = Box::from_raw(with_exposed_provenance_mut(pointer));
                return Ok(Origin::Detached(ManuallyDrop::new(request)));
            }
        }
        Err(NOT_HELD)
    }

    /// Of what it stands for it makes shared references only, for other threads may do so at the same time.
    fn is_cancelled(&self) -> bool {
        let [tag, address, _] = self.opaque;
        let address = address as usize;
        // SAFETY: as for `origin`.
        unsafe {
            if tag == State::InHandler as u64 {
                let handling = with_exposed_provenance::<Handling<'_, '_, '_>>(address);
                return match &(*handling).work {
                    Work::InPlace(frame) => frame.cancelled(),
                    Work::Mutable(draft) => draft.cancelled(),
                    Work::Immutable(request, _) => request.cancelled(),
                };
            }
            if tag == State::Detached as u64 {
                return (*with_exposed_provenance::<OwnedRequest>(address)).cancelled();
            }
        }
        match self.origin() {
            Ok(Origin::Received(server)) => {
                server.with_guard(|request| request.cancelled()).unwrap_or(true)
            }
            _ => false,
        }
    }

    /// Uses the frame in place that this stands for.
    fn in_place<T>(&self, use_it: impl FnOnce(&mut Frame<'_>) -> Result<T>) -> Result<T> {
        match self.origin()? {
            Origin::Handler(Handling { work: Work::InPlace(frame), .. }) => use_it(frame),
            Origin::Handler(_) => Err(TWO_BUFFERS),
            Origin::Received(server) => {
                server.with_guard(|request| use_it(request)).ok_or(NOT_HELD)?
            }
            Origin::Detached(mut request) => use_it(&mut request),
        }
    }

    /// Who has sent it; `None` for the client of a channel.
    pub(crate) fn client<T>(&self, of: impl FnOnce(Option<&ClientIdentity>) -> T) -> Result<T> {
        match self.origin()? {
            Origin::Handler(Handling { work: Work::Mutable(_) | Work::Immutable(..), .. }) => {
                Ok(of(None))
            }
            _ => self.in_place(|frame| Ok(of(frame.client()))),
        }
    }

    /// Ends a received frame by one of two ways, which say the same for both of its types.
    #[inline(always)]
    fn answer(
        &mut self,
        at_hand: impl FnOnce(Request<'static>),
        detached: impl FnOnce(OwnedRequest),
    ) -> Result<()> {
        match self.origin()? {
            Origin::Handler(_) => return Err(IN_HANDLER),
            Origin::Received(server) => {
                let taken = take(server);
                *self = Self::EMPTY;
                let (request, _keep) = taken?;
                at_hand(request);
            }
            Origin::Detached(request) => {
                *self = Self::EMPTY;
                detached(*ManuallyDrop::into_inner(request));
            }
        }
        Ok(())
    }
}

/// The request that the caller has, and what keeps its server until that is dropped; or what was kept of one that
/// the server's end has answered.
#[inline(always)]
fn take(server: &LocalServer) -> Result<(Request<'static>, Option<Rc<LocalServer>>)> {
    match server.take() {
        (Some(request), keep) => Ok((request, keep)),
        (None, keep) => Err(ended(server, keep)),
    }
}

#[cold]
fn ended(server: &LocalServer, keep: Option<Rc<LocalServer>>) -> Error {
    // SAFETY: its guard is taken.
    if let Some(serving) = unsafe { server.free() } {
        serving.kept = None;
    }
    drop(keep);
    NOT_HELD
}

/// Changes the length of the response, up to the capacity; bytes that are added are zero. In place
/// only.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_resize(frame: Option<&mut zb_frame>, len: usize) -> zb_status {
    run(|| {
        let frame = given(frame, "frame")?;
        frame.in_place(|inner| inner.resize(len))?;
        frame.len = len;
        Ok(())
    })
}

/// The client's metadata. `data` gets its address, `len` its length; valid as long as the frame
/// is, and its server is not stopped. No bytes if the client has none.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_metadata(
    frame: Option<&mut zb_frame>,
    data: Option<&mut MaybeUninit<*const u8>>,
    len: Option<&mut MaybeUninit<usize>>,
) -> zb_status {
    run(|| {
        let (frame, data, len) = (given(frame, "frame")?, given(data, "data")?, given(len, "len")?);
        let found = match frame.origin()? {
            Origin::Handler(Handling { work: Work::Mutable(draft), .. }) => {
                address(draft.metadata())
            }
            Origin::Handler(Handling { work: Work::Immutable(request, _), .. }) => {
                address(request.metadata())
            }
            _ => frame.in_place(|inner| Ok(address(inner.metadata())))?,
        };
        data.write(found.0);
        len.write(found.1);
        Ok(())
    })
}

fn address(bytes: &[u8]) -> (*const u8, usize) {
    (bytes.as_ptr(), bytes.len())
}

/// Whether nobody gets the response any more: the client has cancelled the request, closed or died; with two buffers,
/// closed or died. To be asked between two pieces of long work, since it costs a system call. When it is true, whatever
/// the handler responds reaches nobody. False for a frame that was answered.
///
/// A server that is being stopped still delivers the response, so this stays false: finish the response, or fail the
/// request. Only when `stop_timeout_ns` has passed, and the client of a server in place is told `ZB_PEER_CLOSED`, is it
/// true as well: a later response is not delivered.
///
/// In a handler, and for a detached frame, any thread may ask while no other call with this frame is under way.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_is_cancelled(frame: Option<&zb_frame>) -> bool {
    run_or(false, || frame.is_some_and(zb_frame::is_cancelled))
}

// What the documentation promises.
const _: () = {
    const fn any_thread_may_ask<T: Sync>() {}
    any_thread_may_ask::<(Frame<'_>, OwnedRequest, Draft<'_>, v1::RequestView<'_>)>();
};

/// Answers with a failure: the client gets `ZB_HANDLER_FAILED` and as much of the message, UTF-8
/// of `len` bytes, as fits. A received frame is answered at once and is empty then; in a handler,
/// when it returns, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_fail(
    frame: Option<&mut zb_frame>,
    message: *const c_char,
    len: usize,
) -> zb_status {
    run(|| {
        let frame = given(frame, "frame")?;
        // SAFETY: the rule **Pointers**.
        let message = String::from_utf8_lossy(unsafe { bytes(message.cast(), len, "message")? });
        if let Ok(Origin::Handler(handling)) = frame.origin() {
            handling.failure = Some(message.into_owned());
            return Ok(());
        }
        frame.answer(|request| request.fail(&message), |request| request.fail(&message))
    })
}

/// Gives a received frame up, and leaves it empty: the client gets `ZB_HANDLER_FAILED` with the handler
/// status 3. Does nothing for an empty or null one, and in a handler.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_abandon(frame: Option<&mut zb_frame>) {
    run_or((), || {
        // Nothing to abandon is no failure.
        let _ = frame.map(|frame| frame.answer(drop, drop));
    });
}

/// Answers a received frame with its bytes as they are, and leaves it empty.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_respond(frame: Option<&mut zb_frame>) -> zb_status {
    run(|| given(frame, "frame")?.answer(Request::respond, OwnedRequest::respond))
}

/// Lets a received frame be used and answered on any thread, after others that came later, and
/// after its server was stopped. Its bytes stay where they are. From then on this server counts
/// with locked instructions.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_detach(frame: Option<&mut zb_frame>) -> zb_status {
    run(|| {
        let frame = given(frame, "frame")?;
        let server = match frame.origin()? {
            Origin::Detached(_) => return Ok(()),
            Origin::Handler(_) => return Err(IN_HANDLER),
            Origin::Received(server) => server,
        };
        let (request, _keep) = take(server).inspect_err(|_| *frame = zb_frame::EMPTY)?;
        let request = Box::into_raw(Box::new(request.into_owned()));
        frame.set(State::Detached, request.expose_provenance() as u64, 0);
        Ok(())
    })
}

/// In the handler of an immutable server: the response, of `len` bytes, to be filled at `*data`.
/// Exactly once.
#[unsafe(no_mangle)]
pub extern "C" fn zb_frame_reply(
    frame: Option<&mut zb_frame>,
    len: usize,
    data: Option<&mut MaybeUninit<*mut u8>>,
) -> zb_status {
    run(|| {
        let (frame, data) = (given(frame, "frame")?, given(data, "data")?.write(null_mut()));
        match frame.origin() {
            Ok(Origin::Handler(Handling { work: Work::Immutable(_, reply), .. })) => {
                *data = reply.acquire(len)?.as_mut_ptr();
                Ok(())
            }
            _ => Err(Error::InvalidState {
                reason: "only the handler of an immutable server replies with other bytes",
            }),
        }
    })
}
