//! `zerobuffer completions`: a script that teaches a shell this command.

use crate::args::{Cli, CompletionsArgs};
use crate::failure::{Exit, Failure};
use crate::report::write_stdout;
use clap::CommandFactory;

/// Writes the script to standard output.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "zerobuffer", &mut script);
    write_stdout(&script)?;
    Ok(Exit::Done)
}
