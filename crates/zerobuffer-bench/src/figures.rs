//! What is measured, against what, and how good it has to be.

use crate::harness::Round;
use crate::limits;
use crate::systems::growth::{Cost, Growth};
use crate::systems::in_place::{self, PageChoice, Wait};
use crate::systems::programs::{self, Python};
use crate::systems::{System, two_buffers};
use crate::work::{FRAME, Work};
use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Measures one thing for one round.
pub(crate) type Subject = Box<dyn Fn(&Round) -> Result<f64>>;

/// Looks at single round trips for one round.
pub(crate) type Latencies = Box<dyn Fn(&Round) -> Result<Histogram<u64>>>;

/// One row of the report.
pub(crate) struct Figure {
    pub(crate) id: &'static str,
    /// With the conditions: two rows of one name would be two numbers for one thing.
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
}

/// Everything, or only what the user named.
pub(crate) fn plan(only: &[String]) -> Result<Plan> {
    let mut plan = Plan { figures: all(), latencies: latencies(), charts: charts() };
    let known = plan.ids();
    for name in only {
        if !known.iter().any(|id| id.eq_ignore_ascii_case(name.trim())) {
            bail!("there is no figure {name}; there are {}", known.join(", "));
        }
    }
    if !only.is_empty() {
        let named = |id: &str| only.iter().any(|name| name.trim().eq_ignore_ascii_case(id));
        plan.figures.retain(|figure| named(figure.id));
        plan.latencies.retain(|latency| named(latency.id));
        plan.charts.retain(|chart| named(chart.id));
    }
    Ok(plan)
}

impl Plan {
    fn ids(&self) -> Vec<&'static str> {
        let figures = self.figures.iter().map(|figure| figure.id);
        let latencies = self.latencies.iter().map(|latency| latency.id);
        figures.chain(latencies).chain(self.charts.iter().map(|chart| chart.id)).collect()
    }
}

fn all() -> Vec<Figure> {
    let mut figures = limit_figures();
    figures.extend(targets());
    figures.extend(others());
    figures.extend(growth());
    figures.extend(languages());
    figures.extend(extras());
    figures
}

const SPINNING: System = System::InPlace(Wait::Spin);
const SLEEPING: System = System::InPlace(Wait::Park);
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// A figure without a limit or a target.
fn plain(
    id: &'static str,
    name: &'static str,
    unit: &'static str,
    subject: impl Fn(&Round) -> Result<f64> + 'static,
) -> Figure {
    Figure { id, name, unit, subject: Box::new(subject), limit: None, target: None, two_cpus: true }
}

impl Figure {
    fn over(mut self, name: &'static str, limit: impl Fn(&Round) -> Result<f64> + 'static) -> Self {
        self.limit = Some(Limit { name, subject: Box::new(limit) });
        self
    }

    fn at_most(self, most: f64) -> Self {
        Self { target: Some(Target::AtMost(most)), ..self }
    }

    fn at_least(self, least: f64) -> Self {
        Self { target: Some(Target::AtLeast(least)), ..self }
    }

    fn on_one_cpu(self) -> Self {
        Self { two_cpus: false, ..self }
    }
}

fn limit_figures() -> Vec<Figure> {
    vec![
        plain("L1", "one cache line handed back and forth between two CPUs", "ns", limits::line),
        plain(
            "L2",
            "two semaphores posted back and forth, both sides asleep",
            "ns",
            limits::parked,
        ),
        plain(
            "L3",
            "1080p RGB picture filled, inverted, read by one thread",
            "ns",
            limits::in_process,
        )
        .on_one_cpu(),
        plain("L4-1MiB", "memcpy of 1 MiB", "GB/s", limits::memcpy::<MIB>).on_one_cpu(),
        plain("L4-16MiB", "memcpy of 16 MiB", "GB/s", limits::memcpy::<{ 16 * MIB }>).on_one_cpu(),
        plain("L4-64MiB", "memcpy of 64 MiB", "GB/s", limits::memcpy::<{ 64 * MIB }>).on_one_cpu(),
    ]
}

