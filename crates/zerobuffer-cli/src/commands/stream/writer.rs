//! `zerobuffer writer`: frames with a known pattern, into a buffer that a reader has made.

use super::{Patience, Stop, Tally, failure, finish};
use crate::args::stream::WriterArgs;
use crate::commands::connect::size_of_buffer;
use crate::failure::{ErrorRecord, Exit, Failure};
use crate::interrupt::Interrupt;
use crate::report::Report;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zerobuffer::ErrorKind;

/// What `writer --json` says: the fields of the existing tools, and `ok`, `total_bytes`, `error`.
#[derive(Debug, Serialize)]
struct WriterRecord<'a> {
    ok: bool,
    operation: &'static str,
    buffer_name: &'a str,
    frames_written: u64,
    frame_size: usize,
    metadata_size: usize,
    total_bytes: u64,
    duration_seconds: f64,
    throughput_mbps: f64,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorRecord>,
}

/// Writes the frames.
pub(crate) fn run(args: &WriterArgs, report: &Report) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let mut tally = Tally::default();
    let mut metadata_size = 0;
    let failed = write(args, &interrupt, &mut tally, &mut metadata_size).err();
    let record = WriterRecord {
        ok: failed.is_none(),
        operation: "write",
        buffer_name: &args.name,
        frames_written: tally.frames,
        frame_size: args.size,
        metadata_size,
        total_bytes: tally.bytes,
        duration_seconds: tally.seconds(),
        throughput_mbps: tally.throughput(),
        errors: failed.iter().map(|failure| failure.message.clone()).collect(),
        error: failed.as_ref().map(|failure| failure.record().error),
    };
    finish(report, &record, tally.in_words("wrote"), failed)
}

fn write(
    args: &WriterArgs,
    interrupt: &Interrupt,
    tally: &mut Tally,
    metadata_size: &mut usize,
) -> Result<(), Failure> {
    let source = Metadata::open(args, interrupt)?;
    let patience = Patience { limit: args.timeout_ms, interrupt };
    let explain = |stop| failure(stop, &args.name, &patience);
    let mut writer = patience.connect(&args.name).map_err(explain)?;
    let metadata = source.read(&args.name, interrupt)?;
    if !metadata.is_empty() {
        writer.set_metadata(&metadata).map_err(|error| explain(Stop::Failed(error)))?;
        *metadata_size = metadata.len();
    }
    for number in 0..args.frames {
        if number > 0 && number.is_multiple_of(args.batch_size) {
            interrupt.sleep(args.delay_ms);
        }
        tally.begin();
        patience.write(&mut writer, args.size, |data| args.pattern.fill(number, data)).map_err(
            |stop| {
                let so_far = format!("{} of {} frames are written", tally.frames, args.frames);
                explain(stop).with(&so_far)
            },
        )?;
        tally.add(args.size);
    }
    if args.drain {
        let drained = patience.wait(&[ErrorKind::Timeout], |slice| writer.drain(slice));
        drained.map_err(|stop| unread(stop, args, &patience))?;
    }
    Ok(())
}

/// The reader has not taken all.
fn unread(stop: Stop, args: &WriterArgs, patience: &Patience<'_>) -> Failure {
    let so_far = format!("all {} frames are written, and not all were taken", args.frames);
    let limit = patience.limit_in_words();
    match &stop {
        Stop::TimedOut(_) => {
            let message =
                format!("the reader of buffer {:?} took no more within {limit}", args.name);
            failure(stop, &args.name, patience).reworded(message).with(&so_far)
        }
        _ => failure(stop, &args.name, patience).with(&so_far),
    }
}

/// Where the metadata comes from.
enum Metadata<'a> {
    Text(&'a str),
    File(&'a Path, File),
}

impl<'a> Metadata<'a> {
    fn open(args: &'a WriterArgs, interrupt: &Interrupt) -> Result<Self, Failure> {
        let Some(path) = &args.metadata_file else {
            return Ok(Self::Text(args.metadata.as_deref().unwrap_or_default()));
        };
        let own_path = path.clone();
        let file = interrupt
            .wait_for(move || File::open(own_path))?
            .map_err(|error| Failure::file("read", path, error))?;
        Ok(Self::File(path, file))
    }

    /// No more than the buffer has bytes: what is too long for it is still that.
    fn read(self, buffer: &str, interrupt: &Interrupt) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::File(path, file) => {
                let mut beginning = file.take(size_of_buffer(buffer) as u64);
                let read = move || {
                    let mut bytes = Vec::new();
                    beginning.read_to_end(&mut bytes).map(|_| bytes)
                };
                interrupt.wait_for(read)?.map_err(|error| Failure::file("read", path, error))
            }
        }
    }
}
