//! `zerobuffer status`: what a service's servers and their clients do.

use crate::args::StatusArgs;
use crate::failure::{ErrorRecord, Exit, Failure};
use crate::report::{Report, count, time};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use zerobuffer::Servers;

/// What `status --json` says.
#[derive(Debug, Serialize)]
struct StatusRecord<'a> {
    ok: bool,
    command: &'static str,
    name: &'a str,
    servers: Vec<Entry>,
}

/// One server: its own words, or why there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry {
    Told(Value),
    Failed { error: ErrorRecord },
}

/// The part of a server's words that people are shown.
#[derive(Debug, Deserialize)]
struct Server {
    worker: String,
    pid: u32,
    seconds: f64,
    done: u64,
    failed: u64,
    cancelled: u64,
    segment_bytes: u64,
    limits: Limits,
    clients: Vec<Client>,
}

#[derive(Debug, Deserialize)]
struct Limits {
    clients: u64,
    segment_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Client {
    number: u64,
    label: String,
    pid: u32,
    uid: u32,
    seconds: f64,
    ring_bytes: u64,
    ring_bytes_in_use: u64,
    waiting: u64,
    in_hand: u64,
    unreleased: u64,
    done: u64,
    failed: u64,
    cancelled: u64,
}

/// Asks all servers. It fails if none of them tells.
pub(crate) fn run(args: &StatusArgs, report: &Report) -> Result<Exit, Failure> {
    let name = args.name.as_str();
    let about = |error: zerobuffer::Error| Failure::from(error).about(name);
    let servers = args.owner.into_iter().fold(Servers::of(name)?, Servers::owner);
    let (mut told, mut failures) = (Vec::new(), Vec::new());
    for entry in servers.status(args.timeout).map_err(about)? {
        match entry {
            Ok(text) => told.push(text),
            Err(error) => failures.push(about(error)),
        }
    }
    if told.is_empty()
        && let Some(failure) = failures.pop()
    {
        return Err(failure);
    }
    let mut texts = told.iter().map(|text| table(text)).collect::<Result<Vec<_>, _>>()?;
    texts.extend(
        failures.iter().map(|failure| format!("a server says nothing: {}", failure.message)),
    );
    let entries = told.iter().map(|text| parsed(text).map(Entry::Told));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.extend(failures.iter().map(|failure| Entry::Failed { error: failure.record().error }));
    let record = StatusRecord { ok: true, command: "status", name, servers: entries };
    report.result(&record, || texts.join("\n"))?;
    Ok(Exit::Done)
}

fn parsed<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::system(format!("a server's status cannot be read: {error}")))
}

/// One server for people.
fn table(text: &str) -> Result<String, Failure> {
    let server: Server = parsed(text)?;
    let Server { worker, pid, limits, clients, .. } = &server;
    let head = format!(
        "server {worker}, process {pid}, up {}: {} done, {} failed, {} cancelled; {} of {} clients, {} of {} bytes",
        duration(server.seconds),
        count(server.done),
        count(server.failed),
        count(server.cancelled),
        clients.len(),
        limits.clients,
        count(server.segment_bytes),
        count(limits.segment_bytes),
    );
    if clients.is_empty() {
        return Ok(head);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "client",
        "label",
        "process",
        "user",
        "attached",
        "ring",
        "in use",
        "waiting",
        "in hand",
        "unreleased",
        "done",
        "failed",
        "cancelled",
    ]);
    for client in clients {
        let mut row = vec![client.number.to_string(), client.label.clone()];
        row.extend([client.pid.to_string(), client.uid.to_string(), duration(client.seconds)]);
        let numbers = [client.ring_bytes, client.ring_bytes_in_use, client.waiting, client.in_hand];
        let ended = [client.unreleased, client.done, client.failed, client.cancelled];
        row.extend(numbers.into_iter().chain(ended).map(count));
        table.add_row(row);
    }
    Ok(format!("{head}\n{table}"))
}

fn duration(seconds: f64) -> String {
    time(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
