//! The same as the limits, and more, through a zerobuffer channel.

use crate::harness::{Round, histogram, per_operation};
use crate::machine::Pinned;
use crate::peer::{Peer, Role};
use crate::work::{self, FRAME, Work};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, Frame, Server, ServerConfig, WaitStrategy,
};

/// For every call; far beyond what any of them takes.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// A ring for exactly one frame in flight: its bytes and the line of its header.
pub(crate) const FRAME_RING: usize = FRAME + 64;
/// A ring that a careless user might ask for: two frames, and a wrap marker behind every second one.
const ROOMY_RING: usize = 16 << 20;
/// Of the default configuration.
const SMALL_RING: usize = 1 << 20;

/// What a peer needs to know to be a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    name: String,
    metadata: usize,
    payload: usize,
    wait: Wait,
    work: Work,
    /// Take requests with `receive` instead of a handler.
    pull: bool,
}

/// As `WaitStrategy`, to be written as JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Wait {
    Spin,
    Park,
    Default,
}

impl Wait {
    fn strategy(self) -> WaitStrategy {
        match self {
            Self::Spin => WaitStrategy::Spin,
            Self::Park => WaitStrategy::Park,
            Self::Default => WaitStrategy::default(),
        }
    }
}

impl ServerSpec {
    fn new(payload: usize, wait: Wait, work: Work) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zerobuffer-bench-{}-{count}", std::process::id());
        Self { name, metadata: 0, payload, wait, work, pull: false }
    }

    fn create(&self) -> Result<Server> {
        let config = ServerConfig::new(BufferConfig::new(self.metadata, self.payload))
            .wait(self.wait.strategy());
        Ok(Server::create(&self.name, config)?)
    }
}

/// The server's process: `until_told` says that it is ready and comes back when it shall end.
pub(crate) fn serve(
    spec: &ServerSpec,
    cpu: usize,
    until_told: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // Before pinning: the library looks at how many CPUs it may use.
    let mut server = spec.create()?;
    let _pinned = Pinned::to(cpu)?;
    let stop = AtomicBool::new(false);
    if !spec.pull {
        start(&mut server, spec.work)?;
        until_told()?;
        return Ok(server.stop()?);
    }
    std::thread::scope(|scope| {
        let puller = scope.spawn(|| pull(server, spec.work, &stop));
        let told = until_told();
        stop.store(true, Ordering::Relaxed);
        puller.join().expect("the pulling thread does not panic")?;
        told
    })
}

