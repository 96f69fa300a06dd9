//! Services, against the named channel and against what people would use instead.

use crate::latest::Latest;
use crate::plan::{Chart, Conditions, Figure, Latency, Round, Series, Subject, plain};
use crate::systems::clients::Rates;
use crate::systems::exchange::Load;
use crate::systems::idle::{self, Idle};
use crate::systems::in_place::{self, Wait};
use crate::systems::{System, death, service};
use crate::work::Work;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::rc::Rc;

/// P15 to P17: what a service costs more than a named channel, what idle clients cost, and what several
/// clients get of it.
pub(super) fn figures() -> Vec<Figure> {
    [against_channel(), idle_clients(), clients()].into_iter().flatten().collect()
}

fn against_channel() -> Vec<Figure> {
    let call = |wait| move |round: &Round| service::call_ns(round, wait);
    let channel = |wait| move |round: &Round| in_place::call_ns(round, wait);
    let frame = |system: System| move |round: &Round| system.frame_ns(round, Work::Invert);
    vec![
        plain("P15-spin", "Client::call on a service, 8 bytes, spinning", "ns", call(Wait::Spin))
            .over("on a named channel, spinning", channel(Wait::Spin))
            .at_most(1.1),
        plain("P15-sleep", "Client::call on a service, 8 bytes, sleeping", "ns", call(Wait::Park))
            .when(Conditions::Sleeping)
            .over("on a named channel, sleeping", channel(Wait::Park))
            .at_most(1.25),
        plain(
            "P15-1080p",
            "1080p RGB picture filled, inverted by a service, read",
            "ns",
            frame(System::Service(Wait::Spin)),
        )
        .over("through a named channel (P3)", frame(System::SPINNING))
        .at_most(1.02),
    ]
}

fn idle_clients() -> Vec<Figure> {
    const MANY: usize = 1000;
    let latest = Rc::new(Latest::default());
    let cost = |who, what: fn(Idle) -> f64| {
        let latest = Rc::clone(&latest);
        move |round: &Round| Ok(what(latest.of(who, (), || idle::measure(round, MANY))?))
    };
    let row = |id, name, unit, what: fn(Idle) -> f64| {
        plain(id, name, unit, cost(id, what)).when(Conditions::Idle).on_one_cpu()
    };
    vec![
        row("P16", "CPU time of 1,000 idle clients of a service, of one CPU", "%", |idle| idle.cpu)
            .over("one percent", |_| Ok(1.0))
            .at_most(0.1),
        row("P16-descriptors", "descriptors of each connection, on each side", "", |idle| {
            idle.descriptors
        })
        .over("one", |_| Ok(1.0))
        .at_most(1.0),
        row("P16-switches", "context switches in a second of 1,000 idle clients", "", |idle| {
            idle.switches
        }),
        row(
            "P16-memory",
            "memory of each connection besides its segment, both sides",
            "bytes",
            |idle| idle.private,
        ),
    ]
}

/// From the kill of a server until its client, which sleeps, returns from its wait.
pub(super) fn latencies() -> Vec<Latency> {
    let latency = |id, name: &str, subject: fn(&Round) -> Result<Histogram<u64>>| Latency {
        id,
        name: name.to_owned(),
        subject: Box::new(subject),
    };
    vec![
        latency("K1", "killed server noticed by its client, service", death::of_service),
        latency("K2", "killed server noticed by its client, named channel", death::of_channel),
    ]
}

/// What the clients of one figure have, measured once for its total and for its slowest client.
type Clients = Rc<Latest<(System, usize), Rates>>;

fn clients() -> Vec<Figure> {
    let latest = Clients::default();
    let rate = |who, count, what: fn(Rates) -> f64| {
        let latest = Rc::clone(&latest);
        let system = System::Service(Wait::Park);
        move |round: &Round| {
            Ok(what(latest.of(who, (system, count), || system.rates(round, count))?))
        }
    };
    let row = |id, name, count, what: fn(Rates) -> f64| {
        plain(id, name, "requests/s", rate(id, count, what)).when(Conditions::Sleeping)
    };
    let pictures = |count| {
        move |round: &Round| {
            let load = Load::picture(Work::Invert);
            Ok(service::rates(round, load, Wait::Default, count)?.total)
        }
    };
    vec![
        row("P17-8", "8 clients of a service, 8 bytes, all together", 8, |rates| rates.total)
            .over("1 client", rate("P17-8", 1, |rates| rates.total))
            .at_least(1.0),
        row("P17-8-least", "the slowest of 8 clients of a service", 8, |rates| rates.least)
            .over("an eighth of all together", rate("P17-8-fair", 8, |rates| rates.fair))
            .at_least(0.5),
        row("P17-64", "64 clients of a service, 8 bytes, all together", 64, |rates| rates.total)
            .over("1 client, which sleeps", rate("P17-64", 1, |rates| rates.total))
            .at_least(1.0),
        row("P17-64-least", "the slowest of 64 clients of a service", 64, |rates| rates.least)
            .over("a 64th of all together", rate("P17-64-fair", 64, |rates| rates.fair))
            .at_least(0.5),
        plain(
            "P17-1080p",
            "8 clients of a service, 1080p RGB pictures inverted, all together",
            "frames/s",
            pictures(8),
        )
        .when(Conditions::Usual)
        .over("1 client, usual waiting", pictures(1))
        .at_least(1.0),
    ]
}

/// All clients together, and the slowest one of them, of several systems.
pub(super) fn charts() -> Vec<Chart> {
    const COUNTS: [usize; 3] = [1, 8, 64];
    let systems = [
        ("service", System::Service(Wait::Default)),
        ("service, sleeping", System::Service(Wait::Park)),
        ("a channel each", System::InPlace(Wait::Default)),
        ("a channel each, sleeping", System::InPlace(Wait::Park)),
        ("iceoryx2", System::Iceoryx),
        ("Unix socket", System::UnixSocket),
    ];
    let latest = Clients::default();
    let chart = |id, name, unit, what: fn(Rates) -> f64| {
        let point = |system: System, count: usize| -> (f64, Subject) {
            let latest = Rc::clone(&latest);
            let value = move |round: &Round| -> Result<f64> {
                Ok(what(latest.of(id, (system, count), || system.rates(round, count))?))
            };
            (count as f64, Box::new(value))
        };
        let series = systems.map(|(name, system)| Series {
            name: name.to_owned(),
            points: COUNTS.map(|count| point(system, count)).into(),
        });
        Chart { id, name, x: Some("clients"), unit, series: series.into() }
    };
    vec![
        chart("S1", "calls of 8 bytes, all clients together", "requests/s", |rates| rates.total),
        chart("S2", "the slowest client's part of its fair share", "", |rates| {
            rates.least / rates.fair
        }),
    ]
}
