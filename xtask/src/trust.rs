//! What zerobuffer promises when its surroundings are against it: system calls that fail, hostile
//! peers, and processors that reorder.

use crate::fuzz;
use crate::packages::apt_install;
use crate::run::{cargo, cargo_test, has_nightly, not_run, step, together, with_cfg};
use anyhow::Result;
use std::process::Command;

/// How long what has no end of its own goes on.
pub(crate) struct Extent {
    hostile_seconds: u32,
    pub(crate) fuzz_seconds: u32,
    litmus_messages: u64,
}

impl Extent {
    /// In a run of everything.
    pub(crate) const SHORT: Self =
        Self { hostile_seconds: 20, fuzz_seconds: 10, litmus_messages: 2_000_000 };
    /// What docs/testing.md says of wake-ups, and time enough to find what is rare.
    pub(crate) const LONG: Self =
        Self { hostile_seconds: 60, fuzz_seconds: 60, litmus_messages: 10_000_000 };
}

/// Everything of this module.
pub(crate) fn test(extent: &Extent) -> Result<()> {
    faults_and_hostile(extent)?;
    fuzz::run(extent.fuzz_seconds)?;
    litmus(extent)
}

/// The tool with which a test traces system calls; the test says so if it is missing.
pub(crate) fn install_tools() {
    if Command::new("strace").arg("--version").output().is_err() {
        let _ = apt_install(&["strace"]);
    }
}

/// Every system call fails with every error that its manual names; and hostile processes for some time,
/// half of it under AddressSanitizer where the toolchain for that is.
///
/// The programs with failing calls wait most of the time, and count what their own process has: they run
/// next to each other and to the hostile ones, whose deadlines leave room for that.
pub(crate) fn faults_and_hostile(extent: &Extent) -> Result<()> {
    let faults = "--features zerobuffer-trust/faults --test faults";
    step("system calls that fail: build", cargo_test(&format!("{faults} --no-run")))?;
    let groups = [
        "in_place",
        "service",
        "two_buffers::a_duplex",
        "--skip in_place --skip service --skip two_buffers::a_duplex",
    ];
    let mut commands = Vec::from(groups.map(|filter| cargo_test(&format!("{faults} -- {filter}"))));
    let sanitized = has_nightly();
    let mut plain = cargo_test("--test hostile");
    let seconds = (extent.hostile_seconds / if sanitized { 2 } else { 1 }).to_string();
    plain.env("ZEROBUFFER_HOSTILE_SECONDS", &seconds);
    commands.push(plain);
    together("system calls that fail, and hostile peers", commands)?;
    if !sanitized {
        return not_run("hostile peers under AddressSanitizer", "no nightly toolchain");
    }
    let mut asan = Command::new("rustup");
    // With a target of its own, build scripts are left unsanitized.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    asan.args(["run", "nightly", "cargo", "test", "-p", "zerobuffer-trust", "--test", "hostile"]);
    asan.args(["--target", &host, "--target-dir", "target/asan"])
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("ZEROBUFFER_HOSTILE_SECONDS", seconds);
    step("hostile peers under AddressSanitizer", asan)
}

/// Millions of chances to lose a wake-up; and a build without one fence, which takes one
/// where the hardware lets it.
pub(crate) fn litmus(extent: &Extent) -> Result<()> {
    for (name, mut command) in litmus_commands("")? {
        command.env("ZEROBUFFER_LITMUS_MESSAGES", extent.litmus_messages.to_string());
        step(name, command)?;
    }
    Ok(())
}

/// Compiles what [`litmus`] runs.
pub(crate) fn build_litmus() -> Result<()> {
    for (name, command) in litmus_commands(" --no-run")? {
        step(&format!("{name}: build"), command)?;
    }
    Ok(())
}

fn litmus_commands(option: &str) -> Result<[(&'static str, Command); 2]> {
    let tests = format!("test --release -p zerobuffer-trust --test litmus{option}");
    let without_fence = with_cfg("zerobuffer_without_wake_fence", &tests)?;
    Ok([("lost wake-ups", cargo(&tests)), ("lost wake-ups, without a fence", without_fence)])
}
