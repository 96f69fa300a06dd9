//! Every line of the ring, of waiting, links and liveness, of clients and servers, broken in each way that `cargo mutants` knows: does
//! a test notice? It takes hours, so it is no part of a full run.

use crate::run::{cargo, step};
use anyhow::{Result, ensure};
use std::process::Command;

/// The tools' version that docs/testing.md was written with.
const TOOL: &str = "install cargo-mutants --version 27.1.0 --locked";

/// Breaks line after line; what nobody notices is in `target/mutants/mutants.out/missed.txt`. The files are those
/// in `.cargo/mutants.toml`; `arguments` may choose among them, such as `--re wait/mod`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let version = Command::new("cargo").args(["mutants", "--version"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        step("cargo-mutants", cargo(TOOL))?;
    }
    let mut unit = cargo("mutants -p zerobuffer --timeout 60 --cargo-arg=--lib -o target/mutants");
    // That a property fails is enough; the smallest case is not looked for.
    unit.env("PROPTEST_MAX_SHRINK_ITERS", "1");
    unit.args(arguments).args(["--", "--", "v2::", "wait::", "liveness::", "tenure::", "link::"]);
    // Mutants that are missed do not fail this step: the next one tries them again.
    let _ = step("mutants against unit tests", unit);
    let _ = missed("service", arguments).status()?;
    let status = missed("integration", arguments).status()?;
    // 3: none was missed, and some ran until they were stopped.
    ensure!(
        matches!(status.code(), Some(0 | 3)),
        "some mutants live: target/mutants/mutants.out/missed.txt ({status})"
    );
    Ok(())
}

/// Those that nothing has noticed so far, against integration tests.
fn missed(tests: &str, arguments: &[String]) -> Command {
    let mut command = cargo("mutants -p zerobuffer --timeout 300 --iterate -o target/mutants");
    command.arg(format!("--cargo-arg=--test={tests}")).args(arguments);
    command
}
