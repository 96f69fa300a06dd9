//! The client: sends requests, and reads the responses where the requests were.

mod calls;
mod channel;
mod completer;
mod completions;
mod connection;
mod current;
mod event_loop;
mod guards;
mod lifeline;
mod number;
mod pool;
mod reconnect;
mod resend;
mod seal;
mod shared;
mod turns;

pub use calls::{CallFuture, CallHandle};
pub use event_loop::EventLoopClient;
pub use guards::{OwnedRequestBuffer, OwnedResponse, RequestBuffer, Response};
pub use pool::Pool;
pub use shared::SharedClient;

use crate::closer::Closer;
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::{Error, LostRequest, Result};
use crate::v1::Patience;
use crate::v2::layout::Demand;
use crate::wait::Deadline;
use channel::ClientChannel;
use connection::Connection;
use lifeline::Lifeline;
use number::Number;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Room for a request beyond its own length, and where its data lies. In place only: over two buffers the
/// response has memory of its own, and frames lie where version 1 puts them.
///
/// ```
/// use zerobuffer::RequestLayout;
///
/// // Room for a response of 1 MiB, at a page boundary of the ring.
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

    /// The most bytes that the response may have, if that is more than the request has.
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
    /// Requests that were not, and what is known of them. A response that was there but not received
    /// before reconnecting counts as in doubt.
    pub lost: Vec<LostRequest>,
}

/// A client of one channel, for one thread at a time: the fastest way to call a server.
///
/// | to | use |
/// |---|---|
/// | send one request and wait for its response | [`call`](Self::call) |
/// | keep several in flight | [`send_request`](Self::send_request), [`receive_response`](Self::receive_response) |
/// | write the request where the server will read it | [`acquire_request_buffer`](Self::acquire_request_buffer) |
/// | call from many threads at once, or send on one and receive on another | [`into_shared`](Self::into_shared) |
///
/// It finds channels of both kinds, and does the same on both where the kind leaves it the choice:
///
/// | | in place | over two buffers (version 1) |
/// |---|---|---|
/// | the response lies | where the request was | in a buffer that the client makes, see [`ClientConfig::response_buffer`] |
/// | responses come | in any order | in the order of the requests |
/// | a response longer than its request | needs [`RequestLayout::capacity`] | needs room in the response buffer |
/// | [`resize`](RequestBuffer::resize) of a request | up to its capacity | not at all |
/// | a handler that fails | is reported as [`Error::HandlerFailed`] | ends the connection, or sends what the server has chosen for that |
/// | a cancelled request | is skipped, or its response swallowed | is worked on, and its response swallowed; see [`is_desynchronised`](Self::is_desynchronised) |
/// | what a server leaves behind at its end | was not started, or is in doubt | is in doubt |
/// | the server's metadata | [`server_metadata`](Self::server_metadata) | none |
///
/// Dropping it closes the channel cleanly; a server then serves the next client.
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
    connection: Connection,
    config: ClientConfig,
    /// What a connection that was left had in flight, while there is no new one.
    unreported: Vec<LostRequest>,
    life: Arc<Lifeline>,
    /// One thread at a time: the ring's account is kept without locks.
    not_sync: PhantomData<Cell<()>>,
}

debug_line!(Client, "Client", |client| name: client.name());

impl Client {
    /// Attaches to a server of `name`, of whatever kind, waiting for it until `timeout` has passed; zero tries
    /// once. A [`Service`](crate::Service) comes first, then an in-place channel, if there are several;
    /// [`ClientConfig::channel`] asks for one kind, and so do the names `service:NAME` and `channel:NAME`. A
    /// server of two buffers needs up to 100 ms to notice a client, so a shorter timeout may not do there.
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
    /// block; [`Error::BadConfig`]. Over two buffers also [`Error::MetadataAlreadyWritten`], and
    /// [`Error::NoSpace`] for the response buffer.
    pub fn connect_with(name: &str, timeout: Duration, config: ClientConfig) -> Result<Self> {
        Self::connect_while(name, timeout, config, &|| true)
    }

