//! Requests and responses over two buffers: `{channel}_request`, which the server reads, and
//! `{channel}_response`, which the client reads.
//!
//! Nothing in the data says which response responses which request: the nth response answers the nth
//! request (rule X1). A server of this library sends exactly one response for each request, in order, and closes the
//! channel rather than leave one out. Existing v1 servers leave it to their handlers, so with those a
//! client can only count.

mod channel;
mod connect;
mod in_flight;
mod server;
mod worker;

pub(crate) use channel::{Channel, Filling, Patience, SAME_LENGTH};
pub use server::{Draft, DuplexServer, DuplexServerStatistics, Reply, RequestView};

use crate::error::{Error, Medium, Result};
use crate::memory::SharedMemory;
use crate::name::BufferName;
use crate::v1::Liveness;
use crate::v1::layout::{OIEB, SIZE_AND_VERSION, oieb};
use crate::v1::liveness::PeerWatch;
use crate::v1::segment::map_header;

/// What goes wrong with one of the two buffers, as the channel's.
#[cold]
fn of_channel(error: Error, channel: &str) -> Error {
    let (medium, name) = (Medium::Channel, channel.to_owned());
    match error {
        Error::NotRunning { found, .. } => Error::NotRunning { medium, name, found },
        Error::Busy { .. } => Error::Busy { medium, name },
        Error::AlreadyRunning { .. } => Error::AlreadyRunning { medium, name },
        error => error,
    }
}

/// Whether a server of the two-buffer channel `channel` is there, of this library or of an existing v1 program: its request
/// buffer is complete and its reader alive.
///
/// ```
/// assert!(!zerobuffer::v1::is_duplex_server_running("nobody-serves-this")?);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
///
/// # Errors
/// [`Error::BadName`]. A buffer that cannot be opened is not there.
pub fn is_duplex_server_running(channel: &str) -> Result<bool> {
    let name = BufferName::request(channel)?;
    let Ok(mut memory) = SharedMemory::open_object(&name.segment()) else { return Ok(false) };
    if memory.stat()?.size < OIEB {
        return Ok(false);
    }
    let header = map_header(&mut memory)?;
    let pid = header.load(oieb::READER_PID);
    let is_version_1 = header.load(oieb::SIZE_AND_VERSION) << 24 == SIZE_AND_VERSION << 24;
    Ok(is_version_1 && pid != 0 && PeerWatch::new(Liveness::Pid, &name).is_reader_alive(pid))
}
