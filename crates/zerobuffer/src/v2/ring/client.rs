//! The client's side of the ring: claim, commit, look, release, cancel, reclaim.

use super::permit::{PermitHome, ReclaimRight, SendPermit};
use super::table::{SlotStatus, Table};
use super::{Fields, Ring, Violation, count};
use crate::atomics::{AtomicBool, AtomicU64, Ordering, fence};
use crate::error::{Error, RequestState, Result};
use crate::failpoint::failpoint;
use crate::v2::layout::{
    Demand, Geometry, MAX_SEQUENCE, Phase, REQUEST, RESPONSE, SlotShape, oieb, slot,
};
use crate::v2::words::Words;

/// Slots of one size after which a demand that prefers cached bytes wraps early: few enough for the first-level
/// caches to hold the smallest ones, and so many that the marker, a turn more for the server, costs next
/// to nothing. Tests get round in short runs.
pub(super) const WARM_SLOTS: u64 = if cfg!(test) { 4 } else { 128 };

/// The client's side of the ring.
///
/// Several threads may use it after [`ClientRing::set_concurrent`], only one before. What only the sender may
/// touch is touched with the [`SendPermit`] alone: while a claim has it, nobody else claims, commits or
/// takes bytes back.
#[derive(Debug)]
pub(crate) struct ClientRing {
    ring: Ring,
    table: Table,
    permit: PermitHome,
    /// Where the next slot goes.
    position: AtomicU64,
    /// The sequence of the next commit.
    next: AtomicU64,
    /// The latest sequence whose state word has been stored.
    committed: AtomicU64,
    /// The oldest sequence whose bytes are not reclaimed.
    head: AtomicU64,
    /// Ring bytes that are not reclaimed, padding included.
    used: AtomicU64,
    /// All ring bytes ever published, modulo 2^64.
    written: AtomicU64,
    /// Responses that were released.
    returned: AtomicU64,
    marker: Marker,
    /// No sequence below is pending; where `next_ready` begins to look.
    scan_from: AtomicU64,
    concurrent: AtomicBool,
}

/// The wrap marker that is not reclaimed yet. There is one at the most: it reaches to the end of the
/// ring, and the next one can only be made over the same bytes.
#[derive(Debug, Default)]
struct Marker {
    /// The sequence of the frame behind it; 0 if there is no marker.
    sequence: AtomicU64,
    position: AtomicU64,
}

/// A place in the ring that was found free, to be filled and committed. Not `Clone`: its holder
/// owns the bytes (`v2::frame` relies on it). It ends with [`ClientRing::commit`] or
/// [`ClientRing::abandon`]: it has the permit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    place: Place,
    permit: SendPermit,
    /// The response goes to the one who asks for it by its sequence, and to nobody else.
    addressed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    position: u64,
    shape: SlotShape,
    /// As asked for.
    alignment: u64,
    /// Behind a wrap marker that the commit publishes first.
    wraps: bool,
}

impl Claim {
    /// The same place, for a request whose response is not for those who take any.
    #[inline]
    pub(crate) fn addressed(self) -> Self {
        Self { addressed: true, ..self }
    }

    /// Where the data goes, from the start of the ring.
    #[inline]
    pub(crate) fn data_start(&self) -> u64 {
        self.place.position + u64::from(self.place.shape.data_offset)
    }

    /// Bytes of data that fit.
    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.place.shape.capacity()
    }
}

/// What one turn of claiming came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    Ready(Claim),
    /// The ring has no room yet.
    Full {
        needed: u64,
        free: u64,
    },
    /// A wrap marker was published on the drained ring: wake the server, which retires it.
    Marker,
}

/// A slot whose response this side holds. Not `Clone`: its holder owns the bytes (`v2::frame`
/// relies on it).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) position: u64,
    pub(crate) data_offset: u16,
    pub(crate) len: u64,
    pub(crate) status: u16,
}

impl Held {
    /// What the header says about a response. Read once, and only used once the request is ours:
    /// before, another thread may have collected it and the place may hold something else.
    #[inline(always)]
    fn read(header: Fields<'_, 4>, sequence: u64, position: u64, data_offset: u16) -> Self {
        let len = header.at(slot::PAYLOAD_SIZE).load(Ordering::Relaxed);
        let status = SlotShape::from_word(header.at(slot::SHAPE).load(Ordering::Relaxed)).status;
        Self { sequence, position, data_offset, len, status }
    }

