//! Servers of all kinds.

use crate::config::{
    self, ZB_SERVER_IMMUTABLE, ZB_SERVER_IN_PLACE, ZB_SERVER_MUTABLE, duration, zb_server_config,
};
use crate::error::{run, run_or, zb_status};
use crate::frame::{Any, Handling, LocalServer, Serving, State, Work, zb_frame};
use crate::lender::Lender;
use crate::pointers::{self, given};
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::rc::Rc;
use zerobuffer::{Closer, Error, Frame, HandlerOutcome, Result, Server, ServerConfig, v1};

/// A server of one channel, or of a service.
///
/// Threads: one at a time uses it, and the frame received from it; `zb_server_shutdown`,
/// `zb_server_is_client_connected` and `zb_server_clients` may be called on any other meanwhile. Handlers run on
/// threads of the library.
pub struct zb_server {
    closer: Closer,
    clients: Probe,
    serving: Rc<LocalServer>,
}

/// Counts the clients.
type Probe = Box<dyn Fn() -> usize + Send + Sync>;

/// What a server runs on each request. It edits the frame, and returns 0; or it returns another
/// number, or calls `zb_frame_fail`, and the client gets `ZB_HANDLER_FAILED`. It must not unwind:
/// no exception, no `longjmp`.
///
/// Threads: an in-place server or a service with several workers calls it on several threads at once.
pub type zb_handler = Option<unsafe extern "C" fn(frame: *mut zb_frame, user: *mut c_void) -> i32>;

/// Frees what a handler uses.
pub type zb_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

impl zb_server {
    pub(crate) fn new(server: Any) -> Self {
        let (closer, clients) = server.for_any_thread();
        Self { closer, clients, serving: Lender::new(Serving { server, kept: None }) }
    }

    pub(crate) fn clients(&self) -> usize {
        (self.clients)()
    }

    /// The server, unless a request that was received borrows it.
    #[inline(always)]
    fn free(&self) -> Result<&'static mut Serving> {
        // SAFETY: what borrows it is lent (`zb_server_receive`), and nothing else.
        unsafe { self.serving.free() }.ok_or(Error::InvalidState {
            reason: "a received frame is not answered yet; answer or detach it first",
        })
    }

    fn stop(&self) -> Result<()> {
        let memory = self.serving.end().map(|request| request.memory());
        let serving = self.free()?;
        serving.kept = serving.kept.take().or(memory);
        match &mut serving.server {
            Any::InPlace(server) => server.stop(),
            Any::Service(service) => service.stop(),
            Any::TwoBuffers { server, .. } => server.stop(),
        }
    }
}

impl Any {
    /// What is used beside the one thread.
    fn for_any_thread(&self) -> (Closer, Probe) {
        fn at_most_one(probe: impl Fn() -> bool + Send + Sync + 'static) -> Probe {
            Box::new(move || usize::from(probe()))
        }
        match self {
            Any::InPlace(server) => (server.closer(), at_most_one(server.client_probe())),
            Any::Service(service) => (service.closer(), Box::new(service.client_probe())),
            Any::TwoBuffers { server, .. } => (server.closer(), at_most_one(server.client_probe())),
        }
    }

    fn is_running(&self) -> bool {
        match self {
            Any::InPlace(server) => server.is_running(),
            Any::Service(service) => service.is_running(),
            Any::TwoBuffers { server, .. } => server.is_running(),
        }
    }
}

/// A handler of C, and what it uses.
struct Handler {
    call: unsafe extern "C" fn(*mut zb_frame, *mut c_void) -> i32,
    used: Used,
}

/// What a handler uses, until nobody calls it any more.
struct Used {
    user: *mut c_void,
    release: zb_release,
}

// SAFETY: the documentation of `zb_handler` and `zb_server_start` says on which threads they are called with it.
unsafe impl Send for Used {}
// SAFETY: as above.
unsafe impl Sync for Used {}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: a function of the header's type, with what it was given for.
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
        let (len, capacity, sequence) = (frame.len(), frame.capacity(), frame.sequence());
        let shown = zb_frame::new(frame.data_mut().as_mut_ptr(), len, capacity, sequence);
        self.run(shown, Work::InPlace(frame))
    }

    fn mutable(&self, draft: &mut v1::Draft<'_>) -> Outcome {
        let (len, sequence) = (draft.len(), draft.sequence());
        let shown = zb_frame::new(draft.data_mut().as_mut_ptr(), len, len, sequence);
        self.run(shown, Work::Mutable(draft))
    }

    fn immutable(&self, request: &v1::RequestView<'_>, reply: &mut v1::Reply<'_>) -> Outcome {
        let (len, data) = (request.len(), request.data().as_ptr().cast_mut());
        let shown = zb_frame::new(data, len, len, request.sequence());
        self.run(shown, Work::Immutable(request, reply))
    }

    #[inline(always)]
    fn run(&self, mut shown: zb_frame, work: Work<'_, '_, '_>) -> Outcome {
        let mut handling = Handling { work, failure: None };
        let address = (&raw mut handling).expose_provenance() as u64;
        shown.set(State::InHandler, address, 0);
        // SAFETY: a function of the header's type, with what it was given for; both structs live until it returns.
        let code = unsafe { (self.call)(&raw mut shown, self.used.user) };
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
    server: Option<&mut MaybeUninit<*mut zb_server>>,
) -> zb_status {
    // SAFETY: the rule **Pointers**.
    unsafe {
        pointers::create(name, config, server, |name, config: Option<zb_server_config>| {
            Ok(zb_server::new(make(name, config)?))
        })
    }
}

