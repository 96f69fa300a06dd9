//! What a channel is made of: small structs with documented defaults and named setters.

use crate::memory::SharedMemoryView;
use crate::seats::Seats;
use crate::sys::Pages;
use crate::v2::layout::Demand;
use crate::wait::WaitStrategy;
use std::sync::Arc;
use std::time::Duration;

/// The sizes of a channel's blocks, and where their memory comes from.
///
/// ```
/// use zerobuffer::BufferConfig;
///
/// // 4 KiB of metadata each way, and 100 MiB that requests and responses share.
/// let config = BufferConfig::new(4096, 100 * 1024 * 1024);
/// assert_eq!(config.payload_size(), 104_857_600);
/// ```
#[derive(Debug, Clone)]
pub struct BufferConfig {
    pub(crate) metadata_size: usize,
    pub(crate) payload_size: usize,
    /// `None`: new named shared memory.
    pub(crate) existing: Option<SharedMemoryView>,
}

impl BufferConfig {
    /// New shared memory: `metadata_size` bytes of metadata for each direction (0 for none; a message
    /// needs 8 more than its length; 64 MiB at most), and `payload_size` bytes of ring. Both are rounded up
    /// to a multiple of 64.
    ///
    /// A frame of n bytes takes n + 64 bytes of the ring, rounded up to 64 (n ≤ 32: 64 bytes). The ring
    /// should hold the frames in flight, and the responses that are held, at the same time.
    pub fn new(metadata_size: usize, payload_size: usize) -> Self {
        Self { metadata_size, payload_size, existing: None }
    }

    /// New shared memory whose ring holds exactly `in_flight` frames of up to `frame_size` bytes at the
    /// same time: requests under way and responses that are held, together. 1 KiB of metadata, as in
    /// [`BufferConfig::default`].
    ///
    /// The ring is `in_flight` times the bytes that one frame takes with its header. Frames with an
    /// alignment of their own, or of different sizes, may leave gaps; give the ring some frames more then.
    /// On two buffers (version 1) a frame may have to leave the end of the ring unused: ask for one frame
    /// more than are to be in flight.
    ///
    /// ```
    /// use zerobuffer::BufferConfig;
    ///
    /// // Four pictures of 1920 x 1080 in RGB, each with 64 bytes of header and padding.
    /// let config = BufferConfig::for_frames(1920 * 1080 * 3, 4);
    /// assert_eq!(config.payload_size(), 4 * (1920 * 1080 * 3 + 64));
    /// ```
    ///
    /// Sizes beyond what memory can hold become [`usize::MAX`], which a server refuses.
    pub fn for_frames(frame_size: usize, in_flight: usize) -> Self {
        let slot = Demand::anywhere(frame_size as u64).slot_len(0);
        let slot = slot.and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        Self { payload_size: slot.saturating_mul(in_flight), ..Self::default() }
    }

    /// Memory that exists, as the payload: the proposal's view mode.
    ///
    /// An in-place channel is always one segment of its own, in which the response side is a view of
    /// the request side's payload already; a server refuses such a configuration with
    /// [`Error::Unsupported`](crate::Error::Unsupported).
    pub fn over(metadata_size: usize, payload: SharedMemoryView) -> Self {
        Self { metadata_size, payload_size: payload.len(), existing: Some(payload) }
    }

    /// Bytes of metadata for each direction.
    pub fn metadata_size(&self) -> usize {
        self.metadata_size
    }

    /// Bytes of the ring.
    pub fn payload_size(&self) -> usize {
        self.payload_size
    }
}

impl Default for BufferConfig {
    /// 1 KiB of metadata, 1 MiB of payload.
    fn default() -> Self {
        Self::new(1024, 1024 * 1024)
    }
}

/// What a [`Server`](crate::Server) or a [`v1::DuplexServer`](crate::v1::DuplexServer) is made of.
///
/// ```
/// use zerobuffer::{BufferConfig, ServerConfig, WaitStrategy};
///
/// let config = ServerConfig::new(BufferConfig::new(0, 1 << 20))
///     .workers(4)
///     .wait(WaitStrategy::Park)
///     .metadata("rgb24, 1920 x 1080");
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub(crate) buffer: BufferConfig,
    pub(crate) mode: u32,
    pub(crate) wait: WaitStrategy,
    pub(crate) workers: usize,
    pub(crate) max_concurrent: usize,
    pub(crate) metadata: Vec<u8>,
    pub(crate) stop_timeout: Duration,
    pub(crate) pages: Pages,
    pub(crate) failure_response: Option<FailureResponse>,
    pub(crate) liveness: Liveness,
    pub(crate) owner: Option<u32>,
}

/// Makes the response to a request whose handler failed, out of the handler's message.
#[derive(Clone)]
pub(crate) struct FailureResponse(pub(crate) Arc<Respond>);

type Respond = dyn Fn(&str) -> Vec<u8> + Send + Sync;