    /// Moves the ownership out of a guard that is forgotten right after.
    pub(crate) fn transfer(&mut self) -> Self {
        let Self { sequence, position, data_offset, len, status } = *self;
        Self { sequence, position, data_offset, len, status }
    }

    /// Where the data lies, from the start of the ring.
    #[inline]
    pub(crate) fn data_start(&self) -> u64 {
        self.position + u64::from(self.data_offset)
    }
}

/// What a check of one request found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Waiting,
    Ready(Held),
    /// It was never sent, or it was cancelled, or its response was collected.
    Unknown,
}

impl ClientRing {
    /// A ring at its beginning, with room for `max_in_flight` requests in the table.
    pub(crate) fn new(
        control: Words,
        payload: Words,
        geometry: &Geometry,
        max_in_flight: usize,
    ) -> Self {
        Self {
            ring: Ring::new(control, payload, geometry),
            table: Table::new(max_in_flight),
            permit: PermitHome::default(),
            position: AtomicU64::new(0),
            next: AtomicU64::new(1),
            committed: AtomicU64::new(0),
            head: AtomicU64::new(1),
            used: AtomicU64::new(0),
            written: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            marker: Marker::default(),
            scan_from: AtomicU64::new(1),
            concurrent: AtomicBool::new(false),
        }
    }

    /// From now on several threads may look, release and cancel at the same time. To be called before
    /// the second thread can.
    pub(crate) fn set_concurrent(&self) {
        if !self.is_concurrent() && self.next.load(Ordering::Relaxed) == 1 {
            // From now on a claim can outlive this end. A claim leaves no trace, and a segment without a
            // trace serves the next client: so one is left here, in a word that means nothing to a server.
            // Release: pairs with the Acquire of a client that checks whether the segment is fresh.
            self.ring.state(0).store(Phase::Released.of(0), Ordering::Release);
        }
        self.concurrent.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_concurrent(&self) -> bool {
        self.concurrent.load(Ordering::Relaxed)
    }

    /// The largest capacity that ever fits: a slot of the whole ring.
    pub(crate) fn max_capacity(&self) -> u64 {
        // In a ring of one line the header shares it with the data.
        self.ring.size - if self.ring.size == 64 { slot::HEADER } else { 64 }
    }

    /// Whether no sequence number is left to send with.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) > MAX_SEQUENCE
    }

    /// The sequence of the next commit.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Requests sent and not reclaimed.
    pub(crate) fn in_flight(&self) -> u64 {
        let head = self.head.load(Ordering::Relaxed);
        self.next.load(Ordering::Acquire).saturating_sub(head)
    }

    /// Of these, the ones whose responses are in a guard's hands. It looks at each.
    pub(crate) fn held(&self) -> u64 {
        let sent = self.head.load(Ordering::Relaxed)..self.next.load(Ordering::Acquire);
        let is_held = |sequence: &u64| self.table.entry(*sequence).is(*sequence, SlotStatus::Held);
        sent.filter(is_held).count() as u64
    }

    // ---- sending ----

    /// Looks for a place for `demand`; changes nothing, unless it drains the ring for a frame that
    /// fits no other way.
    ///
    /// # Errors
    /// `ClaimOpen` while there is another claim; `SequenceExhausted`, `TooLarge`.
    pub(crate) fn try_claim(&self, demand: Demand) -> Result<ClaimStep> {
        let concurrent = self.is_concurrent();
        let permit = self.permit.take().ok_or(Error::ClaimOpen)?;
        let placed = match self.place_at_once(&permit, demand, concurrent) {
            Some(place) => Ok(Ok(place)),
            None => self.place(&permit, demand),
        };
        match placed {
            Ok(Ok(place)) => Ok(ClaimStep::Ready(Claim { place, permit, addressed: false })),
            unplaced => {
                self.permit.put(permit);
                unplaced.map(|step| step.expect_err("placed above"))
            }
        }
    }

