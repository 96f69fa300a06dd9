//! The client's end of one connection, shared by all of its handles.

use super::lifeline::Connected;
use super::vigil::Vigil;
use crate::atomics::{AtomicBool, AtomicU64, Ordering};
use crate::config::ClientConfig;
use crate::error::{Error, LostRequest, Result};
use crate::failpoint::failpoint;
use crate::liveness::Role;
use crate::name::ChannelName;
use crate::v2::attach::attach;
use crate::v2::layout::{Demand, REQUEST, RESPONSE, oieb};
use crate::v2::ring::{Claim, ClaimStep, ClientRing, Held, Look, Violation};
use crate::v2::segment::{Block, Segment};
use crate::wait::{Deadline, Peer, Unready, Waiter, Watch, hint, wake};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Between two looks at the server's lock while something is outstanding.
const SLICE: Duration = Duration::from_millis(10);

/// What a look at a request found.
pub(super) type Looked = std::result::Result<Look, Violation>;

/// What is kept of a failed handler's message: its length is the peer's word.
const MAX_MESSAGE: usize = 64 << 10;

/// What ended the connection, in `ClientChannel::ended`. It only ever grows: nothing undoes an end.
const RUNNING: u64 = 0;
const CLOSED: u64 = 1;
const DIED: u64 = 2;
/// Answers that are there are still delivered below, and nothing is from here on.
const VIOLATED: u64 = 3;
const CLOSED_HERE: u64 = 4;

/// A connection that is closed when its owner goes; responses may keep the memory for longer.
#[derive(Debug)]
pub(super) struct Attached(pub(super) Arc<ClientChannel>);

impl std::ops::Deref for Attached {
    type Target = Arc<ClientChannel>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One connection: the segment, the ring on it, and what is known of the server.
#[derive(Debug)]
pub(super) struct ClientChannel {
    pub(super) segment: Segment,
    pub(super) ring: ClientRing,
    pub(super) server_metadata: Vec<u8>,
    /// The numbers that former connections of a shared client have used up. What callers see is the
    /// ring's sequence plus this.
    counted_before: AtomicU64,
    /// `close` has been called.
    closed: AtomicBool,
    /// Held while a request is published that another thread's `close` may race with, and by `close`.
    /// Whether another connection has taken this one's place.
    publishing: Mutex<bool>,
    ended: AtomicU64,
    violation: OnceLock<Violation>,
    space: Waiter,
    responses: Waiter,
    vigil: Vigil,
    /// For the thread that tells of the server's death.
    me: Weak<Self>,
}

impl ClientChannel {
    pub(super) fn attach(
        name: &ChannelName,
        config: &ClientConfig,
        deadline: &Deadline,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<Attached> {
        let in_table = config.max_in_flight;
        if in_table == 0 || in_table > 1 << 20 {
            return Err(Error::BadConfig {
                what: "max_in_flight",
                asked: in_table as u64,
                allowed: "1 to 1048576",
            });
        }
        let segment = attach(name, config, deadline, is_given_up)?;
        failpoint!("attach.before_post");
        // So that the server watches this client from now on, and not from its first request.
        wake(&segment.semaphores.request_ready);
        let server_metadata = segment.read_metadata(Block::Response)?;
        let slots = (segment.geometry.payload_size / 64).min(in_table as u64) as usize;
        let words = (segment.control.clone(), segment.payload_words());
        let ring = ClientRing::new(words.0, words.1, &segment.geometry, slots);
        crate::trace::event!(channel = %name, "attached");
        Ok(Attached(Arc::new_cyclic(|me| Self {
            segment,
            ring,
            server_metadata,
            counted_before: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            publishing: Mutex::new(false),
            ended: AtomicU64::new(RUNNING),
            violation: OnceLock::new(),
            space: Waiter::new(config.wait),
            responses: Waiter::new(config.wait),
            vigil: Vigil::default(),
            me: Weak::clone(me),
        })))
    }

    /// What [`ClientChannel::check`] finds no fault with.
    #[inline]
    fn is_usable(&self) -> bool {
        self.segment.is_ours() && self.ended.load(Ordering::Relaxed) < VIOLATED
    }

    /// Whether the channel can be used at all, by this process.
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        self.segment.check_process()?;
        match self.ended.load(Ordering::Relaxed) {
            CLOSED_HERE => Err(Error::Closed),
            _ => self.violation.get().map_or(Ok(()), |violation| Err((*violation).into())),
        }
    }

