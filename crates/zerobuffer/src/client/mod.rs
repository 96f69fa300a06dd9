//! The client: sends requests, and reads the answers where the requests were.

mod channel;
mod guards;
mod lifeline;
mod number;
mod seal;
mod shared;
mod turns;

pub use guards::{OwnedRequestBuffer, OwnedResponse, RequestBuffer, Response};
pub use shared::SharedClient;

use crate::closer::Closer;
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::{Error, LostRequest, RequestState, Result};
use crate::name::ChannelName;
use crate::v2::layout::Demand;
use crate::v2::ring::Held;
use crate::wait::Deadline;
use channel::{Attached, ClientChannel};
use lifeline::Lifeline;
use number::Number;
use seal::Sealed;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Room for a request beyond its own length, and where its data lies.
///
/// ```
/// use zerobuffer::RequestLayout;
///
/// // Room for an answer of 1 MiB, at a page boundary of the ring.
/// let layout = RequestLayout::new().capacity(1 << 20).alignment(4096);
/// # let _ = layout;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RequestLayout {
    capacity: usize,
    alignment: usize,
}

impl Default for RequestLayout {
    fn default() -> Self {
        Self { capacity: 0, alignment: 1 }
    }
}

impl RequestLayout {
    /// As long as the request, at any multiple of 32.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most bytes that the answer may have, if that is more than the request has.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// A power of two up to 4096: the data starts at such a multiple from the start of the payload,
    /// which itself starts at a page boundary.
    pub fn alignment(mut self, bytes: usize) -> Self {
        self.alignment = bytes;
        self
    }

    #[inline]
    fn demand(self, size: usize) -> Result<Demand> {
        Demand::new(self.capacity.max(size) as u64, self.alignment as u64)
    }
}

/// What became of the requests that were sent before [`Client::reconnect`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconnected {
    /// Requests that were sent again: their old sequence number, and the new one.
    pub resent: Vec<(u64, u64)>,
    /// Requests that were not, and what is known of them. An answer that was there but not received
    /// before reconnecting counts as in doubt.
    pub lost: Vec<LostRequest>,
}

/// A client of one channel, for one thread at a time: the fastest way to call a server.
///
/// | to | use |
/// |---|---|
/// | send one request and wait for its answer | [`call`](Self::call) |
/// | keep several in flight | [`send_request`](Self::send_request), [`receive_response`](Self::receive_response) |
/// | write the request where the server will read it | [`acquire_request_buffer`](Self::acquire_request_buffer) |
/// | call from many threads at once, or send on one and receive on another | [`into_shared`](Self::into_shared) |
///
/// Dropping it closes the channel in good order; a server then serves the next client.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, Frame, Server};
///
/// let name = format!("doc-client-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| frame.data_mut().reverse())?;
///
/// let mut client = Client::connect(&name, Duration::from_secs(5))?;
/// let response = client.call(b"stressed", Duration::from_secs(5))?;
/// assert_eq!(response.data(), b"desserts");
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct Client {
    channel: Attached,
    name: ChannelName,
    config: ClientConfig,
    /// What a connection that was given up had in flight, while there is no new one.
    given_up: Vec<LostRequest>,
    life: Arc<Lifeline>,
    /// One thread at a time: the ring's account is kept without locks.
    not_sync: PhantomData<Cell<()>>,
}

debug_line!(Client, "Client", |client| name: client.name());

impl Client {
    /// Attaches to the server of `name`, waiting for it until `timeout` has passed; zero tries once.
    ///
    /// # Errors
    /// [`Error::NotRunning`] or [`Error::Busy`] if that has not changed by then;
    /// [`Error::BadName`], [`Error::PermissionDenied`], [`Error::ForeignObject`],
    /// [`Error::Incompatible`] at once.
    pub fn connect(name: &str, timeout: Duration) -> Result<Self> {
        Self::connect_with(name, timeout, ClientConfig::default())
    }

