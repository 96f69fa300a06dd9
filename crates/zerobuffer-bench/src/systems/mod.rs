//! The systems that are compared: each sends bytes to a server process, which edits them and sends
//! them back. What an edit in place costs nothing for is what the others copy.

pub(crate) mod growth;
#[cfg(feature = "iceoryx2")]
pub(crate) mod iceoryx;
pub(crate) mod in_place;
pub(crate) mod programs;

pub(crate) mod streams;
pub(crate) mod two_buffers;
pub(crate) mod zeromq;

use crate::harness::{Round, histogram, per_operation};
use crate::machine::{Pinned, Seats};
use crate::peer::Peer;
use crate::usage::Usage;
use crate::work::{self, FRAME, Work};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use in_place::Wait;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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

/// A way to exchange messages with another process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    InPlace(Wait),
    TwoBuffers,
    /// The answer is a copy of the request, edited.
    Iceoryx,
    /// The answer is other memory, which nobody has written: no work in place, but no copy either.
    IceoryxUntouched,
    UnixSocket,
    Pipe,
    ZeroMq,
}

/// Runs `$body` with `$open` being the function that opens `$system`.
macro_rules! with_open {
    ($system:expr, $open:ident => $body:expr) => {
        match $system {
            System::InPlace(wait) => {
                let $open = |seats, load| in_place::Channel::open(seats, load, wait);
                $body
            }
            System::TwoBuffers => {
                let $open = two_buffers::Channel::open;
                $body
            }
            #[cfg(feature = "iceoryx2")]
            System::Iceoryx => {
                let $open =
                    |seats, load| iceoryx::Service::open(seats, load, iceoryx::Answer::Copy);
                $body
            }
            #[cfg(feature = "iceoryx2")]
            System::IceoryxUntouched => {
                let $open =
                    |seats, load| iceoryx::Service::open(seats, load, iceoryx::Answer::Other);
                $body
            }
            #[cfg(not(feature = "iceoryx2"))]
            System::Iceoryx | System::IceoryxUntouched => {
                Err(Unavailable("this program was built without its feature iceoryx2").into())
            }
            System::UnixSocket => {
                let $open = streams::Socket::open;
                $body
            }
            System::Pipe => {
                let $open = streams::Pipes::open;
                $body
            }
            System::ZeroMq => {
                let $open = zeromq::Requester::open;
                $body
            }
        }
    };
}

impl System {
    /// As the plots name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InPlace(Wait::Spin) => "in place, spinning",
            Self::InPlace(Wait::Park) => "in place, sleeping",
            Self::InPlace(Wait::Default) => "in place",
            Self::TwoBuffers => "two buffers",
            Self::Iceoryx => "iceoryx2",
            Self::IceoryxUntouched => "iceoryx2, nothing copied",
            Self::UnixSocket => "Unix socket",
            Self::Pipe => "pipes",
            Self::ZeroMq => "ZeroMQ",
        }
    }

    /// Nanoseconds of a round trip of `len` bytes of which the server edits eight.
    pub(crate) fn echo_ns(self, round: &Round, len: usize) -> Result<f64> {
        with_open!(self, open => echo_ns(round, Load::echo(len), open))
    }

    /// How long single round trips of `len` bytes take.
    pub(crate) fn latencies(self, round: &Round, len: usize) -> Result<Histogram<u64>> {
        with_open!(self, open => latencies(round, Load::echo(len), open))
    }

    /// Nanoseconds for a picture that is filled here, worked on there, and read here.
    pub(crate) fn frame_ns(self, round: &Round, work: Work) -> Result<f64> {
        with_open!(self, open => frame_ns(round, Load::picture(work), open))
    }

    /// Nanoseconds for editing a twentieth of a picture that lies there already: the client writes
    /// nothing, and reads what was edited.
    pub(crate) fn redaction_ns(self, round: &Round) -> Result<f64> {
        with_open!(self, open => redaction_ns(round, Load::picture(Work::Redact), open))
    }

    /// Bytes of memory that both processes together use for exchanging pictures.
    pub(crate) fn memory(self, round: &Round) -> Result<f64> {
        with_open!(self, open => memory(round, open))
    }

    /// Messages of 64 bytes in a second with `in_flight` under way.
    pub(crate) fn pipelined(self, round: &Round, in_flight: usize) -> Result<f64> {
        let load = Load { in_flight, ..Load::echo(64) };
        match self {
            Self::InPlace(wait) => {
                pipelined(round, load, |seats, load| in_place::Channel::open(seats, load, wait))
            }
            Self::TwoBuffers => pipelined(round, load, two_buffers::Channel::open),
            #[cfg(feature = "iceoryx2")]
            Self::Iceoryx => pipelined(round, load, |seats, load| {
                iceoryx::Service::open(seats, load, iceoryx::Answer::Copy)
            }),
            Self::UnixSocket => pipelined(round, load, streams::Socket::open),
            _ => Err(Unavailable("not measured with several requests in flight").into()),
        }
    }
}

fn echo_ns<E: Exchange>(
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

fn latencies<E: Exchange>(
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

fn frame_ns<E: Exchange>(
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

fn redaction_ns<E: Exchange>(
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

fn frame<E: Exchange>(system: &mut E, seed: u64) -> Result<u64> {
    system.exchange(|bytes| work::fill(bytes, seed), work::read)
}

/// What exchanging pictures adds to both processes: shared pages count once.
fn memory<E: Exchange>(round: &Round, open: impl FnOnce(Seats, Load) -> Result<E>) -> Result<f64> {
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
        let most = most.join().expect("the looking thread does not panic")?;
        exchanged?;
        Ok(most.saturating_sub(before?) as f64)
    })
}

fn pipelined<P: Pipeline>(
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

/// What is needed for a comparison is not there: reported, and no failure.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) &'static str);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unavailable {}

/// A name that no other run and no other measurement has.
pub(crate) fn unique_name(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("zerobuffer-bench-{kind}-{}-{count}", std::process::id())
}

/// Whatever has this in its name leaves shared memory when this is dropped.
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(&self.0) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
