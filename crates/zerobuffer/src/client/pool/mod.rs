//! The client that mends itself: several connections to the servers of one name, each request on one of them.

mod calls;
mod list;
mod members;
mod mender;

use super::calls::{CallFuture, CallHandle, Payload};
use super::resend::until_started;
use super::shared::SharedClient;
use super::{OwnedResponse, RequestLayout};
use crate::closer::{Close, Closer};
use crate::config::ClientConfig;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::wait::Deadline;
use members::Shared;
use std::sync::Arc;
use std::time::Duration;

/// The most connections of a pool.
const MOST: usize = 1024;

/// A client that mends itself, for programs that run for long: it has up to `n` connections to different
/// servers of one name, sends each request on the one with the fewest calls under way, and connects to other
/// servers as servers come and go. Any number of threads may use it; clones share the connections.
///
/// | what happens | what becomes of the calls |
/// |---|---|
/// | a server stops or dies before it takes a request | it is sent again, with its bytes intact, to another server or to the next one, within the call's own timeout |
/// | a server dies in the middle of a request | the call fails with [`Error::PeerDied`] or [`Error::PeerClosed`] that says [`InDoubt`](crate::RequestState::InDoubt); it is never sent twice |
/// | there is no server for a while | calls wait for the next one, each for as long as its timeout |
///
/// So servers that are stopped one after the other, each after its successor has started, lose no call.
/// [`SharedClient`] is the client of one connection, whose end its user sees.
///
/// On a service `n` is at most one connection for each server; while there are fewer, a call looks for new ones
/// at once after a connection was lost, and otherwise once a second. That is done by a thread, `zb-mender`,
/// which ends when there is nothing to connect to and no call waits for a server; an idle pool has none. On a
/// channel (see [`Client`](super::Client)) there is one connection, and the same rules hold for it; over two
/// buffers nothing tells what a server has started, so a request that was sent is in doubt.
///
/// The configuration is that of all connections. [`ClientConfig::resend_not_started`] makes no difference.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{Frame, Pool, Service, ServiceConfig};
///
/// let name = format!("doc-pool-{}", std::process::id());
/// let serve = || {
///     let mut service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
///     service.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
///     Ok::<_, zerobuffer::Error>(service)
/// };
/// // Any number of processes; here two in this one.
/// let second = Duration::from_secs(1);
/// let servers = [serve()?, serve()?];
/// let pool = Pool::connect(&name, 2, 5 * second)?;
/// assert_eq!(pool.connections(), 2);
/// assert_eq!(pool.call(b"hello", second)?.data(), b"HELLO");
///
/// // All of them are replaced, and nobody has to know.
/// drop(servers);
/// let next = serve()?;
/// assert_eq!(pool.call(b"still there", second)?.data(), b"STILL THERE");
/// # drop(next);
/// # zerobuffer::Servers::of(&name)?.clean()?;
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

debug_line!(Pool, "Pool", |pool| name: pool.name());

