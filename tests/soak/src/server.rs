//! The server process.

use crate::board::Board;
use crate::request::{self, Op};
use crate::tell::{Message, violation};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use zerobuffer::{BufferConfig, Frame, Server, ServerConfig, WaitStrategy};
use zerobuffer_test_support::Census;

/// What a server process is told to be.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) channel: String,
    #[arg(long)]
    pub(crate) board: PathBuf,
    #[arg(long)]
    pub(crate) life: u64,
    #[arg(long)]
    pub(crate) payload: usize,
    #[arg(long)]
    pub(crate) workers: usize,
    #[arg(long)]
    pub(crate) wait: String,
}

/// A wait strategy by its name.
pub(crate) fn strategy(name: &str) -> WaitStrategy {
    match name {
        "park" => WaitStrategy::Park,
        "spin" => WaitStrategy::Spin,
        _ => WaitStrategy::SpinThenPark,
    }
}

/// What the server with this number says about itself.
pub(crate) fn metadata(life: u64) -> String {
    format!("server={life}")
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        if !panic.payload().is::<Expected>() {
            violation(format!("the server panics: {panic}"));
        }
    }));
    let board = Arc::new(Board::open(&options.board)?);
    // The first thread makes mappings that stay.
    let _ = std::thread::spawn(|| {}).join();
    let before = Census::of_process(&options.channel);
    let config = ServerConfig::new(BufferConfig::new(256, options.payload))
        .workers(options.workers)
        .wait(strategy(&options.wait))
        .metadata(metadata(options.life));
    let life = options.life;
    let journal = Arc::clone(&board);
    let started = Server::create(&options.channel, config).and_then(|mut server| {
        server.start(move |frame: &mut Frame<'_>| handle(frame, &journal, life))?;
        Ok(server)
    });
    let mut server = match started {
        Ok(server) => server,
        Err(error) => {
            violation(format!("server {life} cannot start: {error:?}"));
            return Ok(());
        }
    };
    Message::Ready.tell();
    for line in std::io::stdin().lines() {
        line?;
    }
    if let Err(error) = server.stop() {
        violation(format!("server {life} cannot stop: {error:?}"));
    }
    drop(server);
    match before.changes(|| Census::of_process(&options.channel)) {
        Some(changes) => violation(format!("server {life} has leaked: {changes}")),
        None => Message::Unchanged.tell(),
    }
    Ok(())
}

/// What a handler panics with on demand.
struct Expected;

fn handle(frame: &mut Frame<'_>, journal: &Board, life: u64) -> Result<(), String> {
    let order = request::read(frame.data()).inspect_err(|text| violation(text))?;
    let sender = metadata_of_client(order.id >> 28);
    if frame.metadata() != sender.as_bytes() {
        let found = String::from_utf8_lossy(frame.metadata()).into_owned();
        violation(format!("request {:#x} came with the metadata {found:?}", order.id));
    }
    journal.begin(order.id);
    match order.op {
        Some(Op::Edit) => request::work(frame.data_mut(), order, life),
        Some(Op::Fail) => return Err(request::refusal(order.id)),
        Some(Op::Panic) => std::panic::panic_any(Expected),
        None => violation(format!("request {:#x} asks for nothing known", order.id)),
    }
    journal.end(order.id);
    Ok(())
}

/// What the client with this number says about itself.
pub(crate) fn metadata_of_client(life: u64) -> String {
    format!("client={life}")
}
