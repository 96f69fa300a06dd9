//! The client: writes requests, and reads responses in the same order.

use super::config::DuplexClientConfig;
use super::of_channel;
use crate::closer::{Close, Closer};
use crate::debug::debug_line;
use crate::error::{Error, LostRequest, Medium, RequestState, Result};
use crate::memory::SharedMemoryView;
use crate::name::BufferName;
use crate::v1::reader::{Frame, OwnedFrame, Reader};
use crate::v1::ring::Claim;
use crate::v1::writer::Writer;
use crate::wait::Deadline;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(1);
/// Long enough for a server to notice that there is no client.
const METADATA_PAUSE: Duration = Duration::from_millis(40);
/// How long a client without metadata waits for that of a former one to be forgotten. Deployed servers
/// never forget it.
const FORGETTING: Duration = Duration::from_millis(500);

/// A client of a two-buffer channel, of our server or a deployed one.
///
/// Responses come in the order of the requests; this is all that ties them together. A request that was
/// given up (its `call` timed out) still has a response coming: it is swallowed, and meanwhile
/// [`is_desynchronised`](Self::is_desynchronised) says so. Our server always sends it. A deployed one
/// does not if its handler failed; then every later response is taken for the one before, nothing wrong
/// is delivered, calls time out, and only a new connection helps.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, v1};
///
/// let name = format!("doc-v1-duplex-{}", std::process::id());
/// let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start_mutable(|draft: &mut v1::Draft| draft.data_mut().reverse())?;
///
/// let client = v1::DuplexClient::connect(&name, Duration::from_secs(5))?;
/// let response = client.call(b"stressed", Duration::from_secs(5))?;
/// assert_eq!(response.data(), b"desserts");
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct DuplexClient {
    channel: String,
    requests: RefCell<Writer>,
    responses: Reader,
    pending: RefCell<VecDeque<Pending>>,
    /// Responses that came while another one was asked for.
    ready: RefCell<VecDeque<(u64, OwnedFrame)>>,
    /// A response came that no request had asked for.
    surplus: Cell<bool>,
    config: DuplexClientConfig,
    end: Arc<End>,
}

debug_line!(DuplexClient, "DuplexClient", |client|
    name: client.name(),
    in_flight: client.pending.try_borrow().map_or(0, |all| all.len())
);

/// A client is closed by closing both of its buffers.
#[derive(Debug)]
struct End {
    requests: Closer,
    responses: Closer,
}

impl Close for End {
    fn close(&self) {
        self.requests.close();
        self.responses.close();
    }

    fn is_closed(&self) -> bool {
        self.responses.is_closed()
    }
}

/// A request whose response has not come.
#[derive(Debug)]
struct Pending {
    sequence: u64,
    len: u64,
    given_up: bool,
}

impl DuplexClient {
    /// Connects to the server of `channel`, waiting for it until `timeout` has passed. A server needs
    /// up to 100 ms to answer, so a shorter timeout may not do.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is no server, or none that answers; [`Error::Busy`] if it has
    /// another client; [`Error::BadName`], [`Error::PermissionDenied`], [`Error::ForeignObject`],
    /// [`Error::Incompatible`], [`Error::NoSpace`]. Nothing is left behind.
    pub fn connect(channel: &str, timeout: Duration) -> Result<Self> {
        Self::connect_with(channel, timeout, DuplexClientConfig::default())
    }