    /// As [`connect`](Self::connect), with a configuration of its own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::TooLarge`] if the metadata does not fit the server's
    /// block; [`Error::BadConfig`].
    pub fn connect_with(name: &str, timeout: Duration, config: ClientConfig) -> Result<Self> {
        let name = ChannelName::new(name)?;
        let channel = ClientChannel::attach(&name, &config, &Deadline::after(timeout), &|| false)?;
        let life = Lifeline::new(&channel);
        Ok(Self { channel, name, config, given_up: Vec::new(), life, not_sync: PhantomData })
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// What closes this client from another thread: a thread that waits in it or in a
    /// reconnection comes back with [`Error::Closed`]. The channel is let go of when the client is
    /// dropped.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, ErrorKind, Server};
    /// # let name = format!("doc-client-closer-{}", std::process::id());
    /// # let server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// let closer = client.closer();
    /// std::thread::spawn(move || closer.close());
    /// // Nobody answers.
    /// let error = client.call(b"ping", Duration::MAX).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Closed);
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn closer(&self) -> Closer {
        Closer::of(&self.life)
    }

    /// What the server has published about itself; empty if nothing.
    pub fn server_metadata(&self) -> &[u8] {
        &self.channel.server_metadata
    }

    /// Whether the server is there, as its lock says at this moment.
    pub fn is_server_connected(&self) -> bool {
        self.channel.is_server_connected()
    }

    /// Requests in flight: sent, and their bytes not back in the ring yet.
    pub fn in_flight(&self) -> usize {
        if self.channel.segment.is_this_process() {
            // Responses given back on other threads wait for this one to take their bytes back.
            self.channel.ring().reclaim();
        }
        self.channel.ring().in_flight() as usize
    }

    /// The most bytes that a request can have on this channel.
    pub fn max_request_size(&self) -> usize {
        self.channel.ring().max_capacity() as usize
    }

    /// Copies `data` into the ring and sends it. Returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room within the configured send timeout; [`Error::TooLarge`] if
    /// there never is; [`Error::ClaimOpen`] while a request buffer is open; [`Error::PeerDied`],
    /// [`Error::PeerClosed`], [`Error::ProtocolViolation`], [`Error::Closed`], [`Error::WrongProcess`].
    #[inline]
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        send(&self.channel, data, self.config.send_timeout).map(Number::for_caller)
    }

