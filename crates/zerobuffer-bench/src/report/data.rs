//! What a run has found out, as JSON has it.

use crate::machine::{Machine, commit, today};
use crate::plan::{self, Distance, Target, Unavailable};
use crate::stats::{Summary, ratios};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that a run has found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(super) machine: Machine,
    pub(super) commit: String,
    /// Of the day, as `date` counts.
    pub(super) date: String,
    pub(super) figures: Vec<Figure>,
    pub(super) latencies: Vec<Distribution>,
    pub(super) charts: Vec<Chart>,
    pub(super) not_measured: Vec<NotMeasured>,
}

/// One figure; `min`, `median`, `max` and `limit` are in `unit`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) unit: String,
    #[serde(flatten)]
    pub(super) value: Summary,
    pub(super) rounds: usize,
    /// Median of what the figure is divided by.
    pub(super) limit: Option<f64>,
    pub(super) limit_name: Option<String>,
    /// What the target speaks of: the median of the ratios of the rounds.
    pub(super) ratio: Option<f64>,
    pub(super) ratio_min: Option<f64>,
    pub(super) ratio_max: Option<f64>,
    pub(super) target: Option<Target>,
    /// How the two ends waited, where they ran, and whether the memory was touched before.
    #[serde(default)]
    pub(super) conditions: String,
    /// The same for each distance of the two CPUs that was met, where it matters.
    #[serde(default)]
    pub(super) distances: Vec<AtDistance>,
}

/// The rounds of a figure in which the two CPUs were that far from each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AtDistance {
    pub(super) distance: Distance,
    pub(super) rounds: usize,
    #[serde(flatten)]
    pub(super) value: Summary,
    pub(super) ratio: Option<Summary>,
    pub(super) target: Option<Target>,
}

/// One line of a table of figures.
#[derive(Debug)]
pub(super) struct Row<'r> {
    pub(super) id: &'r str,
    pub(super) name: &'r str,
    pub(super) unit: &'r str,
    pub(super) conditions: String,
    pub(super) value: Summary,
    pub(super) limit_name: &'r str,
    pub(super) ratio: Option<Summary>,
    pub(super) target: Option<Target>,
}

impl Row<'_> {
    /// The target, and whether it is met, if there is one.
    pub(super) fn verdict(&self) -> Option<(Target, bool)> {
        self.target.zip(self.ratio).map(|(target, ratio)| (target, target.is_met(ratio.median)))
    }
}

/// A latency distribution in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) count: u64,
    pub(super) min: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) p99_99: u64,
    pub(super) max: u64,
    /// Of how many calls in 1 one is slower than how many nanoseconds.
    pub(super) quantiles: Vec<(f64, u64)>,
}

/// Several systems over a range.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chart {
    pub(super) id: String,
    pub(super) name: String,
    /// What the points' `x` is; none if each series is a single value.
    pub(super) x: Option<String>,
    pub(super) unit: String,
    pub(super) series: Vec<Series>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(super) x: f64,
    #[serde(flatten)]
    pub(super) value: Summary,
    pub(super) rounds: usize,
}

impl Chart {
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    pub(crate) fn of(chart: &plan::Chart, series: Vec<Series>) -> Self {
        let (id, name) = (chart.id.to_owned(), chart.name.to_owned());
        Self { id, name, x: chart.x.map(str::to_owned), unit: chart.unit.to_owned(), series }
    }
}

impl Series {
    pub(crate) fn of<'v>(name: &str, points: impl Iterator<Item = (f64, &'v [f64])>) -> Self {
        let point = |(x, values): (f64, &[f64])| {
            Some(Point { x, value: Summary::of(values)?, rounds: values.len() })
        };
        Self { name: name.to_owned(), points: points.filter_map(point).collect() }
    }
}

/// A figure that a reader may miss.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NotMeasured {
    pub(crate) id: String,
    pub(super) reason: String,
    /// It should have been measured, and went wrong.
    #[serde(skip)]
    pub(super) failed: bool,
}

impl NotMeasured {
    pub(crate) fn new(id: &str, reason: &str) -> Self {
        Self { id: id.to_owned(), reason: reason.to_owned(), failed: false }
    }

    /// What is not available is no failure.
    pub(crate) fn failed(id: &str, error: &anyhow::Error) -> Self {
        let failed = error.downcast_ref::<Unavailable>().is_none();
        let failure = if failed { "failed: " } else { "" };
        Self { failed, ..Self::new(id, &format!("{failure}{error:#}")) }
    }

    pub(crate) fn needs_two_cpus(id: &str) -> Self {
        Self::new(id, "needs two CPUs, one for each end, and this process may use only one")
    }
}

