//! Programs in other languages.

use crate::latest::Latest;
use crate::plan::{Chart, Conditions, Figure, Round, Series, Subject, plain};
use crate::systems::csharp::{self, Cost, Way};
use crate::systems::programs::{self, Python};
use crate::work::FRAME;
use std::rc::Rc;

/// P12: our bindings against Rust.
pub(super) fn figures() -> Vec<Figure> {
    let call = |language| move |round: &Round| programs::call_ns(round, language);
    vec![
        plain("P12-cpp", "8 bytes transformed, C++ programs, spinning", "ns", call("cpp"))
            .over("Rust programs", call("rust"))
            .at_most(1.1),
        plain("P12-python", "8 bytes transformed, Python programs, spinning", "ns", call("python"))
            .over("Rust programs", call("rust"))
            .at_most(12.0),
        plain("P12-csharp", "8 bytes transformed, C# programs, spinning", "ns", call("csharp"))
            .over("Rust programs", call("rust"))
            .at_most(5.0),
    ]
}

/// P20: what C# programs do, against what they would do without this.
pub(super) fn csharp() -> Vec<Figure> {
    const MEDIUM: usize = 1 << 16;
    let latest = Rc::new(Latest::default());
    let cost = |who, way: Way, what: fn(Cost) -> f64| {
        let latest = Rc::clone(&latest);
        move |round: &Round| Ok(what(latest.of(who, (), || csharp::measure(round))?.of(way)))
    };
    let ns = |who, way| cost(who, way, |cost| cost.ns);
    let row = |id, name, way, unit, what| {
        plain(id, name, unit, cost(id, way, what)).when(Conditions::Usual)
    };
    let time = |id, name, way| row(id, name, way, "ns", |cost| cost.ns);
    let garbage = |id, name, way| row(id, name, way, "bytes", |cost| cost.garbage);
    let pipe = "NamedPipeServerStream, which blocks";
    let two = "two buffers, both sides sleeping";
    vec![
        time("P20-8", "C#, Call of 8 bytes, usual waiting", Way::Call(8))
            .over(pipe, ns("P20-8-pipe", Way::Pipe(8))),
        time("P20-8-two", "C#, the call of P20-8", Way::Call(8))
            .same_as("P20-8")
            .over(two, ns("P20-8-v1", Way::TwoBuffers(8))),
        time("P20-64KiB", "C#, Call of 64 KiB, usual waiting", Way::Call(MEDIUM))
            .over(pipe, ns("P20-64KiB-pipe", Way::Pipe(MEDIUM))),
        time("P20-64KiB-two", "C#, the call of P20-64KiB", Way::Call(MEDIUM))
            .same_as("P20-64KiB")
            .over(two, ns("P20-64KiB-v1", Way::TwoBuffers(MEDIUM))),
        time("P20-1080p", "C#, Call of a 1080p RGB picture, usual waiting", Way::Call(FRAME))
            .over(pipe, ns("P20-1080p-pipe", Way::Pipe(FRAME))),
        time("P20-1080p-two", "C#, the call of P20-1080p", Way::Call(FRAME))
            .same_as("P20-1080p")
            .over(two, ns("P20-1080p-v1", Way::TwoBuffers(FRAME))),
        time("P20-async", "C#, CallAsync of 8 bytes, one after the other", Way::Async)
            .over("Call", ns("P20-async-call", Way::Call(8))),
        time("P20-async-64", "C#, CallAsync of 8 bytes, each of 64 under way", Way::ManyAsync)
            .over("one after the other", ns("P20-async-one", Way::Async)),
        garbage("P20-garbage", "C#, garbage of a Call", Way::Call(8)),
        garbage("P20-async-garbage", "C#, garbage of a CallAsync", Way::Async),
    ]
}

pub(super) fn chart() -> Chart {
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
