//! Clients of channels of both kinds.

use crate::buffer::{LocalClient, Owner, zb_buffer};
use crate::config::{self, ZB_THREADS_MANY, ZB_THREADS_ONE, duration, zb_client_config};
use crate::error::{run, run_or, state_code, zb_status};
use crate::lender::Lender;
use crate::pointers::{self, bytes, copy_out, given, size_prefixed};
use crate::view::{LocalResponse, receive, zb_view};
use std::cell::RefCell;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::rc::Rc;
use std::time::{Duration, Instant};
use zerobuffer::{
    Client, Closer, Error, Pool, Reconnected, RequestLayout, Response, Result, SharedClient,
};

/// A client of one channel.
///
/// Threads: with `ZB_THREADS_ONE`, the default, one thread at a time uses it, with the views and
/// the buffer that come from it; which thread that is may change. With `ZB_THREADS_MANY` any
/// number of threads use it at once, and only `zb_client_close` must be the last call. Either way
/// `zb_client_shutdown` may be called on any thread at any time before that.
pub struct zb_client {
    closer: Closer,
    kind: Kind,
}

enum Kind {
    One(Rc<LocalClient>),
    Many {
        client: SharedClient,
        send_timeout: Duration,
    },
    /// One that mends itself.
    Pool(Pool),
}

/// The same of either client; `$otherwise` of one that mends itself.
macro_rules! either {
    ($client:expr, |$either:ident| $use_it:expr, |$pool:ident| $otherwise:expr) => {
        match &$client.kind {
            Kind::One(local) => {
                let $either = shared(local);
                $use_it
            }
            Kind::Many { client: $either, .. } => $use_it,
            Kind::Pool($pool) => $otherwise,
        }
    };
}

/// What is said of one connection, where there are several or none.
const ONLY_CALLS: Error = Error::Unsupported {
    what: "this function, with a client that mends itself (`connections`); it has zb_client_call, \
           zb_client_call_async and zb_client_call_async_with",
};

/// A client whose calls need no thread that waits.
pub(crate) enum Caller<'c> {
    Shared(&'c SharedClient),
    Pool(&'c Pool),
}

impl zb_client {
    pub(crate) fn caller(&self) -> Result<Caller<'_>> {
        match &self.kind {
            Kind::Many { client, .. } => Ok(Caller::Shared(client)),
            Kind::Pool(pool) => Ok(Caller::Pool(pool)),
            Kind::One(_) => Err(Error::Unsupported {
                what: "a call that no thread waits for, with a client for one thread; connect it with ZB_THREADS_MANY",
            }),
        }
    }
}

impl Drop for zb_client {
    fn drop(&mut self) {
        if let Kind::One(local) = &self.kind {
            local.end();
        }
    }
}

/// A request that was sent again.
#[repr(C)]
pub struct zb_resent {
    /// Its number on the former connection.
    pub former: u64,
    /// Its number now.
    pub sequence: u64,
}

/// A request that was not sent again.
#[repr(C)]
pub struct zb_lost {
    /// Its number on the former connection.
    pub sequence: u64,
    /// `ZB_REQUEST_NOT_STARTED` or `ZB_REQUEST_IN_DOUBT`.
    pub state: i32,
    /// Zero.
    pub reserved: u32,
}

/// What became of the requests of a former connection. Both lists are the thread's: they are valid
/// until its next `zb_client_reconnect`, of whichever client, or its end.
#[repr(C)]
pub struct zb_reconnected {
    /// Requests that were sent again, in their order.
    pub resent: *const zb_resent,
    /// How many.
    pub resent_count: usize,
    /// Requests that were not, in their order.
    pub lost: *const zb_lost,
    /// How many.
    pub lost_count: usize,
}

/// What there is to know about a client at this moment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_client_state {
    /// `sizeof(zb_client_state)`, set by the caller: no more than that is written.
    pub size: usize,
    /// The most bytes that a request can have.
    pub max_request_size: usize,
    /// Requests sent whose bytes are not back in the ring yet; with two buffers, whose responses
    /// have not come.
    pub in_flight: usize,
    /// 1 if the response lies where the request was, 0 for two buffers, and where there are several connections.
    pub is_in_place: u32,
    /// Two buffers: 1 if answers may not match, because a request that was cancelled has no response
    /// yet.
    pub is_desynchronised: u32,
}

