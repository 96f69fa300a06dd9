//! What is measured, against what, and how good it has to be.

use crate::harness::Round;
use crate::report::NotMeasured;
use crate::{channel, limits, two_buffers};
use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Measures one thing for one round.
pub(crate) type Subject = fn(&Round) -> Result<f64>;

/// One row of the report.
pub(crate) struct Figure {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) subject: Subject,
    /// What it is divided by, round for round.
    pub(crate) limit: Option<Limit>,
    pub(crate) target: Option<Target>,
    pub(crate) two_cpus: bool,
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
    pub(crate) id: &'static str,
    pub(crate) subject: Subject,
}

/// A distribution that is measured on its own, because each call then pays for the clock.
pub(crate) struct Latency {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) subject: fn(&Round) -> Result<Histogram<u64>>,
}

/// What a run measures.
pub(crate) struct Plan {
    pub(crate) figures: Vec<Figure>,
    pub(crate) latencies: Vec<Latency>,
    selected: bool,
}

/// Everything, or only what the user named.
pub(crate) fn plan(only: &[String]) -> Result<Plan> {
    let mut figures = all();
    let mut latencies = latencies();
    let named = |id: &str| only.iter().any(|name| name.trim().eq_ignore_ascii_case(id));
    for name in only {
        let known = figures.iter().map(|figure| figure.id).chain(latencies.iter().map(|l| l.id));
        let known: Vec<_> = known.collect();
        if !known.iter().any(|id| id.eq_ignore_ascii_case(name.trim())) {
            bail!("there is no figure {name}; there are {}", known.join(", "));
        }
    }
    if !only.is_empty() {
        figures.retain(|figure| named(figure.id));
        latencies.retain(|latency| named(latency.id));
    }
    Ok(Plan { figures, latencies, selected: !only.is_empty() })
}

impl Plan {
    /// Figures of the list of targets that this program cannot measure yet, said in a full run.
    pub(crate) fn left_out(&self) -> Vec<NotMeasured> {
        const LATER: [(&str, &str); 5] = [
            ("P8", "other systems are not compared yet"),
            ("P9", "other systems are not compared yet"),
            ("P10", "other systems are not compared yet"),
            ("P11", "growth is not measured yet"),
            ("P12", "other languages are not measured yet"),
        ];
        let left_out = |(id, reason): &(&str, &str)| NotMeasured::new(id, reason);
        if self.selected { Vec::new() } else { LATER.iter().map(left_out).collect() }
    }
}

fn all() -> Vec<Figure> {
    let mut figures = limit_figures();
    figures.extend(targets());
    figures.extend(extras());
    figures
}

const L1: Limit = Limit { id: "L1", subject: limits::line };
const L3: Limit = Limit { id: "L3", subject: limits::in_process };

/// A figure without a limit or a target.
fn plain(id: &'static str, name: &'static str, unit: &'static str, subject: Subject) -> Figure {
    Figure { id, name, unit, subject, limit: None, target: None, two_cpus: true }
}

fn limit_figures() -> Vec<Figure> {
    const MIB: usize = 1 << 20;
    let alone = |figure: Figure| Figure { two_cpus: false, ..figure };
    vec![
        plain("L1", "one cache line back and forth", "ns", limits::line),
        plain("L2", "two semaphores back and forth, parked", "ns", limits::parked),
        alone(plain("L3", "1080p RGB fill, invert, read in process", "ns", limits::in_process)),
        alone(plain("L4-1MiB", "memcpy of 1 MiB", "GB/s", limits::memcpy::<MIB>)),
        alone(plain("L4-16MiB", "memcpy of 16 MiB", "GB/s", limits::memcpy::<{ 16 * MIB }>)),
        alone(plain("L4-64MiB", "memcpy of 64 MiB", "GB/s", limits::memcpy::<{ 64 * MIB }>)),
    ]
}

fn targets() -> Vec<Figure> {
    use Target::{AtLeast, AtMost};
    let against = |id, subject, target, figure: Figure| Figure {
        limit: Some(Limit { id, subject }),
        target: Some(target),
        ..figure
    };
    let small = channel::small_untouched;
    let p1 = plain("P1", "call, 8 B, spinning", "ns", channel::call_spinning);
    let p2 = plain("P2", "6.2 MB untouched", "ns", channel::frame_untouched);
    let p3 = plain("P3", "1080p RGB fill, invert, read", "ns", channel::frame_inverted);
    let p4 = plain("P4", "as P3, through two buffers", "ns", two_buffers::inverted);
    let p5 = plain("P5", "5 % edited, through two buffers", "ns", two_buffers::redacted);
    let p6 = plain("P6", "shared memory of a 1080p RGB channel", "bytes", channel::segment_bytes);
    let p7 = plain("P7", "call, 8 B, parked", "ns", channel::call_parked);
    vec![
        against("L1", limits::line, AtMost(1.5), p1),
        against("8 B untouched", small, AtMost(1.3), p2),
        against("L3", limits::in_process, AtMost(1.15), p3),
        against("in place", channel::frame_inverted, AtLeast(1.5), p4),
        against("in place", channel::frame_redacted, AtLeast(2.0), p5),
        Figure {
            two_cpus: false,
            ..against("two buffers", two_buffers::segment_bytes, AtMost(0.505), p6)
        },
        against("L2", limits::parked, AtMost(1.15), p7),
    ]
}

/// Figures that have no target.
fn extras() -> Vec<Figure> {
    let against = |limit, figure: Figure| Figure { limit: Some(limit), ..figure };
    let small = Limit { id: "8 B untouched", subject: channel::small_untouched };
    vec![
        against(L1, plain("X1", "call, 8 B, spinning, pulled", "ns", channel::call_pulled)),
        against(L1, plain("X2", "call, 8 B, default strategy", "ns", channel::call_default)),
        against(
            small,
            plain("X3", "6.2 MB untouched, 16 MiB ring", "ns", channel::frame_untouched_roomy),
        ),
        against(
            L3,
            plain("X4", "1080p RGB inverted, 16 MiB ring", "ns", channel::frame_inverted_roomy),
        ),
        plain("X5", "64 B pipelined, 64 in flight", "requests/s", channel::pipelined),
    ]
}

fn latencies() -> Vec<Latency> {
    vec![
        Latency { id: "D1", name: "call, 8 B, spinning", subject: channel::latency_spinning },
        Latency { id: "D2", name: "call, 8 B, parked", subject: channel::latency_parked },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ids(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
        plan(&only).unwrap().figures.iter().map(|figure| figure.id).collect()
    }

    #[test]
    fn a_full_run_has_each_figure_once_and_names_what_is_missing() {
        let ids = ids(&[]);
        let unique: HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let missing: Vec<String> =
            plan(&[]).unwrap().left_out().into_iter().map(|left| left.id).collect();
        for id in (1..=12).map(|n| format!("P{n}")) {
            assert!(ids.contains(&id.as_str()) != missing.contains(&id), "{id}");
        }
    }

    #[test]
    fn named_figures_are_measured_alone() {
        assert_eq!(ids(&["p3", "P1"]), ["P1", "P3"]);
        assert!(plan(&["P3".to_owned()]).unwrap().left_out().is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = plan(&["P99".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("P99") && error.contains("P7") && error.contains("L4-1MiB"));
    }
}
