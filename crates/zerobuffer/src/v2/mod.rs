//! Protocol version 2: the in-place duplex channel.

pub(crate) mod layout;
mod ring;
mod words;

#[cfg(not(loom))]
mod attach;
#[cfg(not(loom))]
pub(crate) mod client;
#[cfg(not(loom))]
mod create;
#[cfg(not(loom))]
mod frame;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
pub(crate) mod server;

#[cfg(all(test, not(any(loom, zerobuffer_unsupported))))]
mod tests;
