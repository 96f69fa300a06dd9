//! Through the project's own channel of two buffers (protocol version 1), whose mutable server edits
//! a copy of the request in the response buffer.

use super::exchange::{Exchange, Load, Pipeline};
use super::in_place::{METADATA, TIMEOUT};
use crate::machine::{Pinned, Seats};
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::work::{FRAME, Work};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, ServerConfig, WaitStrategy, v1};

/// The peer's role.
pub(crate) const ROLE: &str = "two-buffers";

/// What a peer needs to know to be a server of two buffers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TwoBufferSpec {
    name: String,
    load: Load,
}

/// What a message takes of a ring, header included.
const fn slot(len: usize) -> usize {
    len.next_multiple_of(64) + 64
}

impl TwoBufferSpec {
    fn new(load: Load) -> Self {
        Self { name: unique_name("two-buffers"), load }
    }

    fn create(&self, metadata: usize) -> Result<v1::DuplexServer> {
        let ring = self.load.in_flight * slot(self.load.len);
        let config = ServerConfig::new(BufferConfig::new(metadata, ring)).wait(WaitStrategy::Spin);
        Ok(v1::DuplexServer::create(&self.name, config)?)
    }
}

/// The server's process.
pub(crate) fn serve(spec: &TwoBufferSpec, cpu: usize) -> Result<()> {
    let mut server = spec.create(0)?;
    let _pinned = Pinned::to(cpu)?;
    let work = spec.load.work;
    server.start_mutable(move |draft: &mut v1::Draft<'_>| work.on(draft.data_mut()))?;
    ready_until_told()?;
    Ok(server.stop()?)
}

/// A client with its server process, both spinning.
pub(crate) struct Channel {
    client: Client,
    peer: Peer,
    len: usize,
    sent: VecDeque<u64>,
}

impl Channel {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        let spec = TwoBufferSpec::new(load);
        let peer = Peer::start(ROLE, &spec, seats.server)?;
        // The client keeps no more in flight than fill half of it.
        let responses = BufferConfig::new(0, 2 * load.in_flight * slot(load.len));
        let config = ClientConfig::new()
            .channel(ChannelKind::TwoBuffers)
            .response_buffer(responses)
            .wait(WaitStrategy::Spin);
        let client = Client::connect_with(&spec.name, TIMEOUT, config)?;
        Ok(Self { client, peer, len: load.len, sent: VecDeque::new() })
    }
}

impl Exchange for Channel {
    #[inline]
    fn exchange<R>(
        &mut self,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let mut buffer = self.client.acquire_request_buffer(self.len)?;
        fill(buffer.data_mut());
        let sequence = buffer.commit()?;
        Ok(read(self.client.receive_response_for(sequence, TIMEOUT)?.data()))
    }

    fn server(&self) -> &Peer {
        &self.peer
    }
}

impl Pipeline for Channel {
    #[inline]
    fn send(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut buffer = self.client.acquire_request_buffer(self.len)?;
        fill(buffer.data_mut());
        self.sent.push_back(buffer.commit()?);
        Ok(())
    }

    #[inline]
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let oldest = self.sent.pop_front().context("requests in flight")?;
        Ok(read(self.client.receive_response_for(oldest, TIMEOUT)?.data()))
    }
}

/// P6: bytes of both buffers of a channel for one frame each way, as the file system tells.
pub(crate) fn segment_bytes(_: &Round) -> Result<f64> {
    let spec = TwoBufferSpec::new(Load::picture(Work::Nothing));
    let mut server = spec.create(METADATA)?;
    server.start_mutable(|_: &mut v1::Draft<'_>| {})?;
    let config = ClientConfig::new()
        .channel(ChannelKind::TwoBuffers)
        .response_buffer(BufferConfig::new(METADATA, slot(FRAME)));
    let _client = Client::connect_with(&spec.name, TIMEOUT, config)?;
    let sizes = ["request", "response"].map(|buffer| {
        let path = format!("/dev/shm/{}_{buffer}", spec.name);
        std::fs::metadata(&path).context(path).map(|file| file.len())
    });
    let [request, response] = sizes;
    Ok((request? + response?) as f64)
}
