//! `zerobuffer demo`: pictures, edited in place by a second process, every answer checked.

use super::child::ServerProcess;
use super::serve::segment_path;
use crate::args::{Common, DemoArgs};
use crate::drawing;
use crate::failure::{Exit, Failure};
use crate::filters::{Chain, Filter};
use crate::interrupt::{Interrupt, SLICE};
use crate::picture::{self, Picture, Shape};
use crate::report::{Latencies, LatencyRecord, Progress, Report, checksum, count, time};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zerobuffer::{ChannelName, Client, ClientConfig, Error, Response};

/// What the server does with each frame.
const FILTERS: [Filter; 2] = [Filter::Blur, Filter::Redact];
/// How many different frames there are; then they repeat.
const DIFFERENT_FRAMES: u64 = 8;
/// Size of a metadata block: the picture's shape takes 24 bytes.
const METADATA: u64 = 64;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What `demo --json` says.
#[derive(Debug, Serialize)]
struct DemoRecord {
    ok: bool,
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
    before: PathBuf,
    after: PathBuf,
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    std::fs::create_dir_all(&args.out).map_err(|error| Failure::file("make", &args.out, error))?;
    let picture = match &args.image {
        Some(path) => Picture::load(path, args.size)?,
        None => {
            let (width, height) = args.size.unwrap_or((1280, 720));
            drawing::draw(width, height)
        }
    };
    let chain = Chain::new(&FILTERS, None, &args.image_options).map_err(Failure::usage)?;
    let expected = Expected::compute(&picture, &chain, args.frames, &interrupt)?;

    let name = ChannelName::new(&format!("zerobuffer-demo-{}", std::process::id()))?;
    let payload = ring_for_one(picture.data.len() as u64);
    let server = ServerProcess::start(name.as_str(), &server_options(args, common, payload))?;
    // Goes before the server does, whatever happens.
    let config = ClientConfig::new().metadata(picture.shape.to_metadata());
    let client = Client::connect_with(name.as_str(), Duration::from_secs(5), config)?;
    let segment = segment_path(&name, false);
    let segment_bytes = std::fs::metadata(&segment)
        .map_err(|error| Failure::file("look at", Path::new(&segment), error))?
        .len();

    let job = Job { picture: &picture, expected: &expected, args, interrupt: &interrupt };
    let done = job.send_frames(&client)?;
    let server_pid = server.pid();
    drop(client);
    server.stop();

    let record = job.record(&done, server_pid, segment, segment_bytes);
    report.result(&record, || table(&record, picture.shape, &done, &expected))?;
    Ok(if record.ok { Exit::Done } else { Exit::WrongAnswer })
}

/// The ring that holds one frame of this length at a time: a header of 64 bytes and the data, in units
/// of 64 bytes.
fn ring_for_one(frame_bytes: u64) -> u64 {
    (64 + frame_bytes).next_multiple_of(64)
}

/// Bytes of shared memory that a buffer for requests and another one for responses take: each 128 bytes
/// of control block, metadata and payload (docs/protocol-v2.md, "Memory accounting").
fn two_buffers(payload: u64) -> u64 {
    2 * (128 + METADATA + payload)
}

fn server_options(args: &DemoArgs, common: &Common, payload: u64) -> Vec<String> {
    let filters: Vec<String> = FILTERS.iter().map(Filter::to_string).collect();
    let mut options = vec![
        "--filter".to_owned(),
        filters.join(","),
        format!("--payload={payload}"),
        format!("--metadata={METADATA}"),
    ];
    options.extend(args.image_options.radius.map(|radius| format!("--radius={radius}")));
    options.extend(args.image_options.area.map(|area| format!("--box={area}")));
    options.extend(args.spoil.map(|every| format!("--spoil={every}")));
    options.extend((0..common.verbose).map(|_| "-v".to_owned()));
    options
}