    /// As [`connect`](Self::connect), with a configuration of its own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::TooLarge`] or [`Error::MetadataAlreadyWritten`] if the
    /// metadata cannot be set; [`Error::BadConfig`].
    pub fn connect_with(
        channel: &str,
        timeout: Duration,
        config: DuplexClientConfig,
    ) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let response_name = BufferName::response(channel)?;
        let told = |error| match of_channel(error, channel) {
            // The reader of the response buffer is another client.
            Error::AlreadyRunning { medium, name } => Error::Busy { medium, name },
            error => error,
        };
        let (requests, responses) = loop {
            // First the requests, then the responses (rule X2): a deployed server looks for the response
            // buffer every 100 ms, and ours as soon as it sees a client.
            let requests = connect_requests(channel, &config, &deadline).map_err(told)?;
            let responses =
                Reader::create(response_name.as_str(), config.responses.clone()).map_err(told)?;
            // Only a server that has attached will answer (rule X3). One that was stopping when the
            // requests were found never does, but another one may take its place.
            if serves(channel, &requests, &deadline, || responses.is_writer_connected())? {
                break (requests, responses);
            }
        };
        let end = End { requests: requests.closer(), responses: responses.closer() };
        Ok(Self {
            end: Arc::new(end),
            channel: channel.to_owned(),
            requests: RefCell::new(requests),
            responses,
            pending: RefCell::default(),
            ready: RefCell::default(),
            surplus: Cell::new(false),
            config,
        })
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        &self.channel
    }

    /// What closes this client from another thread: who waits in it for room or for a response comes
    /// back with [`Error::Closed`]. The channel is let go of when the client is dropped.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.end)
    }

    /// Whether the server reads requests and is attached to the responses at this moment.
    pub fn is_server_connected(&self) -> bool {
        let reads = self.requests.try_borrow().is_ok_and(|writer| writer.is_reader_connected());
        reads && self.responses.is_writer_connected()
    }

    /// Whether responses may not match: a given-up request's response has not come yet, or one came
    /// that nobody had asked for.
    pub fn is_desynchronised(&self) -> bool {
        self.surplus.get() || self.pending.borrow().iter().any(|pending| pending.given_up)
    }

    /// Requests whose response has not come.
    pub fn in_flight(&self) -> usize {
        self.pending.borrow().len()
    }

    /// The most bytes that a request can have on this channel.
    pub fn max_request_size(&self) -> usize {
        self.requests.try_borrow().map_or(0, |writer| writer.max_frame_size())
    }

    // ---- sending ----

    /// Copies `data` into the ring and sends it. Returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room within the send timeout, or at once if too much is in flight
    /// (receive first); [`Error::EmptyFrame`], [`Error::TooLarge`] and [`Error::WouldNeverFit`];
    /// [`Error::ClaimOpen`] while a request buffer is open; [`Error::Desynchronised`];
    /// [`Error::PeerClosed`] and [`Error::PeerDied`]; [`Error::Closed`], [`Error::WrongProcess`].
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        self.send(data, self.config.requests.write_timeout)
    }

    fn send(&self, data: &[u8], timeout: Duration) -> Result<u64> {
        let mut buffer = self.acquire(data.len(), timeout)?;
        buffer.data_mut().copy_from_slice(data);
        buffer.commit()
    }

    /// A buffer of `size` bytes in the ring, to be filled in place and committed. No response can be
    /// given up meanwhile, and nothing else be sent.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, v1};
    /// # let name = format!("doc-v1-acquire-{}", std::process::id());
    /// # let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start_mutable(|draft: &mut v1::Draft| draft.data_mut().make_ascii_uppercase())?;
    /// # let client = v1::DuplexClient::connect(&name, Duration::from_secs(5))?;
    /// let mut buffer = client.acquire_request_buffer(5)?;
    /// buffer.data_mut().copy_from_slice(b"hello");
    /// let sequence = buffer.commit()?;
    ///
    /// let response = client.receive_response(Duration::from_secs(5))?;
    /// assert_eq!((response.sequence(), response.data()), (sequence, &b"HELLO"[..]));
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request).
    pub fn acquire_request_buffer(&self, size: usize) -> Result<RequestBuffer<'_>> {
        self.acquire(size, self.config.requests.write_timeout)
    }

    fn acquire(&self, size: usize, timeout: Duration) -> Result<RequestBuffer<'_>> {
        self.check_order()?;
        self.check_in_flight(size as u64)?;
        let mut writer = self.requests.try_borrow_mut().map_err(|_| Error::ClaimOpen)?;
        let claim = writer.claim(size, timeout)?;
        Ok(RequestBuffer { client: self, writer, claim })
    }

    /// A response that is there before its request shows that the server sends more than it should.
    fn check_order(&self) -> Result<()> {
        if self.pending.borrow().is_empty() && self.responses.has_token() {
            self.surplus.set(self.responses.read_frame(Duration::ZERO).is_ok());
        }
        match self.surplus.get() {
            true => Err(desynchronised()),
            false => Ok(()),
        }
    }

    /// Bounds what is in flight by the response buffer (rule X5).
    fn check_in_flight(&self, size: u64) -> Result<()> {
        let pending = self.pending.borrow();
        let cost = |len: u64| len + 16;
        let in_flight: u64 = pending.iter().map(|pending| cost(pending.len)).sum();
        let budget = self.config.responses.buffer.payload_size as u64 / 2;
        let fits = in_flight + cost(size) <= budget && pending.len() < self.config.max_in_flight;
        if pending.is_empty() || fits {
            return Ok(());
        }
        Err(Error::Full {
            needed: cost(size),
            free: budget.saturating_sub(in_flight),
            in_flight: pending.len() as u64,
        })
    }

    // ---- receiving ----

    /// The next response, waiting for it until `timeout` has passed; zero looks once. It answers the
    /// oldest request that was not given up.
    ///
    /// Once the server is gone, what it had sent is delivered first; then each request that is left is
    /// reported once, oldest first; then every call fails without a request.
    ///
    /// # Errors
    /// [`Error::Timeout`], which changes nothing; [`Error::PeerClosed`] and [`Error::PeerDied`];
    /// [`Error::Desynchronised`] if a response came that no request had asked for;
    /// [`Error::ProtocolViolation`], [`Error::SequenceGap`], [`Error::Closed`],
    /// [`Error::WrongProcess`].
    pub fn receive_response(&self, timeout: Duration) -> Result<DuplexResponse<'_>> {
        self.responses.check_usable()?;
        if let Some((sequence, frame)) = self.ready.borrow_mut().pop_front() {
            return Ok(DuplexResponse { sequence, frame: Held::Owned(frame) });
        }
        self.next_response(&Deadline::after(timeout))
    }

    /// The response to request `sequence`, waiting for it until `timeout` has passed. Then the request
    /// is given up, as by [`cancel`](Self::cancel); a zero timeout only looks.
    ///
    /// # Errors
    /// As [`receive_response`](Self::receive_response); [`Error::UnknownSequence`] if no such request
    /// is waiting for a response.
    pub fn receive_response_for(
        &self,
        sequence: u64,
        timeout: Duration,
    ) -> Result<DuplexResponse<'_>> {
        let received = self.poll_response_for(sequence, timeout);
        if matches!(received, Err(Error::Timeout { .. })) && !timeout.is_zero() {
            self.cancel(sequence);
        }
        received
    }

    /// As [`receive_response_for`](Self::receive_response_for), but when the timeout passes the request
    /// is not given up: for who waits bit by bit, and looks after something else in between.
    ///
    /// # Errors
    /// The same.
    pub fn poll_response_for(
        &self,
        sequence: u64,
        timeout: Duration,
    ) -> Result<DuplexResponse<'_>> {
        self.responses.check_usable()?;
        if let Some(frame) = self.take_ready(sequence) {
            return Ok(DuplexResponse { sequence, frame: Held::Owned(frame) });
        }
        let deadline = Deadline::after(timeout);
        loop {
            if !self.is_waiting_for(sequence) {
                return Err(Error::UnknownSequence { sequence });
            }
            match self.next_response(&deadline) {
                Ok(response) if response.sequence == sequence => return Ok(response),
                Ok(earlier) => self.ready.borrow_mut().push_back(earlier.into_parts()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends `data` and waits for the response, both within `timeout`. A request that has no response
    /// by then is given up.
    ///
    /// # Errors
    /// As [`send_request`](Self::send_request) and [`receive_response`](Self::receive_response).
    pub fn call(&self, data: &[u8], timeout: Duration) -> Result<DuplexResponse<'_>> {
        let deadline = Deadline::after(timeout);
        let sequence = self.send(data, timeout)?;
        self.receive_response_for(sequence, deadline.left().max(Duration::from_nanos(1)))
    }

    /// Gives up a request: its response, when it comes, is swallowed. True if it was waiting.
    pub fn cancel(&self, sequence: u64) -> bool {
        let mut pending = self.pending.borrow_mut();
        let found = pending.iter_mut().find(|entry| entry.sequence == sequence && !entry.given_up);
        found.map(|entry| entry.given_up = true).is_some()
    }

    fn is_waiting_for(&self, sequence: u64) -> bool {
        let pending = self.pending.borrow();
        pending.iter().any(|entry| entry.sequence == sequence && !entry.given_up)
    }

    fn take_ready(&self, sequence: u64) -> Option<OwnedFrame> {
        let mut ready = self.ready.borrow_mut();
        let index = ready.iter().position(|(found, _)| *found == sequence)?;
        ready.remove(index).map(|(_, frame)| frame)
    }

    /// The next response that somebody waits for.
    fn next_response(&self, deadline: &Deadline) -> Result<DuplexResponse<'_>> {
        loop {
            let frame = self
                .responses
                .read_frame(deadline.left())
                .map_err(|error| self.explain(error, deadline))?;
            let Some(request) = self.pending.borrow_mut().pop_front() else {
                self.surplus.set(true);
                return Err(desynchronised());
            };
            if !request.given_up {
                return Ok(DuplexResponse {
                    sequence: request.sequence,
                    frame: Held::Borrowed(frame),
                });
            }
        }
    }

    /// Says which request a server's end has left without a response, and if the response may have been
    /// too long: a server whose response does not fit drops it (rule X5), or closes the channel.
    fn explain(&self, error: Error, deadline: &Deadline) -> Error {
        match error {
            Error::PeerClosed { .. } => self.lose(|request| Error::PeerClosed { request }),
            Error::PeerDied { .. } => self.lose(|request| Error::PeerDied { request }),
            Error::Timeout { .. } | Error::NotConnectedYet { .. } => {
                let may_be_long = |pending: &Pending| pending.len > self.responses.sure_frame();
                let what = match self.pending.borrow().iter().any(may_be_long) {
                    false => "waiting for the response",
                    true => {
                        "waiting for the response; one as long as its request may not fit the response \
                         buffer, then it never comes: make that buffer larger"
                    }
                };
                Error::Timeout { waited: deadline.timeout(), what }
            }
            error => error,
        }
    }

    /// The end of the server, and the oldest request that it leaves.
    fn lose(&self, end: impl FnOnce(Option<LostRequest>) -> Error) -> Error {
        let mut pending = self.pending.borrow_mut();
        pending.retain(|pending| !pending.given_up);
        let Some(Pending { sequence, len, .. }) = pending.pop_front() else { return end(None) };
        // Nothing tells whether the handler ran on it.
        let error = end(Some(LostRequest { sequence, state: RequestState::InDoubt }));
        let sure = self.responses.sure_frame();
        if len <= sure {
            return error;
        }
        let message = format!(
            "{error}; its response may have been too long: the request has {len} bytes, and responses of at \
             most {sure} are sure to fit the response buffer, so make that larger"
        );
        error.explained(message)
    }
}

