//! Random kills with restarts, for as long as one likes: `cargo xtask soak`.
//!
//! Some channels ("lanes") are kept busy by a server process and a client process each, some services by two and
//! four. At random moments one of them, or several, is killed with SIGKILL, stopped cleanly, or held up with SIGSTOP,
//! and started again. The surviving processes report what they saw, and every report is judged:
//!
//! | promise | how it is judged |
//! |---|---|
//! | every response is f of its own request, whole | all bytes are compared with what the client computes itself; the handler has checked the request's checksum before |
//! | no response without a handler that ran to its end | the handler's last act is a proof in the response, and a mark in the journal |
//! | answered at most once, handled at most once | the client's list of requests in flight; the journal, also for requests that were sent again after a restart |
//! | `NotStarted`: the handler never saw it | the journal, which is mapped from a file and survives the kill |
//! | nothing is lost unseen | each request ends in a response, an error that names it, or a report of `reconnect` |
//! | every call is back by its deadline | δ is 100 ms, and twice what the machine itself was late by at that moment is granted on top, as two processes have to run one after the other: one thread per CPU measures that (`delay`), and whatever needed the grant is listed |
//! | a death is reported if there was one, and only then | the controller notes each kill before it sends the signal |
//! | semaphores hold two tokens at the most | their files, before every kill |
//! | nothing is left behind | names, descriptors, threads and mappings of every process that ends in order, and at the end of the run |
//! | other channels are untouched | a bystander whose objects must stay the very same and who must be served throughout |
//! | no other signal ends a process | every exit status |
//!
//! The same seed gives the same plan of kills and the same requests; what the operating system makes of
//! it differs from run to run.
//!
//! | file | holds |
//! |---|---|
//! | `lane` | the plan of one channel or service: what is killed when |
//! | `client`, `session`, `crowd` | the client process: its life, one thread's work, many threads' work |
//! | `server` | the server process and its handler |
//! | `request` | what is sent, what is answered, and how to tell |
//! | `board` | the file that all processes of a lane map: kills and the journal |
//! | `process`, `census`, `delay` | children, leaks, the machine's own lateness |
//! | `notice`, `siege` | figures about death notices, and about hostile clients, for a quiet machine |
//! | `report` | what was seen, and the verdict |
#![deny(unsafe_code)]

mod board;
mod bystander;
mod client;
mod crowd;
mod delay;
mod desk;
mod lane;
mod notice;
mod objects;
mod process;
mod report;
mod request;
mod server;
mod session;
mod siege;
mod tell;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use report::Report;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use zerobuffer_test_support::Census;

/// Kills the processes of some channels at random, and checks everything that the survivors see.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: Run,
}

/// What is asked for on the command line.
#[derive(Args, Debug)]
struct Run {
    /// So many kills at least; together with `--minutes` they are spread over that time.
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// At least so long.
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// The plan of a previous run.
    #[arg(long)]
    seed: Option<u64>,
    /// Channels at the same time.
    #[arg(long, default_value_t = 2)]
    lanes: u64,
    /// Services at the same time, beside the channels.
    #[arg(long, default_value_t = 1)]
    services: u64,
    /// Where the figures go.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What this program is to be in a child process.
#[derive(Subcommand)]
enum Role {
    /// Measures how soon a waiting client learns of its server's death, and what waiting costs.
    Notice(notice::Options),
    /// Measures how long calls to a service take beside hostile clients.
    Siege(siege::Options),
    #[command(hide = true)]
    Server(server::Options),
    #[command(hide = true)]
    Client(client::Options),
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments { role: Some(Role::Notice(options)), .. } => notice::run(&options),
        Arguments { role: Some(Role::Siege(options)), .. } => siege::run(&options),
        Arguments { role: Some(Role::Server(options)), .. } => server::run(&options),
        Arguments { role: Some(Role::Client(options)), .. } => client::run(&options),
        Arguments { role: None, run } => soak(&run),
    }
}

fn soak(run: &Run) -> Result<()> {
    let seed = run.seed.unwrap_or_else(|| fastrand::u64(..) >> 16);
    let Run { kills, lanes, services, .. } = *run;
    println!(
        "replay the plan with --seed {seed} --kills {kills} --lanes {lanes} --services {services}"
    );
    let report = Report::new(seed);
    let folder = tempfile::tempdir()?;
    let before = Census::of_process(&lane::common_name());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| bystander::watch(&report));
        let all = lanes + services;
        let lanes: Vec<_> = (0..all)
            .map(|number| {
                let plan = lane::Plan {
                    number,
                    seed: seed.wrapping_add(number),
                    kills: kills.div_ceil(all),
                    time: Duration::from_secs_f64(run.minutes * 60.0),
                    folder: folder.path(),
                    is_service: number >= lanes,
                };
                let report = &report;
                scope.spawn(move || lane::run(&plan, report))
            })
            .collect();
        while !lanes.iter().all(|lane| lane.is_finished()) {
            std::thread::sleep(Duration::from_millis(200));
            report.show_progress(start.elapsed());
        }
        report.finish();
        for (number, lane) in lanes.into_iter().enumerate() {
            if let Err(panic) = lane.join() {
                report.violation(&format!("lane {number}: {}", process::panic_text(&*panic)));
            }
        }
        let _ = bystander.join();
    });
    if let Some(changes) = before.changes(|| Census::of_process(&lane::common_name())) {
        report.violation(&format!("the controller has leaked: {changes}"));
    }
    let summary = report.summary(start.elapsed());
    println!("{summary}");
    if let Some(path) = &run.json {
        std::fs::write(path, summary.to_json()?)?;
    }
    ensure!(summary.is_clean(), "something was lost, corrupt, leaked or late: see above");
    Ok(())
}
