//! Through an in-place channel, and what only such a channel can show.

use super::exchange::{self, Exchange, Load, Pipeline};
use crate::machine::{Pinned, Seats};
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::stats::Summary;
use crate::timing::per_operation;
use crate::work::{FRAME, Work};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, Frame, Pages, Server, ServerConfig, WaitStrategy,
};

/// The peer's role.
pub(crate) const ROLE: &str = "in-place";
/// For every call; far beyond what any of them takes.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// A ring for exactly one picture in flight.
pub(crate) const FRAME_RING: usize = slot(FRAME);
/// A ring that a careless user might ask for: two frames, and a wrap marker behind every second one.
const ROOMY_RING: usize = 16 << 20;
/// Of the default configuration.
pub(super) const SMALL_RING: usize = 1 << 20;
/// Of the memory comparison, each way.
pub(crate) const METADATA: usize = 4096;

/// What a message takes of a ring: its bytes in whole cache lines, and the line of its header.
const fn slot(len: usize) -> usize {
    len.next_multiple_of(64) + 64
}

/// What a peer needs to know to be a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    name: String,
    metadata: usize,
    payload: usize,
    workers: usize,
    wait: Wait,
    work: Work,
    /// Take requests with `receive` instead of a handler.
    pull: bool,
    pages: PageChoice,
}

/// As `Pages`, to be written as JSON; the same for both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PageChoice {
    #[default]
    OnDemand,
    Prefaulted,
    Huge,
}

impl PageChoice {
    fn pages(self) -> Pages {
        match self {
            Self::OnDemand => Pages::OnDemand,
            Self::Prefaulted => Pages::Prefaulted,
            Self::Huge => Pages::Huge,
        }
    }
}

/// As `WaitStrategy`, to be written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Wait {
    Spin,
    Park,
    Default,
}

impl Wait {
    pub(crate) fn strategy(self) -> WaitStrategy {
        match self {
            Self::Spin => WaitStrategy::Spin,
            Self::Park => WaitStrategy::Park,
            Self::Default => WaitStrategy::default(),
        }
    }
}

impl ServerSpec {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn new(payload: usize, wait: Wait, work: Work) -> Self {
        let name = unique_name("in-place");
        Self {
            name,
            metadata: 0,
            payload,
            workers: 1,
            wait,
            work,
            pull: false,
            pages: PageChoice::OnDemand,
        }
    }

    /// A ring of one slot would have the client give a frame back in the very line that the server
    /// polls for the next one, so there is one more; but none for pictures, where memory counts.
    pub(super) fn for_load(load: Load, wait: Wait) -> Self {
        let payload = match load.work {
            Work::Invert | Work::Redact => load.in_flight * slot(load.len),
            Work::Nothing | Work::Increment | Work::Hang => {
                SMALL_RING.max((load.in_flight + 1) * slot(load.len))
            }
        };
        Self::new(payload, wait, load.work)
    }

    /// Bytes of the ring.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    pub(super) fn create(&self) -> Result<Server> {
        let config = ServerConfig::new(BufferConfig::new(self.metadata, self.payload))
            .workers(self.workers)
            .pages(self.pages.pages())
            .wait(self.wait.strategy());
        Ok(Server::create(&self.name, config)?)
    }
}

