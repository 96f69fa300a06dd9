//! What a service is made of.

use crate::config::Place;
use crate::error::{Error, METADATA_OF_SERVICE, Result};
use crate::link::socket::segment_size;
use crate::sys;
use crate::wait::WaitStrategy;
use std::os::fd::RawFd;
use std::time::Duration;

/// The most that a client can ask for at all.
const MAX_RING: usize = 1 << 30;

/// What a [`Service`](crate::Service) is made of.
///
/// ```
/// use zerobuffer::{ServiceConfig, WaitStrategy};
///
/// let config = ServiceConfig::new()
///     .ring(8 << 20)
///     .max_clients(200)
///     .workers(4)
///     .wait(WaitStrategy::Park);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    pub(super) ring: usize,
    pub(super) metadata_size: usize,
    pub(super) max_ring: usize,
    pub(super) max_clients: usize,
    pub(super) max_clients_per_user: Option<usize>,
    pub(super) max_bytes: Option<u64>,
    pub(super) workers: usize,
    pub(super) max_concurrent: usize,
    pub(super) handlers_per_client: Option<usize>,
    pub(super) wait: WaitStrategy,
    pub(super) metadata: Vec<u8>,
    pub(super) stop_timeout: Duration,
    pub(super) users: Vec<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) place: Place,
    pub(super) listener: Option<RawFd>,
    pub(super) beside_channel: bool,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            ring: 32 << 20,
            metadata_size: 4096,
            max_ring: MAX_RING,
            max_clients: 64,
            max_clients_per_user: None,
            max_bytes: None,
            workers: 1,
            max_concurrent: 1024,
            handlers_per_client: None,
            wait: WaitStrategy::default(),
            metadata: Vec::new(),
            stop_timeout: Duration::from_secs(2),
            users: Vec::new(),
            groups: Vec::new(),
            place: Place::default(),
            listener: None,
            beside_channel: false,
        }
    }
}