/// # Safety
/// The rule **Pointers** for the metadata.
unsafe fn make(name: &str, config: Option<zb_server_config>) -> Result<Any> {
    let Some(config) = config else {
        return Ok(Any::InPlace(Server::create(name, ServerConfig::default())?));
    };
    // SAFETY: the caller's.
    let made_of = unsafe { config.server()? };
    let mutable = match config.kind {
        ZB_SERVER_IN_PLACE => return Ok(Any::InPlace(Server::create(name, made_of)?)),
        ZB_SERVER_MUTABLE => true,
        ZB_SERVER_IMMUTABLE => false,
        other => return Err(config::bad("kind", other, "a ZB_SERVER_ constant")),
    };
    Ok(Any::TwoBuffers { server: v1::DuplexServer::create(name, made_of)?, mutable })
}

/// Ends the server from any thread, while another one is inside of its calls: a `zb_server_receive` that
/// waits comes back at once, and it and every later one fails with `ZB_CLOSED`; a handler is called no
/// more, and one that waits for room comes back. `zb_server_stop` and `zb_server_close` do the rest, once
/// the thread has come back. Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_shutdown(server: Option<&zb_server>) {
    run_or((), || server.map_or((), |server| server.closer.close()));
}

/// Stops the server cleanly, as `zb_server_stop`, and frees it. Null does nothing.
///
/// A received frame that is not answered fails at its client; the handle stays until the frame was
/// answered, abandoned or detached, the first two of which change nothing then. Its bytes stay mapped until then.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_close(server: Option<Box<zb_server>>) {
    run_or((), || {
        // Why the server stopped does not matter to the caller that closes it.
        let _ = server.map(|server| server.stop());
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
    server: Option<&zb_server>,
    handler: zb_handler,
    user: *mut c_void,
    release: zb_release,
) -> zb_status {
    run(|| {
        // Released also if this fails.
        let used = Used { user, release };
        let handler = Handler { call: given(handler, "handler")?, used };
        match &mut given(server, "server")?.free()?.server {
            Any::InPlace(server) => {
                server.start(move |frame: &mut Frame<'_>| handler.in_place(frame))
            }
            Any::Service(service) => {
                service.start(move |frame: &mut Frame<'_>| handler.in_place(frame))
            }
            Any::TwoBuffers { server, mutable: true } => {
                server.start_mutable(move |draft: &mut v1::Draft<'_>| handler.mutable(draft))
            }
            Any::TwoBuffers { server, mutable: false } => server.start_immutable(
                move |request: &v1::RequestView<'_>, reply: &mut v1::Reply<'_>| {
                    handler.immutable(request, reply)
                },
            ),
        }
    })
}

/// For an in-place server or a service without a handler: waits for the next request until the timeout has
/// passed. `frame` gets it, to be answered with `zb_frame_respond` or `zb_frame_fail` before the
/// next one is received, unless it is detached. Call it again and again: it also looks after
/// clients that go.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_receive(
    server: Option<&zb_server>,
    timeout_ns: i64,
    frame: Option<&mut MaybeUninit<zb_frame>>,
) -> zb_status {
    run(|| {
        let out = given(frame, "frame")?.write(zb_frame::EMPTY);
        let server = given(server, "server")?;
        let mut request = match &mut server.free()?.server {
            Any::InPlace(server) => server.receive(duration(timeout_ns))?,
            Any::Service(service) => service.receive(duration(timeout_ns))?,
            Any::TwoBuffers { .. } => {
                return Err(Error::Unsupported {
                    what: "to receive requests of two buffers without a handler",
                });
            }
        };
        let (len, capacity, sequence) = (request.len(), request.capacity(), request.sequence());
        *out = zb_frame::new(request.data_mut().as_mut_ptr(), len, capacity, sequence);
        let serial = server.serving.lend(request);
        out.set(State::Received, server.serving.address(), serial);
        Ok(())
    })
}

/// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets
/// it read its responses, and removes the channel's names, or the service's socket. Called again it does nothing. A received
/// frame that is not answered fails at its client.
///
/// A handler may call it, and `zb_server_close` too: neither waits for that very handler,
/// whose client may hear `ZB_PEER_CLOSED` in place of its response.
///
/// Fails with what made the background server stop before, if anything did.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_stop(server: Option<&zb_server>) -> zb_status {
    run(|| given(server, "server")?.stop())
}

/// Whether threads are serving: false before `zb_server_start`, after `zb_server_stop`, and if the
/// server had to stop for a reason of its own.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_is_running(server: Option<&zb_server>) -> bool {
    // A server that requests are received from has no threads.
    run_or(false, || {
        server.is_some_and(|server| server.free().is_ok_and(|serving| serving.server.is_running()))
    })
}

/// Whether a client is attached at this moment; `zb_server_clients` says how many are to a service. Any thread may ask at any time before
/// `zb_server_close`, as with `zb_server_shutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_is_client_connected(server: Option<&zb_server>) -> bool {
    run_or(false, || server.is_some_and(|server| server.clients() > 0))
}
