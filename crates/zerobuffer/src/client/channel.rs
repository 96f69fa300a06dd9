//! The client's end of one connection, shared by all of its handles.

mod hang_up;

use super::lifeline;
use super::number::Number;
use super::seal::Sealed;
use crate::atomics::{AtomicBool, AtomicU64, Ordering};
use crate::config::{ChannelKind, ClientConfig};
use crate::error::{
    Error, ErrorKind, LostRequest, Medium, REQUEST_TO_SERVICE, RequestState, Result, shortened,
};
use crate::failpoint::failpoint;
use crate::link::segment::{Block, Segment};
use crate::link::socket::{self, Connected};
use crate::link::{Awaited, ToServer, named};
use crate::name::ChannelName;
use crate::sys::ReadySet;
use crate::v2::layout::{Demand, REQUEST, RESPONSE, oieb};
use crate::v2::ring::{Claim, ClaimStep, ClientRing, Held, Look, Violation};
use crate::wait::{Deadline, Peer, Unready, WaitContext, Waiter, wake};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Between two tries to find a server.
const PAUSE: Duration = Duration::from_millis(1);

/// What a check of a request found.
pub(super) type Looked = std::result::Result<Look, Violation>;

/// What is kept of a failed handler's message: its length is the peer's word.
const MAX_MESSAGE: usize = 64 << 10;

/// What ended the connection, in `ClientChannel::ended`. It only ever grows: nothing undoes an end.
const RUNNING: u64 = 0;
const CLOSED: u64 = 1;
const DIED: u64 = 2;
/// Responses that are there are still delivered below, and nothing is from here on.
const VIOLATED: u64 = 3;
/// Another connection takes its place. To who waits that is an end like the server's.
const LEFT: u64 = 4;
const CLOSED_HERE: u64 = 5;

/// Why nothing can be sent any more on a connection whose requests are listed.
pub(super) const SEALED: Error = Error::InvalidState {
    reason: "its connection has ended, and the client reconnects; acquire a new buffer",
};

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
    link: ToServer,
    ring: ClientRing,
    pub(super) server_metadata: Vec<u8>,
    /// The numbers that previous connections of the client have used.
    counted_before: AtomicU64,
    /// `close` has been called.
    closed: AtomicBool,
    /// Held while a request is published that another thread's `close` or `seal` may race with, and by
    /// those; a shared client's threads hold their pin instead, or as well.
    publishing: Mutex<()>,
    /// Whether nothing is published any more.
    sealed: AtomicBool,
    ended: AtomicU64,
    violation: OnceLock<Violation>,
    /// What is sent without a thread that waits has found no room.
    room_wanted: AtomicBool,
    /// Threads that wait for room, and from its end on the socket, which waits for the last release.
    room_waits: AtomicU64,
    space: Waiter,
    responses: Waiter,
    /// For the thread that tells of the server's death.
    me: Weak<Self>,
}