    /// The place for `demand`, or what stands in its way.
    fn place(
        &self,
        permit: &SendPermit,
        demand: Demand,
    ) -> Result<std::result::Result<Place, ClaimStep>> {
        self.take_back(permit.reclaim());
        let next = self.next.load(Ordering::Relaxed);
        if next > MAX_SEQUENCE {
            return Err(Error::SequenceExhausted);
        }
        let size = self.ring.size;
        let Some(len_at_start) = demand.slot_len(0).filter(|len| *len <= size) else {
            let max = size.saturating_sub(demand.data_offset(0));
            return Err(Error::TooLarge { what: "a request", asked: demand.capacity(), max });
        };
        let position = self.position.load(Ordering::Relaxed);
        let free = size - self.used.load(Ordering::Relaxed);
        let to_end = size - position;
        let len_here = demand.slot_len(position).unwrap_or(u64::MAX);
        let wraps = len_here > to_end || self.wraps_early(demand, position, len_at_start);
        let (at, len, needed) = if wraps {
            (0, len_at_start, to_end + len_at_start)
        } else {
            (position, len_here, len_here)
        };
        if needed > size && free == size {
            self.publish_marker(permit, next);
            return Ok(Err(ClaimStep::Marker));
        }
        let table_full = next - self.head.load(Ordering::Relaxed) >= self.table.len();
        if needed > free || table_full {
            return Ok(Err(ClaimStep::Full { needed: needed.min(size), free }));
        }
        let shape = SlotShape {
            stride: (len / 64) as u32,
            data_offset: demand.data_offset(at) as u16,
            status: 0,
        };
        Ok(Ok(Place { position: at, shape, alignment: demand.alignment(), wraps }))
    }

    /// The usual case of [`ClientRing::try_claim`]: room at the write position without any ado.
    #[inline(always)]
    pub(crate) fn claim_at_once(&self, demand: Demand) -> Option<Claim> {
        let concurrent = self.is_concurrent();
        let permit = self.permit.take()?;
        match self.place_at_once(&permit, demand, concurrent) {
            Some(place) => Some(Claim { place, permit, addressed: false }),
            None => {
                self.permit.put(permit);
                None
            }
        }
    }

    /// Gives a claim up: nothing is sent, and others may claim.
    pub(crate) fn abandon(&self, claim: Claim) {
        self.permit.put(claim.permit);
    }

    /// Whether there is a claim that is neither committed nor abandoned.
    pub(crate) fn is_claim_open(&self) -> bool {
        self.permit.is_lent()
    }

    #[inline(always)]
    fn place_at_once(
        &self,
        permit: &SendPermit,
        demand: Demand,
        concurrent: bool,
    ) -> Option<Place> {
        if concurrent {
            // Otherwise the release of a response does it.
            self.take_back(permit.reclaim());
        }
        let position = self.position.load(Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let free = self.ring.size - self.used.load(Ordering::Relaxed);
        let len = demand.slot_len(position)?;
        let in_table = next - self.head.load(Ordering::Relaxed);
        let fits = len <= free && len <= self.ring.size - position;
        if !fits || in_table >= self.table.len() || next > MAX_SEQUENCE {
            return None;
        }
        if self.wraps_early(demand, position, len) {
            return None;
        }
        let data_offset = demand.data_offset(position) as u16;
        let shape = SlotShape { stride: (len / 64) as u32, data_offset, status: 0 };
        Some(Place { position, shape, alignment: demand.alignment(), wraps: false })
    }

    /// Whether a demand for a slot of `len` bytes that prefers cached bytes wraps although there is room at
    /// `position`: only on a ring with nothing in use, so that there is room behind the marker, too.
    #[inline(always)]
    fn wraps_early(&self, demand: Demand, position: u64, len: u64) -> bool {
        demand.prefers_cached()
            && position / WARM_SLOTS >= len
            && self.used.load(Ordering::Relaxed) == 0
    }

    /// Publishes `claim` with `len` bytes of data in place. Returns its sequence.
    #[inline(always)]
    pub(crate) fn commit(&self, claim: Claim, len: u64) -> u64 {
        debug_assert!(len <= claim.capacity());
        let sequence = self.next.load(Ordering::Relaxed);
        let Claim { place: Place { position, shape, alignment, wraps }, permit, addressed } = claim;
        if wraps {
            self.publish_marker(&permit, sequence);
        }
        let (next_position, free) = self.advance(&permit, position, shape.len(), sequence + 1);
        self.table.entry(sequence).enter(sequence, position, shape, alignment, addressed);
        // Release: pairs with the Acquire of a receiving thread, which then finds the entry. Before
        // the publication, so that a receiver that sees the response always finds the entry.
        self.next.store(sequence + 1, Ordering::Release);
        failpoint!("commit.entered");
        let header = self.write_header(position, len, sequence, shape);
        failpoint!("commit.before_state");
        // Release: pairs with the Acquire in `ServerRing::take`; header, data and terminator first.
        header.at(slot::STATE).store(Phase::Request.of(sequence), Ordering::Release);
        failpoint!("commit.after_state");
        // Release: pairs with the Acquire in `state_of`.
        self.committed.store(sequence, Ordering::Release);
        self.position.store(next_position, Ordering::Relaxed);
        self.account_published(shape.len(), free);
        let written_count = self.ring.account().at(REQUEST + oieb::PAYLOAD_WRITTEN_COUNT);
        written_count.store(sequence, Ordering::Release);
        self.permit.put(permit);
        sequence
    }

    /// Publishes a wrap marker from the write position to the end; the next slot is at 0.
    fn publish_marker(&self, permit: &SendPermit, sequence: u64) {
        let position = self.position.load(Ordering::Relaxed);
        let len = self.ring.size - position;
        let shape =
            SlotShape { stride: (len / 64) as u32, data_offset: slot::HEADER as u16, status: 0 };
        let (_, free) = self.advance(permit, position, len, sequence);
        let header = self.write_header(position, 0, 0, shape);
        self.marker.position.store(position, Ordering::Relaxed);
        self.marker.sequence.store(sequence, Ordering::Relaxed);
        // Release: pairs with the Acquire in `ServerRing::take`; header and terminator first.
        failpoint!("marker.before_state");
        header.at(slot::STATE).store(Phase::Wrap.of(sequence), Ordering::Release);
        failpoint!("marker.after_state");
        self.position.store(0, Ordering::Relaxed);
        self.account_published(len, free);
    }

    #[inline]
    fn write_header(
        &self,
        position: u64,
        len: u64,
        sequence_number: u64,
        shape: SlotShape,
    ) -> Fields<'_, 4> {
        let header = self.ring.slot(position);
        header.at(slot::PAYLOAD_SIZE).store(len, Ordering::Relaxed);
        header.at(slot::SEQUENCE_NUMBER).store(sequence_number, Ordering::Relaxed);
        header.at(slot::SHAPE).store(shape.to_word(), Ordering::Relaxed);
        header
    }

