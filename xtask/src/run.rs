//! How steps are run, and where: what all tasks share.

use anyhow::{Context, Result, ensure};
use std::borrow::BorrowMut;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The variable by which tests learn where to note what they could not do.
const NOT_RUN: &str = "ZEROBUFFER_NOT_RUN";

/// What has passed in this run, and how long it took.
static STEPS: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// So many of them are listed at the end.
const LONGEST: usize = 25;

/// The packages with tests and their features. Always all of them, whichever tests are wanted: cargo joins the features
/// that the chosen packages ask of a dependency, and compiles it again for each other choice. The Python package has
/// no tests that cargo runs, and the benchmark has its own, optimised.
const TESTED: &str = "--workspace --exclude zerobuffer-python --exclude zerobuffer-bench \
                      --features zerobuffer/interop,zerobuffer/tokio";

/// Packages that ask together for the same features of dependencies as [`TESTED`]; only the first one is a library.
const LIBRARY: &str = "-p zerobuffer -p zerobuffer-cli -p zerobuffer-soak -p xtask";

/// `cargo test` with these arguments, which choose among the tests of all packages.
pub(crate) fn cargo_test(arguments: &str) -> Command {
    cargo(format!("test {TESTED} {arguments}").trim_end())
}

/// The library's unit tests of this name, with a `--cfg`.
pub(crate) fn library_with_cfg(cfg: &str, tests: &str) -> Result<Command> {
    with_cfg(cfg, &format!("test {LIBRARY} --lib {tests}"))
}

/// A cargo command with a `--cfg` for the packages of this repository alone. `RUSTFLAGS` would have all dependencies
/// compiled again; a wrapper is only for packages of the workspace, and cargo keeps apart what each wrapper makes.
pub(crate) fn with_cfg(cfg: &str, arguments: &str) -> Result<Command> {
    let wrapper = root().join("target/cfg").join(cfg);
    std::fs::create_dir_all(wrapper.parent().expect("it has two"))?;
    std::fs::write(&wrapper, format!("#!/bin/sh\nexec \"$@\" --cfg {cfg}\n"))?;
    std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755))?;
    let mut command = cargo(arguments);
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    Ok(command)
}

pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' '));
    if std::env::var_os("CI").is_some() {
        // Nothing is compiled there a second time, and notes for that are a fifth of the first.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
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
    let status = command.env(NOT_RUN, list()).status();
    let status = status.with_context(|| format!("{name}: cannot be started"))?;
    ensure!(status.success(), "{name} failed ({status})");
    passed(name, start);
    Ok(())
}

/// Two rows of steps at the same time. Both are waited for, also if one fails.
pub(crate) fn beside(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join(), other)
    });
    one.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(other)
}

fn passed(name: &str, start: Instant) {
    let took = start.elapsed();
    println!("=== {name}: passed in {:.1} s", took.as_secs_f64());
    STEPS.lock().unwrap_or_else(PoisonError::into_inner).push((took, name.to_owned()));
}

/// Runs several commands at the same time, and fails if one does.
pub(crate) fn together(name: &str, commands: impl IntoIterator<Item = Command>) -> Result<()> {
    let start = Instant::now();
    let start_one = |mut command: Command| {
        println!("=== {name}: {command:?}");
        command.env(NOT_RUN, list()).spawn()
    };
    let children: Vec<Child> =
        commands.into_iter().map(start_one).collect::<std::io::Result<_>>()?;
    // All of them are waited for, also if one has failed: none is left behind.
    let ended: Vec<_> = children.into_iter().map(|mut child| child.wait()).collect();
    for status in ended {
        let status = status?;
        ensure!(status.success(), "{name} failed ({status})");
    }
    passed(name, start);
    Ok(())
}

/// The steps of a run that took longest, for who wants it to be shorter.
pub(crate) fn print_longest() {
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    steps.sort();
    println!("\n=== the steps that took longest");
    for (took, name) in steps.iter().rev().take(LONGEST) {
        println!("{:6.1} s  {name}", took.as_secs_f64());
    }
}

/// Says what cannot be tested here, now and in the summary of the run.
pub(crate) fn not_run(what: &str, why: &str) -> Result<()> {
    let line = format!("not run: {what} ({why})");
    println!("{line}");
    let mut list = File::options().create(true).append(true).open(list())?;
    writeln!(list, "{line}")?;
    Ok(())
}

/// Where tests note what they could not do.
fn list() -> PathBuf {
    root().join("target/not-run.txt")
}

/// Begins a run of everything: nothing is noted yet.
pub(crate) fn forget_not_run() {
    let _ = std::fs::remove_file(list());
}

/// The summary of a run: what was not run, with how many tests said so.
pub(crate) fn print_not_run() {
    let text = std::fs::read_to_string(list()).unwrap_or_default();
    let summary = summary(&text);
    match summary.as_slice() {
        [] => println!("\n=== nothing is noted that could not be run here"),
        lines => println!("\n=== not run here: {}\n{}", lines.len(), lines.join("\n")),
    }
}

/// Each line once, in the order of the run. Several steps may run the same test.
fn summary(text: &str) -> Vec<String> {
    let mut lines: Vec<(&str, usize)> = Vec::new();
    for line in text.lines() {
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => lines.push((line, 1)),
        }
    }
    let say = |(line, count): (&str, usize)| match count {
        1 => line.to_owned(),
        _ => format!("{line}, {count} times"),
    };
    lines.into_iter().map(say).collect()
}

pub(crate) fn has_nightly() -> bool {
    let nightly = Command::new("rustup").args(["run", "nightly", "cargo", "--version"]).output();
    nightly.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_each_line_once_with_how_often_it_was_said() {
        let text = "not run: a (no root)\nnot run: b (no strace)\nnot run: a (no root)\n";
        assert_eq!(summary(text), ["not run: a (no root), 2 times", "not run: b (no strace)"]);
    }
}
