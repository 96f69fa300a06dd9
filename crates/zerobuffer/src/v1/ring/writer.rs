//! The writer's side of the ring.

use super::{count, free_bytes};
use crate::atomics::Ordering;
use crate::error::Result;
use crate::v1::layout::{FRAME_HEADER, Place, oieb, place};
use crate::v1::words::{FrameHeader, Headers, Oieb};

/// What a writer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterStatistics {
    /// Frames published.
    pub frames: u64,
    /// Their bytes, headers excluded.
    pub bytes: u64,
    /// How often the ring's beginning was returned to before its end was reached.
    pub wraps: u64,
    /// How often a frame had to wait for room.
    pub waits: u64,
}

/// The writer's side of one ring; for one thread at a time.
#[derive(Debug)]
pub(crate) struct WriterRing {
    control: Oieb,
    headers: Headers,
    size: u64,
    position: u64,
    /// The sequence of the next frame.
    next: u64,
    pub(crate) statistics: WriterStatistics,
}

/// A place in the ring for one frame. Nothing is written but its bytes before the commit, so that
/// dropping it changes nothing (rule R14). Not `Clone`: its holder owns the bytes
/// (`v1::frame` relies on it).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    place: Place,
    len: u64,
}

impl Claim {
    /// Where the data goes, from the start of the ring.
    pub(crate) fn data_start(&self) -> u64 {
        self.place.at + FRAME_HEADER
    }

    /// Bytes of data.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the ring that must be free.
    pub(crate) fn required(&self) -> u64 {
        self.place.required
    }
}

impl WriterRing {
    /// A ring that goes on at `position` with the sequence `next`. A position at the very end is the
    /// beginning (rules R3 and R4).
    pub(crate) fn new(
        control: Oieb,
        headers: Headers,
        size: u64,
        position: u64,
        next: u64,
    ) -> Self {
        let position = if position == size { 0 } else { position };
        let statistics = WriterStatistics::default();
        Self { control, headers, size, position, next, statistics }
    }

    /// The sequence of the next frame.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Where a frame of `len` bytes goes. Its bytes may be touched once there [`is room`](Self::shortage).
    ///
    /// # Errors
    /// As [`place`].
    #[inline]
    pub(crate) fn claim(&self, len: u64) -> Result<Claim> {
        Ok(Claim { place: place(len, self.position, self.size)?, len })
    }

    /// How many bytes are free, if those are too few for the claim.
    ///
    /// # Errors
    /// `ProtocolViolation` if the ring's account is broken.
    #[inline]
    pub(crate) fn shortage(&self, claim: &Claim) -> Result<Option<u64>> {
        let free = free_bytes(&self.control, self.size)?;
        Ok((free < claim.required()).then_some(free))
    }

    /// Publishes the frame, and returns its sequence. One token must follow, no more and no less
    /// (rule R10).
    #[inline]
    pub(crate) fn commit(&mut self, claim: Claim) -> u64 {
        if claim.place.waste > 0 {
            self.wrap(claim.place.waste);
        }
        let sequence = self.next;
        let total = FRAME_HEADER + claim.len;
        self.headers.write(claim.place.at, FrameHeader { len: claim.len, sequence });
        let end = claim.place.at + total;
        self.position = if end == self.size { 0 } else { end };
        self.control.store(oieb::PAYLOAD_WRITE_POS, self.position);
        // AcqRel: header and data come before; pairs with the Acquire in `free_bytes`.
        self.control.at(oieb::PAYLOAD_FREE_BYTES).fetch_sub(total, Ordering::AcqRel);
        count(&self.control, oieb::PAYLOAD_WRITTEN_COUNT, 1);
        self.next += 1;
        self.statistics.frames += 1;
        self.statistics.bytes += claim.len;
        sequence
    }

    /// Skips the rest of the ring. A rest that is too short for a marker, which only an existing v1
    /// program can have left, gets none and is not counted (rules R1 and R9).
    fn wrap(&mut self, waste: u64) {
        if waste >= FRAME_HEADER {
            self.headers.write(self.position, FrameHeader::WRAP);
            count(&self.control, oieb::PAYLOAD_WRITTEN_COUNT, 1);
        }
        // AcqRel as in `commit`.
        self.control.at(oieb::PAYLOAD_FREE_BYTES).fetch_sub(waste, Ordering::AcqRel);
        self.control.store(oieb::PAYLOAD_WRITE_POS, 0);
        self.statistics.wraps += 1;
    }
}

/// What a used ring's header says, for [`last_sequence`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) size: u64,
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// Frames and markers written: no sequence is larger.
    pub(crate) written: u64,
}

/// The sequence of the last frame that was written to a used ring, as its bytes tell (rule R13).
///
/// All frames since the last return to the beginning lie in a row from 0 to the write position,
/// whether they were read or not. Only a claim across a wrap that was not committed can have disturbed
/// them, since its bytes lie at the beginning. Then the unread frames, which nobody may touch, may
/// still lead there; and without any, the last frame shows by ending where it must.
pub(crate) fn last_sequence(headers: &Headers, used: Used) -> Option<u64> {
    let Used { size, read, .. } = used;
    let write = used.write % size;
    let end = if write == 0 { size } else { write };
    walk(headers, size, 0, end).or_else(|| walk(headers, size, read, end)).or_else(|| {
        // A writer that died behind a wrap has left its marker where everything was read.
        let is_wrapping = write == 0
            && size - read % size >= FRAME_HEADER
            && headers.read(read % size) == FrameHeader::WRAP;
        last_before(headers, if is_wrapping { read } else { end }, used.written)
    })
}

/// How far before its end the last frame is looked for.
const SEARCH: u64 = 4 << 20;

/// The sequence of the one frame that ends at `end`; `None` if several may.
fn last_before(headers: &Headers, end: u64, written: u64) -> Option<u64> {
    let last = end.checked_sub(FRAME_HEADER + 1)?;
    let mut candidates = (end.saturating_sub(SEARCH)..=last)
        .map(|position| (headers.read(position), end - position - FRAME_HEADER))
        .filter(|(header, len)| header.len == *len && (1..=written).contains(&header.sequence));
    let found = candidates.next()?.0.sequence;
    candidates.next().is_none().then_some(found)
}

/// The last of the sequences from `position` to exactly `end`; `None` if the way does not lead there. To
/// the end of the ring a marker leads as well, or a rest too short for one: a writer that died in the
/// middle of a wrap has written nothing behind it.
fn walk(headers: &Headers, size: u64, mut position: u64, end: u64) -> Option<u64> {
    let mut last = None;
    while position < end {
        if size - position < FRAME_HEADER {
            return last.filter(|_| end == size);
        }
        let header = headers.read(position);
        if header == FrameHeader::WRAP {
            return last.filter(|_| end == size);
        }
        // A writer that started again at 1 is a good successor of any other.
        let follows = last.is_none_or(|last: u64| last.checked_add(1) == Some(header.sequence));
        if header.sequence == 0 || header.len == 0 || !(follows || header.sequence == 1) {
            return None;
        }
        position = position.checked_add(FRAME_HEADER)?.checked_add(header.len)?;
        last = Some(header.sequence);
    }
    last.filter(|_| position == end)
}