    /// Counts `len` bytes at `position` as used and terminates what follows, where the server will
    /// expect sequence `expected`, if that is free. Returns the next position, and how many bytes are
    /// free then.
    #[inline]
    fn advance(&self, _: &SendPermit, position: u64, len: u64, expected: u64) -> (u64, u64) {
        let used = self.used.load(Ordering::Relaxed) + len;
        self.used.store(used, Ordering::Relaxed);
        let next = self.ring.after(position, len);
        if used < self.ring.size {
            self.ring.terminate(next, expected);
        }
        (next, self.ring.size - used)
    }

    #[inline]
    fn account_published(&self, len: u64, free: u64) {
        self.account_free(free);
        let written = self.written.load(Ordering::Relaxed).wrapping_add(len);
        self.written.store(written, Ordering::Relaxed);
        let word = self.ring.account().at(REQUEST + oieb::PAYLOAD_WRITTEN_BYTES);
        word.store(written, Ordering::Release);
    }

    #[inline]
    fn account_free(&self, free: u64) {
        let account = self.ring.account();
        for block in [REQUEST, RESPONSE] {
            account.at(block + oieb::PAYLOAD_FREE_BYTES).store(free, Ordering::Release);
        }
    }

    /// Takes back the bytes of the longest prefix of slots that nobody uses any more, and swallows
    /// late responses of abandoned requests on the way. Left to the holder of an open claim, if there is
    /// one.
    pub(crate) fn reclaim(&self) {
        if let Some(permit) = self.permit.take() {
            self.take_back(permit.reclaim());
            self.permit.put(permit);
        }
    }

    // Out of line: a response that is dropped takes its own slot back, and mostly nothing else.
    #[inline(never)]
    fn take_back(&self, right: ReclaimRight<'_>) {
        let next = self.next.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        let mut freed = 0;
        loop {
            if self.marker.sequence.load(Ordering::Relaxed) == head {
                let position = self.marker.position.load(Ordering::Relaxed);
                // Acquire: pairs with the Release of `ServerRing::take`: the server is past it.
                if self.ring.state(position).load(Ordering::Acquire) != Phase::Released.of(head) {
                    break;
                }
                self.marker.sequence.store(0, Ordering::Relaxed);
                freed += self.ring.size - position;
            }
            if head == next || !self.is_reclaimable(head) {
                break;
            }
            freed += self.table.entry(head).shape().len();
            head += 1;
        }
        if freed > 0 {
            self.count_taken_back(&right, head, freed);
        }
    }

    /// Counts `freed` bytes as free again; `head` is the oldest request that is left.
    #[inline(always)]
    fn count_taken_back(&self, _: &ReclaimRight<'_>, head: u64, freed: u64) {
        self.head.store(head, Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed) - freed;
        self.used.store(used, Ordering::Relaxed);
        self.account_free(self.ring.size - used);
    }

