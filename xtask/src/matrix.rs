//! Every language's server with every language's client: `tests/interop`.

use crate::csharp;
use crate::native;
use crate::python_package;
use crate::run::{cargo, root, step};
use anyhow::Result;
use std::process::Command;

/// A language's peer, as a server and as a client.
struct Peer {
    name: &'static str,
    /// Builds it, installing what that needs, and returns the command that starts it.
    build: fn() -> Result<String>,
}

/// All of them. A peer that cannot be built makes red cells, with the reason.
const PEERS: [Peer; 5] = [
    Peer { name: "rust", build: rust },
    Peer { name: "cpp", build: native::cpp_peer },
    Peer { name: "cffi", build: native::cffi_peer },
    Peer { name: "csharp", build: csharp::peer },
    Peer { name: "python", build: python_package::peer },
];

/// Builds all peers and runs the driver with these further options.
pub(crate) fn matrix(options: &[String]) -> Result<()> {
    run(driver(options)?)
}

/// The driver, with all peers built.
pub(crate) fn driver(options: &[String]) -> Result<Command> {
    step("the matrix's driver", cargo("build --release -p zerobuffer-interop"))?;
    let mut driver = Command::new(root().join("target/release/interop-matrix"));
    for (name, command) in peers() {
        match command {
            Ok(command) => driver.args(["--peer", &format!("{name}={command}")]),
            Err(reason) => driver.args(["--missing", &format!("{name}={reason:#}")]),
        };
    }
    driver.args(options);
    Ok(driver)
}

pub(crate) fn run(driver: Command) -> Result<()> {
    step("every language with every other", driver)
}

/// Each language with the command that starts its peer, which is built by this, or the reason why it
/// cannot be.
pub(crate) fn peers() -> impl Iterator<Item = (&'static str, Result<String>)> {
    PEERS.into_iter().map(|Peer { name, build }| (name, build()))
}

/// The driver's own package holds it.
fn rust() -> Result<String> {
    Ok(quoted("target/release/interop-peer"))
}

/// A file of this folder, for a command.
fn quoted(file: &str) -> String {
    format!("'{}'", root().join(file).display())
}
