//! Through a Unix socket and through two pipes, both blocking, as most programs use them. Messages
//! have a length that both ends know, so there is no header: nothing is spared to make them fast.

use super::exchange::{Exchange, Load, Pipeline};
use crate::machine::Seats;
use crate::names::unique_name;
use crate::peer::{Peer, answer_until_told};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;

/// The role of a peer that listens at a Unix socket.
pub(crate) const SOCKET: &str = "socket";
/// The role of a peer that answers through pipes.
pub(crate) const PIPES: &str = "pipes";

/// What the socket's server needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SocketSpec {
    /// Abstract.
    name: String,
    load: Load,
}

impl SocketSpec {
    pub(super) fn new(load: Load) -> Self {
        // Abstract: there is no file to remove.
        Self { name: unique_name("socket"), load }
    }

    pub(super) fn start(&self, seats: Seats) -> Result<Arc<Peer>> {
        Ok(Arc::new(Peer::start(SOCKET, self, seats.server)?))
    }
}

/// What the pipes' server needs to know: the parent's ends of the pipes, by their numbers there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PipeSpec {
    parent: u32,
    requests: i32,
    responses: i32,
    load: Load,
}

/// A client with its server process, and the client's buffer.
pub(crate) struct Stream<W, R> {
    requests: W,
    responses: R,
    peer: Arc<Peer>,
    buffer: Vec<u8>,
}

/// A Unix socket of kind SOCK_STREAM.
pub(crate) type Socket = Stream<UnixStream, UnixStream>;
/// A pipe each way.
pub(crate) type Pipes = Stream<PipeWriter, PipeReader>;

impl Socket {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        let spec = SocketSpec::new(load);
        let peer = spec.start(seats)?;
        Self::connect(&spec, peer)
    }

    pub(super) fn connect(spec: &SocketSpec, peer: Arc<Peer>) -> Result<Self> {
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&spec.name)?)?;
        let requests = stream.try_clone()?;
        Ok(Self { requests, responses: stream, peer, buffer: vec![0; spec.load.len] })
    }
}

impl Pipes {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        let (their_requests, requests) = std::io::pipe()?;
        let (responses, their_responses) = std::io::pipe()?;
        let spec = PipeSpec {
            parent: std::process::id(),
            requests: their_requests.as_raw_fd(),
            responses: their_responses.as_raw_fd(),
            load,
        };
        let peer = Arc::new(Peer::start(PIPES, &spec, seats.server)?);
        Ok(Self { requests, responses, peer, buffer: vec![0; load.len] })
    }
}

impl<W: Write, R: Read> Exchange for Stream<W, R> {
    fn exchange<T>(
        &mut self,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        self.send(fill)?;
        self.receive(read)
    }

    fn server(&self) -> &Peer {
        &self.peer
    }
}

impl<W: Write, R: Read> Pipeline for Stream<W, R> {
    fn send(&mut self, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        fill(&mut self.buffer);
        Ok(self.requests.write_all(&self.buffer)?)
    }

    fn receive<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.responses.read_exact(&mut self.buffer)?;
        Ok(read(&self.buffer))
    }
}

/// The socket's server, with a thread for each client.
pub(crate) fn serve_socket(spec: SocketSpec, cpu: usize) -> Result<()> {
    let name = SocketAddr::from_abstract_name(&spec.name)?;
    let listener = UnixListener::bind_addr(&name)?;
    answer_until_told(cpu, move || -> Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            std::thread::spawn(move || answer(&stream, &stream, spec.load));
        }
    })
}

/// The pipes' server.
pub(crate) fn serve_pipes(spec: PipeSpec, cpu: usize) -> Result<()> {
    let path = |fd| format!("/proc/{}/fd/{fd}", spec.parent);
    let requests = File::open(path(spec.requests)).context("open the pipe of requests")?;
    let responses = File::options().write(true).open(path(spec.responses));
    let responses = responses.context("open the pipe of responses")?;
    answer_until_told(cpu, move || answer(requests, responses, spec.load))
}

/// Answers until the client has exited.
fn answer(mut requests: impl Read, mut responses: impl Write, load: Load) -> Result<()> {
    let mut buffer = vec![0; load.len];
    loop {
        requests.read_exact(&mut buffer)?;
        load.work.on(&mut buffer);
        responses.write_all(&buffer)?;
    }
}
