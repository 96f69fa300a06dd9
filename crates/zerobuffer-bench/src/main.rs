//! How close zerobuffer comes to the limits of the machine.
//!
//! Every figure is a ratio of two things that are measured in one run and in turn, each in a process
//! pair of its own whose ends are pinned to different CPUs. A round is compared with its own limit
//! only, because machines change their mode between rounds.
//!
//! | file | holds |
//! |---|---|
//! | `cli` | the arguments |
//! | `figures` | what is measured against what, and the targets |
//! | `limits` | L1 to L4: what the hardware and the operating system allow |
//! | `systems/` | the same through zerobuffer's channels, and through what people would use instead |
//! | `work` | what client and handler do with a frame |
//! | `peer` | the other process |
//! | `shared` | memory that both processes map, for the limits |
//! | `usage` | memory and CPU time of a process |
//! | `harness` | rounds, batches and histograms |
//! | `stats`, `machine`, `report` | arithmetic, the machine, the output |
#![deny(unsafe_code)]

mod cli;
mod figures;
mod harness;
mod limits;
mod machine;
mod peer;
mod report;
mod shared;
mod stats;
mod systems;
mod usage;
mod work;

use anyhow::{Result, ensure};
use clap::Parser;

fn main() -> Result<()> {
    shared::give_memory_back();
    machine::raise_descriptor_limit();
    match cli::Args::parse() {
        cli::Args { command: Some(cli::Command::Peer { spec }), .. } => peer::run(&spec),
        cli::Args { command: Some(cli::Command::Step { count }), .. } => {
            systems::in_place::step(count)
        }
        args => measure(&args),
    }
}

fn measure(args: &cli::Args) -> Result<()> {
    let report = match &args.from {
        Some(path) => report::Report::read_json(path)?,
        None => {
            let machine = machine::Machine::describe(args.cpus.as_deref())?;
            let plan = figures::plan(&args.only)?;
            harness::run(&plan, harness::Effort::new(args.quick, args.rounds), machine)?
        }
    };
    println!("{report}");
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if let Some(path) = &args.html {
        report.write_page(path)?;
    }
    if let Some(folder) = &args.svg {
        report.write_plots(folder)?;
    }
    args.markdown.iter().try_for_each(|path| report.update_markdown(path))?;
    ensure!(!report.has_failures(), "some figures could not be measured, see above");
    Ok(())
}
