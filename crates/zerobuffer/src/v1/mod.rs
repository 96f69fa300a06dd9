//! Protocol version 1: one-way buffers, and duplex channels made of two, as existing programs with
//! [`zerobuffer-ipc`](https://pypi.org/project/zerobuffer-ipc/) or its C++ and C# counterparts use them. Use it
//! to communicate with those; between programs of this library the in-place
//! channel ([`Server`](crate::Server), [`Client`](crate::Client)) copies nothing and tells more.
//!
//! | I want to | use |
//! |---|---|
//! | receive frames | [`Reader`], which creates the buffer |
//! | send frames | [`Writer`], which attaches to it |
//! | answer requests | [`DuplexServer`] |
//! | send requests | [`Client`](crate::Client), which finds either kind of channel |
//!
//! # What holds
//!
//! A frame is delivered whole and in order, or an error says why not; nothing is believed that a peer
//! wrote without checking it. A buffer has its name only while all of it is there, and is removed
//! without touching anybody else's. Nobody waits beyond a deadline, and a peer's death is noticed in
//! milliseconds ([`Liveness`]).
//!
//! # What the protocol does not give
//!
//! - Which response belongs to which request: they are counted (rule X1 of `docs/protocol-v1.md`). An
//!   existing server whose handler fails shifts all later responses; see
//!   [`Client::is_desynchronised`](crate::Client::is_desynchronised).
//! - More than one writer, one client, one server of a name.
//! - Frames of no bytes, and any mix of frames longer than half of the ring: see
//!   [`Error::WouldNeverFit`](crate::Error::WouldNeverFit).
//! - Proof of life across pid namespaces, beyond what [`Liveness`] offers.
//! - Other systems: the layout of semaphores is glibc's on 64-bit Linux (rules L17 to L19); elsewhere
//!   every way in fails with [`Error::Unsupported`](crate::Error::Unsupported).
//!
//! # Trust
//!
//! As for the whole crate: slices of shared bytes are handed out because the protocol gives them to one
//! side at a time, and only the same user can open a buffer unless [`ReaderConfig::mode`] says otherwise.

mod attach;
mod config;
mod create;
mod duplex;
mod frame;
mod layout;
mod liveness;
mod locks;
mod reader;
mod ring;
mod segment;
mod words;
mod writer;

pub use crate::config::Liveness;
pub use config::{ReaderConfig, WriterConfig};
pub use create::remove_leftovers;
pub(crate) use duplex::{Channel, Filling, Patience, SAME_LENGTH};
pub use duplex::{
    Draft, DuplexServer, DuplexServerStatistics, Reply, RequestView, is_duplex_server_running,
};
pub use reader::{FrameView, OwnedFrameView, Reader, segment_size};
pub use ring::{ReaderStatistics, WriterStatistics};
pub use writer::{FrameBuffer, Writer};
