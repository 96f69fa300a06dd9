//! A server in a process of its own, that ends with this one.

use super::serving::{self, Event, Kind};
use crate::failure::{Failure, FailureRecord};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use zerobuffer::Servers;

/// The server's own limit for an orderly stop is 2 + 2 seconds.
const PATIENCE: Duration = Duration::from_secs(6);

/// The option of `serve` with which nothing of a service stays, even if it is killed.
pub(super) const REMOVE_DIRECTORY: &str = "--remove-directory";

/// `zerobuffer serve` in a second process. It holds the other end of a pipe, and stops when that closes:
/// when this value is dropped, and also if this process is killed.
#[derive(Debug)]
pub(super) struct ServerProcess {
    name: String,
    kind: Kind,
    child: Child,
    /// Open as long as the server shall run.
    pipe: Option<ChildStdin>,
    /// What it says.
    lines: Option<BufReader<ChildStdout>>,
    /// Whether nothing of the service shall stay.
    removes_directory: bool,
    is_stopped: bool,
}

impl ServerProcess {
    /// Starts `zerobuffer serve NAME` with these options, and waits until clients can attach.
    pub(super) fn start(name: &str, kind: Kind, options: &[String]) -> Result<Self, Failure> {
        let refused = |error| Failure::system(format!("cannot start the server process: {error}"));
        let program = std::env::current_exe().map_err(refused)?;
        let mut child = Command::new(program)
            .args(["serve", name, "--json", "--stop-on-eof"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this process, which stops the server after it has closed the channel.
            .process_group(0)
            .spawn()
            .map_err(refused)?;
        let (pipe, lines) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let removes_directory = options.iter().any(|option| option == REMOVE_DIRECTORY);
        let (name, is_stopped) = (name.to_owned(), false);
        let mut server = Self { name, kind, child, pipe, lines, removes_directory, is_stopped };
        let mut line = String::new();
        if let Some(lines) = &mut server.lines {
            lines.read_line(&mut line).map_err(refused)?;
        }
        if let Ok(Event::Serving { .. }) = serde_json::from_str(&line) {
            return Ok(server);
        }
        Err(serde_json::from_str::<FailureRecord>(&line).map_or_else(
            |_| Failure::system("the server process ended before it could serve"),
            Failure::from,
        ))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process has ended, if it has.
    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Tells the server to stop, and does not wait for it.
    pub(super) fn begin_to_stop(&mut self) {
        self.pipe = None;
    }

    /// Stops the server, cleanly if it still can, and leaves nothing of it. Its last words, if it had any.
    pub(super) fn stop(mut self) -> Option<Event> {
        self.end();
        let mut said = String::new();
        self.lines.take()?.read_to_string(&mut said).ok()?;
        said.lines().last().and_then(|line| serde_json::from_str(line).ok())
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        self.begin_to_stop();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return,
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.sweep();
    }

    /// Removes what a killed server has left behind.
    fn sweep(&self) {
        match self.kind {
            Kind::Service => {
                // What cannot be removed is for the next server.
                let _ = Servers::of(&self.name).and_then(|servers| match self.removes_directory {
                    true => servers.clean().map(drop),
                    false => servers.sweep(),
                });
            }
            // `serve` starts processes for services, and the demo for those and two buffers.
            Kind::Channel => {}
            Kind::TwoBuffers => {
                for buffer in ["request", "response"] {
                    serving::sweep(&format!("{}_{buffer}", self.name));
                }
            }
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
