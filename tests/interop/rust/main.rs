//! The peer in Rust; see the README of `tests/interop`.

mod client;
mod server;
mod work;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use zerobuffer::WaitStrategy;

#[derive(Parser)]
struct Arguments {
    /// What to do wrongly, for tests of the driver.
    #[arg(long, hide = true)]
    wrong: Option<Wrong>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    Server(server::Options),
    Client(client::Options),
}

/// What both roles are told.
#[derive(Args)]
struct Common {
    channel: String,
    #[arg(long)]
    kind: Kind,
    #[arg(long, default_value = "default")]
    wait: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    InPlace,
    TwoBuffers,
    Service,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wait {
    Default,
    Spin,
    Park,
}

impl Wait {
    fn strategy(self) -> WaitStrategy {
        match self {
            Self::Default => WaitStrategy::default(),
            Self::Spin => WaitStrategy::Spin,
            Self::Park => WaitStrategy::Park,
        }
    }
}

/// Ways to be wrong, each of which the driver must notice.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wrong {
    /// The server leaves the last byte of a transformed request as it was.
    Byte,
    /// The server answers `F` as if it were `T`.
    Failure,
    /// The server answers `M` with nothing.
    Metadata,
    /// The server has one worker, whatever it is told.
    Order,
    /// The server never says `ready`.
    Silent,
    /// The server does not stop when it is told to.
    Deaf,
    /// The server leaves an object in shared memory.
    Object,
    /// The server leaves a process behind.
    Process,
    /// The client never ends.
    Hang,
}

fn main() -> Result<()> {
    let Arguments { wrong, role } = Arguments::parse();
    match role {
        Role::Server(options) => server::serve(options, wrong),
        Role::Client(options) => client::run(options, wrong),
    }
}
