//! Services, against the named channel and against what people would use instead.

use crate::latest::Latest;
use crate::plan::{Chart, Conditions, Figure, Round, Series, Subject, plain};
use crate::systems::clients::Rates;
use crate::systems::exchange::Load;
use crate::systems::in_place::{self, Wait};
use crate::systems::{System, service};
use crate::work::Work;
use anyhow::Result;
use std::rc::Rc;

/// P15 and P17: what a service costs more than a named channel, and what several clients get of it.
pub(super) fn figures() -> Vec<Figure> {
    [against_channel(), clients(), pictures()].into_iter().flatten().collect()
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

/// What the clients of one figure have, measured once for its total and for its slowest client.
type Clients = Rc<Latest<(System, usize), Rates>>;

fn clients() -> Vec<Figure> {
    let latest = Clients::default();
    let rate = |who, system: System, count, what: fn(Rates) -> f64| {
        let latest = Rc::clone(&latest);
        move |round: &Round| {
            Ok(what(latest.of(who, (system, count), || system.rates(round, count))?))
        }
    };
    let total = |id, name, one: &'static str, system, conditions, count| {
        plain(id, name, "requests/s", rate(id, system, count, |rates| rates.total))
            .when(conditions)
            .over(one, rate(id, system, 1, |rates| rates.total))
            .at_least(1.0)
    };
    // What is measured for the slowest client is of the same turn as its total.
    let least = |id, fair_id, name, fair: &'static str, system, conditions, count| {
        plain(id, name, "requests/s", rate(id, system, count, |rates| rates.least))
            .when(conditions)
            .over(fair, rate(fair_id, system, count, |rates| rates.fair))
            .at_least(0.5)
    };
    let (sleeping, usual) = (System::Service(Wait::Park), System::Service(Wait::Default));
    let (sleep, spin) = (Conditions::Sleeping, Conditions::Usual);
    vec![
        total(
            "P17-8",
            "8 clients of a service, 8 bytes, all together, sleeping",
            "1 client, sleeping",
            sleeping,
            sleep,
            8,
        ),
        least(
            "P17-8-least",
            "P17-8-fair",
            "the slowest of these 8 clients, sleeping",
            "its fair share of 8, sleeping",
            sleeping,
            sleep,
            8,
        ),
        total(
            "P17-64",
            "64 clients of a service, 8 bytes, all together, sleeping",
            "1 client, which sleeps",
            sleeping,
            sleep,
            64,
        ),
        least(
            "P17-64-least",
            "P17-64-fair",
            "the slowest of these 64 clients, sleeping",
            "its fair share of 64, sleeping",
            sleeping,
            sleep,
            64,
        ),
        total(
            "P17-8-usual",
            "8 clients of a service, 8 bytes, all together, usual waiting",
            "1 client, usual waiting",
            usual,
            spin,
            8,
        ),
        least(
            "P17-8-usual-least",
            "P17-8-usual-fair",
            "the slowest of these 8 clients, usual waiting",
            "its fair share of 8, usual waiting",
            usual,
            spin,
            8,
        ),
        total(
            "P17-64-usual",
            "64 clients of a service, 8 bytes, all together, usual waiting",
            "1 client, which waits as usual",
            usual,
            spin,
            64,
        ),
        least(
            "P17-64-usual-least",
            "P17-64-usual-fair",
            "the slowest of these 64 clients, usual waiting",
            "its fair share of 64, usual waiting",
            usual,
            spin,
            64,
        ),
    ]
}

/// Clients that exchange pictures.
fn pictures() -> Vec<Figure> {
    let total = |count| {
        move |round: &Round| {
            let load = Load::picture(Work::Invert);
            Ok(service::rates(round, load, Wait::Default, count)?.total)
        }
    };
    vec![
        plain(
            "P17-8-1080p",
            "8 clients of a service, 1080p RGB pictures inverted",
            "frames/s",
            total(8),
        )
        .when(Conditions::Usual)
        .over("1 client, pictures", total(1))
        .at_least(1.0),
        plain(
            "P17-64-1080p",
            "64 clients of a service, 1080p RGB pictures inverted",
            "frames/s",
            total(64),
        )
        .when(Conditions::Usual)
        .over("1 client, the same pictures", total(1))
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
