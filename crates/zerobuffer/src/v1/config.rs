//! What readers and writers are made of.

use super::Liveness;
use crate::config::BufferConfig;
use crate::wait::WaitStrategy;
use std::time::Duration;

/// What a [`Reader`](super::Reader) is made of.
///
/// ```
/// use zerobuffer::{BufferConfig, v1::{Liveness, ReaderConfig}};
///
/// let config = ReaderConfig::new(BufferConfig::new(4096, 1 << 20))
///     .mode(0o660)
///     .liveness(Liveness::Lock);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    pub(in crate::v1) buffer: BufferConfig,
    pub(in crate::v1) mode: u32,
    pub(in crate::v1) liveness: Liveness,
    pub(in crate::v1) wait: WaitStrategy,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            buffer: BufferConfig::default(),
            mode: 0o600,
            liveness: Liveness::default(),
            wait: WaitStrategy::default(),
        }
    }
}

impl ReaderConfig {
    /// The defaults with these sizes. Both are rounded up to multiples of 64, and in total less than
    /// 2 GiB, which is what C# peers can address. A frame of n bytes takes n + 16 bytes of the ring.
    pub fn new(buffer: BufferConfig) -> Self {
        Self { buffer, ..Self::default() }
    }

    /// Permission bits of the segment, the semaphores and the lock files, whatever the umask is.
    /// Default `0o600`: only programs of the same user can attach.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How the reader finds out that a writer has ended. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// How the reader waits for frames. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }
}

impl From<BufferConfig> for ReaderConfig {
    fn from(buffer: BufferConfig) -> Self {
        Self::new(buffer)
    }
}

/// What a [`Writer`](super::Writer) is made of.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::v1::WriterConfig;
///
/// let config = WriterConfig::new().write_timeout(Duration::from_millis(100));
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct WriterConfig {
    pub(in crate::v1) write_timeout: Duration,
    pub(in crate::v1) liveness: Liveness,
    pub(in crate::v1) wait: WaitStrategy,
    pub(in crate::v1) owner: Option<u32>,
    pub(in crate::v1) restart_sequence: bool,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            write_timeout: Duration::from_secs(5),
            liveness: Liveness::default(),
            wait: WaitStrategy::default(),
            owner: None,
            restart_sequence: false,
        }
    }
}

impl WriterConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a write waits for room, in all. Default 5 seconds. Zero does not wait,
    /// [`Duration::MAX`] waits for ever.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// How the writer finds out that the reader has ended. Default [`Liveness::Pid`].
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// How the writer waits for room. Default [`WaitStrategy::SpinThenPark`].
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// The user id that must own the buffer's objects. Default: this process's effective user.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Whether to start again with sequence 1 on a used buffer whose last sequence cannot be determined.
    /// Default no: the existing readers of C++ and Python fail on it permanently. This library's reader accepts
    /// it.
    pub fn restart_sequence(mut self, restart: bool) -> Self {
        self.restart_sequence = restart;
        self
    }
}