impl ClientChannel {
    /// Attaches to a server of `name`: one of a service's if there is one, otherwise a channel's. `once`: if there
    /// is none of either, it does not wait for one.
    ///
    /// # Errors
    /// As [`named::attach`] and [`socket::connect`]; what the service's servers say counts for more.
    pub(super) fn attach(
        name: &ChannelName,
        config: &ClientConfig,
        deadline: &Deadline,
        once: bool,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Attached> {
        check_table(config)?;
        if config.channel == ChannelKind::Service {
            return Self::attach_to_service(name, config, deadline, once, is_cancelled);
        }
        if config.without_services {
            return Self::attach_to_channel(name, config, deadline, is_cancelled);
        }
        loop {
            let service = Self::attach_to_service(name, config, deadline, true, is_cancelled);
            let refused = match service {
                Ok(attached) => return Ok(attached),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => error,
            };
            let at_once = Deadline::after(Duration::ZERO);
            let named = Self::attach_to_channel(name, config, &at_once, is_cancelled);
            let absent = match named {
                Err(error) if matches!(error.kind(), ErrorKind::NotRunning | ErrorKind::Busy) => {
                    error
                }
                attached => return attached,
            };
            // A server that hangs or has died says more than that there is no channel either.
            let no_socket =
                matches!(refused.facts(), Error::NotRunning { found: socket::NO_SOCKET, .. });
            let no_service = no_socket
                || refused.kind() == ErrorKind::NotRunning && absent.kind() == ErrorKind::Busy;
            let is_final = matches!(
                refused.kind(),
                ErrorKind::Incompatible | ErrorKind::TooLarge | ErrorKind::PermissionDenied
            );
            if once || deadline.left().is_zero() || is_final {
                let of_both = |absent| config.place.told_of_both(name, absent);
                return Err(if no_service { of_both(absent) } else { refused });
            }
            crate::sys::sleep(PAUSE.min(deadline.left()));
        }
    }

    fn attach_to_channel(
        name: &ChannelName,
        config: &ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Attached> {
        let named = named::attach(name, config, deadline, is_cancelled)?;
        failpoint!("attach.before_post");
        // So that the server watches this client from now on, and not from its first request.
        wake(&named.semaphores.request_ready);
        Self::over(named.views(), ToServer::named(named), config)
    }

    fn attach_to_service(
        name: &ChannelName,
        config: &ClientConfig,
        deadline: &Deadline,
        once: bool,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Attached> {
        let Connected { segment, sleepers, seat } = socket::connect(
            &socket::Wanted {
                service: name,
                place: &config.place,
                ring: config.ring as u64,
                label: &config.label,
                metadata: &config.metadata,
                pages: config.pages,
                seats: config.seats.as_ref(),
                once,
                is_cancelled,
            },
            deadline,
        )?;
        Self::over(segment, ToServer::over_socket(sleepers, seat, config.wait), config)
    }

    /// A client on a segment that is its own.
    fn over(segment: Segment, link: ToServer, config: &ClientConfig) -> Result<Attached> {
        let in_table = config.max_in_flight;
        let server_metadata = segment.read_metadata(Block::Response)?;
        let slots = (segment.geometry.payload_size / 64).min(in_table as u64) as usize;
        let words = (segment.control.clone(), segment.payload_words());
        let ring = ClientRing::new(words.0, words.1, &segment.geometry, slots);
        crate::trace::event!(channel = %segment.name, "attached");
        Ok(Attached(Arc::new_cyclic(|me| Self {
            segment,
            link,
            ring,
            server_metadata,
            counted_before: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            publishing: Mutex::new(()),
            sealed: AtomicBool::new(false),
            ended: AtomicU64::new(RUNNING),
            violation: OnceLock::new(),
            room_wanted: AtomicBool::new(false),
            room_waits: AtomicU64::new(0),
            space: Waiter::new(config.wait),
            responses: Waiter::new(config.wait),
            me: Weak::clone(me),
        })))
    }

    /// Whether other connections of this process may reach other servers of the same name.
    pub(super) fn is_to_service(&self) -> bool {
        self.link.is_to_service()
    }

    /// From now on a program's event loop waits here, and no thread does, on the descriptor that is returned.
    ///
    /// # Errors
    /// `Unsupported` unless it leads to a service.
    pub(super) fn lead_by_event_loop(&self) -> Result<ReadySet> {
        self.link.lead_by_event_loop()
    }

    /// For that event loop, before it looks for responses and for the end.
    pub(super) fn listen(&self, ready: &ReadySet) {
        self.link.listen();
        if self.link.is_end_told() {
            // It stays ready.
            self.link.forget_in(ready);
        }
        // Which remembers the end.
        let _ = self.peer();
    }

    /// What [`ClientChannel::check`] finds no fault with.
    #[inline]
    fn is_usable(&self) -> bool {
        self.segment.is_this_process() && self.ended.load(Ordering::Relaxed) < VIOLATED
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

    /// Whether nobody is to wait here any more, whatever the server does: this side has ended it, or found
    /// that the server is not to be trusted.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.ended.load(Ordering::Relaxed), VIOLATED | CLOSED_HERE)
    }

    /// Why waiting here is over, as far as that is known.
    pub(super) fn end(&self) -> Option<Unready> {
        match self.ended.load(Ordering::Relaxed) {
            RUNNING => None,
            CLOSED | LEFT => Some(Unready::Gone(Peer::Closed)),
            DIED => Some(Unready::Gone(Peer::Died)),
            _ => Some(Unready::Stopped),
        }
    }

    /// Why [`Self::is_stopped`].
    fn why_stopped(&self) -> Error {
        self.check().err().unwrap_or(Error::Closed)
    }

    fn poison(&self, violation: Violation) -> Error {
        crate::trace::event!(channel = %self.segment.name, field = violation.field, "poisoned");
        let violation = *self.violation.get_or_init(|| violation);
        if self.ended.fetch_max(VIOLATED, Ordering::Relaxed) < VIOLATED {
            // On a service threads sleep until they are woken, and only this one has looked.
            self.link.wake_all_own();
        }
        // The response that is none was in this thread's hands.
        self.hang_up_if_unheld();
        violation.into()
    }

    // ---- numbers ----

    /// Continues the count of the previous connection. To be called before anything is sent here.
    pub(super) fn count_on(&self, previous: Sealed<'_>) {
        self.counted_before.store(previous.used_numbers(), Ordering::Relaxed);
    }

    /// The number of what the ring calls `sequence`.
    #[inline(always)]
    pub(super) fn number(&self, sequence: u64) -> Number {
        Number::of_ring(sequence, self.counted_before.load(Ordering::Relaxed))
    }

    /// The ring's sequence for it; `None` if it belongs to a previous connection.
    #[inline(always)]
    fn sequence(&self, number: Number) -> Option<u64> {
        number.in_ring(self.counted_before.load(Ordering::Relaxed))
    }

    /// Whether it is of this connection, or of one to come.
    pub(super) fn has_counted(&self, number: Number) -> bool {
        self.sequence(number).is_some()
    }

    /// The number of the request that was answered.
    pub(super) fn number_of(&self, held: &Held) -> Number {
        self.number(held.sequence)
    }

    /// The number of the next commit.
    pub(super) fn next_number(&self) -> Number {
        self.number(self.ring.next_sequence())
    }

    /// The account, for who does not touch single requests.
    #[inline(always)]
    pub(super) fn ring(&self) -> &ClientRing {
        &self.ring
    }

    // ---- sending ----

    /// Whether nothing that is known speaks against sending.
    #[inline]
    fn may_send(&self) -> bool {
        self.segment.is_this_process()
            // A server that is known to have ended takes nothing more. Whether it has just ended is not asked
            // here, on the way of every request: the wait for the response finds out.
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
        let _waits = RoomWait::begin(self);
        let mut shortage = (0, 0);
        let step = || match self.ring.try_claim(demand) {
            Ok(ClaimStep::Ready(claim)) => Some(Ok(claim)),
            Ok(ClaimStep::Full { needed, free }) => {
                shortage = (needed, free);
                None
            }
            Ok(ClaimStep::Marker) => {
                failpoint!("claim.drained");
                self.link.wake_server();
                None
            }
            Err(error) => Some(Err(self.told(error))),
        };
        let waited = self.link.wait(Awaited::Room, &self.space, deadline, self, step);
        waited.unwrap_or_else(|unready| {
            let (needed, free) = shortage;
            Err(match unready {
                Unready::Gone(peer) => end_error(peer, None),
                Unready::Stopped => self.why_stopped(),
                Unready::Timeout => self.full(needed, free),
            })
        })
    }

    /// That there is no room, and who has it.
    pub(super) fn full(&self, needed: u64, free: u64) -> Error {
        let medium = if self.is_to_service() { Medium::Service } else { Medium::Channel };
        let (in_flight, held) = (self.ring.in_flight(), self.ring.held());
        Error::Full { medium, needed, free, in_flight, held }
    }

    /// The same error, which names what the program can set.
    #[cold]
    fn told(&self, error: Error) -> Error {
        match error {
            Error::TooLarge { asked, max, .. } if self.is_to_service() => {
                Error::TooLarge { what: REQUEST_TO_SERVICE, asked, max }
            }
            error => error,
        }
    }

    /// Finds room for `demand` if there is some.
    pub(super) fn poll_claim(&self, demand: Demand) -> Result<Option<Claim>> {
        self.check()?;
        if !self.may_send() {
            return Err(end_error(self.peer(), None));
        }
        match self.ring.try_claim(demand) {
            Ok(ClaimStep::Ready(claim)) => Ok(Some(claim)),
            Ok(ClaimStep::Marker) => {
                self.link.wake_server();
                Ok(None)
            }
            // A buffer that its owner had acquired before it shared the client.
            Ok(ClaimStep::Full { .. }) | Err(Error::ClaimOpen) => Ok(None),
            Err(error) => Err(self.told(error)),
        }
    }

    /// From now on the completer is woken when a response is released, or an open claim ends. To be followed by
    /// another try to send.
    pub(super) fn want_room(&self) {
        self.room_wanted.store(true, Ordering::Relaxed);
        self.ring.order_after_releases();
    }

    /// Whether another try to send may find room, after [`Self::want_room`]: this side has made some, or the
    /// server, which wakes a thread that waits here when it does.
    pub(super) fn may_have_room(&self) -> bool {
        !self.room_wanted.load(Ordering::Relaxed) || self.ring.may_reclaim()
    }

    /// A response was released, or a claim has ended: wakes the completer if that is what it waits for.
    fn tell_who_wants_room(&self) {
        if self.room_wanted.load(Ordering::Relaxed) {
            self.room_wanted.store(false, Ordering::Relaxed);
            self.link.wake_all_own();
        }
    }

    /// After the end of a claim that was open without a turn to send.
    pub(super) fn claim_ended(&self) {
        // A forked child does not have the segment.
        if self.segment.is_this_process() && self.ring.is_concurrent() {
            self.ring.order_after_releases();
            self.tell_who_wants_room();
        }
    }

    #[inline(always)]
    pub(super) fn commit(&self, claim: Claim, len: u64) -> Number {
        self.number(self.publish(claim, len))
    }

    #[inline(always)]
    fn publish(&self, claim: Claim, len: u64) -> u64 {
        let sequence = self.ring.commit(claim, len);
        failpoint!("commit.before_post");
        self.link.wake_server();
        sequence
    }

    /// As [`ClientChannel::commit`], for a handle that other threads do not wait for when they close
    /// this end.
    pub(super) fn commit_unless_sealed(&self, claim: Claim, len: u64) -> Result<Number> {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = if self.is_sealed() { Err(SEALED) } else { self.check() } {
            self.ring.abandon(claim);
            return Err(error);
        }
        Ok(self.commit(claim, len))
    }

    /// From here on nothing more is committed: what was claimed cannot be sent any more, and what was sent can
    /// be listed.
    pub(super) fn seal(&self) -> Sealed<'_> {
        let _nobody_publishes = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: who publishes reads it under the lock, or under the pin.
        self.sealed.store(true, Ordering::Relaxed);
        Sealed::new(self)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Sends a short request if there is room, for a thread that holds the pin while nobody has the turn.
    #[inline(always)]
    pub(super) fn send_pinned(&self, data: &[u8], addressed: bool) -> Option<Number> {
        if self.is_sealed() || !self.may_send() {
            return None;
        }
        let mut claim = self.ring.claim_at_once(Demand::anywhere(data.len() as u64))?;
        if addressed {
            claim = claim.addressed();
        }
        Some(self.number(self.fill_and_publish(claim, data)))
    }

    /// The response to a request, if it is there and good.
    #[inline(always)]
    pub(super) fn receive_ready(&self, number: Number) -> Option<Held> {
        let sequence = self.sequence(number).filter(|_| self.is_usable())?;
        self.ring.look_at_once(sequence)
    }

    /// The usual case of [`ClientChannel::send_slowly`]: there is room. `None`: nothing was sent.
    #[inline(always)]
    pub(super) fn send_at_once(&self, data: &[u8], demand: Demand) -> Option<Number> {
        self.publish_at_once(data, demand).map(|sequence| self.number(sequence))
    }

    /// The usual case of a call. `Err`: it has no response yet, or could not even be sent.
    #[inline(always)]
    pub(super) fn call_at_once(
        &self,
        data: &[u8],
        demand: Demand,
    ) -> std::result::Result<Held, Option<Number>> {
        let sequence = self.publish_at_once(data, demand).ok_or(None)?;
        self.collect_at_once(sequence).ok_or_else(|| Some(self.number(sequence)))
    }

    #[inline(always)]
    fn publish_at_once(&self, data: &[u8], demand: Demand) -> Option<u64> {
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
    ) -> Result<Number> {
        let claim = self.wait_for_room(demand, deadline)?;
        Ok(self.number(self.fill_and_publish(claim, data)))
    }

    #[inline(always)]
    fn fill_and_publish(&self, mut claim: Claim, data: &[u8]) -> u64 {
        let len = data.len() as u64;
        // By the length of the source: where the compiler knows it, there is no call of memcpy.
        claim.data_mut(&self.segment.payload, len)[..data.len()].copy_from_slice(data);
        self.publish(claim, len)
    }

    // ---- receiving ----

    /// The usual case of [`ClientChannel::receive_for`]: a good answer comes while one spins.
    #[inline(always)]
    pub(super) fn receive_at_once(&self, number: Number) -> Option<Held> {
        self.collect_at_once(self.sequence(number)?)
    }

    #[inline(always)]
    fn collect_at_once(&self, sequence: u64) -> Option<Held> {
        let came = self.is_usable() && self.responses.spin(self.ring.ready_check(sequence));
        if came { self.ring.look_at_once(sequence) } else { None }
    }

    /// Waits for the response to one request; when the deadline passes, the request is cancelled.
    #[cold]
    pub(super) fn receive_for(&self, number: Number, deadline: &Deadline) -> Result<Held> {
        self.check()?;
        let looked = self.await_response(deadline, self, || self.look(number));
        self.settle(number, deadline, looked)
    }

    /// One check of one request: nothing is cancelled.
    pub(super) fn poll_for(&self, number: Number) -> Result<Held> {
        self.check()?;
        match self.look(number) {
            Some(looked) => self.settle(number, &Deadline::after(Duration::ZERO), Ok(looked)),
            None => match self.look_at_lock() {
                Peer::Alive => Err(timed_out(Duration::ZERO)),
                // The server's last response may have come since the check.
                _ => self.receive_for(number, &Deadline::after(Duration::ZERO)),
            },
        }
    }

    /// From now on the response to this request goes to the caller that asks for it by its number alone, or
    /// to any caller again. True if that is a change.
    pub(super) fn set_addressed(&self, number: Number, addressed: bool) -> bool {
        let sequence = self.sequence(number).filter(|_| self.ring.is_concurrent());
        sequence.is_some_and(|sequence| self.ring.set_addressed(sequence, addressed))
    }

    /// What there is to say about a request, if it is no longer waiting.
    pub(super) fn look(&self, number: Number) -> Option<Looked> {
        let Some(sequence) = self.sequence(number) else { return Some(Ok(Look::Unknown)) };
        match self.ring.look(sequence) {
            Ok(Look::Waiting) => None,
            other => Some(other),
        }
    }

    /// Turns the end of a wait for request `number` into the response or the error that it stands for.
    pub(super) fn settle(
        &self,
        number: Number,
        deadline: &Deadline,
        waited: std::result::Result<Looked, Unready>,
    ) -> Result<Held> {
        let unready = match waited {
            Ok(Ok(Look::Ready(held))) => return self.accept(held),
            // Closing cancels what is not collected.
            Ok(Ok(_)) if self.has_ended_here() => return Err(Error::Closed),
            // Leaving cancels it, too; but it was sent, which the error must say.
            Ok(Ok(_)) if self.ended.load(Ordering::Relaxed) == LEFT => {
                return Err(end_error(Peer::Closed, Some(self.lost_request(number))));
            }
            Ok(Ok(_)) => return Err(Error::UnknownSequence { sequence: number.for_caller() }),
            Ok(Err(violation)) => return Err(self.poison(violation)),
            Err(unready) => unready,
        };
        match unready {
            Unready::Gone(peer) => {
                let lost = self.lost(peer, number);
                // This side was closed after the server had ended: what is known of the request by then may be
                // less than was known before.
                Err(if self.has_ended_here() { Error::Closed } else { lost })
            }
            Unready::Stopped => Err(self.why_stopped()),
            Unready::Timeout => {
                // A response that came while the request was being cancelled counts.
                match if self.cancel(number) { None } else { self.look(number) } {
                    Some(Ok(Look::Ready(held))) => self.accept(held),
                    Some(Err(violation)) => Err(self.poison(violation)),
                    _ => Err(timed_out(deadline.timeout())),
                }
            }
        }
    }

    /// Cancels a request, unless its response has arrived or was collected.
    pub(super) fn cancel(&self, number: Number) -> bool {
        let Some(sequence) = self.sequence(number).filter(|_| self.segment.is_this_process())
        else {
            return false;
        };
        let cancelled = self.ring.cancel(sequence);
        if self.ring.is_concurrent() {
            // Who waits for it has seen neither a response nor an end meanwhile.
            self.link.wake_own(Awaited::Response);
            self.hang_up_after_cancel();
        }
        cancelled
    }

    /// Cancels a request, or swallows its response.
    pub(super) fn abandon(&self, number: Number) {
        if !self.cancel(number)
            && self.check().is_ok()
            && let Some(Ok(Look::Ready(held))) = self.look(number)
        {
            self.release(&held);
        }
    }

    /// Whether a look at a request that was sent may find something.
    pub(super) fn is_ready(&self, number: Number) -> bool {
        self.sequence(number).is_none_or(|sequence| self.ring.ready_check(sequence)())
    }

    /// Makes the thread that waits for responses check for them.
    pub(super) fn wake_receivers(&self) {
        self.wake(Awaited::Response);
    }

    /// Makes the thread that waits for this check for it.
    pub(super) fn wake(&self, awaited: Awaited) {
        self.link.wake_own(awaited);
    }

    /// Waits for the oldest answer that is there.
    pub(super) fn receive_next(&self, deadline: &Deadline) -> Result<Held> {
        let waited = self.await_response(deadline, self, || self.next_ready());
        self.settle_next(deadline, waited)
    }

    /// The oldest answer that is there.
    pub(super) fn next_ready(&self) -> Option<std::result::Result<Held, Violation>> {
        self.ring.next_ready().transpose()
    }

    /// Turns the end of a wait for any response into the response or the error that it stands for.
    pub(super) fn settle_next(
        &self,
        deadline: &Deadline,
        waited: std::result::Result<std::result::Result<Held, Violation>, Unready>,
    ) -> Result<Held> {
        match waited {
            Ok(Ok(held)) => self.accept(held),
            Ok(Err(violation)) => Err(self.poison(violation)),
            Err(Unready::Gone(peer)) => {
                let lost = end_error(peer, self.next_lost());
                // As in `settle`.
                Err(if self.has_ended_here() { Error::Closed } else { lost })
            }
            Err(Unready::Stopped) => Err(self.why_stopped()),
            Err(Unready::Timeout) => Err(timed_out(deadline.timeout())),
        }
    }

    pub(super) fn await_response<T>(
        &self,
        deadline: &Deadline,
        watch: &impl WaitContext,
        cond: impl FnMut() -> Option<T>,
    ) -> std::result::Result<T, Unready> {
        self.await_response_by(&self.responses, deadline, watch, cond)
    }

    /// The same in another way than this connection's.
    pub(super) fn await_response_by<T>(
        &self,
        waiter: &Waiter,
        deadline: &Deadline,
        watch: &impl WaitContext,
        cond: impl FnMut() -> Option<T>,
    ) -> std::result::Result<T, Unready> {
        self.link.wait(Awaited::Response, waiter, deadline, watch, cond)
    }

    /// Waits for room by another waiter than this connection's, for the one whose turn to send it is.
    pub(super) fn await_room_by<T>(
        &self,
        waiter: &Waiter,
        deadline: &Deadline,
        cond: impl FnMut() -> Option<T>,
    ) -> std::result::Result<T, Unready> {
        self.link.wait(Awaited::Room, waiter, deadline, self, cond)
    }

    /// This connection's own way to wait for responses.
    pub(super) fn waiter(&self) -> &Waiter {
        &self.responses
    }

    /// Hands a response out, or turns a failed one into its error and releases the slot.
    fn accept(&self, held: Held) -> Result<Held> {
        if held.status == 0 {
            return Ok(held);
        }
        let text = held.data(&self.segment.payload);
        // Of a hostile peer's text no more is examined than is kept.
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_MESSAGE + 1)]);
        let message = shortened(&text, MAX_MESSAGE).into_owned();
        self.release(&held);
        let sequence = self.number_of(&held).for_caller();
        Err(Error::HandlerFailed { sequence, status: held.status, message })
    }

