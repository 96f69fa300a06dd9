//! One client for many threads.

use super::channel::{ClientChannel, SEALED, end_error, timed_out};
use super::completions::Completions;
use super::connection::Connection;
use super::current::{Current, Pin};
use super::lifeline::{Begun, Connected, Lifeline};
use super::number::Number;
use super::resend::until_started;
use super::turns::{FairLock, LeaderFollowers, Refused};
use super::{OwnedRequestBuffer, OwnedResponse, Reconnected, RequestLayout};
use crate::closer::Closer;
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::{Error, LostRequest, Result};
use crate::sys;
use crate::v1::Patience;
use crate::v2::layout::Demand;
use crate::wait::{Deadline, NOTICE, Peer, Unready, WaitContext, WaitStrategy, Waiter};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest request that is copied while other threads wait for the pin.
const AT_ONCE: usize = 4096;

/// How long a thread that does not wait on the semaphore itself sleeps before it checks again.
const SLICE: Duration = Duration::from_millis(10);

/// A client that many threads call at once; clones share one connection, of either kind (see
/// [`Client`](super::Client)).
///
/// Responses are handed out as [`OwnedResponse`]s, which may be released on any thread. For one thread
/// [`Client`](super::Client) is faster: it takes no lock.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, Frame, Server};
///
/// let name = format!("doc-shared-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| frame.data_mut()[0] *= 2)?;
///
/// let client = Client::connect(&name, Duration::from_secs(5))?.into_shared();
/// std::thread::scope(|scope| {
///     for n in 1..=4 {
///         let client = client.clone();
///         scope.spawn(move || {
///             let response = client.call(&[n], Duration::from_secs(5)).unwrap();
///             assert_eq!(response.data(), [2 * n]);
///         });
///     }
/// });
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedClient {
    pub(super) inner: Arc<Inner>,
    /// `None` for the completer, which uses the client and does not keep it.
    _owner: Option<Arc<Owner>>,
}

/// What the user's handles share: the last of them ends the client, whatever the completer is doing.
#[derive(Debug)]
struct Owner(Arc<Inner>);

debug_line!(SharedClient, "SharedClient", |client| name: client.name());

#[derive(Debug)]
pub(super) struct Inner {
    name: String,
    pub(super) config: ClientConfig,
    connection: Current<SharedConnection>,
    /// Held to send without taking a turn, and to end or replace the connection.
    pin: Arc<Pin>,
    /// Passed by the one thread that attaches to a new server.
    reconnecting: FairLock,
    /// For the thread inside: what a connection that was left had in flight, while there is no new one.
    unreported: Mutex<Vec<LostRequest>>,
    /// Requests that previous connections left without a response and that are not reported yet, the oldest first.
    lost: Mutex<VecDeque<(Peer, LostRequest)>>,
    life: Arc<Lifeline>,
    /// What no thread blocks for.
    pub(super) completions: Arc<Completions>,
    pub(super) fork_generation: u32,
}

impl Inner {
    /// Whether its connection was closed, and nobody has reconnected yet.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.get().channel.has_ended_here()
    }
}

impl Drop for Owner {
    /// An open request buffer keeps the connection, and is not to keep the channel.
    fn drop(&mut self) {
        let Self(inner) = self;
        if inner.fork_generation == sys::fork_generation() {
            // Counted as a close: a reconnection of the completer, which is waited for here, ends as well.
            inner.life.close_once();
            inner.completions.end();
        }
    }
}

/// One connection, and what its threads need to take turns.
#[derive(Debug)]
pub(super) struct SharedConnection {
    channel: Connection,
    /// Waiting threads do not sleep as long as they have CPUs to themselves. If they do, and one of them takes
    /// the token of another one, that one checks again in its next slice.
    spins: bool,
    pub(super) senders: FairLock,
    pub(super) receivers: LeaderFollowers,
    completions: Arc<Completions>,
    pin: Arc<Pin>,
}

impl SharedConnection {
    fn new(
        channel: Connection,
        config: &ClientConfig,
        completions: &Arc<Completions>,
        pin: &Arc<Pin>,
    ) -> Arc<Self> {
        if let Connection::InPlace(channel) = &channel {
            channel.ring().set_concurrent();
        }
        let spins = config.wait == WaitStrategy::Spin;
        Arc::new(Self {
            channel,
            spins,
            senders: FairLock::beside(pin),
            receivers: LeaderFollowers::default(),
            completions: Arc::clone(completions),
            pin: Arc::clone(pin),
        })
    }

    /// Waits for this thread's turn to send `size` bytes.
    fn take_turn(&self, size: usize, deadline: &Deadline) -> Result<u64> {
        self.channel.check()?;
        self.senders.enter(deadline).map_err(|refused| match refused {
            Refused::OpenHere => Error::ClaimOpen,
            Refused::Closed => self.why_refused(),
            Refused::Timeout => self.channel.why_not_sent(size),
        })
    }
}