/// Attaches to the request buffer, as its only user.
fn connect_requests(
    channel: &str,
    config: &DuplexClientConfig,
    deadline: &Deadline,
) -> Result<Writer> {
    let name = BufferName::request(channel)?;
    let forgetting = Deadline::after(FORGETTING.min(deadline.left()));
    loop {
        let mut requests =
            Writer::connect_with(name.as_str(), deadline.left(), config.requests.clone())?;
        // What a former client left must not be answered to us.
        if !serves(channel, &requests, deadline, || requests.is_drained())? {
            continue;
        }
        if config.metadata.is_empty() {
            // A former client's would be taken for ours.
            if !requests.has_metadata() || forgetting.left().is_zero() {
                return Ok(requests);
            }
            drop(requests);
            crate::sys::sleep(METADATA_PAUSE.min(forgetting.left()));
            continue;
        }
        match requests.set_metadata(&config.metadata) {
            Ok(()) => return Ok(requests),
            // Our server forgets a former client's metadata once it sees that there is no client; a
            // deployed one never does.
            Err(Error::MetadataAlreadyWritten) if !deadline.left().is_zero() => {
                drop(requests);
                crate::sys::sleep(METADATA_PAUSE.min(deadline.left()));
            }
            Err(error) => return Err(error),
        }
    }
}

