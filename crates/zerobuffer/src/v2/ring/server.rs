//! The server's side of the ring: take and answer.

use super::{Fields, Ring, Violation};
use crate::atomics::{AtomicBool, AtomicU64, Ordering, compiler_fence, store_over};
use crate::failpoint::failpoint;
use crate::v2::layout::{Geometry, Phase, REQUEST, RESPONSE, SlotShape, oieb, slot};
use crate::v2::words::Words;

/// After so many answers the public account is written, even while requests come without a pause.
pub(super) const ACCOUNT_EVERY: u64 = 64;

/// The words of the public account that a server writes.
const WRITTEN_BYTES: usize = RESPONSE + oieb::PAYLOAD_WRITTEN_BYTES;
const WRITTEN_COUNT: usize = RESPONSE + oieb::PAYLOAD_WRITTEN_COUNT;

/// The server's side of the ring.
///
/// Who may call at the same time: `take` one thread at a time; `answer` from several threads only if
/// the ring was made `concurrent`.
#[derive(Debug)]
pub(crate) struct ServerRing {
    ring: Ring,
    /// Where the next slot is expected.
    position: AtomicU64,
    /// Its sequence.
    expected: AtomicU64,
    /// The latest slot passed was a wrap marker.
    wrapped: AtomicBool,
    /// Responses published.
    answered: AtomicU64,
    /// Cancelled requests passed over.
    skipped: AtomicU64,
    /// Bytes answered, skipped or retired, modulo 2^64.
    written: AtomicU64,
    concurrent: AtomicBool,
}

/// A request that the server has taken: a private copy of what it needs, so that the header is never read a
/// second time. Not `Clone`: its holder owns the bytes (`v2::frame` relies on it).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) sequence: u64,
    position: u64,
    shape: SlotShape,
    /// Bytes of the request.
    pub(crate) len: u64,
}

impl Taken {
    /// Moves the ownership out of a guard that is forgotten right after.
    pub(crate) fn transfer(&mut self) -> Self {
        let Self { sequence, position, shape, len } = *self;
        Self { sequence, position, shape, len }
    }

    /// Where the data lies, from the start of the ring.
    #[inline]
    pub(crate) fn data_start(&self) -> u64 {
        self.position + u64::from(self.shape.data_offset)
    }

    /// Bytes that a response may have.
    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.shape.capacity()
    }
}

/// What one check of the server's position found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Nothing,
    Request(Taken),
    /// A wrap marker or a cancelled request was passed: wake a claim that waits for space, and look
    /// again.
    Skipped,
}

/// Where the next slot is expected, and of which sequence.
#[derive(Debug, Clone, Copy)]
struct Next<'r> {
    position: u64,
    expected: u64,
    header: Fields<'r, 4>,
}

impl Next<'_> {
    /// The state word.
    #[inline(always)]
    fn load(&self) -> u64 {
        // Acquire: pairs with the Release of `ClientRing::commit`, `publish_marker` and `cancel`.
        self.header.at(slot::STATE).load(Ordering::Acquire)
    }

    /// Of what a client has put there, if it has.
    fn phase(&self) -> Option<Phase> {
        let state = self.load();
        let phases = [Phase::Request, Phase::Cancelled, Phase::Wrap];
        phases.into_iter().find(|phase| phase.of(self.expected) == state)
    }
}

impl ServerRing {
    pub(crate) fn new(control: Words, payload: Words, geometry: &Geometry) -> Self {
        Self {
            ring: Ring::new(control, payload, geometry),
            position: AtomicU64::new(0),
            expected: AtomicU64::new(1),
            wrapped: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            written: AtomicU64::new(0),
            concurrent: AtomicBool::new(false),
        }
    }

    /// From now on several threads may answer at the same time. To be called before the second thread
    /// can.
    pub(crate) fn set_concurrent(&self) {
        // From now on each thread adds to what is written there.
        self.publish_account();
        self.concurrent.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    fn is_concurrent(&self) -> bool {
        self.concurrent.load(Ordering::Relaxed)
    }

    /// Whether nothing has been passed yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.expected.load(Ordering::Relaxed) == 1 && !self.wrapped.load(Ordering::Relaxed)
    }

    /// Responses published so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Cancelled requests passed over so far.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Requests passed so far, cancelled ones included.
    pub(crate) fn taken(&self) -> u64 {
        self.expected.load(Ordering::Relaxed) - 1
    }

