//! The reader's side of the ring.

use super::{count, free_bytes};
use crate::atomics::Ordering;
use crate::error::{Error, Result};
use crate::v1::layout::{FRAME_HEADER, oieb};
use crate::v1::words::{FrameHeader, Headers, Oieb};
use std::collections::VecDeque;

/// What a reader has done and seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderStatistics {
    /// Frames read.
    pub frames: u64,
    /// Their bytes, headers excluded.
    pub bytes: u64,
    /// How often the writer returned to the ring's beginning before its end.
    pub wraps: u64,
    /// How often a writer started again with sequence 1 (rule R13).
    pub restarts: u64,
    /// Tokens with no frame behind them, which were dropped (rule R10).
    pub spurious_tokens: u64,
    /// Frames that were read although their token never came (rule R11).
    pub missing_tokens: u64,
}

/// What stands at the read position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No frame has been published there.
    Nothing,
    Frame(Found),
}

/// A frame that was found and checked; nothing has changed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    at: u64,
    /// Bytes from the read position to the end that the writer skipped.
    waste: u64,
    /// Whether it said so by a marker, which counts as a frame.
    marked: bool,
    header: FrameHeader,
    /// Whether the writer has accounted for it: it is published, token or not.
    pub(crate) accounted: bool,
}

impl Found {
    fn total(&self) -> u64 {
        FRAME_HEADER + self.header.len
    }
}

/// A frame that the reader has taken. Not `Clone`: its holder owns the bytes (`v1::frame` relies on
/// it).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) sequence: u64,
    /// The first frame of a writer.
    pub(crate) first: bool,
    /// Where the data lies, from the start of the ring.
    pub(crate) data_start: u64,
    pub(crate) len: u64,
    ticket: u64,
}

impl Taken {
    /// The same frame, for a value of another type to hold; the old one must not be used again.
    pub(crate) fn transfer(&self) -> Self {
        Self { ..*self }
    }
}

/// Bytes that were taken and not returned to the writer yet.
#[derive(Debug)]
struct Unreturned {
    bytes: u64,
    released: bool,
    /// One for a frame, none for waste.
    tokens: u64,
}

/// The reader's side of one ring; for one thread at a time.
#[derive(Debug)]
pub(crate) struct ReaderRing {
    control: Oieb,
    headers: Headers,
    size: u64,
    position: u64,
    /// The sequence of the next frame.
    expected: u64,
    /// In ring order. Space is returned for the longest released prefix only: the writer knows how much
    /// is free, not where (rule R6).
    queue: VecDeque<Unreturned>,
    /// The ticket of the queue's first entry.
    first_ticket: u64,
    /// The sum of the queue's bytes.
    unreturned: u64,
    pub(crate) statistics: ReaderStatistics,
}

impl ReaderRing {
    pub(crate) fn new(control: Oieb, headers: Headers, size: u64) -> Self {
        Self {
            control,
            headers,
            size,
            position: 0,
            expected: 1,
            queue: VecDeque::new(),
            first_ticket: 0,
            unreturned: 0,
            statistics: ReaderStatistics::default(),
        }
    }

    /// Looks for the next frame and checks all that it says; changes nothing (rules R10 and R15).
    ///
    /// # Errors
    /// `SequenceGap` or `ProtocolViolation` if something was published that is no valid next frame.
    #[inline]
    pub(crate) fn look(&self) -> Result<Look> {
        // Frames that an existing writer of an older release lost track of make this too small, which
        // only costs the checks that use it their sharpness (rule R8); an account that cannot be, which
        // is reported where no frame stands, costs no more.
        let free = free_bytes(&self.control, self.size);
        let used = self.size - *free.as_ref().unwrap_or(&self.size);
        let pending = used.saturating_sub(self.unreturned);
        let (at, waste, marked) = self.next_header();
        let header = self.headers.read(at);
        let room = self.size - at - FRAME_HEADER;
        let fits = header.len <= room && header != FrameHeader::WRAP;
        let total = header.len.saturating_add(FRAME_HEADER);
        let accounted = pending >= total.saturating_add(waste);
        let found = Found { at, waste, marked, header, accounted };
        // A restart needs proof: old frames with sequence 1 lie about in the ring.
        if fits && (header.sequence == self.expected || header.sequence == 1 && accounted) {
            return Ok(Look::Frame(found));
        }
        free?;
        if pending < waste + FRAME_HEADER {
            return Ok(Look::Nothing);
        }
        Err(self.complaint(header, room))
    }

