//! Several clients of one server at the same time, each on a thread of its own, all on the client's CPU.

use super::exchange::{self, Exchange, Load};
use super::in_place::TIMEOUT;
use crate::machine::{Pinned, Seats};
use crate::plan::Round;
use crate::work::{Work, number, put_number};
use anyhow::{Context, Result, ensure};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Calls in a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Of all clients.
    pub(crate) total: f64,
    /// Of the slowest client.
    pub(crate) least: f64,
    /// What each would have if all had the same.
    pub(crate) fair: f64,
}

/// Runs `count` clients, which `open` makes on their threads.
pub(crate) fn rates<E: Exchange>(
    round: &Round,
    seats: Seats,
    load: Load,
    count: usize,
    open: impl Fn(usize) -> Result<E> + Sync,
) -> Result<Rates> {
    let calls: Vec<Calls> = (0..count).map(|_| Calls::default()).collect();
    let stop = AtomicBool::new(false);
    let (ready, all_ready) = channel();
    // Clients that call already take their CPU from those that are still about to connect.
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        let closed = gate.write();
        let threads: Vec<_> = (calls.iter().enumerate())
            .map(|(index, calls)| {
                let (ready, gate, stop, open) = (ready.clone(), &gate, &stop, &open);
                scope.spawn(move || -> Result<()> {
                    let mut system = open(index)?;
                    let _pinned = Pinned::to(seats.client)?;
                    start(&mut system, load, &ready)?;
                    drop(gate.read());
                    client(system, load, calls, stop)
                })
            })
            .collect();
        // What the threads have is what is left.
        drop(ready);
        let are_ready = wait_for(count, &all_ready);
        drop(closed);
        let measured = are_ready.and_then(|()| measure(round.budget, &calls));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a client's thread does not panic")?;
        }
        measured
    })
}

/// A client's calls so far, in a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Calls(AtomicU64);

impl Calls {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Touches each page.
fn start<E: Exchange>(system: &mut E, load: Load, ready: &Sender<()>) -> Result<()> {
    call(system, load, 0)?;
    ready.send(()).context("the measuring thread")
}

fn wait_for(clients: usize, ready: &Receiver<()>) -> Result<()> {
    for _ in 0..clients {
        // The client that could not start says why.
        ready.recv_timeout(TIMEOUT).context("a client did not start")?;
    }
    Ok(())
}

fn client<E: Exchange>(mut system: E, load: Load, calls: &Calls, stop: &AtomicBool) -> Result<()> {
    for seed in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        call(&mut system, load, seed)?;
        calls.0.store(seed, Ordering::Relaxed);
    }
    Ok(())
}

#[inline]
fn call<E: Exchange>(system: &mut E, load: Load, seed: u64) -> Result<()> {
    if let Work::Increment = load.work {
        let response = system.exchange(|bytes| put_number(bytes, seed), number)?;
        ensure!(response == Some(seed + 1), "{seed} was answered by {response:?}");
    } else {
        std::hint::black_box(exchange::frame(system, seed)?);
    }
    Ok(())
}

fn measure(budget: Duration, calls: &[Calls]) -> Result<Rates> {
    let opened = Instant::now();
    // All have begun at the same moment, and not every one has had its turn.
    while calls.iter().any(|calls| calls.count() == 0) && opened.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(budget / 5);
    let counts = || -> Vec<u64> { calls.iter().map(Calls::count).collect() };
    let (before, start) = (counts(), Instant::now());
    // Threads that spin take turns of milliseconds on their CPU: time for some turns of each.
    let window = budget.max(budget * calls.len() as u32 / 12);
    let called = loop {
        std::thread::sleep(window);
        let called: Vec<u64> = counts().iter().zip(&before).map(|(now, then)| now - then).collect();
        // On a busy machine nobody may have had a turn yet.
        if called.iter().any(|calls| *calls > 0) {
            break called;
        }
        ensure!(start.elapsed() < TIMEOUT, "no client has made a call");
    };
    let seconds = start.elapsed().as_secs_f64();
    let per_second = |calls: u64| calls as f64 / seconds;
    let total = per_second(called.iter().sum());
    let least = per_second(called.iter().copied().min().unwrap_or_default());
    Ok(Rates { total, least, fair: total / calls.len() as f64 })
}
