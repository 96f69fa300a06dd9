//! Many channels.

use crate::latest::Latest;
use crate::plan::{Chart, Conditions, Figure, Round, Series, Subject, plain};
use crate::systems::growth::{self, Cost, PAYLOAD};
use std::rc::Rc;

/// P11: what one of a thousand channels costs, against what one of a hundred does.
pub(super) fn figures() -> Vec<Figure> {
    const MANY: usize = 1000;
    const SOME: usize = 100;
    let latest = Rc::new(Latest::default());
    let each = |who, count: usize, what: fn(Cost) -> f64| {
        let latest = Rc::clone(&latest);
        move |round: &Round| {
            Ok(what(latest.of(who, count, || growth::measure(round, count))?) / count as f64)
        }
    };
    let share = |who, what: fn(Cost) -> f64| {
        let latest = Rc::clone(&latest);
        move |round: &Round| Ok(what(latest.of(who, MANY, || growth::measure(round, MANY))?))
    };
    vec![
        plain(
            "P11-memory",
            "memory of each of 1,000 channels",
            "bytes",
            each("P11-memory", MANY, |cost| cost.memory),
        )
        .when(Conditions::Idle)
        .over("of each of 100", each("P11-memory", SOME, |cost| cost.memory))
        .at_most(1.1)
        .on_one_cpu(),
        plain(
            "X10",
            "shared memory of each of 1,000 channels",
            "bytes",
            each("X10", MANY, |cost| cost.objects),
        )
        .when(Conditions::Idle)
        .over("its ring", |_| Ok(PAYLOAD as f64))
        .on_one_cpu(),
        plain(
            "P11-descriptors",
            "descriptors of each of 1,000 channels",
            "",
            each("P11-descriptors", MANY, |cost| cost.descriptors),
        )
        .when(Conditions::Idle)
        .over("of each of 100", each("P11-descriptors", SOME, |cost| cost.descriptors))
        .at_most(1.1)
        .on_one_cpu(),
        plain(
            "P11-idle",
            "CPU time of 1,000 idle channels, of one CPU",
            "%",
            share("P11-idle", |cost| cost.cpu),
        )
        .when(Conditions::Idle)
        .on_one_cpu(),
    ]
}

pub(super) fn charts() -> Vec<Chart> {
    const COUNTS: [usize; 4] = [1, 10, 100, 1000];
    let latest = Rc::new(Latest::default());
    let chart = |id, name, unit, what: fn(Cost) -> f64| {
        let point = |count: usize| -> (f64, Subject) {
            let latest = Rc::clone(&latest);
            (
                count as f64,
                Box::new(move |round| {
                    Ok(what(latest.of(id, count, || growth::measure(round, count))?))
                }),
            )
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
