//! The server: reads requests, and writes exactly one response to each, in order.

use super::of_channel;
use super::worker::{Shared, Worker};
use crate::closer::Closer;
use crate::config::ServerConfig;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::handler::HandlerOutcome;
use crate::name::BufferName;
use crate::ready_threads::Background;
use crate::tenure::Away;
use crate::v1::reader::{FrameView, Reader};
use crate::v1::ring::Claim;
use crate::v1::segment::Segment;
use crate::v1::writer::Writer;
use crate::wait::Deadline;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at the request buffer while a response waits for room.
const LOOK_AT_REQUESTS: Duration = Duration::from_millis(100);

/// What a server has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DuplexServerStatistics {
    /// Clients whose response buffer was attached to.
    pub clients: u64,
    /// Requests that the handler ran on.
    pub requests: u64,
    /// Responses sent.
    pub responses: u64,
    /// Requests on which the handler failed.
    pub failures: u64,
    /// Requests of clients that had disconnected before their turn.
    pub dropped: u64,
}

/// A server of a two-buffer channel, for clients of this library and of existing v1 programs, one after the
/// other.
///
/// | handler | use |
/// |---|---|
/// | [`start_immutable`](Self::start_immutable) | the response is new data |
/// | [`start_mutable`](Self::start_mutable) | the response is the request, edited |
///
/// Both copy: the response lies in another buffer than the request. The in-place
/// [`Server`](crate::Server) does not.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, v1};
///
/// let name = format!("doc-v1-server-{}", std::process::id());
/// let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start_immutable(|request: &v1::RequestView, reply: &mut v1::Reply| {
///     reply.write(&request.len().to_le_bytes())
/// })?;
///
/// let mut client = Client::connect(&name, Duration::from_secs(5))?;
/// let response = client.call(b"four", Duration::from_secs(5))?;
/// assert_eq!(response.data(), 4_usize.to_le_bytes());
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct DuplexServer {
    background: Background<Worker>,
    shared: Arc<Shared>,
}

debug_line!(DuplexServer, "DuplexServer", |server|
    name: server.name(),
    running: server.is_running()
);

impl DuplexServer {
    /// Creates the request buffer of `channel`; clients find it as soon as this returns.
    ///
    /// Takes a [`BufferConfig`](crate::BufferConfig), or a [`ServerConfig`] for more than sizes. The client
    /// makes the response buffer.
    ///
    /// # Errors
    /// As [`Reader::create`](crate::v1::Reader::create).
    pub fn create(channel: &str, config: impl Into<ServerConfig>) -> Result<Self> {
        let config = config.into();
        check(&config)?;
        let stop_timeout = config.stop_timeout;
        let names = (BufferName::request(channel)?, BufferName::response(channel)?);
        let worker = Worker::create(names, config).map_err(|error| of_channel(error, channel))?;
        Ok(Self {
            shared: Arc::clone(worker.shared()),
            background: Background::new(channel, worker, stop_timeout),
        })
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        self.background.name()
    }

