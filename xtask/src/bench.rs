//! The benchmark with everything that it can be compared with.

use crate::packages::apt_install;
use crate::run::{cargo, root, step};
use crate::{matrix, python};
use anyhow::Result;

/// Prepares what the comparisons need, as far as this machine has it, and runs the benchmark with these
/// further options. The benchmark lists what it could not measure.
pub(crate) fn bench(options: &[String]) -> Result<()> {
    step("the benchmark", cargo("build --release -p zerobuffer-bench"))?;
    step("the peer in Rust", cargo("build --release -p zerobuffer-interop"))?;
    let mut bench = std::process::Command::new(root().join("target/release/zerobuffer-bench"));
    for (what, error) in [
        ("ZeroMQ", apt_install(&["libzmq5", "python3"]).err()),
        ("the existing Python package", v1_python(&mut bench).err()),
    ] {
        if let Some(error) = error {
            println!("not run: the comparison with {what}: {error:#}");
        }
    }
    bench.env("ZEROBUFFER_BENCH_PEERS", peers());
    bench.args(options);
    step("benchmark", bench)
}

fn v1_python(bench: &mut std::process::Command) -> Result<()> {
    bench.env("ZEROBUFFER_V1_PYTHON", python::v1_venv()?);
    Ok(())
}

/// A line for each language whose peer can be built.
fn peers() -> String {
    let mut lines = String::new();
    for (name, command) in matrix::peers() {
        match command {
            Ok(command) => lines.push_str(&format!("{name}={command}\n")),
            Err(reason) => println!("not run: the comparison with {name}: {reason:#}"),
        }
    }
    lines
}
