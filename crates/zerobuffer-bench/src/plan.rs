//! What a plan of measurements consists of.

use crate::machine::Seats;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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

/// Measures one thing for one round.
pub(crate) type Subject = Box<dyn Fn(&Round) -> Result<f64>>;

/// Measures single round trips for one round.
pub(crate) type Latencies = Box<dyn Fn(&Round) -> Result<Histogram<u64>>>;

/// One row of the report.
pub(crate) struct Figure {
    pub(crate) id: &'static str,
    /// With the conditions: two rows of one name would be two numbers for one thing.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) conditions: Conditions,
    pub(crate) subject: Subject,
    /// A figure before this one that has the same subject and conditions: its values are this one's.
    pub(crate) same_as: Option<&'static str>,
    /// What it is divided by, round for round.
    pub(crate) limit: Option<Limit>,
    pub(crate) target: Option<Target>,
    /// Where the two CPUs are far apart, if that is another one.
    pub(crate) far: Option<Target>,
    pub(crate) two_cpus: bool,
}

/// How the two ends wait, where they run, and whether the memory was touched before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    Spinning,
    /// Spinning, but nothing was touched before.
    FirstTouch,
    /// The library's default: spin, then sleep.
    Usual,
    Sleeping,
    /// In the kernel.
    Blocking,
    OneThread,
    /// Nothing is sent.
    Idle,
}

impl Conditions {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Spinning => "both spin, a pinned CPU each, warm",
            Self::FirstTouch => "both spin, a pinned CPU each, first touch",
            Self::Usual => "both spin then sleep, a pinned CPU each, warm",
            Self::Sleeping => "both sleep, a pinned CPU each, warm",
            Self::Blocking => "both block, a pinned CPU each, warm",
            Self::OneThread => "one pinned thread, warm",
            Self::Idle => "nothing sent, nobody pinned",
        }
    }

    /// Whether what is measured is mostly the way from one CPU to the other.
    pub(crate) fn depend_on_distance(self) -> bool {
        matches!(self, Self::Spinning | Self::Usual)
    }
}

/// How far the two CPUs are from each other, by a cache line that they hand back and forth (L1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Distance {
    Near,
    Far,
}

impl Distance {
    /// L1 of near CPUs is not more than this.
    pub(crate) const NEAR_NS: f64 = 80.0;

    pub(crate) fn of(line_ns: f64) -> Self {
        if line_ns <= Self::NEAR_NS { Self::Near } else { Self::Far }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// What a ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

pub(crate) struct Limit {
    /// Whole words: a reader of the table knows no short form.
    pub(crate) name: &'static str,
    pub(crate) subject: Subject,
}

/// A distribution that is measured on its own, because each call then pays for the clock.
pub(crate) struct Latency {
    pub(crate) id: &'static str,
    pub(crate) name: String,
    pub(crate) subject: Latencies,
}

/// Several systems over a range, as one picture shows them.
pub(crate) struct Chart {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// What the points' first number is; `None` if each series is a single value.
    pub(crate) x: Option<&'static str>,
    pub(crate) unit: &'static str,
    pub(crate) series: Vec<Series>,
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Subject)>,
}

/// What a run measures.
pub(crate) struct Plan {
    pub(crate) figures: Vec<Figure>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) charts: Vec<Chart>,
    /// Points of charts that are figures as well.
    pub(crate) shared: Vec<SharedPoint>,
}

/// A point that has a figure's subject and conditions: it shows the figure's values, so that one thing has one
/// number on the whole page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedPoint {
    pub(crate) chart: &'static str,
    pub(crate) series: &'static str,
    pub(crate) x: f64,
    pub(crate) figure: &'static str,
}

/// A figure without a limit or a target, of two sides that spin.
pub(crate) fn plain(
    id: &'static str,
    name: &'static str,
    unit: &'static str,
    subject: impl Fn(&Round) -> Result<f64> + 'static,
) -> Figure {
    Figure {
        id,
        name,
        unit,
        conditions: Conditions::Spinning,
        subject: Box::new(subject),
        same_as: None,
        limit: None,
        target: None,
        far: None,
        two_cpus: true,
    }
}

impl Figure {
    pub(crate) fn over(
        mut self,
        name: &'static str,
        limit: impl Fn(&Round) -> Result<f64> + 'static,
    ) -> Self {
        self.limit = Some(Limit { name, subject: Box::new(limit) });
        self
    }

    pub(crate) fn at_most(self, most: f64) -> Self {
        Self { target: Some(Target::AtMost(most)), ..self }
    }

    pub(crate) fn at_least(self, least: f64) -> Self {
        Self { target: Some(Target::AtLeast(least)), ..self }
    }

    /// The target where the two CPUs are far apart, if it is another one.
    pub(crate) fn far_at_most(self, most: f64) -> Self {
        Self { far: Some(Target::AtMost(most)), ..self }
    }

    pub(crate) fn when(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }

    /// The values are those of figure `id`, which comes before and has the same subject and conditions.
    pub(crate) fn same_as(self, id: &'static str) -> Self {
        Self { same_as: Some(id), ..self }
    }

    pub(crate) fn on_one_cpu(self) -> Self {
        Self { two_cpus: false, ..self }
    }
}

impl Plan {
    /// What the user named of it; everything if that is nothing.
    ///
    /// # Errors
    /// For a name that nothing has.
    pub(crate) fn only(mut self, names: &[String]) -> Result<Self> {
        let known = self.ids();
        for name in names {
            if !known.iter().any(|id| id.eq_ignore_ascii_case(name.trim())) {
                bail!("there is no figure {name}; there are {}", known.join(", "));
            }
        }
        if !names.is_empty() {
            let named = |id: &str| names.iter().any(|name| name.trim().eq_ignore_ascii_case(id));
            self.figures.retain(|figure| named(figure.id));
            self.latencies.retain(|latency| named(latency.id));
            self.charts.retain(|chart| named(chart.id));
        }
        Ok(self)
    }

    pub(crate) fn ids(&self) -> Vec<&'static str> {
        let figures = self.figures.iter().map(|figure| figure.id);
        let latencies = self.latencies.iter().map(|latency| latency.id);
        figures.chain(latencies).chain(self.charts.iter().map(|chart| chart.id)).collect()
    }
}

/// What is needed for a comparison is not there: reported, and no failure.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) &'static str);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unavailable {}
