//! The server: takes requests, and edits them where they lie.

mod acceptor;
mod channel;
mod connection;
mod guards;
mod identity;
mod limit;
mod service;
mod tasks;
mod worker;

pub use guards::{Frame, OwnedRequest, Request};
pub use identity::ClientIdentity;
pub use service::{Servers, Service, ServiceConfig};

use crate::closer::{Close, Closer};
use crate::config::ServerConfig;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::handler::HandlerOutcome;
use crate::name::ChannelName;
use crate::ready_threads::{Background, LOOK};
use crate::sys;
use crate::tenure::Away;
use crate::v2::ring::Taken;
use crate::wait::Deadline;
use acceptor::{Acceptor, Shared};
use connection::Connection;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A server of one channel: it creates the channel, and serves one client after the other.
///
/// Either give it a handler, which runs in the background ([`start`](Self::start)), or take the
/// requests yourself ([`receive`](Self::receive)).
///
/// A client may end cleanly or be killed: in both cases the server creates a new segment under the
/// same name, and the next client attaches to that. Dropping the server stops it cleanly.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, Frame, Server};
///
/// let name = format!("doc-server-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| {
///     if frame.is_empty() {
///         return Err("nothing to invert");
///     }
///     frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte);
///     Ok(())
/// })?;
///
/// let mut client = Client::connect(&name, Duration::from_secs(5))?;
/// assert_eq!(client.call(&[0x0f], Duration::from_secs(5))?.data(), [0xf0]);
/// let error = client.call(&[], Duration::from_secs(5)).unwrap_err();
/// assert!(error.to_string().contains("nothing to invert"));
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct Server {
    background: Background<Acceptor>,
    shared: Arc<Shared>,
    workers: usize,
    stopped: bool,
}

debug_line!(Server, "Server", |server| name: server.name(), running: server.is_running());

impl Server {
    /// Creates the channel `name`; clients can attach as soon as this returns. If a
    /// [`Service`] of the same name is running as well, clients find that one first.
    ///
    /// Takes a [`BufferConfig`](crate::BufferConfig), or a [`ServerConfig`] for more than sizes. What a
    /// dead server of the same name left behind is removed.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if a server lives; [`Error::NoSpace`] if /dev/shm does not have the
    /// memory, all of which is reserved here; [`Error::ForeignObject`] if something else has the
    /// name; [`Error::BadName`], [`Error::BadConfig`], [`Error::PermissionDenied`];
    /// [`Error::TooLarge`] if the metadata does not fit its block. Nothing is left behind.
    pub fn create(name: &str, config: impl Into<ServerConfig>) -> Result<Self> {
        let config = config.into();
        if config.workers == 0 || config.workers > 1024 {
            let asked = config.workers as u64;
            return Err(Error::BadConfig { what: "workers", asked, allowed: "1 to 1024" });
        }
        if config.max_concurrent == 0 {
            return Err(Error::BadConfig {
                what: "max_concurrent",
                asked: 0,
                allowed: "1 or more",
            });
        }
        let (workers, stop_timeout) = (config.workers, config.stop_timeout);
        let acceptor = Acceptor::create(ChannelName::new(name)?, config)?;
        Ok(Self {
            shared: Arc::clone(&acceptor.shared),
            background: Background::new(name, acceptor, stop_timeout),
            workers,
            stopped: false,
        })
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        self.background.name()
    }

