//! How long it takes until a waiting client knows that its server was killed, and what the waiting costs:
//! figures for a quiet machine, next to the verdicts of a run.

use crate::board::Board;
use crate::delay::now;
use crate::process::Process;
use crate::request::{Op, Sent};
use crate::server;
use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, ErrorKind};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for on the command line.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// So many servers are killed.
    #[arg(long, default_value_t = 300)]
    kills: u64,
    /// How the client waits: park, or both (spin, then park).
    #[arg(long, default_value = "both")]
    wait: String,
    /// Servers in a pid namespace of their own; takes root.
    #[arg(long)]
    isolated: bool,
}

/// Kills one server after the other while a call waits for it, and prints the figures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("board");
    let _board = Board::create(&path)?;
    let name = format!("zbnotice{}", std::process::id());
    let mut notices = Histogram::<u64>::new_with_bounds(1_000, 60_000_000_000, 3)?;
    let (mut waited, mut spent) = (Duration::ZERO, Duration::ZERO);
    let mut rng = fastrand::Rng::new();
    for life in 1..=options.kills {
        let server = start(&name, &path, life, options.isolated)?;
        let config = ClientConfig::new().wait(server::strategy(&options.wait)).metadata("client=0");
        let mut client = Client::connect_with(&name, PATIENCE, config)?;
        let work = Sent::new(life, Op::Edit, PATIENCE, 1000, &mut rng);
        let delay = Duration::from_micros(rng.u64(20_000..60_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            let killed_at = now();
            server.kill();
            killed_at
        });
        let (began, cpu) = (now(), thread_time());
        let outcome = client.call(&work.bytes(), PATIENCE);
        let ended = now();
        spent += thread_time() - cpu;
        waited += Duration::from_nanos(ended - began);
        let kind = outcome.map(drop).map_err(|error| error.kind());
        ensure!(kind == Err(ErrorKind::PeerDied), "the call of a killed server: {kind:?}");
        let killed_at = killer.join().ok().context("the killer")?;
        notices.record(ended.saturating_sub(killed_at))?;
    }
    let ms = |quantile| notices.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "death notice ({} kills, {}{}): p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        options.kills,
        options.wait,
        if options.isolated { ", other namespaces" } else { "" },
        ms(0.5),
        ms(0.99),
        notices.max() as f64 / 1e6
    );
    let percent = |spent: Duration, of: Duration| 100.0 * spent.as_secs_f64() / of.as_secs_f64();
    println!("CPU time of a waiting call: {:.3} % of one CPU", percent(spent, waited));
    long_wait(options, &name, &path)?;
    drop(zerobuffer::Server::create(&name, zerobuffer::BufferConfig::new(0, 64))?);
    Ok(())
}

/// What a call and an idle server cost in the long run.
fn long_wait(options: &Options, name: &str, path: &Path) -> Result<()> {
    let time = Duration::from_secs(5);
    let server = start(name, path, options.kills + 1, options.isolated)?;
    let config = ClientConfig::new().wait(server::strategy(&options.wait)).metadata("client=0");
    let mut client = Client::connect_with(name, PATIENCE, config)?;
    std::thread::sleep(Duration::from_millis(300));
    let before = server.cpu_time()?;
    std::thread::sleep(time);
    let idle = server.cpu_time()? - before;
    let work = Sent::new(0xffff, Op::Edit, PATIENCE, 1000, &mut fastrand::Rng::new());
    let before = thread_time();
    let outcome = client.call(&work.bytes(), time);
    let spent = thread_time() - before;
    ensure!(outcome.is_err_and(|error| error.kind() == ErrorKind::Timeout), "the handler sleeps");
    let percent = |spent: Duration| 100.0 * spent.as_secs_f64() / time.as_secs_f64();
    println!("CPU time of one call of {time:?}: {:.3} % of one CPU", percent(spent));
    if !options.isolated {
        println!("CPU time of an idle server with a client: {:.3} % of one CPU", percent(idle));
    }
    server.kill();
    Ok(())
}

fn start(name: &str, board: &Path, life: u64, isolated: bool) -> Result<Process> {
    let arguments = [
        "server".to_owned(),
        format!("--name={name}"),
        format!("--board={}", board.display()),
        format!("--life={life}"),
        "--payload=65536".to_owned(),
        "--workers=1".to_owned(),
        "--wait=both".to_owned(),
    ];
    if isolated { Process::start_isolated(&arguments) } else { Process::start(&arguments) }
}

/// CPU time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