impl SharedConnection {
    fn is_of(&self, channel: &Arc<ClientChannel>) -> bool {
        matches!(&self.channel, Connection::InPlace(own) if Arc::ptr_eq(own, channel))
    }

    /// Why nobody is let in to send.
    pub(super) fn why_refused(&self) -> Error {
        if self.channel.has_ended_here() { Error::Closed } else { SEALED }
    }
}

/// A connection to a server in place, with what is particular to it.
#[derive(Debug, Clone)]
pub(super) struct InPlace {
    connection: Arc<SharedConnection>,
    pub(super) channel: Arc<ClientChannel>,
}

impl std::ops::Deref for InPlace {
    type Target = SharedConnection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl InPlace {
    pub(super) fn why_not_sent(&self, size: usize) -> Error {
        self.connection.channel.why_not_sent(size)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// Sends a request if there is room, for the caller whose turn it is.
    pub(super) fn send_once(
        &self,
        size: usize,
        demand: Demand,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Option<Number>> {
        let channel = &*self.channel;
        let Some(claim) = channel.poll_claim(demand)? else { return Ok(None) };
        let mut open = OpenClaim { channel, claim: Some(claim.addressed()) };
        if let Some(claim) = &mut open.claim {
            // A request that the connection sends itself must not wait for itself.
            self.senders.opened();
            fill(claim.data_mut(&channel.segment.payload, size as u64));
        }
        let claim = open.claim.take().expect("set above");
        channel.commit_unless_sealed(claim, size as u64).map(Some)
    }

    /// As [`wait`]; the leader waits by `waiter`.
    pub(super) fn wait_by<T>(
        &self,
        waiter: &Waiter,
        deadline: &Deadline,
        look: impl FnMut() -> Option<T>,
    ) -> std::result::Result<T, Unready> {
        wait_by(&self.connection, &self.channel, waiter, deadline, look)
    }
}

impl Connected for SharedConnection {
    fn end(&self) {
        let pinned = self.pin.hold();
        self.channel.close();
        drop(pinned);
        self.senders.close();
        self.completions.ring();
    }
}

/// A thread's turn to send, kept by an open request buffer.
#[derive(Debug)]
pub(super) struct Turn {
    connection: Arc<SharedConnection>,
    ticket: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // In a forked child nobody takes turns, and another thread may have held the gate's lock.
        if self.connection.channel.is_this_process() {
            self.connection.senders.leave(self.ticket);
        }
    }
}

/// Gives a thread's turn back when dropped.
struct Leave<'g> {
    gate: &'g FairLock,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.ticket);
    }
}

impl SharedClient {
    pub(super) fn new(
        connection: Connection,
        config: ClientConfig,
        unreported: Vec<LostRequest>,
        life: Arc<Lifeline>,
    ) -> Self {
        let name = connection.name().to_owned();
        let (completions, pin) = (Completions::new(), Arc::<Pin>::default());
        let connection = SharedConnection::new(connection, &config, &completions, &pin);
        life.hand_over(&connection);
        let connection = Current::new(&pin, connection);
        let inner = Inner {
            name,
            config,
            connection,
            pin,
            reconnecting: FairLock::default(),
            unreported: Mutex::new(unreported),
            lost: Mutex::default(),
            life,
            completions,
            fork_generation: sys::fork_generation(),
        };
        let inner = Arc::new(inner);
        let owner = Arc::new(Owner(Arc::clone(&inner)));
        Self { inner, _owner: Some(owner) }
    }

    /// For the completer.
    pub(super) fn of(inner: Arc<Inner>) -> Self {
        Self { inner, _owner: None }
    }

    /// The present connection, if it is one in place.
    ///
    /// # Errors
    /// `Unsupported` if it is not, and as [`Self::connection`].
    pub(super) fn in_place(&self) -> Result<InPlace> {
        let what = "calls that no thread waits for need a service or a channel in place";
        self.in_place_or(|| Error::Unsupported { what })
    }

    /// The same, with an error of the caller's if it is not.
    pub(super) fn in_place_or(&self, refused: impl FnOnce() -> Error) -> Result<InPlace> {
        let connection = self.connection()?;
        let Connection::InPlace(channel) = &connection.channel else { return Err(refused()) };
        let channel = Arc::clone(channel);
        Ok(InPlace { connection, channel })
    }

    /// # Errors
    /// `WrongProcess` in a forked child, before any lock: another thread may have held it when the
    /// process forked, and does not exist here to release it.
    fn connection(&self) -> Result<Arc<SharedConnection>> {
        if self.inner.fork_generation != sys::fork_generation() {
            return Err(Error::WrongProcess);
        }
        Ok(self.inner.connection.get())
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether its connection is known to be of no use any more.
    pub(super) fn is_spent(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_spent())
    }

