//! What the two ends of a duplex channel are made of.

use crate::config::BufferConfig;
use crate::v1::{Liveness, ReaderConfig};
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
    /// has closed, and can connect again.
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

    /// How the server finds out that a client has ended. Default [`Liveness::Pid`].
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
