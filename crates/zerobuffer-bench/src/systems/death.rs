//! How soon a side learns that the other one was killed.

use super::in_place::{self, SMALL_RING, ServerSpec, TIMEOUT, Wait};
use super::service::ServiceSpec;
use crate::names::Leftovers;
use crate::peer::Peer;
use crate::plan::Round;
use crate::work::Work;
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use zerobuffer::{Client, ErrorKind};

/// What a client needs to go to sleep after it has sent.
const ASLEEP: Duration = Duration::from_millis(20);

/// Nanoseconds from the kill of a service's server until its client returns from its wait.
pub(crate) fn of_service(round: &Round) -> Result<Histogram<u64>> {
    histogram(round, || {
        let seats = round.seats()?;
        let spec = ServiceSpec::new(SMALL_RING, Wait::Default, Work::Hang);
        let peer = spec.start(seats.server)?;
        let noticed = notice(spec.client()?, peer);
        spec.remove_all();
        noticed
    })
}

/// The same of a named channel's server.
pub(crate) fn of_channel(round: &Round) -> Result<Histogram<u64>> {
    histogram(round, || {
        let spec = ServerSpec::new(SMALL_RING, Wait::Default, Work::Hang);
        let _leftovers = Leftovers(spec.name().to_owned());
        let (client, peer) = in_place::connect(round.seats()?, &spec)?;
        notice(client, peer)
    })
}

fn histogram(round: &Round, kill: impl Fn() -> Result<Duration>) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let start = Instant::now();
    // A pair of processes takes its time.
    while start.elapsed() < 4 * round.budget {
        histogram.saturating_record(kill()?.as_nanos() as u64);
    }
    Ok(histogram)
}

/// Kills the server while the client sleeps.
fn notice(client: Client, mut peer: Peer) -> Result<Duration> {
    let sequence = client.send_request(&[0; 8])?;
    let waiting = std::thread::spawn(move || {
        let error = client.receive_response_for(sequence, TIMEOUT).err();
        (error.map(|error| error.kind()), Instant::now())
    });
    std::thread::sleep(ASLEEP);
    let killed = Instant::now();
    peer.kill()?;
    let (error, noticed) = waiting.join().ok().context("the waiting thread does not panic")?;
    ensure!(error == Some(ErrorKind::PeerDied), "the wait ended with {error:?}");
    Ok(noticed - killed)
}
