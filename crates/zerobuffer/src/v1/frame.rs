//! Fence: the only place where slices of a version 1 segment's bytes are born, and only through a
//! value that stands for them.
//!
//! [`Claim`] and [`Taken`] are made by the ring, one for each time that bytes become this side's own,
//! and cannot be cloned. A conforming peer does not touch those bytes meanwhile; a peer that does not
//! conform can change them under our eyes, which is the limit of all shared memory. That no other
//! buffer lies on the same bytes is so because a named segment is made by one reader, and attached to by
//! one writer at a time; for memory that is supplied, `Reader::create_in` takes its caller's word.
#![allow(unsafe_code)]

use super::ring::{Claim, Taken};
use crate::memory::SharedMemoryView;

impl Claim {
    /// The frame's bytes, to be filled.
    pub(crate) fn data_mut<'g>(&'g mut self, payload: &'g SharedMemoryView) -> &'g mut [u8] {
        let (start, len) = payload.range(self.data_start(), self.len());
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. The claim stands for free bytes of the ring, which neither side uses, is the only
        // value that stands for them, and is borrowed mutably for 'g.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Taken {
    /// The frame's bytes.
    #[inline]
    pub(crate) fn data<'g>(&'g self, payload: &'g SharedMemoryView) -> &'g [u8] {
        let (start, len) = payload.range(self.data_start, self.len);
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. From take to release the bytes are the reader's, and nobody writes them.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}
