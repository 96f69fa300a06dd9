//! One of the demo's two ways: a server in a process of its own, a client, and what they did.

use super::expected::{Expected, rows_of};
use crate::args::{Common, DemoArgs};
use crate::commands::child::{REMOVE_DIRECTORY, ServerProcess};
use crate::commands::connect::{Terms, connect_in_place, connect_to_two_buffers, two_buffer_ring};
use crate::commands::serving::{Kind, request_path};
use crate::failure::Failure;
use crate::filters::Filter;
use crate::interrupt::{Interrupt, SLICE};
use crate::picture::Picture;
use crate::picture::file;
use crate::report::Latencies;
use std::path::Path;
use std::time::{Duration, Instant};
use zerobuffer::{ChannelName, Client, Error, Response};

/// Size of a metadata block: the picture's shape takes 24 bytes.
const METADATA: usize = 64;

/// How long a response may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to attach to a server that is there.
const ATTACH: Duration = Duration::from_secs(5);

/// What is to be done.
pub(super) struct Job<'j> {
    pub(super) picture: &'j Picture,
    /// What the servers do with each frame.
    pub(super) filters: &'j [Filter],
    pub(super) expected: &'j Expected,
    pub(super) args: &'j DemoArgs,
    pub(super) interrupt: &'j Interrupt,
}

/// What was done on one channel.
pub(super) struct Done {
    pub(super) server_pid: u32,
    /// The shared memory, as /proc/self/maps and /dev/shm name it.
    pub(super) segments: Vec<String>,
    /// Their sizes in all.
    pub(super) segment_bytes: u64,
    pub(super) wrong: u64,
    /// Bytes of the responses that were not where the client had written the request.
    pub(super) copied: u64,
    /// From the commit to the response.
    pub(super) round_trips: Latencies,
    /// Writing the frames, waiting for the responses, and reading them.
    pub(super) busy: Duration,
}

/// A channel with its server.
pub(super) struct Channel {
    /// Goes before the server does, whatever happens.
    client: Client,
    server: ServerProcess,
    done: Done,
}

impl Channel {
    /// Starts the server, a service that edits in place or a channel that edits a copy in a second buffer, and
    /// attaches to it.
    pub(super) fn open(
        name: &ChannelName,
        two_buffers: bool,
        job: &Job<'_>,
        common: &Common,
    ) -> Result<Self, Failure> {
        let bytes = job.picture.data.len();
        let payload = if two_buffers { two_buffer_ring(bytes) } else { in_place_ring(bytes) };
        let mut options = server_options(job, common, payload);
        options.extend(two_buffers.then(|| "--two-buffers".to_owned()));
        let kind = if two_buffers { Kind::TwoBuffers } else { Kind::Service };
        if kind == Kind::Service {
            options.push(REMOVE_DIRECTORY.to_owned());
        }
        let server = ServerProcess::start(name.as_str(), kind, &options)?;
        let metadata = job.picture.shape.to_metadata().to_vec();
        let terms = Terms { metadata, send_timeout: LIMIT, ..Terms::default() };
        let client = match two_buffers {
            true => connect_to_two_buffers(name.as_str(), ATTACH, bytes, &terms)?,
            false => connect_in_place(name.as_str(), ATTACH, &terms)?,
        };
        let (segments, segment_bytes) =
            if two_buffers { buffers_of(name)? } else { segment_of_service()? };
        let done = Done {
            server_pid: server.pid(),
            segments,
            segment_bytes,
            wrong: 0,
            copied: 0,
            round_trips: Latencies::new(),
            busy: Duration::ZERO,
        };
        Ok(Self { client, server, done })
    }

    /// Sends a frame, checks its response, shows that to `look`, and returns how long the round trip took.
    pub(super) fn send(
        &mut self,
        number: u64,
        job: &Job<'_>,
        look: impl FnOnce(&[u8]) -> Result<(), Failure>,
    ) -> Result<Duration, Failure> {
        job.interrupt.check()?;
        let start = Instant::now();
        let mut buffer = self.client.acquire_request_buffer(job.picture.data.len())?;
        job.picture.scrolled_into(rows_of(number, job.picture.shape), buffer.data_mut());
        let place = buffer.data_mut().as_ptr();
        let sent = Instant::now();
        let sequence = buffer.commit()?;
        let response = answer(&self.client, job.interrupt)?;
        let (done, data) = (&mut self.done, response.data());
        let round_trip = sent.elapsed();
        done.round_trips.record(round_trip);
        let right = response.sequence() == sequence && job.expected.is_right(number, data);
        done.wrong += u64::from(!right);
        if data.as_ptr() != place {
            done.copied += data.len() as u64;
        }
        done.busy += start.elapsed();
        look(data)?;
        Ok(round_trip)
    }

    /// Puts everything away, and returns what was done.
    pub(super) fn close(self) -> Done {
        drop(self.client);
        self.server.stop();
        self.done
    }
}

/// The files of both buffers, and their sizes in all.
fn buffers_of(name: &ChannelName) -> Result<(Vec<String>, u64), Failure> {
    let segments = vec![request_path(name), format!("/dev/shm/{name}_response")];
    let mut bytes = 0;
    for segment in &segments {
        let metadata = std::fs::metadata(segment)
            .map_err(|error| Failure::file("examine", Path::new(segment), error))?;
        bytes += metadata.len();
    }
    Ok((segments, bytes))
}

/// What this process has mapped of its one service: it has no file.
fn segment_of_service() -> Result<(Vec<String>, u64), Failure> {
    let path = Path::new("/proc/self/maps");
    let maps = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))?;
    let (mut segments, mut bytes) = (Vec::new(), 0);
    for line in maps.lines() {
        // FROM-TO MODE OFFSET DEVICE INODE /memfd:NAME (deleted)
        let Some(at) = line.find("/memfd:") else { continue };
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |hex| u64::from_str_radix(hex, 16).unwrap_or_default();
        bytes += range.map_or(0, |(from, to)| address(to) - address(from));
        let segment = line[at..].trim_end_matches(" (deleted)").to_owned();
        if !segments.contains(&segment) {
            segments.push(segment);
        }
    }
    Ok((segments, bytes))
}

/// The ring that holds one frame of this length at a time: a header of 64 bytes and the data, in units
/// of 64 bytes.
fn in_place_ring(bytes: usize) -> usize {
    (64 + bytes).next_multiple_of(64)
}

/// The response to the one request that is in flight.
fn answer<'c>(client: &'c Client, interrupt: &Interrupt) -> Result<Response<'c>, Failure> {
    let start = Instant::now();
    loop {
        match client.receive_response(SLICE) {
            Err(Error::Timeout { .. }) if start.elapsed() < LIMIT => interrupt.check()?,
            outcome => return Ok(outcome?),
        }
    }
}

/// The first frame, and its response straight from shared memory.
pub(super) fn save(job: &Job<'_>, answer: &[u8]) -> Result<(), Failure> {
    let (folder, shape) = (&job.args.out, job.picture.shape);
    let profile = job.picture.profile.as_deref();
    file::save(&folder.join("before.png"), shape, &job.picture.data, profile)?;
    if shape.bytes() != Some(answer.len()) {
        return Ok(());
    }
    file::save(&folder.join("after.png"), shape, answer, profile)
}

fn server_options(job: &Job<'_>, common: &Common, payload: usize) -> Vec<String> {
    let args = job.args;
    let filters: Vec<String> = job.filters.iter().map(Filter::to_string).collect();
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
