//! Protocol version 1: the deployed dual-buffer ring.
//!
//! draft

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

pub use crate::name::BufferName;
pub use config::{ReaderConfig, WriterConfig};
pub use create::remove_leftovers;
pub use duplex::{
    Draft, DuplexClient, DuplexClientConfig, DuplexResponse, DuplexServer, DuplexServerConfig,
    DuplexServerStatistics, OwnedDuplexResponse, Reply, Request, RequestBuffer,
    is_duplex_server_running,
};
pub use liveness::Liveness;
pub use reader::{Frame, OwnedFrame, Reader, segment_size};
pub use ring::{ReaderStatistics, WriterStatistics};
pub use writer::{FrameBuffer, Writer};
