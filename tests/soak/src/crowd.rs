//! Many threads that call through one connection.

use crate::delay::now;
use crate::desk::{Desk, LONG};
use crate::request::{HEAD, Op};
use crate::tell::violation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zerobuffer::{Error, ErrorKind, SharedClient};

const THREADS: u64 = 3;
/// By how many servers that of a connection can be older than the latest: a channel has one at a time.
pub(crate) const CHANNELS_AGE: u64 = 3;
pub(crate) const SERVICES_AGE: u64 = 200;

/// Works until it is over. Of a connection's server it is known at the most which is the oldest that it can be:
/// of a channel's, one that has answered before; of a service's, none that is `age` servers old.
pub(crate) fn run(desk: &Desk, client: SharedClient, rng: &mut fastrand::Rng, age: u64) {
    let life = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (client, rng, life) = (client.clone(), rng.fork(), &life);
            scope.spawn(move || work(desk, &client, rng, life, age));
        }
    });
}

fn work(desk: &Desk, client: &SharedClient, mut rng: fastrand::Rng, life: &AtomicU64, age: u64) {
    while !desk.is_over() {
        let pause = match rng.u8(0..8) {
            0 => Duration::from_micros(rng.u64(0..5000)),
            _ => Duration::ZERO,
        };
        let timeout = if rng.u8(0..10) == 0 { Duration::from_millis(3) } else { LONG };
        let op = if rng.u8(0..12) == 0 { Op::Fail } else { Op::Edit };
        let len = HEAD + rng.usize(0..2000);
        let sent = desk.request(op, pause, len, &mut rng);
        let oldest = desk.board.server_life().saturating_sub(age).max(1);
        let (began, known) = (now(), life.load(Ordering::Relaxed).max(oldest));
        match desk.timed("a call", timeout, |timeout| client.call(&sent.bytes(), timeout)) {
            Ok(answer) => {
                let server = desk.answered(&sent, answer.data());
                if age == CHANNELS_AGE {
                    life.fetch_max(server, Ordering::Relaxed);
                }
            }
            Err(Error::HandlerFailed { message, .. }) => desk.refused(&sent, &message),
            Err(Error::Timeout { .. } | Error::Full { .. }) => desk.timed_out(&sent, timeout),
            Err(error) if error.kind() == ErrorKind::NotRunning && timeout < LONG => {}
            Err(error) if error.kind() == ErrorKind::Busy && timeout < LONG => {}
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::PeerDied | ErrorKind::PeerClosed) {
                    violation(format!("unexpected: {error:?}"));
                    return;
                }
                desk.server_ended(&error, known, false, began);
                if let Some(lost) = error.lost_request() {
                    desk.lost(&sent, lost);
                }
                if desk.attach("reconnecting", |timeout| client.reconnect(timeout)).is_none() {
                    return;
                }
            }
        }
        std::thread::sleep(Duration::from_micros(rng.u64(0..10_000)));
    }
}
