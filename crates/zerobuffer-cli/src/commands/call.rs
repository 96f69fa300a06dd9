//! `zerobuffer call`: one request, or the same one many times, and the answer in a file.

use super::connect::Needs;
use crate::args::CallArgs;
use crate::failure::{Exit, Failure};
use crate::picture::{self, Picture, Shape};
use crate::report::{
    Latencies, LatencyRecord, Progress, Report, checksum, count, time, write_stdout,
};
use serde::Serialize;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};
use zerobuffer::{DuplexClient, DuplexRequestBuffer, Error, RequestLayout};

/// Room for an answer even to a request of a few bytes: a failed one carries its reason.
const ROOM_FOR_A_REASON: usize = 448;
/// Size of a buffer of its own for answers, if the request is not larger.
const ROOM_FOR_OTHER_ANSWERS: usize = 4 << 20;

/// What `call --json` says.
#[derive(Debug, Serialize)]
struct CallRecord<'a> {
    ok: bool,
    command: &'static str,
    name: &'a str,
    two_buffers: bool,
    requests: u64,
    differing_answers: u64,
    request_bytes: usize,
    answer_bytes: usize,
    answer_crc32: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<ShapeRecord>,
    round_trip_us: LatencyRecord,
    requests_per_second: f64,
    out: String,
}

#[derive(Debug, Serialize)]
struct ShapeRecord {
    width: u32,
    height: u32,
    channels: u32,
}

/// What is sent.
struct Input {
    data: Vec<u8>,
    /// Of a picture.
    shape: Option<Shape>,
}

/// What came back.
struct Outcome {
    /// The first answer.
    answer: Vec<u8>,
    /// Answers that were not like the first one.
    differing: u64,
    latencies: Latencies,
    took: Duration,
}

/// Sends the request, and writes the answer.
pub(crate) fn run(args: &CallArgs, report: &Report) -> Result<Exit, Failure> {
    let to_stdout = is_dash(&args.out);
    if to_stdout {
        report.keep_off_stdout();
    }
    let input = read(args)?;
    let client = connect(args, &input)?;
    let outcome = call(&client, args, &input.data)?;
    let two_buffers = !client.is_in_place();
    drop(client);
    match input.shape {
        Some(shape) => save_picture(&args.out, shape, &outcome.answer)?,
        None if to_stdout => write_stdout(&outcome.answer)?,
        None => std::fs::write(&args.out, &outcome.answer)
            .map_err(|error| Failure::file("write", &args.out, error))?,
    }
    // Data on standard output speaks for itself.
    if !to_stdout || outcome.differing > 0 || report.is_json() {
        let record = record(args, &input, &outcome, two_buffers);
        report.result(&record, || in_words(args, &input, &outcome))?;
    }
    Ok(if outcome.differing == 0 { Exit::Done } else { Exit::WrongAnswer })
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read(args: &CallArgs) -> Result<Input, Failure> {
    if let Some(path) = &args.image {
        if is_dash(path) || is_dash(&args.out) {
            return Err(Failure::usage("pictures are read from and written to files, not -"));
        }
        picture::check_format(&args.out)?;
        let picture = Picture::load(path, None)?;
        return Ok(Input { data: picture.data, shape: Some(picture.shape) });
    }
    let path = args.raw.as_deref().unwrap_or(Path::new("-"));
    let data = if is_dash(path) {
        let mut data = Vec::new();
        std::io::stdin().lock().read_to_end(&mut data).map(|_| data)
    } else {
        std::fs::read(path)
    };
    let data = data.map_err(|error| Failure::file("read", path, error))?;
    Ok(Input { data, shape: None })
}

fn connect(args: &CallArgs, input: &Input) -> Result<DuplexClient, Failure> {
    let needs = Needs {
        // A deployed server may answer with more than it was sent.
        bytes: input.data.len().max(ROOM_FOR_OTHER_ANSWERS),
        metadata: input.shape.map(|shape| shape.to_metadata().to_vec()).unwrap_or_default(),
        send_timeout: args.timeout,
    };
    super::connect::connect(&args.name, args.wait, &needs).map_err(|error| match error {
        Error::TooLarge { .. } => Failure::from(error)
            .hint("a picture's size needs 24 bytes: start the server with --metadata 64 or more"),
        error => error.into(),
    })
}

/// A buffer for the request, with room for its answer.
fn acquire(client: &DuplexClient, len: usize) -> Result<DuplexRequestBuffer<'_>, Failure> {
    Ok(match client {
        DuplexClient::InPlace(client) => {
            let room = len.max(ROOM_FOR_A_REASON).min(client.max_request_size());
            let layout = RequestLayout::new().capacity(room);
            DuplexRequestBuffer::InPlace(client.acquire_request_buffer_with(len, layout)?)
        }
        DuplexClient::TwoBuffers(_) => client.acquire_request_buffer(len)?,
    })
}

