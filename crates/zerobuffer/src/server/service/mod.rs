//! A service: any number of clients, each with a segment of its own.

mod attached;
mod config;
mod door;
mod hub;
mod queue;
mod servers;
mod status;

pub use config::ServiceConfig;
pub use servers::Servers;

use super::connection::Connection;
use super::guards::{Frame, OwnedRequest, Request};
use super::{tasks, worker};
use crate::atomics::Ordering;
use crate::closer::Closer;
use crate::debug::debug_line;
use crate::error::{Error, Medium, Result};
use crate::handler::HandlerOutcome;
use crate::link::named::has_server;
use crate::link::socket::Undertaker;
use crate::name::ChannelName;
use crate::ready_threads::{Background, LOOK};
use crate::sys;
use crate::tenure::Away;
use crate::v2::ring::Taken;
use crate::wait::{Deadline, Waiter};
use door::{Door, Handle};
use hub::{Cursor, Hub};
use status::About;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// A server of any number of clients, each with memory of its own, under a name that any number of servers
/// share.
///
/// Where a [`Server`](crate::Server) serves one client through memory with a name, a service takes each
/// client that connects, and leaves nothing in the file system but an empty directory. Clients attach with
/// [`Client::connect`](crate::Client::connect), as to a channel. Several processes that create a service of
/// one name share its clients: one for each core, say, or a new version that starts before the old one
/// stops.
///
/// Either give it a handler, which runs in the background ([`start`](Self::start)), or take the requests
/// yourself ([`receive`](Self::receive)). Dropping it stops it cleanly.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{Client, Frame, Service, ServiceConfig};
///
/// let name = format!("doc-service-{}", std::process::id());
/// let mut service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
/// service.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
///
/// let mut clients = [0; 3].map(|_| Client::connect(&name, Duration::from_secs(5)).expect("attaches"));
/// for client in &mut clients {
///     assert_eq!(client.call(b"hello", Duration::from_secs(5))?.data(), b"HELLO");
/// }
/// # drop(service);
/// # zerobuffer::Servers::of(&name)?.clean()?;
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct Service {
    about: Arc<About>,
    door: Arc<Handle>,
    door_thread: Option<JoinHandle<()>>,
    undertaker: Option<Undertaker>,
    background: Background<Cursor>,
    stopped: bool,
}

debug_line!(Service, "Service", |service| name: service.name(), running: service.is_running());

impl Service {
    /// Creates a server of the service `name`; clients can attach as soon as this returns, and are
    /// served once it is started. They find a service before a channel of the same name.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::BadConfig`]; [`Error::AlreadyRunning`] if a channel in place of that
    /// name has a server (see [`ServiceConfig::beside_channel`]); [`Error::TooLarge`] if the metadata does
    /// not fit its block; [`Error::ForeignObject`] if the directory can be written by others;
    /// [`Error::PermissionDenied`]; [`Error::System`]. Nothing is left behind.
    pub fn create(name: &str, config: ServiceConfig) -> Result<Self> {
        config.check()?;
        let name = ChannelName::new(name)?;
        if !config.beside_channel && has_server(&name)? {
            return Err(taken_by_channel(&name));
        }
        let hub = Arc::new(Hub::new(name.as_str(), config.workers, config.max_concurrent)?);
        let worker = sys::random().map_err(|errno| errno.on("name a server of", name.as_str()))?;
        let about = Arc::new(About::new(name.clone(), config, hub, worker));
        let undertaker = Undertaker::start(about.name.as_str(), &about.used)?;
        let (handle, door_thread) = match open_door(&about, &undertaker) {
            Ok(opened) => opened,
            Err(error) => {
                sys::join(undertaker.dismiss());
                return Err(error);
            }
        };
        let config = &about.config;
        let cursor = Cursor::new(Waiter::new(config.wait));
        let background = Background::new(name.as_str(), cursor, config.stop_timeout);
        let (undertaker, stopped, door_thread) = (Some(undertaker), false, Some(door_thread));
        Ok(Self { about, door: handle, door_thread, undertaker, background, stopped })
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.background.name()
    }

