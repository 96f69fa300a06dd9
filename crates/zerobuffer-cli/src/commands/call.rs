//! `zerobuffer call`: one request, or the same one many times on any number of connections, and the response in a
//! file.

mod input;

use super::connect::{
    Found, Terms, channel_of, connect_in_place, connect_to_two_buffers, find, size_of_buffer,
};
use crate::args::CallArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Output, is_dash};
use crate::picture::{Shape, file};
use crate::report::{Latencies, LatencyRecord, Progress, Report, count, time};
use input::{Input, Sent};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};
use zerobuffer::{Client, Error, RequestBuffer, RequestLayout};

/// Room for a response even to a request of a few bytes: a failed one carries its reason.
const ROOM_FOR_A_REASON: usize = 448;
/// Size of a buffer of its own for responses, if the request is not larger.
const ROOM_FOR_OTHER_ANSWERS: usize = 4 << 20;

/// What `call --json` says.
#[derive(Debug, Serialize)]
struct CallRecord<'a> {
    ok: bool,
    command: &'static str,
    name: &'a str,
    two_buffers: bool,
    connections: u16,
    frames: u64,
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
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct ShapeRecord {
    width: u32,
    height: u32,
    channels: u32,
}

/// What came of it.
struct Done {
    /// Different requests: one, or as many as there were frames.
    frames: u64,
    request_bytes: usize,
    /// Of the first response.
    answer_bytes: usize,
    /// Of all that goes to OUT.
    checksum: crc32fast::Hasher,
    /// Responses that were not like the first one to the same request.
    differing: u64,
    latencies: Latencies,
    start: Instant,
    took: Duration,
}

/// Sends the request, or one after the other, and writes what comes back.
pub(crate) fn run(args: &CallArgs, report: &Report) -> Result<Exit, Failure> {
    let to_stdout = is_dash(&args.out);
    if to_stdout {
        report.keep_off_stdout();
    }
    let mut input = Input::open(args)?;
    report.notes(input.notes());
    let about = |failure: Failure| failure.about(&args.name);
    let (mut clients, mut next) = connect(args, &mut input)?;
    let most = clients.iter().map(Client::max_request_size).min().unwrap_or_default();
    let mut done = Done::new();
    let mut output = None;
    while let Some(sent) = next {
        let answer = call_all(&mut clients, args, &sent.data, &mut done)
            .map_err(|failure| untold_size(about(failure), &input))?;
        if let Input::Picture { shape, .. } = &input {
            save_picture(&args.out, *shape, &answer, sent.profile.as_deref())?;
        } else if !write(&mut output, &args.out, &answer)? {
            break;
        }
        next = input.next(most).map_err(about)?;
    }
    let two_buffers = !clients.iter().all(Client::is_in_place);
    drop(clients);
    if let Some(output) = output {
        output.finish()?;
    }
    // Data on standard output speaks for itself.
    if !to_stdout || done.differing > 0 || report.is_json() {
        let record = record(args, &input, &done, two_buffers);
        report.result(&record, || in_words(args, &done))?;
    }
    Ok(if done.differing == 0 { Exit::Done } else { Exit::WrongAnswer })
}

