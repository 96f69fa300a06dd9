//! One thread that calls in every way that the library has.

use crate::delay::now;
use crate::desk::{Desk, LONG};
use crate::request::{HEAD, Op, Sent};
use crate::tell::violation;
use std::collections::HashMap;
use std::time::Duration;
use zerobuffer::{Client, Error, ErrorKind, OwnedResponse, RequestLayout};

/// Works until it is over.
pub(crate) fn run(desk: &Desk, client: Client, rng: &mut fastrand::Rng) {
    let rng = rng.fork();
    let mut session = Session { desk, client, in_flight: HashMap::new(), began: 0, doing: "", rng };
    while !desk.is_over() {
        if let Err(error) = session.burst()
            && session.after(&error).is_none()
        {
            return;
        }
        std::thread::sleep(Duration::from_micros(session.rng.u64(0..15_000)));
    }
}

/// The number of the server that `client` is attached to.
fn server_life(client: &Client) -> u64 {
    let text = String::from_utf8_lossy(client.server_metadata()).into_owned();
    let life = text.strip_prefix("server=").and_then(|number| number.parse().ok());
    life.unwrap_or_else(|| {
        violation(format!("the server's metadata are {text:?}"));
        0
    })
}

struct Session<'d> {
    desk: &'d Desk,
    client: Client,
    in_flight: HashMap<u64, Sent>,
    /// When the latest call began.
    began: u64,
    doing: &'static str,
    rng: fastrand::Rng,
}

type Ended = Result<(), Error>;

