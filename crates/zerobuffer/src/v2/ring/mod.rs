//! The algorithm: how slots of the one ring travel between client and server (protocol v2, section 6
//! "The ring, step by step").
//!
//! ```text
//! client                                server
//! try_claim ─► fill ─► commit ──────►  take ─► edit in place ─► answer
//! reclaim ◄── release ◄── read ◄── look ◄───────────────────────┘
//! ```
//!
//! Nothing here knows the operating system, pointers or payload bytes, so loom and the property tests
//! run exactly this code. Both sides keep what they decide by in private memory: the client its own
//! table of slots, the server its own position and sequence. What the peer can write is read once,
//! checked, and then used.
//!
//! All private state is in relaxed atomics, so every operation takes `&self`; which operations may
//! run at the same time is said at each type.

mod client;
mod permit;
mod server;
mod table;

pub(crate) use client::{Claim, ClaimStep, ClientRing, Held, Look};
pub(crate) use server::{ServerRing, Take, Taken};

use super::layout::{EMPTY, Geometry, METADATA, slot};
use super::words::{Block, Lines, Words};
use crate::atomics::{AtomicU64, Ordering};
use crate::error::Error;

/// Something that a conforming peer never writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) field: &'static str,
    pub(crate) observed: u64,
    pub(crate) allowed: u64,
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        let Violation { field, observed, allowed } = violation;
        Self::ProtocolViolation { field, observed, allowed }
    }
}

/// The words that both rings work on.
#[derive(Debug)]
struct Ring {
    /// OIEB_Request and OIEB_Response.
    control: Block<{ METADATA / 8 }>,
    payload: Lines,
    size: u64,
}

impl Ring {
    fn new(control: Words, payload: Words, geometry: &Geometry) -> Self {
        let (control, payload) = (Block::new(control), Lines::new(payload));
        Self { control, payload, size: geometry.payload_size }
    }

    /// The header of the slot at `position`.
    #[inline]
    fn slot(&self, position: u64) -> Fields<'_, 4> {
        Fields(self.payload.header(position))
    }

    /// The commit word of the slot at `position`.
    #[inline]
    fn state(&self, position: u64) -> &AtomicU64 {
        self.slot(position).at(slot::STATE)
    }

    /// Both OIEBs: the public account.
    #[inline]
    fn account(&self) -> Fields<'_, { METADATA / 8 }> {
        Fields(self.control.words())
    }

    /// Where a slot of `len` bytes at `position` ends; the end of the ring is its beginning.
    #[inline]
    fn after(&self, position: u64, len: u64) -> u64 {
        let end = position + len;
        if end == self.size { 0 } else { end }
    }

    /// Termination: at the server's next position no old bytes look like the frame `expected` there.
    ///
    /// A word of any other sequence stands for nothing new, and is left alone: a store would take the
    /// line from a server that has fetched it ahead, and on x86 the frame, which is stored later, could
    /// not become visible before.
    ///
    /// Relaxed: free bytes are this side's own, and the Release store of the state that lets the server
    /// get there follows.
    #[inline]
    fn terminate(&self, position: u64, expected: u64) {
        let state = self.state(position);
        if state.load(Ordering::Relaxed) >> 8 == expected {
            state.store(EMPTY, Ordering::Relaxed);
        }
    }
}

/// Words that were checked to be inside of the segment together, found by their byte offset.
#[derive(Debug, Clone, Copy)]
struct Fields<'r, const N: usize>(&'r [AtomicU64; N]);

impl<'r, const N: usize> Fields<'r, N> {
    #[inline]
    fn at(self, offset: usize) -> &'r AtomicU64 {
        &self.0[offset / 8]
    }
}

/// Adds to a counter of this side in the segment, whose value `private` knows as well.
///
/// A thread that is alone stores without loading: the other side's counters lie in the same line, and
/// a load would wait until the line is here. Several threads add, and so agree on the sum.
///
/// Release: a counter follows the state change that it reports; readers use Acquire.
#[inline]
fn count(counter: &AtomicU64, private: &AtomicU64, amount: u64, concurrent: bool) {
    if concurrent {
        private.fetch_add(amount, Ordering::Relaxed);
        counter.fetch_add(amount, Ordering::Release);
    } else {
        let sum = private.load(Ordering::Relaxed).wrapping_add(amount);
        private.store(sum, Ordering::Relaxed);
        counter.store(sum, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod models;