    /// Where the next header stands, what is wasted before it, and whether a marker says so.
    #[inline]
    fn next_header(&self) -> (u64, u64, bool) {
        let to_end = self.size - self.position;
        if to_end < FRAME_HEADER {
            // Too short for a header: the writer has skipped it without a word (rule R1).
            return (0, to_end, false);
        }
        // Only 0 with 0: C# writes frames of no bytes, with a sequence (rule R5).
        if self.position != 0 && self.headers.read(self.position) == FrameHeader::WRAP {
            return (0, to_end, true);
        }
        (self.position, 0, false)
    }

    #[cold]
    fn complaint(&self, header: FrameHeader, room: u64) -> Error {
        if header.len <= room && header.sequence != self.expected && header.sequence != 0 {
            return Error::SequenceGap { expected: self.expected, found: header.sequence };
        }
        Error::ProtocolViolation {
            field: "frame.payload_size",
            observed: header.len,
            allowed: room,
        }
    }

    /// Takes the frame that a look has just found.
    #[inline]
    pub(crate) fn take(&mut self, found: Found) -> Taken {
        if found.waste > 0 {
            self.pass_waste(found);
        }
        let Found { at, header, .. } = found;
        let end = at + found.total();
        self.position = if end == self.size { 0 } else { end };
        self.control.store(oieb::PAYLOAD_READ_POS, self.position);
        count(&self.control, oieb::PAYLOAD_READ_COUNT, 1);
        if header.sequence != self.expected {
            self.statistics.restarts += 1;
        }
        self.expected = header.sequence.wrapping_add(1);
        self.statistics.frames += 1;
        self.statistics.bytes += header.len;
        let ticket = self.first_ticket + self.queue.len() as u64;
        self.enter(Unreturned { bytes: found.total(), released: false, tokens: 1 });
        Taken {
            sequence: header.sequence,
            first: header.sequence == 1,
            data_start: at + FRAME_HEADER,
            len: header.len,
            ticket,
        }
    }

    /// The wasted bytes go back in their turn as well: returned at once, they would stand for bytes of
    /// a frame before them that is still held.
    fn pass_waste(&mut self, found: Found) {
        self.statistics.wraps += 1;
        if found.marked {
            count(&self.control, oieb::PAYLOAD_READ_COUNT, 1);
        }
        self.enter(Unreturned { bytes: found.waste, released: true, tokens: 0 });
        self.return_released();
    }

    #[inline]
    fn enter(&mut self, entry: Unreturned) {
        self.unreturned += entry.bytes;
        self.queue.push_back(entry);
    }

    /// Whether positions and account are what they must be when no writer is in the middle of a write and nothing is
    /// left to read.
    pub(crate) fn is_settled(&self) -> bool {
        let load = |offset| self.control.load(offset);
        load(oieb::PAYLOAD_FREE_BYTES) == self.size - self.unreturned
            && load(oieb::PAYLOAD_READ_POS) == self.position
            && load(oieb::PAYLOAD_WRITE_POS) % self.size == self.position
    }

    /// Whether as many frames and markers are counted as read as are counted as written.
    pub(crate) fn has_equal_counts(&self) -> bool {
        self.control.load(oieb::PAYLOAD_WRITTEN_COUNT)
            == self.control.load(oieb::PAYLOAD_READ_COUNT)
    }

    /// Gives a frame's bytes back, in any order of frames. Returns how many tokens the writer is to
    /// get: one for each frame whose space it has got back.
    #[inline]
    pub(crate) fn release(&mut self, taken: &Taken) -> u64 {
        let entry = taken.ticket.checked_sub(self.first_ticket);
        if let Some(entry) = entry.and_then(|index| self.queue.get_mut(index as usize)) {
            entry.released = true;
        }
        self.return_released()
    }

    #[inline]
    fn return_released(&mut self) -> u64 {
        let (mut tokens, mut bytes) = (0, 0);
        while let Some(entry) = self.queue.front().filter(|entry| entry.released) {
            bytes += entry.bytes;
            tokens += entry.tokens;
            self.first_ticket += 1;
            self.queue.pop_front();
        }
        self.unreturned -= bytes;
        if bytes > 0 {
            // AcqRel: the frames were read before; pairs with the Acquire in `free_bytes`.
            self.control.at(oieb::PAYLOAD_FREE_BYTES).fetch_add(bytes, Ordering::AcqRel);
        }
        tokens
    }
}