impl std::fmt::Debug for FailureResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureResponse")
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            buffer: BufferConfig::default(),
            mode: 0o600,
            wait: WaitStrategy::default(),
            workers: 1,
            max_concurrent: usize::MAX,
            metadata: Vec::new(),
            stop_timeout: Duration::from_secs(2),
            pages: Pages::default(),
            failure_response: None,
            liveness: Liveness::default(),
            owner: None,
        }
    }
}

impl ServerConfig {
    /// The defaults with these sizes.
    pub fn new(buffer: BufferConfig) -> Self {
        Self { buffer, ..Self::default() }
    }

    /// Permission bits of the segment and its semaphores, whatever the umask is. Default `0o600`: only
    /// programs of the same user can attach. Every process that can write the segment can disturb the channel.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How the server waits for requests. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// How many threads [`Server::start`](crate::Server::start) runs the handler on. Default 1; with
    /// more, answers may overtake each other.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many tasks of [`Server::start_async`](crate::Server::start_async) may be under way at the same
    /// time; further requests wait in the ring, not started. Default: as many as the ring holds.
    pub fn max_concurrent(mut self, tasks: usize) -> Self {
        self.max_concurrent = tasks;
        self
    }

    /// The server's metadata, which each client can read. Default none; needs 8 bytes more of the
    /// metadata block than its length.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// How long [`Server::stop`](crate::Server::stop) waits for running handlers, and then for the
    /// client to read its responses. Default 2 seconds.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// When the segment's pages are faulted in, in this process. Default [`Pages::OnDemand`]. The
    /// memory lies on the NUMA nodes that this process may allocate on when it creates the segment.
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = pages;
        self
    }

    /// Two buffers: what to send when the handler fails or sends nothing. Default: nothing can be sent that
    /// the client would recognise as a failure, so the channel is closed, the client is told that its server
    /// has closed it, and can connect again.
    ///
    /// ```
    /// use zerobuffer::{BufferConfig, ServerConfig};
    ///
    /// let config = ServerConfig::new(BufferConfig::new(4096, 1 << 20))
    ///     .failure_response(|message| format!("ERROR {message}").into_bytes());
    /// # let _ = config;
    /// ```
    pub fn failure_response(
        mut self,
        response: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.failure_response = Some(FailureResponse(Arc::new(response)));
        self
    }

    /// Two buffers: how the server finds out that a client has died. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Two buffers: the user id that must own the response buffer, which the client makes; a client of any other
    /// user is not served. Default: this process's effective user.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }
}

impl From<BufferConfig> for ServerConfig {
    fn from(buffer: BufferConfig) -> Self {
        Self::new(buffer)
    }
}

/// Which kinds of channels a client looks for under its name; see [`ClientConfig::channel`].
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, ErrorKind, Server};
///
/// let name = format!("doc-kind-{}", std::process::id());
/// let _server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// let config = ClientConfig::new().channel(ChannelKind::TwoBuffers);
/// let error = Client::connect_with(&name, Duration::ZERO, config).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotRunning);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ChannelKind {
    /// Whatever there is: a service first, then an in-place channel.
    #[default]
    Any,
    /// Protocol version 2: the response lies where the request was. A service or a channel.
    InPlace,
    /// A [`Service`](crate::Service), which serves any number of clients, and no channel.
    Service,
    /// Protocol version 1: requests and responses have a buffer each. Existing v1 programs speak no other
    /// one.
    TwoBuffers,
}

/// How one side of two buffers finds out that the other has died.
///
/// Used by [`ClientConfig::liveness`] and the configurations of [`v1`](crate::v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Liveness {
    /// By the peer's process id, as the existing v1 programs do. Right where both sides see the same process
    /// ids, and wrong both ways where they do not; a zombie counts as dead, another user's process as
    /// alive.
    #[default]
    Pid,
    /// A reader is alive while it holds one of its lock files: right across containers that share /tmp
    /// and /dev/shm but not their process ids. Writers hold no lock, so a writer that does not close
    /// keeps its place until the reader is made anew.
    Lock,
    /// Nobody is ever taken for dead: for containers that share nothing but /dev/shm.
    None,
}

/// What a [`Client`](crate::Client) is made of.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{ClientConfig, WaitStrategy};
///
/// let config = ClientConfig::new()
///     .wait(WaitStrategy::Spin)
///     .send_timeout(Duration::from_millis(100))
///     .resend_not_started(true);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(crate) wait: WaitStrategy,
    pub(crate) send_timeout: Duration,
    pub(crate) metadata: Vec<u8>,
    pub(crate) max_in_flight: usize,
    pub(crate) owner: Option<u32>,
    pub(crate) resend_not_started: bool,
    pub(crate) pages: Pages,
    pub(crate) channel: ChannelKind,
    pub(crate) response_buffer: BufferConfig,
    pub(crate) mode: u32,
    pub(crate) liveness: Liveness,
    pub(crate) ring: usize,
    pub(crate) label: String,
    /// A channel, and no service.
    pub(crate) without_services: bool,
    /// Where services are.
    pub(crate) place: Place,
    /// Of a pool's connections: servers that others have, which are left out.
    pub(crate) seats: Option<Seats>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            wait: WaitStrategy::default(),
            send_timeout: Duration::from_secs(5),
            metadata: Vec::new(),
            max_in_flight: 4096,
            owner: None,
            resend_not_started: false,
            pages: Pages::default(),
            channel: ChannelKind::default(),
            response_buffer: BufferConfig::new(4096, 32 << 20),
            mode: 0o600,
            liveness: Liveness::default(),
            ring: 0,
            label: program(),
            without_services: false,
            place: Place::default(),
            seats: None,
        }
    }
}

