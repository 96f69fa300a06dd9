//! Fence: the only place where bytes of a version 1 segment become atomics.
//!
//! Existing v1 programs read and write these fields as plain memory; on this side every access is an
//! atomic one (rule R19), because the peer may write at any time.
#![allow(unsafe_code)]

use super::layout::FRAME_HEADER;
use crate::atomics::{AtomicU64, Ordering};
use crate::memory::SharedMemoryView;
use std::sync::atomic::AtomicU8;

/// The OIEB as aligned 64-bit words.
#[derive(Debug, Clone)]
pub(crate) struct Oieb {
    view: SharedMemoryView,
}

impl Oieb {
    /// # Panics
    /// If the view does not start at a multiple of 8; callers check what users supply.
    pub(crate) fn new(view: SharedMemoryView) -> Self {
        assert!(view.as_ptr().addr().is_multiple_of(8), "words must be aligned");
        Self { view }
    }

    /// The word at byte `offset`.
    ///
    /// # Panics
    /// If it is not aligned or not inside; offsets are constants of `layout`.
    #[inline]
    pub(crate) fn at(&self, offset: usize) -> &AtomicU64 {
        let inside = self.view.len().checked_sub(8).is_some_and(|last| offset <= last);
        assert!(inside && offset.is_multiple_of(8), "word outside of the header");
        // SAFETY: the eight bytes at `offset` lie inside of the view (asserted), which stays mapped
        // for as long as `self` lives; base and offset are multiples of 8, so the word is aligned;
        // and slices (`v1::frame`) never cover the header.
        unsafe { AtomicU64::from_ptr(self.view.as_ptr().add(offset).cast()) }
    }

    #[inline]
    pub(crate) fn load(&self, offset: usize) -> u64 {
        // Acquire: pairs with the Release of the side that wrote the word last.
        self.at(offset).load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn store(&self, offset: usize, value: u64) {
        // Release: everything before is visible to who sees the value.
        self.at(offset).store(value, Ordering::Release);
    }

    /// Replaces `from` by `to`; false if the word held something else.
    pub(crate) fn replace(&self, offset: usize, from: u64, to: u64) -> bool {
        // AcqRel as in `load` and `store`.
        let word = self.at(offset);
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What stands before each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) len: u64,
    pub(crate) sequence: u64,
}

impl FrameHeader {
    pub(crate) const WRAP: Self = Self { len: 0, sequence: 0 };
}

/// The ring's bytes, for frame headers, which start at any byte (rule R16).
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    view: SharedMemoryView,
}

impl Headers {
    pub(crate) fn new(view: SharedMemoryView) -> Self {
        Self { view }
    }

    /// A copy of the header at `position`; the copy is what gets checked and used.
    ///
    /// # Panics
    /// If a header does not fit there: positions are this side's own.
    #[inline]
    pub(crate) fn read(&self, position: u64) -> FrameHeader {
        let mut bytes = [0; FRAME_HEADER as usize];
        for (byte, shared) in bytes.iter_mut().zip(self.bytes(position)) {
            // Relaxed: the semaphore's token or `payload_free_bytes` orders the header.
            *byte = shared.load(Ordering::Relaxed);
        }
        let (len, sequence) = bytes.split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        FrameHeader { len: word(len), sequence: word(sequence) }
    }

    /// # Panics
    /// If a header does not fit there.
    #[inline]
    pub(crate) fn write(&self, position: u64, header: FrameHeader) {
        let bytes = header.len.to_le_bytes().into_iter().chain(header.sequence.to_le_bytes());
        for (byte, shared) in bytes.zip(self.bytes(position)) {
            // Relaxed: published by `payload_free_bytes` and the token, which follow.
            shared.store(byte, Ordering::Relaxed);
        }
    }

    #[inline]
    fn bytes(&self, position: u64) -> &[AtomicU8] {
        let last = (self.view.len() as u64).checked_sub(FRAME_HEADER);
        assert!(last.is_some_and(|last| position <= last), "header outside of the ring");
        // SAFETY: the sixteen bytes at `position` lie inside of the view (asserted), which stays
        // mapped for as long as `self` lives; a byte has no alignment; and this side makes no slice
        // (`v1::frame`) over bytes that it takes for a header.
        unsafe {
            let start = self.view.as_ptr().add(position as usize).cast::<AtomicU8>();
            std::slice::from_raw_parts(start, FRAME_HEADER as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HeapMemory, MemoryProvider};

    /// Rule R16: headers start at any byte.
    #[test]
    fn headers_are_read_as_written_at_every_byte() {
        let mut memory = HeapMemory::new();
        memory.allocate(128).unwrap();
        let headers = Headers::new(memory.map(0, 128).unwrap());
        for position in 0..=112 {
            let header = FrameHeader {
                len: 0x0102_0304_0506_0708 + position,
                sequence: u64::MAX - position,
            };
            headers.write(position, header);
            assert_eq!(headers.read(position), header);
        }
    }

    #[test]
    #[should_panic(expected = "header outside of the ring")]
    fn a_header_across_the_end_is_never_touched() {
        let mut memory = HeapMemory::new();
        memory.allocate(128).unwrap();
        Headers::new(memory.map(0, 128).unwrap()).read(113);
    }
}
