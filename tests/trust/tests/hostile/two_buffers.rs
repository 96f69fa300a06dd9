//! Victims of version 1.

use crate::victim::{Account, LONG, await_command, flag_at, invert, read, strategy};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, ChannelKind, Client, ClientConfig, Error, ErrorKind, ServerConfig, v1,
};
use zerobuffer_test_support::{Rng, say};

fn buffer() -> BufferConfig {
    BufferConfig::new(256, 8 << 10)
}

fn beside(name: &str) -> String {
    format!("{name}-beside")
}

fn handler(draft: &mut v1::Draft<'_>) {
    invert(draft.data_mut());
}

pub(crate) fn serve(name: &str, seed: u64) -> String {
    let config = ServerConfig::new(buffer()).wait(strategy(&mut Rng(seed)));
    let mut server = v1::DuplexServer::create(name, config).expect("a server starts");
    server.start_mutable(handler).expect("its thread starts");
    let mut other = v1::DuplexServer::create(&beside(name), buffer()).expect("a server starts");
    other.start_mutable(handler).expect("its thread starts");
    say("ready");
    await_command("stop");
    assert!(server.is_running() && other.is_running(), "a server stopped: {:?}", server.stop());
    let said = format!("{:?}", server.statistics());
    server.stop().expect("stops cleanly");
    other.stop().expect("stops cleanly");
    said
}

pub(crate) fn call(name: &str, seed: u64) -> String {
    let account = Account::default();
    let (settle, done) = (flag_at("settle"), AtomicBool::new(false));
    let config = || ClientConfig::new().channel(ChannelKind::TwoBuffers).response_buffer(buffer());
    let peaceful = Client::connect_with(&beside(name), LONG, config()).expect("attaches");
    say("ready");
    std::thread::scope(|scope| {
        let (done, mut peaceful) = (&done, peaceful);
        scope.spawn(move || {
            let mut rounds = 0_u64;
            while !done.load(Ordering::Relaxed) {
                check_call(&mut peaceful, rounds);
                rounds += 1;
                if rounds.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            assert!(rounds > 10, "the channel beside was hardly used");
        });
        let mut rng = Rng(seed);
        while !settle.load(Ordering::Relaxed) {
            visit(name, &account, &mut rng);
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut client = connect_again(name, config);
    (0..100).for_each(|round| check_call(&mut client, round));
    drop(client);
    say(&format!("settled {}", account.describe()));
    await_command("stop");
    String::new()
}

/// Nobody scribbles any more. A request buffer whose account was falsified is made anew when a client
/// finds fault with it, or when its reader does.
fn connect_again(name: &str, config: impl Fn() -> ClientConfig) -> Client {
    let start = std::time::Instant::now();
    loop {
        let timeout = Duration::from_secs(2);
        let attached = Client::connect_with(name, timeout, config()).and_then(|mut client| {
            client.call(&[1; 100], timeout).map(drop)?;
            Ok(client)
        });
        match attached {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < LONG * 2, "does not recover: {error:?}"),
        }
    }
}

#[track_caller]
fn check_call(client: &mut Client, round: u64) {
    let len = 8 + (round * 37 % 900) as usize;
    let mut request = vec![round as u8; len];
    request[..8].copy_from_slice(&round.to_le_bytes());
    let answer = client.call(&request, LONG).expect("answered");
    assert!(answer.data().iter().zip(&request).all(|(a, b)| *a == !*b), "a wrong answer");
    assert_eq!(answer.data().len(), len);
}

fn visit(name: &str, account: &Account, rng: &mut Rng) {
    let timeout = Duration::from_millis(100 + rng.below(100) as u64);
    let config = ClientConfig::new()
        .channel(ChannelKind::TwoBuffers)
        .response_buffer(buffer())
        .wait(strategy(rng))
        .send_timeout(Duration::from_millis(10))
        .metadata(vec![b'm'; rng.below(3) * 50]);
    let connect = || Client::connect_with(name, timeout, config);
    let Ok(mut client) = account.bounded("connect", timeout, connect) else {
        // Most reasons stay for a moment.
        return std::thread::sleep(Duration::from_millis(1));
    };
    account.count("connections");
    for _ in 0..rng.below(100) {
        let outcome = match rng.below(3) {
            0 => exchange(&mut client, account, rng),
            1 => pipeline(&mut client, account, rng),
            _ => call_once(&mut client, account, rng),
        };
        let is_over = |error: &Error| !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Full);
        if outcome.is_err_and(|error| is_over(&error)) {
            return;
        }
    }
}

fn size(rng: &mut Rng) -> usize {
    [1, 8, 33, 100, 1000, 3000][rng.below(6)]
}

fn timeout(rng: &mut Rng) -> Duration {
    Duration::from_millis(1 + rng.below(30) as u64)
}

fn call_once(client: &mut Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let (data, timeout) = (vec![5; size(rng)], timeout(rng));
    // Sending and receiving have a deadline together.
    let answer = account.bounded("call", timeout, || client.call(&data, timeout))?;
    read(answer.data());
    Ok(())
}

fn exchange(client: &mut Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let (size, timeout) = (size(rng), timeout(rng));
    let ten = Duration::from_millis(10);
    let mut buffer = account.bounded("acquire", ten, || client.acquire_request_buffer(size))?;
    buffer.data_mut().fill(7);
    let sequence = account.bounded("commit", ten, || buffer.commit())?;
    let answer =
        account.bounded("receive", timeout, || client.receive_response_for(sequence, timeout))?;
    assert_eq!(answer.sequence(), sequence, "another request's answer");
    read(answer.data());
    Ok(())
}

fn pipeline(client: &mut Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let ten = Duration::from_millis(10);
    let mut last = 0;
    for _ in 0..1 + rng.below(4) {
        let data = vec![3; size(rng)];
        account.bounded("send", ten, || client.send_request(&data))?;
    }
    while client.in_flight() > 0 {
        let timeout = timeout(rng);
        let answer = account.bounded("next", timeout, || client.receive_response(timeout))?;
        assert!(answer.sequence() > last, "answers are in the order of their requests");
        last = answer.sequence();
        read(answer.data());
    }
    Ok(())
}