impl ClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which kinds of channels the client looks for. Default [`ChannelKind::Any`]. It reconnects to the kind
    /// that it has found.
    pub fn channel(mut self, kind: ChannelKind) -> Self {
        self.channel = kind;
        self
    }

    /// How the client waits for responses and for space. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// How long sending waits for room in the ring. Default 5 seconds. Calls with a timeout of their
    /// own use that.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// The client's metadata, which the handler finds in every frame of this connection. Default
    /// none; needs 8 bytes more of the server's metadata block than its length. An existing v1 server takes
    /// only its first client's.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// The most requests that can be in flight. Default 4096. In place that includes held responses, is rounded
    /// up to a power of two, and takes 24 bytes of private memory for each. Over two buffers their bytes are
    /// bounded as well, see [`response_buffer`](Self::response_buffer).
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// The user id that must own the channel's objects. Default: this process's effective user.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self.place.owner = Some(uid);
        self
    }

    /// Whether requests that the server's end left [`NotStarted`](crate::RequestState::NotStarted) are
    /// sent again: by [`Client::call`](crate::Client::call) and
    /// [`SharedClient::call`](crate::SharedClient::call) by themselves within their timeout, and by
    /// [`Client::reconnect`](crate::Client::reconnect) for those that were sent before. Default no.
    pub fn resend_not_started(mut self, resend: bool) -> Self {
        self.resend_not_started = resend;
        self
    }

    /// When the segment's pages are faulted in, in this process. Default [`Pages::OnDemand`]; the
    /// server's choice is its own. Huge pages that the server has made serve both.
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = pages;
        self
    }

    /// Two buffers: the sizes of the response buffer, which the client makes. Default 4 KiB of metadata and
    /// 32 MiB of ring (existing v1 clients: 256 MiB, all of it touched).
    ///
    /// Responses of up to half of the ring, less 24 bytes, always fit: with the default a picture of
    /// 1920 × 1080 with four bytes for each pixel. A longer one may not, and then never comes. What is in
    /// flight is bounded by half of the ring, too, as if each response were as long as its request.
    pub fn response_buffer(mut self, buffer: BufferConfig) -> Self {
        self.response_buffer = buffer;
        self
    }

    /// Two buffers: permission bits of the response buffer, its semaphores and lock files, whatever the umask
    /// is. Default `0o600`: only a server of the same user can attach.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Two buffers: how the client finds out that the server has died. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Services: bytes of the ring. Default 0: what the server gives its clients. On a channel the server
    /// alone decides.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{Client, ClientConfig, Service, ServiceConfig};
    ///
    /// let name = format!("doc-ring-{}", std::process::id());
    /// let service = Service::create(&name, ServiceConfig::new())?;
    /// let config = ClientConfig::new().ring(1 << 20);
    /// let client = Client::connect_with(&name, Duration::from_secs(5), config)?;
    /// assert_eq!(client.max_request_size(), (1 << 20) - 64);
    /// # drop(service);
    /// # zerobuffer::Servers::of(&name)?.clean()?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn ring(mut self, bytes: usize) -> Self {
        self.ring = bytes;
        self
    }

    /// Services: what the server calls this client, in its own words, of at most 192 bytes. Default: the
    /// program's name.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Services: the runtime directory in which their sockets are. Default: `$ZEROBUFFER_DIR`; otherwise every
    /// place in which this user's services, or root's, may be.
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.place.directory = Some(path.into());
        self
    }

    /// The name without what forces a kind of server, and the configuration with it.
    pub(crate) fn of_name(mut self, name: &str) -> (&str, Self) {
        // A version 1 name may begin like this.
        match name.split_once(':').filter(|_| self.channel != ChannelKind::TwoBuffers) {
            Some(("service", name)) => (name, self.channel(ChannelKind::Service)),
            Some(("channel", name)) => {
                self.without_services = true;
                (name, self)
            }
            _ => (name, self),
        }
    }
}

/// The name that this program was started by.
fn program() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&first).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A directory that the caller names, and whose it may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The runtime directory; `None` for the usual ones.
    pub(crate) directory: Option<String>,
    /// The user it may belong to, besides the own one and root.
    pub(crate) owner: Option<u32>,
    /// The group that may reach the sockets.
    pub(crate) group: Option<u32>,
}