size_prefixed!(zb_client_state);

const HELD: Error = Error::InvalidState {
    reason: "views or a buffer of the former connection are held; release, abandon or detach them first",
};

/// The client, which is not exclusively borrowed.
#[inline(always)]
fn shared(local: &LocalClient) -> &'static Client {
    // SAFETY: `LocalClient`'s guards borrow it shared, and are lent, or kept with it in a `LocalResponse`. `exclusive` is
    // used up before its call returns.
    unsafe { local.borrow() }
}

/// The client, if no view and no buffer borrows it.
#[inline(always)]
fn exclusive(local: &Rc<LocalClient>) -> Option<&'static mut Client> {
    // SAFETY: each view and buffer in the caller's hands keeps an `Rc` of it. The response that is made of it is
    // kept with it in a `LocalResponse`.
    (Rc::strong_count(local) == 1).then(|| unsafe { local.free() }).flatten()
}

/// While responses are held: the connection they borrow must stay, so nothing is sent again.
#[cold]
fn call_beside_guards(
    client: &'static Client,
    data: &[u8],
    timeout: Duration,
) -> Result<Response<'static>> {
    let start = Instant::now();
    let sequence = client.send_request(data)?;
    // Zero would only poll.
    let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
    client.receive_response_for(sequence, left)
}

fn acquire(local: &Rc<LocalClient>, size: usize, layout: RequestLayout) -> Result<zb_buffer> {
    if local.is_lent() {
        return Err(Error::ClaimOpen);
    }
    let mut request = shared(local).acquire_request_buffer_with(size, layout)?;
    let capacity = request.capacity();
    let buffer = zb_buffer::new(request.data_mut(), capacity, Owner::Client, local.address());
    local.lend(request);
    Ok(buffer)
}

thread_local! {
    /// What `zb_reconnected` leads to.
    static REPORT: RefCell<(Vec<zb_resent>, Vec<zb_lost>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl zb_reconnected {
    const EMPTY: Self = Self { resent: null(), resent_count: 0, lost: null(), lost_count: 0 };

    fn of(report: &Reconnected) -> Self {
        let resent = report.resent.iter().map(|&(former, sequence)| zb_resent { former, sequence });
        let lost = report.lost.iter().map(|lost| zb_lost {
            sequence: lost.sequence,
            state: state_code(lost.state),
            reserved: 0,
        });
        let report = REPORT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            *kept = (resent.collect(), lost.collect());
            Self {
                resent: kept.0.as_ptr(),
                resent_count: kept.0.len(),
                lost: kept.1.as_ptr(),
                lost_count: kept.1.len(),
            }
        });
        // A thread that is ending has nowhere to keep the lists; the client is connected all the same.
        report.unwrap_or(Self::EMPTY)
    }
}

/// Attaches to the server of channel `name`, waiting for it until the timeout has passed; 0 tries
/// once.
///
/// `config` may be null for the defaults. `client` gets the handle, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_connect(
    name: *const c_char,
    config: *const zb_client_config,
    timeout_ns: i64,
    client: Option<&mut MaybeUninit<*mut zb_client>>,
) -> zb_status {
    // SAFETY: the rule **Pointers**.
    unsafe {
        pointers::create(name, config, client, |name, config| {
            connect(name, config, duration(timeout_ns))
        })
    }
}

/// # Safety
/// The rule **Pointers** for the metadata.
unsafe fn connect(
    name: &str,
    config: Option<zb_client_config>,
    timeout: Duration,
) -> Result<zb_client> {
    let Some(config) = config else {
        let client = Client::connect(name, timeout)?;
        return Ok(zb_client { closer: client.closer(), kind: Kind::One(Lender::new(client)) });
    };
    // SAFETY: the caller's.
    let made = unsafe { config.client()? };
    if config.connections != 0 {
        let pool = Pool::connect_with(name, config.connections as usize, timeout, made)?;
        return Ok(zb_client { closer: pool.closer(), kind: Kind::Pool(pool) });
    }
    let client = Client::connect_with(name, timeout, made)?;
    let closer = client.closer();
    let kind = match config.threads {
        ZB_THREADS_ONE => Kind::One(Lender::new(client)),
        ZB_THREADS_MANY => {
            Kind::Many { client: client.into_shared(), send_timeout: config.send_timeout() }
        }
        other => return Err(config::bad("threads", other, "a ZB_THREADS_ constant")),
    };
    Ok(zb_client { closer, kind })
}