impl ServiceConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the ring of a client that asks for none in particular. Default 32 MiB, all of which is
    /// reserved when the client attaches.
    pub fn ring(mut self, bytes: usize) -> Self {
        self.ring = bytes;
        self
    }

    /// Bytes of each of the two metadata blocks, unless a client asks for another size of its own.
    /// Default 4096.
    pub fn metadata_size(mut self, bytes: usize) -> Self {
        self.metadata_size = bytes;
        self
    }

    /// The largest ring that a client can ask for. Default 1 GiB, which is also the most.
    pub fn max_ring(mut self, bytes: usize) -> Self {
        self.max_ring = bytes;
        self
    }

    /// The most clients at the same time. Default 64. Further ones get [`Error::Busy`], and keep trying
    /// until their deadline, on this server and on others of the service.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.max_clients = clients;
        self
    }

    /// The most clients of one user at the same time. Default: half of
    /// [`max_clients`](Self::max_clients) for other users, so that none of them takes every place; all of
    /// them for this server's own user.
    pub fn max_clients_per_user(mut self, clients: usize) -> Self {
        self.max_clients_per_user = Some(clients);
        self
    }

    /// The most bytes of all clients' segments together. Default: half of what the machine, or the
    /// cgroup, has free when the service is created. Beyond it clients get [`Error::NoSpace`].
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How many threads [`Service::start`](crate::Service::start) runs the handler on, for all clients
    /// together. Default 1; with more, also the requests of one client are worked on at the same time, and
    /// their responses may overtake each other.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The most requests that [`Service::start_async`](crate::Service::start_async) has under way at the
    /// same time. Default 1024.
    pub fn max_concurrent(mut self, requests: usize) -> Self {
        self.max_concurrent = requests;
        self
    }

    /// The most requests of one client that are worked on at the same time, however they are served: from when
    /// each is taken until it is answered. Default: as many as are worked on at all, so a client whose requests
    /// take long can have every [worker](Self::workers), and the others wait. Those beyond it are not started
    /// until one is done.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, Frame, Service, ServiceConfig};
    ///
    /// let name = format!("doc-service-handlers-{}", std::process::id());
    /// let config = ServiceConfig::new().ring(1 << 16).workers(2).handlers_per_client(1);
    /// let mut service = Service::create(&name, config)?;
    /// service.start(|frame: &mut Frame| {
    ///     while frame.data() == b"long" && !frame.cancelled() {
    ///         std::thread::sleep(Duration::from_millis(1));
    ///     }
    /// })?;
    ///
    /// let greedy = Client::connect(&name, Duration::from_secs(5))?;
    /// for _ in 0..2 {
    ///     greedy.send_request(b"long")?; // the second one is not started
    /// }
    /// let mut other = Client::connect(&name, Duration::from_secs(5))?;
    /// assert_eq!(other.call(b"short", Duration::from_secs(5))?.data(), b"short");
    /// # drop((greedy, other, service));
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn handlers_per_client(mut self, requests: usize) -> Self {
        self.handlers_per_client = Some(requests);
        self
    }

    /// How the service waits for requests. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// The server's metadata, which each client can read. Default none; needs 8 bytes more of the
    /// metadata block than its length.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// How long [`Service::stop`](crate::Service::stop) waits for running handlers. Default 2 seconds.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// A user whose programs may attach, besides this server's own user and root. The directory must let
    /// them reach the socket, see [`group`](Self::group).
    pub fn user(mut self, uid: u32) -> Self {
        self.users.push(uid);
        self
    }

    /// A group whose members may attach; its directory and socket are made for the group as well. The
    /// last one given owns them.
    pub fn group(mut self, gid: u32) -> Self {
        self.groups.push(gid);
        self.place.group = Some(gid);
        self
    }

    /// The runtime directory, in which the service has a directory of its name. Default
    /// `$ZEROBUFFER_DIR`, else `/run/zerobuffer` for root, else `$XDG_RUNTIME_DIR/zerobuffer`, else
    /// `/tmp/zerobuffer-<uid>`. Containers share it by mounting it.
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.place.directory = Some(path.into());
        self
    }

    /// A listening `SOCK_SEQPACKET` socket that this process was given, by systemd for instance, or that
    /// several servers inherit. It is neither removed nor shut down at the end. Default: a socket of the
    /// server's own.
    pub fn listener(mut self, descriptor: RawFd) -> Self {
        self.listener = Some(descriptor);
        self
    }

    /// Whether the service may start while a channel in place of its name has a server: clients look for a
    /// service first, so it takes the channel's clients. Default false:
    /// [`Service::create`](crate::Service::create) fails with [`Error::AlreadyRunning`].
    pub fn beside_channel(mut self, allowed: bool) -> Self {
        self.beside_channel = allowed;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what, asked: usize, allowed| {
            Err(Error::BadConfig { what, asked: asked as u64, allowed })
        };
        if self.workers == 0 || self.workers > 1024 {
            return refuse("workers", self.workers, "1 to 1024");
        }
        if self.max_concurrent == 0 {
            return refuse("max_concurrent", 0, "1 or more");
        }
        if self.handlers_per_client == Some(0) {
            return refuse("handlers_per_client", 0, "1 or more");
        }
        if self.max_clients == 0 || self.max_clients > 100_000 {
            return refuse("max_clients", self.max_clients, "1 to 100000");
        }
        if self.max_ring > MAX_RING {
            return refuse("max_ring", self.max_ring, "64 bytes to 1 GiB");
        }
        if self.ring == 0 || self.ring > self.max_ring {
            return refuse("ring", self.ring, "64 bytes to max_ring");
        }
        if self.metadata_size > 64 << 20 {
            return refuse("metadata size", self.metadata_size, "0 bytes to 64 MiB");
        }
        let max = self.metadata_size.saturating_sub(8) as u64;
        if !self.metadata.is_empty() && self.metadata.len() as u64 > max {
            let asked = self.metadata.len() as u64;
            return Err(Error::TooLarge { what: METADATA_OF_SERVICE, asked, max });
        }
        Ok(())
    }

    /// How many clients of a user there may be.
    pub(super) fn clients_of(&self, uid: u32) -> usize {
        if uid == sys::effective_uid() {
            self.max_clients_per_user.unwrap_or(self.max_clients)
        } else {
            self.clients_of_others()
        }
    }

    /// The same for each user but this server's own.
    pub(super) fn clients_of_others(&self) -> usize {
        self.max_clients_per_user.unwrap_or(self.max_clients.div_ceil(2))
    }

    /// Bytes that all segments may have together, as things are now.
    pub(super) fn bytes_in_all(&self) -> u64 {
        let usual = || sys::free_memory().map_or(u64::MAX, |free| free / 2);
        // One client of the usual size fits wherever the kernel has that much.
        let one =
            segment_size(self.metadata_size as u64, self.metadata_size as u64, self.ring as u64);
        self.max_bytes.unwrap_or_else(|| usual().max(one.unwrap_or(0)))
    }
}
