//! Several server processes of one service, which end with this one.

use crate::args::{Common, ServeArgs, ServiceOptions};
use crate::commands::child::ServerProcess;
use crate::commands::serving::{self, CHECK, Event, Kind, Tally, greeting};
use crate::failure::Failure;
use crate::filters::{Filter, ImageOptions};
use crate::report::Report;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use zerobuffer::{ChannelName, Servers};

/// Serves until there is a reason to stop, which is returned. A process that ends earlier is replaced; if
/// its replacement cannot serve, all stop, and that is the failure.
pub(super) fn serve(
    args: &ServeArgs,
    common: &Common,
    report: &Report,
    reasons: &Receiver<&'static str>,
    tally: &Tally,
) -> Result<&'static str, Failure> {
    let options = options(args, common);
    let start = || ServerProcess::start(&args.name, Kind::Service, &options);
    let mut servers =
        (0..args.service.processes).map(|_| start()).collect::<Result<Vec<_>, Failure>>()?;
    let pids = servers.iter().map(ServerProcess::pid).collect();
    let name = ChannelName::new(&args.name)?;
    report.result(&serving::event(args, &name, pids), || greeting(args))?;
    let reason = loop {
        match reasons.recv_timeout(CHECK) {
            Ok(reason) => break reason,
            Err(RecvTimeoutError::Disconnected) => break "server_failed",
            Err(RecvTimeoutError::Timeout) => {}
        }
        for server in &mut servers {
            let Some(status) = server.status() else { continue };
            let ended = std::mem::replace(server, start()?);
            replaced(&args.name, &ended, status, server, report)?;
            tally.add(ended.stop());
        }
    };
    // All of them first, so that they stop at the same time.
    servers.iter_mut().for_each(ServerProcess::begin_to_stop);
    servers.into_iter().for_each(|server| tally.add(server.stop()));
    Servers::of(&args.name)?.sweep()?;
    Ok(reason)
}

/// Says that a process has ended and which one serves in its place.
fn replaced(
    name: &str,
    ended: &ServerProcess,
    status: std::process::ExitStatus,
    new: &ServerProcess,
    report: &Report,
) -> Result<(), Failure> {
    let (pid, by, status) = (ended.pid(), new.pid(), status.to_string());
    if !report.is_json() {
        report.notes(&[format!(
            "server process {pid} of {name} has ended ({status}); {by} replaces it"
        )]);
        return Ok(());
    }
    report.result(&Event::Replaced { name: name.to_owned(), pid, status, by }, String::new)
}

/// The same options for one process.
fn options(args: &ServeArgs, common: &Common) -> Vec<String> {
    let ServeArgs {
        filter, payload, metadata, workers, service, key, image_options, spoil, ..
    } = args;
    let ServiceOptions {
        max_clients,
        max_ring,
        max_bytes,
        user,
        group,
        beside_channel,
        listener,
        ..
    } = service;
    let ImageOptions { radius, area } = image_options;
    let filters: Vec<String> = filter.iter().map(Filter::to_string).collect();
    let mut options = vec![
        format!("--filter={}", filters.join(",")),
        format!("--payload={payload}"),
        format!("--metadata={metadata}"),
        format!("--workers={workers}"),
        format!("--max-clients={max_clients}"),
        format!("--max-ring={max_ring}"),
    ];
    options.extend(max_bytes.map(|bytes| format!("--max-bytes={bytes}")));
    options.extend(user.iter().map(|uid| format!("--user={uid}")));
    options.extend(beside_channel.then(|| "--beside-channel".to_owned()));
    // The processes inherit the descriptor.
    options.extend(listener.map(|descriptor| format!("--listener={descriptor}")));
    options.extend(group.map(|gid| format!("--group={gid}")));
    options.extend(key.as_ref().map(|key| format!("--key={key}")));
    options.extend(radius.map(|radius| format!("--radius={radius}")));
    options.extend(area.map(|area| format!("--box={area}")));
    options.extend(spoil.map(|every| format!("--spoil={every}")));
    options.extend((0..common.verbose).map(|_| "-v".to_owned()));
    options
}
