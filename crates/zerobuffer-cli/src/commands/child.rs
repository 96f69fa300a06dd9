//! A server in a process of its own, that ends with this one.

use super::serve::Event;
use crate::failure::{Failure, FailureRecord};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Server};

/// The server's own limit for an orderly stop is 2 + 2 seconds.
const PATIENCE: Duration = Duration::from_secs(6);

/// `zerobuffer serve` in a second process. It holds the other end of a pipe, and stops when that closes:
/// when this value is dropped, and also if this process is killed.
#[derive(Debug)]
pub(super) struct ServerProcess {
    name: String,
    child: Child,
    /// Open as long as the server shall run.
    pipe: Option<ChildStdin>,
}

impl ServerProcess {
    /// Starts `zerobuffer serve NAME` with these options, and waits until clients can attach.
    pub(super) fn start(name: &str, options: &[String]) -> Result<Self, Failure> {
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
        let (pipe, stdout) = (child.stdin.take(), child.stdout.take());
        let server = Self { name: name.to_owned(), child, pipe };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).map_err(refused)?;
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

    /// Stops the server, cleanly if it still can, and leaves nothing in /dev/shm.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.pipe.take().is_none() {
            return;
        }
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
        sweep(&self.name);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes what a killed server of either kind has left behind.
fn sweep(name: &str) {
    // By taking its place for a moment.
    if let Ok(mut server) = Server::create(name, BufferConfig::new(0, 64)) {
        let _ = server.stop();
    }
    for buffer in ["request", "response"] {
        super::serve::sweep(&format!("{name}_{buffer}"));
    }
}