    /// Whether [`ClientRing::try_claim`] would take something back, for the one whose turn to claim it is;
    /// cheap enough to be asked all the time. Never while a claim is open, which is in its way.
    pub(crate) fn may_reclaim(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        if self.is_claim_open() {
            return false;
        }
        if self.marker.sequence.load(Ordering::Relaxed) == head {
            let position = self.marker.position.load(Ordering::Relaxed);
            // Acquire: pairs with the Release of `ServerRing::take`.
            return self.ring.state(position).load(Ordering::Acquire) == Phase::Released.of(head);
        }
        head != self.next.load(Ordering::Relaxed) && self.is_reclaimable(head)
    }

    #[inline]
    fn is_reclaimable(&self, sequence: u64) -> bool {
        let entry = self.table.entry(sequence);
        let is = |status| entry.is(sequence, status);
        is(SlotStatus::Returned)
            || !(is(SlotStatus::Pending) || is(SlotStatus::Held)) && self.is_free_by_now(sequence)
    }

    /// Whether the bytes of a cancelled request are free; swallows its late response.
    #[cold]
    fn is_free_by_now(&self, sequence: u64) -> bool {
        let entry = self.table.entry(sequence);
        // Acquire: pairs with the Release of the server's answer or skip.
        let state = self.ring.state(entry.position()).load(Ordering::Acquire);
        if state == Phase::Response.of(sequence) {
            self.swallow(sequence);
        }
        // Still abandoned with the state RELEASED: the server has skipped it. Returned: another thread may have swallowed
        // the response.
        match entry.status(sequence) {
            Some(SlotStatus::Abandoned) => state == Phase::Released.of(sequence),
            status => status == Some(SlotStatus::Returned),
        }
    }

    // ---- receiving ----

    /// Tells whether a [`ClientRing::look`] at `sequence` would find something other than `Waiting`;
    /// cheap enough to be asked all the time.
    #[inline(always)]
    pub(crate) fn ready_check(&self, sequence: u64) -> impl Fn() -> bool {
        let state = self.ring.state(self.table.entry(sequence).position());
        // Acquire: pairs with the Release in `ServerRing::answer`.
        move || state.load(Ordering::Acquire) != Phase::Request.of(sequence)
    }

    /// The usual case of [`ClientRing::look`]: takes the response to `sequence`, if it has arrived and is
    /// valid.
    #[inline(always)]
    pub(crate) fn look_at_once(&self, sequence: u64) -> Option<Held> {
        let entry = self.table.entry(sequence);
        if !entry.is(sequence, SlotStatus::Pending) {
            return None;
        }
        let (position, shape) = (entry.position(), entry.shape());
        let header = self.ring.slot(position);
        // Acquire: pairs with the Release in `ServerRing::answer`; then the data is ours to read.
        if header.at(slot::STATE).load(Ordering::Acquire) != Phase::Response.of(sequence) {
            return None;
        }
        let held = Held::read(header, sequence, position, shape.data_offset);
        let valid = held.status == 0 && held.len <= shape.capacity();
        let ours =
            || entry.change(sequence, SlotStatus::Pending, SlotStatus::Held, self.is_concurrent());
        (valid && ours()).then_some(held)
    }

    /// Checks for the response to `sequence`, and takes it if it has arrived.
    pub(crate) fn look(&self, sequence: u64) -> std::result::Result<Look, Violation> {
        if let Some(held) = self.look_at_once(sequence) {
            return Ok(Look::Ready(held));
        }
        let entry = self.table.entry(sequence);
        if !entry.is(sequence, SlotStatus::Pending) {
            return Ok(self.look_elsewhere(sequence));
        }
        let (position, shape) = (entry.position(), entry.shape());
        let state = self.state_of(sequence, position);
        if state == Phase::Request.of(sequence) {
            return Ok(Look::Waiting);
        }
        let header = self.ring.slot(position);
        let held = Held::read(header, sequence, position, shape.data_offset);
        if !entry.change(sequence, SlotStatus::Pending, SlotStatus::Held, self.is_concurrent()) {
            return Ok(self.look_elsewhere(sequence));
        }
        let violation = |field, observed, allowed| {
            // It is in nobody's hands.
            entry.set(sequence, SlotStatus::Abandoned);
            Err(Violation { field, observed, allowed })
        };
        if state != Phase::Response.of(sequence) {
            return violation("frame.state", state, Phase::Response.of(sequence));
        }
        if held.len > shape.capacity() {
            return violation("frame.payload_size", held.len, shape.capacity());
        }
        Ok(Look::Ready(held))
    }

