//! The steps of `cargo xtask test`, in their order.

use crate::run::{cargo, forget_not_run, print_not_run, step, with_cfg};
use crate::shm::{Snapshot, outlive_interruption};
use crate::{
    api, bench, csharp, documents, failpoints, figures, header, hot_path, matrix, native, python,
    python_existing, python_package, soak, texts, trust,
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
    print_not_run();
    outcome?;
    println!("everything else passed in {} s", start.elapsed().as_secs());
    Ok(())
}

fn all() -> Result<()> {
    lint()?;
    header::check()?;
    api::check()?;
    documents::test()?;
    trust::install_tools();
    step(
        "unit, model and integration tests",
        cargo("test --workspace --exclude zerobuffer-bench"),
    )?;
    step("tests with tracing", cargo("test -p zerobuffer --features tracing --lib"))?;
    interop()?;
    native::test()?;
    csharp::test()?;
    python_package::test()?;
    python_existing::test()?;
    matrix::matrix(&[])?;
    failpoints::test()?;
    soak::brief()?;
    loom()?;
    unsupported()?;
    trust::test()?;
    hot_path::hot_path()?;
    benchmark()
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
    let mut test = cargo("test -p zerobuffer --features interop --test v1_interop");
    test.env("ZEROBUFFER_V1_PYTHON", python::v1_venv()?);
    step("version 1 against the existing Python package", test)
}

/// The loom models, negative controls among them.
pub(crate) fn loom() -> Result<()> {
    step("loom models", with_cfg("loom", "test -p zerobuffer --release --lib models"))
}

/// What other systems get: everything compiles, and says clearly that it is not supported.
fn unsupported() -> Result<()> {
    let arguments = "test -p zerobuffer --lib unsupported";
    step("systems without an implementation", with_cfg("zerobuffer_unsupported", arguments))
}

/// That the benchmark runs, not how fast. Its tests share the optimised build with it.
fn benchmark() -> Result<()> {
    step("the benchmark's own tests", cargo("test --release -p zerobuffer-bench"))?;
    let options = ["--quick", "--json", "target/bench.json", "--html", "target/bench.html"];
    bench::bench(&options.map(str::to_owned))
}