fn desynchronised() -> Error {
    Error::Desynchronised { reason: "a response came that no request had asked for" }
}

/// Waits for what a server does. False if this one went away before it did.
///
/// # Errors
/// `NotRunning` when the deadline has passed.
fn serves(
    channel: &str,
    requests: &Writer,
    deadline: &Deadline,
    condition: impl Fn() -> bool,
) -> Result<bool> {
    while !condition() {
        if deadline.left().is_zero() {
            return Err(Error::NotRunning {
                medium: Medium::Channel,
                name: channel.to_owned(),
                found: "its server is there but does not answer",
            });
        }
        crate::sys::sleep(PAUSE.min(deadline.left()));
        if !requests.is_reader_connected() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A request that is being written in place. [`commit`](Self::commit) sends it; dropping it sends
/// nothing.
pub struct RequestBuffer<'c> {
    client: &'c DuplexClient,
    writer: RefMut<'c, Writer>,
    claim: Claim,
}

debug_line!(RequestBuffer<'_>, "RequestBuffer", |buffer|
    sequence: buffer.sequence(),
    len: buffer.len()
);

impl RequestBuffer<'_> {
    /// The request's bytes, in shared memory; empty in a forked child.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.writer.data_mut(&mut self.claim)
    }

    /// The bytes as memory that stays mapped for as long as the view lives, see
    /// [`FrameBuffer::memory`](crate::v1::FrameBuffer::memory).
    pub fn memory(&self) -> SharedMemoryView {
        self.writer.memory(&self.claim)
    }

    /// The sequence number that the request gets when it is committed.
    pub fn sequence(&self) -> u64 {
        self.writer.next_sequence()
    }

    /// The request's length in bytes.
    pub fn len(&self) -> usize {
        self.claim.len() as usize
    }

    /// Never: a request has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// [`Error::PeerClosed`] if the server has closed meanwhile; [`Error::WrongProcess`].
    pub fn commit(self) -> Result<u64> {
        let Self { client, mut writer, claim } = self;
        let len = claim.len();
        let sequence = writer.commit(claim)?;
        client.pending.borrow_mut().push_back(Pending { sequence, len, given_up: false });
        Ok(sequence)
    }
}