/// Ends the client from any thread, while others are inside of its calls: each call that waits comes
/// back at once, and it and every later one that could wait fails with `ZB_CLOSED`,
/// `zb_client_reconnect` too. Calls of `zb_client_call_async` end with it soon after. Once the threads have
/// come back `zb_client_close` frees it. Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_shutdown(client: Option<&zb_client>) {
    run_or((), || client.map_or((), |client| client.closer.close()));
}

/// Closes the connection cleanly and frees the client. Null does nothing. Calls of `zb_client_call_async` have
/// ended when this returns, unless it is called in a callback, which it may be only while no other one can be running
/// (`zb_done`).
///
/// An open buffer is abandoned. While views that were not detached, or a buffer, are
/// in the caller's hands, the connection stays until the last of them is released.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_close(client: Option<Box<zb_client>>) {
    run_or((), || drop(client));
}

/// Sends a copy of `len` bytes and waits for the response, both within the timeout. A request that
/// has no response by then is cancelled. `response` gets the response, or is empty.
///
/// While views of this client are held, waiting for room is bounded by the send timeout, and
/// nothing is sent again by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_call(
    client: Option<&zb_client>,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    response: Option<&mut MaybeUninit<zb_view>>,
) -> zb_status {
    receive(response, |out| {
        // SAFETY: the rule **Pointers**.
        let (data, timeout) = (unsafe { bytes(data, len, "data")? }, duration(timeout_ns));
        match &given(client, "client")?.kind {
            Kind::One(local) => {
                let response = match exclusive(local) {
                    Some(client) => client.call(data, timeout)?,
                    None => call_beside_guards(shared(local), data, timeout)?,
                };
                zb_view::put(out, LocalResponse::new(response, local))
            }
            Kind::Many { client, .. } => zb_view::put(out, client.call(data, timeout)?),
            Kind::Pool(pool) => zb_view::put(out, pool.call(data, timeout)?),
        }
        Ok(())
    })
}

/// Sends a copy of `len` bytes. `sequence` gets the number of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_send(
    client: Option<&zb_client>,
    data: *const u8,
    len: usize,
    sequence: Option<&mut MaybeUninit<u64>>,
) -> zb_status {
    run(|| {
        let sequence = given(sequence, "sequence")?;
        // SAFETY: the rule **Pointers**.
        let data = unsafe { bytes(data, len, "data")? };
        let client = given(client, "client")?;
        sequence
            .write(either!(client, |client| client.send_request(data), |_pool| Err(ONLY_CALLS))?);
        Ok(())
    })
}

/// A request of `size` bytes to be filled in the ring, with room for a response of `capacity` bytes
/// if that is more, at a multiple of `alignment` (a power of two up to 4096; 0 for any) from a
/// page boundary.
///
/// With two buffers capacity and alignment are not used.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_acquire(
    client: Option<&zb_client>,
    size: usize,
    capacity: usize,
    alignment: usize,
    buffer: Option<&mut MaybeUninit<zb_buffer>>,
) -> zb_status {
    run(|| {
        let out = given(buffer, "buffer")?.write(zb_buffer::EMPTY);
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment.max(1));
        *out = match &given(client, "client")?.kind {
            Kind::One(local) => acquire(local, size, layout)?,
            Kind::Many { client: shared, send_timeout } => {
                zb_buffer::boxed(shared.acquire_request_buffer(size, layout, *send_timeout)?)
            }
            Kind::Pool(_) => return Err(ONLY_CALLS),
        };
        Ok(())
    })
}

