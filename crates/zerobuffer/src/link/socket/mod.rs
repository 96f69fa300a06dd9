//! Clients and workers of a service, each pair with a socket and a segment of its own
//! (docs/protocol-service.md).

mod bell;
mod connect;
mod directory;
mod estate;
mod handshake;
mod segment;
mod sleepers;
mod status;

pub(crate) use bell::{Bell, Side};
pub(crate) use connect::{Connected, Wanted, connect};
pub(crate) use directory::{NO_SOCKET, Published};
pub(crate) use estate::{Estate, Remains, Undertaker};
pub(crate) use handshake::{Ask, BadHello, EMPTY_BUFFER, Hello, Refusal, Reply};
pub(crate) use segment::{Growing, file_size, geometry};
pub(crate) use sleepers::Sleepers;
pub(crate) use status::ask_status;

/// Bytes of a segment of these sizes; `None` if there is none.
pub(crate) fn segment_size(
    metadata_request: u64,
    metadata_response: u64,
    ring: u64,
) -> Option<u64> {
    geometry(metadata_request, metadata_response, ring).as_ref().map(file_size)
}
