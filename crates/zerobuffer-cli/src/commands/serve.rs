//! `zerobuffer serve`: a filter as a service or on a channel, until it is told to stop.

mod kinds;
mod processes;

use super::runtime;
use crate::args::{Common, ServeArgs};
use crate::failure::{Exit, Failure};
use crate::filters::Chain;
use crate::report::{Report, count};
use kinds::Running;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use zerobuffer::{ChannelName, Error, v1};

/// Between two checks whether the server had to stop for a reason of its own.
const CHECK: Duration = Duration::from_millis(250);
/// Between two tries to remove what a killed process has left.
const PAUSE: Duration = Duration::from_millis(10);

/// What `serve --json` says on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// Clients can attach.
    Serving {
        name: String,
        pid: u32,
        kind: Kind,
        filters: Vec<String>,
        payload_bytes: usize,
        metadata_bytes: usize,
        workers: usize,
        two_buffers: bool,
        /// Of a channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        segment: Option<String>,
        /// Of a service: where its sockets are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<PathBuf>,
        /// The processes that serve.
        server_pids: Vec<u32>,
    },
    /// A server process has ended, and another one serves in its place.
    Replaced { name: String, pid: u32, status: String, by: u32 },
    /// Stopped cleanly.
    Stopped { name: String, reason: String, frames: u64, refused_frames: u64, bytes: u64 },
}

/// What kind of server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Service,
    Channel,
    TwoBuffers,
}

impl Kind {
    fn of(args: &ServeArgs) -> Self {
        match (args.channel, args.two_buffers) {
            (true, _) => Self::Channel,
            (_, true) => Self::TwoBuffers,
            _ => Self::Service,
        }
    }
}

/// What the handler counts.
#[derive(Debug, Default)]
struct Tally {
    frames: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// Serves until a signal, or the end of standard input if that was asked for.
pub(crate) fn run(args: &ServeArgs, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let name = ChannelName::new(&args.name)?;
    let chain =
        Chain::new(&args.filter, args.key.as_ref(), &args.image_options).map_err(Failure::usage)?;
    // Before anything exists, so that no signal can leave it behind.
    let reasons = reasons_to_stop(args.stop_on_eof)?;
    let tally = Arc::new(Tally::default());
    let about = |failure: Failure| failure.about(&args.name);
    if Kind::of(args) == Kind::Service {
        kinds::refuse_beside_channel(&name).map_err(about)?;
    }
    let reason = if args.service.processes > 1 {
        processes::serve(args, common, report, &reasons, &tally).map_err(about)?
    } else {
        let editor = Editor { chain, tally: Arc::clone(&tally), spoil: args.spoil };
        let mut server = Running::start(args, &name, editor).map_err(about)?;
        report.result(&serving(args, &name, vec![std::process::id()]), || greeting(args))?;
        let reason = wait(&server, &reasons);
        server.stop().map_err(about)?;
        reason
    };
    if args.service.remove_directory {
        runtime::remove_directory_of(&args.name);
    }
    let event = tally.stopped(&args.name, reason);
    report.result(&event, || farewell(&event))?;
    Ok(Exit::Done)
}

fn serving(args: &ServeArgs, name: &ChannelName, server_pids: Vec<u32>) -> Event {
    let kind = Kind::of(args);
    Event::Serving {
        name: args.name.clone(),
        pid: std::process::id(),
        kind,
        filters: args.filter.iter().map(ToString::to_string).collect(),
        payload_bytes: args.payload,
        metadata_bytes: args.metadata,
        workers: args.workers,
        two_buffers: args.two_buffers,
        segment: match kind {
            Kind::Service => None,
            Kind::Channel => Some(format!("/dev/shm{}", name.segment())),
            Kind::TwoBuffers => Some(request_path(name)),
        },
        directory: (kind == Kind::Service).then(|| runtime::directory_of(&args.name)),
        server_pids,
    }
}

/// The file of the segment that a server of two buffers makes.
pub(crate) fn request_path(name: &ChannelName) -> String {
    format!("/dev/shm/{name}_request")
}

/// Removes what a killed process has left of a version 1 buffer, if it has. One that is just being
/// killed holds its locks for a moment more.
pub(crate) fn sweep(buffer: &str) {
    for _ in 0..20 {
        match v1::remove_leftovers(buffer) {
            Err(Error::AlreadyRunning { .. } | Error::Busy { .. }) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// What is done with each frame.
struct Editor {
    chain: Chain,
    tally: Arc<Tally>,
    spoil: Option<u64>,
}

impl Editor {
    fn edit(&self, metadata: &[u8], sequence: u64, data: &mut [u8]) -> Result<(), String> {
        let outcome = self.chain.apply(metadata, data);
        let frames = self.tally.frames.fetch_add(1, Ordering::Relaxed) + 1;
        self.tally.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Err(reason) = &outcome {
            self.tally.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(sequence, reason, "frame refused");
        }
        if self.spoil.is_some_and(|every| every > 0 && frames.is_multiple_of(every))
            && let Some(byte) = data.last_mut()
        {
            *byte ^= 1;
        }
        outcome
    }
}

/// Starts to listen for what can end the server. A reason is said in one word.
fn reasons_to_stop(stop_on_eof: bool) -> Result<Receiver<&'static str>, Failure> {
    let (tell, reasons) = channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::system(format!("cannot listen for signals: {error}")))?;
    let tell_signal: Sender<&'static str> = tell.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let reason = match signal {
                SIGINT => "SIGINT",
                SIGTERM => "SIGTERM",
                _ => "SIGHUP",
            };
            let _ = tell_signal.send(reason);
        }
    });
    if stop_on_eof {
        std::thread::spawn(move || {
            let mut rest = [0; 256];
            while std::io::stdin().read(&mut rest).is_ok_and(|read| read > 0) {}
            let _ = tell.send("end_of_input");
        });
    }
    Ok(reasons)
}

