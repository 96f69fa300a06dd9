//! `zerobuffer clean`: removes what is left of a service.

use crate::args::CleanArgs;
use crate::failure::{Exit, Failure};
use crate::report::Report;
use serde::Serialize;
use zerobuffer::Servers;

/// What `clean --json` says.
#[derive(Debug, Serialize)]
struct CleanRecord<'a> {
    ok: bool,
    command: &'static str,
    name: &'a str,
    /// Nothing of the service is left.
    removed: bool,
}

pub(crate) fn run(args: &CleanArgs, report: &Report) -> Result<Exit, Failure> {
    let name = args.name.as_str();
    let removed = Servers::of(name)?.clean().map_err(|error| Failure::from(error).about(name))?;
    let record = CleanRecord { ok: true, command: "clean", name, removed };
    report.result(&record, || match removed {
        true => format!("nothing is left of service {name:?}"),
        false => format!(
            "the directory of service {name:?} stays: a server listens there, or something in it is no server's"
        ),
    })?;
    Ok(Exit::Done)
}
