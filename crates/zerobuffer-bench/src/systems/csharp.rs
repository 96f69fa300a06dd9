//! Exchanges between two C# programs, each way of them in turn in one pair of processes: what a call takes, and how
//! much garbage it leaves.

use super::programs::{Program, peer, shell};
use crate::machine::pin_process;
use crate::names::unique_name;
use crate::plan::Round;
use crate::work::FRAME;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read};

/// A way to exchange bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Call(usize),
    /// As the existing package works: two buffers, and both sides sleep.
    TwoBuffers(usize),
    /// `NamedPipeServerStream`.
    Pipe(usize),
    /// `CallAsync` of eight bytes, each when the former has ended.
    Async,
    /// The same by 64 tasks at once.
    ManyAsync,
}

impl Way {
    /// As the program names it, in the order in which it does them.
    const ALL: [(Self, &str); 11] = [
        (Self::Call(8), "call 8"),
        (Self::TwoBuffers(8), "two 8"),
        (Self::Pipe(8), "pipe 8"),
        (Self::Call(1 << 16), "call 65536"),
        (Self::TwoBuffers(1 << 16), "two 65536"),
        (Self::Pipe(1 << 16), "pipe 65536"),
        (Self::Call(FRAME), "call 6220800"),
        (Self::TwoBuffers(FRAME), "two 6220800"),
        (Self::Pipe(FRAME), "pipe 6220800"),
        (Self::Async, "async 8"),
        (Self::ManyAsync, "many 8"),
    ];
}

/// Of one exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) ns: f64,
    /// Bytes that the collector gets.
    pub(crate) garbage: f64,
}

/// What all ways cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs([Cost; Way::ALL.len()]);

impl Costs {
    pub(crate) fn of(&self, way: Way) -> Cost {
        let index = Way::ALL.iter().position(|(one, _)| *one == way);
        index.map_or(Cost { ns: f64::NAN, garbage: f64::NAN }, |index| self.0[index])
    }
}

pub(crate) fn measure(round: &Round) -> Result<Costs> {
    let (seats, command) = (round.seats()?, peer("csharp")?);
    let channel = unique_name("csharp");
    let start = |arguments: &[&str]| Program::start(&mut shell(&command, arguments));
    let mut server = start(&["measured", &channel])?;
    server.expect("ready")?;
    let budget = (round.budget.as_secs_f64() * 1e3).to_string();
    let mut client = start(&["measure", &channel, &budget])?;
    let output = client.0.stdout.take().context("the program's output")?;
    let mut output = BufReader::new(output);
    let mut said = String::new();
    output.read_line(&mut said)?;
    ensure!(said == "ready\n", "the program said {said:?} instead of ready");
    // Both know by now how many CPUs there are; on a single one they would not spin.
    pin_process(server.0.id(), seats.server)?;
    pin_process(client.0.id(), seats.client)?;
    drop(client.0.stdin.take());
    said.clear();
    output.read_to_string(&mut said)?;
    let status = client.0.wait()?;
    ensure!(status.success(), "the program failed ({status})");
    let mut lines = said.lines();
    let mut costs = [Cost { ns: f64::NAN, garbage: f64::NAN }; Way::ALL.len()];
    for (cost, (_, name)) in costs.iter_mut().zip(Way::ALL) {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no line begins with {name}: {said}"))?;
        let numbers: Vec<f64> =
            line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [ns, garbage] = numbers[..] else { anyhow::bail!("not two numbers: {line}") };
        *cost = Cost { ns, garbage };
    }
    Ok(Costs(costs))
}
