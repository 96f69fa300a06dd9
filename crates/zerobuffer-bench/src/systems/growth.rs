//! Many channels between two processes: what each one costs while nothing is sent.

use super::clients::{self, Rates};
use super::exchange::Load;
use super::in_place::{Channel, TIMEOUT, Wait};
use crate::machine::Pinned;
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::usage::{Activity, Usage};
use crate::work::Work;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ClientConfig, Frame, Server, ServerConfig};

/// The peer's role: it serves many channels, wherever the system has its threads run.
pub(crate) const ROLE: &str = "channels";
/// Bytes of each channel's ring.
pub(crate) const PAYLOAD: usize = 64 << 10;

/// What a peer needs to know to serve many channels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    prefix: String,
    count: usize,
    wait: Wait,
    /// Whether the threads stay on the peer's CPU.
    pinned: bool,
}

impl ServerSpec {
    fn new(count: usize, wait: Wait, pinned: bool) -> Self {
        Self { prefix: unique_name("channels"), count, wait, pinned }
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }
}

/// The servers' process.
pub(crate) fn serve(spec: &ServerSpec, cpu: usize) -> Result<()> {
    let serve = |index| -> Result<Server> {
        let config = ServerConfig::new(BufferConfig::new(0, PAYLOAD)).wait(spec.wait.strategy());
        Ok(Server::create(&spec.name(index), config)?)
    };
    // Before pinning: the library asks how many CPUs it may use.
    let mut servers: Vec<_> = (0..spec.count).map(serve).collect::<Result<_>>()?;
    let _pinned = spec.pinned.then(|| Pinned::to(cpu)).transpose()?;
    for server in &mut servers {
        server.start(|frame: &mut Frame<'_>| Work::Increment.on(frame.data_mut()))?;
    }
    ready_until_told()?;
    servers.into_iter().try_for_each(|mut server| Ok(server.stop()?))
}

/// What so many idle channels take, both processes together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Bytes: the channels' objects, and what the processes have of their own.
    pub(crate) memory: f64,
    pub(crate) descriptors: f64,
    /// Of one CPU, in percent.
    pub(crate) cpu: f64,
    /// Bytes of the channels' objects alone.
    pub(crate) objects: f64,
}

/// A client of each of so many channels, whose servers are threads of one process.
pub(crate) fn rates(round: &Round, wait: Wait, count: usize) -> Result<Rates> {
    let (seats, load) = (round.seats()?, Load::echo(8));
    let spec = ServerSpec::new(count, wait, true);
    let peer = Arc::new(Peer::start(ROLE, &spec, seats.server)?);
    clients::rates(round, seats, load, count, |index| {
        let config = ClientConfig::new().wait(wait.strategy());
        let client = Client::connect_with(&spec.name(index), TIMEOUT, config)?;
        Ok(Channel::over(client, Arc::clone(&peer), load.len))
    })
}

pub(crate) fn measure(round: &Round, count: usize) -> Result<Cost> {
    let spec = ServerSpec::new(count, Wait::Default, false);
    let before = Usage::of_this_process()?;
    let peer = Peer::start(ROLE, &spec, 0)?;
    let connect = |index| -> Result<Client> {
        let mut client = Client::connect(&spec.name(index), TIMEOUT)?;
        ensure!(client.call(&[1; 100], TIMEOUT)?.len() == 100, "a wrong answer");
        Ok(client)
    };
    let clients: Vec<_> = (0..count).map(connect).collect::<Result<_>>()?;
    // Until nobody spins any more after the latest call.
    std::thread::sleep(Duration::from_millis(100));
    let activity = Activity::with_peer(peer.id(), 3 * round.budget)?;
    let (ours, theirs) = (Usage::of_this_process()?, Usage::of(peer.id())?);
    let objects = objects(&spec)?;
    let private = ours.private.saturating_sub(before.private) + theirs.private;
    let descriptors = ours.descriptors - before.descriptors + theirs.descriptors;
    drop(clients);
    Ok(Cost {
        memory: (objects + private) as f64,
        descriptors: descriptors as f64,
        cpu: activity.cpu,
        objects: objects as f64,
    })
}

/// Bytes that the channels' objects occupy.
fn objects(spec: &ServerSpec) -> Result<u64> {
    let entries = std::fs::read_dir("/dev/shm").context("list /dev/shm")?;
    let ours = |entry: &std::fs::DirEntry| {
        entry.file_name().to_string_lossy().contains(&format!("{}-", spec.prefix))
    };
    // What others remove meanwhile is not ours.
    Ok(entries
        .flatten()
        .filter(ours)
        .flat_map(|entry| entry.metadata())
        .map(|m| m.blocks() * 512)
        .sum())
}