/// What the answers must be, from the same filters in this process.
struct Expected {
    /// Of each different frame's answer.
    checksums: Vec<u32>,
    /// Of the filters, called as a function.
    latencies: Latencies,
}

impl Expected {
    fn compute(
        picture: &Picture,
        chain: &Chain,
        frames: u64,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let different = frames.min(DIFFERENT_FRAMES);
        let mut progress = Progress::new("expected answers", different);
        let mut latencies = Latencies::new();
        let mut checksums = Vec::new();
        let metadata = picture.shape.to_metadata();
        let mut frame = vec![0; picture.data.len()];
        for number in 0..different {
            interrupt.check()?;
            picture.scrolled_into(rows_of(number, picture.shape), &mut frame);
            let start = Instant::now();
            chain.apply(&metadata, &mut frame).map_err(Failure::usage)?;
            latencies.record(start.elapsed());
            checksums.push(checksum(&frame));
            progress.step();
        }
        Ok(Self { checksums, latencies })
    }

    fn is_right(&self, frame: u64, answer: &[u8]) -> bool {
        self.checksums[(frame % self.checksums.len() as u64) as usize] == checksum(answer)
    }
}

/// How far down frame `number` is moved: a different way for each frame in a row of
/// [`DIFFERENT_FRAMES`], and frame 0 not at all.
fn rows_of(number: u64, shape: Shape) -> usize {
    let phase = number % DIFFERENT_FRAMES;
    (phase * u64::from(shape.height) / DIFFERENT_FRAMES) as usize
}

/// What is to be done.
struct Job<'j> {
    picture: &'j Picture,
    expected: &'j Expected,
    args: &'j DemoArgs,
    interrupt: &'j Interrupt,
}

/// What was done.
struct Done {
    wrong: u64,
    /// Answers that were not where the client had written the request.
    moved: u64,
    /// From the commit to the answer.
    round_trips: Latencies,
    /// Writing the frames, waiting for the answers, and reading them.
    busy: Duration,
}

impl Job<'_> {
    fn send_frames(&self, client: &Client) -> Result<Done, Failure> {
        let mut progress = Progress::new("frames", self.args.frames);
        let mut done =
            Done { wrong: 0, moved: 0, round_trips: Latencies::new(), busy: Duration::ZERO };
        for number in 0..self.args.frames {
            self.interrupt.check()?;
            let start = Instant::now();
            let mut buffer = client.acquire_request_buffer(self.picture.data.len())?;
            self.picture.scrolled_into(rows_of(number, self.picture.shape), buffer.data_mut());
            let place = buffer.data_mut().as_ptr();
            let sent = Instant::now();
            let sequence = buffer.commit()?;
            let response = self.answer(client)?;
            done.round_trips.record(sent.elapsed());
            let right =
                response.sequence() == sequence && self.expected.is_right(number, response.data());
            done.wrong += u64::from(!right);
            done.moved += u64::from(response.data().as_ptr() != place);
            done.busy += start.elapsed();
            if number == 0 {
                self.save(&response)?;
            }
            progress.step();
        }
        Ok(done)
    }

    fn record(
        &self,
        done: &Done,
        server_pid: u32,
        segment: String,
        segment_bytes: u64,
    ) -> DemoRecord {
        let (frames, frame_bytes) = (self.args.frames, self.picture.data.len() as u64);
        let Shape { width, height, channels } = self.picture.shape;
        let two_buffers_bytes = two_buffers(ring_for_one(frame_bytes));
        DemoRecord {
            ok: done.wrong == 0,
            command: "demo",
            frames,
            right_answers: frames - done.wrong,
            wrong_answers: done.wrong,
            width,
            height,
            channels,
            frame_bytes,
            server_pid,
            round_trip_us: done.round_trips.to_record(),
            in_process_us: self.expected.latencies.to_record(),
            frames_per_second: frames as f64 / done.busy.as_secs_f64(),
            segment,
            segment_bytes,
            two_buffers_bytes,
            memory_ratio: segment_bytes as f64 / two_buffers_bytes as f64,
            bytes_copied: frame_bytes * done.moved,
            bytes_written_by_client: frame_bytes * frames,
            // The server of two buffers puts each answer into the second one.
            two_buffers_bytes_copied: frame_bytes * frames,
            before: self.args.out.join("before.png"),
            after: self.args.out.join("after.png"),
        }
    }

    /// The answer to the one request that is in flight.
    fn answer<'c>(&self, client: &'c Client) -> Result<Response<'c>, Failure> {
        let start = Instant::now();
        loop {
            match client.receive_response(SLICE) {
                Err(Error::Timeout { .. }) if start.elapsed() < LIMIT => self.interrupt.check()?,
                outcome => return Ok(outcome?),
            }
        }
    }

    /// The first frame, and its answer straight from shared memory.
    fn save(&self, response: &Response<'_>) -> Result<(), Failure> {
        let (folder, shape) = (&self.args.out, self.picture.shape);
        picture::save(&folder.join("before.png"), shape, &self.picture.data)?;
        if shape.bytes() != Some(response.len()) {
            return Ok(());
        }
        picture::save(&folder.join("after.png"), shape, response.data())
    }
}

