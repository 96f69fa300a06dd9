#![deny(unsafe_code)]
// Under loom only the algorithm is built; what serves the rest lies idle.
#![cfg_attr(loom, allow(dead_code, unused_imports))]
//! In-place duplex channels: draft.

mod atomics;
#[cfg(not(loom))]
mod config;
mod error;
#[cfg(not(loom))]
mod liveness;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod name;
mod sys;
#[cfg(not(loom))]
mod trace;
mod v2;
mod wait;

#[cfg(not(loom))]
pub use config::{BufferConfig, ClientConfig, ServerConfig};
pub use error::{Error, ErrorKind, LostRequest, RequestState, Result};
#[cfg(not(loom))]
pub use name::{ChannelName, MAX_NAME_LEN};
#[cfg(not(loom))]
pub use v2::client::{
    Client, OwnedResponse, Reconnected, RequestBuffer, RequestLayout, RequestSender, Response,
    ResponseReceiver, SharedClient,
};
#[cfg(not(loom))]
pub use v2::server::{Frame, HandlerOutcome, OwnedRequest, Request, Server};
pub use wait::WaitStrategy;
