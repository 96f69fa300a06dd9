//! The server process.

use crate::board::{Board, LIFE_SHIFT};
use crate::request::{self, Op};
use crate::tell::{Message, violation};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use zerobuffer::{BufferConfig, Frame, Server, ServerConfig, Service, ServiceConfig, WaitStrategy};
use zerobuffer_test_support::Census;

/// What a server process is told to be.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) name: String,
    /// The runtime directory of a service; without it, it is a channel.
    #[arg(long)]
    pub(crate) service: Option<PathBuf>,
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
    let before = Census::at_start(&options.name);
    let life = options.life;
    let mut server = match Serving::start(options, &board) {
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
    match before.changes(|| Census::of_process(&options.name)) {
        Some(changes) => violation(format!("server {life} has leaked: {changes}")),
        None => Message::Unchanged.tell(),
    }
    Ok(())
}

/// What serves: a channel or a service.
enum Serving {
    Channel(Server),
    Service(Service),
}

impl Serving {
    fn start(options: &Options, board: &Arc<Board>) -> zerobuffer::Result<Self> {
        let (life, journal) = (options.life, Arc::clone(board));
        let handler = move |frame: &mut Frame<'_>| handle(frame, &journal, life);
        let (wait, metadata) = (strategy(&options.wait), metadata(life));
        match &options.service {
            None => {
                let config = ServerConfig::new(BufferConfig::new(256, options.payload))
                    .workers(options.workers)
                    .wait(wait)
                    .metadata(metadata);
                let mut server = Server::create(&options.name, config)?;
                server.start(handler)?;
                Ok(Self::Channel(server))
            }
            Some(directory) => {
                let config = ServiceConfig::new()
                    .directory(directory.to_string_lossy())
                    .metadata_size(256)
                    .ring(options.payload)
                    .workers(options.workers)
                    .wait(wait)
                    .metadata(metadata);
                let mut service = Service::create(&options.name, config)?;
                service.start(handler)?;
                Ok(Self::Service(service))
            }
        }
    }

    fn stop(&mut self) -> zerobuffer::Result<()> {
        match self {
            Self::Channel(server) => server.stop(),
            Self::Service(service) => service.stop(),
        }
    }
}

/// What a handler panics with on demand.
struct Expected;

fn handle(frame: &mut Frame<'_>, journal: &Board, life: u64) -> Result<(), String> {
    let order = request::read(frame.data()).inspect_err(|text| violation(text))?;
    let sender = metadata_of_client(order.id >> LIFE_SHIFT);
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
