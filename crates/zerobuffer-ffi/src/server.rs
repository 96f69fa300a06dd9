//! Servers of all three kinds.

use crate::config::{
    self, ZB_SERVER_IMMUTABLE, ZB_SERVER_IN_PLACE, ZB_SERVER_MUTABLE, duration, zb_server_config,
};
use crate::error::{null, run, run_or, zb_status};
use crate::frame::{Handling, State, Work, zb_frame};
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_void};
use std::ptr::{NonNull, null_mut};
use zerobuffer::memory::SharedMemoryView;
use zerobuffer::{Closer, Error, Frame, HandlerOutcome, Request, Result, Server, ServerConfig, v1};

/// A server of one channel.
///
/// Threads: one at a time uses it, and the frame received from it; `zb_server_shutdown` and
/// `zb_server_is_client_connected` may be called on any other meanwhile. Handlers run on threads of the
/// library.
pub struct zb_server {
    closer: Closer,
    is_client_connected: Probe,
    serving: UnsafeCell<Serving>,
}

type Probe = Box<dyn Fn() -> bool + Send + Sync>;

/// What the one thread at a time uses.
pub(crate) struct Serving {
    /// Received and not answered; borrows the server, so it is dropped first.
    at_hand: Option<Request<'static>>,
    /// Of a request that the server's end has answered while it was in the caller's hands: its bytes stay
    /// mapped until it is given back.
    kept: Option<SharedMemoryView>,
    /// Counts received requests.
    serial: u64,
    /// The latest of them is in the caller's hands; it keeps the handle.
    lent: bool,
    /// To be freed when that is given back.
    closing: bool,
    /// Boxed: references to this struct do not reach into it.
    server: NonNull<Any>,
}

enum Any {
    InPlace(Server),
    Mutable(v1::DuplexServer),
    Immutable(v1::DuplexServer),
}

impl Any {
    /// What is used beside the one thread.
    fn for_any_thread(&self) -> (Closer, Probe) {
        match self {
            Any::InPlace(server) => (server.closer(), Box::new(server.client_probe())),
            Any::Mutable(server) | Any::Immutable(server) => {
                (server.closer(), Box::new(server.client_probe()))
            }
        }
    }
}

/// What a server runs on each request. It edits the frame, and returns 0; or it returns another
/// number, or calls `zb_frame_fail`, and the client gets `ZB_HANDLER_FAILED`. It must not unwind:
/// no exception, no `longjmp`.
///
/// Threads: an in-place server with several workers calls it on several threads at once.
pub type zb_handler = Option<unsafe extern "C" fn(frame: *mut zb_frame, user: *mut c_void) -> i32>;

/// Frees what a handler uses.
pub type zb_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

impl Drop for Serving {
    fn drop(&mut self) {
        self.at_hand = None;
        // SAFETY: made by `Box::leak`, and nothing borrows it any more.
        drop(unsafe { Box::from_raw(self.server.as_ptr()) });
    }
}

impl zb_server {
    /// # Safety
    /// The C contract; and the only reference to it on the one thread that uses it.
    #[inline(always)]
    pub(crate) unsafe fn of<'s>(server: *const Self) -> Result<&'s mut Serving> {
        // SAFETY: the C contract.
        let this = unsafe { server.as_ref() }.ok_or_else(|| null("server"))?;
        // SAFETY: the caller's.
        Ok(unsafe { &mut *this.serving.get() })
    }

    /// # Safety
    /// The C contract.
    unsafe fn view<'s>(server: *const Self) -> Result<&'s Any> {
        // SAFETY: the C contract; the boxed server lives as long as its handle.
        unsafe { Self::of(server).map(|this| this.server.as_ref()) }
    }

    /// Notes that received request `serial` is gone, and frees the server if it is closed.
    ///
    /// # Safety
    /// The C contract, and no reference to the server is used afterwards.
    #[inline(always)]
    pub(crate) unsafe fn give_back(server: *mut Self, serial: u64) {
        // SAFETY: the C contract: a received frame keeps its server's handle.
        let Ok(this) = (unsafe { Self::of(server) }) else { return };
        if this.serial != serial || !std::mem::replace(&mut this.lent, false) {
            return;
        }
        this.kept = None;
        if this.closing {
            // SAFETY: made by `Box::into_raw`; `zb_server_close` has left it to the frame.
            drop(unsafe { Box::from_raw(server) });
        }
    }
}

impl Serving {
    /// The server, unless a request that is at hand borrows it.
    #[inline(always)]
    fn free(&mut self) -> Result<&mut Any> {
        match self.at_hand {
            Some(_) => Err(Error::InvalidState {
                reason: "a received frame is not answered yet; answer or detach it first",
            }),
            // SAFETY: it lives as long as this, and only `at_hand` borrows it otherwise.
            None => Ok(unsafe { self.server.as_mut() }),
        }
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(request) = self.at_hand.take() {
            self.kept = Some(request.memory());
        }
        match self.free()? {
            Any::InPlace(server) => server.stop(),
            Any::Mutable(server) | Any::Immutable(server) => server.stop(),
        }
    }

