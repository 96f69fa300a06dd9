//! The same work through the project's own channel of two buffers (protocol version 1), whose mutable
//! server edits a copy of the request in the response buffer.

use crate::channel::{
    FRAME_RING, METADATA, TIMEOUT, checked_frames, inverted_frame, redacted_frame,
};
use crate::harness::Round;
use crate::machine::Pinned;
use crate::peer::{Peer, Role};
use crate::work::{self, FRAME, Work};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use zerobuffer::{BufferConfig, WaitStrategy, v1};

/// Of the responses: the client keeps no more in flight than fill half of it.
const RESPONSE_RING: usize = 2 * FRAME_RING;

/// What a peer needs to know to be a server of two buffers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TwoBufferSpec {
    name: String,
    work: Work,
}

impl TwoBufferSpec {
    fn new(work: Work) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("zerobuffer-bench-v1-{}-{count}", std::process::id()), work }
    }

    fn create(&self, metadata: usize) -> Result<v1::DuplexServer> {
        let config = v1::DuplexServerConfig::new(BufferConfig::new(metadata, FRAME_RING))
            .wait(WaitStrategy::Spin);
        Ok(v1::DuplexServer::create(&self.name, config)?)
    }
}

/// The server's process.
pub(crate) fn serve(
    spec: &TwoBufferSpec,
    cpu: usize,
    until_told: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut server = spec.create(0)?;
    let _pinned = Pinned::to(cpu)?;
    let work = spec.work;
    server.start_mutable(move |draft: &mut v1::Draft<'_>| work.on(draft.data_mut()))?;
    until_told()?;
    Ok(server.stop()?)
}

/// P4: a frame filled here, inverted there, read here.
pub(crate) fn inverted(round: &Round) -> Result<f64> {
    round_trip_ns(round, Work::Invert, inverted_frame())
}

/// P5: a frame filled here, a twentieth of it edited there, read here.
pub(crate) fn redacted(round: &Round) -> Result<f64> {
    round_trip_ns(round, Work::Redact, redacted_frame())
}

fn round_trip_ns(round: &Round, work: Work, expected: u64) -> Result<f64> {
    let seats = round.seats()?;
    let spec = TwoBufferSpec::new(work);
    let _peer = Peer::start(Role::TwoBuffers(spec.clone()), seats.server)?;
    let config = v1::DuplexClientConfig::new()
        .response_buffer(BufferConfig::new(0, RESPONSE_RING))
        .wait(WaitStrategy::Spin);
    let client = v1::DuplexClient::connect_with(&spec.name, TIMEOUT, config)?;
    let _pinned = Pinned::to(seats.client)?;
    let call = |seed| -> Result<u64> {
        let mut buffer = client.acquire_request_buffer(FRAME)?;
        work::fill(buffer.data_mut(), seed);
        let sequence = buffer.commit()?;
        Ok(work::read(client.receive_response_for(sequence, TIMEOUT)?.data()))
    };
    checked_frames(round, expected, call)
}

/// P6: bytes of both buffers of a channel for one frame each way, as the file system tells.
pub(crate) fn segment_bytes(_: &Round) -> Result<f64> {
    let spec = TwoBufferSpec::new(Work::Nothing);
    let mut server = spec.create(METADATA)?;
    server.start_mutable(|_: &mut v1::Draft<'_>| {})?;
    let config =
        v1::DuplexClientConfig::new().response_buffer(BufferConfig::new(METADATA, FRAME_RING));
    let _client = v1::DuplexClient::connect_with(&spec.name, TIMEOUT, config)?;
    let sizes = ["request", "response"].map(|buffer| {
        let path = format!("/dev/shm/{}_{buffer}", spec.name);
        std::fs::metadata(&path).context(path).map(|file| file.len())
    });
    let [request, response] = sizes;
    Ok((request? + response?) as f64)
}