    #[inline(always)]
    pub(super) fn release(&self, held: &Held) {
        if !self.segment.is_this_process() {
            return;
        }
        if self.ring.is_concurrent() {
            return self.release_among_threads(held);
        }
        self.ring.release(held, false);
        failpoint!("release.before_post");
        self.link.tell_of_release();
    }

    /// The same where other threads may wait for the room.
    #[inline(never)]
    fn release_among_threads(&self, held: &Held) {
        if self.is_closed() {
            return self.release_after_close(held);
        }
        self.ring.release(held, true);
        failpoint!("release.before_post");
        self.link.tell_of_release();
        // The ring has released the response by a read-modify-write, which pairs with that of a thread
        // that says that it waits: either it finds this room, or it is seen to wait.
        if self.room_waits.load(Ordering::Relaxed) > 0 {
            self.link.wake_own(Awaited::Room);
            self.hang_up_if_unheld();
        }
        self.tell_who_wants_room();
    }

    /// The oldest request that the server's end left behind, if any: the thread that cancels it reports it, so
    /// that several threads report it once.
    fn next_lost(&self) -> Option<LostRequest> {
        let for_any = self.ring.pending().filter(|n| !self.ring.awaits_addressee(*n));
        let mut pending = for_any.map(|sequence| self.number(sequence));
        pending.find(|number| self.cancel(*number)).map(|number| self.lost_request(number))
    }

