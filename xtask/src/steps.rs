//! The steps of `cargo xtask test`, in their order.

use crate::shm::Snapshot;
use crate::{
    api, bench, csharp, documents, failpoints, header, hot_path, matrix, native, python,
    python_existing, python_package, soak, texts, trust,
};
use anyhow::{Context, Result, ensure};
use std::borrow::BorrowMut;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Everything.
pub(crate) fn test() -> Result<()> {
    let start = Instant::now();
    let shm = Snapshot::take()?;
    let _ = std::fs::remove_file(not_run());
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
    benchmark()?;
    shm.check_unchanged()?;
    print!("{}", std::fs::read_to_string(not_run()).unwrap_or_default());
    println!("everything passed in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Texts, formatting, lints and documentation.
pub(crate) fn lint() -> Result<()> {
    texts::check()?;
    step("format", cargo("fmt --all --check"))?;
    let lints = "clippy --workspace --all-targets --all-features -- -D warnings";
    step("lints", cargo(lints))?;
    let mut doc = cargo("doc --workspace --no-deps --document-private-items");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", doc)
}

/// Version 1 against the peer that others have deployed.
pub(crate) fn interop() -> Result<()> {
    let mut test = cargo("test -p zerobuffer --features interop --test v1_interop");
    test.env("ZEROBUFFER_V1_PYTHON", python::v1_venv()?);
    step("version 1 against the deployed Python peer", test)
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

/// A cargo command with a `--cfg` of its own, and so with a target folder of its own.
pub(crate) fn with_cfg(cfg: &str, arguments: &str) -> Command {
    let mut command = cargo(arguments);
    command
        .env("RUSTFLAGS", format!("--cfg {cfg}"))
        .env("CARGO_TARGET_DIR", format!("target/{cfg}"));
    command
}

pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' ')).env("ZEROBUFFER_NOT_RUN", not_run());
    command
}

/// Where tests note what they could not do here, to be repeated at the end of the run.
fn not_run() -> PathBuf {
    root().join("target/not-run.txt")
}

/// The repository's own folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository's folder")
}

/// Runs one step, and fails with its name.
pub(crate) fn step(name: &str, mut command: impl BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    println!("\n=== {name}: {command:?}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("{name}: cannot be started"))?;
    ensure!(status.success(), "{name} failed ({status})");
    println!("=== {name}: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
