//! What serving is about, in this process or in others: the kind, the frames' way through the filters, what is
//! counted, and what is said.

use crate::args::ServeArgs;
use crate::filters::Chain;
use crate::report::count;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zerobuffer::{ChannelName, Error, Servers, v1};

/// Between two checks whether the server had to stop for a reason of its own.
pub(super) const CHECK: Duration = Duration::from_millis(250);
/// Between two tries to remove what a killed process has left.
const PAUSE: Duration = Duration::from_millis(10);

/// What `serve --json` says on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
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
        /// Of a service that makes its sockets: where they are.
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
pub(super) enum Kind {
    Service,
    Channel,
    TwoBuffers,
}

impl Kind {
    pub(super) fn of(args: &ServeArgs) -> Self {
        match (args.channel, args.two_buffers) {
            (true, _) => Self::Channel,
            (_, true) => Self::TwoBuffers,
            _ => Self::Service,
        }
    }
}

/// What the handler counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    frames: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// What is said once clients can attach.
pub(super) fn event(args: &ServeArgs, name: &ChannelName, server_pids: Vec<u32>) -> Event {
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
        directory: match (kind, args.service.listener) {
            (Kind::Service, None) => {
                Servers::of(&args.name).ok().map(|servers| servers.path().into())
            }
            _ => None,
        },
        server_pids,
    }
}

/// The file of the segment that a server of two buffers makes.
pub(super) fn request_path(name: &ChannelName) -> String {
    format!("/dev/shm/{name}_request")
}

/// Removes what a killed process has left of a version 1 buffer, if it has. One that is just being
/// killed holds its locks for a moment more.
pub(super) fn sweep(buffer: &str) {
    for _ in 0..20 {
        match v1::remove_leftovers(buffer) {
            Err(Error::AlreadyRunning { .. } | Error::Busy { .. }) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// What is done with each frame.
pub(super) struct Editor {
    pub(super) chain: Chain,
    pub(super) tally: Arc<Tally>,
    pub(super) spoil: Option<u64>,
}

impl Editor {
    pub(super) fn edit(
        &self,
        metadata: &[u8],
        sequence: u64,
        data: &mut [u8],
    ) -> Result<(), String> {
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

impl Tally {
    /// Adds what another process has counted.
    pub(super) fn add(&self, farewell: Option<Event>) {
        if let Some(Event::Stopped { frames, refused_frames, bytes, .. }) = farewell {
            self.frames.fetch_add(frames, Ordering::Relaxed);
            self.refused.fetch_add(refused_frames, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn stopped(&self, name: &str, reason: &str) -> Event {
        Event::Stopped {
            name: name.to_owned(),
            reason: reason.to_owned(),
            frames: self.frames.load(Ordering::Relaxed),
            refused_frames: self.refused.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn greeting(args: &ServeArgs) -> String {
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

pub(super) fn farewell(event: &Event) -> String {
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
