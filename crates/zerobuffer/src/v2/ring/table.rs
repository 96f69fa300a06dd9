//! The client's private record of its slots: the truth about who holds what on this side.

use crate::atomics::{AtomicU64, Ordering};
use crate::v2::layout::{MAX_SEQUENCE, SlotShape};

/// What has become of a request, as this side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SlotStatus {
    /// Committed, and nobody has collected a response.
    Pending = 1,
    /// Its response is in a guard's hands.
    Held = 2,
    /// Its response was released: the bytes may be used again.
    Returned = 3,
    /// It was cancelled; the bytes are reclaimed when the server has released them.
    Abandoned = 4,
    /// One thread is finding out whether the server was faster: it will be Abandoned, or Pending again.
    /// Until then it is neither, for all others.
    Cancelling = 5,
}

impl SlotStatus {
    #[inline]
    fn of(self, sequence: u64) -> u64 {
        sequence << 8 | self as u64
    }

    fn from_word(word: u64, sequence: u64) -> Option<Self> {
        if word >> 8 != sequence {
            return None;
        }
        [Self::Pending, Self::Held, Self::Returned, Self::Abandoned, Self::Cancelling]
            .into_iter()
            .find(|status| *status as u64 == word & 0xff & !ADDRESSED)
    }
}

/// Beside the status: the response has an addressee, and a search for any response passes it over.
const ADDRESSED: u64 = 0x80;

/// One request's record.
#[derive(Debug)]
pub(super) struct Entry {
    position: AtomicU64,
    /// The shape as published, but for its status, where the logarithm of the alignment stands.
    shape: AtomicU64,
    /// Sequence and status, as in a state word.
    word: AtomicU64,
}

impl Entry {
    /// Enters a request. The sender calls it, before any other thread knows the sequence.
    #[inline]
    pub(super) fn enter(
        &self,
        sequence: u64,
        position: u64,
        shape: SlotShape,
        alignment: u64,
        addressed: bool,
    ) {
        let shape = SlotShape { status: alignment.trailing_zeros() as u16, ..shape };
        self.position.store(position, Ordering::Relaxed);
        self.shape.store(shape.to_word(), Ordering::Relaxed);
        // Release: pairs with the Acquire in `status`, which makes position and shape visible.
        let mark = if addressed { ADDRESSED } else { 0 };
        self.word.store(SlotStatus::Pending.of(sequence) | mark, Ordering::Release);
    }

    /// The status of `sequence`; `None` if this entry is about another request by now.
    #[inline]
    pub(super) fn status(&self, sequence: u64) -> Option<SlotStatus> {
        // Acquire: pairs with the Release in `enter`, `set` and `change`.
        SlotStatus::from_word(self.word.load(Ordering::Acquire), sequence)
    }

    /// Whether `status` is the status of `sequence`, which may be any number that a user asks about.
    #[inline]
    pub(super) fn is(&self, sequence: u64, status: SlotStatus) -> bool {
        // Acquire: as in `status`. A number of more than 56 bits would look like a smaller one.
        self.word.load(Ordering::Acquire) & !ADDRESSED == status.of(sequence)
            && sequence <= MAX_SEQUENCE
    }

    /// Whether `sequence` has no collected answer, and an addressee.
    #[inline]
    pub(super) fn awaits_addressee(&self, sequence: u64) -> bool {
        let pending = [SlotStatus::Pending, SlotStatus::Cancelling];
        // Acquire: as in `status`.
        let word = self.word.load(Ordering::Acquire);
        pending.iter().any(|status| word == status.of(sequence) | ADDRESSED)
    }

    /// Notes that `sequence` has an addressee, or has none any more, whatever its status is. True if that
    /// is a change.
    pub(super) fn set_addressed(&self, sequence: u64, addressed: bool) -> bool {
        let mark = |word: u64| if addressed { word | ADDRESSED } else { word & !ADDRESSED };
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen >> 8 == sequence && mark(seen) != seen {
            // AcqRel: passes on what the status before was published with.
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            match self.word.compare_exchange_weak(seen, mark(seen), success, failure) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Changes the status; only for the one who alone may do so (the holder of a guard).
    #[inline]
    pub(super) fn set(&self, sequence: u64, to: SlotStatus) {
        // Release: whatever was done with the slot's bytes comes before their next use; pairs with
        // the Acquire in `status`, by which `reclaim` learns that they are free.
        self.word.store(to.of(sequence), Ordering::Release);
    }

    /// Changes the status if it still is `from`, and keeps the mark of [`Entry::set_addressed`]; exactly
    /// one of several who try succeeds.
    #[inline]
    pub(super) fn change(
        &self,
        sequence: u64,
        from: SlotStatus,
        to: SlotStatus,
        concurrent: bool,
    ) -> bool {
        let (from, to) = (from.of(sequence), to.of(sequence));
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & !ADDRESSED == from {
            let next = to | seen & ADDRESSED;
            if !concurrent {
                self.word.store(next, Ordering::Release);
                return true;
            }
            // Release and Acquire as in `set` and `status`. It fails a second time only if the mark was
            // changed meanwhile.
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self.word.compare_exchange(seen, next, success, failure) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Length, capacity and data offset of the slot; the status means nothing.
    #[inline]
    pub(super) fn shape(&self) -> SlotShape {
        SlotShape::from_word(self.shape.load(Ordering::Relaxed))
    }

    /// The alignment that was asked for.
    pub(super) fn alignment(&self) -> u64 {
        1 << self.shape().status
    }
}

/// Entries of consecutive sequences, found by sequence.
pub(super) struct Table {
    /// A power of two of them.
    entries: Vec<Entry>,
}

/// How many, not each: there are thousands.
impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(max_in_flight: usize) -> Self {
        let entry = |_| Entry {
            position: AtomicU64::new(0),
            shape: AtomicU64::new(0),
            word: AtomicU64::new(0),
        };
        Self { entries: (0..max_in_flight.next_power_of_two()).map(entry).collect() }
    }

    /// The most requests that can be in flight.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    #[inline]
    pub(super) fn entry(&self, sequence: u64) -> &Entry {
        &self.entries[sequence as usize & (self.entries.len() - 1)]
    }
}
