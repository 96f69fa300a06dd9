//! What the two ends of a duplex channel are made of.

use crate::config::BufferConfig;
use crate::v1::{Liveness, ReaderConfig, WriterConfig};
use crate::wait::WaitStrategy;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Makes the response to a request whose handler failed, out of the handler's message.
pub(super) type FailureResponse = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// What a [`DuplexServer`](super::DuplexServer) is made of.
///
/// ```
/// use zerobuffer::{BufferConfig, v1::DuplexServerConfig};
///
/// let config = DuplexServerConfig::new(BufferConfig::new(4096, 1 << 20))
///     .failure_response(|message| format!("ERROR {message}").into_bytes());
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct DuplexServerConfig {
    pub(super) requests: ReaderConfig,
    pub(super) failure_response: Option<FailureResponse>,
    pub(super) stop_timeout: Duration,
    pub(super) owner: Option<u32>,
}

impl DuplexServerConfig {
    /// The defaults with these sizes of the request buffer. The client makes the response buffer.
    pub fn new(buffer: BufferConfig) -> Self {
        Self {
            requests: ReaderConfig::new(buffer),
            failure_response: None,
            stop_timeout: Duration::from_secs(2),
            owner: None,
        }
    }

    /// What to send when the handler fails or sends nothing. Default: nothing can be sent that the
    /// client would recognise as a failure, so the channel is closed, the client sees that its server
    /// has gone, and can connect again.
    pub fn failure_response(
        mut self,
        response: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.failure_response = Some(Arc::new(response));
        self
    }

    /// See [`ReaderConfig::mode`].
    pub fn mode(mut self, mode: u32) -> Self {
        self.requests = self.requests.mode(mode);
        self
    }

    /// How the server finds out that a client is gone. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.requests = self.requests.liveness(liveness);
        self
    }

    /// How the server waits for requests. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.requests = self.requests.wait(strategy);
        self
    }

    /// How long [`DuplexServer::stop`](super::DuplexServer::stop) waits for a running handler. Default
    /// 2 seconds.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// The user id that must own the response buffer, which the client makes; a client of any other user is not
    /// served. Default: this process's effective user.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }
}

impl Default for DuplexServerConfig {
    fn default() -> Self {
        Self::new(BufferConfig::default())
    }
}

impl From<BufferConfig> for DuplexServerConfig {
    fn from(buffer: BufferConfig) -> Self {
        Self::new(buffer)
    }
}

impl fmt::Debug for DuplexServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuplexServerConfig")
            .field("requests", &self.requests)
            .field("failure_response", &self.failure_response.is_some())
            .field("stop_timeout", &self.stop_timeout)
            .field("owner", &self.owner)
            .finish()
    }
}

/// What a [`DuplexClient`](super::DuplexClient) is made of.
///
/// ```
/// use zerobuffer::{BufferConfig, v1::DuplexClientConfig};
///
/// let config = DuplexClientConfig::new()
///     .response_buffer(BufferConfig::new(0, 64 << 20))
///     .metadata("rgb24, 1920 x 1080");
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct DuplexClientConfig {
    pub(super) responses: ReaderConfig,
    pub(super) requests: WriterConfig,
    pub(super) metadata: Vec<u8>,
    pub(super) max_in_flight: usize,
}

impl Default for DuplexClientConfig {
    fn default() -> Self {
        Self {
            responses: ReaderConfig::new(BufferConfig::new(4096, 32 << 20)),
            // A used request buffer whose last sequence cannot be made out is only made by a peer of
            // the kind that accepts a restart, or has no use for a second client anyway.
            requests: WriterConfig::new().restart_sequence(true),
            metadata: Vec::new(),
            max_in_flight: 4096,
        }
    }
}

impl DuplexClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sizes of the response buffer, which the client makes. Default 4 KiB of metadata and 32 MiB of
    /// ring (deployed clients: 256 MiB, all of it touched).
    ///
    /// Responses of up to half of the ring, less 24 bytes, always fit: with the default a picture of
    /// 1920 × 1080 with four bytes for each pixel. A longer one may not, and then never comes. What is in
    /// flight is bounded by half of the ring, too, as if each response were as long as its request.
    pub fn response_buffer(mut self, buffer: BufferConfig) -> Self {
        self.responses.buffer = buffer;
        self
    }

    /// The client's metadata, which the server's handler can read. Default none. A deployed server
    /// takes only its first client's.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// The most requests in flight. Default 4096. Their bytes are bounded as well, by half of the
    /// response buffer: a deployed server whose response finds no room loses it.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How long sending waits for room in the ring. Default 5 seconds.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.requests = self.requests.write_timeout(timeout);
        self
    }

    /// See [`ReaderConfig::mode`].
    pub fn mode(mut self, mode: u32) -> Self {
        self.responses = self.responses.mode(mode);
        self
    }

    /// How the client finds out that the server is gone. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.responses = self.responses.liveness(liveness);
        self.requests = self.requests.liveness(liveness);
        self
    }

    /// How the client waits. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.responses = self.responses.wait(strategy);
        self.requests = self.requests.wait(strategy);
        self
    }

    /// The user id that must own the server's objects. Default: this process's effective user.
    pub fn owner(mut self, uid: u32) -> Self {
        self.requests = self.requests.owner(uid);
        self
    }
}
