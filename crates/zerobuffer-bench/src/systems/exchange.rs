//! What the compared systems have in common, and how each of them is measured.

use crate::machine::{Pinned, Seats};
use crate::peer::Peer;
use crate::plan::Round;
use crate::timing::{histogram, per_operation};
use crate::usage::Usage;
use crate::work::{self, FRAME, Work};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a connection is made for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Bytes of every message.
    pub(crate) len: usize,
    /// What the server does with them.
    pub(crate) work: Work,
    /// Messages that are under way at most.
    pub(crate) in_flight: usize,
}

impl Load {
    /// One message at a time, of which the server adds one to the first eight bytes.
    pub(crate) fn echo(len: usize) -> Self {
        Self { len, work: Work::Increment, in_flight: 1 }
    }

    /// One picture at a time.
    pub(crate) fn picture(work: Work) -> Self {
        Self { len: FRAME, work, in_flight: 1 }
    }
}

/// A client with its server process.
pub(crate) trait Exchange {
    /// One round trip: `fill` writes what is sent, `read` sees what has come back, both as close to
    /// the wire as the system allows.
    fn exchange<R>(
        &mut self,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R>;

    /// The process at the other end.
    fn server(&self) -> &Peer;
}

/// A client that can have several requests under way, in order.
pub(crate) trait Pipeline: Exchange {
    /// Sends one message.
    fn send(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<()>;

    /// Waits for the answer to the oldest one.
    fn receive<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Result<R>;
}

pub(crate) fn echo_ns<E: Exchange>(
    round: &Round,
    load: Load,
    open: impl FnOnce(Seats, Load) -> Result<E>,
) -> Result<f64> {
    let seats = round.seats()?;
    let mut system = open(seats, load)?;
    let _pinned = Pinned::to(seats.client)?;
    let mut number = 0;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            number = increment(&mut system, number)?;
        }
        Ok(())
    })
}

pub(crate) fn latencies<E: Exchange>(
    round: &Round,
    load: Load,
    open: impl FnOnce(Seats, Load) -> Result<E>,
) -> Result<Histogram<u64>> {
    let seats = round.seats()?;
    let mut system = open(seats, load)?;
    let _pinned = Pinned::to(seats.client)?;
    let mut number = 0;
    histogram(round.budget, || {
        number = increment(&mut system, number)?;
        Ok(())
    })
}

#[inline]
fn increment<E: Exchange>(system: &mut E, number: u64) -> Result<u64> {
    let answer = system.exchange(|bytes| work::put_number(bytes, number), work::number)?;
    let answer = answer.context("an answer of eight bytes")?;
    ensure!(answer == number + 1, "{number} was answered by {answer}");
    Ok(answer)
}

pub(crate) fn frame_ns<E: Exchange>(
    round: &Round,
    load: Load,
    open: impl FnOnce(Seats, Load) -> Result<E>,
) -> Result<f64> {
    let seats = round.seats()?;
    let mut system = open(seats, load)?;
    let _pinned = Pinned::to(seats.client)?;
    let expected = work::expected(load.len, 1, load.work);
    ensure!(frame(&mut system, 1)? == expected, "the frame came back wrong");
    let mut seed = 1;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            seed += 1;
            black_box(frame(&mut system, seed)?);
        }
        Ok(())
    })
}

pub(crate) fn redaction_ns<E: Exchange>(
    round: &Round,
    load: Load,
    open: impl FnOnce(Seats, Load) -> Result<E>,
) -> Result<f64> {
    let seats = round.seats()?;
    let mut system = open(seats, load)?;
    let _pinned = Pinned::to(seats.client)?;
    // Once filled, the ring's only slot keeps the picture.
    black_box(frame(&mut system, 1)?);
    per_operation(round.budget, |count| {
        for _ in 0..count {
            let read = |bytes: &[u8]| work::read(&bytes[work::redacted(bytes.len())]);
            ensure!(system.exchange(|_| {}, read)? == 0, "the frame came back unedited");
        }
        Ok(())
    })
}

pub(crate) fn frame<E: Exchange>(system: &mut E, seed: u64) -> Result<u64> {
    system.exchange(|bytes| work::fill(bytes, seed), work::read)
}

/// What exchanging pictures adds to both processes: shared pages count once.
pub(crate) fn memory<E: Exchange>(
    round: &Round,
    open: impl FnOnce(Seats, Load) -> Result<E>,
) -> Result<f64> {
    let mut system = open(round.seats()?, Load::picture(Work::Invert))?;
    let server = system.server().id();
    let both = || Ok(Usage::of_this_process()?.memory + Usage::of(server)?.memory);
    let before: Result<u64> = both();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Some systems have memory during an exchange only.
        let most = scope.spawn(|| -> Result<u64> {
            let mut most = both()?;
            while !done.load(Ordering::Relaxed) {
                most = most.max(both()?);
            }
            Ok(most.max(both()?))
        });
        let exchanged = (0..100).try_for_each(|seed| frame(&mut system, seed).map(drop));
        done.store(true, Ordering::Relaxed);
        let most = most.join().expect("the measuring thread does not panic")?;
        exchanged?;
        Ok(most.saturating_sub(before?) as f64)
    })
}

pub(crate) fn pipelined<P: Pipeline>(
    round: &Round,
    load: Load,
    open: impl FnOnce(Seats, Load) -> Result<P>,
) -> Result<f64> {
    let seats = round.seats()?;
    let mut system = open(seats, load)?;
    let _pinned = Pinned::to(seats.client)?;
    let mut sent = 0;
    let mut received = 0;
    for _ in 0..load.in_flight {
        system.send(|bytes| work::put_number(bytes, sent))?;
        sent += 1;
    }
    let ns = per_operation(round.budget, |count| {
        for _ in 0..count {
            let answer = system.receive(work::number)?;
            received += 1;
            ensure!(answer == Some(received), "a wrong answer: {answer:?} instead of {received}");
            system.send(|bytes| work::put_number(bytes, sent))?;
            sent += 1;
        }
        Ok(())
    })?;
    Ok(1e9 / ns)
}
