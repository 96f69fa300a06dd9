//! The other process: this program once more, told what to be by an argument.
//!
//! It says `ready` on its standard output, and ends in good order when its standard input ends: when
//! the parent says so, or when the parent is gone, so nothing stays behind in either case.

use crate::limits;
use crate::machine::Pinned;
#[cfg(feature = "iceoryx2")]
use crate::systems::iceoryx;
use crate::systems::{Load, growth, in_place, streams, two_buffers, zeromq};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What a peer is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Answers in one cache line (L1).
    Line {
        fd: i32,
        pause: limits::Pause,
    },
    /// Answers with semaphores (L2).
    Semaphores {
        fd: i32,
    },
    /// A server of an in-place channel.
    InPlace(in_place::ServerSpec),
    /// A server of two buffers.
    TwoBuffers(two_buffers::TwoBufferSpec),
    #[cfg(feature = "iceoryx2")]
    Iceoryx(iceoryx::ServerSpec),
    /// Listens at a Unix socket with an abstract name.
    Socket {
        name: String,
        load: Load,
    },
    /// Answers through pipes that the parent has open.
    Pipes {
        parent: u32,
        requests: i32,
        responses: i32,
        load: Load,
    },
    ZeroMq {
        endpoint: String,
        load: Load,
    },
    /// Serves many channels, wherever the system has its threads run.
    Channels(growth::ServerSpec),
}

#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    role: Role,
    cpu: usize,
}

/// A running peer; it is stopped and waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    /// `None` once the peer was told to end.
    input: Option<ChildStdin>,
}

impl Peer {
    /// Starts a peer on `cpu`, and waits until it is ready. Not to be called while pinned: the peer
    /// would inherit it, and take the machine for one with a single CPU.
    pub(crate) fn start(role: Role, cpu: usize) -> Result<Self> {
        let spec = serde_json::to_string(&Spec { role, cpu })?;
        let program = std::env::current_exe().context("find this program's file")?;
        let mut child = Command::new(program)
            .args(["peer", &spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the peer process")?;
        let output = child.stdout.take().context("the peer's output")?;
        let peer = Self { input: child.stdin.take(), child };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "the peer process did not start: {spec}");
        Ok(peer)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The peer's own main function.
pub(crate) fn run(spec: &str) -> Result<()> {
    let Spec { role, cpu } = serde_json::from_str(spec)?;
    match role {
        Role::InPlace(spec) => in_place::serve(&spec, cpu, ready_until_told),
        Role::TwoBuffers(spec) => two_buffers::serve(&spec, cpu, ready_until_told),
        #[cfg(feature = "iceoryx2")]
        Role::Iceoryx(spec) => iceoryx::serve(&spec, cpu, ready_until_told),
        Role::Channels(spec) => growth::serve(&spec, ready_until_told),
        Role::Socket { name, load } => {
            let listener = streams::listen(&name)?;
            answer_until_told(cpu, move || streams::answer_socket(&listener, load))
        }
        Role::Pipes { parent, requests, responses, load } => {
            let (requests, responses) = streams::open_pipes(parent, requests, responses)?;
            answer_until_told(cpu, move || streams::answer(requests, responses, load))
        }
        Role::ZeroMq { endpoint, load } => {
            // Before it binds: its own threads inherit the CPU.
            let _pinned = Pinned::to(cpu)?;
            let mut replier = zeromq::Replier::bind(&endpoint, load)?;
            answer_until_told(cpu, move || replier.answer())
        }
        Role::Line { fd, pause } => {
            let line = limits::Line::inherit(fd, pause)?;
            answer_until_told(cpu, move || line.answer())
        }
        Role::Semaphores { fd } => {
            let semaphores = limits::Parked::inherit(fd)?;
            answer_until_told(cpu, move || semaphores.answer())
        }
    }
}

/// Runs `answer` on a thread, which the end of the process ends. An error of it, such as the end of
/// the client, is what the client notices.
fn answer_until_told<T>(cpu: usize, answer: impl FnOnce() -> T + Send + 'static) -> Result<()> {
    let _pinned = Pinned::to(cpu)?;
    std::thread::spawn(move || {
        answer();
    });
    ready_until_told()
}

/// Says `ready`, and comes back when standard input ends.
fn ready_until_told() -> Result<()> {
    let mut output = std::io::stdout();
    output.write_all(b"ready\n")?;
    output.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
