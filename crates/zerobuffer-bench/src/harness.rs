//! Rounds: everything in turn, round for round.

use crate::limits;
use crate::machine::{Machine, Seats};
use crate::plan::{Chart, Distance, Figure, Latency, Plan, Round, Series, SharedPoint, Subject};
use crate::report::{self, NotMeasured, Report};
use anyhow::{Context, Error, Result};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How much time the figures get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    rounds: u32,
    /// For each thing in each round.
    budget: Duration,
    /// The same for a latency distribution, and for a point of a chart.
    latency: Duration,
    point: Duration,
    chart_rounds: u32,
    /// Points of charts beyond this are left out.
    largest: f64,
}

impl Effort {
    pub(crate) fn new(quick: bool, rounds: Option<u32>) -> Self {
        let millis = Duration::from_millis;
        let usual = if quick {
            Self {
                rounds: 3,
                budget: millis(20),
                latency: millis(50),
                point: millis(10),
                chart_rounds: 1,
                largest: f64::from(1 << 23),
            }
        } else {
            Self {
                rounds: 9,
                budget: millis(150),
                latency: millis(250),
                point: millis(60),
                chart_rounds: 7,
                largest: f64::INFINITY,
            }
        };
        let Self { rounds: all, chart_rounds, .. } = usual;
        let (rounds, chart_rounds) = (rounds.unwrap_or(all), rounds.unwrap_or(chart_rounds));
        Self { rounds, chart_rounds, ..usual }
    }
}

/// Measures everything in `plan` that can be: everything in turn, round for round.
pub(crate) fn run(plan: &Plan, effort: Effort, machine: Machine) -> Result<Report> {
    let mut session = Session::new(plan, effort, machine.seats)?;
    for number in 0..effort.rounds.max(effort.chart_rounds) {
        session.round(number);
    }
    Ok(session.report(machine))
}

/// A run that is going on.
struct Session<'p> {
    effort: Effort,
    seats: Option<Seats>,
    figures: Vec<Measured<'p>>,
    latencies: Vec<Distribution<'p>>,
    charts: Vec<Drawn<'p>>,
    not_measured: Vec<NotMeasured>,
    progress: ProgressBar,
}

impl<'p> Session<'p> {
    fn new(plan: &'p Plan, effort: Effort, seats: Option<Seats>) -> Result<Self> {
        let (figures, no_seat): (Vec<_>, Vec<_>) =
            plan.figures.iter().partition(|figure| seats.is_some() || !figure.two_cpus);
        let mut not_measured: Vec<_> =
            no_seat.iter().map(|figure| NotMeasured::needs_two_cpus(figure.id)).collect();
        let mut latencies: Vec<_> = plan.latencies.iter().map(Distribution::new).collect();
        let mut charts: Vec<_> =
            plan.charts.iter().map(|chart| Drawn::new(chart, plan, effort.largest)).collect();
        if seats.is_none() {
            let ids = latencies.drain(..).map(|latency| latency.latency.id);
            let ids = ids.chain(charts.drain(..).map(|chart| chart.chart.id));
            not_measured.extend(ids.map(NotMeasured::needs_two_cpus));
        }
        let figures: Vec<_> = figures.into_iter().map(Measured::new).collect();
        let points: usize = charts.iter().map(Drawn::points).sum();
        let steps = effort.rounds as usize * figures.len()
            + effort.chart_rounds as usize * (points + latencies.len());
        let progress = progress(steps as u64)?;
        Ok(Self { effort, seats, figures, latencies, charts, not_measured, progress })
    }

    fn round(&mut self, number: u32) {
        let Effort { budget, latency, point, rounds, chart_rounds, .. } = self.effort;
        let round = |budget| Round { budget, seats: self.seats };
        if number < rounds {
            for index in 0..self.figures.len() {
                let known = self.known(index);
                let figure = &mut self.figures[index];
                self.progress.set_message(figure.figure.name);
                figure.turn(&round(budget), known);
                self.progress.inc(1);
            }
        }
        let progress = &self.progress;
        if number < chart_rounds {
            for distribution in &mut self.latencies {
                progress.set_message(distribution.latency.name.clone());
                distribution.turn(&round(latency));
                progress.inc(1);
            }
            for chart in &mut self.charts {
                progress.set_message(chart.chart.name);
                chart.turn(&round(point), progress);
            }
        }
    }

    /// This round's value of figure `index`, if another one with the same subject has it.
    fn known(&self, index: usize) -> Option<f64> {
        let same = self.figures[index].figure.same_as?;
        let other = self.figures[..index].iter().find(|other| other.figure.id == same)?;
        other.values.get(self.figures[index].values.len()).copied()
    }

    /// Has points that are figures as well show the figures' values.
    fn share(&mut self) {
        for chart in &mut self.charts {
            for line in &mut chart.lines {
                for (_, source, values) in &mut line.points {
                    let Source::Figure(id) = source else { continue };
                    let figure = self.figures.iter().find(|figure| figure.figure.id == *id);
                    *values = figure.map(|figure| figure.values.clone()).unwrap_or_default();
                }
            }
        }
    }

    fn report(mut self, machine: Machine) -> Report {
        self.progress.finish_and_clear();
        self.share();
        let failures = self.figures.iter().filter_map(Measured::failure);
        let failures = failures.chain(self.latencies.iter().filter_map(Distribution::failure));
        let failures = failures.chain(self.charts.iter().flat_map(Drawn::failures));
        self.not_measured.extend(failures);
        Report::new(
            machine,
            self.figures.iter().filter_map(Measured::report).collect(),
            self.latencies.iter().filter_map(Distribution::report).collect(),
            self.charts.iter().map(Drawn::report).collect(),
            self.not_measured,
        )
    }
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
    /// Of those whose conditions make it matter.
    distances: Vec<Distance>,
    /// After this nothing more is tried.
    error: Option<Error>,
}

