//! The systems that are compared: each sends bytes to a server process, which edits them and sends
//! them back. What an edit in place costs nothing for is what the others copy.

pub(crate) mod buffer;
pub(crate) mod clients;
pub(crate) mod csharp;
pub(crate) mod death;
pub(crate) mod exchange;
pub(crate) mod growth;
#[cfg(feature = "iceoryx2")]
pub(crate) mod iceoryx;
pub(crate) mod idle;
pub(crate) mod in_place;
pub(crate) mod programs;
pub(crate) mod service;
pub(crate) mod shared_client;
pub(crate) mod streams;
mod system;
pub(crate) mod two_buffers;
pub(crate) mod zeromq;

pub(crate) use system::System;
