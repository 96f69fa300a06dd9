//! Fence 3: the only place where slices of shared bytes are born, and only through a live guard.
//!
//! [`Claim`], [`Taken`] and [`Held`] are made by the ring, one for each time that a slot's bytes become
//! this side's own, and cannot be cloned. While one of them lives the protocol gives its holder the
//! bytes exclusively: no other value of these types stands for the same bytes, and a conforming peer
//! does not touch them. A peer that does not conform can change bytes under our eyes; that is the
//! limit of all shared memory, and stands in the crate's documentation under "Trust".
#![allow(unsafe_code)]

use super::ring::{Claim, Held, Taken};
use crate::memory::SharedMemoryView;

impl Claim {
    /// The bytes to be filled: the first `len` of the claim's capacity.
    #[inline]
    pub(crate) fn data_mut<'g>(
        &'g mut self,
        payload: &'g SharedMemoryView,
        len: u64,
    ) -> &'g mut [u8] {
        let bytes = payload.range(self.data_start(), len.min(self.capacity()));
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. The claim stands for free bytes of the ring, which neither side uses, is the only
        // value that stands for them, and is borrowed mutably for 'g.
        unsafe { std::slice::from_raw_parts_mut(bytes.0, bytes.1) }
    }
}

impl Taken {
    /// The first `len` bytes of the request's slot.
    #[inline]
    pub(crate) fn data<'g>(&'g self, payload: &'g SharedMemoryView, len: u64) -> &'g [u8] {
        let bytes = payload.range(self.data_start(), len.min(self.capacity()));
        // SAFETY: as in `data_mut`, with a shared borrow.
        unsafe { std::slice::from_raw_parts(bytes.0, bytes.1) }
    }

    /// The first `len` bytes of the request's slot, to be edited in place.
    #[inline]
    pub(crate) fn data_mut<'g>(
        &'g mut self,
        payload: &'g SharedMemoryView,
        len: u64,
    ) -> &'g mut [u8] {
        let bytes = payload.range(self.data_start(), len.min(self.capacity()));
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. From take to answer the bytes are the server's, this is the only value that stands
        // for them, and it is borrowed mutably for 'g.
        unsafe { std::slice::from_raw_parts_mut(bytes.0, bytes.1) }
    }
}

impl Held {
    /// The response's bytes.
    #[inline]
    pub(crate) fn data<'g>(&'g self, payload: &'g SharedMemoryView) -> &'g [u8] {
        let bytes = payload.range(self.data_start(), self.len);
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. From look to release the bytes are the client's, and nobody writes them.
        unsafe { std::slice::from_raw_parts(bytes.0, bytes.1) }
    }
}
