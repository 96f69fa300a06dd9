//! L1 to L5: what the machine allows, measured by the same harness as everything else.

use crate::machine::Pinned;
use crate::peer::{Peer, answer_until_told};
use crate::plan::{Distance, Round};
use crate::shared::{Patience, Semaphores, Shared, Side};
use crate::timing::per_operation;
use crate::work::{self, FRAME};
use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The peer's role in L1.
pub(crate) const LINE: &str = "line";
/// The peer's role in L2.
pub(crate) const SEMAPHORES: &str = "semaphores";

/// What the peer of L1 needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LineSpec {
    fd: i32,
    pause: Pause,
}

/// What one does between two loads of a line. What is fastest depends on the machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pause {
    Nothing,
    /// The instruction that is made for it, which takes anything from 10 to 150 cycles.
    Hint,
    /// A full fence, about 20 cycles on x86.
    Fence,
}

/// L1 for a short time: how far the two CPUs are from each other at this moment.
pub(crate) fn distance(round: &Round) -> Result<Distance> {
    line_with(&Round { budget: round.budget / 20, ..*round }, Pause::Nothing).map(Distance::of)
}

/// L1: two processes hand one cache line back and forth. Each round tries all pauses, and counts the
/// fastest one.
pub(crate) fn line(round: &Round) -> Result<f64> {
    let third = Round { budget: round.budget / 3, ..*round };
    let mut best = f64::INFINITY;
    for pause in [Pause::Nothing, Pause::Hint, Pause::Fence] {
        best = best.min(line_with(&third, pause)?);
    }
    Ok(best)
}

fn line_with(round: &Round, pause: Pause) -> Result<f64> {
    let seats = round.seats()?;
    let line = Line { memory: Shared::create(4096)?, pause };
    let spec = LineSpec { fd: line.memory.fd(), pause };
    let peer = Peer::start(LINE, &spec, seats.server)?;
    let _pinned = Pinned::to(seats.client)?;
    let mut value = 0;
    let ns = per_operation(round.budget, |count| {
        for _ in 0..count {
            value += 2;
            if !line.round_trip(value) {
                bail!("the peer of L1 does not answer");
            }
        }
        Ok(())
    });
    drop(peer);
    ns
}

/// One cache line: even numbers are the client's, odd ones the peer's answers.
#[derive(Debug)]
struct Line {
    memory: Shared,
    pause: Pause,
}

/// Turns until the test stops waiting for a peer: seconds, not milliseconds.
const HOPELESS: u64 = 1 << 33;

/// The peer's end of L1.
pub(crate) fn serve_line(spec: LineSpec, cpu: usize) -> Result<()> {
    let line = Line { memory: Shared::inherit(spec.fd)?, pause: spec.pause };
    answer_until_told(cpu, move || line.answer())
}

impl Line {
    #[inline]
    fn round_trip(&self, value: u64) -> bool {
        let word = self.memory.word();
        // Release and Acquire, as any protocol on such a line needs.
        word.store(value, Ordering::Release);
        for _ in 0..HOPELESS {
            if word.load(Ordering::Acquire) == value + 1 {
                return true;
            }
            self.pause();
        }
        false
    }

    /// The peer's side, for ever.
    fn answer(&self) {
        let word = self.memory.word();
        let mut expected = 2;
        loop {
            while word.load(Ordering::Acquire) != expected {
                self.pause();
            }
            word.store(expected + 1, Ordering::Release);
            expected += 2;
        }
    }

    #[inline]
    fn pause(&self) {
        match self.pause {
            Pause::Nothing => {}
            Pause::Hint => spin_loop(),
            Pause::Fence => fence(Ordering::SeqCst),
        }
    }
}

/// L2: two semaphores, no spinning.
pub(crate) fn parked(round: &Round) -> Result<f64> {
    let seats = round.seats()?;
    let semaphores = Semaphores::create()?;
    let peer = Peer::start(SEMAPHORES, &semaphores.fd(), seats.server)?;
    let _pinned = Pinned::to(seats.client)?;
    let ns = per_operation(round.budget, |count| {
        let patience = Patience::seconds(20);
        for _ in 0..count {
            semaphores.post(Side::Ping);
            ensure!(semaphores.wait(Side::Pong, &patience), "the peer of L2 does not answer");
        }
        Ok(())
    });
    drop(peer);
    ns
}

