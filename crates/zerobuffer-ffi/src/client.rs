//! Clients of channels of both kinds.

use crate::buffer::{Owner, zb_buffer};
use crate::config::{
    self, ZB_CHANNEL_ANY, ZB_CHANNEL_IN_PLACE, ZB_CHANNEL_TWO_BUFFERS, ZB_THREADS_MANY,
    ZB_THREADS_ONE, bytes, duration, zb_client_config,
};
use crate::error::{self, run, run_or, state_code, zb_status};
use crate::view::{LocalResponse, receive, zb_view};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null, null_mut};
use std::time::{Duration, Instant};
use zerobuffer::{
    Client, Closer, DuplexChannelFactory, DuplexClient, DuplexRequestBuffer, DuplexResponse, Error,
    Reconnected, RequestLayout, Response, Result, SharedClient, v1,
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

// One indirection fewer on the way of each call; there are few clients.
#[allow(clippy::large_enum_variant)]
enum Kind {
    One(Local),
    Many { client: SharedClient, send_timeout: Duration },
}

/// A client for one thread, and what was handed out of it.
pub(crate) struct Local {
    /// The boxed handle that this is in.
    home: Cell<*mut zb_client>,
    /// Before the client, which it borrows: dropped first.
    open: RefCell<Option<DuplexRequestBuffer<'static>>>,
    client: UnsafeCell<DuplexClient>,
    /// Responses and a buffer in the caller's hands, which borrow `client`.
    guards: Cell<usize>,
    /// To be freed when the last of them is given back.
    closing: Cell<bool>,
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
pub struct zb_client_state {
    /// `sizeof(zb_client_state)`, set by the caller: no more than that is written.
    pub size: usize,
    /// The most bytes that a request can have.
    pub max_request_size: usize,
    /// Requests sent whose bytes are not back in the ring yet; with two buffers, whose answers
    /// have not come.
    pub in_flight: usize,
    /// 1 if the answer lies where the request was, 0 for two buffers.
    pub is_in_place: u32,
    /// Two buffers: 1 if answers may not match, because a request that was given up has no answer
    /// yet.
    pub is_desynchronised: u32,
}

const HELD: Error = Error::InvalidState {
    reason: "views or a buffer of the former connection are held; release, abandon or detach them first",
};

impl Local {
    fn new(client: DuplexClient) -> Self {
        Self {
            home: Cell::new(null_mut()),
            open: RefCell::new(None),
            client: UnsafeCell::new(client),
            guards: Cell::new(0),
            closing: Cell::new(false),
        }
    }

    #[inline(always)]
    fn client(&self) -> &DuplexClient {
        // SAFETY: the only exclusive borrow is that of `client_mut`, on the same thread, which ends
        // before its caller returns and during which no code of others runs.
        unsafe { &*self.client.get() }
    }

    /// The client, if nothing borrows it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn client_mut(&self) -> Option<&mut DuplexClient> {
        // SAFETY: no response and no request buffer borrows it, and no other reference lives: this type
        // is used on one thread, and each of its functions makes one reference and lets go of it.
        (self.guards.get() == 0).then(|| unsafe { &mut *self.client.get() })
    }

    /// Puts an answer into the caller's view.
    ///
    /// # Safety
    /// `out` can be written.
    #[inline(always)]
    unsafe fn hand_out(&self, response: Response<'_>, out: NonNull<zb_view>) {
        self.guards.set(self.guards.get() + 1);
        // SAFETY: only the lifetime changes. The client it borrows lives, unmoved and not exclusively
        // borrowed, until `guards` says that the response is gone (`client_mut`, `close`).
        let response = unsafe { std::mem::transmute::<Response<'_>, Response<'static>>(response) };
        let client = NonNull::from(self);
        let local = LocalResponse { response: MaybeUninit::new(response), client };
        // SAFETY: the caller's.
        unsafe { zb_view::put(out, local) };
    }

    /// # Safety
    /// `out` can be written.
    unsafe fn hand_out_any(&self, response: DuplexResponse<'_>, out: NonNull<zb_view>) {
        // SAFETY: the caller's.
        unsafe {
            match response {
                DuplexResponse::InPlace(response) => self.hand_out(response, out),
                DuplexResponse::TwoBuffers(response) => zb_view::put(out, response.into_owned()),
            }
        }
    }

    /// Notes that a guard is gone, and frees the client if it was the last of a closed one.
    ///
    /// # Safety
    /// One guard fewer borrows it than `guards` says.
    #[inline(always)]
    pub(crate) unsafe fn give_back(local: NonNull<Self>) {
        // SAFETY: it lives, since `guards` was not zero.
        let this = unsafe { local.as_ref() };
        let left = this.guards.get() - 1;
        this.guards.set(left);
        if left == 0 && this.closing.get() {
            // SAFETY: made by `Box::into_raw` in `zb_client_connect`; `zb_client_close` has left it to
            // the last response.
            drop(unsafe { Box::from_raw(this.home.get()) });
        }
    }

    /// # Safety
    /// `out` can be written.
    #[inline(always)]
    unsafe fn call(&self, data: &[u8], timeout: Duration, out: NonNull<zb_view>) -> Result<()> {
        // SAFETY: the caller's.
        unsafe {
            match self.client_mut() {
                Some(DuplexClient::InPlace(client)) => {
                    self.hand_out(client.call(data, timeout)?, out);
                    Ok(())
                }
                _ => self.call_otherwise(data, timeout, out),
            }
        }
    }

    /// With two buffers; or while responses are held: the connection they borrow must stay, so nothing is
    /// sent again.
    ///
    /// # Safety
    /// `out` can be written.
    #[cold]
    unsafe fn call_otherwise(
        &self,
        data: &[u8],
        timeout: Duration,
        out: NonNull<zb_view>,
    ) -> Result<()> {
        let response = match self.client_mut() {
            Some(client) => client.call(data, timeout)?,
            None => {
                let start = Instant::now();
                let sequence = self.client().send_request(data)?;
                // Zero would only look.
                let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
                self.client().receive_response_for(sequence, left)?
            }
        };
        // SAFETY: the caller's.
        unsafe { self.hand_out_any(response, out) };
        Ok(())
    }

    /// # Safety
    /// `out` can be written.
    #[inline(always)]
    unsafe fn receive(
        &self,
        sequence: u64,
        timeout: Duration,
        out: NonNull<zb_view>,
    ) -> Result<()> {
        let response = match (self.client(), sequence) {
            (client, 0) => client.receive_response(timeout)?,
            (DuplexClient::InPlace(client), _) => {
                let response = client.receive_response_for(sequence, timeout)?;
                // SAFETY: the caller's.
                unsafe { self.hand_out(response, out) };
                return Ok(());
            }
            (client, _) => client.receive_response_for(sequence, timeout)?,
        };
        // SAFETY: the caller's.
        unsafe { self.hand_out_any(response, out) };
        Ok(())
    }

    fn acquire(&self, size: usize, layout: RequestLayout) -> Result<DuplexRequestBuffer<'_>> {
        Ok(match self.client() {
            DuplexClient::InPlace(client) => {
                DuplexRequestBuffer::InPlace(client.acquire_request_buffer_with(size, layout)?)
            }
            client @ DuplexClient::TwoBuffers(_) => client.acquire_request_buffer(size)?,
        })
    }

    fn commit(&self, len: usize) -> Result<u64> {
        let mut open = self.open.borrow_mut();
        match open.as_mut().ok_or(NOT_OPEN)? {
            DuplexRequestBuffer::InPlace(buffer) if len != buffer.len() => buffer.resize(len)?,
            DuplexRequestBuffer::TwoBuffers(buffer) if len != buffer.len() => {
                *open = None;
                return Err(SAME_LENGTH);
            }
            _ => {}
        }
        open.take().ok_or(NOT_OPEN)?.commit()
    }

    fn reconnect(&self, timeout: Duration) -> Result<Reconnected> {
        match self.client_mut().ok_or(HELD)? {
            DuplexClient::InPlace(client) => client.reconnect(timeout),
            DuplexClient::TwoBuffers(_) => Err(NO_RECONNECT),
        }
    }
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

const NO_RECONNECT: Error = Error::Unsupported {
    what: "to reconnect with two buffers; close the client and connect again",
};

impl zb_client {
    /// # Safety
    /// The C contract.
    #[inline(always)]
    unsafe fn of<'c>(client: *const Self) -> Result<&'c Self> {
        // SAFETY: the C contract.
        unsafe { client.as_ref() }.ok_or_else(|| error::null("client"))
    }

    /// The client that a buffer of C came from, if that has not been committed or abandoned.
    ///
    /// # Safety
    /// The C contract.
    unsafe fn of_buffer<'c>(client: *const Self) -> Option<&'c Local> {
        // SAFETY: the C contract: a buffer keeps its client's handle.
        let Ok(Kind::One(local)) = unsafe { Self::of(client) }.map(|client| &client.kind) else {
            return None;
        };
        (local.open.borrow().is_some() || local.closing.get()).then_some(local)
    }

    /// # Safety
    /// The C contract.
    pub(crate) unsafe fn commit(client: *mut Self, len: usize) -> Result<u64> {
        // SAFETY: the C contract.
        let local = unsafe { Self::of_buffer(client) }.ok_or(NOT_OPEN)?;
        let committed = local.commit(len);
        if !matches!(committed, Err(Error::TooLarge { .. })) {
            // SAFETY: the buffer was counted by `zb_client_acquire`, and is gone.
            unsafe { Local::give_back(NonNull::from(local)) };
        }
        committed
    }

    /// # Safety
    /// The C contract.
    pub(crate) unsafe fn abandon(client: *mut Self) {
        // SAFETY: the C contract.
        if let Some(local) = unsafe { Self::of_buffer(client) } {
            *local.open.borrow_mut() = None;
            // SAFETY: the buffer was counted by `zb_client_acquire`, and is gone.
            unsafe { Local::give_back(NonNull::from(local)) };
        }
    }
}

/// What was committed or abandoned before.
pub(crate) const NOT_OPEN: Error = Error::InvalidState { reason: "the buffer is not open" };

/// What a version 1 frame cannot do.
pub(crate) const SAME_LENGTH: Error = Error::InvalidState {
    reason: "a frame of version 1 has the length that it was acquired with; acquire another one",
};

/// Attaches to the server of channel `name`, waiting for it until the timeout has passed; 0 tries
/// once.
///
/// `config` may be null for the defaults. `client` gets the handle, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_connect(
    name: *const c_char,
    config: *const zb_client_config,
    timeout_ns: i64,
    client: *mut *mut zb_client,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let client = unsafe { client.as_mut() }.ok_or_else(|| error::null("client"))?;
        *client = null_mut();
        // SAFETY: the C contract.
        let (name, config) = unsafe { (config::name(name)?, config::read(config)?) };
        // SAFETY: the C contract, for the metadata.
        let kind = unsafe { connect(name, config, duration(timeout_ns))? };
        let closer = match &kind {
            Kind::One(local) => local.client().closer(),
            Kind::Many { client, .. } => client.closer(),
        };
        *client = Box::into_raw(Box::new(zb_client { closer, kind }));
        // SAFETY: just made.
        if let Kind::One(local) = unsafe { &(**client).kind } {
            local.home.set(*client);
        }
        Ok(())
    })
}

