//! The in-place channel against what people would use instead.

use crate::plan::{Chart, Conditions, Figure, Latency, Round, Series, Subject, plain};
use crate::systems::System;
use crate::systems::in_place::{self, Wait};
use crate::work::{GIB, MIB, Work};
use anyhow::Result;

/// P8 to P11: against what people would use instead, and growth.
pub(super) fn figures() -> Vec<Figure> {
    let echo = |system: System, len| move |round: &Round| system.echo_ns(round, len);
    let rate = |system: System| move |round: &Round| system.pipelined(round, 64);
    let untouched = |len| move |round: &Round| in_place::untouched_ns(round, len);
    vec![
        plain("P8", "8 bytes there and back, iceoryx2, polling", "ns", echo(System::Iceoryx, 8))
            .over("in place, spinning", echo(System::SPINNING, 8))
            .at_least(4.0),
        plain(
            "P9",
            "64 bytes there and back, 64 in flight, spinning",
            "requests/s",
            rate(System::SPINNING),
        )
        .over("iceoryx2, polling", rate(System::Iceoryx))
        .at_least(4.0),
        plain("P10", "8 bytes there and back, Unix socket", "ns", echo(System::UnixSocket, 8))
            .when(Conditions::Blocking)
            .over("in place, both sides sleeping", echo(System::SLEEPING, 8))
            .at_least(1.0),
        plain("P10-1MiB", "1 MiB there and back, Unix socket", "ns", echo(System::UnixSocket, MIB))
            .when(Conditions::Blocking)
            .over("in place, usual waiting", echo(System::InPlace(Wait::Default), MIB))
            .at_least(20.0),
        plain("P11", "1 GiB untouched, acquire to release, spinning", "ns", untouched(GIB))
            .over("8 bytes the same way", untouched(8))
            .at_most(1.3),
    ]
}

pub(super) fn latencies() -> Vec<Latency> {
    let systems = [
        ("D1", System::SPINNING),
        ("D2", System::Iceoryx),
        ("D3", System::TwoBuffers),
        ("D4", System::SLEEPING),
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

pub(super) fn charts() -> Vec<Chart> {
    vec![size_chart(), frame_chart(), memory_chart(), in_flight_chart()]
}

/// A round trip against the size of the message, of which the server edits eight bytes.
fn size_chart() -> Chart {
    const SIZES: [usize; 9] =
        [8, 256, 8 << 10, 64 << 10, 512 << 10, 4 * MIB, 32 * MIB, 256 * MIB, GIB];
    /// Beyond this, systems that copy only show how slow memory is.
    const COPIED: usize = 32 * MIB;
    let systems = [
        System::SPINNING,
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
        let sizes = SIZES.into_iter().filter(|len| system == System::SPINNING || *len <= COPIED);
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
    System::SPINNING,
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
    let systems = [System::SPINNING, System::TwoBuffers, System::Iceoryx, System::UnixSocket];
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