    /// How many clients are attached to this server.
    pub fn clients(&self) -> usize {
        self.client_probe()()
    }

    /// What tells any other thread how many clients are attached, also while this service waits in
    /// [`receive`](Self::receive). 0 once the service has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, Service, ServiceConfig};
    ///
    /// let name = format!("doc-service-probe-{}", std::process::id());
    /// let service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
    /// let clients = service.client_probe();
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// std::thread::spawn(move || assert_eq!(clients(), 1)).join().expect("one is attached");
    /// # drop((service, client));
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn client_probe(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<> {
        let hub = Arc::downgrade(&self.about.hub);
        let fork_generation = self.background.fork_generation();
        move || match fork_generation == sys::fork_generation() {
            true => hub.upgrade().map_or(0, |hub| hub.count(0).0),
            false => 0,
        }
    }

    /// What this server says of itself and its clients to monitors: JSON in one line, the same that
    /// [`Servers::status`] gets of every server. The keys are in
    /// [docs/protocol-service.md](https://github.com/zerobuffer/zerobuffer/blob/main/docs/protocol-service.md),
    /// section 3.6 "Status".
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, Service, ServiceConfig};
    ///
    /// let name = format!("doc-service-status-{}", std::process::id());
    /// let service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
    /// let _client = Client::connect(&name, Duration::from_secs(5))?;
    /// assert!(service.status()?.contains(r#""clients":[{"number":"#));
    /// # drop(service);
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongProcess`].
    pub fn status(&self) -> Result<String> {
        self.background.check_process()?;
        Ok(self.about.text())
    }

    /// Runs `handler` on every request of every client, on background threads (see
    /// [`ServiceConfig::workers`]), until [`stop`](Self::stop). Clients are served in turn, one request
    /// each.
    ///
    /// The handler is the same as [`Server::start`](crate::Server::start)'s; [`Frame::client`] tells it
    /// who asks.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it was started or stopped before; [`Error::System`] if a thread
    /// cannot be made.
    pub fn start<H, O>(&mut self, handler: H) -> Result<()>
    where
        H: Fn(&mut Frame<'_>) -> O + Send + Sync + 'static,
        O: HandlerOutcome,
    {
        let handler = Arc::new(handler);
        self.start_each(|_| {
            let handler = Arc::clone(&handler);
            move |frame: &mut Frame<'_>| handler(frame)
        })
    }

    /// As [`start`](Self::start), for a handler with state that it changes, on one worker.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`Error::BadConfig`] with several workers, each of which needs a
    /// handler of its own: [`start_each`](Self::start_each).
    pub fn start_mut<H, O>(&mut self, handler: H) -> Result<()>
    where
        H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        if self.about.config.workers != 1 {
            return Err(Error::BadConfig {
                what: "workers",
                asked: self.about.config.workers as u64,
                allowed: "1 with one handler that has state; start_each makes one for each worker",
            });
        }
        self.start_works(vec![worker::handling(handler)])
    }

    /// As [`start`](Self::start), with a handler for each worker, which `make` makes out of the worker's
    /// number, from 0. Each may have state that it changes.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_each<H, O>(&mut self, make: impl FnMut(usize) -> H) -> Result<()>
    where
        H: FnMut(&mut Frame<'_>) -> O + Send + 'static,
        O: HandlerOutcome,
    {
        self.start_works((0..self.about.config.workers).map(make).map(worker::handling).collect())
    }

    /// As [`start`](Self::start), for a handler that awaits something: each request is a task of its own on
    /// the caller's executor. See [`Server::start_async`](crate::Server::start_async).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_async<S, R, H, F>(&mut self, spawn: S, handler: H) -> Result<()>
    where
        S: FnMut(Pin<Box<dyn Future<Output = ()> + Send>>) -> R + Send + 'static,
        H: FnMut(OwnedRequest) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (hub, places) = (Arc::clone(&self.about.hub), Arc::clone(&self.about.hub.places));
        let is_over = move || hub.is_stopping();
        self.start_works(vec![tasks::spawner(places, is_over, spawn, handler)])
    }

    /// Starts a thread that does each of `works` with the requests.
    fn start_works<W>(&mut self, works: Vec<W>) -> Result<()>
    where
        W: FnMut(&Arc<Connection>, Taken, &Away) + Send + 'static,
    {
        let hub = &self.about.hub;
        self.background.start(works.len(), |ready_threads, cursor| {
            ready_threads.start(works.into_iter().map(|mut work| {
                let (hub, mut cursor) = (Arc::clone(hub), cursor.another());
                move |away: &Away| {
                    let forever = || Deadline::after(Duration::MAX);
                    while let Ok(taken) = hub.next(&mut cursor, &forever()) {
                        let Some(connection) = cursor.connection() else { return };
                        away.go();
                        work(connection, taken, away);
                    }
                }
            }))
        })
    }

    /// Waits for the next request of any client until `timeout` has passed, for a service without a
    /// handler.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, Service, ServiceConfig};
    ///
    /// let name = format!("doc-service-receive-{}", std::process::id());
    /// let mut service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// let sequence = client.send_request(b"ping")?;
    ///
    /// let mut request = service.receive(Duration::from_secs(5))?;
    /// assert_eq!(request.client().map(|client| client.pid()), Some(std::process::id()));
    /// request.data_mut()[1] = b'o';
    /// request.respond();
    ///
    /// let response = client.receive_response_for(sequence, Duration::from_secs(5))?;
    /// assert_eq!(response.data(), b"pong");
    /// # drop(service);
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::InvalidState`] if a handler was started; [`Error::Closed`] after
    /// `stop` or [`Closer::close`]. A client that breaks the protocol only ends its own connection.
    pub fn receive(&mut self, timeout: Duration) -> Result<Request<'_>> {
        let hub = &self.about.hub;
        let cursor = cursor_of(&mut self.background, hub)?;
        let taken = hub.next(cursor, &Deadline::after(timeout))?;
        let connection = cursor.connection().ok_or(Error::Closed)?;
        Ok(Request::new(Frame::new(connection, taken)))
    }

    /// The next request of any client, if there is one: for a service without a handler whose thread waits for
    /// other things, too. It never sleeps; to wait for requests alone use [`receive`](Self::receive).
    ///
    /// Once it has returned `None`, the service's descriptor ([`AsFd`](std::os::fd::AsFd)) becomes readable as
    /// soon as there may be a request again, or the service ends. So wait until it is readable, with `poll`, epoll
    /// or an executor, then call this until it returns `None`. Do not read from the descriptor.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::os::fd::AsFd;
    /// use std::time::Duration;
    /// use zerobuffer::{Client, Service, ServiceConfig};
    ///
    /// let name = format!("doc-service-try-receive-{}", std::process::id());
    /// let mut service = Service::create(&name, ServiceConfig::new().ring(1 << 16))?;
    /// assert!(service.try_receive()?.is_none());
    ///
    /// let client = Client::connect(&name, Duration::from_secs(5))?;
    /// let sequence = client.send_request(b"ping")?;
    /// let mut answered = 0;
    /// while answered == 0 {
    ///     let mut readable = [rustix::event::PollFd::new(&service, rustix::event::PollFlags::IN)];
    ///     rustix::event::poll(&mut readable, None)?;
    ///     while let Some(request) = service.try_receive()? {
    ///         request.respond();
    ///         answered += 1;
    ///     }
    /// }
    /// assert_eq!(client.receive_response_for(sequence, Duration::from_secs(5))?.data(), b"ping");
    /// # drop(service);
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but for the timeout.
    pub fn try_receive(&mut self) -> Result<Option<Request<'_>>> {
        let hub = &self.about.hub;
        let cursor = cursor_of(&mut self.background, hub)?;
        let Some(taken) = hub.try_next(cursor)? else { return Ok(None) };
        let connection = cursor.connection().ok_or(Error::Closed)?;
        Ok(Some(Request::new(Frame::new(connection, taken))))
    }

    /// What ends this service from another thread: a thread that waits in [`receive`](Self::receive)
    /// comes back with [`Error::Closed`], and background threads take nothing more.
    /// [`stop`](Self::stop) does the rest.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.about.hub)
    }

    /// Whether background threads are serving. False before [`start`](Self::start) and after
    /// [`stop`](Self::stop).
    pub fn is_running(&self) -> bool {
        !self.about.hub.is_stopping() && self.background.is_running()
    }

    /// Stops cleanly: no client finds this server any more, nothing more is taken, running handlers finish
    /// (until [`ServiceConfig::stop_timeout`]), and the clients are told, which find every response that was
    /// given. A handler that needs longer, or that calls this itself, leaves its request in doubt
    /// ([`Error::PeerClosed`]): its response is not delivered. What was not taken is not started, and a client
    /// with [`resend_not_started`](crate::ClientConfig::resend_not_started) sends it to another server of the
    /// service. Called again it does nothing.
    ///
    /// # Errors
    /// [`Error::WrongProcess`].
    pub fn stop(&mut self) -> Result<()> {
        self.background.check_process()?;
        let deadline = self.background.stop_deadline();
        if std::mem::replace(&mut self.stopped, true) {
            // If a handler has stopped its own service, nobody has waited for that handler.
            self.background.end(&deadline);
            return Ok(());
        }
        // Release: pairs with the Acquire in the door's thread.
        self.door.is_closing.store(true, Ordering::Release);
        self.door.wake.ring();
        self.about.hub.stop();
        let in_own_hands = self.background.end(&deadline);
        // Requests that were made owned may still be in somebody's hands.
        while self.about.hub.in_hand() > in_own_hands && !deadline.left().is_zero() {
            sys::sleep(LOOK);
        }
        if let Some(thread) = self.door_thread.take() {
            sys::join(thread);
        }
        self.about.hub.close_all();
        if let Some(undertaker) = self.undertaker.take() {
            let thread = undertaker.dismiss();
            // Its last work waits for responses that are in somebody's hands, or for a peer's descriptors. What a
            // handler has that calls this will not come before this returns.
            while in_own_hands == 0 && !thread.is_finished() && !deadline.left().is_zero() {
                sys::sleep(LOOK);
            }
            if thread.is_finished() {
                sys::join(thread);
            }
        }
        Ok(())
    }
}

