//! A client of whatever kind of server has the name.

use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, ErrorKind, Result, v1};

/// Between two tries to find a server of either kind.
const PAUSE: Duration = Duration::from_millis(1);
/// A server of two buffers notices a new client within 100 ms at the latest.
const HANDSHAKE: Duration = Duration::from_millis(300);

/// What a client brings and expects.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) metadata: Vec<u8>,
    /// How long sending waits for room.
    pub(super) send_timeout: Duration,
    /// The user that the server must run as, if it is not this process's own.
    pub(super) owner: Option<u32>,
    /// Permissions of what the client makes.
    pub(super) mode: Option<u32>,
    /// Size of the ring that a service is asked for; 0 leaves it to the service.
    pub(super) ring: usize,
}

/// A server.
pub(super) enum Found {
    /// One that edits in place, with this client attached to it.
    InPlace(Box<Client>),
    /// One of two buffers, and how long attaching to it may take.
    TwoBuffers { wait: Duration },
}

/// The ring of a version 1 buffer that holds one frame of this length at a time: 16 bytes before it, and
/// either none or at least 16 after it, in units of 64 bytes.
pub(super) fn two_buffer_ring(bytes: usize) -> usize {
    (bytes + 32).next_multiple_of(64)
}

/// Finds out the kind, as `Client::connect_with` does, but stops before it makes the buffer for
/// responses, whose size may have to be found out first. A service comes first, then an in-place channel.
///
/// # Errors
/// As [`Client::connect_with`].
pub(super) fn find(name: &str, wait: Duration, terms: &Terms) -> Result<Found> {
    let start = Instant::now();
    loop {
        let error = match connect_in_place(name, Duration::ZERO, terms) {
            Ok(client) => return Ok(Found::InPlace(Box::new(client))),
            Err(error) if may_pass(error.kind()) => error,
            Err(error) => return Err(error),
        };
        // Not before the try, which waits for a server that hangs as long as its ring may take to make.
        let left = wait.saturating_sub(start.elapsed());
        if may_have_two_buffers(name) && v1::is_duplex_server_running(channel_of(name))? {
            return Ok(Found::TwoBuffers { wait: left.max(HANDSHAKE) });
        }
        if left.is_zero() {
            return Err(error);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

/// Whether a client that has not found a server, or no place there, may find one later.
fn may_pass(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotRunning | ErrorKind::Busy | ErrorKind::NoSpace)
}

/// The name of the channel, without what forces one.
pub(super) fn channel_of(name: &str) -> &str {
    name.strip_prefix("channel:").unwrap_or(name)
}

fn may_have_two_buffers(name: &str) -> bool {
    !name.starts_with("service:")
}

/// Attaches to a service or to an in-place channel.
///
/// # Errors
/// As [`Client::connect_with`].
pub(super) fn connect_in_place(name: &str, wait: Duration, terms: &Terms) -> Result<Client> {
    Client::connect_with(name, wait, terms.config(ChannelKind::InPlace))
}

/// With room for one response of `bytes` bytes.
///
/// # Errors
/// As [`Client::connect_with`].
pub(super) fn connect_to_two_buffers(
    name: &str,
    wait: Duration,
    bytes: usize,
    terms: &Terms,
) -> Result<Client> {
    let config = terms.config(ChannelKind::TwoBuffers);
    let responses = BufferConfig::new(0, two_buffer_ring(bytes));
    Client::connect_with(channel_of(name), wait, config.response_buffer(responses))
}

impl Terms {
    fn config(&self, kind: ChannelKind) -> ClientConfig {
        let mut config = ClientConfig::new()
            .channel(kind)
            .send_timeout(self.send_timeout)
            .ring(self.ring)
            .metadata(self.metadata.clone());
        if let Some(uid) = self.owner {
            config = config.owner(uid);
        }
        if let Some(mode) = self.mode {
            config = config.mode(mode);
        }
        config
    }
}

/// What neither a frame nor the metadata of a version 1 buffer can exceed: its size with everything in it.
pub(super) fn size_of_buffer(name: &str) -> usize {
    let segment = std::fs::metadata(format!("/dev/shm/{name}"));
    // One that no longer exists is what connecting and writing complain about.
    segment.map_or(0, |segment| usize::try_from(segment.len()).unwrap_or(usize::MAX))
}
