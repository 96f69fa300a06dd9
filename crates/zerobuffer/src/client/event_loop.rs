//! A client of a service that a program's own event loop drives: no thread of the library waits for it.

use super::channel::ClientChannel;
use super::completer::Completer;
use super::shared::SharedClient;
use super::{CallFuture, CallHandle, Client, OwnedResponse, RequestLayout};
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::Result;
use crate::link::NO_SOCKET;
use crate::sys::{self, ReadySet};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

/// A client of a service for a program's own event loop: many calls are under way at once, and no thread waits
/// for them, neither of the program nor of the library. For tokio there is a ready one, `zerobuffer::tokio::Client`,
/// with the feature `tokio`.
///
/// The event loop watches one descriptor ([`AsFd`](std::os::fd::AsFd)) and calls [`process`](Self::process)
///
/// * whenever the descriptor is readable, level-triggered or edge-triggered, and
/// * when the time has come that the last `process` returned.
///
/// `process` never blocks, but for up to a second while the kernel has no memory for a bell. It ends the calls that have their response, are due, or have lost their server, and
/// sends what waited for its turn or for room; callbacks run on the thread that calls it. Calls may be started
/// and cancelled, and responses released, on any thread at any time: what `process` is needed for makes the
/// descriptor readable.
///
/// Connecting blocks, so it is done before the event loop runs, or on another thread. The client keeps its one
/// connection: a server's end ends its calls with an error that says what became of each request
/// ([`Error::lost_request`](crate::Error::lost_request)), and all later calls. Then connect another client;
/// [`ClientConfig::resend_not_started`] is for clients with threads. Channels have no descriptor: connecting to
/// one fails with [`Error::Unsupported`](crate::Error::Unsupported).
///
/// Dropping it closes the connection; calls under way end with [`Error::Closed`](crate::Error::Closed).
///
/// ```
/// use std::os::fd::{AsFd, AsRawFd};
/// use std::time::{Duration, Instant};
/// use zerobuffer::{ClientConfig, EventLoopClient, Frame, Service, ServiceConfig};
///
/// # let directory = format!("/tmp/zb-doc-event-loop-{}", std::process::id());
/// let config = ServiceConfig::new().directory(&directory);
/// let mut service = Service::create("uppercase", config)?;
/// service.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
///
/// let config = ClientConfig::new().directory(&directory);
/// let second = Duration::from_secs(1);
/// let client = EventLoopClient::connect_with("uppercase", second, config)?;
/// let (done, outcome) = std::sync::mpsc::channel();
/// client.start_call(b"hello", second, move |response| done.send(response).unwrap())?;
///
/// // The smallest event loop.
/// let mut until = client.process();
/// let response = loop {
///     if let Ok(response) = outcome.try_recv() {
///         break response?;
///     }
///     let left = until.map(|until| until.saturating_duration_since(Instant::now()));
///     let left = left.map_or(-1, |left| left.as_millis() as i32 + 1);
///     let mut poll = libc::pollfd {
///         fd: client.as_fd().as_raw_fd(),
///         events: libc::POLLIN,
///         revents: 0,
///     };
///     // SAFETY: one pollfd.
///     unsafe { libc::poll(&mut poll, 1, left) };
///     until = client.process();
/// };
/// assert_eq!(response.data(), b"HELLO");
/// # drop((response, client, service));
/// # std::fs::remove_dir_all(&directory).unwrap();
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct EventLoopClient {
    client: SharedClient,
    channel: Arc<ClientChannel>,
    /// One thread at a time does what there is to do.
    completer: Mutex<Completer>,
    ready: ReadySet,
}

debug_line!(EventLoopClient, "EventLoopClient", |client| name: client.name());

impl Client {
    /// A client of an event loop. Requests that are in flight go on, but nobody can receive their responses.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, ErrorKind, Server};
    /// # let name = format!("doc-into-event-loop-{}", std::process::id());
    /// let server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let client = Client::connect(&name, Duration::from_secs(1))?;
    /// assert!(!client.is_service());
    /// let error = client.into_event_loop().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) unless it [`is_service`](Self::is_service);
    /// [`Error::System`](crate::Error::System) where no descriptor is left. The client is dropped then.
    pub fn into_event_loop(mut self) -> Result<EventLoopClient> {
        // It would have to connect, and that blocks.
        self.config.resend_not_started = false;
        EventLoopClient::new(self.into_shared())
    }
}

impl EventLoopClient {
    /// Connects to a server of service `name`, blocking until there is one or `timeout` has passed.
    ///
    /// # Errors
    /// As [`Client::connect`]; [`Error::Unsupported`](crate::Error::Unsupported) if there is only a channel of
    /// that name.
    pub fn connect(name: &str, timeout: Duration) -> Result<Self> {
        Self::connect_with(name, timeout, ClientConfig::default())
    }

