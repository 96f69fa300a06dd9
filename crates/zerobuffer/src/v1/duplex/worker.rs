//! The server's background thread: whose requests these are, and where their responses go.

use super::server::{DuplexServerStatistics, Reply, RequestView};
use crate::closer::Close;
use crate::config::ServerConfig;
use crate::error::{Error, Result};
use crate::handler::catch;
use crate::name::BufferName;
use crate::ready_threads::goes_on;
use crate::sys;
use crate::tenure::Tenure;
use crate::v1::liveness::Pace;
use crate::v1::reader::{FrameView, Reader};
use crate::v1::segment::Segment;
use crate::v1::writer::Writer;
use crate::v1::{ReaderConfig, WriterConfig};
use crate::wait::Deadline;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the server looks for a client's response buffer: while a client is there that waits for
/// it, while there is none, and while all is well.
const TICK_CLIENT: Duration = Duration::from_millis(1);
const TICK_IDLE: Duration = Duration::from_millis(10);
const TICK_SERVING: Duration = Duration::from_millis(20);
/// How long a buffer is not in order, at every look, until it is made anew. A client that has just come has its
/// response buffer long before that, and a connection with it.
const UNSOUND_PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks at whether clients still find the buffer, with no client.
const NAMES_PAUSE: Duration = Duration::from_millis(100);
/// How long a first request waits for its client's response buffer to show.
const FIRST_PATIENCE: Duration = Duration::from_millis(50);
/// What a handler came to.
type Outcome = std::result::Result<(), String>;

/// What the server and its thread share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The request buffer, one after the other.
    pub(super) requests: Tenure<Arc<Reader>>,
    connected: AtomicBool,
    statistics: Mutex<DuplexServerStatistics>,
    fork_generation: u32,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.requests.is_over()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn statistics(&self) -> DuplexServerStatistics {
        *self.count()
    }

    fn count(&self) -> MutexGuard<'_, DuplexServerStatistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Close for Shared {
    fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    fn close(&self) {
        self.requests.announce_end();
    }

    fn is_closed(&self) -> bool {
        self.is_stopping()
    }
}

/// A client: where its responses go, and what it says about itself.
#[derive(Debug)]
struct Connection {
    responses: Writer,
    /// Theirs, for a handler that asks whether the client is still there while it writes one.
    segment: Arc<Segment>,
    /// Read with the first request: clients set it before.
    metadata: Option<Vec<u8>>,
}

impl Connection {
    /// Whether the client's reader is still there, as its header says.
    fn is_open(&self) -> bool {
        !self.responses.is_closed()
    }
}

/// The server's side of both buffers.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    request_name: BufferName,
    response_name: BufferName,
    config: ServerConfig,
    connection: Option<Connection>,
    /// `None` while it is being made anew.
    requests: Option<Arc<Reader>>,
    /// For how long the looks have found the request buffer not in order.
    unsound: Duration,
    names_checked: Pace,
}

/// What becomes of the channel after a request.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Serve,
    /// The client has ended.
    ClientEnded,
    /// A response could not be sent: the channel must be closed (rule X1).
    Close,
}

impl Worker {
    pub(super) fn create(
        (request_name, response_name): (BufferName, BufferName),
        config: ServerConfig,
    ) -> Result<Self> {
        let requests = Reader::create(request_name.as_str(), reader_config(&config))?;
        let requests = Arc::new(requests);
        let shared = Shared {
            requests: Tenure::new(Arc::clone(&requests)),
            connected: AtomicBool::new(false),
            statistics: Mutex::default(),
            fork_generation: sys::fork_generation(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            request_name,
            response_name,
            config,
            connection: None,
            requests: Some(requests),
            unsound: Duration::ZERO,
            names_checked: Pace::every(NAMES_PAUSE),
        })
    }

