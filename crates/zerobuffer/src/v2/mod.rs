//! Protocol version 2: the in-place duplex channel.

pub(crate) mod layout;
pub(crate) mod ring;
pub(crate) mod words;

#[cfg(not(loom))]
pub(crate) mod frame;

#[cfg(all(test, not(any(loom, zerobuffer_unsupported))))]
mod tests;