    /// A buffer of `size` bytes in the ring, to be filled in place and committed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Frame, Server};
    /// # let name = format!("doc-acquire-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// # let client = Client::connect(&name, Duration::from_secs(5))?;
    /// let mut buffer = client.acquire_request_buffer(5)?;
    /// buffer.data_mut().copy_from_slice(b"hello");
    /// let sequence = buffer.commit()?;
    ///
    /// let response = client.receive_response_for(sequence, Duration::from_secs(5))?;
    /// assert_eq!(response.data(), b"HELLO");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    #[inline]
    pub fn acquire_request_buffer(&self, size: usize) -> Result<RequestBuffer<'_>> {
        self.acquire_request_buffer_with(size, RequestLayout::default())
    }

    /// As [`acquire_request_buffer`](Self::acquire_request_buffer), with room for a longer answer or
    /// with aligned data.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request); [`Error::BadConfig`] for an impossible alignment.
    #[inline]
    pub fn acquire_request_buffer_with(
        &self,
        size: usize,
        layout: RequestLayout,
    ) -> Result<RequestBuffer<'_>> {
        acquire(&self.channel, size, layout, self.config.send_timeout)
    }

    /// The oldest answer that is there, waiting for one until `timeout` has passed. Answers may come
    /// in any order; look at [`Response::sequence`].
    ///
    /// Once the server is gone, what it had answered is delivered first; then each request that is
    /// left is reported once, oldest first; then every call fails without a request.
    ///
    /// # Errors
    /// [`Error::Timeout`], which changes nothing; [`Error::HandlerFailed`] about the request that the
    /// error names; [`Error::PeerDied`], [`Error::PeerClosed`], [`Error::ProtocolViolation`],
    /// [`Error::Closed`], [`Error::WrongProcess`].
    pub fn receive_response(&self, timeout: Duration) -> Result<Response<'_>> {
        receive_next(&self.channel, timeout)
    }

    /// The answer to request `sequence`, waiting for it until `timeout` has passed.
    ///
    /// The timeout is the request's own: when it passes, the request is given up as by
    /// [`cancel`](Self::cancel). A zero timeout only looks, and gives nothing up.
    ///
    /// # Errors
    /// As [`receive_response`](Self::receive_response); [`Error::UnknownSequence`] if no such request
    /// is waiting for an answer.
    #[inline(always)]
    pub fn receive_response_for(&self, sequence: u64, timeout: Duration) -> Result<Response<'_>> {
        receive_for(&self.channel, Number::of_caller(sequence), timeout)
    }

    /// Sends `data` and waits for the answer, both within `timeout`. A request that has no answer by
    /// then is given up.
    ///
    /// With [`ClientConfig::resend_not_started`], a server that goes away before it takes the request
    /// is waited for, within `timeout`, and the request sent again, unless other requests are in
    /// flight on this client: then the error says so, and [`reconnect`](Self::reconnect) tells what
    /// became of all of them.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request) and [`receive_response`](Self::receive_response).
    #[inline(always)]
    pub fn call(&mut self, data: &[u8], timeout: Duration) -> Result<Response<'_>> {
        let held = match self.channel.call_at_once(data, Demand::prefer_cached(data.len() as u64)) {
            Ok(held) => held,
            Err(sent) => self.call_slowly(data, sent, timeout)?,
        };
        Ok(Response::new(&self.channel, held))
    }

    /// A call from where it stands: sent as `sent`, or not yet.
    #[cold]
    fn call_slowly(
        &mut self,
        data: &[u8],
        sent: Option<Number>,
        timeout: Duration,
    ) -> Result<Held> {
        let deadline = Deadline::after(timeout);
        let mut outcome = match sent {
            Some(number) => self.channel.receive_for(number, &deadline),
            None => call(&self.channel, data, &deadline),
        };
        loop {
            match outcome {
                Err(error) if self.may_resend(&error) => self.reconnect_by(&deadline)?,
                outcome => return outcome,
            };
            outcome = call(&self.channel, data, &deadline);
        }
    }

    fn may_resend(&self, error: &Error) -> bool {
        self.config.resend_not_started
            && is_not_started(error)
            // Nobody hears of what else was in flight.
            && self.channel.seal().pending().next().is_none()
    }

    /// Gives up a request: no answer to it will be delivered. True if it was given up; false if its
    /// answer is there already (receive it), or if no such request is waiting.
    ///
    /// The server may be working on it all the same; its late answer is swallowed.
    pub fn cancel(&self, sequence: u64) -> bool {
        self.channel.cancel(Number::of_caller(sequence))
    }

    /// A client that many threads can call at once. Requests that are in flight stay so.
    pub fn into_shared(self) -> SharedClient {
        SharedClient::new(self.name, self.config, self.channel, self.given_up, self.life)
    }

    /// Attaches to the channel's present server: after the former one has gone, or to start over with
    /// the same one.
    ///
    /// Sequence numbers go on: one stands for one request for the life of the client, so who still asks
    /// for the answer to one of the former connection gets [`Error::UnknownSequence`]. A request buffer
    /// that was not committed by then cannot be any more. Requests that the former server had not started
    /// are sent again in their order, under new numbers, if [`ClientConfig::resend_not_started`] says so;
    /// the returned value tells what became of each. One that cannot be sent again, because it is too large for the new server
    /// or finds no room in time, is among the lost ones with all that come after it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect): try again later. Nothing is forgotten meanwhile, but a connection
    /// to a server that lives is closed by then. [`Error::Closed`] after [`Closer::close`].
    pub fn reconnect(&mut self, timeout: Duration) -> Result<Reconnected> {
        self.reconnect_by(&Deadline::after(timeout))
    }

    fn reconnect_by(&mut self, deadline: &Deadline) -> Result<Reconnected> {
        self.channel.segment.check_process()?;
        let begun = self.life.begin()?;
        if !self.channel.is_closed() && self.channel.has_server() {
            self.given_up = self.channel.seal().report();
            self.channel.leave();
        }
        let is_closed = || self.life.closed_since(begun);
        let channel = ClientChannel::attach(&self.name, &self.config, deadline, &is_closed)?;
        self.life.renew(begun, &channel)?;
        let former = std::mem::replace(&mut self.channel, channel);
        let sealed = former.seal();
        self.channel.count_on(sealed);
        let mut report =
            Reconnected { resent: Vec::new(), lost: std::mem::take(&mut self.given_up) };
        // What was given up is in the list; answers that were there are still pending in the table.
        if !former.is_closed() {
            self.move_requests(&former, sealed, deadline, &mut report);
        }
        Ok(report)
    }

    /// Sends again what the former server had not started, and lists the rest.
    fn move_requests(
        &self,
        former: &ClientChannel,
        sealed: Sealed<'_>,
        deadline: &Deadline,
        report: &mut Reconnected,
    ) {
        let mut stuck = false;
        for number in sealed.pending() {
            let lost = sealed.lost_request(number, false);
            let wanted = self.config.resend_not_started && !stuck;
            let resent = (wanted && lost.state == RequestState::NotStarted)
                .then(|| self.resend(former, number, deadline));
            match resent {
                Some(Ok(new)) => report.resent.push((number.for_caller(), new.for_caller())),
                outcome => {
                    // Nothing may overtake a request that could not be sent again.
                    stuck |= outcome.is_some();
                    report.lost.push(lost);
                }
            }
        }
    }

    /// Sends a request again whose bytes still lie in the former segment.
    fn resend(
        &self,
        former: &ClientChannel,
        number: Number,
        deadline: &Deadline,
    ) -> Result<Number> {
        let unknown = Error::UnknownSequence { sequence: number.for_caller() };
        let (old, demand) = former.pending_slot(number).ok_or(unknown)?;
        let data = old.data(&former.segment.payload);
        let mut claim = self.channel.claim(demand, deadline)?;
        let len = data.len() as u64;
        claim.data_mut(&self.channel.segment.payload, len).copy_from_slice(data);
        Ok(self.channel.commit(claim, len))
    }
}