    /// What is known of a request that the server's end left behind; reported once, then forgotten.
    fn lost(&self, peer: Peer, number: Number) -> Error {
        let request = self.lost_request(number);
        self.cancel(number);
        end_error(peer, Some(request))
    }

    pub(super) fn lost_request(&self, number: Number) -> LostRequest {
        // What is no request of this connection has been started as far as anybody can know; a server
        // that was left lives, and may take anything yet; and the word of one that breaks the protocol counts for
        // nothing.
        let sequence =
            self.sequence(number).filter(|_| self.ended.load(Ordering::Relaxed) < VIOLATED);
        let state = sequence.map(|sequence| self.ring.state_after_death(sequence));
        let state = state.unwrap_or(RequestState::InDoubt);
        LostRequest { sequence: number.for_caller(), state }
    }

    /// Whether the response to a pending request has come.
    pub(super) fn is_answered(&self, number: Number) -> bool {
        self.sequence(number).is_some_and(|sequence| self.ring.is_answered(sequence))
    }

    /// A copy of a pending request, and what it needs to be sent again once the server has ended.
    pub(super) fn pending_bytes(&self, number: Number) -> Option<(Vec<u8>, Demand)> {
        let (held, demand) = self.pending_slot(number)?;
        Some((held.data(&self.segment.payload).to_vec(), demand))
    }