impl Figure {
    /// `None` without values.
    pub(crate) fn of(
        figure: &plan::Figure,
        values: &[f64],
        limits: &[f64],
        distances: &[Distance],
    ) -> Option<Self> {
        let at = |distance: Distance| {
            let of = |all: &[f64]| -> Vec<f64> {
                let met = all.iter().zip(distances).filter(|(_, met)| **met == distance);
                met.map(|(value, _)| *value).collect()
            };
            let (values, limits) = (of(values), of(limits));
            let far = figure.far.filter(|_| distance == Distance::Far);
            Some(AtDistance {
                distance,
                rounds: values.len(),
                value: Summary::of(&values)?,
                ratio: Summary::of(&ratios(&values, &limits)),
                target: far.or(figure.target),
            })
        };
        let ratio = Summary::of(&ratios(values, limits));
        Some(Self {
            id: figure.id.to_owned(),
            name: figure.name.to_owned(),
            unit: figure.unit.to_owned(),
            value: Summary::of(values)?,
            rounds: values.len(),
            limit: Summary::of(limits).map(|limit| limit.median),
            limit_name: figure.limit.as_ref().map(|limit| limit.name.to_owned()),
            ratio: ratio.map(|ratio| ratio.median),
            ratio_min: ratio.map(|ratio| ratio.min),
            ratio_max: ratio.map(|ratio| ratio.max),
            target: figure.target,
            conditions: figure.conditions.text().to_owned(),
            distances: [Distance::Near, Distance::Far].into_iter().filter_map(at).collect(),
        })
    }

    /// Its lines in a table: one for each distance that was met, where that matters.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let spread = self.ratio_min.zip(self.ratio_max);
        let ratio = self.ratio.zip(spread);
        let ratio = ratio.map(|(median, (min, max))| Summary { min, median, max });
        let row = |conditions, value, ratio, target| Row {
            id: &self.id,
            name: &self.name,
            unit: &self.unit,
            conditions,
            value,
            limit_name: self.limit_name.as_deref().unwrap_or_default(),
            ratio,
            target,
        };
        if self.distances.is_empty() {
            return vec![row(self.conditions.clone(), self.value, ratio, self.target)];
        }
        let line = |at: &AtDistance| {
            let conditions = format!("{}, {}", self.conditions, at.distance.name());
            row(conditions, at.value, at.ratio, at.target)
        };
        self.distances.iter().map(line).collect()
    }
}

impl Distribution {
    pub(crate) fn of(id: &str, name: &str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            unit: "ns".to_owned(),
            count: histogram.len(),
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
            quantiles: quantiles().map(|slower| (slower, at(1.0 - slower))).collect(),
        }
    }
}

/// From one call in two to one in ten thousand, ten steps for each power of ten.
fn quantiles() -> impl Iterator<Item = f64> {
    std::iter::once(0.5).chain((4..=40).map(|step| 10_f64.powf(-f64::from(step) / 10.0)))
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        figures: Vec<Figure>,
        latencies: Vec<Distribution>,
        charts: Vec<Chart>,
        not_measured: Vec<NotMeasured>,
    ) -> Self {
        Self { machine, commit: commit(), date: today(), figures, latencies, charts, not_measured }
    }

    /// Whether something that should have been measured went wrong.
    pub(crate) fn has_failures(&self) -> bool {
        self.not_measured.iter().any(|left| left.failed)
    }

    /// What an earlier run has written.
    pub(crate) fn read_json(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no report", path.display()))
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn machine() -> Machine {
        let (cpu, kernel) = ("a CPU".to_owned(), "6.1".to_owned());
        Machine { cpu, cpus: 1, kernel, seats: None }
    }

    pub(in crate::report) fn report(values: &[f64], limits: &[f64]) -> Report {
        let figure = plan::plain("P1", "a call", "ns", |_| Ok(0.0));
        let figure = figure.over("the limit", |_| Ok(0.0)).at_most(1.5);
        let figure = Figure::of(&figure, values, limits, &[]).unwrap();
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1000).for_each(|n| histogram.record(n).unwrap());
        let latency = Distribution::of("D1", "a latency", &histogram);
        let left = NotMeasured::needs_two_cpus("P7");
        Report::new(machine(), vec![figure], vec![latency], vec![], vec![left])
    }

    #[test]
    fn the_json_has_the_agreed_fields() {
        let report = report(&[100.0, 300.0, 80.0], &[50.0, 100.0, 50.0]);
        let json = serde_json::to_value(&report).unwrap();
        let figure = &json["figures"][0];
        assert_eq!(figure["id"], "P1");
        assert_eq!(figure["unit"], "ns");
        assert_eq!(
            (&figure["min"], &figure["median"], &figure["max"]),
            (&80.0.into(), &100.0.into(), &300.0.into())
        );
        assert_eq!(figure["rounds"], 3);
        assert_eq!(figure["limit"], 50.0);
        assert_eq!(figure["ratio"], 2.0);
        assert_eq!((&figure["ratio_min"], &figure["ratio_max"]), (&1.6.into(), &3.0.into()));
        assert_eq!(json["latencies"][0]["p99_9"], 999);
        assert_eq!(json["not_measured"][0]["id"], "P7");
        assert!(json["machine"]["seats"].is_null());
        assert!(json["commit"].is_string());
    }
}