/// # Safety
/// The C contract, for the metadata.
unsafe fn connect(name: &str, config: Option<zb_client_config>, timeout: Duration) -> Result<Kind> {
    let factory = DuplexChannelFactory::new();
    let Some(config) = config else {
        return Ok(Kind::One(Local::new(factory.create_client(name, timeout)?)));
    };
    // SAFETY: the caller's.
    let (in_place, two_buffers) = unsafe { (config.in_place()?, config.two_buffers()?) };
    let client = match config.channel {
        ZB_CHANNEL_ANY => factory.create_client_with(name, timeout, in_place, two_buffers)?,
        ZB_CHANNEL_IN_PLACE => {
            DuplexClient::InPlace(Client::connect_with(name, timeout, in_place)?)
        }
        ZB_CHANNEL_TWO_BUFFERS => DuplexClient::TwoBuffers(Box::new(
            v1::DuplexClient::connect_with(name, timeout, two_buffers)?,
        )),
        other => return Err(config::bad("channel", other, "a ZB_CHANNEL_ constant")),
    };
    match (config.threads, client) {
        (ZB_THREADS_ONE, client) => Ok(Kind::One(Local::new(client))),
        (ZB_THREADS_MANY, DuplexClient::InPlace(client)) => {
            let send_timeout = config.send_timeout();
            Ok(Kind::Many { client: client.into_shared(), send_timeout })
        }
        (ZB_THREADS_MANY, _) => {
            Err(Error::Unsupported { what: "a client for many threads with two buffers" })
        }
        (other, _) => Err(config::bad("threads", other, "a ZB_THREADS_ constant")),
    }
}