/// A response, read where the server put it. Its space goes back when it is dropped.
pub struct DuplexResponse<'c> {
    sequence: u64,
    frame: Held<'c>,
}

debug_line!(DuplexResponse<'_>, "DuplexResponse", |response|
    sequence: response.sequence(),
    len: response.len()
);

#[derive(Debug)]
enum Held<'c> {
    Borrowed(Frame<'c>),
    Owned(OwnedFrame),
}

impl DuplexResponse<'_> {
    /// The same response, free of the client's borrow. Nothing is copied.
    pub fn into_owned(self) -> OwnedDuplexResponse {
        let (sequence, frame) = self.into_parts();
        OwnedDuplexResponse { sequence, frame }
    }

    fn into_parts(self) -> (u64, OwnedFrame) {
        let frame = match self.frame {
            Held::Borrowed(frame) => frame.into_owned(),
            Held::Owned(frame) => frame,
        };
        (self.sequence, frame)
    }

    /// The response's bytes, in shared memory; empty in a forked child.
    pub fn data(&self) -> &[u8] {
        match &self.frame {
            Held::Borrowed(frame) => frame.data(),
            Held::Owned(frame) => frame.data(),
        }
    }

    /// The sequence number of the request that this answers.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// As [`DuplexResponse`], but it may outlive the client that received it.
pub struct OwnedDuplexResponse {
    sequence: u64,
    frame: OwnedFrame,
}

debug_line!(OwnedDuplexResponse, "OwnedDuplexResponse", |response|
    sequence: response.sequence(),
    len: response.len()
);

impl OwnedDuplexResponse {
    /// The response's bytes, in shared memory; empty in a forked child.
    pub fn data(&self) -> &[u8] {
        self.frame.data()
    }

    /// The bytes as memory that stays mapped for as long as the view lives, see
    /// [`OwnedFrame::memory`](crate::v1::OwnedFrame::memory).
    pub fn memory(&self) -> SharedMemoryView {
        self.frame.memory()
    }

    /// The sequence number of the request that this answers.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

macro_rules! response_methods {
    ($type:ty) => {
        impl $type {
            /// The response's length in bytes.
            pub fn len(&self) -> usize {
                self.data().len()
            }

            /// Whether the response has no bytes; only C# servers can send such.
            pub fn is_empty(&self) -> bool {
                self.data().is_empty()
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                self.data()
            }
        }
    };
}

response_methods!(DuplexResponse<'_>);
response_methods!(OwnedDuplexResponse);