    /// What closes this client, all clones of it, for good: as [`close`](Self::close), but there is no
    /// reconnecting.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.inner.life)
    }

    /// As [`Client::is_in_place`](super::Client::is_in_place); false in a forked child.
    pub fn is_in_place(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_in_place())
    }

    /// As [`Client::is_service`](super::Client::is_service); false in a forked child.
    pub fn is_service(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_to_service())
    }

    /// As [`Client::is_desynchronised`](super::Client::is_desynchronised).
    pub fn is_desynchronised(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_desynchronised())
    }

    /// As [`Client::is_server_connected`](super::Client::is_server_connected).
    pub fn is_server_connected(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_server_connected())
    }

    /// What the present server has published about itself; empty if nothing, and in a forked child.
    pub fn server_metadata(&self) -> Vec<u8> {
        let connection = self.connection();
        connection.map_or(Vec::new(), |connection| connection.channel.server_metadata().to_vec())
    }

    /// Requests in flight, of all threads together. Those whose responses were released since the
    /// last request was sent are still counted.
    pub fn in_flight(&self) -> usize {
        self.connection().map_or(0, |connection| connection.channel.in_flight())
    }

    /// As [`Client::max_request_size`](super::Client::max_request_size).
    pub fn max_request_size(&self) -> usize {
        self.connection().map_or(0, |connection| connection.channel.max_request_size())
    }

    /// As [`Client::call`](super::Client::call). With [`ClientConfig::resend_not_started`] the request is sent again after a
    /// server's end whatever else is in flight.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    pub fn call(&self, data: &[u8], timeout: Duration) -> Result<OwnedResponse> {
        self.call_by(data, &Deadline::after(timeout))
    }

    pub(super) fn call_by(&self, data: &[u8], deadline: &Deadline) -> Result<OwnedResponse> {
        let sent = self
            .send_at_once(data, Reply::ToCaller, |channel, number| (Arc::clone(channel), number));
        if let Some((channel, number)) = &sent
            && let Some(held) = channel.receive_at_once(*number)
        {
            return Ok(OwnedResponse::new(Arc::clone(channel), held));
        }
        let mut content = Content::Copy::<fn(&mut [u8])>(data);
        self.call_as(data.len(), RequestLayout::default(), &mut content, sent, deadline)
    }

    /// A call for callers that do something else between the slices of a long wait, as bindings for other
    /// languages do; [`call`](Self::call) is for all others. Sends `data`, waiting for room until `timeout` has
    /// passed (zero checks once), and checks for the response for a few microseconds.
    ///
    /// `Break`: the response. `Continue`: it has not come yet. By this number
    /// [`poll_response_for`](Self::poll_response_for) receives it; in place no other thread gets it by
    /// [`receive_response`](Self::receive_response), as it could after
    /// [`send_request_within`](Self::send_request_within). Nothing is sent again.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Error, Frame, Server};
    /// # let name = format!("doc-try-call-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// let (slice, second) = (Duration::from_millis(50), Duration::from_secs(1));
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let response = match client.try_call(b"hello", second)? {
    ///     ControlFlow::Break(response) => response,
    ///     ControlFlow::Continue(sequence) => loop {
    ///         match client.poll_response_for(sequence, slice) {
    ///             Err(Error::Timeout { .. }) => {} // The program does something else here.
    ///             received => break received?,
    ///         }
    ///     },
    /// };
    /// assert_eq!(response.data(), b"HELLO");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`send_request_within`](Self::send_request_within).
    #[inline]
    pub fn try_call(
        &self,
        data: &[u8],
        timeout: Duration,
    ) -> Result<ControlFlow<OwnedResponse, u64>> {
        let sent = self
            .send_at_once(data, Reply::ToCaller, |channel, number| (Arc::clone(channel), number));
        match sent {
            Some((channel, number)) => Ok(match channel.receive_at_once(number) {
                Some(held) => ControlFlow::Break(OwnedResponse::new(channel, held)),
                None => ControlFlow::Continue(number.for_caller()),
            }),
            None => self.send_for_call(data, timeout).map(ControlFlow::Continue),
        }
    }

    /// Over two buffers what is received by its number is addressed by that.
    #[cold]
    fn send_for_call(&self, data: &[u8], timeout: Duration) -> Result<u64> {
        let (layout, deadline) = (RequestLayout::default(), Deadline::after(timeout));
        let mut content = Content::Copy::<fn(&mut [u8])>(data);
        let reply = if self.is_in_place() { Reply::ToCaller } else { Reply::ToAny };
        let (_, sent) = self.send(data.len(), layout, &mut content, reply, &deadline)?;
        sent.map(Number::for_caller).map_err(Error::never_sent)
    }

    /// The usual case of sending: the request is short, there is room, and nobody else sends. `None`: nothing
    /// was sent.
    #[inline(always)]
    fn send_at_once<R>(
        &self,
        data: &[u8],
        reply: Reply,
        then: impl FnOnce(&Arc<ClientChannel>, Number) -> R,
    ) -> Option<R> {
        if data.len() > AT_ONCE {
            return None;
        }
        self.inner.connection.try_with(|connection| {
            let Connection::InPlace(channel) = &connection.channel else { return None };
            if !connection.senders.is_free() {
                return None;
            }
            let number = channel.send_pinned(data, reply == Reply::ToCaller)?;
            Some(then(channel, number))
        })
    }

    /// As [`call`](Self::call), but `fill` writes the request, of `size` bytes, where the server will
    /// read it. Other threads cannot send while it runs, and what it sends itself fails with
    /// [`Error::ClaimOpen`].
    ///
    /// It is called again for each place that the request gets: when another thread has reconnected
    /// before it was sent, or when it is sent again.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call); [`Error::BadConfig`] for an impossible alignment.
    pub fn call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]),
        timeout: Duration,
    ) -> Result<OwnedResponse> {
        self.call_with_by(size, layout, fill, &Deadline::after(timeout))
    }

    pub(super) fn call_with_by(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]),
        deadline: &Deadline,
    ) -> Result<OwnedResponse> {
        self.call_as(size, layout, &mut Content::Fill(fill), None, deadline)
    }

    fn call_as(
        &self,
        size: usize,
        layout: RequestLayout,
        content: &mut Content<'_, impl FnMut(&mut [u8])>,
        sent: Option<(Arc<ClientChannel>, Number)>,
        deadline: &Deadline,
    ) -> Result<OwnedResponse> {
        until_started(
            &mut (sent, None),
            |(sent, tried)| {
                *tried = None;
                let (connection, sent) = match sent.take() {
                    Some((channel, number)) => {
                        let connection = self.connection()?;
                        if !connection.is_of(&channel) {
                            // Replaced since; the request was listed.
                            return end_of(&channel, number, deadline);
                        }
                        (connection, Ok(number))
                    }
                    None => {
                        let reply = Reply::ToCaller;
                        let (connection, sent) =
                            self.send(size, layout, content, reply, deadline)?;
                        (connection, sent.map_err(Error::never_sent))
                    }
                };
                let connection = tried.insert(connection);
                receive_for_call(connection, sent?, deadline)
            },
            |(_, tried)| {
                let resends = self.inner.config.resend_not_started;
                if let (true, Some(failed)) = (resends, tried) {
                    self.replace_failed(failed, deadline, &|| false)?;
                }
                Ok(resends)
            },
        )
    }

    /// Replaces a connection without being asked to: what is closed is opened again by its owner alone.
    /// It may be stopped early, with `Closed` or whatever error there was so far.
    fn replace_failed(
        &self,
        failed: &Arc<SharedConnection>,
        deadline: &Deadline,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<()> {
        let begun = self.inner.life.begin()?;
        let channel = &failed.channel;
        // What another thread has left for the next connection is of no use, and closed by nobody.
        if channel.has_ended_here() || !channel.is_sealed() {
            channel.check()?;
        }
        self.replace(failed, begun, deadline, is_stopped).map(drop)
    }

    /// As [`Self::replace_failed`].
    pub(super) fn replace_failed_in_place(
        &self,
        failed: &InPlace,
        deadline: &Deadline,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.replace_failed(&failed.connection, deadline, is_stopped)
    }

    /// As [`Self::was_replaced`].
    pub(super) fn was_replaced_in_place(&self, failed: &InPlace, deadline: &Deadline) -> bool {
        self.was_replaced(&failed.connection, deadline)
    }

    /// Sends a request, or fails to, on the connection that there is then.
    fn send(
        &self,
        size: usize,
        layout: RequestLayout,
        content: &mut Content<'_, impl FnMut(&mut [u8])>,
        reply: Reply,
        deadline: &Deadline,
    ) -> Result<(Arc<SharedConnection>, Result<Number>)> {
        self.on_current(deadline, |connection| {
            send(connection, size, layout, content, reply, deadline)
        })
    }

    /// Runs `send` on the connection of the moment; and again if it sent nothing because another thread
    /// put another connection in its place.
    fn on_current<T>(
        &self,
        deadline: &Deadline,
        mut send: impl FnMut(&Arc<SharedConnection>) -> Result<T>,
    ) -> Result<(Arc<SharedConnection>, Result<T>)> {
        loop {
            let connection = self.connection()?;
            match send(&connection) {
                Err(_) if self.was_replaced(&connection, deadline) => {}
                outcome => return Ok((connection, outcome)),
            }
        }
    }

    /// Whether another connection is there in the place of this one, waiting for a thread that is just
    /// making it.
    fn was_replaced(&self, connection: &Arc<SharedConnection>, deadline: &Deadline) -> bool {
        let channel = &connection.channel;
        if !channel.is_this_process() || channel.has_ended_here() || !channel.is_sealed() {
            return false;
        }
        let gate = &self.inner.reconnecting;
        if let Ok(ticket) = gate.enter(deadline) {
            gate.leave(ticket);
        }
        self.connection().is_ok_and(|current| !Arc::ptr_eq(&current, connection))
    }

    /// As [`Client::send_request`](super::Client::send_request).
    ///
    /// # Errors
    /// The same.
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        self.send_request_within(data, self.inner.config.send_timeout)
    }

    /// As [`send_request`](Self::send_request), but waits for room until `timeout` has passed; zero
    /// looks once.
    ///
    /// # Errors
    /// The same.
    pub fn send_request_within(&self, data: &[u8], timeout: Duration) -> Result<u64> {
        let at_once = self.send_at_once(data, Reply::ToAny, |_, number| number.for_caller());
        if let Some(number) = at_once {
            return Ok(number);
        }
        let (layout, deadline) = (RequestLayout::default(), Deadline::after(timeout));
        let mut content = Content::Copy::<fn(&mut [u8])>(data);
        let (_, sent) = self.send(data.len(), layout, &mut content, Reply::ToAny, &deadline)?;
        sent.map(Number::for_caller)
    }

    /// A buffer of `size` bytes in the ring, to be filled in place and committed, waiting for room until
    /// `timeout` has passed. While it is open, other threads that send wait for it to be committed or
    /// dropped; to the thread that opened it they fail with [`Error::ClaimOpen`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, ErrorKind, Frame, RequestLayout, Server};
    /// # let name = format!("doc-shared-acquire-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// let second = Duration::from_secs(1);
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let mut buffer = client.acquire_request_buffer(5, RequestLayout::new(), second)?;
    /// assert_eq!(client.send_request(b"bye").unwrap_err().kind(), ErrorKind::ClaimOpen);
    /// buffer.data_mut().copy_from_slice(b"hello");
    /// let sequence = buffer.commit()?;
    /// assert_eq!(client.receive_response_for(sequence, second)?.data(), b"HELLO");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::acquire_request_buffer_with`](super::Client::acquire_request_buffer_with).
    pub fn acquire_request_buffer(
        &self,
        size: usize,
        layout: RequestLayout,
        timeout: Duration,
    ) -> Result<OwnedRequestBuffer> {
        let deadline = Deadline::after(timeout);
        let (_, acquired) = self.on_current(&deadline, |connection| {
            let ticket = connection.take_turn(size, &deadline)?;
            let turn = Turn { connection: Arc::clone(connection), ticket };
            let buffer = match &connection.channel {
                Connection::InPlace(channel) => {
                    let claim = channel.claim(layout.demand(size)?, &deadline)?;
                    OwnedRequestBuffer::new(Arc::clone(channel), claim, size as u64, turn)
                }
                Connection::TwoBuffers(channel) => {
                    let filling = channel.acquire(size, &deadline, Patience::UntilDeadline)?;
                    OwnedRequestBuffer::of_two_buffers(filling, turn)
                }
            };
            connection.senders.opened();
            Ok(buffer)
        })?;
        acquired
    }

    /// As [`Client::receive_response`](super::Client::receive_response), for any thread. Never returns
    /// the response to a request that [`call`](Self::call) has sent, or that another thread waits for by
    /// its number: those go to their callers.
    ///
    /// # Errors
    /// The same.
    pub fn receive_response(&self, timeout: Duration) -> Result<OwnedResponse> {
        let (connection, deadline) = (self.connection()?, Deadline::after(timeout));
        let channel = match &connection.channel {
            Connection::InPlace(channel) => channel,
            Connection::TwoBuffers(channel) => {
                return channel.receive(None, &deadline).map(OwnedResponse::of_two_buffers);
            }
        };
        channel.check()?;
        let waited = wait(&connection, channel, &deadline, || channel.next_ready());
        let held = channel.settle_next(&deadline, waited)?;
        Ok(OwnedResponse::new(Arc::clone(channel), held))
    }

    /// As [`receive_response_for`](Self::receive_response_for), but when the timeout passes the request
    /// is not cancelled: for callers that wait in pieces, and do something else in between.
    ///
    /// # Errors
    /// The same.
    pub fn poll_response_for(&self, sequence: u64, timeout: Duration) -> Result<OwnedResponse> {
        let (connection, number) = self.find(sequence)?;
        let deadline = Deadline::after(timeout);
        let channel = match &connection.channel {
            Connection::InPlace(channel) => channel,
            Connection::TwoBuffers(channel) => {
                let received = channel.receive(Some(sequence), &deadline);
                return received.map(OwnedResponse::of_two_buffers);
            }
        };
        channel.check()?;
        if let Some(held) = channel.receive_at_once(number) {
            return Ok(OwnedResponse::new(Arc::clone(channel), held));
        }
        let was_for_anybody = channel.set_addressed(number, true);
        let held = match wait(&connection, channel, &deadline, || channel.look(number)) {
            Err(Unready::Timeout) => {
                if was_for_anybody && channel.set_addressed(number, false) {
                    // A thread that takes any response may have passed it over: one that follows, or the
                    // leader, which sleeps until the server has something for it.
                    connection.receivers.notify();
                    channel.wake_receivers();
                }
                return Err(timed_out(timeout));
            }
            waited => channel.settle(number, &deadline, waited)?,
        };
        Ok(OwnedResponse::new(Arc::clone(channel), held))
    }

    /// As [`Client::receive_response_for`](super::Client::receive_response_for).
    ///
    /// # Errors
    /// The same.
    pub fn receive_response_for(&self, sequence: u64, timeout: Duration) -> Result<OwnedResponse> {
        if !timeout.is_zero()
            && let Some(response) = self.receive_ready(Number::of_caller(sequence))
        {
            return Ok(response);
        }
        let (connection, number) = self.find(sequence)?;
        if !timeout.is_zero() {
            return receive(&connection, number, &Deadline::after(timeout));
        }
        match &connection.channel {
            Connection::InPlace(channel) => {
                channel.check()?;
                Ok(OwnedResponse::new(Arc::clone(channel), channel.poll_for(number)?))
            }
            Connection::TwoBuffers(_) => self.poll_response_for(sequence, timeout),
        }
    }

    /// The response to a request of the present connection, if it is there and good.
    #[inline(always)]
    fn receive_ready(&self, number: Number) -> Option<OwnedResponse> {
        self.inner.connection.try_with(|connection| {
            let Connection::InPlace(channel) = &connection.channel else { return None };
            let held = channel.receive_ready(number)?;
            Some(OwnedResponse::new(Arc::clone(channel), held))
        })
    }

    /// As [`Client::cancel`](super::Client::cancel).
    pub fn cancel(&self, sequence: u64) -> bool {
        let connection = self.connection();
        connection.is_ok_and(|connection| connection.channel.cancel(Number::of_caller(sequence)))
    }

    /// Attaches to the channel's present server if the previous one has ended, or if the connection has no
    /// sequence numbers left; also after [`close`](Self::close), which has cancelled what was in flight.
    /// Nothing is sent again: all that was in flight is among the lost ones, and threads that wait for a response from the previous connection get
    /// its end as their error. A connection that works is left unchanged: each thread may call this
    /// after an error, in whatever order they notice. So a server that lives but is stuck is left by
    /// [`close`](Self::close) and then this: cancelled requests keep their places in the ring until the
    /// server passes them.
    ///
    /// Sequence numbers continue, so that an old one never stands for a new request: a call that asks for the
    /// response to a request that was in flight gets [`Error::PeerDied`] or [`Error::PeerClosed`]. The
    /// server counts from 1 for each connection.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, ErrorKind, Frame, Server};
    /// # let name = format!("doc-shared-reconnect-{}", std::process::id());
    /// # let sizes = || BufferConfig::new(0, 1 << 16);
    /// # let second = Duration::from_secs(1);
    /// let server = Server::create(&name, sizes())?;
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let old = client.send_request(b"old")?;
    /// drop(server);
    ///
    /// let mut server = Server::create(&name, sizes())?;
    /// server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// assert_eq!(client.reconnect(second)?.lost[0].sequence, old);
    /// let new = client.send_request(b"new")?;
    /// assert_eq!((old, new), (1, 2));
    /// let error = client.receive_response_for(old, second).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::PeerClosed);
    /// assert_eq!(client.receive_response_for(new, second)?.data(), b"NEW");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect), and the client is as before; [`Error::Timeout`] if
    /// another thread was reconnecting until `timeout` had passed; [`Error::Closed`] if the client was
    /// closed meanwhile, or for good.
    pub fn reconnect(&self, timeout: Duration) -> Result<Reconnected> {
        self.reconnect_while(timeout, &|| true)
    }

    /// As [`reconnect`](Self::reconnect), for as long as `is_wanted` says true: see
    /// [`Client::connect_while`](super::Client::connect_while).
    ///
    /// # Errors
    /// As [`reconnect`](Self::reconnect); [`Error::Closed`] once it says false, and the client is as before.
    pub fn reconnect_while(
        &self,
        timeout: Duration,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Reconnected> {
        let connection = self.connection()?;
        let begun = self.inner.life.begin()?;
        self.replace(&connection, begun, &Deadline::after(timeout), &|| !is_wanted())
    }

    /// Replaces the connection that failed, unless another thread has done so already.
    fn replace(
        &self,
        failed: &Arc<SharedConnection>,
        begun: Begun,
        deadline: &Deadline,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Reconnected> {
        let gate = &self.inner.reconnecting;
        let ticket = loop {
            match gate.enter(&Deadline::after(NOTICE.min(deadline.left()))) {
                Ok(ticket) => break ticket,
                Err(_) if is_stopped() => return Err(Error::Closed),
                Err(_) if deadline.left().is_zero() => {
                    return Err(Error::Timeout {
                        waited: deadline.timeout(),
                        what: "waiting for another thread that reconnects",
                    });
                }
                Err(_) => {}
            }
        };
        let _turn = Leave { gate, ticket };
        if !Arc::ptr_eq(failed, &self.connection()?) {
            return Ok(Reconnected::default());
        }
        let previous = &failed.channel;
        if !previous.is_closed() {
            let has_server = previous.has_server();
            if has_server && previous.works() {
                // Others have requests in flight there.
                return Ok(Reconnected::default());
            }
            if has_server || !previous.is_in_place() {
                let pinned = self.inner.pin.hold();
                let left = previous.leave();
                drop(pinned);
                self.unreported().extend(left);
            }
        }
        let is_closed = || self.inner.life.closed_since(begun) || is_stopped();
        let config = &self.inner.config;
        let channel = previous.connect_again(config, deadline, &is_closed)?;
        let connection =
            SharedConnection::new(channel, config, &self.inner.completions, &self.inner.pin);
        self.inner.life.renew(begun, &connection)?;
        // A thread that finds the previous one sealed finds the new one as soon as it can read it.
        let mut lost = Vec::new();
        self.inner.connection.replace(|| {
            let left = previous.seal_for(&connection.channel);
            lost = match previous.is_closed() {
                true => std::mem::take(&mut *self.unreported()),
                false => left,
            };
            // Before the new connection is found, where the numbers are no more.
            self.remember(previous.peer(), &lost);
            connection
        });
        // Who waits for a turn to send there goes on here.
        failed.senders.close();
        Ok(Reconnected { resent: Vec::new(), lost })
    }

    fn unreported(&self) -> MutexGuard<'_, Vec<LostRequest>> {
        self.inner.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, VecDeque<(Peer, LostRequest)>> {
        self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is to be said of requests whose connection is replaced: of as many as can be in
    /// flight at a time.
    fn remember(&self, end: Peer, left: &[LostRequest]) {
        // Of a server that lives, the connection was closed here.
        let end = if end == Peer::Alive { Peer::Closed } else { end };
        let mut lost = self.lost();
        lost.extend(left.iter().map(|request| (end, *request)));
        // As many as the table of one connection holds.
        let most = self.inner.config.max_in_flight.next_power_of_two();
        let surplus = lost.len().saturating_sub(most);
        lost.drain(..surplus);
    }

    /// The connection on which the request was sent that its caller knows as `sequence`.
    ///
    /// # Errors
    /// If that connection was replaced: its end, once for each request that it left.
    fn find(&self, sequence: u64) -> Result<(Arc<SharedConnection>, Number)> {
        let (connection, number) = (self.connection()?, Number::of_caller(sequence));
        if connection.channel.has_counted(number) {
            return Ok((connection, number));
        }
        let mut lost = self.lost();
        let index = lost.iter().position(|(_, request)| request.sequence == sequence);
        Err(match index.and_then(|index| lost.remove(index)) {
            Some((end, request)) => end_error(end, Some(request)),
            None => Error::UnknownSequence { sequence },
        })
    }

    /// Closes the channel cleanly, as dropping the last clone does; a server then serves the next
    /// client. From then on every call fails with [`Error::Closed`], calls under way on other threads
    /// and a reconnection under way included, until the next [`reconnect`](Self::reconnect). What is in
    /// flight is cancelled. Responses that are held stay readable.
    pub fn close(&self) {
        if self.connection().is_ok() {
            self.inner.life.close_once();
        }
    }
}

/// Which thread the response to a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// The one that asks for it by its number.
    ToCaller,
    /// Also one that asks for any.
    ToAny,
}

/// What a request is to hold.
enum Content<'d, F> {
    Copy(&'d [u8]),
    /// Whatever a caller's code writes.
    Fill(F),
}

impl<F: FnMut(&mut [u8])> Content<'_, F> {
    fn write(&mut self, connection: &SharedConnection, to: &mut [u8]) {
        match self {
            Self::Copy(data) => to.copy_from_slice(data),
            Self::Fill(fill) => {
                // A request that the connection sends itself must not wait for itself.
                connection.senders.opened();
                fill(to);
            }
        }
    }
}