/// Of the thread that takes requests of a service without a handler.
#[inline]
fn cursor_of<'c>(background: &'c mut Background<Cursor>, hub: &Hub) -> Result<&'c mut Cursor> {
    background.check_process()?;
    background.taker().ok_or_else(|| match hub.is_stopping() {
        true => Error::Closed,
        false => Error::InvalidState { reason: "a handler has the requests" },
    })
}

/// Makes the socket, and starts the thread that lets clients in. Nothing is left if either fails.
fn open_door(about: &Arc<About>, undertaker: &Undertaker) -> Result<(Arc<Handle>, JoinHandle<()>)> {
    // The thread before there is a socket: afterwards nothing can fail.
    let (order, ordered) = channel::<Door>();
    let thread = sys::spawn_behind(&format!("zb-door-{}", about.name), move || {
        if let Ok(door) = ordered.recv() {
            door.run();
        }
    })?;
    match Door::open(Arc::clone(about), undertaker.heir()) {
        Ok(door) => {
            let handle = door.handle();
            // Fails only if the thread has ended, which it does after its work and not before.
            let _ = order.send(door);
            Ok((handle, thread))
        }
        Err(error) => {
            drop(order);
            sys::join(thread);
            Err(error)
        }
    }
}

fn taken_by_channel(name: &ChannelName) -> Error {
    let error = Error::AlreadyRunning { medium: Medium::Channel, name: name.to_string() };
    error.explained(format!(
        "channel {:?} has a server, whose clients a service would take; stop it, choose another name, or \
         allow a service beside it",
        name.as_str()
    ))
}

/// Becomes readable when [`Service::try_receive`] may have something. Never read from it.
#[cfg(unix)]
impl std::os::fd::AsFd for Service {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.about.hub.epoll().as_fd()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // In a forked child this is `WrongProcess`, and nothing is touched.
        let _ = self.stop();
    }
}
