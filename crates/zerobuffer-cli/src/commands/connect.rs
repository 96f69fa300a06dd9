//! A client of whatever kind of server has the name.

use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, ClientConfig, DuplexClient, Error, Result, v1};

/// Between two looks for a server of either kind.
const PAUSE: Duration = Duration::from_millis(1);
/// A server of two buffers looks for new clients every 100 ms if it is a deployed one.
const HANDSHAKE: Duration = Duration::from_millis(300);

/// What a client needs of its channel.
pub(super) struct Needs {
    /// Length of each request, and of each answer where it has its own buffer.
    pub(super) bytes: usize,
    pub(super) metadata: Vec<u8>,
    /// How long sending waits for room.
    pub(super) send_timeout: Duration,
}

/// The ring of a version 1 buffer that holds one frame of this length at a time: 16 bytes before it, and
/// either none or at least 16 after it, in units of 64 bytes.
pub(super) fn two_buffer_ring(bytes: usize) -> usize {
    (bytes + 32).next_multiple_of(64)
}

/// Connects as `DuplexChannelFactory::create_client` does, which finds out the kind but takes no metadata
/// and no sizes: an in-place channel comes first if there are both.
///
/// # Errors
/// As [`Client::connect_with`] and [`v1::DuplexClient::connect_with`].
pub(super) fn connect(name: &str, wait: Duration, needs: &Needs) -> Result<DuplexClient> {
    let start = Instant::now();
    loop {
        let left = wait.saturating_sub(start.elapsed());
        let config =
            ClientConfig::new().send_timeout(needs.send_timeout).metadata(needs.metadata.clone());
        let error = match Client::connect_with(name, Duration::ZERO, config) {
            Ok(client) => return Ok(DuplexClient::InPlace(client)),
            Err(error @ (Error::NotRunning { .. } | Error::Busy { .. })) => error,
            Err(error) => return Err(error),
        };
        if v1::is_duplex_server_running(name)? {
            let client = connect_to_two_buffers(name, left.max(HANDSHAKE), needs)?;
            return Ok(DuplexClient::TwoBuffers(Box::new(client)));
        }
        if left.is_zero() {
            return Err(error);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

/// # Errors
/// As [`v1::DuplexClient::connect_with`].
pub(super) fn connect_to_two_buffers(
    name: &str,
    wait: Duration,
    needs: &Needs,
) -> Result<v1::DuplexClient> {
    let config = v1::DuplexClientConfig::new()
        .send_timeout(needs.send_timeout)
        .metadata(needs.metadata.clone())
        .response_buffer(BufferConfig::new(0, two_buffer_ring(needs.bytes)));
    v1::DuplexClient::connect_with(name, wait, config)
}