/// Waits for a response until the timeout has passed. With `sequence` 0 it is the oldest one that
/// is there, and a timeout changes nothing. Otherwise it is the response to that request, which is
/// cancelled when the timeout passes, unless that is 0.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_receive(
    client: Option<&zb_client>,
    sequence: u64,
    timeout_ns: i64,
    response: Option<&mut MaybeUninit<zb_view>>,
) -> zb_status {
    receive(response, |out| {
        let timeout = duration(timeout_ns);
        match &given(client, "client")?.kind {
            Kind::One(local) => {
                let response = match sequence {
                    0 => shared(local).receive_response(timeout)?,
                    _ => shared(local).receive_response_for(sequence, timeout)?,
                };
                zb_view::put(out, LocalResponse::new(response, local));
            }
            Kind::Many { client, .. } => zb_view::put(
                out,
                match sequence {
                    0 => client.receive_response(timeout)?,
                    _ => client.receive_response_for(sequence, timeout)?,
                },
            ),
            Kind::Pool(_) => return Err(ONLY_CALLS),
        }
        Ok(())
    })
}

/// Cancels a request: no response to it will be delivered. True if it was cancelled; false if its
/// response is there already, or if no such request is waiting.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_cancel(client: Option<&zb_client>, sequence: u64) -> bool {
    run_or(false, || {
        client
            .is_some_and(|client| either!(client, |client| client.cancel(sequence), |_pool| false))
    })
}

/// Attaches to the channel's present server: after the previous one has ended, or to start over. `report`, if
/// it is not null, gets what became of the requests in flight.
///
/// Views and a buffer that are held have to be released, detached or abandoned before. With two buffers all
/// that was in flight is in doubt.
///
/// Sequence numbers go on: one is one request's for the life of the client. With many threads nothing is
/// sent again, and a connection that works is left as it is: each thread may call this after an error,
/// whatever it holds.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_reconnect(
    client: Option<&zb_client>,
    timeout_ns: i64,
    report: Option<&mut MaybeUninit<zb_reconnected>>,
) -> zb_status {
    run(|| {
        let report = report.map(|report| report.write(zb_reconnected::EMPTY));
        let timeout = duration(timeout_ns);
        let reconnected = match &given(client, "client")?.kind {
            Kind::One(local) => exclusive(local).ok_or(HELD)?.reconnect(timeout)?,
            Kind::Many { client, .. } => client.reconnect(timeout)?,
            Kind::Pool(_) => return Err(ONLY_CALLS),
        };
        if let Some(report) = report {
            *report = zb_reconnected::of(&reconnected);
        }
        Ok(())
    })
}

/// Whether the server is there at this moment. Asks the operating system.
#[unsafe(no_mangle)]
pub extern "C" fn zb_client_is_server_connected(client: Option<&zb_client>) -> bool {
    run_or(false, || {
        client.is_some_and(|client| {
            either!(client, |client| client.is_server_connected(), |pool| pool
                .is_server_connected())
        })
    })
}

/// Fills `state`, of which `size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_inspect(
    client: Option<&zb_client>,
    state: *mut zb_client_state,
) -> zb_status {
    run(|| {
        let client = given(client, "client")?;
        // SAFETY: the rule **Pointers**, for `size` bytes.
        unsafe {
            pointers::fill(state, "state", |size| {
                either!(
                    client,
                    |client| zb_client_state {
                        size,
                        max_request_size: client.max_request_size(),
                        in_flight: client.in_flight(),
                        is_in_place: u32::from(client.is_in_place()),
                        is_desynchronised: u32::from(client.is_desynchronised()),
                    },
                    |pool| zb_client_state {
                        size,
                        max_request_size: pool.max_request_size(),
                        in_flight: pool.in_flight(),
                        is_in_place: 0,
                        is_desynchronised: 0,
                    }
                )
            })
        }
    })
}

/// Copies what the server has published about itself into `buffer` of `capacity` bytes. `len` gets
/// the length of all of it, also if that is more than `capacity`, which is `ZB_TOO_LARGE` unless
/// `buffer` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_server_metadata(
    client: Option<&zb_client>,
    buffer: *mut u8,
    capacity: usize,
    len: Option<&mut MaybeUninit<usize>>,
) -> zb_status {
    run(|| {
        let client = given(client, "client")?;
        let metadata =
            either!(client, |client| client.server_metadata().to_vec(), |_pool| return Err(
                ONLY_CALLS
            ));
        // SAFETY: the rule **Pointers**.
        unsafe { copy_out(&metadata, buffer, capacity, len) }
    })
}