/// Attaches to the server, and only then reads the first request, of which it is now known how long it may be.
fn connect(args: &CallArgs, input: &mut Input) -> Result<(Vec<Client>, Option<Sent>), Failure> {
    let terms = Terms {
        metadata: input.shape().map(|shape| shape.to_metadata().to_vec()).unwrap_or_default(),
        send_timeout: args.timeout,
        owner: args.owner,
        mode: args.mode,
        ring: args.ring,
    };
    let failed = |error: Error| Failure::from(error).about(&args.name);
    let about = |failure: Failure| failure.about(&args.name);
    let (clients, first) = match find(&args.name, args.wait, &terms).map_err(failed)? {
        Found::InPlace(client) => {
            let mut clients = vec![*client];
            for _ in 1..args.connections {
                clients.push(connect_in_place(&args.name, args.wait, &terms).map_err(failed)?);
            }
            let first = input.next(clients[0].max_request_size()).map_err(about)?;
            (clients, first)
        }
        Found::TwoBuffers { .. } if args.connections > 1 => {
            let message = "a channel over two buffers serves one client at a time";
            let failure = Failure::usage(message).reworded(format!("{:?}: {message}", args.name));
            return Err(failure.hint("--connections needs a service: `zerobuffer serve NAME`"));
        }
        Found::TwoBuffers { wait } => {
            let request_buffer = format!("{}_request", channel_of(&args.name));
            let first = input.next(size_of_buffer(&request_buffer)).map_err(about)?;
            // An existing server of version 1 may respond with more than it was sent.
            let len = first.as_ref().map_or(0, |sent| sent.data.len());
            let room = len.max(ROOM_FOR_OTHER_ANSWERS);
            let client = connect_to_two_buffers(&args.name, wait, room, &terms)
                .map_err(|error| private_answers(failed(error), args))?;
            (vec![client], first)
        }
    };
    if first.is_none() {
        let path = args.raw.as_deref().unwrap_or(Path::new("-"));
        return Err(Failure::file("read", path, "it has no frame"));
    }
    Ok((clients, first))
}

/// A server of another user cannot open a buffer for responses that is private.
fn private_answers(failure: Failure, args: &CallArgs) -> Failure {
    match (failure.exit, args.owner, args.mode) {
        (Exit::NoServer, Some(_), None) => failure.hint(
            "over two buffers a server of another user needs --mode 666 here, and its own --owner UID",
        ),
        _ => failure,
    }
}

/// A frame whose size nobody has told may have been refused for that.
fn untold_size(failure: Failure, input: &Input) -> Failure {
    match failure.exit == Exit::FilterRefused && input.shape().is_none() {
        true => failure.hint("--image IN, or --size WxHxC beside --raw, sends a picture's size"),
        false => failure,
    }
}

/// A buffer for the request, with room for its response.
fn acquire(client: &Client, len: usize) -> Result<RequestBuffer<'_>, Failure> {
    let room = len.max(ROOM_FOR_A_REASON).min(client.max_request_size());
    Ok(client.acquire_request_buffer_with(len, RequestLayout::new().capacity(room))?)
}

/// What came back on one connection.
struct Called {
    /// The first response.
    answer: Vec<u8>,
    /// Responses that were not like it.
    differing: u64,
    latencies: Latencies,
}

/// Sends one request as often as was asked for on all connections at the same time, and returns the first one's first
/// response.
fn call_all(
    clients: &mut [Client],
    args: &CallArgs,
    data: &[u8],
    done: &mut Done,
) -> Result<Vec<u8>, Failure> {
    let Some((first, others)) = clients.split_first_mut() else { return Ok(Vec::new()) };
    let (called, others) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for client in others {
            let work = move || call(client, args, data, None);
            threads.push(std::thread::Builder::new().spawn_scoped(scope, work));
        }
        let mut progress = Progress::new("requests", args.repeat);
        let called = call(first, args, data, Some(&mut progress));
        let others: Vec<_> = threads.into_iter().map(outcome_of).collect();
        (called, others)
    });
    let called = called?;
    done.latencies.add(&called.latencies);
    done.differing += called.differing;
    for other in others {
        let other = other?;
        done.latencies.add(&other.latencies);
        // Its others are like its first one, or not.
        let like_first = other.latencies.len() - other.differing;
        done.differing += if other.answer == called.answer { other.differing } else { like_first };
    }
    done.add(data, &called.answer);
    Ok(called.answer)
}

