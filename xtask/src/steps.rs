//! The steps of `cargo xtask test`, in their order.

use crate::run::{
    beside, cargo, cargo_test, forget_not_run, library_with_cfg, print_longest, print_not_run, step,
};
use crate::shm::{Snapshot, outlive_interruption};
use crate::{
    api, bench, csharp, csharp_package, documents, failpoints, figures, fuzz, header, hot_path,
    matrix, native, python, python_existing, python_package, soak, texts, trust,
};
use anyhow::Result;
use std::time::Instant;

/// Everything, and a summary of what could not be run here.
pub(crate) fn test() -> Result<()> {
    outlive_interruption()?;
    let start = Instant::now();
    forget_not_run();
    let shm = Snapshot::take()?;
    let outcome = all().and_then(|()| shm.check_unchanged());
    print_longest();
    print_not_run();
    outcome?;
    println!("everything else passed in {} s", start.elapsed().as_secs());
    Ok(())
}

fn all() -> Result<()> {
    lint()?;
    header::check()?;
    api::check()?;
    trust::install_tools();
    // Two rows at a time, since many steps wait most of the time. Of each profile cargo compiles for one command at a
    // time, so one row has what is optimised, and the other one what is not.
    beside(
        || {
            documents::test()?;
            native::test()
        },
        || {
            tests()?;
            loom()?;
            unsupported()
        },
    )?;
    // Readers of the existing Python package remove what dead ones have left, so they are not beside the tests above.
    beside(
        || {
            csharp::test()?;
            csharp_package::test()?;
            python_package::test()?;
            python_existing::test()
        },
        || {
            failpoints::test()?;
            soak::brief()?;
            trust::faults_and_hostile(&trust::Extent::SHORT)?;
            fuzz::build()
        },
    )?;
    // What is compiled beside the matrix is optimised as its peers are, so these come first.
    let matrix = matrix::driver(&[])?;
    beside(
        || matrix::run(matrix),
        || {
            step("the benchmark: build", cargo("test --release -p zerobuffer-bench --no-run"))?;
            trust::build_litmus()
        },
    )?;
    // These need all CPUs.
    trust::litmus(&trust::Extent::SHORT)?;
    fuzz::run(trust::Extent::SHORT.fuzz_seconds)?;
    hot_path::hot_path()?;
    benchmark()
}

/// The tests of all packages, and those against the existing Python package.
fn tests() -> Result<()> {
    step(
        "unit, model and integration tests",
        cargo_test("").env(python::V1_PYTHON, python::v1_venv()?),
    )
}

/// Texts, formatting, lints and documentation.
pub(crate) fn lint() -> Result<()> {
    texts::check()?;
    figures::check()?;
    step("format", cargo("fmt --all --check"))?;
    let lints = "clippy --workspace --all-targets --all-features -- -D warnings";
    step("lints", cargo(lints))?;
    let mut doc = cargo("doc --workspace --no-deps --document-private-items");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", doc)
}

/// Version 1 against the existing Python package.
pub(crate) fn interop() -> Result<()> {
    let mut test = cargo_test("--test v1_interop");
    test.env(python::V1_PYTHON, python::v1_venv()?);
    step("version 1 against the existing Python package", test)
}

/// The loom models, negative controls among them.
pub(crate) fn loom() -> Result<()> {
    step("loom models", library_with_cfg("loom", "models")?)
}

/// What other systems get: everything compiles, and says clearly that it is not supported.
fn unsupported() -> Result<()> {
    let tests = library_with_cfg("zerobuffer_unsupported", "unsupported")?;
    step("systems without an implementation", tests)
}

/// That the benchmark runs, not how fast. Its tests share the optimised build with it.
fn benchmark() -> Result<()> {
    step("the benchmark's own tests", cargo("test --release -p zerobuffer-bench"))?;
    let options = ["--quick", "--json", "target/bench.json", "--html", "target/bench.html"];
    bench::bench(&options.map(str::to_owned))
}
