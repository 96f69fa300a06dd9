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
use crate::error::Result;
use crate::memory::{SharedMemoryView, room_for};

impl Claim {
    /// The frame's bytes, to be filled.
    pub(crate) fn data_mut<'g>(&'g mut self, payload: &'g SharedMemoryView) -> &'g mut [u8] {
        let (start, len) = range(payload, self.data_start(), self.len());
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
        let (start, len) = range(payload, self.data_start, self.len);
        // SAFETY: `range` has checked that the bytes lie in the mapping, which `payload` keeps alive
        // for 'g. From take to release the bytes are the reader's, and nobody writes them.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

/// Copies `data` to `offset` of the metadata block, which the writer alone writes, once.
///
/// # Panics
/// If the range is not inside of the view.
pub(crate) fn write_block(view: &SharedMemoryView, offset: u64, data: &[u8]) {
    let (to, len) = range(view, offset, data.len() as u64);
    // SAFETY: `range` has checked the destination, and `data` cannot overlap it: no slice of a
    // metadata block is ever made.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, len) };
}

/// A copy of `len` bytes at `offset` of the metadata block.
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
/// side's own records, so the check never fails; it stands here because everything above relies on it.
#[inline]
fn range(view: &SharedMemoryView, start: u64, len: u64) -> (*mut u8, usize) {
    let size = view.len() as u64;
    assert!(start <= size && len <= size - start, "frame outside of the segment");
    (view.as_ptr().wrapping_add(start as usize), len as usize)
}
