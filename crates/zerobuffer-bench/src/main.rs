//! How close zerobuffer comes to the limits of the machine.
//!
//! Every figure is a ratio of two things that are measured in one run and in turn, each in a process
//! pair of its own whose ends are pinned to different CPUs. A round is compared with its own limit
//! only, because machines change their mode between rounds.
//!
//! | file | holds, each importing from those below only |
//! |---|---|
//! | `cli` | the arguments |
//! | `harness` | rounds: what a plan names, in turn |
//! | `report/` | the output |
//! | `figures/` | what is measured against what, and the targets |
//! | `roles` | what the other process can be |
//! | `systems/` | the same through zerobuffer's channels, and through what people would use instead |
//! | `limits` | L1 to L5: what the hardware and the operating system allow |
//! | `peer` | the other process |
//! | `plan` | what a plan of measurements consists of |
//! | `timing` | batches and histograms |
//! | `latest` | one measurement for several figures |
//! | `work` | what client and handler do with a frame |
//! | `shared` | memory that both processes map, for the limits |
//! | `machine`, `usage`, `names`, `stats` | the machine, a process's memory and CPU time, names of objects, arithmetic |
#![deny(unsafe_code)]

mod cli;
mod figures;
mod harness;
mod latest;
mod limits;
mod machine;
mod names;
mod peer;
mod plan;
mod report;
mod roles;
mod shared;
mod stats;
mod systems;
mod timing;
mod usage;
mod work;

use anyhow::{Result, ensure};
use clap::Parser;

fn main() -> Result<()> {
    shared::give_memory_back();
    machine::raise_descriptor_limit();
    match cli::Args::parse() {
        cli::Args { command: Some(cli::Command::Peer { spec }), .. } => roles::run(&spec),
        cli::Args { command: Some(cli::Command::Step { count, shared, service }), .. } => {
            match (shared, service) {
                (true, _) => systems::shared_client::step(count),
                (_, true) => systems::service::step(count),
                _ => systems::in_place::step(count),
            }
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