    /// Runs `handler` on every request, in the background, until [`stop`](Self::stop). It writes the
    /// response by [`Reply::write`] or [`Reply::acquire`], exactly once.
    ///
    /// It runs on one thread, and may have state that it changes:
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, v1};
    ///
    /// let name = format!("doc-v1-state-{}", std::process::id());
    /// let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let mut total = 0;
    /// server.start_immutable(move |request: &v1::RequestView, reply: &mut v1::Reply| {
    ///     total += request.data()[0];
    ///     reply.write(&[total])
    /// })?;
    ///
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// for (number, sum) in [(1, 1), (2, 3), (4, 7)] {
    ///     assert_eq!(client.call(&[number], Duration::from_secs(5))?.data(), [sum]);
    /// }
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// If it fails, panics, or writes nothing, what
    /// [`failure_response`](ServerConfig::failure_response) makes is sent instead; without that
    /// the client's channel is closed, because a response that is left out would shift all later ones.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it was started or stopped before; [`Error::System`] if a thread
    /// cannot be made.
    pub fn start_immutable<H, O>(&mut self, mut handler: H) -> Result<()>
    where
        H: FnMut(&RequestView<'_>, &mut Reply<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.start(move |request, reply| handler(request, reply).into_result())
    }

    /// As [`start_immutable`](Self::start_immutable), but the handler edits a copy of the request, which
    /// lies in the response buffer already, and has the request's length.
    ///
    /// # Errors
    /// As [`start_immutable`](Self::start_immutable).
    pub fn start_mutable<H, O>(&mut self, mut handler: H) -> Result<()>
    where
        H: FnMut(&mut Draft<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.start(move |request, reply| {
            let data = reply.acquire(request.len()).map_err(|error| error.to_string())?;
            data.copy_from_slice(request.data());
            handler(&mut Draft { request, data }).into_result()
        })
    }

    fn start<H>(&mut self, handler: H) -> Result<()>
    where
        H: FnMut(&RequestView<'_>, &mut Reply<'_>) -> std::result::Result<(), String>
            + Send
            + 'static,
    {
        self.background.start(1, |ready_threads, worker| {
            ready_threads.start([move |away: &Away| {
                // No client is told that a request was not started: past the end there is nothing to wait for.
                away.go();
                worker.serve(handler);
            }])
        })
    }

    /// What ends this server from another thread: nothing more is taken, and a handler that waits for
    /// room for its response comes back. [`stop`](Self::stop) does the rest.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.shared)
    }

    /// Whether the background thread is serving. False before it is started, after
    /// [`stop`](Self::stop), and if the server had to stop for a reason of its own (`stop` then says which).
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping() && self.background.is_running()
    }

    /// Whether a client's response buffer is attached to at this moment.
    pub fn is_client_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// What tells any other thread whether a client's response buffer is attached to. False once the
    /// server has ended.
    ///
    /// ```
    /// use zerobuffer::BufferConfig;
    /// use zerobuffer::v1::DuplexServer;
    ///
    /// let name = format!("doc-v1-probe-{}", std::process::id());
    /// let server = DuplexServer::create(&name, BufferConfig::new(64, 4096))?;
    /// let is_client_connected = server.client_probe();
    /// std::thread::spawn(move || assert!(!is_client_connected())).join().expect("there is none");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn client_probe(&self) -> impl Fn() -> bool + Send + Sync + 'static + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().is_some_and(|shared| shared.is_connected())
    }

    /// What was done so far.
    pub fn statistics(&self) -> DuplexServerStatistics {
        self.shared.statistics()
    }

    /// Stops: takes no more requests, lets a running handler finish within
    /// [`stop_timeout`](ServerConfig::stop_timeout), and removes the request buffer. Called again
    /// it does nothing.
    ///
    /// # Errors
    /// What made the background thread stop before, if anything did; [`Error::WrongProcess`].
    pub fn stop(&mut self) -> Result<()> {
        self.background.check_process()?;
        self.shared.requests.announce_end();
        self.background.end(&self.background.stop_deadline());
        // Last: a client sees the end of the responses before that of the requests. Not left to the
        // thread, whose handler may not come back.
        if let Some(requests) = self.shared.requests.end() {
            requests.remove();
        }
        let failure = self.shared.requests.take_failure();
        failure.map_or(Ok(()), |error| Err(of_channel(error, self.name())))
    }
}

/// What version 1 has no place for is refused.
fn check(config: &ServerConfig) -> Result<()> {
    let what = "workers";
    match (config.workers, config.metadata.is_empty(), &config.buffer.existing) {
        (1, true, None) => Ok(()),
        (1, false, _) => Err(Error::Unsupported { what: "metadata of a server of two buffers" }),
        (1, true, Some(_)) => {
            Err(Error::Unsupported { what: "a version 1 buffer is one piece with its header" })
        }
        (asked, ..) => {
            Err(Error::BadConfig { what, asked: asked as u64, allowed: "1 with two buffers" })
        }
    }
}

impl Drop for DuplexServer {
    fn drop(&mut self) {
        // In a forked child this is `WrongProcess`, and nothing is touched.
        let _ = self.stop();
    }
}