fn send(
    connection: &SharedConnection,
    size: usize,
    layout: RequestLayout,
    content: &mut Content<'_, impl FnMut(&mut [u8])>,
    reply: Reply,
    deadline: &Deadline,
) -> Result<Number> {
    let _turn = Leave { gate: &connection.senders, ticket: connection.take_turn(size, deadline)? };
    let channel = match &connection.channel {
        Connection::InPlace(channel) => channel,
        Connection::TwoBuffers(channel) => {
            let mut filling = channel.acquire(size, deadline, Patience::UntilDeadline)?;
            content.write(connection, filling.data_mut());
            return filling.commit(reply == Reply::ToCaller).map(Number::of_caller);
        }
    };
    let mut claim = channel.claim(layout.demand(size)?, deadline)?;
    if reply == Reply::ToCaller {
        claim = claim.addressed();
    }
    let mut open = OpenClaim { channel, claim: Some(claim) };
    if let Some(claim) = &mut open.claim {
        content.write(connection, claim.data_mut(&channel.segment.payload, size as u64));
    }
    channel.commit_unless_sealed(open.claim.take().expect("set above"), size as u64)
}

/// Gives an open claim up if the user's code panics.
struct OpenClaim<'c> {
    channel: &'c ClientChannel,
    claim: Option<crate::v2::ring::Claim>,
}

