//! The instructions of a round trip, counted by callgrind: a guard against slow growth that does not
//! depend on how busy the machine is.

use crate::packages::apt_install;
use crate::steps::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Of a round trip of eight bytes, client and server together; a tenth more than measured. Lower it
/// when the code gets better; raise it only for something that is worth it.
const MOST: u64 = 680;

/// Fails if a round trip takes more instructions than that.
pub(crate) fn hot_path() -> Result<()> {
    step("the benchmark", cargo("build --release -p zerobuffer-bench"))?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        apt_install(&["valgrind"])?;
    }
    const ROUND_TRIPS: u64 = 2000;
    // The difference of two runs is the round trips alone, without start and end.
    let less = instructions(ROUND_TRIPS)?;
    let more = instructions(2 * ROUND_TRIPS)?;
    let each = more.saturating_sub(less) / ROUND_TRIPS;
    println!("=== a round trip takes {each} instructions, at most {MOST} are allowed");
    ensure!(each > 0, "callgrind counted nothing");
    ensure!(each <= MOST, "a round trip takes {each} instructions, and took at most {MOST} before");
    Ok(())
}

/// Of a whole run with so many round trips.
fn instructions(round_trips: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(root().join("target/release/zerobuffer-bench"))
        .args(["step", &round_trips.to_string()])
        .output()
        .context("valgrind cannot be started: apt-get install valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind failed ({}):\n{text}", output.status);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) =
        collected.with_context(|| format!("no count in callgrind's output:\n{text}"))?;
    count.trim().parse().with_context(|| format!("not a count: {count}"))
}