/// Ends the client from any thread, while others are inside of its calls: each call that waits comes
/// back at once, and it and every later one that could wait fails with `ZB_CLOSED`,
/// `zb_client_reconnect` too. Once the threads have come back `zb_client_close` frees it. Null does
/// nothing, nor does a second time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_shutdown(client: *const zb_client) {
    run_or((), || {
        // SAFETY: the C contract. What the thread inside changes lies in cells, and is not looked at.
        if let Ok(client) = unsafe { zb_client::of(client) } {
            client.closer.close();
        }
    });
}

/// Closes the connection in good order and frees the client. Null does nothing.
///
/// What is not sent of an open buffer is given up. While views that were not detached, or a buffer, are
/// in the caller's hands, the connection stays until the last of them is given back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_close(client: *mut zb_client) {
    run_or((), || {
        // SAFETY: the C contract.
        let Ok(this) = (unsafe { zb_client::of(client) }) else { return };
        if let Kind::One(local) = &this.kind {
            *local.open.borrow_mut() = None;
            local.closing.set(true);
            if local.guards.get() > 0 {
                return;
            }
        }
        // SAFETY: made by `Box::into_raw`, and nothing borrows it.
        drop(unsafe { Box::from_raw(client) });
    });
}

/// Sends a copy of `len` bytes and waits for the answer, both within the timeout. A request that
/// has no answer by then is given up. `response` gets the answer, or is empty.
///
/// While views of this client are held, waiting for room is bounded by the send timeout, and
/// nothing is sent again by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_call(
    client: *mut zb_client,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    response: *mut zb_view,
) -> zb_status {
    // SAFETY: the C contract.
    unsafe {
        receive(response, |out| {
            let (data, timeout) = (bytes(data, len, "data")?, duration(timeout_ns));
            match &zb_client::of(client)?.kind {
                Kind::One(local) => local.call(data, timeout, out),
                Kind::Many { client: shared, .. } => {
                    zb_view::put(out, shared.call(data, timeout)?);
                    Ok(())
                }
            }
        })
    }
}