/// A request, read where the client put it.
pub struct RequestView<'s> {
    frame: &'s FrameView<'s>,
    metadata: &'s [u8],
    /// Where it came from.
    requests: &'s Reader,
    /// The process that sent it.
    client: u64,
    /// Where its response goes: a buffer that the client has made, and closes when it ends.
    responses: &'s Segment,
}

debug_line!(RequestView<'_>, "RequestView", |request| sequence: request.sequence(), len: request.len());

impl<'s> RequestView<'s> {
    pub(super) fn new(
        frame: &'s FrameView<'s>,
        metadata: &'s [u8],
        requests: &'s Reader,
        responses: &'s Segment,
    ) -> Self {
        Self { frame, metadata, requests, client: requests.writer_pid(), responses }
    }

    /// The request's bytes, in shared memory.
    pub fn data(&self) -> &[u8] {
        self.frame.data()
    }

    /// The request's length in bytes.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether the request has no bytes; only C# clients can send such.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// The request's sequence number, as its client counts.
    pub fn sequence(&self) -> u64 {
        self.frame.sequence()
    }

    /// What the client has published about itself; empty if nothing.
    pub fn metadata(&self) -> &[u8] {
        self.metadata
    }

    /// Whether the response has become useless, because the client has closed or died. Version 1 cannot
    /// cancel a single request; the in-place [`Frame::cancelled`](crate::Frame::cancelled) knows more.
    ///
    /// Ask between two pieces of long work: it costs a system call. A server that is being stopped does not make
    /// it true: what the handler has written when it returns is sent.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, v1};
    ///
    /// let name = format!("doc-v1-cancelled-{}", std::process::id());
    /// let mut server = v1::DuplexServer::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let (began, begun) = channel();
    /// let (ended, end) = channel();
    /// server.start_immutable(move |request: &v1::RequestView, reply: &mut v1::Reply| {
    ///     let _ = began.send(());
    ///     while !request.cancelled() {
    ///         std::thread::yield_now(); // a piece of long work
    ///     }
    ///     let _ = ended.send(());
    ///     reply.write(b"nobody reads this")
    /// })?;
    ///
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// client.send_request(b"a large picture")?;
    /// begun.recv().expect("the handler runs");
    /// drop(client);
    /// end.recv().expect("the handler has noticed");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn cancelled(&self) -> bool {
        // The process may be the next client by now: its id is the same then, its buffer is not.
        self.responses.reader_pid() == 0
            || self.requests.writer_pid() != self.client
            || !self.requests.is_writer_connected()
    }
}

/// The response that a handler is writing: once, by one of the two calls.
pub struct Reply<'s> {
    writer: &'s mut Writer,
    /// Where the request came from.
    requests: &'s Reader,
    claim: Option<Claim>,
    stop: &'s AtomicBool,
    /// The client has ended, or the server is to stop: nothing can be sent any more.
    broken: bool,
}

