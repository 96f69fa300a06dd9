//! How late the machine itself is: what a thread sees that only sleeps, on each CPU.
//!
//! A call that is back after its deadline is the library's fault, unless nobody could run at that
//! moment. These threads tell the difference: they sleep for some milliseconds and note how much later
//! they were woken. Who is late is granted what they were late at the same time.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const STEP: Duration = Duration::from_millis(4);
/// Samples kept: some seconds.
const KEPT: usize = 2000;

/// Nanoseconds of the monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[derive(Debug, Default)]
struct Samples {
    /// When a sleep ended, and how late; nanoseconds.
    ended: VecDeque<(u64, u64)>,
    /// When the present sleep began.
    began: u64,
}

/// Measures until the process ends.
#[derive(Debug, Clone)]
pub(crate) struct Delay(Vec<Arc<Mutex<Samples>>>);

impl Delay {
    pub(crate) fn measure() -> Self {
        let usable = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu));
        Self(cpus.take(8).map(measure_on).collect())
    }

    /// The longest delay that was noticed since `since`, or that is going on.
    pub(crate) fn since(&self, since: u64) -> Duration {
        let worst = self.0.iter().map(|samples| {
            let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = samples.ended.iter().rev().take_while(|(at, _)| *at >= since);
            let present = late(samples.began, now());
            ended.map(|(_, late)| *late).max().unwrap_or(0).max(present)
        });
        Duration::from_nanos(worst.max().unwrap_or(0))
    }
}

fn late(began: u64, ended: u64) -> u64 {
    ended.saturating_sub(began).saturating_sub(STEP.as_nanos() as u64)
}

fn measure_on(cpu: usize) -> Arc<Mutex<Samples>> {
    let samples = Arc::new(Mutex::new(Samples { began: now(), ..Samples::default() }));
    let mine = Arc::clone(&samples);
    std::thread::spawn(move || {
        let mut only = CpuSet::new();
        only.set(cpu);
        let _ = sched_setaffinity(None, &only);
        loop {
            let began = now();
            mine.lock().unwrap_or_else(PoisonError::into_inner).began = began;
            std::thread::sleep(STEP);
            let ended = now();
            let mut samples = mine.lock().unwrap_or_else(PoisonError::into_inner);
            samples.ended.push_back((ended, late(began, ended)));
            if samples.ended.len() > KEPT {
                samples.ended.pop_front();
            }
        }
    });
    samples
}
