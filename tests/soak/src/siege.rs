//! What hostile clients of a service cost the others: how long the calls of one take, alone, beside them, and beside the
//! same attack on a server of no concern, which takes as much of the machine. Figures for a quiet machine; that its
//! responses stay right is a test of the library's own.

use crate::delay::now;
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{Client, ClientConfig, Frame, Service, ServiceConfig};

const NAME: &str = "besieged";
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two calls: the server sleeps before each of them.
const PAUSE: Duration = Duration::from_micros(200);
/// Silent connections that are kept.
const SILENT: usize = 300;

/// What is asked for on the command line.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// For each round, and for each kind of attack in it.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Alone, beside an attack on another server, and beside one on its own, in turn and so often.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// This kind of attack alone.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(ATTACKS))]
    only: Option<String>,
    /// A child process: the server, with its sockets in this directory.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// A child process: an attacker of this kind.
    #[arg(long, hide = true)]
    attack: Option<String>,
}

/// What an attacker does, all the time. The first one is none, but computes on every CPU: what a client loses to that it
/// loses on any busy machine.
const ATTACKS: [&str; 5] = ["computing", "connections", "silence", "attaching", "bells"];

pub(crate) fn run(options: &Options) -> Result<()> {
    match (&options.serve, &options.attack) {
        (Some(directory), None) => serve(directory),
        (Some(directory), Some(attack)) => assault(directory, attack),
        _ => measure(options),
    }
}

fn child(directory: &str, more: &[&str]) -> Result<Process> {
    let arguments = ["siege", "--serve", directory].into_iter().chain(more.iter().copied());
    Process::start(&arguments.map(str::to_owned).collect::<Vec<_>>())
}

fn measure(options: &Options) -> Result<()> {
    let time = Duration::from_secs(options.seconds);
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let directory = |at: usize| folders[at].path().to_str().context("UTF-8");
    let (own, other) = (directory(0)?, directory(1)?);
    let _servers = [child(own, &[])?, child(other, &[])?];
    let connect =
        |directory| Client::connect_with(NAME, PATIENCE, ClientConfig::new().directory(directory));
    let mut client = connect(own)?;
    // Only once that one is there, too.
    drop(connect(other)?);
    let is_asked = |attack: &&str| options.only.as_deref().is_none_or(|only| only == *attack);
    for attack in ATTACKS.into_iter().filter(is_asked) {
        // In turn, as a machine may become slower in between.
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..options.rounds {
            // What the attack before has left is buried by then.
            let _ = calls(&mut client, time / 2)?;
            times[0].push(calls(&mut client, time)?);
            for (times, victim) in times[1..].iter_mut().zip([other, own]) {
                let _attacker = child(victim, &["--attack", attack])?;
                let _ = calls(&mut client, time / 5)?;
                times.push(calls(&mut client, time)?);
            }
        }
        print(attack, &times);
    }
    Ok(())
}

/// Medians of the rounds.
fn print(attack: &str, [alone, elsewhere, here]: &[Vec<Histogram<u64>>; 3]) {
    let us = |rounds: &[Histogram<u64>], quantile| {
        let all = rounds.iter().map(|times| times.value_at_quantile(quantile) as f64 / 1e3);
        all.collect::<Vec<_>>()
    };
    let figures = |rounds| {
        format!("p50 {:6.1} µs, p99 {:7.1} µs", middle(us(rounds, 0.5)), middle(us(rounds, 0.99)))
    };
    let ratio = |rounds| {
        let both = us(alone, 0.99).into_iter().zip(us(rounds, 0.99));
        middle(both.map(|(alone, beside)| beside / alone).collect())
    };
    println!("{attack}");
    println!("  alone              {}", figures(alone));
    println!("  on another server  {}, p99 {:.1} times", figures(elsewhere), ratio(elsewhere));
    println!("  on this one        {}, p99 {:.1} times", figures(here), ratio(here));
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long calls take, each of whose responses is checked.
fn calls(client: &mut Client, time: Duration) -> Result<Histogram<u64>> {
    let mut times = Histogram::new_with_bounds(100, 60_000_000_000, 3)?;
    let start = Instant::now();
    let mut number = 0_u64;
    while start.elapsed() < time {
        std::thread::sleep(PAUSE);
        number += 1;
        let began = now();
        let right = client.call(&number.to_le_bytes(), PATIENCE)?.data() == (!number).to_le_bytes();
        times.record((now() - began).max(100))?;
        ensure!(right, "the response to {number} is wrong");
    }
    Ok(times)
}

fn serve(directory: &str) -> Result<()> {
    let mut service =
        Service::create(NAME, ServiceConfig::new().ring(1 << 20).directory(directory))?;
    service.start(|frame: &mut Frame<'_>| {
        frame.data_mut().iter_mut().for_each(|byte| *byte = !*byte)
    })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(service.stop()?)
}

/// Ends with the controller.
fn assault(directory: &str, attack: &str) -> Result<()> {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        IS_OVER.store(true, Ordering::Relaxed);
    });
    if attack == "computing" {
        compute_until(&IS_OVER);
        return Ok(());
    }
    let mut kept = VecDeque::new();
    while !IS_OVER.load(Ordering::Relaxed) {
        let socket = dial(directory)?;
        match attack {
            "connections" => drop(send(&socket, b"nonsense", SendFlags::NOSIGNAL)),
            "silence" => {
                kept.push_back(socket);
                if kept.len() > SILENT {
                    kept.pop_front();
                }
            }
            "attaching" => attach(&socket)?,
            "bells" => {
                attach(&socket)?;
                while send(&socket, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok() {}
            }
            attack => anyhow::bail!("no attack {attack:?}"),
        }
    }
    Ok(())
}

/// On every CPU.
fn compute_until(is_over: &AtomicBool) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(|| while !is_over.load(Ordering::Relaxed) {});
        }
    });
}

/// A connection to the only server.
fn dial(directory: &str) -> Result<OwnedFd> {
    let mut entries = std::fs::read_dir(format!("{directory}/{NAME}"))?;
    let path = entries.next().context("no socket")??.path();
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(&path)?)?;
    Ok(socket)
}

/// Asks for the smallest ring, and waits for the reply.
fn attach(socket: &OwnedFd) -> Result<()> {
    let mut hello = [0; 64];
    hello[..8].copy_from_slice(b"ZBUFSVC\0");
    (hello[8], hello[12], hello[16]) = (1, 1, 64);
    if send(socket, &hello, SendFlags::NOSIGNAL).is_ok() {
        recv(socket, &mut [0; 256], RecvFlags::empty())?;
    }
    Ok(())
}