impl Drop for OpenClaim<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.channel.ring().abandon(claim);
        }
    }
}

/// What came of a request whose connection was replaced.
fn end_of(
    channel: &Arc<ClientChannel>,
    number: Number,
    deadline: &Deadline,
) -> Result<OwnedResponse> {
    let end = channel.end().unwrap_or(Unready::Gone(Peer::Closed));
    let held = channel.settle(number, deadline, channel.look(number).ok_or(end))?;
    Ok(OwnedResponse::new(Arc::clone(channel), held))
}

/// Waits for the response to the request of a call.
fn receive_for_call(
    connection: &SharedConnection,
    number: Number,
    deadline: &Deadline,
) -> Result<OwnedResponse> {
    match &connection.channel {
        Connection::InPlace(_) => receive(connection, number, deadline),
        Connection::TwoBuffers(channel) => {
            let received = channel.receive_for_call(number.for_caller(), deadline);
            received.map(OwnedResponse::of_two_buffers)
        }
    }
}

/// Waits for the response to one request.
fn receive(
    connection: &SharedConnection,
    number: Number,
    deadline: &Deadline,
) -> Result<OwnedResponse> {
    let channel = match &connection.channel {
        Connection::InPlace(channel) => channel,
        Connection::TwoBuffers(channel) => {
            let received = channel.receive_or_cancel(number.for_caller(), deadline);
            return received.map(OwnedResponse::of_two_buffers);
        }
    };
    channel.check()?;
    let held = match channel.receive_at_once(number) {
        Some(held) => held,
        None => {
            channel.set_addressed(number, true);
            let waited = wait(connection, channel, deadline, || channel.look(number));
            channel.settle(number, deadline, waited)?
        }
    };
    Ok(OwnedResponse::new(Arc::clone(channel), held))
}