/// Sends a copy of `len` bytes. `sequence` gets the number of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_send(
    client: *mut zb_client,
    data: *const u8,
    len: usize,
    sequence: *mut u64,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let sequence = unsafe { sequence.as_mut() }.ok_or_else(|| error::null("sequence"))?;
        // SAFETY: the C contract.
        let (data, client) = unsafe { (bytes(data, len, "data")?, zb_client::of(client)?) };
        *sequence = match &client.kind {
            Kind::One(local) => local.client().send_request(data)?,
            Kind::Many { client: shared, .. } => shared.send_request(data)?,
        };
        Ok(())
    })
}

/// A request of `size` bytes to be filled in the ring, with room for an answer of `capacity` bytes
/// if that is more, at a multiple of `alignment` (a power of two up to 4096; 0 for any) from a
/// page boundary.
///
/// With two buffers capacity and alignment are not used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_acquire(
    client: *mut zb_client,
    size: usize,
    capacity: usize,
    alignment: usize,
    buffer: *mut zb_buffer,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { buffer.as_mut() }.ok_or_else(|| error::null("buffer"))?;
        *out = zb_buffer::EMPTY;
        let layout = RequestLayout::new().capacity(capacity).alignment(alignment.max(1));
        // SAFETY: the C contract.
        let local = match &unsafe { zb_client::of(client)? }.kind {
            Kind::One(local) => local,
            Kind::Many { client: shared, send_timeout } => {
                let mut claimed = shared.acquire_request_buffer(size, layout, *send_timeout)?;
                let (data, capacity) = (NonNull::from(claimed.data_mut()), claimed.capacity());
                let boxed = Box::into_raw(Box::new(claimed));
                *out = zb_buffer::new(data, capacity, Owner::Boxed, boxed);
                return Ok(());
            }
        };
        let mut open = local.open.borrow_mut();
        if open.is_some() {
            return Err(Error::ClaimOpen);
        }
        let mut claimed = local.acquire(size, layout)?;
        let capacity = match &claimed {
            DuplexRequestBuffer::InPlace(buffer) => buffer.capacity(),
            DuplexRequestBuffer::TwoBuffers(buffer) => buffer.len(),
        };
        let data = NonNull::from(claimed.data_mut());
        *out = zb_buffer::new(data, capacity, Owner::Client, client);
        // SAFETY: only the lifetime changes: the client it borrows is in the same handle, dropped after
        // it, and not exclusively borrowed meanwhile (`client_mut`).
        *open = Some(unsafe {
            std::mem::transmute::<DuplexRequestBuffer<'_>, DuplexRequestBuffer<'static>>(claimed)
        });
        local.guards.set(local.guards.get() + 1);
        Ok(())
    })
}