    /// Requests taken and not answered yet.
    pub(crate) fn in_hand(&self) -> u64 {
        self.taken().saturating_sub(self.answered() + self.skipped())
    }

    /// Whether a [`ServerRing::take`] would find something else than `Nothing` at this moment.
    pub(crate) fn is_ready(&self) -> bool {
        self.next().phase().is_some()
    }

    /// The same, but true as well of what no conforming client writes; cheap enough to be asked all the time, until the
    /// next take. A thread that would sleep otherwise asks [`ServerRing::is_ready`]: such a word must not keep it awake.
    #[inline(always)]
    pub(crate) fn ready_check(&self) -> impl Fn() -> bool {
        let next = self.next();
        // A conforming client leaves no other phases of that sequence here.
        move || next.load() >> 8 == next.expected
    }

    #[inline(always)]
    fn next(&self) -> Next<'_> {
        let position = self.position.load(Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        Next { position, expected, header: self.ring.slot(position) }
    }

    /// The usual case of [`ServerRing::take`]: takes the next request, if it is there.
    #[inline(always)]
    pub(crate) fn take_at_once(&self) -> Option<Taken> {
        let next = self.next();
        if next.load() != Phase::Request.of(next.expected) {
            return None;
        }
        let taken = self.checked_header(next, Phase::Request).ok()?;
        self.pass(&taken);
        Some(taken)
    }

