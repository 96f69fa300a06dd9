//! What was seen, and the verdict.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Violations that are kept word by word.
const KEPT: usize = 50;

/// Filled by all lanes.
#[derive(Debug)]
pub(crate) struct Report {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    counts: BTreeMap<String, u64>,
    /// In nanoseconds.
    times: BTreeMap<&'static str, Histogram<u64>>,
    violations: Vec<String>,
    broken: u64,
    excused: Vec<Lateness>,
    finished: bool,
    shown: Duration,
}

/// Something that was late when the machine itself was.
#[derive(Debug, Clone, Serialize)]
struct Lateness {
    what: String,
    ms: f64,
    /// How late the machine was at that moment.
    machine_ms: f64,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            counts: BTreeMap::new(),
            times: BTreeMap::new(),
            violations: Vec::new(),
            broken: 0,
            excused: Vec::new(),
            finished: false,
            shown: Duration::ZERO,
        };
        Self { seed, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise was broken.
    pub(crate) fn violation(&self, text: &str) {
        eprintln!("VIOLATION (seed {}): {text}", self.seed);
        let mut state = self.state();
        state.broken += 1;
        if state.violations.len() < KEPT {
            state.violations.push(text.to_owned());
        }
    }

    /// Adds to a count.
    pub(crate) fn count(&self, what: &str, amount: u64) {
        *self.state().counts.entry(what.to_owned()).or_default() += amount;
    }

    /// Notes a time in nanoseconds.
    pub(crate) fn record(&self, what: &'static str, ns: u64) {
        let mut state = self.state();
        let times = state.times.entry(what).or_insert_with(|| {
            Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("bounds in their order")
        });
        times.saturating_record(ns);
    }

    /// Something was late, and the machine as well.
    pub(crate) fn late(&self, by: u64, machine: u64, what: &str) {
        let ms = |ns: u64| ns as f64 / 1e6;
        let what = what.to_owned();
        let mut state = self.state();
        if state.excused.len() < KEPT {
            state.excused.push(Lateness { what, ms: ms(by), machine_ms: ms(machine) });
        }
        *state.counts.entry("late with the machine".to_owned()).or_default() += 1;
    }

    /// The lanes have come to their end.
    pub(crate) fn finish(&self) {
        self.state().finished = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state().finished
    }

    /// A line every ten seconds.
    pub(crate) fn show_progress(&self, elapsed: Duration) {
        let mut state = self.state();
        if elapsed < state.shown + Duration::from_secs(10) {
            return;
        }
        state.shown = elapsed;
        let count = |what: &str| state.counts.get(what).copied().unwrap_or(0);
        println!(
            "{:>5} s: {} kills, {} answers, {} violations",
            elapsed.as_secs(),
            count("kills"),
            count("answered"),
            state.broken
        );
    }

    pub(crate) fn summary(&self, elapsed: Duration) -> Summary {
        let state = self.state();
        let times = state.times.iter().map(|(what, times)| ((*what).to_owned(), Times::of(times)));
        Summary {
            seed: self.seed,
            seconds: elapsed.as_secs_f64(),
            counts: state.counts.clone(),
            times: times.collect(),
            violations: state.broken,
            first_violations: state.violations.clone(),
            late_with_the_machine: state.excused.clone(),
        }
    }
}

/// In milliseconds.
#[derive(Debug, Serialize)]
struct Times {
    samples: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

impl Times {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            samples: times.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: times.max() as f64 / 1e6,
        }
    }
}

/// The figures of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    seed: u64,
    seconds: f64,
    counts: BTreeMap<String, u64>,
    times: BTreeMap<String, Times>,
    violations: u64,
    first_violations: Vec<String>,
    late_with_the_machine: Vec<Lateness>,
}

impl Summary {
    /// Whether every promise was kept, and something was done at all.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations == 0 && self.counts.get("answered").is_some_and(|count| *count > 0)
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after {:.0} s with seed {}:", self.seconds, self.seed)?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12} {what}")?;
        }
        for (what, times) in &self.times {
            let Times { samples, p50_ms, p99_ms, p999_ms, max_ms } = times;
            writeln!(
                f,
                "{what} ({samples} times): p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, \
                 p99.9 {p999_ms:.2} ms, max {max_ms:.2} ms"
            )?;
        }
        for late in &self.late_with_the_machine {
            let Lateness { what, ms, machine_ms } = late;
            writeln!(f, "{what} came {ms:.0} ms late, as did the machine ({machine_ms:.0} ms)")?;
        }
        write!(f, "{} violations", self.violations)
    }
}