impl<'p> Measured<'p> {
    fn new(figure: &'p Figure) -> Self {
        Self { figure, values: Vec::new(), limits: Vec::new(), distances: Vec::new(), error: None }
    }

    fn turn(&mut self, round: &Round, known: Option<f64>) {
        if self.error.is_none() {
            self.error = self.try_turn(round, known).err();
        }
    }

    fn try_turn(&mut self, round: &Round, known: Option<f64>) -> Result<()> {
        let Figure { limit, subject, conditions, .. } = self.figure;
        if conditions.depend_on_distance() {
            self.distances.push(limits::distance(round)?);
        }
        if let Some(limit) = limit {
            self.limits.push((limit.subject)(round).context(limit.name)?);
        }
        self.values.push(known.map_or_else(|| subject(round), Ok)?);
        Ok(())
    }

    fn report(&self) -> Option<report::Figure> {
        let figure =
            || report::Figure::of(self.figure, &self.values, &self.limits, &self.distances);
        self.error.is_none().then(figure).flatten()
    }

    fn failure(&self) -> Option<NotMeasured> {
        self.error.as_ref().map(|error| NotMeasured::failed(self.figure.id, error))
    }
}

/// One latency distribution so far, all rounds together.
struct Distribution<'p> {
    latency: &'p Latency,
    histogram: Option<Histogram<u64>>,
    /// After this nothing more is tried.
    error: Option<Error>,
}

impl<'p> Distribution<'p> {
    fn new(latency: &'p Latency) -> Self {
        Self { latency, histogram: None, error: None }
    }

    fn turn(&mut self, round: &Round) {
        if self.error.is_none() {
            self.error = self.try_turn(round).err();
        }
    }

    fn try_turn(&mut self, round: &Round) -> Result<()> {
        let new = (self.latency.subject)(round).with_context(|| self.latency.name.clone())?;
        match &mut self.histogram {
            Some(histogram) => histogram.add(new)?,
            none => *none = Some(new),
        }
        Ok(())
    }

    fn report(&self) -> Option<report::Distribution> {
        let Latency { id, name, .. } = self.latency;
        let histogram = self.histogram.as_ref().filter(|_| self.error.is_none())?;
        Some(report::Distribution::of(id, name, histogram))
    }

    fn failure(&self) -> Option<NotMeasured> {
        self.error.as_ref().map(|error| NotMeasured::failed(self.latency.id, error))
    }
}

/// One chart so far.
struct Drawn<'p> {
    chart: &'p Chart,
    lines: Vec<Line<'p>>,
}

/// Where the values of a point come from.
enum Source<'p> {
    Subject(&'p Subject),
    Figure(&'static str),
}

/// One series of it.
struct Line<'p> {
    series: &'p Series,
    points: Vec<(f64, Source<'p>, Vec<f64>)>,
    /// After this nothing more is tried.
    error: Option<Error>,
}

impl<'p> Drawn<'p> {
    fn new(chart: &'p Chart, plan: &Plan, largest: f64) -> Self {
        let measured = |figure: &str| plan.figures.iter().any(|measured| measured.id == figure);
        let shared = |series: &str, x: f64| {
            let is_it = |point: &&SharedPoint| {
                point.chart == chart.id && point.series == series && point.x == x
            };
            plan.shared.iter().find(is_it).map(|point| point.figure).filter(|id| measured(id))
        };
        let line = |series: &'p Series| {
            let source = |x, subject| match shared(&series.name, x) {
                Some(figure) => Source::Figure(figure),
                None => Source::Subject(subject),
            };
            let points = series.points.iter().filter(|(x, _)| *x <= largest);
            let points = points.map(|(x, subject)| (*x, source(*x, subject), Vec::new())).collect();
            Line { series, points, error: None }
        };
        Self { chart, lines: chart.series.iter().map(line).collect() }
    }

    fn points(&self) -> usize {
        self.lines.iter().map(|line| line.points.len()).sum()
    }

    /// Point for point, each with all systems in turn.
    fn turn(&mut self, round: &Round, progress: &ProgressBar) {
        let longest = self.lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
        for index in 0..longest {
            for line in &mut self.lines {
                if index < line.points.len() {
                    line.turn(index, round);
                    progress.inc(1);
                }
            }
        }
    }

    fn report(&self) -> report::Chart {
        let series = self.lines.iter().filter(|line| line.error.is_none()).map(|line| {
            let values = line.points.iter().map(|(x, _, values)| (*x, values.as_slice()));
            report::Series::of(&line.series.name, values)
        });
        report::Chart::of(self.chart, series.collect())
    }

    fn failures(&self) -> impl Iterator<Item = NotMeasured> {
        let failures = self.lines.iter().filter_map(|line| line.error.as_ref());
        failures.map(|error| NotMeasured::failed(self.chart.id, error))
    }
}

impl Line<'_> {
    fn turn(&mut self, index: usize, round: &Round) {
        if self.error.is_none() {
            let (_, source, values) = &mut self.points[index];
            let Source::Subject(subject) = source else { return };
            match subject(round).with_context(|| self.series.name.clone()) {
                Ok(value) => values.push(value),
                Err(error) => self.error = Some(error),
            }
        }
    }
}
