//! The algorithm of the version 1 ring: place, commit, look, take, release. No unsafe, no operating
//! system, no payload bytes.
//!
//! The writer relies on `payload_free_bytes` (F) alone: it subtracts what it uses, the reader adds what
//! it releases. Positions and counts are each written by one side and read by people. F changes
//! last when a frame is published, so `size − F` minus what this reader has not returned is what is
//! there to be read, at every instant.

mod reader;
mod writer;

pub use reader::ReaderStatistics;
pub(crate) use reader::{Look, ReaderRing, Taken};
pub use writer::WriterStatistics;
pub(crate) use writer::{Claim, Used, WriterRing, last_sequence};

use super::words::Oieb;
use crate::atomics::Ordering;
use crate::error::{Error, Result};
use crate::v1::layout::oieb;

/// Free bytes, as the ring's account says.
///
/// # Errors
/// `ProtocolViolation` if there are more than the ring has (rule R8).
#[inline]
fn free_bytes(control: &Oieb, size: u64) -> Result<u64> {
    // Acquire: pairs with the Release of the other side's addition or subtraction: what was released
    // has been read, what was published is visible.
    let free = control.at(oieb::PAYLOAD_FREE_BYTES).load(Ordering::Acquire);
    if free > size {
        return Err(Error::ProtocolViolation {
            field: "oieb.payload_free_bytes",
            observed: free,
            allowed: size,
        });
    }
    Ok(free)
}

/// Adds to a count that this side alone writes.
#[inline]
fn count(control: &Oieb, field: usize, more: u64) {
    let word = control.at(field);
    // Release: a count follows what it counts; readers use Acquire.
    word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
}

#[cfg(test)]
mod tests;