debug_line!(Reply<'_>, "Reply", |reply| written: reply.is_written());

impl<'s> Reply<'s> {
    pub(super) fn new(writer: &'s mut Writer, requests: &'s Reader, stop: &'s AtomicBool) -> Self {
        Self { writer, requests, claim: None, stop, broken: false }
    }

    /// Copies `data` into the response.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        self.acquire(data.len())?.copy_from_slice(data);
        Ok(())
    }

    /// A response of `len` bytes, to be filled in place; it is sent when the handler returns. Its bytes
    /// hold whatever was there before: write all of them. Waits for room as long as the client lives.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::WouldNeverFit`] if the client's buffer cannot take it;
    /// [`Error::EmptyFrame`]; [`Error::InvalidState`] if the response was written before;
    /// [`Error::PeerClosed`] or [`Error::PeerDied`] if the client has ended;
    /// [`Error::ProtocolViolation`]; [`Error::Full`] when the server is being stopped.
    pub fn acquire(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.claim.is_some() {
            return Err(Error::InvalidState { reason: "a request has exactly one response" });
        }
        let claim = self.wait_for_room(len).map_err(|error| self.note(error))?;
        Ok(self.writer.data_mut(self.claim.insert(claim)))
    }

    /// Waits without limit, but not for a client that has left the request buffer. It checks that buffer as
    /// well, which nothing else does meanwhile.
    fn wait_for_room(&mut self, len: usize) -> Result<Claim> {
        let (claim, has_room) = self.writer.place(len)?;
        if has_room {
            return Ok(claim);
        }
        loop {
            let deadline = Deadline::after(LOOK_AT_REQUESTS);
            match self.writer.wait_for_room(&claim, &deadline, Some(self.stop)) {
                Err(Error::Full { .. }) if !self.stop.load(Ordering::Relaxed) => {}
                waited => return waited.map(|()| claim),
            }
            self.requests.check_fixed_words()?;
            if self.requests.writer_pid() != self.writer.reader_pid() {
                return Err(Error::PeerClosed { request: None });
            }
        }
    }

    /// Notes that nothing can be sent any more, unless the error is about this very response; then it says
    /// whose buffer it does not fit.
    fn note(&mut self, error: Error) -> Error {
        match error.facts() {
            Error::TooLarge { .. } | Error::WouldNeverFit { .. } => {
                let message = format!(
                    "the response does not fit the client's response buffer: {error}; the client makes \
                     that buffer, and can make it larger (`ClientConfig::response_buffer`)"
                );
                error.explained(message)
            }
            Error::EmptyFrame => error,
            _ => {
                self.broken = true;
                error
            }
        }
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether there is a response.
    pub(super) fn is_written(&self) -> bool {
        self.claim.is_some()
    }

    /// Takes the response back: nothing of it is sent.
    pub(super) fn discard(&mut self) {
        self.claim = None;
    }

    /// Sends the response.
    pub(super) fn send(self) -> Result<u64> {
        match self.claim {
            Some(claim) => self.writer.commit(claim),
            None => Err(Error::EmptyFrame),
        }
    }
}

/// A copy of the request that becomes the response.
pub struct Draft<'s> {
    request: &'s RequestView<'s>,
    data: &'s mut [u8],
}

debug_line!(Draft<'_>, "Draft", |draft| sequence: draft.sequence(), len: draft.len());

impl Draft<'_> {
    /// The response's bytes: the request's, as far as they are not edited.
    pub fn data(&self) -> &[u8] {
        self.data
    }

    /// The response's bytes, to be edited.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.data
    }

    /// The length in bytes, which stays as it is.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Never: a response has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The request's sequence number, as its client counts.
    pub fn sequence(&self) -> u64 {
        self.request.sequence()
    }

    /// What the client has published about itself; empty if nothing.
    pub fn metadata(&self) -> &[u8] {
        self.request.metadata()
    }

    /// See [`RequestView::cancelled`].
    pub fn cancelled(&self) -> bool {
        self.request.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BufferConfig;

    /// However often the request buffer is looked at meanwhile.
    #[test]
    fn a_response_that_waits_for_room_waits_once() {
        let long = Duration::from_secs(20);
        let name = format!("reply-waits-{}", std::process::id());
        let requests =
            Reader::create(&format!("{name}_request"), BufferConfig::new(0, 64)).unwrap();
        let client = Writer::connect(requests.name(), long).unwrap();
        let responses =
            Reader::create(&format!("{name}_response"), BufferConfig::new(0, 1024)).unwrap();
        let mut writer = Writer::connect(responses.name(), long).unwrap();
        writer.write_frame(&[1; 900]).unwrap();
        let frame = responses.read_frame(long).unwrap();
        let (stop, began) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !began.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                std::thread::sleep(3 * LOOK_AT_REQUESTS);
                drop(frame);
            });
            let mut reply = Reply::new(&mut writer, &requests, &stop);
            began.store(true, Ordering::Relaxed);
            reply.write(&[2; 900]).unwrap();
            assert_eq!(reply.send().unwrap(), 2);
        });
        assert_eq!(writer.statistics().waits, 1);
        drop(client);
    }
}