    /// As [`connect`](Self::connect), with a configuration of its own.
    ///
    /// # Errors
    /// As [`Client::connect_with`], and [`connect`](Self::connect).
    pub fn connect_with(name: &str, timeout: Duration, config: ClientConfig) -> Result<Self> {
        Client::connect_with(name, timeout, config)?.into_event_loop()
    }

    fn new(client: SharedClient) -> Result<Self> {
        let connection = client.in_place_or(|| NO_SOCKET)?;
        let ready = connection.channel.lead_by_event_loop()?;
        let calls = &client.inner.completions;
        let completer = Mutex::new(Completer::new(calls, &client.inner));
        let channel = Arc::clone(&connection.channel);
        calls.use_event_loop(connection);
        let this = Self { client, channel, completer, ready };
        // From here on the server rings.
        this.process();
        Ok(this)
    }

    /// Does what there is to do, without blocking, and returns when to call it again at the latest: `None` if
    /// only the descriptor tells. To be called when the descriptor is readable, and at that time; a call too
    /// many does no harm. Any thread may call it; while one is at it, others return at once.
    pub fn process(&self) -> Option<Instant> {
        if !self.channel.segment.is_this_process() {
            return None;
        }
        let calls = &self.client.inner.completions;
        let mut completer = match self.completer.try_lock() {
            Ok(completer) => completer,
            Err(TryLockError::Poisoned(completer)) => completer.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // What that thread has looked for already may be what this one was called for: another turn,
                // whatever the alarm says, since that only tells of what is to be looked for, and not of bells.
                self.channel.wake_receivers();
                return instant(calls.state().wakes_at);
            }
        };
        self.channel.listen(&self.ready);
        instant(completer.run_once())
    }

    /// As [`SharedClient::call_async`], but [`process`](Self::process) completes it.
    ///
    /// # Errors
    /// The future's are those of [`SharedClient::call_async`].
    pub fn call_async(&self, data: &[u8], timeout: Duration) -> CallFuture {
        self.client.call_async(data, timeout)
    }

    /// As [`SharedClient::call_async_with`], but [`process`](Self::process) completes it, and may be what calls
    /// `fill`.
    ///
    /// # Errors
    /// The future's are those of [`SharedClient::call_async_with`].
    pub fn call_async_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
    ) -> CallFuture {
        self.client.call_async_with(size, layout, fill, timeout)
    }

    /// As [`SharedClient::start_call`], but [`process`](Self::process) completes it and runs `on_done`.
    ///
    /// # Errors
    /// As [`SharedClient::start_call`].
    pub fn start_call(
        &self,
        data: &[u8],
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        self.client.start_call(data, timeout, on_done)
    }

    /// As [`SharedClient::start_call_with`], but [`process`](Self::process) completes it and runs `on_done`.
    ///
    /// # Errors
    /// As [`SharedClient::start_call_with`].
    pub fn start_call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        self.client.start_call_with(size, layout, fill, timeout, on_done)
    }

    /// As [`SharedClient::cancel_call`].
    pub fn cancel_call(&self, id: u64) -> bool {
        self.client.cancel_call(id)
    }

    /// Closes the connection cleanly, for good. Calls under way end with
    /// [`Error::Closed`](crate::Error::Closed) at the next [`process`](Self::process), for which the descriptor
    /// is readable; later ones at once. Responses that are held stay readable.
    pub fn close(&self) {
        self.client.closer().close();
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.client.name()
    }

    /// As [`SharedClient::server_metadata`].
    pub fn server_metadata(&self) -> Vec<u8> {
        self.client.server_metadata()
    }

    /// As [`SharedClient::is_server_connected`].
    pub fn is_server_connected(&self) -> bool {
        self.client.is_server_connected()
    }

    /// As [`SharedClient::in_flight`].
    pub fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    /// As [`SharedClient::max_request_size`].
    pub fn max_request_size(&self) -> usize {
        self.client.max_request_size()
    }
}

/// The time as a program knows it; `None` for never, and for what is too far away.
fn instant(due_ns: u64) -> Option<Instant> {
    let left = Duration::from_nanos(due_ns.saturating_sub(sys::monotonic_ns()));
    if due_ns == u64::MAX { None } else { Instant::now().checked_add(left) }
}

/// What an event loop watches: readable when [`process`](EventLoopClient::process) is to be called. Nothing is to
/// be read from it.
#[cfg(unix)]
impl std::os::fd::AsFd for EventLoopClient {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for EventLoopClient {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(self).as_raw_fd()
    }
}

impl Drop for EventLoopClient {
    fn drop(&mut self) {
        if self.channel.segment.is_this_process() {
            self.close();
            // Calls under way end here.
            self.process();
            self.client.inner.completions.leave_event_loop();
        }
    }
}