    /// The bytes of a pending request, and what it needs to be sent again once the server has ended.
    pub(super) fn pending_slot(&self, number: Number) -> Option<(Held, Demand)> {
        self.ring.pending_slot(self.sequence(number)?)
    }

    // ---- the server's life ----

    /// Whether the server is alive, by its lock.
    pub(super) fn is_server_connected(&self) -> bool {
        self.is_usable() && self.has_server()
    }

    /// The same, whatever the server has written.
    pub(super) fn has_server(&self) -> bool {
        self.peer() == Peer::Alive && self.look_at_lock() == Peer::Alive
    }

    /// Whether the server still has its lock.
    pub(super) fn look_at_lock(&self) -> Peer {
        if self.link.has_server() {
            return self.peer_by_pids();
        }
        if let Some(violation) = self.link.violation() {
            // It is this side that has ended the connection; each thread that waits is told why.
            self.poison(violation);
            return Peer::Died;
        }
        match self.peer_by_pids() {
            // It has ended without closing.
            Peer::Alive => self.ended(Peer::Died),
            peer => peer,
        }
    }

    /// How the server fares by what it has written.
    fn peer_by_pids(&self) -> Peer {
        let pids = [REQUEST + oieb::READER_PID, RESPONSE + oieb::WRITER_PID];
        match self.ended.load(Ordering::Relaxed) {
            CLOSED | LEFT => Peer::Closed,
            DIED => Peer::Died,
            _ if pids.into_iter().any(|pid| self.segment.load(pid) == 0) => {
                self.ended(Peer::Closed)
            }
            _ => Peer::Alive,
        }
    }

