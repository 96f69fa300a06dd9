//! The server: a handler that does as byte 0 of the request says.

use crate::work::transform;
use crate::{Common, Kind, Wrong};
use anyhow::{Context, Result};
use clap::Args;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;
use zerobuffer::{BufferConfig, Frame, Server, ServerConfig, Service, ServiceConfig, v1};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[arg(long)]
    payload: usize,
    #[arg(long)]
    metadata: usize,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long, default_value = "")]
    server_metadata: String,
}

impl Options {
    fn workers(&self, wrong: Option<Wrong>) -> usize {
        if wrong == Some(Wrong::Order) { 1 } else { self.workers }
    }
}

pub(crate) fn serve(options: Options, wrong: Option<Wrong>) -> Result<()> {
    match options.common.kind {
        Kind::InPlace => serve_in_place(&options, wrong),
        Kind::TwoBuffers => serve_two_buffers(&options, wrong),
        Kind::Service => serve_service(&options, wrong),
    }
}

fn serve_in_place(options: &Options, wrong: Option<Wrong>) -> Result<()> {
    let Options { common, payload, metadata, server_metadata, .. } = options;
    let workers = options.workers(wrong);
    let config = ServerConfig::new(BufferConfig::new(*metadata, *payload))
        .workers(workers)
        .wait(common.wait.strategy())
        .metadata(server_metadata.as_str());
    let mut server = Server::create(&common.channel, config)?;
    server.start(move |frame: &mut Frame<'_>| handle_in_place(frame, wrong))?;
    until_told(&common.channel, wrong)?;
    Ok(server.stop()?)
}

fn serve_service(options: &Options, wrong: Option<Wrong>) -> Result<()> {
    let Options { common, payload, metadata, server_metadata, .. } = options;
    let config = ServiceConfig::new()
        .ring(*payload)
        .metadata_size(*metadata)
        .workers(options.workers(wrong))
        .wait(common.wait.strategy())
        .metadata(server_metadata.as_str());
    let mut service = Service::create(&common.channel, config)?;
    service.start(move |frame: &mut Frame<'_>| handle_in_place(frame, wrong))?;
    until_told(&common.channel, wrong)?;
    Ok(service.stop()?)
}

fn serve_two_buffers(options: &Options, wrong: Option<Wrong>) -> Result<()> {
    let Options { common, payload, metadata, .. } = options;
    let config =
        ServerConfig::new(BufferConfig::new(*metadata, *payload)).wait(common.wait.strategy());
    let mut server = v1::DuplexServer::create(&common.channel, config)?;
    server.start_mutable(move |draft: &mut v1::Draft<'_>| handle(draft.data_mut(), wrong))?;
    until_told(&common.channel, wrong)?;
    Ok(server.stop()?)
}

fn handle_in_place(frame: &mut Frame<'_>, wrong: Option<Wrong>) -> Result<(), String> {
    if frame.data().first() != Some(&b'M') {
        return handle(frame.data_mut(), wrong);
    }
    let metadata = if wrong == Some(Wrong::Metadata) { vec![] } else { frame.metadata().to_vec() };
    frame.resize(metadata.len()).map_err(|error| error.to_string())?;
    frame.data_mut().copy_from_slice(&metadata);
    Ok(())
}

fn handle(data: &mut [u8], wrong: Option<Wrong>) -> Result<(), String> {
    match data.first() {
        Some(b'F') if wrong != Some(Wrong::Failure) => return Err("refused on request".into()),
        Some(b'S') => std::thread::sleep(Duration::from_millis(200)),
        Some(b'H') => {
            let half = data.len() / 2;
            transform(&mut data[..half]);
            println!("hanging");
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Some(b'T' | b'F') => {}
        other => return Err(format!("no such request: {other:?}")),
    }
    let last = data.len() - 1;
    let left = data[last];
    transform(data);
    if wrong == Some(Wrong::Byte) && last > 0 {
        data[last] = left;
    }
    Ok(())
}

/// Says `ready`, and comes back when standard input ends.
fn until_told(channel: &str, wrong: Option<Wrong>) -> Result<()> {
    if wrong != Some(Wrong::Silent) {
        println!("ready");
    }
    std::io::stdin().read_to_end(&mut Vec::new()).context("read standard input")?;
    match wrong {
        Some(Wrong::Deaf) => std::thread::sleep(Duration::from_secs(60)),
        Some(Wrong::Object) => std::fs::write(format!("/dev/shm/{channel}-left"), "")?,
        Some(Wrong::Process) => {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn()?;
        }
        _ => {}
    }
    Ok(())
}
