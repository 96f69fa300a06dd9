//! What a command says: text for people or JSON for programs, latencies, progress.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where a command's words go.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    /// Standard output carries data, so words go to standard error.
    to_stderr: std::cell::Cell<bool>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, to_stderr: std::cell::Cell::new(false) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Leaves standard output to the data.
    pub(crate) fn keep_off_stdout(&self) {
        self.to_stderr.set(true);
    }

    /// One result: a line of JSON, or `text`.
    pub(crate) fn result(
        &self,
        record: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut line = if self.json { to_json(record)? } else { text() };
        line.push('\n');
        if self.to_stderr.get() {
            write_stderr(&line);
            Ok(())
        } else {
            write_stdout(line.as_bytes())
        }
    }

    /// What a person should know beside the results; programs find it in these.
    pub(crate) fn notes(&self, notes: &[String]) {
        if !self.json {
            notes.iter().for_each(|note| write_stderr(&format!("note: {note}\n")));
        }
    }

    /// An error; as JSON it is the command's result.
    pub(crate) fn failure(&self, failure: &Failure) {
        let in_words = || {
            let hint = failure.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            format!("error: {}{}", failure.message, hint.unwrap_or_default())
        };
        if self.json {
            // There is nobody left to tell if this fails too.
            let _ = self.result(&failure.record(), in_words);
        } else {
            write_stderr(&(in_words() + "\n"));
        }
    }
}

fn to_json(record: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(record).map_err(|error| Failure::system(error.to_string()))
}

/// Writes to standard output. A reader that has seen enough and closed its end is no error.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::file("write", Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error; quietly does nothing if that is closed.
pub(crate) fn write_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A distribution of times.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// A distribution of times as `--json` shows it, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyRecord {
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        // From 1 ns to a quarter of an hour, to three digits: always a possible histogram.
        Self(Histogram::new_with_bounds(1, 1 << 40, 3).expect("bounds and digits are constants"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes in all times of another distribution.
    pub(crate) fn add(&mut self, other: &Self) {
        // The bounds of both are the same.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    pub(crate) fn to_record(&self) -> LatencyRecord {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        LatencyRecord {
            min: micros(self.0.min()),
            p50: micros(self.0.value_at_quantile(0.5)),
            p99: micros(self.0.value_at_quantile(0.99)),
            max: micros(self.0.max()),
        }
    }
}

/// A bar on standard error, if that is a terminal and the work takes longer than half a second.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_millis(500);

    pub(crate) fn new(what: &'static str, steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self { bar, start: Instant::now(), shown: false }
    }

    /// One step is done.
    pub(crate) fn step(&mut self) {
        if !self.shown && self.start.elapsed() > Self::PATIENCE {
            self.shown = true;
            // Draws nothing where standard error is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A time with a unit that suits it.
pub(crate) fn time(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.0} ns"),
        _ if nanos < 1e6 => format!("{:.1} µs", nanos / 1e3),
        _ if nanos < 1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}

/// A number with its digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The checksum of a response.
pub(crate) fn checksum(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        assert_eq!(time(Duration::from_nanos(85)), "85 ns");
        assert_eq!(time(Duration::from_nanos(4_200)), "4.2 µs");
        assert_eq!(time(Duration::from_micros(12_345)), "12.35 ms");
        assert_eq!(time(Duration::from_millis(1500)), "1.50 s");
    }

    #[test]
    fn quantiles_come_from_what_was_recorded() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|n| latencies.record(Duration::from_micros(n)));
        let p50 = latencies.quantile(0.5).as_micros();
        assert!((49..=51).contains(&p50), "{p50}");
        latencies.record(Duration::MAX);
        assert!(latencies.quantile(1.0) > Duration::from_secs(900));
    }
}