/// P1 to P7: against the limits of the machine, and against two buffers.
fn targets() -> Vec<Figure> {
    let untouched = |len| move |round: &Round| in_place::untouched_ns(round, len);
    let call = |wait| move |round: &Round| in_place::call_ns(round, wait);
    let frame = |system: System, work| move |round: &Round| system.frame_ns(round, work);
    vec![
        plain("P1", "Client::call, 8 bytes, both sides spinning", "ns", call(Wait::Spin))
            .over("one cache line back and forth (L1)", limits::line)
            .at_most(1.5),
        plain("P2", "6.2 MB untouched, acquire to release, spinning", "ns", untouched(FRAME))
            .over("8 bytes the same way", untouched(8))
            .at_most(1.3),
        plain(
            "P3",
            "1080p RGB picture filled, inverted by the server, read",
            "ns",
            frame(SPINNING, Work::Invert),
        )
        .over("by one thread in one process (L3)", limits::in_process)
        .at_most(1.15),
        plain("P4", "as P3, through two buffers", "ns", frame(System::TwoBuffers, Work::Invert))
            .over("in place (P3)", frame(SPINNING, Work::Invert))
            .at_least(1.5),
        plain(
            "P5",
            "as P4, 5 % of the picture edited",
            "ns",
            frame(System::TwoBuffers, Work::Redact),
        )
        .over("in place", frame(SPINNING, Work::Redact))
        .at_least(2.0),
        plain(
            "P6",
            "shared memory of a channel for one 1080p RGB picture",
            "bytes",
            in_place::segment_bytes,
        )
        .over("of two buffers", two_buffers::segment_bytes)
        .at_most(0.505)
        .on_one_cpu(),
        plain("P7", "Client::call, 8 bytes, both sides sleeping", "ns", call(Wait::Park))
            .over("two semaphores (L2)", limits::parked)
            .at_most(1.15),
    ]
}

/// P8 to P11: against what people would use instead, and growth.
fn others() -> Vec<Figure> {
    let echo = |system: System, len| move |round: &Round| system.echo_ns(round, len);
    let rate = |system: System| move |round: &Round| system.pipelined(round, 64);
    let untouched = |len| move |round: &Round| in_place::untouched_ns(round, len);
    vec![
        plain("P8", "8 bytes there and back, iceoryx2, polling", "ns", echo(System::Iceoryx, 8))
            .over("in place, spinning", echo(SPINNING, 8))
            .at_least(4.0),
        plain(
            "P9",
            "64 bytes there and back, 64 in flight, spinning",
            "requests/s",
            rate(SPINNING),
        )
        .over("iceoryx2, polling", rate(System::Iceoryx))
        .at_least(4.0),
        plain("P10", "8 bytes there and back, Unix socket", "ns", echo(System::UnixSocket, 8))
            .over("in place, both sides sleeping", echo(SLEEPING, 8))
            .at_least(1.0),
        plain("P10-1MiB", "1 MiB there and back, Unix socket", "ns", echo(System::UnixSocket, MIB))
            .over("in place, usual waiting", echo(System::InPlace(Wait::Default), MIB))
            .at_least(20.0),
        plain("P11", "1 GiB untouched, acquire to release, spinning", "ns", untouched(GIB))
            .over("8 bytes the same way", untouched(8))
            .at_most(1.3),
    ]
}

/// P11: what one of a thousand channels costs, against what one of a hundred does.
fn growth() -> Vec<Figure> {
    const MANY: usize = 1000;
    const SOME: usize = 100;
    let growth = Rc::new(Growth::default());
    let each = |who, count: usize, what: fn(Cost) -> f64| {
        let growth = growth.clone();
        move |round: &Round| Ok(what(growth.of(who, round, count)?) / count as f64)
    };
    let share = |who, what: fn(Cost) -> f64| {
        let growth = growth.clone();
        move |round: &Round| Ok(what(growth.of(who, round, MANY)?))
    };
    vec![
        plain(
            "P11-memory",
            "memory of each of 1,000 channels",
            "bytes",
            each("P11-memory", MANY, |cost| cost.memory),
        )
        .over("of each of 100", each("P11-memory", SOME, |cost| cost.memory))
        .at_most(1.1)
        .on_one_cpu(),
        plain(
            "X10",
            "shared memory of each of 1,000 channels",
            "bytes",
            each("X10", MANY, |cost| cost.objects),
        )
        .over("its ring", |_| Ok(crate::systems::growth::PAYLOAD as f64))
        .on_one_cpu(),
        plain(
            "P11-descriptors",
            "descriptors of each of 1,000 channels",
            "",
            each("P11-descriptors", MANY, |cost| cost.descriptors),
        )
        .over("of each of 100", each("P11-descriptors", SOME, |cost| cost.descriptors))
        .at_most(1.1)
        .on_one_cpu(),
        plain(
            "P11-idle",
            "CPU time of 1,000 idle channels, of one CPU",
            "%",
            share("P11-idle", |cost| cost.cpu),
        )
        .on_one_cpu(),
    ]
}

