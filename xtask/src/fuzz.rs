//! The fuzzer: whatever bytes a peer leaves in shared memory (`tests/fuzz`).

use crate::packages::apt_install;
use crate::run::{has_nightly, not_run, step, together};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// The names of `zerobuffer_fuzz::TARGETS`.
const TARGETS: [&str; 8] =
    ["names", "attach", "server", "hello", "reply", "status", "v1-writer", "v1-reader"];

/// What libFuzzer needs to see of the code: which edges are taken, and what is compared.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions \
                        -Ccodegen-units=1";

/// Each target for `seconds`, all at the same time, starting from the committed corpus.
pub(crate) fn run(seconds: u32) -> Result<()> {
    build()?;
    let host = host();
    let program = format!("target/fuzz/{host}/release/zerobuffer-fuzz");
    let commands = TARGETS.iter().map(|target| {
        let found = format!("target/fuzz/corpus/{target}");
        let committed = format!("tests/fuzz/corpus/{target}");
        let mut command = Command::new(&program);
        command
            .env("ZEROBUFFER_FUZZ_TARGET", target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix=target/fuzz/{target}-"))
            .args(["-timeout=20", "-max_len=600", "-print_final_stats=1", "-verbosity=0"])
            .args([&found, &committed]);
        std::fs::create_dir_all(&found).context("target/ can be written").map(|()| command)
    });
    together("fuzzing", commands.collect::<Result<Vec<_>>>()?)?;
    ensure!(Path::new(&program).exists(), "the fuzzer does not exist any more");
    Ok(())
}

/// Under AddressSanitizer where there is a toolchain for it.
pub(crate) fn build() -> Result<()> {
    if !Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        apt_install(&["g++"])?;
    }
    let sanitized = has_nightly();
    let (toolchain, sanitizer) =
        if sanitized { ("nightly", " -Zsanitizer=address") } else { ("stable", "") };
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", toolchain, "cargo", "build", "--release", "-p", "zerobuffer-fuzz"])
        .args(["--target", &host(), "--target-dir", "target/fuzz"])
        .env("RUSTFLAGS", format!("{COVERAGE}{sanitizer}"));
    if !sanitized {
        not_run("fuzzing under AddressSanitizer", "no nightly toolchain")?;
    }
    step("fuzzer: build", cargo)
}

fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