fn wait(server: &Running, reasons: &Receiver<&'static str>) -> &'static str {
    loop {
        match reasons.recv_timeout(CHECK) {
            Ok(reason) => return reason,
            Err(RecvTimeoutError::Timeout) if server.is_running() => {}
            // `stop` says why.
            Err(_) => return "server_failed",
        }
    }
}

impl Tally {
    /// Adds what another process has counted.
    fn add(&self, event: &Event) {
        if let Event::Stopped { frames, refused_frames, bytes, .. } = event {
            self.frames.fetch_add(*frames, Ordering::Relaxed);
            self.refused.fetch_add(*refused_frames, Ordering::Relaxed);
            self.bytes.fetch_add(*bytes, Ordering::Relaxed);
        }
    }

    fn stopped(&self, name: &str, reason: &str) -> Event {
        Event::Stopped {
            name: name.to_owned(),
            reason: reason.to_owned(),
            frames: self.frames.load(Ordering::Relaxed),
            refused_frames: self.refused.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

fn greeting(args: &ServeArgs) -> String {
    let filters: Vec<String> = args.filter.iter().map(ToString::to_string).collect();
    format!(
        "serving {} with {} ({} bytes of ring{}{}); Ctrl-C stops",
        args.name,
        filters.join(", "),
        count(args.payload as u64),
        match Kind::of(args) {
            Kind::Service => " for each client",
            Kind::Channel => "",
            Kind::TwoBuffers => " for requests, another one for answers",
        },
        match args.service.processes {
            1 => String::new(),
            processes => format!(", {processes} processes"),
        }
    )
}

fn farewell(event: &Event) -> String {
    match event {
        Event::Stopped { name, reason, frames, refused_frames, bytes } => format!(
            "stopped {name} ({reason}): {} frames, {} of them refused, {} bytes",
            count(*frames),
            count(*refused_frames),
            count(*bytes)
        ),
        Event::Serving { .. } | Event::Replaced { .. } => String::new(),
    }
}
