//! What a client's threads have in common: each request is entered here, and each outcome judged.

use crate::board::{Board, Handled, LIFE_SHIFT};
use crate::delay::{Delay, now};
use crate::request::{Op, Sent};
use crate::tell::{Message, violation};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, Error, ErrorKind, LostRequest, RequestState};

/// For calls that a live server answers at once on an idle machine.
pub(crate) const LONG: Duration = Duration::from_secs(10);
/// A server that was started no longer ago may not be there yet. The controller starts the next one once the kernel has done
/// with the one before, which may take it many seconds.
const STARTING: Duration = Duration::from_secs(1);
/// What a call may be late by, next to what the machine is late by.
const DELTA: Duration = Duration::from_millis(100);

/// What all of a client's threads use: the journal, the clock, the judge.
pub(crate) struct Desk {
    pub(crate) board: Board,
    delay: Delay,
    life: u64,
    /// The library sends again what was not started.
    resends: bool,
    next: AtomicU64,
    told_to_end: Arc<AtomicBool>,
    counts: Counts,
}

impl Desk {
    pub(crate) fn new(
        board: Board,
        life: u64,
        resends: bool,
        told_to_end: Arc<AtomicBool>,
    ) -> Self {
        let (next, counts) = (AtomicU64::new(1), Counts::default());
        Self { board, delay: Delay::measure(), life, resends, next, told_to_end, counts }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.told_to_end.load(Ordering::Relaxed)
    }

    /// The first connection; `None` once it is over.
    pub(crate) fn connect(&self, name: &str, config: &ClientConfig) -> Option<Client> {
        self.attach("connecting", |timeout| Client::connect_with(name, timeout, config.clone()))
    }

