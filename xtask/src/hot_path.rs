//! The instructions of a round trip, counted by callgrind: a guard against slow growth that does not
//! depend on how busy the machine is.

use crate::native;
use crate::packages::apt_install;
use crate::run::{cargo, root, step};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Of a round trip of eight bytes, client and server together; 3 % more than measured. Lower it
/// when the code gets better; raise it only for something that is worth it.
const MOST: u64 = 590;
/// The same with a shared client that nobody else uses.
const MOST_SHARED: u64 = 760;
/// The same through a service that looks at the clock and at what the system has to tell in each of them, as
/// the program pauses so long; with that pause.
const MOST_OF_A_SERVICE: u64 = 1115;
/// The same in C++: five calls of the C interface.
const MOST_IN_CPP: u64 = 968;

/// Fails if a round trip takes more instructions than that, in Rust or in C++.
pub(crate) fn hot_path() -> Result<()> {
    step("the benchmark", cargo("build --release -p zerobuffer-bench"))?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        apt_install(&["valgrind"])?;
    }
    let in_rust = root().join("target/release/zerobuffer-bench");
    let rust: [(_, _, &[&str]); 3] = [
        ("Rust", MOST, &[]),
        ("Rust, with a shared client,", MOST_SHARED, &["--shared"]),
        ("Rust, through a service,", MOST_OF_A_SERVICE, &["--service"]),
    ];
    for (way, most, options) in rust {
        check(way, most, |count| {
            let mut command = callgrind();
            command.arg(&in_rust).arg("step").args(options).arg(count);
            command
        })?;
    }
    let in_cpp = native::step_program()?;
    check("C++", MOST_IN_CPP, |count| {
        let mut command = callgrind();
        command.arg(&in_cpp).arg(count);
        command
    })
}

/// Fails if each of the round trips that a program makes takes more than `most`.
fn check(language: &str, most: u64, program: impl Fn(&str) -> Command) -> Result<()> {
    const ROUND_TRIPS: u64 = 2000;
    // The difference of two runs is the round trips alone, without start and end.
    let count = |round_trips: u64| instructions(&mut program(&round_trips.to_string()));
    let (less, more) = (count(ROUND_TRIPS)?, count(2 * ROUND_TRIPS)?);
    let each = more.saturating_sub(less) / ROUND_TRIPS;
    println!(
        "=== a round trip in {language} takes {each} instructions, at most {most} are allowed"
    );
    ensure!(each > 0, "callgrind counted nothing");
    ensure!(
        each <= most,
        "a round trip in {language} takes {each} instructions, and took at most {most} before"
    );
    Ok(())
}

fn callgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind
}

/// Of a whole run.
fn instructions(run: &mut Command) -> Result<u64> {
    let output = run.output().context("valgrind cannot be started: apt-get install valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind failed ({}):\n{text}", output.status);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) =
        collected.with_context(|| format!("no count in callgrind's output:\n{text}"))?;
    count.trim().parse().with_context(|| format!("not a count: {count}"))
}