    /// The result for a request that another thread is working on.
    #[cold]
    fn look_elsewhere(&self, sequence: u64) -> Look {
        // A cancel that comes too late makes it pending again. The status is read once, as the next cancel may
        // come between two reads.
        match self.table.entry(sequence).status(sequence) {
            Some(SlotStatus::Cancelling | SlotStatus::Pending) => Look::Waiting,
            _ => Look::Unknown,
        }
    }

    /// The state word of a request that is in the table.
    fn state_of(&self, sequence: u64, position: u64) -> u64 {
        let request = Phase::Request.of(sequence);
        // Acquire: pairs with the Release in `ServerRing::answer`; then the data is ours to read.
        let state = self.ring.state(position).load(Ordering::Acquire);
        if state == request || state == Phase::Response.of(sequence) {
            return state;
        }
        // Neither: a violation, or the sending thread has entered the request in the table and is only
        // about to store its state. Acquire: pairs with the Release in `commit`, after that store.
        if self.committed.load(Ordering::Acquire) < sequence {
            return request;
        }
        self.ring.state(position).load(Ordering::Acquire)
    }

    /// The oldest request whose response has arrived, if any.
    pub(crate) fn next_ready(&self) -> std::result::Result<Option<Held>, Violation> {
        // Acquire: pairs with the Release in `commit`.
        let next = self.next.load(Ordering::Acquire);
        let mut sequence = self.scan_from.load(Ordering::Relaxed);
        let mut oldest_pending = None;
        let mut looked_twice = false;
        while sequence < next {
            if let (Some(waiting), false) = (oldest_pending, looked_twice) {
                if !self.is_ready(sequence) {
                    self.swallow(sequence);
                    sequence += 1;
                    continue;
                }
                // Responses came during this scan. The request that was still waiting is older, and has its
                // response by now if they come in order: then they are received in order, too.
                (sequence, oldest_pending, looked_twice) = (waiting, None, true);
            }
            let looked = match self.awaits_addressee(sequence) {
                true => Look::Waiting,
                false => self.look(sequence)?,
            };
            match looked {
                Look::Ready(held) => {
                    self.scan_from.store(oldest_pending.unwrap_or(sequence + 1), Ordering::Relaxed);
                    return Ok(Some(held));
                }
                Look::Waiting => oldest_pending = oldest_pending.or(Some(sequence)),
                Look::Unknown => self.swallow(sequence),
            }
            sequence += 1;
        }
        self.scan_from.store(oldest_pending.unwrap_or(next), Ordering::Relaxed);
        Ok(None)
    }

    /// From now on only a call that asks for `sequence` gets its response; or any call again. True if that is
    /// a change.
    pub(crate) fn set_addressed(&self, sequence: u64, addressed: bool) -> bool {
        self.table.entry(sequence).set_addressed(sequence, addressed)
    }

    /// Whether the response to `sequence`, which is not collected, has an addressee.
    pub(crate) fn awaits_addressee(&self, sequence: u64) -> bool {
        self.table.entry(sequence).awaits_addressee(sequence)
    }

    /// Whether a pending request without an addressee has its response.
    fn is_ready(&self, sequence: u64) -> bool {
        let entry = self.table.entry(sequence);
        !entry.awaits_addressee(sequence)
            && entry.status(sequence) == Some(SlotStatus::Pending)
            && self.state_of(sequence, entry.position()) != Phase::Request.of(sequence)
    }

    /// Releases a slot that [`ClientRing::look`] took. `concurrent` is [`ClientRing::is_concurrent`], which the
    /// caller asks for its own part as well.
    #[inline(always)]
    pub(crate) fn release(&self, held: &Held, concurrent: bool) {
        let entry = self.table.entry(held.sequence);
        entry.set(held.sequence, SlotStatus::Returned);
        self.account_released(concurrent);
        let Some(right) = ReclaimRight::of_only_thread(concurrent) else { return };
        let is_oldest = self.head.load(Ordering::Relaxed) == held.sequence;
        if is_oldest && self.marker.sequence.load(Ordering::Relaxed) == 0 {
            // The usual case of `reclaim`: one slot, and no marker.
            self.count_taken_back(&right, held.sequence + 1, entry.shape().len());
            if held.sequence + 1 == self.next.load(Ordering::Relaxed) {
                return;
            }
        }
        self.take_back(right);
    }