/// P12: our bindings against Rust.
fn languages() -> Vec<Figure> {
    let call = |language| move |round: &Round| programs::call_ns(round, language);
    vec![
        plain("P12-cpp", "8 bytes transformed, C++ programs, spinning", "ns", call("cpp"))
            .over("Rust programs", call("rust"))
            .at_most(1.1),
        plain("P12-python", "8 bytes transformed, Python programs, spinning", "ns", call("python"))
            .over("Rust programs", call("rust"))
            .at_most(15.0),
        plain("P12-csharp", "8 bytes transformed, C# programs, spinning", "ns", call("csharp"))
            .over("Rust programs", call("rust"))
            .at_most(5.0),
    ]
}

/// Figures that have no target.
fn extras() -> Vec<Figure> {
    let call = |wait| move |round: &Round| in_place::call_ns(round, wait);
    let untouched = |round: &Round| in_place::untouched_ns(round, 8);
    vec![
        plain("X1", "as P1, the server pulls with Server::receive", "ns", in_place::call_pulled)
            .over("one cache line back and forth (L1)", limits::line),
        plain("X2", "as P1, usual waiting (spin, then sleep)", "ns", call(Wait::Default))
            .over("one cache line back and forth (L1)", limits::line),
        plain("X3", "as P2, in a ring of 16 MiB", "ns", in_place::frame_untouched_roomy)
            .over("8 bytes the same way", untouched),
        plain("X4", "as P3, in a ring of 16 MiB", "ns", in_place::frame_inverted_roomy)
            .over("by one thread in one process (L3)", limits::in_process),
        plain("X11", "the call of P5 alone, two buffers", "ns", |round: &Round| {
            System::TwoBuffers.redaction_ns(round)
        })
        .over("in place", |round: &Round| SPINNING.redaction_ns(round)),
        plain("X12", "first 1080p picture of a channel", "ns", |round: &Round| {
            in_place::first_frame_ns(round, PageChoice::OnDemand)
        })
        .over("with prefaulted pages", |round: &Round| {
            in_place::first_frame_ns(round, PageChoice::Prefaulted)
        }),
        plain("X13", "as P3, usual pages", "ns", |round: &Round| {
            in_place::frame_with_pages(round, PageChoice::OnDemand)
        })
        .over("huge pages", |round: &Round| in_place::frame_with_pages(round, PageChoice::Huge)),
        plain("X6", "as P9, usual waiting, 2 workers", "requests/s", |round: &Round| {
            in_place::pipelined_with_workers(round, 64, 2)
        })
        .over("1 worker", |round: &Round| in_place::pipelined_with_workers(round, 64, 1)),
        plain("X5", "as P10-1MiB, against a channel that sleeps", "ns", |round: &Round| {
            System::UnixSocket.echo_ns(round, MIB)
        })
        .over("in place, both sides sleeping", |round: &Round| SLEEPING.echo_ns(round, MIB)),
    ]
}

fn latencies() -> Vec<Latency> {
    let systems = [
        ("D1", SPINNING),
        ("D2", System::Iceoryx),
        ("D3", System::TwoBuffers),
        ("D4", SLEEPING),
        ("D5", System::UnixSocket),
        ("D6", System::Pipe),
        ("D7", System::ZeroMq),
    ];
    let latency = |(id, system): (&'static str, System)| Latency {
        id,
        name: system.name().to_owned(),
        subject: Box::new(move |round| system.latencies(round, 8)),
    };
    systems.into_iter().map(latency).collect()
}

fn charts() -> Vec<Chart> {
    let mut charts =
        vec![size_chart(), frame_chart(), memory_chart(), in_flight_chart(), python_chart()];
    charts.extend(growth_charts());
    charts
}

fn python_chart() -> Chart {
    let series = |name: &str, subject: Subject| Series {
        name: name.to_owned(),
        points: vec![(0.0, subject)],
    };
    let others = [Python::Version1, Python::Pipe, Python::SharedMemory];
    let mut all = vec![series("in place", Box::new(|round| programs::call_ns(round, "python")))];
    all.extend(others.map(|python| {
        series(python.name(), Box::new(move |round: &Round| python.echo_ns(round, 8)))
    }));
    Chart { id: "C5", name: "8 B between two Python programs", x: None, unit: "ns", series: all }
}

fn growth_charts() -> Vec<Chart> {
    const COUNTS: [usize; 4] = [1, 10, 100, 1000];
    let growth = Rc::new(Growth::default());
    let chart = |id, name, unit, what: fn(Cost) -> f64| {
        let point = |count: usize| -> (f64, Subject) {
            let growth = growth.clone();
            (count as f64, Box::new(move |round| Ok(what(growth.of(id, round, count)?))))
        };
        let series = Series { name: "in place".to_owned(), points: COUNTS.map(point).into() };
        Chart { id, name, x: Some("channels"), unit, series: vec![series] }
    };
    vec![
        chart("G1", "memory, rings of 64 KiB", "bytes", |cost| cost.memory),
        chart("G2", "descriptors", "", |cost| cost.descriptors),
        chart("G3", "idle CPU time, of one CPU", "%", |cost| cost.cpu),
    ]
}