    /// Attempts to attach, however often servers die meanwhile; `None` once it is not worth another one.
    pub(crate) fn attach<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut(Duration) -> zerobuffer::Result<T>,
    ) -> Option<T> {
        loop {
            let began = now();
            match self.timed(what, LONG, &mut attempt) {
                Ok(attached) => return Some(attached),
                Err(error) => self.not_there(&error, began)?,
            }
        }
    }

    /// After an attempt to attach has failed that began then: `None` if it is not worth another one.
    fn not_there(&self, error: &Error, began: u64) -> Option<()> {
        match error.kind() {
            ErrorKind::NotRunning | ErrorKind::Busy if self.is_over() => None,
            ErrorKind::NotRunning
                if now() - began >= LONG.as_nanos() as u64 && !self.was_served(began) =>
            {
                self.counts.add("attempts with no server started");
                Some(())
            }
            kind => {
                violation(format!("cannot attach within {LONG:?}: {error:?}"));
                matches!(kind, ErrorKind::NotRunning | ErrorKind::Busy).then_some(())
            }
        }
    }

    /// Whether there have been servers since then to be found.
    fn was_served(&self, since: u64) -> bool {
        self.board.served(since, now()) >= STARTING.as_nanos() as u64
    }

    pub(crate) fn tell_counts(&self) {
        self.counts.tell();
    }

    // ---- requests ----

    /// A new request, entered in the journal.
    pub(crate) fn request(
        &self,
        op: Op,
        pause: Duration,
        len: usize,
        rng: &mut fastrand::Rng,
    ) -> Sent {
        let id = self.life << LIFE_SHIFT | self.next.fetch_add(1, Ordering::Relaxed);
        self.board.enter(id);
        Sent::new(id, op, pause, len, rng)
    }

    /// A response has come: is it the right one, and did its handler run once, to its end? Returns the
    /// number of the server.
    pub(crate) fn answered(&self, sent: &Sent, answer: &[u8]) -> u64 {
        let checked = sent.check(answer);
        let handled = self.board.handled(sent.id);
        if handled != (Handled { begun: 1, ended: 1 }) {
            violation(format!("request {:#x} is answered, and was {handled:?}", sent.id));
        }
        if sent.op != Op::Edit {
            violation(format!("request {:#x} should have failed", sent.id));
        }
        self.board.count_answer();
        self.counts.add("answered");
        checked.unwrap_or_else(|text| {
            violation(format!(
                "the answer to request {:#x} of {} bytes: {text}",
                sent.id, sent.len
            ));
            0
        })
    }

    /// The handler failed.
    pub(crate) fn refused(&self, sent: &Sent, message: &str) {
        let right = match sent.op {
            Op::Edit => false,
            Op::Fail => message == crate::request::refusal(sent.id),
            Op::Panic => true,
        };
        let handled = self.board.handled(sent.id);
        if !right || handled.begun != 1 {
            violation(format!(
                "request {:#x} ({:?}) failed: {message:?}, {handled:?}",
                sent.id, sent.op
            ));
        }
        self.board.count_answer();
        self.counts.add("refused by the handler");
    }

    /// The server's end left a request behind.
    pub(crate) fn lost(&self, sent: &Sent, lost: LostRequest) {
        let handled = self.board.handled(sent.id);
        let (most, what) = match lost.state {
            RequestState::NotStarted => (0, "not started"),
            _ => (1, "in doubt"),
        };
        if handled.begun > most {
            violation(format!("request {:#x} is {what}, and was {handled:?}", sent.id));
        }
        self.counts.add(what);
    }

    /// A request was cancelled at its deadline.
    pub(crate) fn timed_out(&self, sent: &Sent, timeout: Duration) {
        let handled = self.board.handled(sent.id);
        if handled.begun > 1 {
            violation(format!("request {:#x} was {handled:?}", sent.id));
        }
        if timeout >= LONG {
            violation(format!(
                "no answer to request {:#x} within {timeout:?}: {handled:?}",
                sent.id
            ));
        }
        self.counts.add("cancelled at the deadline");
    }

    /// The client cancelled a request.
    pub(crate) fn cancelled(&self) {
        self.counts.add("cancelled");
    }

    // ---- time ----

    /// Makes a call with a timeout, and judges when it is back.
    pub(crate) fn timed<T>(
        &self,
        what: &str,
        timeout: Duration,
        call: impl FnOnce(Duration) -> T,
    ) -> T {
        let deadline = now() + timeout.as_nanos() as u64;
        let outcome = call(timeout);
        self.judge(what, deadline, deadline, now());
        outcome
    }

    /// Is something that was due at `due` late? Twice what the machine was late by since `since` is granted,
    /// as two processes may have to run one after the other; and it is told.
    fn judge(&self, what: &str, since: u64, due: u64, end: u64) {
        let late = Duration::from_nanos(end.saturating_sub(due));
        if late <= DELTA {
            return;
        }
        let machine = self.delay.since(since);
        if late > DELTA + machine * 2 {
            violation(format!("{what} came {late:?} late, the machine was late by {machine:?}"));
        }
        let (by, machine) = (late.as_nanos() as u64, machine.as_nanos() as u64);
        Message::Late { by, machine, what: what.to_owned() }.tell();
    }

    /// A call, begun at `began`, has failed because the server of number `life` (or a later one, if
    /// the number is not known exactly) has ended. Has it, and was that reported in time?
    pub(crate) fn server_ended(&self, error: &Error, life: u64, exactly: bool, began: u64) {
        let end = now();
        let lives = if exactly { life..=life } else { life..=self.board.server_life() };
        let died = error.kind() == ErrorKind::PeerDied;
        let at = |life| if died { self.board.killed_at(life) } else { self.board.stopped_at(life) };
        let times: Vec<u64> = lives.clone().map(at).filter(|at| *at > 0).collect();
        let Some(first) = times.first() else {
            return violation(format!("{error:?}, but nobody did that to server {lives:?}"));
        };
        // Only who was waiting when it happened can tell how long it took.
        if died && began < *first && times.len() == 1 {
            Message::Death(end - first).tell();
        }
        let since = began.max(*first);
        // What was not started waits for the next server, if it is to be sent again.
        let not_started = |lost: LostRequest| lost.state == RequestState::NotStarted;
        let waits = self.resends && error.lost_request().is_some_and(not_started);
        if died && exactly && (!waits || self.was_served(since)) {
            self.judge("the notice of a death", since, since, end);
        }
    }
}

/// What became of requests, told once in a while.
#[derive(Debug, Default)]
struct Counts(Mutex<Vec<(&'static str, u64)>>);

impl Counts {
    fn add(&self, what: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.iter_mut().find(|(name, _)| *name == what) {
            Some((_, count)) => *count += 1,
            None => counts.push((what, 1)),
        }
        // A kill loses what was not told.
        if counts.iter().map(|(_, count)| count).sum::<u64>() >= 50 {
            Self::flush(&mut counts);
        }
    }

    fn tell(&self) {
        Self::flush(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn flush(counts: &mut Vec<(&'static str, u64)>) {
        for (what, count) in counts.drain(..) {
            Message::Count(what.to_owned(), count).tell();
        }
    }
}