/// Waits for an answer until the timeout has passed. With `sequence` 0 it is the oldest one that
/// is there, and a timeout changes nothing. Otherwise it is the answer to that request, which is
/// given up when the timeout passes, unless that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_receive(
    client: *mut zb_client,
    sequence: u64,
    timeout_ns: i64,
    response: *mut zb_view,
) -> zb_status {
    // SAFETY: the C contract.
    unsafe {
        receive(response, |out| {
            let timeout = duration(timeout_ns);
            match &zb_client::of(client)?.kind {
                Kind::One(local) => local.receive(sequence, timeout, out),
                Kind::Many { client: shared, .. } => {
                    let response = match sequence {
                        0 => shared.receive_response(timeout)?,
                        _ => shared.receive_response_for(sequence, timeout)?,
                    };
                    zb_view::put(out, response);
                    Ok(())
                }
            }
        })
    }
}

/// Gives up a request: no answer to it will be delivered. True if it was given up; false if its
/// answer is there already, or if no such request is waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_cancel(client: *mut zb_client, sequence: u64) -> bool {
    run_or(false, || {
        // SAFETY: the C contract.
        match unsafe { zb_client::of(client) }.map(|client| &client.kind) {
            Ok(Kind::One(local)) => local.client().cancel(sequence),
            Ok(Kind::Many { client: shared, .. }) => shared.cancel(sequence),
            Err(_) => false,
        }
    })
}