    /// What its server shares with it.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves one client after the other until the server is stopped.
    pub(super) fn serve<H>(mut self, mut handler: H)
    where
        H: FnMut(&RequestView<'_>, &mut Reply<'_>) -> Outcome,
    {
        while !self.shared.is_stopping() {
            let Some(requests) = self.requests.take() else {
                self.make_requests();
                continue;
            };
            let next = self.turn(&requests, &mut handler);
            if next != Next::Serve {
                self.disconnect();
            }
            if next != Next::Close {
                self.requests = Some(requests);
            }
        }
        self.disconnect();
    }

    /// Waits for one request and answers it, or looks after clients that come and go.
    fn turn<H>(&mut self, requests: &Reader, handler: &mut H) -> Next
    where
        H: FnMut(&RequestView<'_>, &mut Reply<'_>) -> Outcome,
    {
        match requests.read_frame_unless(self.tick(requests), self.shared.requests.over()) {
            Ok(frame) => self.answer(requests, &frame, handler),
            Err(Error::Timeout { .. } | Error::NotConnectedYet { .. }) => {
                self.look_for_client(requests);
                self.look_after_buffer(requests)
            }
            Err(Error::PeerClosed { .. } | Error::PeerDied { .. }) => {
                // All its requests are read: whatever comes now is another client's.
                requests.forget_writer();
                self.disconnect();
                crate::sys::sleep(TICK_IDLE);
                self.look_after_buffer(requests)
            }
            // A client that breaks the protocol: the next one gets a new buffer.
            Err(_) => Next::Close,
        }
    }

    fn tick(&self, requests: &Reader) -> Duration {
        match &self.connection {
            Some(_) => TICK_SERVING,
            None if requests.writer_pid() != 0 => TICK_CLIENT,
            None => TICK_IDLE,
        }
    }

