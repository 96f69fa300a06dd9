//! Runs every peer as a server with every peer as a client, and prints what held.

mod cases;
mod pair;
mod process;
mod report;
mod traces;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use pair::Pair;
use report::{Cell, Report};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Every server with every client.
#[derive(Parser)]
struct Arguments {
    /// A peer: its name, and how it is started.
    #[arg(long = "peer", value_name = "NAME=COMMAND", required = true)]
    peers: Vec<Peer>,
    /// A peer that cannot be started here, and why: its cells are red.
    #[arg(long = "missing", value_name = "NAME=REASON")]
    missing: Vec<Missing>,
    /// Only these servers.
    #[arg(long)]
    server: Vec<String>,
    /// Only these clients.
    #[arg(long)]
    client: Vec<String>,
    /// Only these kinds of channel.
    #[arg(long)]
    channel: Vec<Channel>,
    /// Only these cases, by the names that the report has.
    #[arg(long)]
    case: Vec<String>,
    /// Round trips of each size.
    #[arg(long, default_value_t = 500)]
    count: u32,
    /// Seconds that one process may take for one step.
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Pairs at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where to write all cells as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Peer {
    name: String,
    command: Vec<String>,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, command) = text.split_once('=').context("expected NAME=COMMAND")?;
        let command = shlex::split(command).context("the command's quotes do not match")?;
        ensure!(!command.is_empty(), "there is no command");
        Ok(Self { name: name.to_owned(), command })
    }
}

#[derive(Clone, Debug)]
struct Missing {
    name: String,
    reason: String,
}

impl FromStr for Missing {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, reason) = text.split_once('=').context("expected NAME=REASON")?;
        Ok(Self { name: name.to_owned(), reason: reason.to_owned() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Channel {
    InPlace,
    TwoBuffers,
    Service,
}

impl Channel {
    const ALL: [Self; 3] = [Self::InPlace, Self::TwoBuffers, Self::Service];

    fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::TwoBuffers => "two-buffers",
            Self::Service => "service",
        }
    }
}

/// What all pairs have in common.
struct Plan {
    cases: Vec<String>,
    count: u32,
    limit: Duration,
    /// What the names of all channels start with.
    prefix: String,
}

impl Plan {
    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    arguments.check_names()?;
    let start = Instant::now();
    let descriptors = traces::descriptors()?;
    let plan = Plan {
        cases: arguments.case.clone(),
        count: arguments.count,
        limit: Duration::from_secs(arguments.limit),
        prefix: format!("zbm{}x{:x}", std::process::id(), fastrand::u32(..)),
    };
    let report = Report::new(run(&arguments, &plan));
    report.print();
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    let (passed, failed) = (report.passed(), report.failed());
    println!("{passed} passed, {failed} failed ({} s)", start.elapsed().as_secs());
    traces::check_descriptors(descriptors)?;
    ensure!(passed > 0, "no cell was run");
    if failed > 0 {
        bail!("{failed} cells of the matrix are red");
    }
    Ok(())
}

impl Arguments {
    fn check_names(&self) -> Result<()> {
        for name in self.server.iter().chain(&self.client) {
            ensure!(self.names().any(|known| known == name), "there is no peer {name:?}");
        }
        for case in &self.case {
            let known = |channel| cases::names(channel).any(|name| name == case);
            ensure!(Channel::ALL.into_iter().any(known), "no case {case:?}");
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        let missing = self.missing.iter().map(|missing| &missing.name);
        self.peers.iter().map(|peer| &peer.name).chain(missing)
    }

    /// All pairs of names, with each kind of channel.
    fn pairs(&self) -> Vec<(Channel, &String, &String)> {
        let wanted = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        let mut pairs = Vec::new();
        for channel in Channel::ALL {
            if !self.channel.is_empty() && !self.channel.contains(&channel) {
                continue;
            }
            for server in self.names().filter(|name| wanted(&self.server, name)) {
                for client in self.names().filter(|name| wanted(&self.client, name)) {
                    pairs.push((channel, server, client));
                }
            }
        }
        pairs
    }

    fn peer(&self, name: &str) -> Result<&Peer, String> {
        let found = self.peers.iter().find(|peer| peer.name == name);
        found.ok_or_else(|| {
            let missing = self.missing.iter().find(|missing| missing.name == name);
            missing.map_or_else(|| "unknown".to_owned(), |missing| missing.reason.clone())
        })
    }
}

/// Runs all pairs, some at a time; the cells come in the order of the pairs.
fn run(arguments: &Arguments, plan: &Plan) -> Vec<Cell> {
    let pairs = arguments.pairs();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((channel, server, client)) = pairs.get(index) else { break };
                    let cells = run_pair(arguments, plan, index, *channel, server, client);
                    done.lock().expect("no thread panics").push((index, cells));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().flat_map(|(_, cells)| cells).collect()
}

fn run_pair(
    arguments: &Arguments,
    plan: &Plan,
    index: usize,
    channel: Channel,
    server: &str,
    client: &str,
) -> Vec<Cell> {
    let start = Instant::now();
    let outcomes: Vec<(&str, Result<()>)> = match (arguments.peer(server), arguments.peer(client)) {
        (Ok(server), Ok(client)) => {
            let name = format!("{}-{index}z", plan.prefix);
            Pair::new(plan, channel, server, client, name).run()
        }
        (Err(reason), _) | (_, Err(reason)) => cases::names(channel)
            .filter(|case| plan.wants(case))
            .map(|case| (case, Err(anyhow::anyhow!("{reason}"))))
            .collect(),
    };
    let what = format!("{server} → {client}, {}", channel.name());
    for (case, outcome) in &outcomes {
        if let Err(error) = outcome {
            println!("RED {what}: {case}: {error:#}");
        }
    }
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    let passed = outcomes.len() - failed;
    println!("{what}: {passed} passed, {failed} failed in {:.1} s", start.elapsed().as_secs_f64());
    let cell = |(case, outcome): (&str, Result<()>)| Cell {
        server: server.to_owned(),
        client: client.to_owned(),
        channel: channel.name(),
        case: case.to_owned(),
        ok: outcome.is_ok(),
    };
    outcomes.into_iter().map(cell).collect()
}