fn table(record: &DemoRecord, shape: Shape, done: &Done, expected: &Expected) -> String {
    let verdict = match record.wrong_answers {
        0 => "all answers right".to_owned(),
        wrong => format!("{} ANSWERS WRONG", count(wrong)),
    };
    let (p50, p99) = (done.round_trips.quantile(0.5), done.round_trips.quantile(0.99));
    let frame = format!("{} x {} {}", shape.width, shape.height, shape.colours());
    let bytes = |number| format!("{} bytes", count(number));
    let in_place =
        format!("{} (in place: {:.3} of it)", bytes(record.two_buffers_bytes), record.memory_ratio);
    let written = format!("{}: each frame once, into place", bytes(record.bytes_written_by_client));
    let rows = [
        ("frames", format!("{} of {frame}, {verdict}", count(record.frames))),
        ("round trip", format!("p50 {}, p99 {}", time(p50), time(p99))),
        ("same work in this process", format!("p50 {}", time(expected.latencies.quantile(0.5)))),
        ("frames per second", format!("{:.0}", record.frames_per_second)),
        ("shared memory in place", bytes(record.segment_bytes)),
        ("shared memory of two buffers", in_place),
        ("copied by the channel", bytes(record.bytes_copied)),
        ("two buffers would copy", bytes(record.two_buffers_bytes_copied)),
        ("written by the client", written),
        ("pictures", format!("{}, {}", record.before.display(), record.after.display())),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ImageOptions;

    #[test]
    fn an_answer_that_differs_in_one_bit_or_belongs_to_another_frame_is_wrong() {
        let picture = drawing::draw(40, 24);
        let options = ImageOptions { radius: None, area: None };
        let chain = Chain::new(&FILTERS, None, &options).unwrap();
        let interrupt = Interrupt::never();
        let Ok(expected) = Expected::compute(&picture, &chain, 100, &interrupt) else {
            panic!("nothing interrupts this");
        };
        let mut answer = picture.data.clone();
        assert!(!expected.is_right(0, &answer), "the picture as it was sent");
        chain.apply(&picture.shape.to_metadata(), &mut answer).unwrap();
        assert!(expected.is_right(0, &answer));
        assert!(expected.is_right(DIFFERENT_FRAMES, &answer));
        for number in 1..DIFFERENT_FRAMES {
            assert!(!expected.is_right(number, &answer), "frame {number}");
        }
        answer[100] ^= 1;
        assert!(!expected.is_right(0, &answer));
    }

    #[test]
    fn two_buffers_take_what_the_specification_says() {
        assert_eq!(two_buffers(104_857_600), 2 * (128 + 64 + 104_857_600));
    }
}
