//! `zerobuffer relay`: the frames of one buffer into another one.

use super::{Patience, Stop, Tally, failure, finish, metadata_of, wanted};
use crate::args::stream::{Limit, RelayArgs, Transform};
use crate::failure::{ErrorRecord, Exit, Failure};
use crate::filters::{Chain, Filter, ImageOptions, Key};
use crate::interrupt::{Interrupt, SLICE};
use crate::report::{Report, count};
use serde::Serialize;
use std::time::{Duration, Instant};
use zerobuffer::v1::{FrameView, Reader, ReaderConfig, Writer};
use zerobuffer::{BufferConfig, Error, ErrorKind};

/// What `relay --json` says: the fields of the existing tool in snake_case, and `ok`,
/// `output_created`, `error`.
#[derive(Debug, Serialize)]
struct RelayRecord<'a> {
    ok: bool,
    operation: &'static str,
    input_buffer: &'a str,
    output_buffer: &'a str,
    output_created: bool,
    frames_relayed: u64,
    metadata_relayed: bool,
    metadata_size: usize,
    total_bytes: u64,
    duration_seconds: f64,
    throughput_mbps: f64,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorRecord>,
}

/// What has been done.
#[derive(Debug, Default)]
struct Done {
    tally: Tally,
    created: bool,
    metadata_size: usize,
}

/// Relays the frames.
pub(crate) fn run(args: &RelayArgs, report: &Report) -> Result<Exit, Failure> {
    let chain = transform(args)?;
    let interrupt = Interrupt::listen()?;
    let mut done = Done::default();
    let failed = relay(args, &chain, &interrupt, &mut done).err();
    let record = RelayRecord {
        ok: failed.is_none(),
        operation: "relay",
        input_buffer: &args.input,
        output_buffer: &args.output,
        output_created: done.created,
        frames_relayed: done.tally.frames,
        metadata_relayed: done.metadata_size > 0,
        metadata_size: done.metadata_size,
        total_bytes: done.tally.bytes,
        duration_seconds: done.tally.seconds(),
        throughput_mbps: done.tally.throughput(),
        errors: failed.iter().map(|failure| failure.message.clone()).collect(),
        error: failed.as_ref().map(|failure| failure.record().error),
    };
    finish(report, &record, done.tally.in_words("relayed"), failed)
}

fn transform(args: &RelayArgs) -> Result<Chain, Failure> {
    if args.xor_key.is_some() && args.transform != Transform::Xor {
        return Err(Failure::usage("--xor-key is the key of --transform xor"));
    }
    if args.input == args.output {
        return Err(Failure::usage("INPUT and OUTPUT are the same buffer"));
    }
    let filter = match args.transform {
        Transform::None => Filter::Echo,
        Transform::Xor => Filter::Xor,
        Transform::Invert => Filter::Invert,
    };
    let key = args.xor_key.clone().unwrap_or_else(Key::ones);
    let options = ImageOptions { radius: None, area: None };
    Chain::new(&[filter], Some(&key), &options).map_err(Failure::usage)
}

/// Where the frames go.
struct Output<'a> {
    name: &'a str,
    writer: Writer,
    /// With --create-output: reads what was written.
    drain: Option<Reader>,
}

fn relay(
    args: &RelayArgs,
    chain: &Chain,
    interrupt: &Interrupt,
    done: &mut Done,
) -> Result<(), Failure> {
    let patience = Patience { limit: args.timeout_ms, interrupt };
    let explain = |stop| failure(stop, &args.input, &patience);
    let config = BufferConfig::new(args.metadata_size, args.buffer_size);
    let input = Reader::create(&args.input, ReaderConfig::new(config))
        .map_err(|error| explain(Stop::Failed(error)))?;
    let mut output = open_output(args, &patience)?;
    done.created = output.drain.is_some();
    let wanted = wanted(args.frames);
    while wanted.is_none_or(|wanted| done.tally.frames < wanted) {
        let frame = match next(&input, &mut output, &patience)? {
            Ok(frame) => frame,
            // Nothing more was asked for than what comes.
            Err(Stop::Failed(Error::PeerClosed { .. }) | Stop::Signal(_)) if wanted.is_none() => {
                break;
            }
            Err(stop) => return Err(explain(stop).with(&so_far(done, wanted))),
        };
        done.tally.begin();
        relay_metadata(&input, &mut output, &patience, done)?;
        output
            .send(&frame, chain, &patience)
            .map_err(|failure| failure.with(&so_far(done, wanted)))?;
        done.tally.add(frame.len());
    }
    // A writer may have set some and written no frame.
    relay_metadata(&input, &mut output, &patience, done)
}

