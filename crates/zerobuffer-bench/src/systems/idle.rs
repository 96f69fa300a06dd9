//! Many clients of one server of a service that send nothing.

use super::in_place::{TIMEOUT, Wait};
use super::service::ServiceSpec;
use crate::plan::Round;
use crate::usage::{Activity, Usage};
use crate::work::Work;
use anyhow::{Result, ensure};
use std::time::Duration;
use zerobuffer::Client;

/// Bytes of each client's ring.
const RING: usize = 64 << 10;

/// What idle clients take, both processes together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Of one CPU, in percent.
    pub(crate) cpu: f64,
    /// In a second.
    pub(crate) switches: f64,
    /// Of each connection, on each side.
    pub(crate) descriptors: f64,
    /// Bytes of each connection, on both sides, besides its segment.
    pub(crate) private: f64,
}

/// Attaches so many clients, has each call once, and watches them do nothing.
pub(crate) fn measure(round: &Round, count: usize) -> Result<Idle> {
    let spec = ServiceSpec::new(RING, Wait::Default, Work::Increment);
    let peer = spec.start_unpinned()?;
    let both = || -> Result<Usage> { Ok(Usage::of_this_process()? + Usage::of(peer.id())?) };
    let connect = |_| -> Result<Client> {
        let mut client = spec.client()?;
        ensure!(client.call(&[1; 100], TIMEOUT)?.len() == 100, "a wrong response");
        Ok(client)
    };
    // The first one has what there is once for all of them.
    let first = connect(0)?;
    let before = both()?;
    let clients: Vec<_> = (0..count).map(connect).collect::<Result<_>>()?;
    // Until nobody spins any more after the latest call.
    std::thread::sleep(Duration::from_millis(100));
    let activity = Activity::with_peer(peer.id(), 3 * round.budget)?;
    let attached = both()?;
    drop((first, clients));
    let each = |more: u64| more as f64 / count as f64;
    Ok(Idle {
        cpu: activity.cpu,
        switches: activity.switches,
        descriptors: each(attached.descriptors - before.descriptors) / 2.0,
        private: each(attached.private.saturating_sub(before.private)),
    })
}