/// Whether a call can be made again: the server was gone before it took the request.
fn is_not_started(error: &Error) -> bool {
    match error {
        Error::PeerDied { request } | Error::PeerClosed { request } => {
            request.is_none_or(|request| request.state == RequestState::NotStarted)
        }
        _ => false,
    }
}

fn call(channel: &ClientChannel, data: &[u8], deadline: &Deadline) -> Result<Held> {
    let number = channel.send_slowly(data, Demand::prefer_cached(data.len() as u64), deadline)?;
    channel.receive_for(number, deadline)
}

#[inline(always)]
fn send(channel: &ClientChannel, data: &[u8], timeout: Duration) -> Result<Number> {
    let demand = Demand::anywhere(data.len() as u64);
    match channel.send_at_once(data, demand) {
        Some(number) => Ok(number),
        None => channel.send_slowly(data, demand, &Deadline::after(timeout)),
    }
}

#[inline]
fn acquire(
    channel: &Arc<ClientChannel>,
    size: usize,
    layout: RequestLayout,
    timeout: Duration,
) -> Result<RequestBuffer<'_>> {
    let claim = channel.claim(layout.demand(size)?, &Deadline::after(timeout))?;
    Ok(RequestBuffer::new(channel, claim, size as u64))
}

#[inline(always)]
fn receive_for(
    channel: &Arc<ClientChannel>,
    number: Number,
    timeout: Duration,
) -> Result<Response<'_>> {
    let held = if timeout.is_zero() {
        channel.poll_for(number)?
    } else {
        match channel.receive_at_once(number) {
            Some(held) => held,
            None => channel.receive_for(number, &Deadline::after(timeout))?,
        }
    };
    Ok(Response::new(channel, held))
}

fn receive_next(channel: &Arc<ClientChannel>, timeout: Duration) -> Result<Response<'_>> {
    channel.check()?;
    let held = channel.receive_next(&Deadline::after(timeout))?;
    Ok(Response::new(channel, held))
}