/// The peer's end of L2, with the descriptor's number in the parent.
pub(crate) fn serve_semaphores(fd: i32, cpu: usize) -> Result<()> {
    let semaphores = Semaphores::inherit(fd)?;
    answer_until_told(cpu, move || {
        loop {
            let patience = Patience::seconds(20);
            while semaphores.wait(Side::Ping, &patience) {
                semaphores.post(Side::Pong);
            }
        }
    })
}

/// As in a channel: the data starts a cache line after the page.
const OFFSET: usize = 64;
/// Ends the second thread of L5.
const DONE: u64 = u64::MAX;

/// L3: fill, invert and read one frame in process, on one thread, in the same kind of memory.
pub(crate) fn in_process(round: &Round) -> Result<f64> {
    let _pinned = round.seats.map(|seats| Pinned::to(seats.client)).transpose()?;
    let mut memory = Shared::create(OFFSET + FRAME)?;
    let frame = &mut memory.bytes_mut()[OFFSET..];
    let mut seed = 0;
    per_operation(round.budget, |count| {
        for _ in 0..count {
            seed += 1;
            work::fill(frame, seed);
            work::invert(frame);
            black_box(work::read(frame));
        }
        Ok(())
    })
}

/// L5: the same, but a second thread inverts, on the other CPU; one flag says whose turn it is. What moving
/// the bytes between the two CPUs costs without any channel.
pub(crate) fn two_threads(round: &Round) -> Result<f64> {
    let seats = round.seats()?;
    let memory = Mutex::new(Shared::create(OFFSET + FRAME)?);
    let flag = Shared::create(4096)?;
    std::thread::scope(|scope| {
        let (memory, turn) = (&memory, flag.word());
        let other = scope.spawn(move || -> Result<()> {
            let _pinned = Pinned::to(seats.server)?;
            // Pairs with the Release of the filling thread; so do the two below with each other.
            while let number = turn.load(Ordering::Acquire)
                && number != DONE
            {
                if number % 2 == 0 {
                    spin_loop();
                    continue;
                }
                // Never contended: the flag says whose it is.
                work::invert(&mut lock(memory).bytes_mut()[OFFSET..]);
                turn.store(number + 1, Ordering::Release);
            }
            Ok(())
        });
        let measured = Pinned::to(seats.client).and_then(|_pinned| {
            let mut number = 0;
            per_operation(round.budget, |count| {
                for _ in 0..count {
                    work::fill(&mut lock(memory).bytes_mut()[OFFSET..], number);
                    turn.store(number + 1, Ordering::Release);
                    number += 2;
                    while turn.load(Ordering::Acquire) != number {
                        ensure!(!other.is_finished(), "the second thread of L5 has ended");
                        spin_loop();
                    }
                    black_box(work::read(&lock(memory).bytes_mut()[OFFSET..]));
                }
                Ok(())
            })
        });
        turn.store(DONE, Ordering::Release);
        other.join().expect("the second thread does not panic")?;
        measured
    })
}

fn lock(memory: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// L4: gigabytes per second of memcpy between two buffers of `LEN` bytes.
pub(crate) fn memcpy<const LEN: usize>(round: &Round) -> Result<f64> {
    let _pinned = round.seats.map(|seats| Pinned::to(seats.client)).transpose()?;
    let (mut from, mut to) = (Shared::create(LEN)?, Shared::create(LEN)?);
    let (from, to) = (from.bytes_mut(), to.bytes_mut());
    from.fill(1);
    let ns = per_operation(round.budget, |count| {
        for _ in 0..count {
            black_box(&mut *to).copy_from_slice(black_box(&*from));
        }
        Ok(())
    })?;
    Ok(LEN as f64 / ns)
}
