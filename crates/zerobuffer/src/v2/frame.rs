//! Fence 3: the only place where slices of shared bytes are born, and only through a live guard.
//!
//! [`Claim`], [`Taken`] and [`Held`] are made by the ring, one for each time that a slot's bytes become
//! this side's own, and cannot be cloned. While one of them lives the protocol gives its holder the
//! bytes exclusively: no other value of these types stands for the same bytes, and a conforming peer
//! does not touch them. A peer that does not conform can change bytes under our eyes; that is the
//! limit of all shared memory, and stands in the crate's documentation under "Trust".
#![allow(unsafe_code)]

use super::ring::{Claim, Held, Taken};
use crate::error::Result;
use crate::memory::{SharedMemoryView, room_for};

impl Claim {
    /// The bytes to be filled: the first `len` of the claim's capacity.
    #[inline]
    pub(crate) fn data_mut<'g>(
        &'g mut self,
        payload: &'g SharedMemoryView,
        len: u64,
    ) -> &'g mut [u8] {
        let bytes = range(payload, self.data_start(), len.min(self.capacity()));
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
        let bytes = range(payload, self.data_start(), len.min(self.capacity()));
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
        let bytes = range(payload, self.data_start(), len.min(self.capacity()));
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
        let bytes = range(payload, self.data_start(), self.len);
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. From look to release the bytes are the client's, and nobody writes them.
        unsafe { std::slice::from_raw_parts(bytes.0, bytes.1) }
    }
}

/// Copies `data` to `offset` of a metadata block that this side alone writes.
///
/// # Panics
/// If the range is not inside of the view.
pub(crate) fn write_block(view: &SharedMemoryView, offset: u64, data: &[u8]) {
    let (to, len) = range(view, offset, data.len() as u64);
    // SAFETY: `range` has checked the destination, and `data` cannot overlap it: no slice of a
    // metadata block is ever made.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, len) };
}

/// A copy of `len` bytes at `offset` of a metadata block that the peer has finished writing.
///
/// # Errors
/// `NoSpace` if there is no memory for the copy: a peer says how long it is.
///
/// # Panics
/// If the range is not inside of the view.
pub(crate) fn read_block(view: &SharedMemoryView, offset: u64, len: u64) -> Result<Vec<u8>> {
    let (from, len) = range(view, offset, len);
    let mut copy = room_for(len, "a copy of the peer's metadata")?;
    // SAFETY: `range` has checked the source, a new vector cannot overlap it and has room for `len`
    // bytes, and these are set then.
    unsafe {
        std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), len);
        copy.set_len(len);
    }
    Ok(copy)
}

/// The address of `len` bytes at `start`, checked to be inside of the view. Ranges come from this
/// side's own records, so the check never fails; it stands here because everything below relies on it.
#[inline]
fn range(view: &SharedMemoryView, start: u64, len: u64) -> (*mut u8, usize) {
    let size = view.len() as u64;
    assert!(start <= size && len <= size - start, "slot outside of the segment");
    (view.as_ptr().wrapping_add(start as usize), len as usize)
}