/// What a connection's thread has come to.
fn outcome_of(
    thread: std::io::Result<std::thread::ScopedJoinHandle<'_, Result<Called, Failure>>>,
) -> Result<Called, Failure> {
    let thread = thread
        .map_err(|error| Failure::system(format!("cannot start a connection's thread: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(Failure::system("a connection's thread has panicked")))
}

/// Sends one request as often as was asked for on one connection.
fn call(
    client: &Client,
    args: &CallArgs,
    data: &[u8],
    mut progress: Option<&mut Progress>,
) -> Result<Called, Failure> {
    let mut latencies = Latencies::new();
    let (mut answer, mut differing) = (None::<Vec<u8>>, 0);
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
        if let Some(progress) = &mut progress {
            progress.step();
        }
    }
    Ok(Called { answer: answer.unwrap_or_default(), differing, latencies })
}

impl Done {
    fn new() -> Self {
        Self {
            frames: 0,
            request_bytes: 0,
            answer_bytes: 0,
            checksum: crc32fast::Hasher::new(),
            differing: 0,
            latencies: Latencies::new(),
            start: Instant::now(),
            took: Duration::ZERO,
        }
    }

    fn add(&mut self, sent: &[u8], answer: &[u8]) {
        if self.frames == 0 {
            (self.request_bytes, self.answer_bytes) = (sent.len(), answer.len());
        }
        self.frames += 1;
        self.checksum.update(answer);
        self.took = self.start.elapsed();
    }
}

/// Writes a response of bytes to OUT, which is opened for the first one. False if nobody reads them any more.
fn write(output: &mut Option<Output>, path: &Path, answer: &[u8]) -> Result<bool, Failure> {
    let output = match output {
        Some(output) => output,
        None => output.insert(Output::open_until_signal(path)?),
    };
    output.write(answer)
}

fn save_picture(
    path: &Path,
    shape: Shape,
    answer: &[u8],
    profile: Option<&[u8]>,
) -> Result<(), Failure> {
    if shape.bytes() != Some(answer.len()) {
        let message =
            format!("the answer has {} bytes, so it is not a picture of {shape}", answer.len());
        return Err(Failure::wrong_answer(message).hint("--raw takes answers of any length"));
    }
    file::save(path, shape, answer, profile)
}

fn rate(done: &Done) -> f64 {
    done.latencies.len() as f64 / done.took.as_secs_f64()
}

fn record<'a>(
    args: &'a CallArgs,
    input: &'a Input,
    done: &Done,
    two_buffers: bool,
) -> CallRecord<'a> {
    CallRecord {
        ok: done.differing == 0,
        command: "call",
        name: &args.name,
        two_buffers,
        connections: args.connections,
        frames: done.frames,
        requests: done.latencies.len(),
        differing_answers: done.differing,
        request_bytes: done.request_bytes,
        answer_bytes: done.answer_bytes,
        answer_crc32: format!("{:08x}", done.checksum.clone().finalize()),
        picture: input.shape().map(|Shape { width, height, channels }| ShapeRecord {
            width,
            height,
            channels,
        }),
        round_trip_us: done.latencies.to_record(),
        requests_per_second: rate(done),
        out: args.out.display().to_string(),
        notes: input.notes(),
    }
}

fn in_words(args: &CallArgs, done: &Done) -> String {
    let (sent, came) = (count(done.request_bytes as u64), count(done.answer_bytes as u64));
    let each =
        if done.frames > 1 { format!("{} frames: ", count(done.frames)) } else { String::new() };
    let mut words = format!("{each}{sent} bytes sent, {came} bytes in {}", args.out.display());
    let p50 = time(done.latencies.quantile(0.5));
    let requests = done.latencies.len();
    if args.connections > 1 {
        words += &format!(" on {} connections", args.connections);
    }
    if requests == 1 {
        words += &format!(", round trip {p50}");
    } else {
        let p99 = time(done.latencies.quantile(0.99));
        words += &format!("\n{} requests: round trip p50 {p50}, p99 {p99}", count(requests));
        words += &format!(", {} per second", count(rate(done) as u64));
    }
    if done.differing > 0 {
        let differing = count(done.differing);
        words += &format!("\nwrong: {differing} answers are not like the first one");
    }
    words
}
