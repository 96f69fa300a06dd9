//! `zerobuffer reader`: makes a buffer, reads its frames, and checks them.

use super::{MOST_TOLD, Patience, Stop, Tally, failure, finish, metadata_of, wanted};
use crate::args::stream::ReaderArgs;
use crate::failure::{ErrorRecord, Exit, Failure};
use crate::interrupt::Interrupt;
use crate::report::{Report, count};
use md5::{Digest, Md5};
use serde::Serialize;
use std::time::Duration;
use zerobuffer::v1::{FrameView, Reader, ReaderConfig};
use zerobuffer::{BufferConfig, Error, ErrorKind};

/// What `reader --json` says: the fields of the existing tools, and `ok`, `total_bytes`, `error`.
#[derive(Debug, Serialize)]
struct ReaderRecord<'a> {
    ok: bool,
    operation: &'static str,
    buffer_name: &'a str,
    frames_read: u64,
    frame_size: usize,
    metadata_size: usize,
    total_bytes: u64,
    duration_seconds: f64,
    throughput_mbps: f64,
    verification_errors: u64,
    checksums: &'a [Checksum],
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorRecord>,
}

#[derive(Debug, Serialize)]
struct Checksum {
    frame: u64,
    checksum: String,
}

/// What was seen of the frames.
#[derive(Debug, Default)]
struct Seen {
    tally: Tally,
    first_len: Option<usize>,
    metadata_size: usize,
    wrong: u64,
    errors: Vec<String>,
    checksums: Vec<Checksum>,
}

/// Reads the frames.
pub(crate) fn run(args: &ReaderArgs, report: &Report) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut seen = Seen::default();
    let mut failed = read(args, &interrupt, &mut seen).err();
    if failed.is_none() && seen.wrong > 0 {
        let (wrong, frames) = (count(seen.wrong), count(seen.tally.frames));
        failed = Some(Failure::wrong_answer(format!("{wrong} of {frames} frames are wrong")));
    }
    let mut errors = std::mem::take(&mut seen.errors);
    let words = in_words(&seen, &errors);
    errors.extend(failed.iter().map(|failure| failure.message.clone()));
    let record = ReaderRecord {
        ok: failed.is_none(),
        operation: "read",
        buffer_name: &args.name,
        frames_read: seen.tally.frames,
        frame_size: args.size.or(seen.first_len).unwrap_or(0),
        metadata_size: seen.metadata_size,
        total_bytes: seen.tally.bytes,
        duration_seconds: seen.tally.seconds(),
        throughput_mbps: seen.tally.throughput(),
        verification_errors: seen.wrong,
        checksums: &seen.checksums,
        errors,
        error: failed.as_ref().map(|failure| failure.record().error),
    };
    finish(report, &record, words, failed)
}

fn read(args: &ReaderArgs, interrupt: &Interrupt, seen: &mut Seen) -> Result<(), Failure> {
    let patience = Patience { limit: args.timeout_ms, interrupt };
    let explain = |stop| failure(stop, &args.name, &patience);
    let config = ReaderConfig::new(BufferConfig::new(args.metadata_size, args.buffer_size));
    let reader =
        Reader::create(&args.name, config).map_err(|error| explain(Stop::Failed(error)))?;
    let wanted = wanted(args.frames);
    let mut held = Vec::new();
    while wanted.is_none_or(|wanted| seen.tally.frames < wanted) {
        let frame = match next(&patience, args.batch_size, &reader, &mut held) {
            Ok(frame) => frame,
            // Nothing more was asked for than what comes.
            Err(Stop::Failed(Error::PeerClosed { .. }) | Stop::Signal(_)) if wanted.is_none() => {
                break;
            }
            Err(stop) => {
                let failure = explain(stop);
                let Some(wanted) = wanted else { return Err(failure) };
                let so_far =
                    format!("{} of {} frames have come", count(seen.tally.frames), count(wanted));
                return Err(failure.with(&so_far));
            }
        };
        seen.tally.begin();
        if seen.tally.frames == 0 {
            // Writers set it before their first frame.
            seen.metadata_size = metadata_of(&reader).map_err(explain)?.map_or(0, |m| m.len());
        }
        seen.look_at(args, &frame);
        held.push(frame);
    }
    Ok(())
}

/// The next frame. While fewer than `batch` are held, one that is there already is added to them;
/// before any wait they are released, as the writer may wait for their space.
fn next<'r>(
    patience: &Patience<'_>,
    batch: usize,
    reader: &'r Reader,
    held: &mut Vec<FrameView<'r>>,
) -> Result<FrameView<'r>, Stop> {
    if !held.is_empty()
        && held.len() < batch
        && patience.interrupt.signal().is_none()
        && let Ok(frame) = reader.read_frame(Duration::ZERO)
    {
        return Ok(frame);
    }
    held.clear();
    let early = [ErrorKind::Timeout, ErrorKind::NotConnectedYet];
    patience.wait(&early, |slice| reader.read_frame(slice))
}

impl Seen {
    fn look_at(&mut self, args: &ReaderArgs, frame: &FrameView<'_>) {
        let (number, data) = (self.tally.frames, frame.data());
        self.first_len.get_or_insert(data.len());
        let fault = match args.size.filter(|size| *size != data.len()) {
            Some(size) => Some(format!("{} bytes instead of {size}", data.len())),
            None => args.verify.pattern().and_then(|pattern| {
                let wrong = pattern.check(number, data)?;
                let (found, expected) = (wrong.found, wrong.expected);
                Some(format!("byte {} is {found}, {pattern} has {expected}", wrong.at))
            }),
        };
        if let Some(fault) = fault {
            self.wrong += 1;
            tracing::debug!(frame = number, fault, "wrong frame");
            if self.errors.len() < MOST_TOLD {
                self.errors.push(format!("frame {number}: {fault}"));
            }
        }
        if args.checksum && self.checksums.len() < MOST_TOLD {
            let checksum = Md5::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
            self.checksums.push(Checksum { frame: number, checksum });
        }
        self.tally.add(data.len());
    }
}

fn in_words(seen: &Seen, errors: &[String]) -> String {
    let mut words = seen.tally.in_words("read");
    if seen.metadata_size > 0 {
        words += &format!("\n{} bytes of metadata", count(seen.metadata_size as u64));
    }
    for Checksum { frame, checksum } in &seen.checksums {
        words += &format!("\nframe {frame}: {checksum}");
    }
    for error in errors {
        words += &format!("\nwrong: {error}");
    }
    words
}
