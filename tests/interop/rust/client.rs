//! The client: one case, and whether it held.

use crate::work::Contents;
use crate::{Common, Kind, Wrong};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use std::io::Read;
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, ChannelKind, Client, ClientConfig, Error, RequestState, Response};

/// For a call, far beyond what any of them takes.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(10);
/// Between two looks at whether the server has ended.
const LOOK: Duration = Duration::from_millis(100);
/// Of the response buffer, which the client makes.
const RESPONSE_METADATA: usize = 4096;
const RESPONSE_PAYLOAD: usize = 16 << 20;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value = "")]
    client_metadata: String,
    #[command(subcommand)]
    case: Case,
}

#[derive(Subcommand)]
enum Case {
    Roundtrips { size: usize, count: usize },
    OutOfOrder,
    Failure,
    Killed,
    Hold,
    Metadata { text: String },
    Restart,
    Bench { count: u32 },
}

pub(crate) fn run(options: Options, wrong: Option<Wrong>) -> Result<()> {
    if wrong == Some(Wrong::Hang) {
        println!("this client never ends");
        std::thread::sleep(Duration::from_secs(60));
    }
    let mut client = options.connect()?;
    match &options.case {
        Case::Roundtrips { size, count } => roundtrips(&client, *size, *count),
        Case::OutOfOrder => out_of_order(&client),
        Case::Failure => failure(client, &options),
        Case::Killed => killed(&client),
        Case::Hold => hold(&client),
        Case::Metadata { text } => metadata(&client, text, &options.client_metadata),
        Case::Restart => restart(client),
        Case::Bench { count } => bench(&mut client, *count),
    }
}

impl Options {
    fn connect(&self) -> Result<Client> {
        let Common { channel, kind, wait } = &self.common;
        let kind = match kind {
            Kind::InPlace => ChannelKind::InPlace,
            Kind::TwoBuffers => ChannelKind::TwoBuffers,
            Kind::Service => ChannelKind::Service,
        };
        let config = ClientConfig::new()
            .channel(kind)
            .response_buffer(BufferConfig::new(RESPONSE_METADATA, RESPONSE_PAYLOAD))
            .wait(wait.strategy())
            .metadata(self.client_metadata.as_str());
        Ok(Client::connect_with(channel, CONNECT, config)?)
    }
}

fn send(client: &Client, contents: &Contents, op: u8, round: usize) -> Result<u64> {
    let mut request = client.acquire_request_buffer(contents.size())?;
    contents.fill(op, round, request.data_mut());
    Ok(request.commit()?)
}

fn receive(client: &Client, sequence: u64) -> Result<Response<'_>, Error> {
    let response = client.receive_response_for(sequence, PATIENCE)?;
    assert_eq!(response.sequence(), sequence);
    Ok(response)
}

fn roundtrips(client: &Client, size: usize, count: usize) -> Result<()> {
    let contents = Contents::new(size);
    for round in 0..count {
        let sequence = send(client, &contents, b'T', round)?;
        contents.check(round, receive(client, sequence)?.data())?;
    }
    Ok(())
}

fn out_of_order(client: &Client) -> Result<()> {
    let contents = Contents::new(100);
    let slow = send(client, &contents, b'S', 0)?;
    let quick = send(client, &contents, b'T', 1)?;
    for (sequence, round) in [(quick, 1), (slow, 0)] {
        let response = client.receive_response(PATIENCE)?;
        ensure!(response.sequence() == sequence, "{} came before its turn", response.sequence());
        contents.check(round, response.data())?;
    }
    Ok(())
}

fn failure(client: Client, options: &Options) -> Result<()> {
    let contents = Contents::new(100);
    let refused = send(&client, &contents, b'F', 0)?;
    match receive(&client, refused).map(|response| response.sequence()) {
        Err(Error::HandlerFailed { sequence, status: 1, message }) if client.is_in_place() => {
            ensure!(sequence == refused, "the failure is said to be that of {sequence}");
            ensure!(message == "refused on request", "the message is {message:?}");
            return roundtrips(&client, 100, 1);
        }
        Err(Error::PeerClosed { .. }) if !client.is_in_place() => {}
        other => bail!("instead of a failure: {other:?}"),
    }
    drop(client);
    roundtrips(&options.connect().context("connect again")?, 100, 1)
}

fn killed(client: &Client) -> Result<()> {
    let sequence = send(client, &Contents::new(100_000), b'H', 0)?;
    match receive(client, sequence).map(|response| response.sequence()) {
        Err(Error::PeerDied { request: Some(lost) }) => {
            ensure!(lost.sequence == sequence, "{} is said to be lost", lost.sequence);
            ensure!(lost.state == RequestState::InDoubt, "it is said to be {}", lost.state);
            Ok(())
        }
        other => bail!("instead of the server's death: {other:?}"),
    }
}

fn hold(client: &Client) -> Result<()> {
    send(client, &Contents::new(100), b'S', 0)?;
    println!("sent");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    bail!("nobody killed this client");
}

fn metadata(client: &Client, of_server: &str, own: &str) -> Result<()> {
    let found = String::from_utf8_lossy(client.server_metadata());
    ensure!(found == of_server, "the server's metadata is {found:?}");
    let mut request = client.acquire_request_buffer(own.len().max(1))?;
    request.data_mut()[0] = b'M';
    let sequence = request.commit()?;
    let response = client.receive_response_for(sequence, PATIENCE)?;
    let seen = String::from_utf8_lossy(response.data());
    ensure!(seen == own, "the server sees {seen:?} as the client's metadata");
    Ok(())
}

fn restart(mut client: Client) -> Result<()> {
    roundtrips(&client, 100, 1)?;
    println!("ready");
    await_end(&client)?;
    client.reconnect(CONNECT)?;
    roundtrips(&client, 100, 1)
}

fn await_end(client: &Client) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match client.receive_response(LOOK).map(|response| response.sequence()) {
            Err(Error::PeerClosed { .. }) => return Ok(()),
            Err(Error::Timeout { .. }) => {}
            other => bail!("instead of the server's end: {other:?}"),
        }
    }
    bail!("the server does not end")
}

fn bench(client: &mut Client, count: u32) -> Result<()> {
    let mut calls = |count: u32| -> Result<Duration> {
        let start = Instant::now();
        for number in 0..count {
            let [a, b, c, d] = number.to_le_bytes();
            let response = client.call(&[b'T', a, b, c, d, 0, 0, 0], PATIENCE)?;
            let answer = response.data();
            ensure!(answer == [b't', !a, !b, !c, !d, 255, 255, 255], "the answer is {answer:?}");
        }
        Ok(start.elapsed())
    };
    calls(count / 10)?;
    println!("{:.1}", calls(count)?.as_nanos() as f64 / f64::from(count));
    Ok(())
}