fn so_far(done: &Done, wanted: Option<u64>) -> String {
    let of = wanted.map(|wanted| format!(" of {}", count(wanted))).unwrap_or_default();
    format!("{}{of} frames are relayed", count(done.tally.frames))
}

/// Attaches to OUTPUT, or makes it if nobody has and that was asked for.
fn open_output<'a>(args: &'a RelayArgs, patience: &Patience<'_>) -> Result<Output<'a>, Failure> {
    let name = args.output.as_str();
    let explain = |stop| failure(stop, name, patience);
    let mut drain = None;
    let now = Patience { limit: Limit(Some(Duration::ZERO)), interrupt: patience.interrupt };
    let writer = match now.connect(name) {
        Err(Stop::TimedOut(Error::NotRunning { .. })) if args.create_output => {
            let config = BufferConfig::new(args.metadata_size, args.buffer_size);
            let reader = Reader::create(name, ReaderConfig::new(config));
            drain = Some(reader.map_err(|error| explain(Stop::Failed(error)))?);
            patience.connect(name).map_err(explain)?
        }
        Err(Stop::TimedOut(_)) => patience.connect(name).map_err(explain)?,
        connected => connected.map_err(explain)?,
    };
    Ok(Output { name, writer, drain })
}

/// The next frame. Meanwhile the reader of OUTPUT may leave.
fn next<'r>(
    input: &'r Reader,
    output: &mut Output<'_>,
    patience: &Patience<'_>,
) -> Result<Result<FrameView<'r>, Stop>, Failure> {
    let start = Instant::now();
    loop {
        let left = patience.limit.0.map_or(SLICE, |limit| limit.saturating_sub(start.elapsed()));
        let slice = Patience { limit: Limit(Some(left.min(SLICE))), ..*patience };
        let early = [ErrorKind::Timeout, ErrorKind::NotConnectedYet];
        match slice.wait(&early, |slice| input.read_frame(slice)) {
            Err(Stop::TimedOut(_)) if !left.is_zero() => output.check(patience)?,
            outcome => return Ok(outcome),
        }
    }
}

/// Once, as soon as there is some.
fn relay_metadata(
    input: &Reader,
    output: &mut Output<'_>,
    patience: &Patience<'_>,
    done: &mut Done,
) -> Result<(), Failure> {
    if done.metadata_size > 0 || done.tally.frames > 0 {
        return Ok(());
    }
    let explain = |stop| failure(stop, output.name, patience);
    if let Some(metadata) = metadata_of(input).map_err(explain)? {
        let set = output.writer.set_metadata(&metadata);
        set.map_err(|error| explain(Stop::Failed(error)))?;
        done.metadata_size = metadata.len();
    }
    Ok(())
}

impl Output<'_> {
    /// An error if the reader of OUTPUT has ended.
    fn check(&mut self, patience: &Patience<'_>) -> Result<(), Failure> {
        self.writer.set_write_timeout(Duration::ZERO);
        match self.writer.acquire(1) {
            Err(error @ (Error::PeerClosed { .. } | Error::PeerDied { .. })) => {
                Err(failure(Stop::Failed(error), self.name, patience))
            }
            // Whether there is room does not matter yet.
            _ => Ok(()),
        }
    }

    /// Copies a frame into OUTPUT and transforms it there.
    fn send(
        &mut self,
        frame: &FrameView<'_>,
        chain: &Chain,
        patience: &Patience<'_>,
    ) -> Result<(), Failure> {
        let explain = |stop| failure(stop, self.name, patience);
        let transform = |data: &mut [u8]| {
            data.copy_from_slice(frame.data());
            // These filters take any bytes.
            let _ = chain.apply(&[], data);
        };
        patience.write(&mut self.writer, frame.len(), transform).map_err(explain)?;
        let Some(drain) = &self.drain else { return Ok(()) };
        let read = drain.read_frame(Duration::ZERO).map_err(Stop::Failed).map_err(explain)?;
        let mut expected = frame.data().to_vec();
        transform(&mut expected);
        match read.data() == expected {
            true => Ok(()),
            false => {
                Err(Failure::wrong_answer(format!("buffer {:?} has changed a frame", self.name)))
            }
        }
    }
}
