//! Channels: the waiter sleeps on a semaphore, whose word says so.

#[cfg(not(zerobuffer_without_wake_fence))]
use crate::pause;
use crate::{LONG, Tally, Watched, make_visible, send_requests, store_in_lines};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ClientConfig, Error, Server, ServerConfig, WaitStrategy};
#[cfg(not(zerobuffer_without_wake_fence))]
use zerobuffer_test_support::Rng;

/// After WAKE has returned: `waiting` tells whether what was published is still not seen.
fn look(tally: &mut Tally, semaphore: &AtomicU64, waiting: impl FnOnce() -> bool) {
    make_visible();
    let word = semaphore.load(Ordering::SeqCst);
    let (tokens, waiters) = (word as u32, word >> 32);
    if waiters > 0 {
        tally.asleep += 1;
        tally.lost += u64::from(tokens == 0 && waiting());
    }
}

fn pair(name: &str, server: WaitStrategy, client: WaitStrategy) -> (Server, Client) {
    let config = ServerConfig::new(BufferConfig::new(0, 1 << 16)).wait(server);
    let server = Server::create(name, config).expect("a server starts");
    let client = Client::connect_with(name, LONG, ClientConfig::new().wait(client));
    (server, client.expect("a client attaches"))
}

/// The server parks, and the client sends.
pub(crate) fn requests(name: &str, messages: u64, seed: u64) -> Tally {
    const READ_COUNT: usize = 0x40;
    let (mut server, client) = pair(name, WaitStrategy::Park, WaitStrategy::Spin);
    let semaphore = Watched::open(&format!("/dev/shm/sem.sem-request-ready-{name}"));
    let segment = Watched::open(&format!("/dev/shm/{name}_duplex"));
    let taken = segment.word(READ_COUNT);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match server.receive(Duration::from_millis(200)) {
                    Ok(request) => {
                        store_in_lines(request.sequence());
                        request.respond();
                    }
                    Err(Error::Timeout { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let tally = send_requests(&client, messages, seed, |tally, sequence| {
            look(tally, semaphore.word(0), || taken.load(Ordering::SeqCst) < sequence);
        });
        stop.store(true, Ordering::Relaxed);
        tally
    })
}

/// The client parks, and the server answers.
#[cfg(not(zerobuffer_without_wake_fence))]
pub(crate) fn responses(name: &str, messages: u64, seed: u64) -> Tally {
    const BATCH: usize = 128;
    let (mut server, client) = pair(name, WaitStrategy::Spin, WaitStrategy::Park);
    let semaphore = Watched::open(&format!("/dev/shm/sem.sem-response-ready-{name}"));
    let (mut rng, mut tally, stop) = (Rng(seed), Tally::default(), AtomicBool::new(false));
    // The latest response that the client has seen. A slot does not tell: nothing is stored in it on release.
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (stop, seen) = (&stop, &seen);
        let sender = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                (0..BATCH).for_each(|_| {
                    client.send_request(&[0; 8]).expect("sent");
                });
                for _ in 0..BATCH {
                    let response = client.receive_response(LONG).expect("answered");
                    seen.store(response.sequence(), Ordering::SeqCst);
                }
            }
        });
        while !sender.is_finished() {
            let request = match server.receive(Duration::from_millis(200)) {
                Ok(request) => request,
                Err(Error::Timeout { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            let sequence = request.sequence();
            request.respond();
            tally.messages += 1;
            look(&mut tally, semaphore.word(0), || seen.load(Ordering::SeqCst) < sequence);
            stop.store(tally.is_done(messages), Ordering::Relaxed);
            pause(&mut rng);
        }
    });
    tally
}
