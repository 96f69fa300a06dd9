//! Random kills with restarts, as a program of their own (`tests/soak`).

use crate::run::{cargo, step};
use anyhow::Result;

/// As many kills as there is time for in a full run.
pub(crate) fn brief() -> Result<()> {
    run(&["--kills".to_owned(), "500".to_owned()])
}

/// With the program's own arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut soak = cargo("run --release -p zerobuffer-soak --");
    soak.args(arguments);
    step("random kills with restarts", soak)
}
