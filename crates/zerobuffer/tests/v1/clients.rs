//! Clients of two buffers.

use std::time::Duration;
use zerobuffer::{ChannelKind, Client, ClientConfig, Result};

pub(crate) fn two_buffers() -> ClientConfig {
    ClientConfig::new().channel(ChannelKind::TwoBuffers)
}

pub(crate) fn connect(name: &str, timeout: Duration) -> Result<Client> {
    Client::connect_with(name, timeout, two_buffers())
}
