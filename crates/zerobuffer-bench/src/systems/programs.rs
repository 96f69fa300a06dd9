//! Round trips between two programs in other languages: our own peers of `tests/interop`, and what
//! Python offers.

use crate::machine::pin_process;
use crate::names::{Leftovers, unique_name};
use crate::plan::{Round, Unavailable};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names the commands that start the peers, one in each line: `python=python3 peer.py`.
const PEERS: &str = "ZEROBUFFER_BENCH_PEERS";
/// Names the Python that has the existing package of version 1.
const V1_PYTHON: &str = "ZEROBUFFER_V1_PYTHON";

/// A child that is ended with its standard input, and waited for.
pub(super) struct Program(pub(super) Child);

impl Program {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("start {command:?}"))?))
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<()> {
        let output = self.0.stdout.take().context("the program's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == word, "the program said {line:?} instead of {word:?}");
        Ok(())
    }

    /// What it has said when it has ended well.
    fn number(mut self) -> Result<f64> {
        let mut text = String::new();
        self.0.stdout.take().context("the program's output")?.read_to_string(&mut text)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the program failed ({status})");
        text.trim().parse().with_context(|| format!("not a number: {text:?}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The command that starts the peer in this language.
pub(super) fn peer(language: &str) -> Result<String> {
    let peers = std::env::var(PEERS).unwrap_or_default();
    let named = |line: &str| line.strip_prefix(language)?.strip_prefix('=').map(str::to_owned);
    let found = peers.lines().find_map(named);
    Ok(found.ok_or(Unavailable("cargo xtask bench builds the peers of the languages"))?)
}

pub(super) fn shell(command: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command} \"$@\""), "sh"]).args(arguments);
    // C# programs that run for long are compiled for speed.
    shell.env("COMPlus_TieredCompilation", "0");
    shell
}

/// Nanoseconds of a call of eight bytes in place, client and server in this language and spinning.
pub(crate) fn call_ns(round: &Round, language: &str) -> Result<f64> {
    static KNOWN: Mutex<BTreeMap<String, f64>> = Mutex::new(BTreeMap::new());
    let command = peer(language)?;
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    // A first short run tells how many calls fill the time.
    let before = known().get(language).copied();
    let expected = match before {
        Some(ns) => ns,
        None => call_with(round, &command, 2000)?,
    };
    let count = (round.budget.as_nanos() as f64 / expected.max(1.0)).clamp(2000.0, 5e6);
    let ns = call_with(round, &command, count as u64)?;
    known().insert(language.to_owned(), ns);
    Ok(ns)
}

fn call_with(round: &Round, command: &str, count: u64) -> Result<f64> {
    let seats = round.seats()?;
    let channel = unique_name("language");
    let kind = ["--kind", "in-place", "--wait", "spin"];
    let server = ["server", &channel, "--payload", "1048576", "--metadata", "0"];
    let mut server = Program::start(&mut shell(command, &[&server[..], &kind[..]].concat()))?;
    server.expect("ready")?;
    let count = count.to_string();
    let client = [&["client", &channel][..], &kind, &["bench", &count]].concat();
    let client = Program::start(&mut shell(command, &client))?;
    if until_attached(&client, &channel) {
        // Both know by then how many CPUs there are; on a single one they would not spin.
        std::thread::sleep(Duration::from_millis(5));
        pin_process(server.0.id(), seats.server)?;
        // One that has ended already was not slow.
        let _ = pin_process(client.0.id(), seats.client);
    }
    client.number()
}

/// Whether the channel came to be mapped; a program that has ended already was not slow.
fn until_attached(program: &Program, channel: &str) -> bool {
    let maps = format!("/proc/{}/maps", program.0.id());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        match std::fs::read_to_string(&maps) {
            Ok(text) if text.contains(channel) => return true,
            // Empty once the program has ended.
            Ok(text) if !text.is_empty() || start.elapsed() < Duration::from_millis(100) => {}
            _ => return false,
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// What Python programs would use instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Python {
    /// The existing package of version 1, zerobuffer-ipc 1.3.0.
    Version1,
    /// `multiprocessing.Pipe`.
    Pipe,
    /// `multiprocessing.shared_memory`, with two queues to say whose turn it is.
    SharedMemory,
}

impl Python {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Version1 => "zerobuffer-ipc 1.3.0",
            Self::Pipe => "multiprocessing.Pipe",
            Self::SharedMemory => "shared_memory and queues",
        }
    }

    /// Nanoseconds of a round trip of `len` bytes.
    pub(crate) fn echo_ns(self, round: &Round, len: usize) -> Result<f64> {
        let seats = round.seats()?;
        let interpreter = match self {
            Self::Version1 => std::env::var(V1_PYTHON).map_err(|_| {
                Unavailable("cargo xtask bench installs zerobuffer-ipc 1.3.0 and names its Python")
            })?,
            Self::Pipe | Self::SharedMemory => "python3".to_owned(),
        };
        let what = match self {
            Self::Version1 => "version-1",
            Self::Pipe => "pipe",
            Self::SharedMemory => "shared-memory",
        };
        let channel = unique_name("python");
        // The package of version 1 never removes its semaphores.
        let _leftovers = Leftovers(channel.clone());
        let numbers =
            [len as f64, round.budget.as_secs_f64(), seats.client as f64, seats.server as f64];
        let mut command = Command::new(&interpreter);
        command.args(["-c", include_str!("echo.py"), what, &channel]);
        command.args(numbers.map(|number| number.to_string()));
        let program = Program::start(&mut command);
        program.map_err(|_| Unavailable("python3 is not installed"))?.number()
    }
}
