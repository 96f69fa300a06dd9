//! Rounds, batches and histograms.

use crate::figures::{Figure, Latency, Plan};
use crate::machine::{Machine, Seats};
use crate::report::{self, NotMeasured, Report};
use anyhow::{Context, Error, Result};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// How much time the figures get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    rounds: u32,
    /// For each thing in each round.
    budget: Duration,
    /// For each latency distribution.
    latency: Duration,
}

impl Effort {
    pub(crate) fn new(quick: bool, rounds: Option<u32>) -> Self {
        let millis = Duration::from_millis;
        let (usual, budget, latency) =
            if quick { (7, millis(50), millis(200)) } else { (11, millis(200), millis(2000)) };
        Self { rounds: rounds.unwrap_or(usual), budget, latency }
    }
}

/// One turn of one thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) budget: Duration,
    pub(crate) seats: Option<Seats>,
}

impl Round {
    /// Where both ends go.
    pub(crate) fn seats(&self) -> Result<Seats> {
        self.seats.context("two CPUs are needed")
    }
}

/// Measures everything in `plan` that can be: limit and figure in turn, round for round.
pub(crate) fn run(plan: &Plan, effort: Effort, machine: Machine) -> Result<Report> {
    let seats = machine.seats;
    let mut not_measured = plan.left_out();
    let (figures, no_seat): (Vec<_>, Vec<_>) =
        plan.figures.iter().partition(|figure| seats.is_some() || !figure.two_cpus);
    let latencies = if seats.is_some() { plan.latencies.as_slice() } else { &[] };
    not_measured.extend(no_seat.iter().map(|figure| NotMeasured::needs_two_cpus(figure.id)));

    let steps = figures.len() * effort.rounds as usize + latencies.len();
    let progress = progress(steps as u64)?;
    let mut measured: Vec<Measured<'_>> = figures.into_iter().map(Measured::new).collect();
    let round = Round { budget: effort.budget, seats };
    for _ in 0..effort.rounds {
        for one in &mut measured {
            progress.set_message(one.figure.name);
            one.turn(&round);
            progress.inc(1);
        }
    }
    let round = Round { budget: effort.latency, seats };
    let mut distributions = Vec::new();
    for Latency { id, name, subject } in latencies {
        progress.set_message(*name);
        match subject(&round) {
            Ok(histogram) => distributions.push(report::Distribution::of(id, name, &histogram)),
            Err(error) => not_measured.push(NotMeasured::failed(id, &error)),
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let figures = measured.iter().filter_map(Measured::report).collect();
    not_measured.extend(measured.iter().filter_map(Measured::failure));
    Ok(Report::new(machine, figures, distributions, not_measured))
}

/// The bar is drawn on a terminal only.
fn progress(steps: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}/{duration} {msg}")?;
    Ok(ProgressBar::new(steps).with_style(style))
}

/// What the rounds of one figure have given so far.
struct Measured<'p> {
    figure: &'p Figure,
    values: Vec<f64>,
    limits: Vec<f64>,
    /// After this nothing more is tried.
    error: Option<Error>,
}

impl<'p> Measured<'p> {
    fn new(figure: &'p Figure) -> Self {
        Self { figure, values: Vec::new(), limits: Vec::new(), error: None }
    }

    fn turn(&mut self, round: &Round) {
        if self.error.is_none() {
            self.error = self.try_turn(round).err();
        }
    }

    fn try_turn(&mut self, round: &Round) -> Result<()> {
        let Figure { id, limit, subject, .. } = self.figure;
        if let Some(limit) = limit {
            self.limits.push((limit.subject)(round).context(limit.id)?);
        }
        self.values.push(subject(round).context(*id)?);
        Ok(())
    }

    fn report(&self) -> Option<report::Figure> {
        let figure = || report::Figure::of(self.figure, &self.values, &self.limits);
        self.error.is_none().then(figure).flatten()
    }

    fn failure(&self) -> Option<NotMeasured> {
        self.error.as_ref().map(|error| NotMeasured::failed(self.figure.id, error))
    }
}

/// Nanoseconds of one operation; `batch` does as many as it is told.
///
/// The operations run in batches of about a millisecond, and the median of the batches counts: what
/// the machine does elsewhere for a few milliseconds does not.
pub(crate) fn per_operation(
    budget: Duration,
    mut batch: impl FnMut(u64) -> Result<()>,
) -> Result<f64> {
    let length = (budget / 20).min(Duration::from_millis(1));
    let warm = Instant::now();
    let mut count = 1;
    // Warm up for a while, and on the way find how many operations fill a batch.
    loop {
        let start = Instant::now();
        batch(count)?;
        if start.elapsed() < length {
            count *= 2;
        } else if warm.elapsed() >= budget / 5 {
            break;
        }
    }
    let mut batches = Vec::new();
    let first = Instant::now();
    while batches.is_empty() || first.elapsed() < budget {
        let start = Instant::now();
        batch(count)?;
        batches.push(start.elapsed().as_nanos() as f64 / count as f64);
    }
    let summary = crate::stats::Summary::of(&batches).context("no batch was run")?;
    Ok(summary.median)
}

/// Latencies in nanoseconds. Each has the two looks at the clock in it, so they are not for
/// comparison with [`per_operation`].
pub(crate) fn histogram(
    budget: Duration,
    mut operation: impl FnMut() -> Result<()>,
) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let warm = Instant::now();
    while warm.elapsed() < budget / 10 {
        operation()?;
    }
    let first = Instant::now();
    let mut start = first;
    loop {
        operation()?;
        let end = Instant::now();
        histogram.saturating_record((end - start).as_nanos() as u64);
        if end - first > budget {
            return Ok(histogram);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_operation_is_found() {
        let pause = Duration::from_micros(200);
        let ns = per_operation(Duration::from_millis(20), |count| {
            (0..count).for_each(|_| std::thread::sleep(pause));
            Ok(())
        });
        let ns = ns.unwrap();
        assert!(ns >= 200_000.0, "{ns}");
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let result = per_operation(Duration::from_millis(20), |_| anyhow::bail!("broken"));
        assert_eq!(result.unwrap_err().to_string(), "broken");
    }

    #[test]
    fn every_operation_is_in_the_histogram() {
        let mut count = 0;
        let histogram = histogram(Duration::from_millis(10), || {
            count += 1;
            std::thread::sleep(Duration::from_micros(100));
            Ok(())
        });
        let histogram = histogram.unwrap();
        assert!((1..=count).contains(&histogram.len()));
        assert!(histogram.min() >= 100_000);
    }
}
