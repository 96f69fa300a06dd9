//! `cargo xtask`: everything that CI does, runnable at home.

mod api;
mod bench;
mod count;
mod csharp;
mod csharp_package;
mod documents;
mod dotnet;
mod failpoints;
mod figures;
mod fuzz;
mod header;
mod hot_path;
mod matrix;
mod mutants;
mod native;
mod native_documents;
mod native_tools;
mod packages;
mod python;
mod python_existing;
mod python_package;
mod run;
mod shm;
mod soak;
mod steps;
mod texts;
mod trust;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Development tasks of the zerobuffer repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check and test everything, as CI does.
    Test,
    /// Texts, formatting, lints and documentation only.
    Lint,
    /// How long functions, files and the parts of the house are.
    Figures,
    /// The loom models of the ring and of waiting.
    Loom,
    /// The C interface under AddressSanitizer and valgrind, and the C++ binding.
    Native,
    /// Whether all languages offer the same, by the tables of docs/api.md.
    Api,
    /// That what the documents show is run, and what a new user does first.
    Documents,
    /// References to sections, links, and words that must not come back, in all texts.
    Texts,
    /// Write the C header from the sources of the C interface.
    Header,
    /// The tests against the existing Python package of version 1, which is installed under target/.
    Interop,
    /// The C# binding, with the .NET SDK, which is put under target/.
    Csharp,
    /// The Python package: its tests, and its types.
    Python,
    /// Programs of the existing Python package with ours, and its own tests.
    Existing,
    /// The Python package as a wheel and as sources, in target/wheels.
    Wheel,
    /// Every language's server with every language's client, as real processes.
    Matrix {
        /// Options of the driver, such as `--json FILE` or `--server rust`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The benchmark, with everything that it can be compared with installed and built.
    Bench {
        /// Options of the benchmark, such as `--html FILE`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Counts the instructions of a round trip with callgrind.
    HotPath,
    /// Breaks the ring, waiting and liveness line by line, and sees which test notices; takes hours.
    Mutants {
        /// Options of `cargo mutants`, such as `--file wait/mod.rs`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Kills and stops processes at every step of the protocol, and shows that a release cannot do that.
    Failpoints,
    /// Kills real processes at random for as long as you like; `cargo xtask soak --help` tells how long.
    #[command(disable_help_flag = true)]
    Soak {
        /// What the program `zerobuffer-soak` understands.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// System calls that fail, hostile peers, and memory that is reordered.
    Trust {
        /// Ten million messages for wake-ups, and minutes of what is random, as docs/testing.md has it.
        #[arg(long)]
        long: bool,
    },
    /// Feeds the library whatever bytes a peer could leave in shared memory.
    Fuzz {
        /// How long each target runs; all of them at the same time.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed, without the stack of the program that noticed.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Test => steps::test(),
        Task::Lint => steps::lint(),
        Task::Figures => figures::check(),
        Task::Loom => steps::loom(),
        Task::Native => native::test(),
        Task::Api => api::check(),
        Task::Documents => documents::test(),
        Task::Texts => texts::check(),
        Task::Header => header::write(),
        Task::Interop => steps::interop(),
        Task::Csharp => csharp::test().and_then(|()| csharp_package::test()),
        Task::Python => python_package::test(),
        Task::Existing => python_existing::test(),
        Task::Wheel => python_package::wheel(),
        Task::Matrix { options } => matrix::matrix(&options),
        Task::Bench { options } => bench::bench(&options),
        Task::HotPath => hot_path::hot_path(),
        Task::Mutants { options } => mutants::run(&options),
        Task::Failpoints => failpoints::test(),
        Task::Soak { arguments } => soak::run(&arguments),
        Task::Trust { long: false } => trust::test(&trust::Extent::SHORT),
        Task::Trust { long: true } => trust::test(&trust::Extent::LONG),
        Task::Fuzz { seconds } => fuzz::run(seconds),
    }
}
