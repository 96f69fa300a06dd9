//! The arguments.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Measures zerobuffer against the limits of this machine.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  zerobuffer-bench                        everything, about six minutes
  zerobuffer-bench --quick --json b.json  less exact, about half a minute
  zerobuffer-bench --only P1,P3           two figures with their limits

Ratios are comparable between runs and machines, times are not."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Write the figures here, for machines.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots here, for people.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write each plot of the page into this folder as an SVG file.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) svg: Option<PathBuf>,
    /// Put the table of the targets between the marks `<!-- measured -->` and `<!-- end -->` of this
    /// file; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Vec<PathBuf>,
    /// Measure nothing, and write what a run has put into this JSON file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "rounds", "cpus"])]
    pub(crate) from: Option<PathBuf>,
    /// Shorter rounds and fewer of them.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only these figures, for example P1,P3,L4.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Rounds for each figure [default: 9, for charts 7; with --quick 3 and 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: Option<u32>,
    /// The CPUs for client and server [default: the first two that are different cores].
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 2)]
    pub(crate) cpus: Option<Vec<usize>>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The other end of a measurement; started by the benchmark itself.
    #[command(hide = true)]
    Peer { spec: String },
    /// Both ends in turn on one thread: nobody waits, so the instructions of a round trip can be
    /// counted, for example with callgrind.
    #[command(hide = true)]
    Step {
        count: u64,
        /// With a client for many threads.
        #[arg(long)]
        shared: bool,
        /// Through a service.
        #[arg(long, conflicts_with = "shared")]
        service: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
