//! The `zerobuffer` command: serve a filter over a duplex channel, call it, see it work; write, read
//! and relay the frames of version 1 buffers.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod drawing;
mod failure;
mod filters;
mod interrupt;
mod output;
mod pattern;
mod picture;
mod report;

use args::{Cli, Command};
use clap::Parser;
use report::Report;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.common.verbose);
    let report = Report::new(cli.common.json);
    let outcome = match cli.command {
        Command::Demo(args) => commands::demo::run(&args, &cli.common, &report),
        Command::Serve(args) => commands::serve::run(args, &cli.common, &report),
        Command::Call(args) => commands::call::run(&args, &report),
        Command::Status(args) => commands::status::run(&args, &report),
        Command::Clean(args) => commands::clean::run(&args, &report),
        Command::Writer(args) => commands::stream::writer::run(&args, &report),
        Command::Reader(args) => commands::stream::reader::run(&args, &report),
        Command::Relay(args) => commands::stream::relay::run(&args, &report),
        Command::Completions(args) => commands::completions::run(&args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report.failure(&failure);
            failure.exit.into()
        }
    }
}

/// The library's events, and this program's: nothing below a warning unless asked for.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