/// A round trip against the size of the message, of which the server edits eight bytes.
fn size_chart() -> Chart {
    const SIZES: [usize; 9] =
        [8, 256, 8 << 10, 64 << 10, 512 << 10, 4 * MIB, 32 * MIB, 256 * MIB, GIB];
    /// Beyond this, systems that copy only show how slow memory is.
    const COPIED: usize = 32 * MIB;
    let systems = [
        SPINNING,
        System::IceoryxUntouched,
        System::Iceoryx,
        System::TwoBuffers,
        System::UnixSocket,
        System::Pipe,
        System::ZeroMq,
    ];
    let point = |system: System, len: usize| -> (f64, Subject) {
        (len as f64, Box::new(move |round| system.echo_ns(round, len)))
    };
    let series = |system: System| {
        let sizes = SIZES.into_iter().filter(|len| system == SPINNING || *len <= COPIED);
        Series {
            name: system.name().to_owned(),
            points: sizes.map(|len| point(system, len)).collect(),
        }
    };
    Chart {
        id: "C1",
        name: "round trip of a message of which the server edits eight bytes",
        x: Some("bytes"),
        unit: "ns",
        series: systems.map(series).into(),
    }
}

const SYSTEMS: [System; 6] = [
    SPINNING,
    System::TwoBuffers,
    System::Iceoryx,
    System::UnixSocket,
    System::Pipe,
    System::ZeroMq,
];

/// A chart with one value for each system.
fn bars(
    id: &'static str,
    name: &'static str,
    unit: &'static str,
    value: fn(System, &Round) -> Result<f64>,
) -> Chart {
    let series = |system: System| Series {
        name: system.name().to_owned(),
        points: vec![(0.0, Box::new(move |round: &Round| value(system, round)) as _)],
    };
    Chart { id, name, x: None, unit, series: SYSTEMS.map(series).into() }
}

fn frame_chart() -> Chart {
    bars(
        "C2",
        "1080p RGB picture filled, inverted in the other process, read",
        "ns",
        |system, round| system.frame_ns(round, Work::Invert),
    )
}

fn memory_chart() -> Chart {
    bars(
        "C3",
        "memory of both processes for exchanging 1080p RGB pictures",
        "bytes",
        System::memory,
    )
}

/// Messages per second against how many are under way.
fn in_flight_chart() -> Chart {
    const DEPTHS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
    /// With more, both ends of a socket could wait for room in its buffers.
    const IN_SOCKET: usize = 64;
    let systems = [SPINNING, System::TwoBuffers, System::Iceoryx, System::UnixSocket];
    let point = |system: System, depth: usize| -> (f64, Subject) {
        (depth as f64, Box::new(move |round| system.pipelined(round, depth)))
    };
    let series = |system: System| {
        let possible = |depth: &usize| system != System::UnixSocket || *depth <= IN_SOCKET;
        let depths = DEPTHS.into_iter().filter(possible);
        Series {
            name: system.name().to_owned(),
            points: depths.map(|depth| point(system, depth)).collect(),
        }
    };
    Chart {
        id: "C4",
        name: "messages of 64 bytes",
        x: Some("in flight"),
        unit: "requests/s",
        series: systems.map(series).into(),
    }
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
    fn a_full_run_has_each_figure_once_and_every_target() {
        let plan = plan(&[]).unwrap();
        let ids = plan.ids();
        let unique: HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let languages = ["P12-cpp", "P12-python", "P12-csharp"].map(str::to_owned);
        for id in (1..=11).map(|n| format!("P{n}")).chain(languages) {
            let figure = plan.figures.iter().find(|figure| figure.id == id).expect(&id);
            assert!(figure.target.is_some() && figure.limit.is_some(), "{id}");
        }
    }

    /// Two rows with one name are two numbers for one thing, and a reader knows no short forms.
    #[test]
    fn each_row_says_what_was_done_in_words_that_no_other_row_has() {
        let plan = plan(&[]).unwrap();
        let names: HashSet<_> = plan.figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), plan.figures.len());
        let ids = plan.ids();
        for limit in plan.figures.iter().filter_map(|figure| figure.limit.as_ref()) {
            assert!(!ids.contains(&limit.name), "{} is a short form", limit.name);
        }
    }

    #[test]
    fn named_figures_are_measured_alone() {
        assert_eq!(ids(&["p3", "P1"]), ["P1", "P3"]);
        assert!(plan(&["P3".to_owned()]).unwrap().charts.is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = plan(&["P99".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("P99") && error.contains("P7") && error.contains("L4-1MiB"));
    }
}