    /// Another thread reports that the server's process has died: every waiting thread checks.
    fn hear_of_death(&self) {
        self.link.hear_of_end();
    }

    fn ended(&self, peer: Peer) -> Peer {
        let end = if peer == Peer::Closed { CLOSED } else { DIED };
        let first =
            self.ended.compare_exchange(RUNNING, end, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first {
            crate::trace::event!(channel = %self.segment.name, ?peer, "server gone");
        }
        match self.ended.load(Ordering::Relaxed) {
            // Its socket ends by this side's own doing.
            CLOSED | LEFT | CLOSED_HERE => Peer::Closed,
            DIED => Peer::Died,
            _ => peer,
        }
    }

    /// Ends the connection from any thread: every wait in it returns, and nothing more is done
    /// with it. The segment is not touched.
    fn end_as(&self, end: u64) {
        self.ended.fetch_max(end, Ordering::Relaxed);
        self.link.wake_all_own();
    }

    /// Whether this end was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Closes this end cleanly: cancels what has no response, says so, and releases the segment. Responses
    /// that are still held stay readable; the last of them unmaps the memory, and ends the socket.
    ///
    /// Once only: an unused segment serves the next client, whose words these are then.
    pub(super) fn close(&self) {
        self.close_as(CLOSED_HERE);
    }

    /// The same to make room for another connection of this client.
    pub(super) fn leave(&self) {
        self.close_as(LEFT);
    }

    fn close_as(&self, end: u64) {
        if !self.segment.is_this_process() {
            return;
        }
        // Also for a connection that was left: it is closed, not left.
        self.end_as(end);
        {
            let _nobody_publishes = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.closed.swap(true, Ordering::Relaxed) {
                return;
            }
        }
        self.link.stop_watching();
        self.ring.cancel_all();
        failpoint!("close.cancelled");
        self.end_hand_outs();
        self.segment.store(RESPONSE + oieb::READER_PID, 0);
        failpoint!("close.one_pid");
        self.segment.store(REQUEST + oieb::WRITER_PID, 0);
        failpoint!("close.before_post");
        self.link.wake_server();
        self.hang_up_if_unheld();
        self.link.let_go();
        crate::trace::event!(channel = %self.segment.name, "detached");
    }
}

/// A thread waits for room: until it is dropped, those that release responses wake it.
struct RoomWait<'c>(&'c ClientChannel);

