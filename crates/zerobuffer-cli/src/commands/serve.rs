//! `zerobuffer serve`: a filter on a channel, until it is told to stop.

use crate::args::ServeArgs;
use crate::failure::{Exit, Failure};
use crate::filters::Chain;
use crate::report::{Report, count};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, ChannelName, DuplexChannelFactory, Error, Frame, Server, ServerConfig, v1,
};

/// Between two checks whether the server had to stop for a reason of its own.
const CHECK: Duration = Duration::from_millis(250);
/// Between two tries to remove what a killed process has left.
const PAUSE: Duration = Duration::from_millis(10);

/// Permissions of what the server makes, if nothing else is asked for: this user's own.
const PRIVATE: u32 = 0o600;

/// What `serve --json` says on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// Clients can attach.
    Serving {
        name: String,
        pid: u32,
        filters: Vec<String>,
        payload_bytes: usize,
        metadata_bytes: usize,
        workers: usize,
        two_buffers: bool,
        segment: String,
    },
    /// Stopped cleanly.
    Stopped { name: String, reason: String, frames: u64, refused_frames: u64, bytes: u64 },
}

/// What the handler counts.
#[derive(Debug, Default)]
struct Tally {
    frames: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// Serves until a signal, or the end of standard input if that was asked for.
pub(crate) fn run(args: &ServeArgs, report: &Report) -> Result<Exit, Failure> {
    let name = ChannelName::new(&args.name)?;
    let chain =
        Chain::new(&args.filter, args.key.as_ref(), &args.image_options).map_err(Failure::usage)?;
    let filters = chain.names();
    // Before anything exists in /dev/shm, so that no signal can leave it behind.
    let reasons = reasons_to_stop(args.stop_on_eof)?;

    let tally = Arc::new(Tally::default());
    let editor = Editor { chain, tally: Arc::clone(&tally), spoil: args.spoil };
    let on_channel = |failure: Failure| failure.on_channel(&args.name);
    let mut server = Running::start(args, &name, editor).map_err(on_channel)?;

    let event = Event::Serving {
        name: args.name.clone(),
        pid: std::process::id(),
        filters,
        payload_bytes: args.payload,
        metadata_bytes: args.metadata,
        workers: args.workers,
        two_buffers: args.two_buffers,
        segment: segment_path(&name, args.two_buffers),
    };
    report.result(&event, || greeting(args))?;

    let reason = wait(&server, &reasons);
    server.stop().map_err(on_channel)?;
    let event = tally.stopped(&args.name, reason);
    report.result(&event, || farewell(&event))?;
    Ok(Exit::Done)
}

/// The file of the segment that a channel's server makes.
pub(crate) fn segment_path(name: &ChannelName, two_buffers: bool) -> String {
    match two_buffers {
        true => format!("/dev/shm/{name}_request"),
        false => format!("/dev/shm{}", name.segment()),
    }
}

/// A server of either kind.
enum Running {
    InPlace(Box<Server>),
    TwoBuffers(String, Box<v1::DuplexServer>),
}

impl Running {
    fn start(args: &ServeArgs, name: &ChannelName, editor: Editor) -> Result<Self, Failure> {
        let factory = DuplexChannelFactory::new();
        let buffer = BufferConfig::new(args.metadata, args.payload);
        let mode = args.mode.unwrap_or(PRIVATE);
        let name = name.as_str();
        if args.two_buffers {
            if args.workers > 1 {
                return Err(Failure::usage(
                    "--two-buffers has one worker: its answers come in the order of the requests",
                ));
            }
            let mut config = ServerConfig::new(buffer).mode(mode);
            if let Some(uid) = args.owner {
                config = config.owner(uid);
            }
            let mut server = factory.create_mutable_server(name, config)?;
            server.start_mutable(move |draft: &mut v1::Draft<'_>| {
                let (metadata, sequence) = (draft.metadata().to_vec(), draft.sequence());
                editor.edit(&metadata, sequence, draft.data_mut()).inspect_err(|reason| {
                    // There is no other way to learn it: these channels do not carry reasons.
                    tracing::warn!(sequence, reason, "frame refused, channel closed");
                })
            })?;
            return Ok(Self::TwoBuffers(name.to_owned(), Box::new(server)));
        }
        let config = ServerConfig::new(buffer).workers(args.workers).mode(mode);
        let mut server = factory.create_in_place_duplex_server(name, config)?;
        server.start(move |frame: &mut Frame<'_>| {
            // The metadata is borrowed from the frame that is to be edited: a copy of its few bytes.
            let (metadata, sequence) = (frame.metadata().to_vec(), frame.sequence());
            editor.edit(&metadata, sequence, frame.data_mut())
        })?;
        Ok(Self::InPlace(Box::new(server)))
    }

    fn is_running(&self) -> bool {
        match self {
            Self::InPlace(server) => server.is_running(),
            Self::TwoBuffers(_, server) => server.is_running(),
        }
    }

    fn stop(&mut self) -> Result<(), Failure> {
        match self {
            Self::InPlace(server) => server.stop()?,
            Self::TwoBuffers(name, server) => {
                server.stop()?;
                sweep(&format!("{name}_response"));
            }
        }
        Ok(())
    }
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
        "serving {} with {} ({} bytes of ring{}); Ctrl-C stops",
        args.name,
        filters.join(", "),
        count(args.payload as u64),
        if args.two_buffers { " for requests, another one for answers" } else { "" }
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
        Event::Serving { .. } => String::new(),
    }
}