impl Session<'_> {
    fn burst(&mut self) -> Ended {
        let (doing, burst): (_, fn(&mut Self) -> Ended) = match self.rng.u8(0..14) {
            0..2 => ("calls", Self::calls),
            2 | 10 | 11 => ("in order", Self::in_order),
            3 => ("out of order", Self::out_of_order),
            4 => ("held", Self::held),
            5 => ("deadlines", Self::deadlines),
            6 => ("failures", Self::failures),
            7 => ("in place", Self::in_place),
            8 | 9 => ("largest", Self::largest),
            _ => ("patience", Self::patience),
        };
        self.doing = doing;
        burst(self)
    }

    /// Mostly small, sometimes a good part of the ring.
    fn len(&mut self) -> usize {
        let largest = self.client.max_request_size();
        match self.rng.u8(0..8) {
            0 => HEAD + self.rng.usize(0..largest / 2),
            1..4 => HEAD + self.rng.usize(0..largest / 8),
            _ => HEAD + self.rng.usize(0..300),
        }
    }

    /// Mostly none.
    fn pause(&mut self) -> Duration {
        match self.rng.u8(0..6) {
            0 => Duration::from_micros(self.rng.u64(0..3000)),
            _ => Duration::ZERO,
        }
    }

    fn edit(&mut self) -> Sent {
        let (pause, len) = (self.pause(), self.len());
        self.desk.request(Op::Edit, pause, len, &mut self.rng)
    }

    // ---- ways to call ----

    fn calls(&mut self) -> Ended {
        for _ in 0..self.rng.u8(1..20) {
            let sent = self.edit();
            self.call(sent, LONG)?;
        }
        Ok(())
    }

    /// One call; the library itself may send it again after a restart.
    fn call(&mut self, sent: Sent, timeout: Duration) -> Ended {
        self.began = now();
        let client = &mut self.client;
        let desk = self.desk;
        let data = sent.bytes();
        let outcome = desk.timed("a call", timeout, |timeout| {
            let answer = client.call(&data, timeout)?;
            desk.answered(&sent, answer.data());
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(Error::HandlerFailed { message, .. }) => {
                desk.refused(&sent, &message);
                Ok(())
            }
            Err(Error::Timeout { .. }) => {
                desk.timed_out(&sent, timeout);
                Ok(())
            }
            // A request that was cancelled before may still be worked on, and keep its space.
            Err(Error::Full { .. }) if timeout < LONG => {
                desk.timed_out(&sent, timeout);
                Ok(())
            }
            // Sent again, to a server with a smaller ring.
            Err(Error::TooLarge { max, .. }) if sent.len as u64 > max => Ok(()),
            Err(error) => {
                if let Some(lost) = error.lost_request() {
                    desk.lost(&sent, lost);
                }
                Err(error)
            }
        }
    }

    /// As many as fit, up to `count`.
    fn send(&mut self, count: u8) -> Ended {
        for _ in 0..count {
            let sent = self.edit();
            self.began = now();
            let client = &self.client;
            let outcome = self
                .desk
                .timed("sending", Duration::from_secs(2), |_| client.send_request(&sent.bytes()));
            match outcome {
                Ok(sequence) => {
                    self.in_flight.insert(sequence, sent);
                }
                Err(Error::Full { .. }) if !self.in_flight.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A number of requests whose sum fits the ring together, so that no send has to wait for long.
    fn few(&mut self) -> u8 {
        self.rng.u8(1..6)
    }

    /// Several in flight while the handler takes its time with one: after a death some of them are in doubt.
    fn in_order(&mut self) -> Ended {
        let len = HEAD + self.rng.usize(0..300);
        let pause = Duration::from_millis(self.rng.u64(0..40));
        self.send_one(pause, len)?;
        let count = self.few();
        self.send_small(count)?;
        while !self.in_flight.is_empty() {
            self.receive_next()?;
        }
        Ok(())
    }

    fn send_small(&mut self, count: u8) -> Ended {
        let largest = self.client.max_request_size() / 8;
        for _ in 0..count {
            let (pause, len) = (self.pause(), HEAD + self.rng.usize(0..largest));
            self.send_one(pause, len)?;
        }
        Ok(())
    }

    fn send_one(&mut self, pause: Duration, len: usize) -> Ended {
        let sent = self.desk.request(Op::Edit, pause, len, &mut self.rng);
        self.began = now();
        let client = &self.client;
        let timeout = Duration::from_secs(2);
        let outcome = self.desk.timed("sending", timeout, |_| client.send_request(&sent.bytes()));
        self.in_flight.insert(outcome?, sent);
        Ok(())
    }

    fn receive_next(&mut self) -> Ended {
        self.began = now();
        let (client, in_flight, desk) = (&self.client, &mut self.in_flight, self.desk);
        let outcome = desk.timed("receiving", LONG, |timeout| {
            client.receive_response(timeout).map(|answer| {
                arrived(
                    desk,
                    in_flight.remove(&answer.sequence()),
                    answer.sequence(),
                    answer.data(),
                );
            })
        });
        self.settle(outcome, LONG, None)
    }

    fn receive_for(&mut self, sequence: u64, timeout: Duration) -> Ended {
        self.began = now();
        let (client, in_flight, desk) = (&self.client, &mut self.in_flight, self.desk);
        let outcome = desk.timed("receiving", timeout, |timeout| {
            client.receive_response_for(sequence, timeout).map(|answer| {
                arrived(desk, in_flight.remove(&sequence), sequence, answer.data());
            })
        });
        self.settle(outcome, timeout, Some(sequence))
    }

    /// What a receiving call came to; `asked` for one request, or for any.
    fn settle(&mut self, outcome: Ended, timeout: Duration, asked: Option<u64>) -> Ended {
        match outcome {
            Err(Error::HandlerFailed { sequence, message, .. }) => {
                match self.in_flight.remove(&sequence) {
                    Some(sent) => self.desk.refused(&sent, &message),
                    None => violation(format!("a failure of {sequence}, which nobody sent")),
                }
                Ok(())
            }
            Err(Error::Timeout { .. }) => {
                let cancelled = asked.and_then(|sequence| self.in_flight.remove(&sequence));
                match cancelled {
                    Some(sent) => self.desk.timed_out(&sent, timeout),
                    None => violation(format!("no answer at all within {timeout:?}")),
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn out_of_order(&mut self) -> Ended {
        let count = self.few();
        self.send_small(count)?;
        let mut sequences: Vec<u64> = self.in_flight.keys().copied().collect();
        sequences.sort_unstable();
        self.rng.shuffle(&mut sequences);
        for sequence in sequences {
            if self.rng.u8(0..6) == 0 && self.client.cancel(sequence) {
                self.in_flight.remove(&sequence);
                self.desk.cancelled();
                continue;
            }
            self.receive_for(sequence, LONG)?;
        }
        Ok(())
    }

    /// Keeps answers while others travel; what is held must not change.
    fn held(&mut self) -> Ended {
        let mut held: Vec<(Sent, OwnedResponse)> = Vec::new();
        for _ in 0..self.few() {
            self.send_small(1)?;
            self.began = now();
            let (client, desk) = (&self.client, self.desk);
            let outcome = desk
                .timed("receiving", LONG, |timeout| client.receive_response(timeout))
                .map(zerobuffer::Response::into_owned);
            match outcome {
                Ok(answer) => match self.in_flight.remove(&answer.sequence()) {
                    Some(sent) => held.push((sent, answer)),
                    None => violation(format!("an answer to {}", answer.sequence())),
                },
                Err(error) => self.settle(Err(error), LONG, None)?,
            }
        }
        std::thread::sleep(Duration::from_micros(self.rng.u64(0..5000)));
        while !held.is_empty() {
            let (sent, answer) = held.swap_remove(self.rng.usize(0..held.len()));
            self.desk.answered(&sent, answer.data());
        }
        Ok(())
    }

    /// Handlers that take longer than the caller has time.
    fn deadlines(&mut self) -> Ended {
        let pause = Duration::from_millis(self.rng.u64(5..40));
        let timeout = Duration::from_millis(self.rng.u64(1..40));
        let len = self.len();
        let sent = self.desk.request(Op::Edit, pause, len, &mut self.rng);
        self.call(sent, timeout)
    }

    /// A handler that takes its time: what happens meanwhile, happens to a client that waits.
    fn patience(&mut self) -> Ended {
        let (pause, len) = (Duration::from_millis(self.rng.u64(5..60)), self.len());
        let sent = self.desk.request(Op::Edit, pause, len, &mut self.rng);
        self.call(sent, LONG)
    }

    fn failures(&mut self) -> Ended {
        for op in [Op::Fail, Op::Panic] {
            let len = self.len();
            let sent = self.desk.request(op, Duration::ZERO, len, &mut self.rng);
            self.call(sent, LONG)?;
        }
        Ok(())
    }

    /// Writes the request where it will be read, slowly, and once in a while drops it.
    fn in_place(&mut self) -> Ended {
        let sent = self.edit();
        self.began = now();
        let layout = RequestLayout::new().alignment(1 << self.rng.u8(0..12));
        let mut buffer = match self.client.acquire_request_buffer_with(sent.len, layout) {
            // Its alignment may cost more than the ring has.
            Err(Error::TooLarge { .. }) => return Ok(()),
            buffer => buffer?,
        };
        let (data, bytes) = (buffer.data_mut(), sent.bytes());
        let half = bytes.len() / 2;
        data[..half].copy_from_slice(&bytes[..half]);
        std::thread::sleep(Duration::from_micros(self.rng.u64(0..2000)));
        data[half..].copy_from_slice(&bytes[half..]);
        if self.rng.u8(0..4) == 0 {
            return Ok(());
        }
        let sequence = buffer.commit()?;
        self.in_flight.insert(sequence, sent);
        self.receive_for(sequence, LONG)
    }

    /// Nearly the whole ring: it has to be drained before.
    fn largest(&mut self) -> Ended {
        let len = self.client.max_request_size() - self.rng.usize(0..200);
        let sent = self.desk.request(Op::Edit, Duration::ZERO, len, &mut self.rng);
        self.call(sent, LONG)?;
        self.send(2)?;
        while !self.in_flight.is_empty() {
            self.receive_next()?;
        }
        Ok(())
    }

    // ---- the server's end ----

    /// The connection has ended: every request must be accounted for, then comes the next server. `None`
    /// once it is over.
    fn after(&mut self, error: &Error) -> Option<()> {
        match error.kind() {
            ErrorKind::PeerDied | ErrorKind::PeerClosed => {
                self.desk.server_ended(error, server_life(&self.client), true, self.began);
                self.lost(error);
                if self.rng.bool() {
                    self.collect_what_is_left();
                }
            }
            // A call that was to be sent again, with too little time left.
            ErrorKind::NotRunning | ErrorKind::Busy => {}
            _ => violation(format!("{}: unexpected: {error:?}", self.doing)),
        }
        self.reconnect()
    }

    fn lost(&mut self, error: &Error) {
        let Some(lost) = error.lost_request() else { return };
        if let Some(sent) = self.in_flight.remove(&lost.sequence) {
            self.desk.lost(&sent, lost);
        }
    }

    /// The responses that were there, then one error for each request that has none, then none.
    fn collect_what_is_left(&mut self) {
        loop {
            match self.receive_next() {
                Ok(()) => {}
                Err(error) if error.lost_request().is_some() => self.lost(&error),
                Err(_) => break,
            }
        }
        if !self.in_flight.is_empty() {
            violation(format!("lost without a word: {:?}", self.in_flight));
            self.in_flight.clear();
        }
    }

    fn reconnect(&mut self) -> Option<()> {
        let client = &mut self.client;
        let report = self.desk.attach("reconnecting", |timeout| client.reconnect(timeout))?;
        for lost in report.lost {
            match self.in_flight.remove(&lost.sequence) {
                Some(sent) => self.desk.lost(&sent, lost),
                None => violation(format!("reported lost, though not in flight: {lost:?}")),
            }
        }
        let mut resent = HashMap::new();
        for (old, new) in report.resent {
            match self.in_flight.remove(&old) {
                Some(sent) => drop(resent.insert(new, sent)),
                None => violation(format!("sent {old} again, which was not in flight")),
            }
        }
        if !self.in_flight.is_empty() {
            violation(format!("not reported by reconnect: {:?}", self.in_flight));
        }
        self.in_flight = resent;
        while !self.in_flight.is_empty() {
            if let Err(error) = self.receive_next() {
                return self.after(&error);
            }
        }
        Some(())
    }
}

/// A response has come to a request that must be in flight.
fn arrived(desk: &Desk, sent: Option<Sent>, sequence: u64, answer: &[u8]) {
    match sent {
        Some(sent) => {
            desk.answered(&sent, answer);
        }
        None => violation(format!("an answer to {sequence}, which is not in flight")),
    }
}