    /// Runs `handler` on every request, on background threads (see [`ServerConfig::workers`]), until
    /// [`stop`](Self::stop).
    ///
    /// The handler edits the frame in place; it returns nothing, or a `Result` whose error reaches the
    /// client as [`Error::HandlerFailed`]. So does a panic, which ends neither the thread nor the
    /// server. With several workers the handler runs on several frames at the same time; one that has
    /// state to change goes to [`start_mut`](Self::start_mut) or [`start_each`](Self::start_each).
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it was started or stopped before; [`Error::System`] if a thread
    /// cannot be made.
    pub fn start<H, O>(&mut self, handler: H) -> Result<()>
    where
        H: Fn(&mut Frame<'_>) -> O + Send + Sync + 'static,
        O: HandlerOutcome,
    {
        if self.workers == 1 {
            return self.start_all([handler]);
        }
        let handler = Arc::new(handler);
        self.start_all((0..self.workers).map(|_| {
            let handler = Arc::clone(&handler);
            move |frame: &mut Frame<'_>| handler(frame)
        }))
    }

    /// As [`start`](Self::start), for a handler with state that it changes, on one worker.
    ///
    /// After a panic the handler goes on with its state as the panic has left it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, Frame, Server};
    ///
    /// let name = format!("doc-start-mut-{}", std::process::id());
    /// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let mut total = 0;
    /// server.start_mut(move |frame: &mut Frame| {
    ///     total += frame.data()[0];
    ///     frame.data_mut()[0] = total;
    /// })?;
    ///
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// for (number, sum) in [(1, 1), (2, 3), (4, 7)] {
    ///     assert_eq!(client.call(&[number], Duration::from_secs(5))?.data(), [sum]);
    /// }
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start); [`Error::BadConfig`] with several workers, each of which needs a handler
    /// of its own: [`start_each`](Self::start_each).
    pub fn start_mut<H, O>(&mut self, handler: H) -> Result<()>
    where
        H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        if self.workers != 1 {
            return Err(Error::BadConfig {
                what: "workers",
                asked: self.workers as u64,
                allowed: "1 with one handler that has state; start_each makes one for each worker",
            });
        }
        self.start_all([handler])
    }

    /// As [`start`](Self::start), with a handler for each worker, which `make` makes out of the worker's
    /// number, from 0. Each may have state that it changes: a buffer, a model, a random generator.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, Frame, Server, ServerConfig};
    ///
    /// let name = format!("doc-start-each-{}", std::process::id());
    /// let config = ServerConfig::new(BufferConfig::new(0, 1 << 16)).workers(4);
    /// let mut server = Server::create(&name, config)?;
    /// server.start_each(|_worker| {
    ///     let mut scratch = Vec::new();
    ///     move |frame: &mut Frame| {
    ///         scratch.clear();
    ///         scratch.extend_from_slice(frame.data());
    ///         scratch.sort_unstable();
    ///         frame.data_mut().copy_from_slice(&scratch);
    ///     }
    /// })?;
    ///
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// assert_eq!(client.call(b"sorting", Duration::from_secs(5))?.data(), b"ginorst");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_each<H, O>(&mut self, make: impl FnMut(usize) -> H) -> Result<()>
    where
        H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.start_all((0..self.workers).map(make))
    }

    /// As [`start`](Self::start), for a handler that awaits something: each request is a task of its own on
    /// the caller's executor, and any number of them are under way at the same time. For handlers that
    /// only compute, `start` is faster and simpler.
    ///
    /// One background thread takes the requests, whatever [`ServerConfig::workers`] says, calls `handler`
    /// with each, and gives the future that it returns to `spawn`. The handler ends its request with
    /// [`respond`](OwnedRequest::respond) or [`fail`](OwnedRequest::fail), in whatever order. It needs no
    /// particular runtime:
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, OwnedRequest, Server};
    ///
    /// let name = format!("doc-start-async-{}", std::process::id());
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    /// let handle = runtime.handle().clone();
    ///
    /// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// server.start_async(
    ///     move |task| handle.spawn(task),
    ///     |mut request: OwnedRequest| async move {
    ///         tokio::time::sleep(Duration::from_millis(1)).await; // a query to a database
    ///         request.data_mut().make_ascii_uppercase();
    ///         request.respond();
    ///     },
    /// )?;
    ///
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// assert_eq!(client.call(b"hello", Duration::from_secs(5))?.data(), b"HELLO");
    /// server.stop()?; // before its runtime
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// | | the client gets |
    /// |---|---|
    /// | a task that ends, or is dropped by its executor, without having responded | [`Error::HandlerFailed`] with status 3, at once |
    /// | a panic of the handler or its task, which ends that task and nothing else | [`Error::HandlerFailed`] with status 2 and the panic's message |
    /// | a task that is still under way when the server stops | its response, if that comes within [`ServerConfig::stop_timeout`]; otherwise [`Error::PeerClosed`], in doubt |
    ///
    /// What is under way is bounded by the ring, in which each request keeps its place, and by
    /// [`ServerConfig::max_concurrent`]. Tasks of a client that has died go on until they have ended, and
    /// keep that client's memory: let long ones ask for [`cancelled`](Frame::cancelled).
    /// [`stop`](Self::stop) and drop block the calling thread while tasks are under way; on a runtime of one
    /// thread call them outside of it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_async<S, R, H, F>(&mut self, spawn: S, handler: H) -> Result<()>
    where
        S: FnMut(Pin<Box<dyn Future<Output = ()> + Send>>) -> R + Send + 'static,
        H: FnMut(OwnedRequest) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (shared, places) = (Arc::clone(&self.shared), Arc::clone(&self.shared.places));
        let is_stopping = move || shared.is_stopping();
        self.start_works(vec![tasks::spawner(places, is_stopping, spawn, handler)])
    }

    /// Starts a thread with each of `handlers`, of which there are as many as workers.
    fn start_all<H, O>(&mut self, handlers: impl IntoIterator<Item = H>) -> Result<()>
    where
        H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.start_works(handlers.into_iter().map(worker::handling).collect())
    }

    /// Starts a thread that does each of `works` with the requests.
    fn start_works<W>(&mut self, works: Vec<W>) -> Result<()>
    where
        W: FnMut(&Arc<Connection>, Taken, &Away) + Send + 'static,
    {
        self.background.start(works.len(), |ready_threads, acceptor| {
            worker::start(ready_threads, acceptor, works)
        })
    }

    /// What ends this server from another thread: a thread that waits in [`receive`](Self::receive)
    /// comes back with [`Error::Closed`], and background threads take nothing more.
    /// [`stop`](Self::stop) does the rest.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.shared)
    }

    /// Whether background threads are serving. False before [`start`](Self::start), after
    /// [`stop`](Self::stop), and if the server had to stop for a reason of its own (`stop` then says which).
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping() && self.background.is_running()
    }

    /// Whether a client is attached at this moment.
    pub fn is_client_connected(&self) -> bool {
        self.client_probe()()
    }

    /// What tells any other thread whether a client is attached, also while this server waits in
    /// [`receive`](Self::receive). False once the server has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, Server};
    ///
    /// let name = format!("doc-probe-{}", std::process::id());
    /// let server = Server::create(&name, BufferConfig::new(0, 4096))?;
    /// let is_client_connected = server.client_probe();
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// std::thread::spawn(move || assert!(is_client_connected())).join().expect("it is connected");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn client_probe(&self) -> impl Fn() -> bool + Send + Sync + 'static + use<> {
        let shared = Arc::downgrade(&self.shared);
        let fork_generation = self.background.fork_generation();
        move || {
            fork_generation == sys::fork_generation()
                && shared.upgrade().is_some_and(|shared| {
                    shared.segments.current().is_some_and(|channel| channel.is_client_connected())
                })
        }
    }

    /// Waits for the next request until `timeout` has passed, for a server without a handler. Call it
    /// again and again: it also looks after clients that go.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, Server};
    ///
    /// let name = format!("doc-receive-{}", std::process::id());
    /// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// let sequence = client.send_request(b"ping")?;
    ///
    /// let mut request = server.receive(Duration::from_secs(5))?;
    /// request.data_mut()[1] = b'o';
    /// request.respond();
    ///
    /// let response = client.receive_response_for(sequence, Duration::from_secs(5))?;
    /// assert_eq!(response.data(), b"pong");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::ProtocolViolation`] if the client breaks the protocol, after which
    /// nothing more is taken from it; [`Error::InvalidState`] if a handler was started;
    /// [`Error::Closed`] after `stop` or [`Closer::close`]; [`Error::AlreadyRunning`] or [`Error::NoSpace`] if a new segment is needed for the next
    /// client and cannot be made.
    #[inline(always)]
    pub fn receive(&mut self, timeout: Duration) -> Result<Request<'_>> {
        self.background.check_process()?;
        let no_pull = || match self.shared.is_closed() {
            true => Error::Closed,
            false => Error::InvalidState { reason: "a handler has the requests" },
        };
        let acceptor = self.background.taker().ok_or_else(no_pull)?;
        let taken = match acceptor.next_at_once() {
            Some(taken) => taken,
            None => acceptor.next(&Deadline::after(timeout))?,
        };
        let channel = acceptor.channel().ok_or_else(no_pull)?;
        Ok(Request::new(Frame::new(&channel.connection, taken)))
    }

    /// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets it
    /// read its responses, and removes the channel's names. Each of the two waits is bounded by
    /// [`ServerConfig::stop_timeout`]. A handler that needs longer, or that calls this itself, leaves its request
    /// in doubt ([`Error::PeerClosed`]): its response is not delivered. Called again it does nothing.
    ///
    /// # Errors
    /// What made the background server stop before, if anything did; [`Error::WrongProcess`].
    pub fn stop(&mut self) -> Result<()> {
        self.background.check_process()?;
        let deadline = self.background.stop_deadline();
        if std::mem::replace(&mut self.stopped, true) {
            // If a handler has stopped its own server, nobody has waited for that handler.
            self.background.end(&deadline);
            return Ok(());
        }
        self.shared.stop();
        let in_own_hands = self.background.end(&deadline);
        let channel = self.shared.segments.end();
        let closed = match channel {
            Some(channel) => {
                // Requests that were made owned may still be in somebody's hands.
                while channel.ring.in_hand() > in_own_hands && !deadline.left().is_zero() {
                    crate::sys::sleep(LOOK);
                }
                channel.close(&self.background.stop_deadline())
            }
            None => Ok(()),
        };
        self.shared.segments.take_failure().map_or(closed, Err)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a forked child this is `WrongProcess`, and nothing is touched.
        let _ = self.stop();
    }
}
