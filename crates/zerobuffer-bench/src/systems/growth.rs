//! Many channels between two processes: what each one costs while nothing is sent.

use super::in_place::TIMEOUT;
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::usage::Usage;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, Frame, Server, ServerConfig};

/// The peer's role: it serves many channels, wherever the system has its threads run.
pub(crate) const ROLE: &str = "channels";
/// Bytes of each channel's ring.
pub(crate) const PAYLOAD: usize = 64 << 10;

/// What a peer needs to know to serve many channels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    prefix: String,
    count: usize,
}

impl ServerSpec {
    fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }
}

/// The servers' process.
pub(crate) fn serve(spec: &ServerSpec) -> Result<()> {
    let serve = |index| -> Result<Server> {
        let config = ServerConfig::new(BufferConfig::new(0, PAYLOAD));
        let mut server = Server::create(&spec.name(index), config)?;
        server.start(|_: &mut Frame<'_>| {})?;
        Ok(server)
    };
    let servers: Vec<_> = (0..spec.count).map(serve).collect::<Result<_>>()?;
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

/// Costs of the latest turn, so that several charts can use one measurement. The one that asks for the
/// second time gets a new one.
#[derive(Default)]
pub(crate) struct Growth {
    latest: RefCell<HashMap<usize, (Cost, HashSet<&'static str>)>>,
}

impl Growth {
    pub(crate) fn of(&self, who: &'static str, round: &Round, count: usize) -> Result<Cost> {
        if let Some((cost, seen)) = self.latest.borrow_mut().get_mut(&count)
            && seen.insert(who)
        {
            return Ok(*cost);
        }
        let cost = measure(round, count)?;
        self.latest.borrow_mut().insert(count, (cost, HashSet::from([who])));
        Ok(cost)
    }
}

fn measure(round: &Round, count: usize) -> Result<Cost> {
    let spec = ServerSpec { prefix: unique_name("channels"), count };
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
    let start = Instant::now();
    let both =
        || -> Result<(Usage, Usage)> { Ok((Usage::of_this_process()?, Usage::of(peer.id())?)) };
    let (ours, theirs) = both()?;
    std::thread::sleep((3 * round.budget).max(Duration::from_millis(50)));
    let elapsed = start.elapsed();
    let (ours_after, theirs_after) = both()?;
    let busy =
        (ours_after.cpu_ns - ours.cpu_ns) + theirs_after.cpu_ns.saturating_sub(theirs.cpu_ns);
    let objects = objects(&spec)?;
    let private = ours.private.saturating_sub(before.private) + theirs.private;
    let descriptors = ours.descriptors - before.descriptors + theirs.descriptors;
    drop(clients);
    Ok(Cost {
        memory: (objects + private) as f64,
        descriptors: descriptors as f64,
        cpu: 100.0 * busy as f64 / elapsed.as_nanos() as f64,
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