    /// Counts a response that is released. Its slot's state word is unchanged: nobody reads it before
    /// the next frame is published there, and a store would take the line from the server's cache, for which
    /// the next request would have to wait.
    #[inline]
    fn account_released(&self, concurrent: bool) {
        failpoint!("release.before_count");
        let word = self.ring.account().at(RESPONSE + oieb::PAYLOAD_READ_COUNT);
        if concurrent {
            // AcqRel: pairs with `order_after_releases`, and Release for readers of the count.
            word.fetch_add(1, Ordering::AcqRel);
        } else {
            count(word, &self.returned, 1, false);
        }
    }

    /// Of a thread that has said that it waits for room, and one that releases a response on a concurrent
    /// ring: after this the first one finds the room, or the second one sees, after its release, that somebody
    /// waits. Both have changed the same word then, and the later change sees what came before the earlier one.
    /// A thread whose claim has ended calls it for the same reason.
    pub(crate) fn order_after_releases(&self) {
        let word = self.ring.account().at(RESPONSE + oieb::PAYLOAD_READ_COUNT);
        word.fetch_add(0, Ordering::AcqRel);
    }

    /// Cancels a request: no response to it will be delivered. False if there is nothing to cancel any more:
    /// the response has arrived, or was collected.
    pub(crate) fn cancel(&self, sequence: u64) -> bool {
        let entry = self.table.entry(sequence);
        let concurrent = self.is_concurrent();
        // Private first: from here on no other thread of this side collects it, or takes it for unknown.
        if entry.status(sequence) != Some(SlotStatus::Pending)
            || !entry.change(sequence, SlotStatus::Pending, SlotStatus::Cancelling, concurrent)
        {
            return false;
        }
        failpoint!("cancel.before_state");
        let (request, cancelled) = (Phase::Request.of(sequence), Phase::Cancelled.of(sequence));
        // AcqRel: Release pairs with the Acquire in `ServerRing::take`; Acquire because on failure
        // the response has arrived.
        let state = self.ring.state(entry.position());
        let exchanged =
            state.compare_exchange(request, cancelled, Ordering::AcqRel, Ordering::Acquire);
        failpoint!("cancel.after_state");
        // If the response was faster, it can be collected, by its addressee if it has one.
        let to = if exchanged.is_ok() { SlotStatus::Abandoned } else { SlotStatus::Pending };
        entry.change(sequence, SlotStatus::Cancelling, to, concurrent);
        exchanged.is_ok()
    }

    /// Releases the response to an abandoned request, if it has come.
    fn swallow(&self, sequence: u64) {
        let entry = self.table.entry(sequence);
        if entry.status(sequence) != Some(SlotStatus::Abandoned) {
            return;
        }
        // Acquire: pairs with the Release in `ServerRing::answer`: the server is done with the bytes.
        let state = self.ring.state(entry.position()).load(Ordering::Acquire);
        if state != Phase::Response.of(sequence) {
            return;
        }
        // In one step, as nobody is woken here: to a thread that looks for room the slot is free before and after.
        let (abandoned, returned) = (SlotStatus::Abandoned, SlotStatus::Returned);
        if entry.change(sequence, abandoned, returned, self.is_concurrent()) {
            self.account_released(self.is_concurrent());
        }
    }

    // ---- the end ----

    /// Cancels every request without a response: the first step of a clean close.
    pub(crate) fn cancel_all(&self) {
        for sequence in self.pending() {
            self.cancel(sequence);
        }
    }

    /// Abandons the responses that have arrived as well: what is collected later was being collected, or cancelled, at
    /// this moment. To be called after something was stored that threads check which cancel.
    pub(crate) fn end_collecting(&self) {
        // With that of a thread that has cancelled: either it finds what was stored before this, or this finds what it
        // has left.
        fence(Ordering::SeqCst);
        for sequence in self.pending() {
            let entry = self.table.entry(sequence);
            entry.change(
                sequence,
                SlotStatus::Pending,
                SlotStatus::Abandoned,
                self.is_concurrent(),
            );
        }
    }

    /// Whether nothing of the ring is in anybody's hands, or may come to be, after [`ClientRing::end_collecting`]. Of two
    /// threads that ask, each after a change of its own, one at least finds the other one's.
    pub(crate) fn is_unheld(&self) -> bool {
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `commit`.
        let next = self.next.load(Ordering::Acquire);
        let is_in_hand = |sequence: u64| {
            // Acquire inside: pairs with the Release of a thread that has released: it has read all that it wants.
            let status = self.table.entry(sequence).status(sequence);
            let in_hand = [SlotStatus::Pending, SlotStatus::Cancelling, SlotStatus::Held];
            status.is_some_and(|status| in_hand.contains(&status))
        };
        !(self.head.load(Ordering::Relaxed)..next).any(is_in_hand)
    }