    /// Whether this side has ended the connection.
    pub(super) fn has_ended_here(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == CLOSED_HERE
    }

    fn poison(&self, violation: Violation) -> Error {
        crate::trace::event!(channel = %self.segment.name, field = violation.field, "poisoned");
        let violation = *self.violation.get_or_init(|| violation);
        self.ended.fetch_max(VIOLATED, Ordering::Relaxed);
        violation.into()
    }

    // ---- numbers ----

    /// Goes on where `former`, to which nothing is added any more, has left off. To be called before
    /// anybody sends here.
    pub(super) fn count_on(&self, former: &Self) {
        let used = former.ring.next_sequence() - 1;
        self.counted_before.store(former.number(used), Ordering::Relaxed);
    }

    /// A sequence of the ring as callers know it.
    #[inline]
    pub(super) fn number(&self, sequence: u64) -> u64 {
        self.counted_before.load(Ordering::Relaxed) + sequence
    }

    /// The ring's sequence for a caller's number; `None` if that is a former connection's.
    pub(super) fn sequence(&self, number: u64) -> Option<u64> {
        let sequence = number.checked_sub(self.counted_before.load(Ordering::Relaxed))?;
        (sequence > 0).then_some(sequence)
    }

    // ---- sending ----

    /// Whether nothing that is known speaks against sending.
    #[inline]
    fn may_send(&self) -> bool {
        self.segment.is_ours()
            // A server that is known to be gone takes nothing more. That it has just gone is not asked
            // here, on the way of every request: whoever waits for the answer finds out.
            && self.ended.load(Ordering::Relaxed) == RUNNING
    }

    /// Finds room for `demand`, waiting until the deadline, and notes that a claim is open.
    #[inline]
    pub(super) fn claim(&self, demand: Demand, deadline: &Deadline) -> Result<Claim> {
        let at_once = self.may_send().then(|| self.ring.claim_at_once(demand)).flatten();
        let claim = match at_once {
            Some(claim) => claim,
            None => self.wait_for_room(demand, deadline)?,
        };
        failpoint!("claim.claimed");
        Ok(claim)
    }

    #[cold]
    fn wait_for_room(&self, demand: Demand, deadline: &Deadline) -> Result<Claim> {
        self.check()?;
        if self.ring.is_claim_open() {
            return Err(Error::ClaimOpen);
        }
        if !self.may_send() {
            self.check()?;
            return Err(end_error(self.peer(), None));
        }
        let semaphore = &self.segment.semaphores.space_available;
        let mut shortage = (0, 0);
        let step = || match self.ring.try_claim(demand) {
            Ok(ClaimStep::Ready(claim)) => Some(Ok(claim)),
            Ok(ClaimStep::Full { needed, free }) => {
                shortage = (needed, free);
                None
            }
            Ok(ClaimStep::Marker) => {
                failpoint!("claim.drained");
                wake(&self.segment.semaphores.request_ready);
                None
            }
            Err(error) => Some(Err(error)),
        };
        let waited = self.space.wait(semaphore, deadline, self, step);
        waited.unwrap_or_else(|unready| {
            let (needed, free) = shortage;
            Err(match unready {
                Unready::Gone(peer) => end_error(peer, None),
                Unready::Stopped => Error::Closed,
                Unready::Timeout => Error::Full { needed, free, in_flight: self.ring.in_flight() },
            })
        })
    }

    #[inline(always)]
    pub(super) fn commit(&self, claim: Claim, len: u64) -> u64 {
        let sequence = self.ring.commit(claim, len);
        failpoint!("commit.before_post");
        wake(&self.segment.semaphores.request_ready);
        sequence
    }

