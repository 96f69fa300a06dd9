//! Programs in other languages.

use crate::plan::{Chart, Figure, Round, Series, Subject, plain};
use crate::systems::programs::{self, Python};

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
