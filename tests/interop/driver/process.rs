//! A peer's process: what it says, and its end, with a limit of time.

use crate::traces;
use anyhow::{Context, Result, anyhow};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The channel, in the environment of every process that is started for it.
pub(crate) const MARK: &str = "ZEROBUFFER_MATRIX";
const LOOK: Duration = Duration::from_millis(1);
/// After a process's end, for what it has written last.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Killed and waited for when dropped.
pub(crate) struct Process {
    role: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    transcript: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    limit: Duration,
}

impl Process {
    /// Starts `command` with more arguments.
    pub(crate) fn start(
        role: String,
        command: &[String],
        arguments: &[String],
        channel: &str,
        limit: Duration,
    ) -> Result<Self> {
        let (program, first) = command.split_first().context("there is no command")?;
        let mut child = Command::new(program)
            .args(first)
            .args(arguments)
            .env(MARK, channel)
            .env("ZEROBUFFER_DIR", traces::runtime_directory(channel))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the driver; its end closes their standard input, which ends them.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{role}: {program} cannot be started"))?;
        let transcript = Arc::new(Mutex::new(format!("$ {command:?} {}\n", arguments.join(" "))));
        let (sender, lines) = std::sync::mpsc::channel();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read(stdout, Arc::clone(&transcript), Some(sender)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read(stderr, Arc::clone(&transcript), None));
        }
        let stdin = child.stdin.take();
        Ok(Self { role, child, stdin, lines, transcript, readers, limit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says `line`.
    pub(crate) fn expect(&mut self, line: &str) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(said) if said == line => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.hung(&format!("did not say {line:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let end = self.kill()?;
                    return Err(self.blame(&format!("ended ({end}) and did not say {line:?}")));
                }
            }
        }
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if start.elapsed() < self.limit => std::thread::sleep(LOOK),
                None => return Err(self.hung("did not end")),
            }
        };
        if status.success() {
            return Ok(());
        }
        self.listen();
        Err(self.blame(&format!("ended with {status}")))
    }

    /// Tells it to stop in order, and waits for that.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.stdin = None;
        self.finish()
    }

    /// Kills it with SIGKILL, which is to be what ends it, and waits for its end.
    pub(crate) fn kill_alive(&mut self) -> Result<()> {
        let end = self.kill()?;
        if end == "SIGKILL" {
            return Ok(());
        }
        self.listen();
        Err(self.blame(&format!("was to be killed, but had ended ({end})")))
    }

    fn kill(&mut self) -> Result<String> {
        self.child.kill().with_context(|| format!("kill {}", self.role))?;
        let status = self.child.wait()?;
        Ok(if status.signal() == Some(9) { "SIGKILL".to_owned() } else { status.to_string() })
    }

    fn hung(&mut self, what: &str) -> anyhow::Error {
        let what = format!("{what} within {:?}, and was killed", self.limit);
        if let Err(error) = self.kill() {
            return error;
        }
        self.listen();
        self.blame(&what)
    }

    /// Waits for the rest of its output, which others may keep open.
    fn listen(&self) {
        let start = Instant::now();
        while start.elapsed() < LAST_WORDS && self.readers.iter().any(|one| !one.is_finished()) {
            std::thread::sleep(LOOK);
        }
    }

    fn blame(&self, what: &str) -> anyhow::Error {
        anyhow!("the {} {what}\n{}", self.role, self.transcript())
    }

    /// What it was told, and what it has said so far.
    pub(crate) fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it still runs.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        if let Some(status) = ended {
            self.listen();
            return Err(self.blame(&format!("ended by itself ({status})")));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

/// Reads one of the two outputs until it ends.
fn read(
    output: impl Read + Send + 'static,
    transcript: Arc<Mutex<String>>,
    sender: Option<Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            {
                let mut transcript = transcript.lock().unwrap_or_else(PoisonError::into_inner);
                // A peer that never stops talking must not fill the memory.
                if transcript.len() < 1 << 20 {
                    transcript.push_str("  ");
                    transcript.push_str(&line);
                    transcript.push('\n');
                }
            }
            if let Some(sender) = &sender {
                let _ = sender.send(line);
            }
        }
    })
}