impl<'c> RoomWait<'c> {
    fn begin(channel: &'c ClientChannel) -> Self {
        channel.room_waits.fetch_add(1, Ordering::Relaxed);
        channel.ring.order_after_releases();
        Self(channel)
    }
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        self.0.room_waits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WaitContext for ClientChannel {
    #[inline]
    fn peer(&self) -> Peer {
        match self.peer_by_pids() {
            Peer::Alive if self.link.is_end_told() => self.look_at_lock(),
            peer => peer,
        }
    }

    fn probe(&self) -> Peer {
        // Who has waited for a slice may wait for long.
        let me = Weak::clone(&self.me);
        let tell = move || me.upgrade().iter().for_each(|channel| channel.hear_of_death());
        self.link.watch_server(self.segment.load(REQUEST + oieb::READER_PID), tell);
        self.look_at_lock()
    }

    fn slice(&self) -> Duration {
        self.link.slice()
    }

    fn stopped(&self) -> bool {
        self.is_stopped()
    }
}

/// For a client of one thread, which may be at work in the ring: it closes the segment itself.
impl lifeline::Connected for ClientChannel {
    fn end(&self) {
        self.end_as(CLOSED_HERE);
    }
}

fn check_table(config: &ClientConfig) -> Result<()> {
    let in_table = config.max_in_flight;
    if in_table == 0 || in_table > 1 << 20 {
        return Err(Error::BadConfig {
            what: "max_in_flight",
            asked: in_table as u64,
            allowed: "1 to 1048576",
        });
    }
    Ok(())
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

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests;