    /// A response is released whose bytes are not to be used again, on a ring that has ended.
    pub(crate) fn release_after_end(&self, held: &Held) {
        self.table.entry(held.sequence).set(held.sequence, SlotStatus::Returned);
    }

    /// The requests whose response is not collected, oldest first; also those that are being cancelled.
    pub(crate) fn pending(&self) -> impl Iterator<Item = u64> + '_ {
        // Acquire: pairs with the Release in `commit`.
        let next = self.next.load(Ordering::Acquire);
        (self.head.load(Ordering::Relaxed)..next).filter(|n| {
            let status = self.table.entry(*n).status(*n);
            matches!(status, Some(SlotStatus::Pending | SlotStatus::Cancelling))
        })
    }

    /// What is known of `sequence` once the server has ended.
    pub(crate) fn state_after_death(&self, sequence: u64) -> RequestState {
        // Acquire: the server has ended, and its last stores are visible.
        let taken =
            self.ring.account().at(REQUEST + oieb::PAYLOAD_READ_COUNT).load(Ordering::Acquire);
        if sequence > taken { RequestState::NotStarted } else { RequestState::InDoubt }
    }

    /// Whether the response to a pending request has come.
    pub(crate) fn is_answered(&self, sequence: u64) -> bool {
        let position = self.table.entry(sequence).position();
        // Acquire: pairs with the Release in `ServerRing::answer`.
        self.ring.state(position).load(Ordering::Acquire) == Phase::Response.of(sequence)
    }

    /// The bytes of a pending request, and what it needs to be sent again once the server has ended.
    pub(crate) fn pending_slot(&self, sequence: u64) -> Option<(Held, Demand)> {
        let entry = self.table.entry(sequence);
        if entry.status(sequence) != Some(SlotStatus::Pending) {
            return None;
        }
        let (position, shape) = (entry.position(), entry.shape());
        let len = self.ring.slot(position).at(slot::PAYLOAD_SIZE).load(Ordering::Relaxed);
        let data_offset = shape.data_offset;
        let held = Held { sequence, position, data_offset, len, status: 0 };
        let demand = Demand::new(shape.capacity(), entry.alignment()).ok()?;
        (len <= shape.capacity()).then_some((held, demand))
    }
}

#[cfg(test)]
impl Claim {
    pub(crate) fn wraps(&self) -> bool {
        self.place.wraps
    }
}

#[cfg(test)]
impl ClientRing {
    /// A ring whose next sequence and byte counter are near their limits.
    pub(crate) fn starting_at(mut self, sequence: u64, written: u64) -> Self {
        self.committed = AtomicU64::new(sequence - 1);
        for counter in [&mut self.next, &mut self.head, &mut self.scan_from] {
            *counter = AtomicU64::new(sequence);
        }
        self.written = AtomicU64::new(written);
        self
    }

    /// What the permit keeps from happening: bytes are taken back beside a commit.
    #[cfg(loom)]
    pub(crate) fn reclaim_without_permit(&self) {
        self.take_back(ReclaimRight::of_only_thread(false).expect("as if there were one thread"));
    }

    /// [`ClientRing::cancel`] by way of a state that others take for final.
    #[cfg(loom)]
    pub(crate) fn cancel_by_way_of_abandoned(&self, sequence: u64) -> bool {
        let entry = self.table.entry(sequence);
        if !entry.change(sequence, SlotStatus::Pending, SlotStatus::Abandoned, true) {
            return false;
        }
        let (request, cancelled) = (Phase::Request.of(sequence), Phase::Cancelled.of(sequence));
        let state = self.ring.state(entry.position());
        let exchanged =
            state.compare_exchange(request, cancelled, Ordering::AcqRel, Ordering::Acquire);
        exchanged.is_ok()
            || !entry.change(sequence, SlotStatus::Abandoned, SlotStatus::Pending, true)
    }

    /// As if later requests were entered in the table only.
    pub(crate) fn set_committed(&self, sequence: u64) {
        self.committed.store(sequence, Ordering::Relaxed);
    }

    pub(crate) fn free(&self) -> u64 {
        self.ring.size - self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }
}