/// Waits among threads that all wait for responses, until `look` finds this one's. One of them, the
/// leader, waits on the semaphore (one thread per process may); whenever it is woken, all look.
fn wait<T>(
    connection: &SharedConnection,
    channel: &ClientChannel,
    deadline: &Deadline,
    look: impl FnMut() -> Option<T>,
) -> std::result::Result<T, Unready> {
    wait_by(connection, channel, channel.waiter(), deadline, look)
}

fn wait_by<T>(
    connection: &SharedConnection,
    channel: &ClientChannel,
    waiter: &Waiter,
    deadline: &Deadline,
    mut look: impl FnMut() -> Option<T>,
) -> std::result::Result<T, Unready> {
    let crowd = &connection.receivers;
    if connection.spins {
        // Nobody waits on the semaphore.
        return channel.await_response(deadline, channel, look);
    }
    loop {
        let turn = crowd.turn();
        if let Some(found) = look() {
            return Ok(found);
        }
        if crowd.try_lead() {
            let leader = Leader { channel, crowd };
            return channel.await_response_by(waiter, deadline, &leader, look);
        }
        if channel.is_stopped() {
            return Err(Unready::Stopped);
        }
        if deadline.left().is_zero() {
            return Err(Unready::Timeout);
        }
        crowd.follow(turn, deadline.left().min(SLICE));
    }
}

/// The leader's view of the channel: it passes every wake-up on. It leads until this is dropped.
struct Leader<'c> {
    channel: &'c ClientChannel,
    crowd: &'c LeaderFollowers,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.crowd.step_down();
    }
}

impl WaitContext for Leader<'_> {
    fn peer(&self) -> Peer {
        self.channel.peer()
    }

    fn probe(&self) -> Peer {
        self.channel.probe()
    }

    fn slice(&self) -> Duration {
        self.channel.slice()
    }

    fn stopped(&self) -> bool {
        self.channel.is_stopped()
    }

    fn woken(&self) {
        self.crowd.notify();
    }
}

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests;
