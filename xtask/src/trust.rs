//! What zerobuffer promises when its surroundings are against it: system calls that fail.

use crate::steps::{cargo, step};
use anyhow::{Result, ensure};
use std::process::{Child, Command};
use std::time::Instant;

/// Everything of this module.
pub(crate) fn test() -> Result<()> {
    faults()
}

/// Every system call fails with every error that its manual names. Each program of the group counts
/// what its own process has, so they can run next to each other; they wait most of the time.
fn faults() -> Result<()> {
    let tests = "test -p zerobuffer-trust --features faults --test faults";
    step("system calls that fail: build", cargo(&format!("{tests} --no-run")))?;
    let group =
        ["in_place", "two_buffers::a_duplex", "--skip in_place --skip two_buffers::a_duplex"];
    let commands = group.map(|filter| cargo(&format!("{tests} -- {filter}")));
    together("system calls that fail", commands)
}

/// Runs several commands at the same time, and fails if one does.
fn together(name: &str, commands: impl IntoIterator<Item = Command>) -> Result<()> {
    let start = Instant::now();
    let start_one = |mut command: Command| {
        println!("=== {name}: {command:?}");
        command.spawn()
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