/// What the handles share; what the pool's own threads use outlives it.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Pool {
    /// Connects to up to `connections` different servers of `name` (1 to 1024), waiting for the first of them
    /// until `timeout` has passed; zero tries once. Names are those of [`Client::connect`](super::Client::connect).
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect), and [`Error::BadConfig`] for an impossible number.
    pub fn connect(name: &str, connections: usize, timeout: Duration) -> Result<Self> {
        Self::connect_with(name, connections, timeout, ClientConfig::default())
    }

    /// As [`connect`](Self::connect), with a configuration of its own, which holds for each connection.
    ///
    /// # Errors
    /// As [`connect`](Self::connect) and [`Client::connect_with`](super::Client::connect_with).
    pub fn connect_with(
        name: &str,
        connections: usize,
        timeout: Duration,
        config: ClientConfig,
    ) -> Result<Self> {
        Self::connect_while(name, connections, timeout, config, &|| true)
    }

    /// As [`connect_with`](Self::connect_with), for as long as `is_wanted` says true: see
    /// [`Client::connect_while`](super::Client::connect_while).
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with); [`Error::Closed`] once it says false.
    pub fn connect_while(
        name: &str,
        connections: usize,
        timeout: Duration,
        config: ClientConfig,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        if connections == 0 || connections > MOST {
            let (what, allowed) = ("connections", "1 to 1024");
            return Err(Error::BadConfig { what, asked: connections as u64, allowed });
        }
        let (name, config) = config.of_name(name);
        let (deadline, is_cancelled) = (Deadline::after(timeout), || !is_wanted());
        let shared = Shared::connect(name, connections, config, &deadline, &is_cancelled)?;
        Ok(Self { owner: Arc::new(Owner(shared)) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }

    /// The name of the service or channel.
    pub fn name(&self) -> &str {
        self.shared().name()
    }

    /// How many connections there are at the moment, as far as is known; 0 in a forked child.
    pub fn connections(&self) -> usize {
        self.shared().connections()
    }

    /// Whether a server of one of the connections is there. Asks the operating system. If not, another one is looked for
    /// in the background, once a second at the most, so this becomes true without a call; and the next call waits for one.
    pub fn is_server_connected(&self) -> bool {
        self.shared().is_server_connected()
    }

    /// Calls under way, of all threads together.
    pub fn in_flight(&self) -> usize {
        self.shared().in_flight()
    }

    /// The most bytes that a request can have on each of the connections; 0 if there is none.
    pub fn max_request_size(&self) -> usize {
        self.shared().max_request_size()
    }

    /// Sends `data` to a server and waits for the response, all within `timeout`.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call) after it was sent. [`Error::lost_request`] tells what became of
    /// the request after a server's end: in doubt, or not started where no other server came in time. If there
    /// was no connection, why none could be made, most often [`Error::NotRunning`]. [`Error::Closed`] and
    /// [`Error::WrongProcess`].
    pub fn call(&self, data: &[u8], timeout: Duration) -> Result<OwnedResponse> {
        self.call_by(timeout, |client, deadline| client.call_by(data, deadline))
    }

    /// As [`call`](Self::call), but `fill` writes the request, of `size` bytes, where the server will
    /// read it. Other threads cannot send on this connection while it runs, and what it sends there itself fails
    /// with [`Error::ClaimOpen`]. It is called again for each place that the request gets.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Frame, Pool, RequestLayout, Server};
    /// # let name = format!("doc-pool-fill-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().iter_mut().for_each(|byte| *byte += 1))?;
    /// let second = Duration::from_secs(1);
    /// let pool = Pool::connect(&name, 1, second)?;
    /// let fill = |to: &mut [u8]| to.fill(7);
    /// assert_eq!(pool.call_with(3, RequestLayout::new(), fill, second)?.data(), [8, 8, 8]);
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::BadConfig`] for an impossible alignment.
    pub fn call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        mut fill: impl FnMut(&mut [u8]),
        timeout: Duration,
    ) -> Result<OwnedResponse> {
        self.call_by(timeout, |client, deadline| {
            client.call_with_by(size, layout, &mut fill, deadline)
        })
    }

    fn call_by(
        &self,
        timeout: Duration,
        mut call: impl FnMut(&SharedClient, &Deadline) -> Result<OwnedResponse>,
    ) -> Result<OwnedResponse> {
        let (shared, deadline) = (self.shared(), Deadline::after(timeout));
        let mut place = shared.choose(&deadline)?;
        let outcome = until_started(
            &mut place,
            |place| call(place.client(), &deadline),
            |place| {
                shared.retire(place.member());
                *place = shared.choose(&deadline)?;
                Ok(true)
            },
        );
        if outcome.is_err() {
            shared.retire_if_spent(place.member());
        }
        outcome
    }

    /// As [`call`](Self::call), but no thread waits for the response: the returned future does, as that of
    /// [`SharedClient::call_async`]. While there is no connection the call waits for one in the background.
    ///
    /// # Errors
    /// The future's are those of [`call`](Self::call); over two buffers [`Error::Unsupported`].
    pub fn call_async(&self, data: &[u8], timeout: Duration) -> CallFuture {
        CallFuture::start(|on_done| {
            let (payload, layout) = (Payload::Copy(data), RequestLayout::new());
            self.shared().start(data.len(), layout, payload, timeout, on_done)
        })
    }

    /// As [`call_async`](Self::call_async), but `fill` writes the request, of `size` bytes, where the server
    /// will read it, on this thread or another one. It is called again for each place that the request gets.
    ///
    /// # Errors
    /// The future's are those of [`call_with`](Self::call_with).
    pub fn call_async_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
    ) -> CallFuture {
        CallFuture::start(|on_done| {
            let payload = Payload::Fill(Some(Box::new(fill)));
            self.shared().start(size, layout, payload, timeout, on_done)
        })
    }

    /// As [`call_async`](Self::call_async), for programs without futures, such as bindings: `on_done` gets
    /// the outcome, as that of [`SharedClient::start_call`] on a thread whose other calls wait meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Frame, Pool, Server};
    /// # let name = format!("doc-pool-start-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// let second = Duration::from_secs(1);
    /// let pool = Pool::connect(&name, 1, second)?;
    /// let (done, outcome) = std::sync::mpsc::channel();
    /// let call = pool.start_call(b"hello", second, move |response| done.send(response).unwrap())?;
    /// assert_eq!(outcome.recv().unwrap()?.data(), b"HELLO");
    /// assert!(!call.cancel(), "it is done");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// What is known at once; `on_done` is dropped then: [`Error::Unsupported`] over two buffers,
    /// [`Error::TooLarge`], [`Error::Closed`], [`Error::WrongProcess`], [`Error::ProtocolViolation`],
    /// [`Error::System`] if a thread cannot be started. All others come to `on_done`.
    pub fn start_call(
        &self,
        data: &[u8],
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        let (payload, layout) = (Payload::Copy(data), RequestLayout::new());
        self.shared().start(data.len(), layout, payload, timeout, Box::new(on_done))
    }

    /// As [`start_call`](Self::start_call), but `fill` writes the request, as for
    /// [`call_async_with`](Self::call_async_with).
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call); [`Error::BadConfig`] for an impossible alignment.
    pub fn start_call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        let payload = Payload::Fill(Some(Box::new(fill)));
        self.shared().start(size, layout, payload, timeout, Box::new(on_done))
    }

    /// As [`CallHandle::cancel`], for the call of that [`id`](CallHandle::id).
    pub fn cancel_call(&self, id: u64) -> bool {
        self.shared().is_this_process() && self.shared().cancel_call(id)
    }

    /// Closes all connections for good, as dropping the last clone does, which also waits for callbacks that are
    /// running. From then on every call fails with [`Error::Closed`], calls under way on other threads included.
    /// Responses that are held stay readable.
    pub fn close(&self) {
        if self.shared().is_this_process() {
            self.shared().close();
        }
    }

    /// What closes this pool, all clones of it, from any thread; as [`close`](Self::close).
    pub fn closer(&self) -> Closer {
        Closer::of(self.shared())
    }
}

impl Close for Shared {
    fn is_this_process(&self) -> bool {
        self.is_this_process()
    }

    fn close(&self) {
        self.close_connections();
    }

    fn is_closed(&self) -> bool {
        self.has_closed()
    }
}
