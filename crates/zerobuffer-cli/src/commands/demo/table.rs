//! What the demo says.

use super::channel::Done;
use crate::args::DemoArgs;
use crate::filters::redacted_percent;
use crate::picture::{Picture, Shape};
use crate::report::{Latencies, LatencyRecord, count, time};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::path::PathBuf;

/// The same frames through both channels.
pub(super) struct Pair {
    pub(super) in_place: Done,
    pub(super) two_buffers: Done,
    /// Of each frame: the round trip over two buffers, divided by that in place. Sorted.
    pub(super) ratios: Vec<f64>,
    /// Of the filters, called as functions in this process.
    pub(super) alone: Latencies,
}

/// What `demo --json` says.
#[derive(Debug, Serialize)]
pub(super) struct DemoRecord {
    pub(super) ok: bool,
    command: &'static str,
    frames: u64,
    width: u32,
    height: u32,
    channels: u32,
    frame_bytes: u64,
    #[serde(flatten)]
    blur: PairRecord,
    redaction: PairRecord,
    redacted_percent: f64,
    before: PathBuf,
    after: PathBuf,
    notes: Vec<String>,
}

/// One kind of work on both channels; in place where nothing else is said.
#[derive(Debug, Serialize)]
struct PairRecord {
    right_answers: u64,
    wrong_answers: u64,
    server_pid: u32,
    round_trip_us: LatencyRecord,
    in_process_us: LatencyRecord,
    round_trip_ratio: Spread,
    frames_per_second: f64,
    segment: String,
    segment_bytes: u64,
    two_buffers_bytes: u64,
    memory_ratio: f64,
    bytes_copied: u64,
    bytes_written_by_client: u64,
    two_buffers_bytes_copied: u64,
    two_buffers: TwoBuffersRecord,
}

/// The same frames through the other channel.
#[derive(Debug, Serialize)]
struct TwoBuffersRecord {
    right_answers: u64,
    wrong_answers: u64,
    server_pid: u32,
    round_trip_us: LatencyRecord,
    frames_per_second: f64,
    segments: Vec<String>,
    segment_bytes: u64,
    bytes_copied: u64,
}

/// A ratio of each frame's two times.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// The record of both kinds of work.
pub(super) fn record(
    args: &DemoArgs,
    picture: &Picture,
    notes: Vec<String>,
    blur: &Pair,
    redaction: &Pair,
) -> DemoRecord {
    let Shape { width, height, channels } = picture.shape;
    let frame_bytes = picture.data.len() as u64;
    DemoRecord {
        ok: [blur, redaction].iter().all(|pair| pair.in_place.wrong + pair.two_buffers.wrong == 0),
        command: "demo",
        frames: args.frames,
        width,
        height,
        channels,
        frame_bytes,
        blur: pair_record(blur, args.frames, frame_bytes),
        redaction: pair_record(redaction, args.frames, frame_bytes),
        redacted_percent: redacted_percent(args.image_options.area, picture.shape),
        before: args.out.join("before.png"),
        after: args.out.join("after.png"),
        notes,
    }
}

fn pair_record(pair: &Pair, frames: u64, frame_bytes: u64) -> PairRecord {
    let (one, two) = (&pair.in_place, &pair.two_buffers);
    PairRecord {
        right_answers: frames - one.wrong,
        wrong_answers: one.wrong,
        server_pid: one.server_pid,
        round_trip_us: one.round_trips.to_record(),
        in_process_us: pair.alone.to_record(),
        round_trip_ratio: pair.spread(),
        frames_per_second: rate(frames, one),
        segment: one.segments.concat(),
        segment_bytes: one.segment_bytes,
        two_buffers_bytes: two.segment_bytes,
        memory_ratio: one.segment_bytes as f64 / two.segment_bytes as f64,
        bytes_copied: one.copied,
        bytes_written_by_client: frame_bytes * frames,
        two_buffers_bytes_copied: two.copied,
        two_buffers: TwoBuffersRecord {
            right_answers: frames - two.wrong,
            wrong_answers: two.wrong,
            server_pid: two.server_pid,
            round_trip_us: two.round_trips.to_record(),
            frames_per_second: rate(frames, two),
            segments: two.segments.clone(),
            segment_bytes: two.segment_bytes,
            bytes_copied: two.copied,
        },
    }
}

impl Pair {
    fn spread(&self) -> Spread {
        let at = |index: usize| self.ratios.get(index).copied().unwrap_or(f64::NAN);
        let last = self.ratios.len().saturating_sub(1);
        Spread { median: at(last / 2), min: at(0), max: at(last) }
    }
}

fn rate(frames: u64, done: &Done) -> f64 {
    frames as f64 / done.busy.as_secs_f64()
}

/// The record for people: a column for each channel.
pub(super) fn table(
    record: &DemoRecord,
    args: &DemoArgs,
    picture: &Picture,
    blur: &Pair,
    redaction: &Pair,
) -> String {
    let redacted = format!("redact {:.1} % of the picture", record.redacted_percent);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "in place", "two buffers"]);
    for (what, pair) in [("blur and redact", blur), (redacted.as_str(), redaction)] {
        let alone = time(pair.alone.quantile(0.5));
        table.add_row([format!("{what}; here {alone}"), String::new(), String::new()]);
        for (name, [in_place, two_buffers]) in rows(pair, args.frames) {
            table.add_row([format!("  {name}"), in_place, two_buffers]);
        }
    }
    let bytes = |number| format!("{} bytes", count(number));
    let PairRecord { two_buffers_bytes, memory_ratio, .. } = record.blur;
    let in_all = format!("{} (in place: {memory_ratio:.3})", bytes(two_buffers_bytes));
    table.add_row(["shared memory", &bytes(record.blur.segment_bytes), &in_all]);
    let written = bytes(record.blur.bytes_written_by_client);
    table.add_row(["written by the client, each time", &written, &written]);
    let Shape { width, height, .. } = picture.shape;
    format!(
        "{} frames of {width} x {height} {}, {} each, through both in turn; \"here\" is the \
         same work in this process\n{table}\npictures: {}, {}",
        count(record.frames),
        picture.shape.colours(),
        bytes(record.frame_bytes),
        record.before.display(),
        record.after.display()
    )
}

fn rows(pair: &Pair, frames: u64) -> [(&'static str, [String; 2]); 6] {
    let verdict = |done: &Done| match done.wrong {
        0 => "all right".to_owned(),
        wrong => format!("{} WRONG", count(wrong)),
    };
    let round_trip = |quantile| move |done: &Done| time(done.round_trips.quantile(quantile));
    let both = |say: &dyn Fn(&Done) -> String| [say(&pair.in_place), say(&pair.two_buffers)];
    let Spread { median, min, max } = pair.spread();
    let ratio = format!("{median:.2} times as long ({min:.2} … {max:.2})");
    [
        ("answers", both(&verdict)),
        ("round trip, p50", both(&round_trip(0.5))),
        ("round trip, p99", both(&round_trip(0.99))),
        ("frame by frame", ["1".to_owned(), ratio]),
        ("frames per second", both(&|done| format!("{:.0}", rate(frames, done)))),
        ("copied by the channel", both(&|done| format!("{} bytes", count(done.copied)))),
    ]
}