    /// Makes the request buffer anew, after the former one was closed on a client.
    fn make_requests(&mut self) {
        let (name, config) = (self.request_name.as_str(), &reader_config(&self.config));
        let made = self.shared.requests.replace(|old, wanted| {
            if let Some(old) = old {
                old.remove();
            }
            Reader::create_while(name, config, wanted).map(Arc::new)
        });
        match made {
            Ok(requests) => (self.requests, self.unsound) = (Some(requests), Duration::ZERO),
            Err(error) => _ = goes_on(&self.shared.requests, error),
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.shared.connected.store(false, Ordering::Relaxed);
    }

    /// With no connection and no request, what stands in the buffer is what the next client will rely on, or the one
    /// that is already there and waits. If it is not in order, the buffer is made anew: at once if it is not found
    /// under its names any more, otherwise if seen for a while, as a client may come and go at any moment. The time
    /// is that between looks, not that which a busy machine took from them.
    fn look_after_buffer(&mut self, requests: &Reader) -> Next {
        let is_idle = self.connection.is_none() && requests.writer_pid() == 0;
        if is_idle && self.names_checked.is_due() && !requests.is_in_place() {
            return Next::Close;
        }
        if self.connection.is_some() || requests.is_ready_for_writer() {
            self.unsound = Duration::ZERO;
            return Next::Serve;
        }
        self.unsound += self.tick(requests);
        match self.unsound < UNSOUND_PATIENCE {
            true => Next::Serve,
            false => Next::Close,
        }
    }

    /// With no request at hand: notices that a client has left, and that another one has come. One that
    /// was killed leaves its id in the response buffer, but not in the request buffer once another has
    /// taken its place.
    fn look_for_client(&mut self, requests: &Reader) {
        let client = requests.writer_pid();
        let is_left = |connection: &Connection| {
            !connection.is_open() || connection.responses.reader_pid() != client
        };
        if self.connection.as_ref().is_some_and(is_left) {
            self.disconnect();
        }
        if self.connection.is_none() {
            self.connect(requests);
        }
    }

    /// Attaches to the response buffer of the client whose requests these are: the one that the same
    /// process reads. A crashed client's buffer is passed over until the new one takes its place.
    fn connect(&mut self, requests: &Reader) {
        let client = requests.writer_pid();
        if client == 0 {
            return;
        }
        let mut config = WriterConfig::new()
            .liveness(self.config.liveness)
            .wait(self.config.wait)
            .restart_sequence(true);
        if let Some(uid) = self.config.owner {
            config = config.owner(uid);
        }
        let name = self.response_name.as_str();
        if let Ok(responses) = Writer::connect_with(name, Duration::ZERO, config)
            && responses.reader_pid() == client
        {
            let segment = Arc::clone(responses.segment());
            self.connection = Some(Connection { responses, segment, metadata: None });
            self.shared.connected.store(true, Ordering::Relaxed);
            self.shared.count().clients += 1;
        }
    }

    /// Makes sure that the connection is that of the request's client. A client has its response buffer
    /// before it sends; the first request of an existing v1 client may come before the server has seen that. Any
    /// other request without an open connection is one that a client has left behind (rule X4), and so
    /// is a first one whose response buffer does not show: a client of this library makes its own only when
    /// everything is taken and released.
    fn find_client(&mut self, requests: &Reader, frame: &FrameView<'_>) -> bool {
        let is_current = |connection: &Connection| {
            connection.is_open()
                && (!frame.is_first()
                    || connection.responses.reader_pid() == requests.writer_pid()
                        && connection.responses.is_reader_connected())
        };
        if self.connection.as_ref().is_some_and(is_current) {
            return true;
        }
        self.disconnect();
        let deadline = Deadline::after(FIRST_PATIENCE);
        while frame.is_first() && requests.is_writer_connected() && !self.shared.is_stopping() {
            self.connect(requests);
            if self.connection.is_some() || deadline.left().is_zero() {
                break;
            }
            crate::sys::sleep(TICK_CLIENT);
        }
        self.connection.is_some()
    }

    /// Runs the handler on one request and sends exactly one response.
    fn answer<H>(&mut self, requests: &Reader, frame: &FrameView<'_>, handler: &mut H) -> Next
    where
        H: FnMut(&RequestView<'_>, &mut Reply<'_>) -> Outcome,
    {
        if !self.find_client(requests, frame) {
            self.shared.count().dropped += 1;
            return Next::ClientEnded;
        }
        let Some(connection) = &mut self.connection else { return Next::ClientEnded };
        let metadata = connection
            .metadata
            .get_or_insert_with(|| requests.metadata().ok().flatten().unwrap_or_default());
        let request = RequestView::new(frame, metadata, requests, &connection.segment);
        let mut reply =
            Reply::new(&mut connection.responses, requests, self.shared.requests.over());
        self.shared.count().requests += 1;
        // After a panic nothing is sent of what the handler left behind.
        let outcome = match catch(|| handler(&request, &mut reply)).and_then(|done| done) {
            Ok(()) if !reply.is_written() => Err("the handler has sent nothing".to_owned()),
            outcome => outcome,
        };
        if let Err(message) = outcome {
            self.shared.count().failures += 1;
            crate::trace::event!(buffer = %self.request_name, %message, "handler failed");
            reply.discard();
            if !reply.is_broken() && !write_failure(&self.config, &mut reply, &message) {
                return Next::Close;
            }
        }
        match reply.send() {
            Ok(_) => {
                self.shared.count().responses += 1;
                Next::Serve
            }
            Err(_) => Next::ClientEnded,
        }
    }
}

/// Of the request buffer.
fn reader_config(config: &ServerConfig) -> ReaderConfig {
    ReaderConfig::new(config.buffer.clone())
        .mode(config.mode)
        .liveness(config.liveness)
        .wait(config.wait)
}

/// Writes the configured response to a failure; false if there is none that can be sent.
fn write_failure(config: &ServerConfig, reply: &mut Reply<'_>, message: &str) -> bool {
    let Some(response) = &config.failure_response else { return false };
    catch(|| (response.0)(message)).is_ok_and(|bytes| reply.write(&bytes).is_ok())
}