/// Attaches to the channel's present server: after the former one has gone, or to start over. `report`, if
/// it is not null, gets what became of the requests in flight.
///
/// Views and a buffer that are held have to be released, detached or abandoned before.
///
/// Sequence numbers go on: one is one request's for the life of the client. With many threads nothing is
/// sent again, and a connection that works is left as it is: each thread may call this after an error,
/// whatever it holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_reconnect(
    client: *mut zb_client,
    timeout_ns: i64,
    report: *mut zb_reconnected,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let mut report = unsafe { report.as_mut() };
        if let Some(report) = &mut report {
            **report = zb_reconnected::EMPTY;
        }
        // SAFETY: the C contract.
        let reconnected = match &unsafe { zb_client::of(client)? }.kind {
            Kind::One(local) => local.reconnect(duration(timeout_ns))?,
            Kind::Many { client: shared, .. } => shared.reconnect(duration(timeout_ns))?,
        };
        if let Some(report) = report {
            *report = zb_reconnected::of(&reconnected);
        }
        Ok(())
    })
}

/// Whether the server is there at this moment. Asks the operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_is_server_connected(client: *const zb_client) -> bool {
    run_or(false, || {
        // SAFETY: the C contract.
        match unsafe { zb_client::of(client) }.map(|client| &client.kind) {
            Ok(Kind::One(local)) => local.client().is_server_connected(),
            Ok(Kind::Many { client: shared, .. }) => shared.is_server_connected(),
            Err(_) => false,
        }
    })
}

/// Fills `state`, of which `size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_inspect(
    client: *const zb_client,
    state: *mut zb_client_state,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let client = unsafe { zb_client::of(client)? };
        if state.is_null() {
            return Err(error::null("state"));
        }
        // SAFETY: the C contract.
        let size = unsafe { (&raw const (*state).size).read() };
        let known = size_of::<zb_client_state>();
        if size < size_of::<usize>() {
            let allowed = "sizeof(zb_client_state)";
            return Err(Error::BadConfig { what: "size of state", asked: size as u64, allowed });
        }
        let found = inspect(&client.kind, size);
        // SAFETY: the C contract: there are `size` bytes.
        unsafe {
            (&raw const found).cast::<u8>().copy_to_nonoverlapping(state.cast(), size.min(known));
        }
        Ok(())
    })
}

fn inspect(kind: &Kind, size: usize) -> zb_client_state {
    let (max_request_size, in_flight) = match kind {
        Kind::One(local) => match local.client() {
            DuplexClient::InPlace(client) => (client.max_request_size(), client.in_flight()),
            DuplexClient::TwoBuffers(client) => (client.max_request_size(), client.in_flight()),
        },
        Kind::Many { client: shared, .. } => (shared.max_request_size(), shared.in_flight()),
    };
    let two_buffers = match kind {
        Kind::One(local) => match local.client() {
            DuplexClient::TwoBuffers(client) => Some(client),
            DuplexClient::InPlace(_) => None,
        },
        Kind::Many { .. } => None,
    };
    zb_client_state {
        size,
        max_request_size,
        in_flight,
        is_in_place: u32::from(two_buffers.is_none()),
        is_desynchronised: u32::from(two_buffers.is_some_and(|client| client.is_desynchronised())),
    }
}

/// Copies what the server has published about itself into `buffer` of `capacity` bytes. `len` gets
/// the length of all of it, also if that is more than `capacity`, which is `ZB_TOO_LARGE` unless
/// `buffer` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_client_server_metadata(
    client: *const zb_client,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let client = unsafe { zb_client::of(client)? };
        let shared_metadata;
        let metadata = match &client.kind {
            Kind::One(local) => match local.client() {
                DuplexClient::InPlace(client) => client.server_metadata(),
                DuplexClient::TwoBuffers(_) => &[],
            },
            Kind::Many { client: shared, .. } => {
                shared_metadata = shared.server_metadata();
                &shared_metadata[..]
            }
        };
        // SAFETY: the C contract.
        unsafe { config::copy_out(metadata, buffer, capacity, len) }
    })
}