    pub(crate) fn is_at_hand(&self, serial: u64) -> bool {
        self.at_hand.is_some() && self.serial == serial
    }

    pub(crate) fn request_at_hand(&mut self) -> Option<&mut Request<'static>> {
        self.at_hand.as_mut()
    }

    #[inline(always)]
    pub(crate) fn take_request(&mut self) -> Option<Request<'static>> {
        self.at_hand.take()
    }
}

/// A handler of C, and what it uses.
struct Handler {
    call: unsafe extern "C" fn(*mut zb_frame, *mut c_void) -> i32,
    user: *mut c_void,
    release: zb_release,
}

// SAFETY: the documentation of `zb_handler` and `zb_server_start` says on which threads they are called.
unsafe impl Send for Handler {}
// SAFETY: as above.
unsafe impl Sync for Handler {}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the C contract; nobody calls the handler any more.
            unsafe { release(self.user) };
        }
    }
}

/// How a handler has ended: with what the client is to be told if it failed.
struct Outcome(Option<String>);

impl HandlerOutcome for Outcome {
    #[inline(always)]
    fn into_result(self) -> std::result::Result<(), String> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Handler {
    #[inline(always)]
    fn in_place(&self, frame: &mut Frame<'_>) -> Outcome {
        let (capacity, sequence) = (frame.capacity(), frame.sequence());
        let (data, len) = (frame.data_mut().as_mut_ptr(), frame.len());
        let shown = zb_frame { data, len, capacity, sequence, opaque: [0; 3] };
        self.run(shown, Work::InPlace(frame))
    }

    fn mutable(&self, draft: &mut v1::Draft<'_>) -> Outcome {
        let (sequence, len) = (draft.sequence(), draft.len());
        let data = draft.data_mut().as_mut_ptr();
        let shown = zb_frame { data, len, capacity: len, sequence, opaque: [0; 3] };
        self.run(shown, Work::Mutable(draft))
    }

    fn immutable(&self, request: &v1::Request<'_>, reply: &mut v1::Reply<'_>) -> Outcome {
        let (sequence, len) = (request.sequence(), request.len());
        let data = request.data().as_ptr().cast_mut();
        let shown = zb_frame { data, len, capacity: len, sequence, opaque: [0; 3] };
        self.run(shown, Work::Immutable(request, reply))
    }

    #[inline(always)]
    fn run(&self, mut shown: zb_frame, work: Work<'_, '_, '_>) -> Outcome {
        let mut handling = Handling { work, failure: None };
        shown.set(State::InHandler, &raw mut handling, 0);
        // SAFETY: the C contract; both structs live until it returns.
        let code = unsafe { (self.call)(&raw mut shown, self.user) };
        match handling.failure {
            None if code == 0 => Outcome(None),
            said => failed(code, said),
        }
    }
}

#[cold]
fn failed(code: i32, said: Option<String>) -> Outcome {
    Outcome(Some(said.unwrap_or_else(|| format!("the handler returned {code}"))))
}

/// Creates the channel `name`; clients can attach as soon as this returns. `config` may be null
/// for the defaults: in place, 1 KiB of metadata and 1 MiB of payload. `server` gets the handle,
/// or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_create(
    name: *const c_char,
    config: *const zb_server_config,
    server: *mut *mut zb_server,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { server.as_mut() }.ok_or_else(|| null("server"))?;
        *out = null_mut();
        // SAFETY: the C contract.
        let (name, config) = unsafe { (config::name(name)?, config::read(config)?) };
        // SAFETY: the C contract, for the metadata.
        let server = unsafe { create(name, config)? };
        let (closer, is_client_connected) = server.for_any_thread();
        let server = NonNull::from(Box::leak(Box::new(server)));
        let serving =
            Serving { at_hand: None, kept: None, serial: 0, lent: false, closing: false, server };
        let serving = UnsafeCell::new(serving);
        *out = Box::into_raw(Box::new(zb_server { closer, is_client_connected, serving }));
        Ok(())
    })
}

/// # Safety
/// The C contract, for the metadata.
unsafe fn create(name: &str, config: Option<zb_server_config>) -> Result<Any> {
    let Some(config) = config else {
        return Ok(Any::InPlace(Server::create(name, ServerConfig::default())?));
    };
    match config.kind {
        ZB_SERVER_IN_PLACE => {
            // SAFETY: the caller's.
            let config = unsafe { config.in_place()? };
            Ok(Any::InPlace(Server::create(name, config)?))
        }
        ZB_SERVER_MUTABLE => {
            Ok(Any::Mutable(v1::DuplexServer::create(name, config.two_buffers()?)?))
        }
        ZB_SERVER_IMMUTABLE => {
            Ok(Any::Immutable(v1::DuplexServer::create(name, config.two_buffers()?)?))
        }
        other => Err(config::bad("kind", other, "a ZB_SERVER_ constant")),
    }
}

