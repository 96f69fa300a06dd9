//! Child processes: how they are started, heard, held up and ended.
#![allow(unsafe_code)]

use crate::tell::Message;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A child of this thread, with what it has told.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Message>,
}

impl Process {
    /// This program again, with these arguments.
    pub(crate) fn start(arguments: &[String]) -> Result<Self> {
        Self::spawn(Command::new(std::env::current_exe()?), arguments)
    }

    /// The same in a pid namespace of its own; takes root.
    pub(crate) fn start_isolated(arguments: &[String]) -> Result<Self> {
        let mut command = Command::new("unshare");
        // The first process of a namespace cannot be killed from inside, so a shell is that.
        command
            .args(["--pid", "--fork", "--kill-child", "sh", "-c"])
            .arg("\"$0\" \"$@\"; exit $?")
            .arg(std::env::current_exe()?);
        Self::spawn(command, arguments)
    }

    fn spawn(mut command: Command, arguments: &[String]) -> Result<Self> {
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: one system call, which is async-signal-safe and touches no memory of the parent's.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command.spawn().context("a child process")?;
        let stdout = BufReader::new(child.stdout.take().context("piped")?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let unknown = || Message::Violation(format!("a child says {line:?}"));
                let _ = sender.send(Message::parse(&line).unwrap_or_else(unknown));
            }
        });
        Ok(Self { stdin: child.stdin.take(), child, messages })
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // The child was not waited for, so the id is its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// The CPU time that the process has used.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().context("no schedstat")?;
            nanoseconds += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// What was told since the last time.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.try_iter().collect()
    }

    /// How the process has ended unasked, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// SIGKILL. Returns the last messages, and how it ended if that was not by this signal.
    pub(crate) fn kill(mut self) -> (Vec<Message>, Option<String>) {
        self.signal(Signal::KILL);
        let status = self.child.wait();
        let killed = status.as_ref().is_ok_and(|s| s.signal() == Some(Signal::KILL.as_raw()));
        (self.messages.iter().collect(), (!killed).then(|| format!("{status:?}")))
    }

    /// Holds the process up.
    pub(crate) fn pause(&self, time: Duration) {
        self.signal(Signal::STOP);
        std::thread::sleep(time);
        self.signal(Signal::CONT);
    }

    /// Asks the process to end cleanly. Returns the last messages, and how it ended if not well.
    pub(crate) fn stop(mut self, patience: Duration) -> (Vec<Message>, Option<String>) {
        drop(self.stdin.take());
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    let bad = (!status.success()).then(|| status.to_string());
                    return (self.messages.iter().collect(), bad);
                }
                Ok(None) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                outcome => {
                    self.signal(Signal::KILL);
                    let _ = self.child.wait();
                    let text = format!("does not end within {patience:?}: {outcome:?}");
                    return (self.messages.iter().collect(), Some(text));
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a thread said when it panicked.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