/// One closure for each kind of work, so that the handler itself decides nothing.
fn start(server: &mut Server, work: Work) -> Result<()> {
    match work {
        Work::Nothing => server.start(|_: &mut Frame<'_>| {})?,
        Work::Increment => {
            server.start(|frame: &mut Frame<'_>| Work::Increment.on(frame.data_mut()))?;
        }
        Work::Invert => server.start(|frame: &mut Frame<'_>| Work::Invert.on(frame.data_mut()))?,
        Work::Redact => server.start(|frame: &mut Frame<'_>| Work::Redact.on(frame.data_mut()))?,
    }
    Ok(())
}

fn pull(mut server: Server, work: Work, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match server.receive(Duration::from_millis(20)) {
            Ok(mut request) => {
                work.on(request.data_mut());
                request.respond();
            }
            Err(Error::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A server process, a client, and this thread pinned.
struct Connection {
    client: Client,
    _peer: Peer,
    _pinned: Pinned,
}

impl Connection {
    fn open(round: &Round, spec: &ServerSpec) -> Result<Self> {
        let seats = round.seats()?;
        let peer = Peer::start(Role::Server(spec.clone()), seats.server)?;
        let config = ClientConfig::new().wait(spec.wait.strategy());
        let client = Client::connect_with(&spec.name, TIMEOUT, config)?;
        Ok(Self { client, _peer: peer, _pinned: Pinned::to(seats.client)? })
    }

    /// Time of a checked call with eight bytes.
    fn call_ns(mut self, round: &Round) -> Result<f64> {
        let mut number = 0;
        per_operation(round.budget, |count| {
            for _ in 0..count {
                number = increment(&mut self.client, number)?;
            }
            Ok(())
        })
    }

    /// Time of a round trip of `len` bytes that neither side touches.
    fn untouched_ns(self, round: &Round, len: usize) -> Result<f64> {
        per_operation(round.budget, |count| {
            for _ in 0..count {
                let sequence = self.client.acquire_request_buffer(len)?.commit()?;
                let response = self.client.receive_response_for(sequence, TIMEOUT)?;
                debug_assert_eq!(response.len(), len);
            }
            Ok(())
        })
    }
}

#[inline]
fn increment(client: &mut Client, number: u64) -> Result<u64> {
    let response = client.call(&number.to_le_bytes(), TIMEOUT)?;
    let answer = response.data().first_chunk().context("an answer of eight bytes")?;
    let answer = u64::from_le_bytes(*answer);
    ensure!(answer == number + 1, "{number} was answered by {answer}");
    Ok(answer)
}

/// P1: a call with eight bytes, both sides spinning.
pub(crate) fn call_spinning(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    Connection::open(round, &spec)?.call_ns(round)
}

/// P7: the same, both sides parking at once.
pub(crate) fn call_parked(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Park, Work::Increment);
    Connection::open(round, &spec)?.call_ns(round)
}

/// The same with the default wait strategy.
pub(crate) fn call_default(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Default, Work::Increment);
    Connection::open(round, &spec)?.call_ns(round)
}

/// The same as P1, answered by `Server::receive`.
pub(crate) fn call_pulled(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    Connection::open(round, &ServerSpec { pull: true, ..spec })?.call_ns(round)
}

/// P2, the small one: eight bytes that nobody touches.
pub(crate) fn small_untouched(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Nothing);
    Connection::open(round, &spec)?.untouched_ns(round, 8)
}

/// P2, the large one: a frame that nobody touches. In a ring for one frame the client would give it back
/// in the very line that the server polls for the next one.
pub(crate) fn frame_untouched(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(2 * FRAME_RING, Wait::Spin, Work::Nothing);
    Connection::open(round, &spec)?.untouched_ns(round, FRAME)
}

/// As P2, in a ring with room for two frames and a wrap marker.
pub(crate) fn frame_untouched_roomy(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(ROOMY_RING, Wait::Spin, Work::Nothing);
    Connection::open(round, &spec)?.untouched_ns(round, FRAME)
}

/// P3: a frame filled here, inverted there, read here.
pub(crate) fn frame_inverted(round: &Round) -> Result<f64> {
    frame_ns(round, FRAME_RING, Work::Invert, inverted_frame())
}

/// P5's limit: a frame filled here, a twentieth of it edited there, read here.
pub(crate) fn frame_redacted(round: &Round) -> Result<f64> {
    frame_ns(round, FRAME_RING, Work::Redact, redacted_frame())
}

/// Time of one frame through either kind of channel; the first answer is checked.
pub(crate) fn checked_frames(
    round: &Round,
    expected: u64,
    call: impl Fn(u64) -> Result<u64>,
) -> Result<f64> {
    ensure!(call(1)? == expected, "the frame came back wrong");
    let mut seed = 1;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            seed += 1;
            std::hint::black_box(call(seed)?);
        }
        Ok(())
    })
}

/// What the client reads of the first frame, inverted.
pub(crate) fn inverted_frame() -> u64 {
    work::expected(FRAME, 1, Work::Invert)
}

/// What the client reads of the first frame, redacted.
pub(crate) fn redacted_frame() -> u64 {
    work::expected(FRAME, 1, Work::Redact)
}

/// As P3, in a ring with room for two frames and a wrap marker.
pub(crate) fn frame_inverted_roomy(round: &Round) -> Result<f64> {
    frame_ns(round, ROOMY_RING, Work::Invert, inverted_frame())
}

fn frame_ns(round: &Round, ring: usize, work: Work, expected: u64) -> Result<f64> {
    let connection = Connection::open(round, &ServerSpec::new(ring, Wait::Spin, work))?;
    let client = &connection.client;
    let call = |seed| -> Result<u64> {
        let mut buffer = client.acquire_request_buffer(FRAME)?;
        work::fill(buffer.data_mut(), seed);
        let sequence = buffer.commit()?;
        Ok(work::read(client.receive_response_for(sequence, TIMEOUT)?.data()))
    };
    checked_frames(round, expected, call)
}

/// Requests of 64 bytes per second, 64 in flight.
pub(crate) fn pipelined(round: &Round) -> Result<f64> {
    const IN_FLIGHT: usize = 64;
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    let connection = Connection::open(round, &spec)?;
    let client = &connection.client;
    let data = [7; 64];
    let mut sent = VecDeque::with_capacity(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        sent.push_back(client.send_request(&data)?);
    }
    let ns = per_operation(round.budget, |count| {
        for _ in 0..count {
            let oldest = sent.pop_front().context("requests in flight")?;
            let response = client.receive_response_for(oldest, TIMEOUT)?;
            ensure!(response.data()[0] == 8, "a wrong answer");
            drop(response);
            sent.push_back(client.send_request(&data)?);
        }
        Ok(())
    })?;
    Ok(1e9 / ns)
}

/// `count` round trips of eight bytes, each end doing its part when it is its turn.
pub(crate) fn step(count: u64) -> Result<()> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    let mut server = spec.create()?;
    let client = Client::connect(&spec.name, TIMEOUT)?;
    for number in 0..count {
        let sequence = client.send_request(&number.to_le_bytes())?;
        let mut request = server.receive(TIMEOUT)?;
        spec.work.on(request.data_mut());
        request.respond();
        let response = client.receive_response_for(sequence, TIMEOUT)?;
        ensure!(response.data() == (number + 1).to_le_bytes(), "a wrong answer");
    }
    Ok(())
}

/// P6: bytes of the segment of a channel for one frame each way, as the file system tells.
pub(crate) fn segment_bytes(_: &Round) -> Result<f64> {
    let spec = ServerSpec::new(FRAME_RING, Wait::Default, Work::Nothing);
    let spec = ServerSpec { metadata: METADATA, ..spec };
    let _server = spec.create()?;
    let path = format!("/dev/shm/{}_duplex", spec.name);
    Ok(std::fs::metadata(&path).context(path)?.len() as f64)
}

/// Of the memory comparison, each way.
pub(crate) const METADATA: usize = 4096;

/// Latencies of calls with eight bytes, both sides spinning.
pub(crate) fn latency_spinning(round: &Round) -> Result<Histogram<u64>> {
    latency(round, Wait::Spin)
}

/// The same, both sides parking at once.
pub(crate) fn latency_parked(round: &Round) -> Result<Histogram<u64>> {
    latency(round, Wait::Park)
}

fn latency(round: &Round, wait: Wait) -> Result<Histogram<u64>> {
    let spec = ServerSpec::new(SMALL_RING, wait, Work::Increment);
    let mut connection = Connection::open(round, &spec)?;
    let mut number = 0;
    histogram(round.budget, || {
        number = increment(&mut connection.client, number)?;
        Ok(())
    })
}
