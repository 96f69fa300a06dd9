//! What zerobuffer promises when its surroundings are against it: system calls that fail, hostile
//! peers, and processors that reorder.

use crate::fuzz;
use crate::packages::apt_install;
use crate::run::{cargo, has_nightly, not_run, step, together, with_cfg};
use anyhow::Result;
use std::process::Command;

/// Everything of this module.
pub(crate) fn test() -> Result<()> {
    faults_and_hostile()?;
    fuzz::run(15)?;
    litmus()
}

/// The tool with which a test traces system calls; the test says so if it is missing.
pub(crate) fn install_tools() {
    if Command::new("strace").arg("--version").output().is_err() {
        let _ = apt_install(&["strace"]);
    }
}

/// Every system call fails with every error that its manual names; and a minute of hostile processes,
/// half of it under AddressSanitizer where the toolchain for that is.
///
/// The programs with failing calls wait most of the time, and count what their own process has: they run
/// next to each other and to the hostile ones, whose deadlines leave room for that.
fn faults_and_hostile() -> Result<()> {
    let faults = "test -p zerobuffer-trust --features faults --test faults";
    let hostile = "test -p zerobuffer-trust --test hostile";
    step("system calls that fail: build", cargo(&format!("{faults} --no-run")))?;
    let groups =
        ["in_place", "two_buffers::a_duplex", "--skip in_place --skip two_buffers::a_duplex"];
    let mut commands = Vec::from(groups.map(|filter| cargo(&format!("{faults} -- {filter}"))));
    let sanitized = has_nightly();
    let mut plain = cargo(hostile);
    plain.env("ZEROBUFFER_HOSTILE_SECONDS", if sanitized { "30" } else { "60" });
    commands.push(plain);
    together("system calls that fail, and hostile peers", commands)?;
    if !sanitized {
        return not_run("hostile peers under AddressSanitizer", "no nightly toolchain");
    }
    let mut asan = Command::new("rustup");
    // With a target of its own, build scripts are left unsanitized.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    asan.args(["run", "nightly", "cargo"]).args(hostile.split(' ')).args(["--target", &host]);
    asan.args(["--target-dir", "target/asan"])
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("ZEROBUFFER_HOSTILE_SECONDS", "30");
    step("hostile peers under AddressSanitizer", asan)
}

/// Ten million chances to lose a wake-up; and a build without one fence, which takes one
/// where the hardware lets it.
fn litmus() -> Result<()> {
    let tests = "test --release -p zerobuffer-trust --test litmus";
    for (name, mut command) in [
        ("lost wake-ups", cargo(tests)),
        ("lost wake-ups, without a fence", with_cfg("zerobuffer_without_wake_fence", tests)),
    ] {
        command.env("ZEROBUFFER_LITMUS_MESSAGES", "10000000");
        step(name, command)?;
    }
    Ok(())
}
