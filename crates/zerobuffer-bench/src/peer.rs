//! The other process: this program once more, told what to be by an argument.
//!
//! It says `ready` on its standard output, and ends cleanly when its standard input ends: when the
//! parent says so, or when the parent has exited, so nothing stays behind in either case.

use crate::machine::Pinned;
use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What a peer is told: its role by name, what that needs to know, and where it sits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) role: String,
    spec: serde_json::Value,
    pub(crate) cpu: usize,
}

impl Assignment {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("what the peer is told")
    }

    /// What the role needs to know.
    pub(crate) fn spec<S: DeserializeOwned>(&self) -> Result<S> {
        S::deserialize(&self.spec).with_context(|| format!("what {} needs to know", self.role))
    }
}

/// A running peer; it is stopped and waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    /// `None` once the peer was told to end.
    input: Option<ChildStdin>,
}

impl Peer {
    /// Starts a peer with a role of `roles` on `cpu`, and waits until it is ready. Not to be called while pinned: the peer
    /// would inherit it, and take the machine for one with a single CPU.
    pub(crate) fn start(role: &str, spec: &impl Serialize, cpu: usize) -> Result<Self> {
        let (role, spec) = (role.to_owned(), serde_json::to_value(spec)?);
        let spec = serde_json::to_string(&Assignment { role, spec, cpu })?;
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

    /// Kills it, so that nothing of it is put away.
    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
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

/// Runs `answer` on a thread, which the end of the process ends. An error of it, such as the end of
/// the client, is what the client notices.
pub(crate) fn answer_until_told<T>(
    cpu: usize,
    answer: impl FnOnce() -> T + Send + 'static,
) -> Result<()> {
    let _pinned = Pinned::to(cpu)?;
    std::thread::spawn(move || {
        answer();
    });
    ready_until_told()
}

/// Says `ready`, and comes back when standard input ends.
pub(crate) fn ready_until_told() -> Result<()> {
    let mut output = std::io::stdout();
    output.write_all(b"ready\n")?;
    output.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
