//! Through a Unix socket and through two pipes, both blocking, as most programs use them. Messages
//! have a length that both ends know, so there is no header: nothing is spared to make them fast.

use super::{Exchange, Load, Pipeline, unique_name};
use crate::machine::Seats;
use crate::peer::{Peer, Role};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// A client with its server process, and the client's buffer.
pub(crate) struct Stream<W, R> {
    requests: W,
    responses: R,
    peer: Peer,
    buffer: Vec<u8>,
}

/// A Unix socket of kind SOCK_STREAM.
pub(crate) type Socket = Stream<UnixStream, UnixStream>;
/// A pipe each way.
pub(crate) type Pipes = Stream<PipeWriter, PipeReader>;

impl Socket {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        // Abstract: there is no file to remove.
        let name = unique_name("socket");
        let peer = Peer::start(Role::Socket { name: name.clone(), load }, seats.server)?;
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let requests = stream.try_clone()?;
        Ok(Self { requests, responses: stream, peer, buffer: vec![0; load.len] })
    }
}

impl Pipes {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        let (their_requests, requests) = std::io::pipe()?;
        let (responses, their_responses) = std::io::pipe()?;
        let role = Role::Pipes {
            parent: std::process::id(),
            requests: their_requests.as_raw_fd(),
            responses: their_responses.as_raw_fd(),
            load,
        };
        let peer = Peer::start(role, seats.server)?;
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

/// The socket's server: where to answer one client.
pub(crate) fn listen(name: &str) -> Result<UnixListener> {
    Ok(UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?)
}

pub(crate) fn answer_socket(listener: &UnixListener, load: Load) -> Result<()> {
    let (stream, _) = listener.accept()?;
    answer(&stream, &stream, load)
}

/// The pipes' server: the parent's ends of the pipes, by their numbers there.
pub(crate) fn open_pipes(parent: u32, requests: i32, responses: i32) -> Result<(File, File)> {
    let path = |fd| format!("/proc/{parent}/fd/{fd}");
    let requests = File::open(path(requests)).context("open the pipe of requests")?;
    let responses = File::options().write(true).open(path(responses));
    Ok((requests, responses.context("open the pipe of responses")?))
}

/// Answers until the client is gone.
pub(crate) fn answer(mut requests: impl Read, mut responses: impl Write, load: Load) -> Result<()> {
    let mut buffer = vec![0; load.len];
    loop {
        requests.read_exact(&mut buffer)?;
        load.work.on(&mut buffer);
        responses.write_all(&buffer)?;
    }
}
