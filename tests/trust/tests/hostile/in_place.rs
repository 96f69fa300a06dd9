//! Victims of the in-place channel.

use crate::victim::{Account, LONG, await_command, flag_at, invert, read, strategy};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, Server, ServerConfig,
};
use zerobuffer_test_support::{Rng, say};

const PAYLOAD: usize = 16 << 10;

fn beside(name: &str) -> String {
    format!("{name}-beside")
}

fn handler(frame: &mut Frame<'_>) {
    read(frame.metadata());
    invert(frame.data_mut());
}

/// Serves the tormented channel and the one beside it.
pub(crate) fn serve(name: &str, seed: u64) -> String {
    let mut rng = Rng(seed);
    let config = ServerConfig::new(BufferConfig::new(256, PAYLOAD))
        .workers(1 + rng.below(3))
        .wait(strategy(&mut rng))
        .metadata("what the server says");
    let mut server = Server::create(name, config).expect("a server starts");
    server.start(handler).expect("its threads start");
    let mut other = Server::create(&beside(name), BufferConfig::new(0, PAYLOAD)).expect("starts");
    other.start(handler).expect("its thread starts");
    say("ready");
    await_command("stop");
    assert!(server.is_running() && other.is_running(), "a server stopped: {:?}", server.stop());
    server.stop().expect("stops cleanly");
    other.stop().expect("stops cleanly");
    "nothing that stopped it".to_owned()
}

/// Calls through both channels until the test says `settle`, and then once more through either.
pub(crate) fn call(name: &str, seed: u64) -> String {
    let account = Account::default();
    let (settle, done) = (flag_at("settle"), AtomicBool::new(false));
    let mut peaceful = Client::connect(&beside(name), LONG).expect("attaches");
    say("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| {
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
    drop(peaceful);
    let mut client = connect_again(name);
    (0..100).for_each(|round| check_call(&mut client, round));
    drop(client);
    say(&format!("settled {}", account.describe()));
    await_command("stop");
    String::new()
}

/// Nobody scribbles any more: what is left of it ends with the next segment.
fn connect_again(name: &str) -> Client {
    let start = std::time::Instant::now();
    loop {
        let attached = Client::connect(name, LONG).and_then(|mut client| {
            client.call(&[1; 100], Duration::from_secs(2)).map(drop)?;
            Ok(client)
        });
        match attached {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < LONG, "does not recover: {error:?}"),
        }
    }
}

/// A call whose response must be right to the last byte.
#[track_caller]
fn check_call(client: &mut Client, round: u64) {
    let len = 8 + (round * 37 % 900) as usize;
    let mut request = vec![round as u8; len];
    request[..8].copy_from_slice(&round.to_le_bytes());
    let answer = client.call(&request, LONG).expect("answered");
    assert!(answer.data().iter().zip(&request).all(|(a, b)| *a == !*b), "a wrong answer");
    assert_eq!(answer.data().len(), len);
}

/// One connection to the tormented channel, for as long as it lasts.
fn visit(name: &str, account: &Account, rng: &mut Rng) {
    let timeout = Duration::from_millis(rng.below(40) as u64);
    let config = ClientConfig::new()
        .wait(strategy(rng))
        .send_timeout(Duration::from_millis(10))
        .max_in_flight(1 << rng.below(8))
        .metadata(vec![b'm'; rng.below(3) * 50]);
    let connect = || Client::connect_with(name, timeout, config);
    let Ok(client) = account.bounded("connect", timeout, connect) else {
        // Most reasons stay for a moment.
        return std::thread::sleep(Duration::from_millis(1));
    };
    account.count("connections");
    read(client.server_metadata());
    for _ in 0..rng.below(100) {
        let outcome = match rng.below(8) {
            0..=3 => exchange(&client, account, rng),
            // Responses to requests that could not be cancelled come in the next round, where they would look
            // like wrong ones.
            4..=5 if pipeline(&client, account, rng).is_err() => return,
            4..=5 => Ok(()),
            6 => hold(&client, account, rng),
            _ => cancel(&client, account, rng),
        };
        let is_over = |error: &Error| {
            !matches!(
                error.kind(),
                ErrorKind::Timeout
                    | ErrorKind::Full
                    | ErrorKind::HandlerFailed
                    | ErrorKind::UnknownSequence
            )
        };
        let Err(error) = outcome else { continue };
        if is_over(&error) {
            // After a violation it stays over; after an end what was answered before is delivered.
            let again = account.bounded("receive", timeout, || client.receive_response(timeout));
            let poisoned = error.kind() == ErrorKind::ProtocolViolation;
            assert!(again.is_err() || !poisoned, "an answer after the violation");
            return;
        }
    }
}

fn timeout(rng: &mut Rng) -> Duration {
    Duration::from_millis(1 + rng.below(30) as u64)
}

fn size(rng: &mut Rng) -> usize {
    [0, 8, 32, 33, 100, 1000, 5000][rng.below(7)]
}

/// Sends a request and looks for its response, which must lie where the request was.
fn exchange(client: &Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let (size, timeout) = (size(rng), timeout(rng));
    let ten = Duration::from_millis(10);
    let mut buffer = account.bounded("acquire", ten, || client.acquire_request_buffer(size))?;
    buffer.data_mut().fill(7);
    let place = buffer.data_mut().as_ptr();
    let sequence = buffer.commit()?;
    let answer =
        account.bounded("receive", timeout, || client.receive_response_for(sequence, timeout))?;
    assert_eq!(answer.sequence(), sequence, "another request's answer");
    assert_eq!(answer.data().as_ptr(), place, "another request's bytes");
    assert!(answer.data().len() <= size.next_multiple_of(64) + 64, "beyond its slot");
    read(answer.data());
    Ok(())
}

/// Several requests in flight; answers in whatever order.
fn pipeline(client: &Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let ten = Duration::from_millis(10);
    let mut waiting = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let data = vec![3; size(rng)];
        waiting.push(account.bounded("send", ten, || client.send_request(&data))?);
    }
    while !waiting.is_empty() {
        let timeout = timeout(rng);
        let answer = account.bounded("next", timeout, || client.receive_response(timeout));
        let sequence = match answer {
            Ok(answer) => {
                read(answer.data());
                answer.sequence()
            }
            // Names the request that it ends.
            Err(Error::HandlerFailed { sequence, .. }) => sequence,
            Err(error) => return Err(error),
        };
        // Late responses to cancelled requests are swallowed, not delivered.
        let at = waiting.iter().position(|waiting| *waiting == sequence);
        waiting.remove(at.unwrap_or_else(|| panic!("{sequence} is not waiting: {waiting:?}")));
    }
    Ok(())
}

/// Keeps a response while others come and go.
fn hold(client: &Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let (size, timeout) = (size(rng), timeout(rng));
    let sequence = account.bounded("send", timeout, || client.send_request(&vec![1; size]))?;
    let held =
        account.bounded("receive", timeout, || client.receive_response_for(sequence, timeout))?;
    let outcome = exchange(client, account, rng);
    read(held.data());
    outcome
}

fn cancel(client: &Client, account: &Account, rng: &mut Rng) -> Result<(), Error> {
    let ten = Duration::from_millis(10);
    let sequence = account.bounded("send", ten, || client.send_request(&vec![2; size(rng)]))?;
    if client.cancel(sequence) {
        let error = client.receive_response_for(sequence, ten).map(drop).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Timeout, "a cancelled request is waited for");
    } else {
        account.bounded("receive", ten, || client.receive_response_for(sequence, ten)).map(drop)?;
    }
    client.in_flight();
    Ok(())
}
