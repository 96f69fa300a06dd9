//! The client process: attaches, works, and attaches again to the next server, until it is killed or
//! told to end.

use crate::board::Board;
use crate::delay::now;
use crate::desk::Desk;
use crate::server::{metadata_of_client, strategy};
use crate::tell::{Message, violation};
use crate::{crowd, session};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::{ChannelKind, ClientConfig};
use zerobuffer_test_support::Census;

/// What a client process is told to be.
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
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) wait: String,
    /// Many threads share the connection.
    #[arg(long)]
    pub(crate) crowd: bool,
    /// The library sends again what was not started.
    #[arg(long)]
    pub(crate) resend: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::panic::set_hook(Box::new(|panic| violation(format!("the client panics: {panic}"))));
    let told_to_end = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&told_to_end);
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(std::result::Result::ok).for_each(drop);
        end.store(true, Ordering::Relaxed);
        // For ever, so that the number of threads stays.
        loop {
            std::thread::park();
        }
    });
    let desk = Desk::new(Board::open(&options.board)?, options.life, options.resend, told_to_end);
    let before = Census::of_process(&options.name);
    Message::Ready.tell();
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let began = now();
    let mut config = ClientConfig::new()
        .wait(strategy(&options.wait))
        .send_timeout(Duration::from_secs(2))
        .max_in_flight(64)
        .metadata(metadata_of_client(options.life))
        .resend_not_started(options.resend);
    // Of a channel, the one client begins where the one before has ended.
    let mut since = began.max(desk.board.client_end());
    if let Some(directory) = &options.service {
        config = config.directory(directory.to_string_lossy()).channel(ChannelKind::Service);
        since = began;
    }
    if let Some(client) = desk.connect(&options.name, &config) {
        Message::Attached(now() - since).tell();
        if options.crowd {
            let (channel, service) = (crowd::CHANNELS_AGE, crowd::SERVICES_AGE);
            let age = if options.service.is_some() { service } else { channel };
            crowd::run(&desk, client.into_shared(), &mut rng, age);
        } else {
            session::run(&desk, client, &mut rng);
        }
    }
    desk.tell_counts();
    match before.changes(|| Census::of_process(&options.name)) {
        Some(changes) => violation(format!("client {} has leaked: {changes}", options.life)),
        None => Message::Unchanged.tell(),
    }
    Ok(())
}