/// Ends the server from any thread, while another one is inside of its calls: a `zb_server_receive` that
/// waits comes back at once, and it and every later one fails with `ZB_CLOSED`; a handler is called no
/// more, and one that waits for room comes back. `zb_server_stop` and `zb_server_close` do the rest, once
/// the thread has come back. Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_shutdown(server: *const zb_server) {
    run_or((), || {
        // SAFETY: the C contract. What the thread inside uses lies in a cell, and is not looked at.
        if let Some(this) = unsafe { server.as_ref() } {
            this.closer.close();
        }
    });
}

/// Stops the server in good order, as `zb_server_stop`, and frees it. Null does nothing.
///
/// A received frame that is not answered fails at its client; the handle stays until the frame was
/// answered, abandoned or detached, the first two of which change nothing then. Its bytes stay mapped until then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_close(server: *mut zb_server) {
    run_or((), || {
        // SAFETY: the C contract.
        let Ok(this) = (unsafe { zb_server::of(server) }) else { return };
        // What made the server give up does not matter to who closes it.
        let _ = this.stop();
        this.closing = true;
        if !this.lent {
            // SAFETY: made by `Box::into_raw`, not closed before (the C contract).
            drop(unsafe { Box::from_raw(server) });
        }
    });
}

/// Runs `handler` with `user` on every request, on threads of the library, until the server is
/// stopped.
///
/// `release`, if it is not null, is called with `user` once nobody calls the handler any more: at the latest of
/// `zb_server_stop` and the return of a handler that was still running then; at once if this call fails. It may be
/// called on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_start(
    server: *mut zb_server,
    handler: zb_handler,
    user: *mut c_void,
    release: zb_release,
) -> zb_status {
    run(|| {
        let Some(call) = handler else {
            if let Some(release) = release {
                // SAFETY: the C contract; nobody will call a handler.
                unsafe { release(user) };
            }
            return Err(null("handler"));
        };
        let handler = Handler { call, user, release };
        // SAFETY: the C contract.
        match unsafe { zb_server::of(server)? }.free()? {
            Any::InPlace(server) => {
                server.start(move |frame: &mut Frame<'_>| handler.in_place(frame))
            }
            Any::Mutable(server) => {
                server.start_mutable(move |draft: &mut v1::Draft<'_>| handler.mutable(draft))
            }
            Any::Immutable(server) => server.start_immutable(
                move |request: &v1::Request<'_>, reply: &mut v1::Reply<'_>| {
                    handler.immutable(request, reply)
                },
            ),
        }
    })
}

/// For an in-place server without a handler: waits for the next request until the timeout has
/// passed. `frame` gets it, to be answered with `zb_frame_respond` or `zb_frame_fail` before the
/// next one is received, unless it is detached. Call it again and again: it also looks after
/// clients that go.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_receive(
    server: *mut zb_server,
    timeout_ns: i64,
    frame: *mut zb_frame,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { frame.as_mut() }.ok_or_else(|| null("frame"))?;
        *out = zb_frame::EMPTY;
        // SAFETY: the C contract.
        let this = unsafe { zb_server::of(server)? };
        let request = match this.free()? {
            Any::InPlace(server) => server.receive(duration(timeout_ns))?,
            _ => {
                return Err(Error::Unsupported {
                    what: "to receive requests of two buffers without a handler",
                });
            }
        };
        // SAFETY: only the lifetime changes: the server it borrows is boxed, dropped after it, and not
        // touched meanwhile (`free`).
        let request = unsafe { std::mem::transmute::<Request<'_>, Request<'static>>(request) };
        this.serial += 1;
        this.lent = true;
        let request = this.at_hand.insert(request);
        let (capacity, sequence) = (request.capacity(), request.sequence());
        let (data, len) = (request.data_mut().as_mut_ptr(), request.len());
        *out = zb_frame { data, len, capacity, sequence, opaque: [0; 3] };
        out.set(State::Received, server, this.serial);
        Ok(())
    })
}

/// Stops in good order: takes nothing more, lets running handlers finish, tells the client, lets
/// it read its answers, and removes the channel's names. Called again it does nothing. A received
/// frame that is not answered fails at its client.
///
/// A handler may call it, and `zb_server_close` too: neither waits for that very handler,
/// whose client may hear `ZB_PEER_CLOSED` in place of its response.
///
/// Fails with what made the background server give up before, if anything did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_stop(server: *mut zb_server) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        unsafe { zb_server::of(server)? }.stop()
    })
}

/// Whether threads are serving: false before `zb_server_start`, after `zb_server_stop`, and if the
/// server had to give up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_is_running(server: *const zb_server) -> bool {
    run_or(false, || {
        // SAFETY: the C contract.
        match unsafe { zb_server::view(server) } {
            Ok(Any::InPlace(server)) => server.is_running(),
            Ok(Any::Mutable(server) | Any::Immutable(server)) => server.is_running(),
            Err(_) => false,
        }
    })
}

/// Whether a client is attached at this moment. Any thread may ask at any time before
/// `zb_server_close`, as with `zb_server_shutdown`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_server_is_client_connected(server: *const zb_server) -> bool {
    run_or(false, || {
        // SAFETY: the C contract.
        unsafe { server.as_ref() }.is_some_and(|server| (server.is_client_connected)())
    })
}