fn call(client: &DuplexClient, args: &CallArgs, data: &[u8]) -> Result<Outcome, Failure> {
    let mut progress = Progress::new("requests", args.repeat);
    let mut latencies = Latencies::new();
    let mut answer: Option<Vec<u8>> = None;
    let mut differing = 0;
    let start = Instant::now();
    for _ in 0..args.repeat {
        let sent = Instant::now();
        let mut buffer = acquire(client, data.len())?;
        buffer.data_mut().copy_from_slice(data);
        let sequence = buffer.commit()?;
        let response = client.receive_response_for(sequence, args.timeout)?;
        latencies.record(sent.elapsed());
        match &answer {
            None => answer = Some(response.data().to_vec()),
            Some(first) if first == response.data() => {}
            Some(_) => differing += 1,
        }
        progress.step();
    }
    let took = start.elapsed();
    Ok(Outcome { answer: answer.unwrap_or_default(), differing, latencies, took })
}

fn save_picture(path: &Path, shape: Shape, answer: &[u8]) -> Result<(), Failure> {
    if shape.bytes() != Some(answer.len()) {
        let message =
            format!("the answer has {} bytes, so it is not a picture of {shape}", answer.len());
        return Err(Failure::wrong_answer(message).hint("--raw takes answers of any length"));
    }
    picture::save(path, shape, answer)
}

fn rate(args: &CallArgs, outcome: &Outcome) -> f64 {
    args.repeat as f64 / outcome.took.as_secs_f64()
}

fn record<'a>(
    args: &'a CallArgs,
    input: &Input,
    outcome: &Outcome,
    two_buffers: bool,
) -> CallRecord<'a> {
    CallRecord {
        ok: outcome.differing == 0,
        command: "call",
        name: &args.name,
        two_buffers,
        requests: args.repeat,
        differing_answers: outcome.differing,
        request_bytes: input.data.len(),
        answer_bytes: outcome.answer.len(),
        answer_crc32: format!("{:08x}", checksum(&outcome.answer)),
        picture: input.shape.map(|Shape { width, height, channels }| ShapeRecord {
            width,
            height,
            channels,
        }),
        round_trip_us: outcome.latencies.to_record(),
        requests_per_second: rate(args, outcome),
        out: args.out.display().to_string(),
    }
}

fn in_words(args: &CallArgs, input: &Input, outcome: &Outcome) -> String {
    let (sent, came) = (count(input.data.len() as u64), count(outcome.answer.len() as u64));
    let mut words = format!("{sent} bytes sent, {came} bytes in {}", args.out.display());
    let p50 = time(outcome.latencies.quantile(0.5));
    if args.repeat == 1 {
        words += &format!(", round trip {p50}");
    } else {
        let p99 = time(outcome.latencies.quantile(0.99));
        let requests = count(args.repeat);
        words += &format!("\n{requests} requests: round trip p50 {p50}, p99 {p99}");
        words += &format!(", {} per second", count(rate(args, outcome) as u64));
    }
    if outcome.differing > 0 {
        let differing = count(outcome.differing);
        words += &format!("\nwrong: {differing} answers are not like the first one");
    }
    words
}
