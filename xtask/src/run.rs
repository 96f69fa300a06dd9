//! How steps are run, and where: what all tasks share.

use anyhow::{Context, Result, ensure};
use std::borrow::BorrowMut;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

/// The variable by which tests learn where to note what they could not do.
const NOT_RUN: &str = "ZEROBUFFER_NOT_RUN";

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
    command.args(arguments.split(' '));
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
    println!("=== {name}: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
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
    println!("=== {name}: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
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