    /// Checks the server's position, and takes the request there or skips what needs no work.
    pub(crate) fn take(&self) -> Result<Take, Violation> {
        if let Some(taken) = self.take_at_once() {
            return Ok(Take::Request(taken));
        }
        let next = self.next();
        let Next { position, expected, .. } = next;
        let Some(phase) = next.phase() else {
            return Ok(Take::Nothing);
        };
        let taken = self.checked_header(next, phase)?;
        if phase == Phase::Wrap {
            self.wrapped.store(true, Ordering::Relaxed);
            self.position.store(0, Ordering::Relaxed);
            self.skip(position, expected, taken.shape.len());
            return Ok(Take::Skipped);
        }
        self.pass(&taken);
        if phase == Phase::Cancelled {
            self.skipped.store(self.skipped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.skip(position, expected, taken.shape.len());
            return Ok(Take::Skipped);
        }
        Ok(Take::Request(taken))
    }

    /// Counts a frame as seen, and goes on to the slot behind it.
    #[inline(always)]
    fn pass(&self, taken: &Taken) {
        let Taken { sequence, position, shape, .. } = *taken;
        let read_count = self.ring.account().at(REQUEST + oieb::PAYLOAD_READ_COUNT);
        failpoint!("take.before_count");
        // Release costs nothing on x86 and keeps this store behind those of the request before it.
        read_count.store(sequence, Ordering::Release);
        // After a death every store that was executed is visible; the fence keeps the compiler from
        // moving stores to the data before the count that puts the request in doubt.
        compiler_fence(Ordering::SeqCst);
        failpoint!("take.counted");
        self.wrapped.store(false, Ordering::Relaxed);
        self.position.store(self.ring.after(position, shape.len()), Ordering::Relaxed);
        self.expected.store(sequence + 1, Ordering::Relaxed);
    }

    /// Reads the header's fields once and checks them.
    #[inline(always)]
    fn checked_header(&self, next: Next<'_>, phase: Phase) -> Result<Taken, Violation> {
        let Next { position, expected, header } = next;
        let read = |field| header.at(field).load(Ordering::Relaxed);
        let len = read(slot::PAYLOAD_SIZE);
        let sequence_number = read(slot::SEQUENCE_NUMBER);
        let shape = SlotShape::from_word(read(slot::SHAPE));
        let to_end = self.ring.size - position;
        let is_marker = phase == Phase::Wrap;
        let limit = |field, observed, allowed| Err(Violation { field, observed, allowed });

        if shape.stride == 0 || shape.len() > to_end || (is_marker && shape.len() != to_end) {
            return limit("frame.stride", u64::from(shape.stride), to_end / 64);
        }
        if is_marker && (position == 0 || self.wrapped.load(Ordering::Relaxed)) {
            return limit("frame.state (wrap marker)", Phase::Wrap.of(expected), 0);
        }
        let wanted = if is_marker { 0 } else { expected };
        if sequence_number != wanted {
            return limit("frame.sequence_number", sequence_number, wanted);
        }
        let offset = u64::from(shape.data_offset);
        let largest = slot::MAX_DATA_OFFSET.min(shape.len());
        if offset < slot::HEADER || offset > largest || !offset.is_multiple_of(slot::HEADER) {
            return limit("frame.data_offset", offset, largest);
        }
        let largest = if is_marker { 0 } else { shape.capacity() };
        if len > largest {
            return limit("frame.payload_size", len, largest);
        }
        Ok(Taken { sequence: expected, position, shape, len })
    }

    /// Gives the slot's bytes back at once.
    fn skip(&self, position: u64, sequence: u64, len: u64) {
        failpoint!("skip.before_state");
        // Release: pairs with the Acquire in `ClientRing::reclaim`; the header was read before.
        self.ring.state(position).store(Phase::Released.of(sequence), Ordering::Release);
        if self.is_concurrent() {
            self.add_to_account(len, 0);
        } else {
            self.count_bytes(len);
            self.publish_account();
        }
    }

    /// Whether the client has cancelled it meanwhile.
    pub(crate) fn is_cancelled(&self, taken: &Taken) -> bool {
        // Acquire: pairs with the Release in `ClientRing::cancel`.
        let state = self.ring.state(taken.position).load(Ordering::Acquire);
        state == Phase::Cancelled.of(taken.sequence)
    }

    /// Publishes the response: `len` bytes in place, and 0 or a failure code.
    #[inline(always)]
    pub(crate) fn answer(&self, taken: &Taken, len: u64, status: u16) {
        debug_assert!(len <= taken.capacity());
        let header = self.ring.slot(taken.position);
        header.at(slot::PAYLOAD_SIZE).store(len, Ordering::Relaxed);
        let shape = SlotShape { status, ..taken.shape };
        header.at(slot::SHAPE).store(shape.to_word(), Ordering::Relaxed);
        // Release: pairs with the Acquire in `ClientRing::look`; data, length and status first. The
        // client may be cancelling at this moment.
        failpoint!("answer.before_state");
        store_over(header.at(slot::STATE), Phase::Response.of(taken.sequence));
        failpoint!("answer.after_state");
        let (bytes, count) = (taken.shape.len(), self.answered.load(Ordering::Relaxed) + 1);
        if self.is_concurrent() {
            self.add_to_account(bytes, 1);
        } else {
            self.answered.store(count, Ordering::Relaxed);
            self.count_bytes(bytes);
            if count.is_multiple_of(ACCOUNT_EVERY) {
                self.publish_account();
            }
        }
    }

    /// Several threads add to the account, so that they agree on the sums.
    ///
    /// Release, here and in `publish_account`: a counter follows the state changes that it reports; readers
    /// use Acquire.
    #[cold]
    fn add_to_account(&self, bytes: u64, answers: u64) {
        let account = self.ring.account();
        self.written.fetch_add(bytes, Ordering::Relaxed);
        account.at(WRITTEN_BYTES).fetch_add(bytes, Ordering::Release);
        if answers > 0 {
            self.answered.fetch_add(answers, Ordering::Relaxed);
            account.at(WRITTEN_COUNT).fetch_add(answers, Ordering::Release);
        }
    }

    #[inline(always)]
    fn count_bytes(&self, bytes: u64) {
        let written = self.written.load(Ordering::Relaxed).wrapping_add(bytes);
        self.written.store(written, Ordering::Relaxed);
    }

    /// Writes what a thread that answers alone has counted: before it sleeps or stops, and whenever no request
    /// comes for a moment. Not with each answer: the words lie in a line that the client writes with every
    /// request, and the fence of each wake-up would wait until that line has come over.
    pub(crate) fn publish_account(&self) {
        if !self.is_concurrent() {
            let account = self.ring.account();
            account
                .at(WRITTEN_BYTES)
                .store(self.written.load(Ordering::Relaxed), Ordering::Release);
            account.at(WRITTEN_COUNT).store(self.answered(), Ordering::Release);
        }
    }
}

#[cfg(test)]
impl ServerRing {
    /// A ring that expects the sequence at which the client's test ring starts.
    pub(crate) fn starting_at(mut self, sequence: u64) -> Self {
        self.expected = AtomicU64::new(sequence);
        self
    }

    pub(crate) fn ring_header(&self, position: u64, field: usize) -> &AtomicU64 {
        self.ring.slot(position).at(field)
    }
}