    /// As [`ClientChannel::commit`], for a handle that other threads do not wait for when they close
    /// this end.
    pub(super) fn commit_unless_closed(&self, claim: Claim, len: u64) -> Result<u64> {
        let replaced = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_ended_here() || *replaced {
            self.ring.abandon(claim);
            return Err(match *replaced {
                true => Error::InvalidState {
                    reason: "the client has reconnected; acquire a new buffer",
                },
                false => Error::Closed,
            });
        }
        Ok(self.commit(claim, len))
    }

    /// Another connection takes this one's place: what was claimed here cannot be committed any more.
    pub(super) fn replaced(&self) {
        *self.publishing.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// The usual case of [`ClientChannel::send_slowly`]: there is room. `None`: nothing was sent.
    #[inline(always)]
    pub(super) fn send_at_once(&self, data: &[u8], demand: Demand) -> Option<u64> {
        if !self.may_send() {
            return None;
        }
        let claim = self.ring.claim_at_once(demand)?;
        Some(self.fill_and_publish(claim, data))
    }

    #[cold]
    pub(super) fn send_slowly(
        &self,
        data: &[u8],
        demand: Demand,
        deadline: &Deadline,
    ) -> Result<u64> {
        let claim = self.wait_for_room(demand, deadline)?;
        Ok(self.fill_and_publish(claim, data))
    }

    #[inline(always)]
    fn fill_and_publish(&self, mut claim: Claim, data: &[u8]) -> u64 {
        let len = data.len() as u64;
        // By the length of the source: where the compiler knows it, there is no call of memcpy.
        claim.data_mut(&self.segment.payload, len)[..data.len()].copy_from_slice(data);
        self.commit(claim, len)
    }

    // ---- receiving ----

    /// The usual case of [`ClientChannel::receive_for`]: a good answer comes while one spins.
    #[inline(always)]
    pub(super) fn receive_at_once(&self, sequence: u64) -> Option<Held> {
        let came = self.is_usable() && self.responses.spin(self.ring.news_of(sequence));
        if came { self.ring.collect(sequence) } else { None }
    }

    /// Waits for the answer to one request; when the deadline passes, the request is given up.
    #[cold]
    pub(super) fn receive_for(&self, sequence: u64, deadline: &Deadline) -> Result<Held> {
        self.check()?;
        let looked = self.await_response(deadline, self, || self.look(sequence));
        self.settle(sequence, deadline, looked)
    }

    /// A look at one request, and no more: nothing is given up.
    pub(super) fn poll_for(&self, sequence: u64) -> Result<Held> {
        self.check()?;
        match self.look(sequence) {
            Some(looked) => self.settle(sequence, &Deadline::after(Duration::ZERO), Ok(looked)),
            None => match self.look_at_lock() {
                Peer::Alive => Err(timed_out(Duration::ZERO)),
                // The server's last answer may have come since the look.
                _ => self.receive_for(sequence, &Deadline::after(Duration::ZERO)),
            },
        }
    }

    /// What there is to say about a request, if it is no longer waiting.
    pub(super) fn look(&self, sequence: u64) -> Option<Looked> {
        match self.ring.look(sequence) {
            Ok(Look::Waiting) => None,
            other => Some(other),
        }
    }

    /// Turns the end of a wait for `sequence` into the answer or the error that it stands for.
    pub(super) fn settle(
        &self,
        sequence: u64,
        deadline: &Deadline,
        waited: std::result::Result<Looked, Unready>,
    ) -> Result<Held> {
        let unready = match waited {
            Ok(Ok(Look::Ready(held))) => return self.accept(held),
            // Closing gives up what nobody has collected.
            Ok(Ok(_)) if self.has_ended_here() => return Err(Error::Closed),
            Ok(Ok(_)) => return Err(Error::UnknownSequence { sequence: self.number(sequence) }),
            Ok(Err(violation)) => return Err(self.poison(violation)),
            Err(unready) => unready,
        };
        match unready {
            Unready::Gone(peer) => Err(self.lost(peer, sequence)),
            Unready::Stopped => Err(Error::Closed),
            Unready::Timeout => {
                if !self.ring.cancel(sequence)
                    && let Ok(Look::Ready(held)) = self.ring.look(sequence)
                {
                    // The answer came while the request was being given up.
                    return self.accept(held);
                }
                Err(timed_out(deadline.timeout()))
            }
        }
    }

    /// Gives a request up, unless its answer is there or was collected.
    pub(super) fn cancel(&self, sequence: u64) -> bool {
        if !self.segment.is_ours() {
            return false;
        }
        let cancelled = self.ring.cancel(sequence);
        if self.ring.is_concurrent() {
            // Who waits for it has seen neither an answer nor an end meanwhile.
            wake(&self.segment.semaphores.response_ready);
        }
        cancelled
    }

    /// Waits for the oldest answer that is there.
    pub(super) fn receive_next(&self, deadline: &Deadline) -> Result<Held> {
        let waited = self.await_response(deadline, self, || self.ring.next_ready().transpose());
        self.settle_next(deadline, waited)
    }

    /// Turns the end of a wait for any answer into the answer or the error that it stands for.
    pub(super) fn settle_next(
        &self,
        deadline: &Deadline,
        waited: std::result::Result<std::result::Result<Held, Violation>, Unready>,
    ) -> Result<Held> {
        match waited {
            Ok(Ok(held)) => self.accept(held),
            Ok(Err(violation)) => Err(self.poison(violation)),
            Err(Unready::Gone(peer)) => match self.ring.pending().next() {
                Some(sequence) => Err(self.lost(peer, sequence)),
                None => Err(end_error(peer, None)),
            },
            Err(Unready::Stopped) => Err(Error::Closed),
            Err(Unready::Timeout) => Err(timed_out(deadline.timeout())),
        }
    }

    pub(super) fn await_response<T>(
        &self,
        deadline: &Deadline,
        watch: &impl Watch,
        cond: impl FnMut() -> Option<T>,
    ) -> std::result::Result<T, Unready> {
        self.responses.wait(&self.segment.semaphores.response_ready, deadline, watch, cond)
    }

    /// Hands a response out, or turns a failed one into its error and gives the slot back.
    fn accept(&self, held: Held) -> Result<Held> {
        if held.status == 0 {
            return Ok(held);
        }
        let text = held.data(&self.segment.payload);
        let message = String::from_utf8_lossy(&text[..text.len().min(MAX_MESSAGE)]).into_owned();
        self.release(&held);
        let sequence = self.number(held.sequence);
        Err(Error::HandlerFailed { sequence, status: held.status, message })
    }

    #[inline(always)]
    pub(super) fn release(&self, held: &Held) {
        if !self.segment.is_ours() {
            return;
        }
        let concurrent = self.ring.is_concurrent();
        if concurrent && self.is_closed() {
            // A response that outlives its client: there is nobody to give it back to.
            return;
        }
        self.ring.release(held);
        failpoint!("release.before_post");
        // Its only waiter, a server that stops, looks again every slice.
        hint(&self.segment.semaphores.response_consumed);
        if concurrent {
            // A claim of another thread may wait for this space.
            wake(&self.segment.semaphores.space_available);
        }
    }

    /// What is known of a request that the server's end left behind; reported once, then forgotten.
    fn lost(&self, peer: Peer, sequence: u64) -> Error {
        let request = self.fate_after_death(sequence);
        self.ring.cancel(sequence);
        end_error(peer, Some(request))
    }

    pub(super) fn fate_after_death(&self, sequence: u64) -> LostRequest {
        let request = self.ring.fate_after_death(sequence);
        LostRequest { sequence: self.number(sequence), ..request }
    }

    // ---- the server's life ----

    /// Whether the server is there, by a look at its lock.
    pub(super) fn is_server_connected(&self) -> bool {
        self.is_usable() && self.has_server()
    }

    /// The same, whatever the server has written.
    pub(super) fn has_server(&self) -> bool {
        self.peer() == Peer::Alive && self.look_at_lock() == Peer::Alive
    }

    /// Whether the server still has its lock.
    pub(super) fn look_at_lock(&self) -> Peer {
        match Role::Server.is_held(&self.segment.memory) {
            Ok(false) => match self.peer() {
                // Not closed in good order before it let go.
                Peer::Alive => self.ended(Peer::Died),
                peer => peer,
            },
            // A lock that cannot be looked at says nothing about its holder.
            Ok(true) | Err(_) => self.peer(),
        }
    }

    /// The server's process is gone, another thread says: whoever waits looks.
    fn hear_of_death(&self) {
        self.vigil.tell();
        wake(&self.segment.semaphores.response_ready);
        wake(&self.segment.semaphores.space_available);
    }

    fn ended(&self, peer: Peer) -> Peer {
        let end = if peer == Peer::Closed { CLOSED } else { DIED };
        let first =
            self.ended.compare_exchange(RUNNING, end, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first {
            crate::trace::event!(channel = %self.segment.name, ?peer, "server gone");
        }
        match self.ended.load(Ordering::Relaxed) {
            CLOSED => Peer::Closed,
            DIED => Peer::Died,
            _ => peer,
        }
    }

    /// Ends the connection from whatever thread: whoever waits in it comes back, and nothing more is done
    /// with it. The segment is not touched; the owner closes it.
    fn end_here(&self) {
        self.ended.fetch_max(CLOSED_HERE, Ordering::Relaxed);
        wake(&self.segment.semaphores.response_ready);
        wake(&self.segment.semaphores.space_available);
    }

    /// Whether this end was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Closes this end in good order: gives up what is not answered, says so, and lets go. Responses
    /// that are still held stay readable; their memory goes with the last of them.
    ///
    /// Once only: an unused segment serves the next client, whose words these are then.
    pub(super) fn close(&self) {
        if !self.segment.is_ours() || self.is_closed() {
            return;
        }
        self.end_here();
        {
            let _nobody_publishes = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.closed.swap(true, Ordering::Relaxed) {
                return;
            }
        }
        self.vigil.end();
        self.ring.cancel_all();
        failpoint!("close.cancelled");
        self.segment.store(RESPONSE + oieb::READER_PID, 0);
        failpoint!("close.one_pid");
        self.segment.store(REQUEST + oieb::WRITER_PID, 0);
        failpoint!("close.before_post");
        wake(&self.segment.semaphores.request_ready);
        failpoint!("close.before_unlock");
        self.segment.resign();
        crate::trace::event!(channel = %self.segment.name, "detached");
    }
}

impl Watch for ClientChannel {
    #[inline]
    fn peer(&self) -> Peer {
        match self.ended.load(Ordering::Relaxed) {
            CLOSED => Peer::Closed,
            DIED => Peer::Died,
            _ if [REQUEST + oieb::READER_PID, RESPONSE + oieb::WRITER_PID]
                .into_iter()
                .any(|pid| self.segment.load(pid) == 0) =>
            {
                self.ended(Peer::Closed)
            }
            _ if self.vigil.was_told() => self.look_at_lock(),
            _ => Peer::Alive,
        }
    }

    fn probe(&self) -> Peer {
        // Who has waited for a slice may wait for long.
        let me = Weak::clone(&self.me);
        let tell = move || me.upgrade().iter().for_each(|channel| channel.hear_of_death());
        self.vigil.ask(self.segment.load(REQUEST + oieb::READER_PID), tell);
        self.look_at_lock()
    }

    fn slice(&self) -> Duration {
        SLICE
    }

    fn stopped(&self) -> bool {
        self.has_ended_here()
    }
}

/// For a client of one thread, which may be at work in the ring: it closes the segment itself.
impl Connected for ClientChannel {
    fn end(&self) {
        self.end_here();
    }
}

pub(super) fn timed_out(waited: Duration) -> Error {
    Error::Timeout { waited, what: "waiting for a response" }
}

pub(super) fn end_error(peer: Peer, request: Option<LostRequest>) -> Error {
    match peer {
        Peer::Closed => Error::PeerClosed { request },
        _ => Error::PeerDied { request },
    }
}