    /// As [`connect_with`](Self::connect_with), for as long as `is_wanted` says true: for programs whose user, or
    /// whose caller, may end the wait. It is asked on this thread, every 50 ms at the latest.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::time::Duration;
    /// use zerobuffer::{Client, ClientConfig, ErrorKind};
    ///
    /// static IS_WANTED: AtomicBool = AtomicBool::new(true);
    /// std::thread::spawn(|| IS_WANTED.store(false, Ordering::Relaxed)); // Ctrl-C, say
    /// let is_wanted = || IS_WANTED.load(Ordering::Relaxed);
    /// let nobody = Client::connect_while("nobody", Duration::MAX, ClientConfig::new(), &is_wanted);
    /// assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Closed);
    /// ```
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with); [`Error::Closed`] once it says false.
    pub fn connect_while(
        name: &str,
        timeout: Duration,
        config: ClientConfig,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let (name, config) = config.of_name(name);
        let (deadline, is_cancelled) = (Deadline::after(timeout), || !is_wanted());
        let connection = Connection::find(name, &config, &deadline, &is_cancelled)?;
        let life = connection.lifeline();
        Ok(Self { connection, config, unreported: Vec::new(), life, not_sync: PhantomData })
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        self.connection.name()
    }

    /// Whether responses lie where the requests were; if not, the channel has two buffers (version 1).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, v1};
    /// # let name = format!("doc-client-kind-{}", std::process::id());
    /// let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// server.start_mutable(|draft: &mut v1::Draft| draft.data_mut().reverse())?;
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// assert!(!client.is_in_place());
    /// assert_eq!(client.call(b"stressed", Duration::from_secs(5))?.data(), b"desserts");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn is_in_place(&self) -> bool {
        self.connection.is_in_place()
    }

    /// Whether it leads to a server of a service, and not to the server of a channel. Then its
    /// [`into_event_loop`](Self::into_event_loop) has a descriptor to wait for.
    pub fn is_service(&self) -> bool {
        self.connection.is_to_service()
    }

    /// What closes this client from another thread: a thread that waits in it or in a
    /// reconnection returns with [`Error::Closed`]. Dropping the client releases the channel.
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

    /// What the server has published about itself; empty if nothing, and over two buffers.
    pub fn server_metadata(&self) -> &[u8] {
        self.connection.server_metadata()
    }

    /// Whether the server is connected at this moment. Asks the operating system.
    pub fn is_server_connected(&self) -> bool {
        self.connection.is_server_connected()
    }

    /// Whether responses may be taken for those of other requests: over two buffers, while the response to a
    /// cancelled request has not come, or after one came that no request had asked for. In place never.
    ///
    /// Over two buffers responses come in the order of the requests, and that is all that ties them together.
    /// A server of this library responds to every request, so this ends. An existing v1 server does not if its
    /// handler fails; then every later response is taken for the one before, nothing wrong is delivered, calls
    /// time out, and only [`reconnect`](Self::reconnect) helps.
    pub fn is_desynchronised(&self) -> bool {
        self.connection.is_desynchronised()
    }

    /// Requests in flight: in place, sent and not released; over two buffers, sent and without a response.
    pub fn in_flight(&self) -> usize {
        if let Connection::InPlace(channel) = &self.connection
            && channel.segment.is_this_process()
        {
            // Responses released on other threads wait for this one to take their bytes back.
            channel.ring().reclaim();
        }
        self.connection.in_flight()
    }

    /// The most bytes that a request can have on this channel.
    pub fn max_request_size(&self) -> usize {
        self.connection.max_request_size()
    }

    /// Copies `data` into the ring and sends it. Returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room within the configured send timeout; [`Error::TooLarge`] if
    /// there never is; [`Error::ClaimOpen`] while a request buffer is open; [`Error::PeerDied`],
    /// [`Error::PeerClosed`], [`Error::ProtocolViolation`], [`Error::Closed`], [`Error::WrongProcess`]. Over
    /// two buffers also `Full` at once if too much is in flight (receive first), [`Error::EmptyFrame`],
    /// [`Error::WouldNeverFit`] and [`Error::Desynchronised`].
    #[inline]
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        match &self.connection {
            Connection::InPlace(channel) => {
                send(channel, data, self.config.send_timeout).map(Number::for_caller)
            }
            Connection::TwoBuffers(channel) => {
                channel.send(data, &Deadline::after(self.config.send_timeout), Patience::None)
            }
        }
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

    /// As [`acquire_request_buffer`](Self::acquire_request_buffer), with room for a longer response or
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
        let timeout = self.config.send_timeout;
        match &self.connection {
            Connection::InPlace(channel) => acquire(channel, size, layout, timeout),
            Connection::TwoBuffers(channel) => {
                let filling = channel.acquire(size, &Deadline::after(timeout), Patience::None)?;
                Ok(RequestBuffer::of_two_buffers(filling))
            }
        }
    }

    /// The oldest response that has arrived, waiting for one until `timeout` has passed. Responses may come
    /// in any order; [`Response::sequence`] tells which one it is.
    ///
    /// Once the server has ended, the responses that it had sent are delivered first; then each request that is
    /// left is reported once, oldest first; then every call fails without a request.
    ///
    /// # Errors
    /// [`Error::Timeout`], which changes nothing; [`Error::HandlerFailed`] about the request that the
    /// error names; [`Error::PeerDied`], [`Error::PeerClosed`], [`Error::ProtocolViolation`],
    /// [`Error::Closed`], [`Error::WrongProcess`].
    pub fn receive_response(&self, timeout: Duration) -> Result<Response<'_>> {
        match &self.connection {
            Connection::InPlace(channel) => receive_next(channel, timeout),
            Connection::TwoBuffers(channel) => {
                let frame = channel.receive(None, &Deadline::after(timeout))?;
                Ok(Response::of_two_buffers(frame))
            }
        }
    }

    /// The response to request `sequence`, waiting for it until `timeout` has passed.
    ///
    /// The timeout is the request's own: when it passes, the request is cancelled as by
    /// [`cancel`](Self::cancel). A zero timeout only checks, and cancels nothing.
    ///
    /// # Errors
    /// As [`receive_response`](Self::receive_response); [`Error::UnknownSequence`] if no such request
    /// is waiting for a response.
    #[inline(always)]
    pub fn receive_response_for(&self, sequence: u64, timeout: Duration) -> Result<Response<'_>> {
        match &self.connection {
            Connection::InPlace(channel) => {
                receive_for(channel, Number::of_caller(sequence), timeout)
            }
            Connection::TwoBuffers(channel) => {
                let deadline = Deadline::after(timeout);
                let frame = match timeout.is_zero() {
                    true => channel.receive(Some(sequence), &deadline)?,
                    false => channel.receive_or_cancel(sequence, &deadline)?,
                };
                Ok(Response::of_two_buffers(frame))
            }
        }
    }

    /// Sends `data` and waits for the response, both within `timeout`. A request that has no response by
    /// then is cancelled.
    ///
    /// With [`ClientConfig::resend_not_started`], a server that goes away before it takes the request
    /// is waited for, within `timeout`, and the request sent again, unless other requests are in
    /// flight on this client: then the error says so, and [`reconnect`](Self::reconnect) tells what
    /// became of all of them. If no other server comes in time, the error is that of the first one's end.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request) and [`receive_response`](Self::receive_response). After a
    /// server's end [`Error::lost_request`] tells what became of the request, also if it was never sent.
    #[inline(always)]
    pub fn call(&mut self, data: &[u8], timeout: Duration) -> Result<Response<'_>> {
        let held = match &self.connection {
            Connection::InPlace(channel) => {
                match channel.call_at_once(data, Demand::prefer_cached(data.len() as u64)) {
                    Ok(held) => held,
                    Err(sent) => self.call_slowly(data, sent, timeout)?,
                }
            }
            Connection::TwoBuffers(_) => return self.call_over_two_buffers(data, timeout),
        };
        match &self.connection {
            Connection::InPlace(channel) => Ok(Response::new(channel, held)),
            // It keeps the kind of channel that it has found.
            Connection::TwoBuffers(_) => Err(Error::Closed),
        }
    }

    /// Cancels a request: no response to it will be delivered. True if it was cancelled; false if its
    /// response has arrived already (receive it), or if no such request is waiting.
    ///
    /// The server may be working on it all the same; its late response is swallowed.
    pub fn cancel(&self, sequence: u64) -> bool {
        self.connection.cancel(Number::of_caller(sequence))
    }

    /// A client that many threads can call at once. Requests that are in flight stay so.
    pub fn into_shared(self) -> SharedClient {
        SharedClient::new(self.connection, self.config, self.unreported, self.life)
    }

    /// Connects to the channel's present server: after the previous one has exited, or to start over with
    /// the same one. The next server must be of the same kind.
    ///
    /// Sequence numbers go on: one stands for one request for the life of the client, so a call that asks
    /// for the response to one of the previous connection gets [`Error::UnknownSequence`]. A request buffer
    /// that was not committed by then cannot be any more. Requests that the previous server had not started
    /// are sent again in their order, under new numbers, if [`ClientConfig::resend_not_started`] says so;
    /// the returned value tells what became of each. One that cannot be sent again, because it is too large
    /// for the new server or finds no room in time, is among the lost ones with all that come after it. Over
    /// two buffers nothing tells what a server has started: all that was in flight is in doubt.
    ///
    /// # Errors
    /// As [`connect`](Self::connect): try again later. Nothing is forgotten meanwhile, but a connection
    /// to a server that lives is closed by then. [`Error::Closed`] after [`Closer::close`].
    pub fn reconnect(&mut self, timeout: Duration) -> Result<Reconnected> {
        self.reconnect_by(&Deadline::after(timeout))
    }
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
