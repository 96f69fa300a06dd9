//! The commands for version 1 buffers, in which frames go one way.

pub(crate) mod reader;
pub(crate) mod relay;
pub(crate) mod writer;

use crate::args::stream::Limit;
use crate::failure::{Exit, Failure};
use crate::interrupt::{Interrupt, SLICE};
use crate::report::{Report, count};
use serde::Serialize;
use std::time::{Duration, Instant};
use zerobuffer::v1::{Reader, Writer, WriterConfig};
use zerobuffer::{Error, ErrorKind};

/// The most that is told of single frames.
const MOST_TOLD: usize = 100;

/// Why a wait came to nothing.
#[derive(Debug)]
enum Stop {
    Signal(u8),
    /// The time is up; what the last try said.
    TimedOut(Error),
    Failed(Error),
}

/// A time limit, waited for in slices so that Ctrl-C is noticed.
struct Patience<'i> {
    limit: Limit,
    interrupt: &'i Interrupt,
}

impl Patience<'_> {
    /// Calls `attempt` with a short timeout again and again, as long as it fails with one of the
    /// kinds in `early` and there is time left.
    fn wait<T>(
        &self,
        early: &[ErrorKind],
        mut attempt: impl FnMut(Duration) -> Result<T, Error>,
    ) -> Result<T, Stop> {
        let start = Instant::now();
        loop {
            if let Some(signal) = self.interrupt.signal() {
                return Err(Stop::Signal(signal));
            }
            let left = self.limit.0.map_or(SLICE, |limit| limit.saturating_sub(start.elapsed()));
            match attempt(left.min(SLICE)) {
                Ok(done) => return Ok(done),
                Err(error) if !early.contains(&error.kind()) => return Err(Stop::Failed(error)),
                Err(error) if left.is_zero() => return Err(Stop::TimedOut(error)),
                Err(_) => {}
            }
        }
    }

    /// Attaches to the buffer.
    fn connect(&self, name: &str) -> Result<Writer, Stop> {
        // Every write waits in slices as well, see `write`.
        let config = WriterConfig::new().write_timeout(SLICE);
        self.wait(&[ErrorKind::NotRunning, ErrorKind::Busy], |slice| {
            Writer::connect_with(name, slice, config.clone())
        })
    }

    /// Writes one frame in place.
    fn write(
        &self,
        writer: &mut Writer,
        len: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), Stop> {
        self.wait(&[ErrorKind::Full], |slice| {
            writer.set_write_timeout(slice);
            let mut frame = writer.acquire(len)?;
            fill(frame.data_mut());
            frame.commit().map(|_| ())
        })
    }

    fn limit_in_words(&self) -> String {
        self.limit.0.map_or("any time".to_owned(), crate::report::time)
    }
}

/// A failure about the buffer `name`, in the words of buffers.
fn failure(stop: Stop, name: &str, patience: &Patience<'_>) -> Failure {
    let limit = patience.limit_in_words();
    let error = match stop {
        Stop::Signal(signal) => return Failure::interrupted(signal),
        Stop::TimedOut(error) | Stop::Failed(error) => error,
    };
    let (message, hint) = match error.kind() {
        ErrorKind::NotRunning => (
            format!("no reader has made buffer {name:?} within {limit}"),
            "`zerobuffer reader NAME` makes one; --timeout-ms MS waits longer",
        ),
        ErrorKind::Busy => (
            format!("buffer {name:?} has another writer"),
            "a buffer has one writer at a time; --timeout-ms MS waits for its turn",
        ),
        ErrorKind::AlreadyRunning => {
            (format!("buffer {name:?} has a reader already"), "stop it, or choose another name")
        }
        ErrorKind::NotConnectedYet => (
            format!("no writer has come to buffer {name:?} within {limit}"),
            "`zerobuffer writer NAME` is one; --timeout-ms MS waits longer",
        ),
        ErrorKind::Timeout => (
            format!("no frame has come through buffer {name:?} within {limit}"),
            "--timeout-ms MS waits longer, --timeout-ms 0 for ever",
        ),
        ErrorKind::Full => (
            format!("no room in buffer {name:?} within {limit}"),
            "its reader is too slow; --timeout-ms MS waits longer, --timeout-ms 0 for ever",
        ),
        ErrorKind::TooLarge | ErrorKind::WouldNeverFit => (
            format!("buffer {name:?}: {error}"),
            "`zerobuffer reader` makes larger ones with --buffer-size and --metadata-size",
        ),
        ErrorKind::PeerClosed => (format!("the other side has closed buffer {name:?}"), ""),
        ErrorKind::PeerDied => (
            format!("the process at the other side of buffer {name:?} died"),
            "a new reader of that name clears away what a dead one has left",
        ),
        ErrorKind::BadName => {
            (error.to_string(), "a buffer's name has 1 to 245 bytes without /, and is not . or ..")
        }
        _ => (format!("buffer {name:?}: {error}"), ""),
    };
    let failure = Failure::from(error).reworded(message);
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

/// Frames and bytes that were transferred, and how long it took.
#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    start: Option<Instant>,
    took: Duration,
}

impl Tally {
    /// The first frame begins, or another one.
    fn begin(&mut self) {
        self.start.get_or_insert_with(Instant::now);
    }

    fn add(&mut self, len: usize) {
        self.frames += 1;
        self.bytes += len as u64;
        self.took = self.start.map_or(Duration::ZERO, |start| start.elapsed());
        if self.frames.is_multiple_of(100) {
            tracing::debug!(frames = self.frames, bytes = self.bytes, "under way");
        }
    }

    fn seconds(&self) -> f64 {
        self.took.as_secs_f64()
    }

    /// MiB per second, as in the existing tools.
    fn throughput(&self) -> f64 {
        match self.took.is_zero() {
            true => 0.0,
            false => self.bytes as f64 / f64::from(1 << 20) / self.seconds(),
        }
    }

    fn in_words(&self, verb: &str) -> String {
        let (frames, bytes) = (count(self.frames), count(self.bytes));
        let took = crate::report::time(self.took);
        format!("{verb} {frames} frames, {bytes} bytes in {took}: {:.1} MiB/s", self.throughput())
    }
}

/// How many frames were asked for: 0 and negative numbers ask for all.
fn wanted(frames: i64) -> Option<u64> {
    u64::try_from(frames).ok().filter(|frames| *frames > 0)
}

/// The metadata, if there is any.
fn metadata_of(reader: &Reader) -> Result<Option<Vec<u8>>, Stop> {
    let metadata = reader.metadata().map_err(Stop::Failed)?;
    Ok(metadata.filter(|bytes| !bytes.is_empty()))
}

/// Says what came of it: in JSON one record, with the failure in it.
fn finish(
    report: &Report,
    record: &impl Serialize,
    words: String,
    failure: Option<Failure>,
) -> Result<Exit, Failure> {
    report.result(record, || words)?;
    let Some(failure) = failure else { return Ok(Exit::Done) };
    if !report.is_json() {
        report.failure(&failure);
    }
    Ok(failure.exit)
}
