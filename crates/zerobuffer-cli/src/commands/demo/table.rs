//! What the demo says.

use super::channel::{Channel, Done, Job};
use crate::picture::Shape;
use crate::report::{Latencies, LatencyRecord, count, time};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::path::PathBuf;

/// What `demo --json` says.
#[derive(Debug, Serialize)]
pub(super) struct DemoRecord {
    pub(super) ok: bool,
    command: &'static str,
    frames: u64,
    right_answers: u64,
    wrong_answers: u64,
    width: u32,
    height: u32,
    channels: u32,
    frame_bytes: u64,
    server_pid: u32,
    round_trip_us: LatencyRecord,
    in_process_us: LatencyRecord,
    frames_per_second: f64,
    segment: String,
    segment_bytes: u64,
    two_buffers_bytes: u64,
    memory_ratio: f64,
    bytes_copied: u64,
    bytes_written_by_client: u64,
    two_buffers_bytes_copied: u64,
    two_buffers: TwoBuffersRecord,
    before: PathBuf,
    after: PathBuf,
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

/// The record of both channels.
pub(super) fn record(job: &Job<'_>, in_place: &Channel, two_buffers: &Channel) -> DemoRecord {
    let (frames, frame_bytes) = (job.args.frames, job.picture.data.len() as u64);
    let Shape { width, height, channels } = job.picture.shape;
    let (one, two) = (&in_place.done, &two_buffers.done);
    DemoRecord {
        ok: one.wrong == 0 && two.wrong == 0,
        command: "demo",
        frames,
        right_answers: frames - one.wrong,
        wrong_answers: one.wrong,
        width,
        height,
        channels,
        frame_bytes,
        server_pid: in_place.server_pid(),
        round_trip_us: one.round_trips.to_record(),
        in_process_us: job.expected.latencies.to_record(),
        frames_per_second: rate(frames, one),
        segment: in_place.segments.concat(),
        segment_bytes: in_place.segment_bytes,
        two_buffers_bytes: two_buffers.segment_bytes,
        memory_ratio: in_place.segment_bytes as f64 / two_buffers.segment_bytes as f64,
        bytes_copied: one.copied,
        bytes_written_by_client: frame_bytes * frames,
        two_buffers_bytes_copied: two.copied,
        two_buffers: TwoBuffersRecord {
            right_answers: frames - two.wrong,
            wrong_answers: two.wrong,
            server_pid: two_buffers.server_pid(),
            round_trip_us: two.round_trips.to_record(),
            frames_per_second: rate(frames, two),
            segments: two_buffers.segments.clone(),
            segment_bytes: two_buffers.segment_bytes,
            bytes_copied: two.copied,
        },
        before: job.args.out.join("before.png"),
        after: job.args.out.join("after.png"),
    }
}

fn rate(frames: u64, done: &Done) -> f64 {
    frames as f64 / done.busy.as_secs_f64()
}

/// The record for people: a column for each channel.
pub(super) fn table(
    record: &DemoRecord,
    shape: Shape,
    done: [&Done; 2],
    alone: &Latencies,
) -> String {
    let verdict = |done: &Done| match done.wrong {
        0 => "all right".to_owned(),
        wrong => format!("{} WRONG", count(wrong)),
    };
    let round_trip = |quantile| move |done: &Done| time(done.round_trips.quantile(quantile));
    let both = |say: &dyn Fn(&Done) -> String| done.map(say);
    let bytes = |number| format!("{} bytes", count(number));
    let ratio =
        format!("{} (in place: {:.3})", bytes(record.two_buffers_bytes), record.memory_ratio);
    let rows = [
        ("answers", both(&verdict)),
        ("round trip, p50", both(&round_trip(0.5))),
        ("round trip, p99", both(&round_trip(0.99))),
        ("frames per second", both(&|done| format!("{:.0}", rate(record.frames, done)))),
        ("shared memory", [bytes(record.segment_bytes), ratio]),
        ("copied by the channel", both(&|done| bytes(done.copied))),
        (
            "written by the client",
            [bytes(record.bytes_written_by_client), bytes(record.bytes_written_by_client)],
        ),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "in place", "two buffers"]);
    for (name, [in_place, two_buffers]) in rows {
        table.add_row([name, &in_place, &two_buffers]);
    }
    let Shape { width, height, .. } = shape;
    format!(
        "{} frames of {width} x {height} {}, {} each, through both channels; the same work in this \
         process takes {}\n{table}\npictures: {}, {}",
        count(record.frames),
        shape.colours(),
        bytes(record.frame_bytes),
        time(alone.quantile(0.5)),
        record.before.display(),
        record.after.display()
    )
}
