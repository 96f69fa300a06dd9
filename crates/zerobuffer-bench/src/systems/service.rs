//! Through a service, whose clients each have a ring of their own.

use super::clients::{self, Rates};
use super::exchange::Load;
use super::in_place::{Channel, SMALL_RING, ServerSpec, TIMEOUT, Wait, checked_calls};
use crate::machine::{Pinned, Seats};
use crate::names::unique_name;
use crate::peer::{Peer, ready_until_told};
use crate::plan::Round;
use crate::work::Work;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, Frame, Service, ServiceConfig};

/// The peer's role.
pub(crate) const ROLE: &str = "service";
/// The only service of its directory.
const NAME: &str = "bench";
/// More than any measurement has.
const MAX_CLIENTS: usize = 2000;

/// What a peer needs to know to be a server of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServiceSpec {
    /// A runtime directory of its own.
    directory: String,
    ring: usize,
    wait: Wait,
    work: Work,
    pinned: bool,
}

impl ServiceSpec {
    pub(super) fn new(ring: usize, wait: Wait, work: Work) -> Self {
        let directory = std::env::temp_dir().join(unique_name("service"));
        let directory = directory.to_string_lossy().into_owned();
        Self { directory, ring, wait, work, pinned: true }
    }

    /// Starts the server on `cpu`.
    pub(super) fn start(&self, cpu: usize) -> Result<Peer> {
        Peer::start(ROLE, self, cpu)
    }

    /// Starts it wherever the system has its threads run.
    pub(super) fn start_unpinned(&self) -> Result<Peer> {
        Peer::start(ROLE, &Self { pinned: false, ..self.clone() }, 0)
    }

    pub(super) fn client(&self) -> Result<Client> {
        let config = ClientConfig::new().directory(&self.directory).wait(self.wait.strategy());
        Ok(Client::connect_with(&format!("service:{NAME}"), TIMEOUT, config)?)
    }

    /// Removes what a killed server has left.
    pub(super) fn remove_all(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// Removes what nobody has a socket in.
    fn remove_directory(&self) {
        let _ = std::fs::remove_dir(format!("{}/{NAME}", self.directory));
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// The server's process.
pub(crate) fn serve(spec: &ServiceSpec, cpu: usize) -> Result<()> {
    let config = ServiceConfig::new()
        .directory(&spec.directory)
        .metadata_size(0)
        .ring(spec.ring)
        .max_clients(MAX_CLIENTS)
        .wait(spec.wait.strategy());
    // Before pinning: the library asks how many CPUs it may use.
    let mut service = Service::create(NAME, config)?;
    let _pinned = spec.pinned.then(|| Pinned::to(cpu)).transpose()?;
    start(&mut service, spec.work)?;
    ready_until_told()?;
    service.stop()?;
    spec.remove_directory();
    Ok(())
}

/// Between two round trips whose instructions are counted: by then the service looks at the clock and at what the
/// system has to tell, so all of them take the same, however slow the machine is.
const STEP_PAUSE: Duration = Duration::from_micros(50);

/// Both ends in turn on one thread, so often.
pub(crate) fn step(count: u64) -> Result<()> {
    let spec = ServiceSpec::new(SMALL_RING, Wait::Spin, Work::Increment);
    let config = ServiceConfig::new().directory(&spec.directory).ring(spec.ring);
    let mut service = Service::create(NAME, config.wait(spec.wait.strategy()))?;
    let client = spec.client()?;
    for number in 0..count {
        std::thread::sleep(STEP_PAUSE);
        let sequence = client.send_request(&number.to_le_bytes())?;
        let mut request = service.receive(TIMEOUT)?;
        spec.work.on(request.data_mut());
        request.respond();
        let response = client.receive_response_for(sequence, TIMEOUT)?;
        ensure!(response.data() == (number + 1).to_le_bytes(), "a wrong answer");
    }
    service.stop()?;
    spec.remove_directory();
    Ok(())
}

/// One closure for each kind of work, so that the handler itself decides nothing.
fn start(service: &mut Service, work: Work) -> Result<()> {
    match work {
        Work::Nothing => service.start(|_: &mut Frame<'_>| {})?,
        Work::Increment => {
            service.start(|frame: &mut Frame<'_>| Work::Increment.on(frame.data_mut()))?;
        }
        Work::Invert => service.start(|frame: &mut Frame<'_>| Work::Invert.on(frame.data_mut()))?,
        Work::Redact => service.start(|frame: &mut Frame<'_>| Work::Redact.on(frame.data_mut()))?,
        Work::Hang => service.start(|frame: &mut Frame<'_>| Work::Hang.on(frame.data_mut()))?,
    }
    Ok(())
}

/// A client with its server process, the same as through a channel in every other way.
pub(crate) fn open(seats: Seats, load: Load, wait: Wait) -> Result<Channel> {
    let spec = ServiceSpec::new(ServerSpec::for_load(load, wait).payload(), wait, load.work);
    let peer = Arc::new(spec.start(seats.server)?);
    Ok(Channel::over(spec.client()?, peer, load.len))
}

/// So many clients of one server.
pub(crate) fn rates(round: &Round, load: Load, wait: Wait, count: usize) -> Result<Rates> {
    let seats = round.seats()?;
    let spec = ServiceSpec::new(ServerSpec::for_load(load, wait).payload(), wait, load.work);
    let peer = Arc::new(spec.start(seats.server)?);
    clients::rates(round, seats, load, count, |_| {
        Ok(Channel::over(spec.client()?, Arc::clone(&peer), load.len))
    })
}

/// A checked call with eight bytes, as `in_place::call_ns` makes it.
pub(crate) fn call_ns(round: &Round, wait: Wait) -> Result<f64> {
    let seats = round.seats()?;
    let spec = ServiceSpec::new(SMALL_RING, wait, Work::Increment);
    let _peer = spec.start(seats.server)?;
    checked_calls(round, seats, &mut spec.client()?)
}