/// The server's process.
pub(crate) fn serve(spec: &ServerSpec, cpu: usize) -> Result<()> {
    // Before pinning: the library asks how many CPUs it may use.
    let mut server = spec.create()?;
    let _pinned = Pinned::to(cpu)?;
    let stop = AtomicBool::new(false);
    if !spec.pull {
        start(&mut server, spec.work)?;
        ready_until_told()?;
        return Ok(server.stop()?);
    }
    std::thread::scope(|scope| {
        let puller = scope.spawn(|| pull(server, spec.work, &stop));
        let told = ready_until_told();
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
        Work::Hang => server.start(|frame: &mut Frame<'_>| Work::Hang.on(frame.data_mut()))?,
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

/// A client, and its server's process.
pub(super) fn connect(seats: Seats, spec: &ServerSpec) -> Result<(Client, Peer)> {
    let peer = Peer::start(ROLE, spec, seats.server)?;
    let config = ClientConfig::new().wait(spec.wait.strategy()).pages(spec.pages.pages());
    Ok((Client::connect_with(&spec.name, TIMEOUT, config)?, peer))
}

/// A client with its server process.
pub(crate) struct Channel {
    client: Client,
    peer: Arc<Peer>,
    len: usize,
    sent: VecDeque<u64>,
}

impl Channel {
    pub(crate) fn open(seats: Seats, load: Load, wait: Wait) -> Result<Self> {
        Self::connect(seats, load.len, &ServerSpec::for_load(load, wait))
    }

    fn connect(seats: Seats, len: usize, spec: &ServerSpec) -> Result<Self> {
        let (client, peer) = connect(seats, spec)?;
        Ok(Self::over(client, Arc::new(peer), len))
    }

    /// A client of any kind of server, and that server's process, which others may share.
    pub(super) fn over(client: Client, peer: Arc<Peer>, len: usize) -> Self {
        Self { client, peer, len, sent: VecDeque::new() }
    }

    /// Nanoseconds of a round trip of bytes that neither side touches.
    fn untouched_ns(&self, round: &Round) -> Result<f64> {
        per_operation(round.budget, |count| {
            for _ in 0..count {
                let sequence = self.client.acquire_request_buffer(self.len)?.commit()?;
                let response = self.client.receive_response_for(sequence, TIMEOUT)?;
                debug_assert_eq!(response.len(), self.len);
            }
            Ok(())
        })
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

/// A picture inverted, with these pages.
pub(crate) fn frame_with_pages(round: &Round, pages: PageChoice) -> Result<f64> {
    let load = Load::picture(Work::Invert);
    let spec = ServerSpec { pages, ..ServerSpec::for_load(load, Wait::Spin) };
    exchange::frame_ns(round, load, |seats, load| Channel::connect(seats, load.len, &spec))
}

/// The first picture through a new channel, inverted: the median of as many channels as there is time
/// for.
pub(crate) fn first_frame_ns(round: &Round, pages: PageChoice) -> Result<f64> {
    let seats = round.seats()?;
    let load = Load::picture(Work::Invert);
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || start.elapsed() < round.budget {
        let spec = ServerSpec { pages, ..ServerSpec::for_load(load, Wait::Spin) };
        let mut channel = Channel::connect(seats, load.len, &spec)?;
        let _pinned = Pinned::to(seats.client)?;
        let first = Instant::now();
        std::hint::black_box(exchange::frame(&mut channel, 1)?);
        times.push(first.elapsed().as_nanos() as f64);
    }
    Ok(Summary::of(&times).context("no channel was opened")?.median)
}

/// Messages of 64 bytes in a second, handled on `workers` threads of the server's one CPU.
pub(crate) fn pipelined_with_workers(
    round: &Round,
    in_flight: usize,
    workers: usize,
) -> Result<f64> {
    let load = Load { in_flight, ..Load::echo(64) };
    let spec = ServerSpec { workers, ..ServerSpec::for_load(load, Wait::Default) };
    exchange::pipelined(round, load, |seats, load| Channel::connect(seats, load.len, &spec))
}

/// A checked call with eight bytes, the simplest way to use a channel.
pub(crate) fn call_ns(round: &Round, wait: Wait) -> Result<f64> {
    call_with(round, &ServerSpec::new(SMALL_RING, wait, Work::Increment))
}

/// The same, spinning, answered by `Server::receive`.
pub(crate) fn call_pulled(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    call_with(round, &ServerSpec { pull: true, ..spec })
}

fn call_with(round: &Round, spec: &ServerSpec) -> Result<f64> {
    let seats = round.seats()?;
    let (mut client, _peer) = connect(seats, spec)?;
    checked_calls(round, seats, &mut client)
}

/// Nanoseconds of a call of eight bytes whose response is checked.
pub(super) fn checked_calls(round: &Round, seats: Seats, client: &mut Client) -> Result<f64> {
    let _pinned = Pinned::to(seats.client)?;
    let mut number: u64 = 0;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            let response = client.call(&number.to_le_bytes(), TIMEOUT)?;
            number += 1;
            ensure!(response.data() == number.to_le_bytes(), "a wrong answer to {number}");
        }
        Ok(())
    })
}

/// A round trip of `len` bytes that neither side touches, spinning.
pub(crate) fn untouched_ns(round: &Round, len: usize) -> Result<f64> {
    let load = Load { len, work: Work::Nothing, in_flight: 1 };
    untouched_with(round, len, &ServerSpec::for_load(load, Wait::Spin))
}

/// A picture that nobody touches, in a ring with room for two and a wrap marker.
pub(crate) fn frame_untouched_roomy(round: &Round) -> Result<f64> {
    untouched_with(round, FRAME, &ServerSpec::new(ROOMY_RING, Wait::Spin, Work::Nothing))
}

fn untouched_with(round: &Round, len: usize, spec: &ServerSpec) -> Result<f64> {
    let seats = round.seats()?;
    let channel = Channel::connect(seats, len, spec)?;
    let _pinned = Pinned::to(seats.client)?;
    channel.untouched_ns(round)
}

/// A picture inverted, in a ring with room for two and a wrap marker.
pub(crate) fn frame_inverted_roomy(round: &Round) -> Result<f64> {
    let spec = ServerSpec::new(ROOMY_RING, Wait::Spin, Work::Invert);
    exchange::frame_ns(round, Load::picture(Work::Invert), |seats, load| {
        Channel::connect(seats, load.len, &spec)
    })
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
