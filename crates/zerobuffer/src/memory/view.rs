//! A window of memory that exists.
#![allow(unsafe_code)]

use super::heap::Block;
use super::{MemoryProvider, room_for};
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::sys::{Errno, Mapping, Pages, ShmFile};
use std::ptr::NonNull;
use std::sync::Arc;

/// What keeps a view's bytes where they are.
#[derive(Debug)]
pub(super) enum Backing {
    Mapping(Mapping),
    Heap(Block),
}

/// A window of memory that somebody else allocated: the proposal's view mode.
///
/// Views are cheap to clone, and views of views share one memory: this is how the request side and the
/// response side of an in-place channel come to use one payload.
#[derive(Clone)]
pub struct SharedMemoryView {
    /// `None` after `unmap`.
    backing: Option<Arc<Backing>>,
    base: NonNull<u8>,
    len: usize,
}

debug_line!(SharedMemoryView, "SharedMemoryView", |view| len: view.len);

// SAFETY: a view is an address range that `backing` keeps alive, without thread affinity. It gives
// out an address and a length; who may touch which bytes is decided where references are made
// (`v2::words` for atomics, `v2::frame` for slices, and the user's own unsafe code).
unsafe impl Send for SharedMemoryView {}
// SAFETY: as for Send.
unsafe impl Sync for SharedMemoryView {}

impl SharedMemoryView {
    pub(super) fn new(backing: Arc<Backing>) -> Self {
        let (base, len) = match &*backing {
            Backing::Mapping(mapping) => (mapping.base(), mapping.len()),
            Backing::Heap(block) => (block.base(), block.len()),
        };
        Self { backing: Some(backing), base, len }
    }

    /// The first `len` bytes of `file`, which must have them.
    pub(crate) fn of_file(
        file: &ShmFile,
        len: usize,
        pages: Pages,
    ) -> std::result::Result<Self, Errno> {
        Ok(Self::new(Arc::new(Backing::Mapping(Mapping::new(file, len, pages)?))))
    }

    /// Gives the memory of the whole mapping back to the system: see [`Mapping::punch`].
    pub(crate) fn punch(&self) {
        if let Some(mapping) = self.mapping() {
            let _ = mapping.punch();
        }
    }

    /// No memory at all.
    pub(crate) fn empty() -> Self {
        Self { backing: None, base: NonNull::dangling(), len: 0 }
    }

    /// `len` bytes from `start`, which this side's own records say are inside.
    ///
    /// # Panics
    /// If they are not.
    pub(crate) fn window(&self, start: u64, len: u64) -> Self {
        self.map(start as usize, len as usize).expect("a frame lies inside of its segment")
    }

    /// The address of `len` bytes from `start`, checked to be inside. Ranges come from this side's own
    /// records, so the check never fails; it stands here because all slices of the segment rely on it.
    ///
    /// # Panics
    /// If it does.
    #[inline]
    pub(crate) fn range(&self, start: u64, len: u64) -> (*mut u8, usize) {
        let size = self.len as u64;
        assert!(start <= size && len <= size - start, "frame outside of the segment");
        (self.as_ptr().wrapping_add(start as usize), len as usize)
    }

    /// Copies `data` to `offset`, into a metadata block that this side alone writes.
    ///
    /// # Panics
    /// If it is not inside of the view.
    pub(crate) fn write_block(&self, offset: u64, data: &[u8]) {
        let (to, len) = self.range(offset, data.len() as u64);
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
    /// If it is not inside of the view.
    pub(crate) fn read_block(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let (from, len) = self.range(offset, len);
        let mut copy = room_for(len, "a copy of the peer's metadata")?;
        // SAFETY: `range` has checked the source, a new vector cannot overlap it and has room for `len`
        // bytes, and these are set then.
        unsafe {
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        Ok(copy)
    }

    /// The mapping that the view is a part of, if it is one of a mapping.
    pub(super) fn mapping(&self) -> Option<&Mapping> {
        match self.backing.as_deref() {
            Some(Backing::Mapping(mapping)) => Some(mapping),
            _ => None,
        }
    }

    /// The length in bytes; 0 after `unmap`.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the first byte. It is valid for [`len`](Self::len) bytes for as long as a view
    /// of this memory lives. Other threads and processes may change the bytes at any time: read and
    /// write them with atomics, or under an agreement about who owns what.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl MemoryProvider for SharedMemoryView {
    fn allocate(&mut self, _size: usize) -> Result<()> {
        Err(Error::Unsupported {
            what: "a view maps memory that exists, it cannot allocate; use SharedMemory",
        })
    }

    fn map(&self, offset: usize, size: usize) -> Result<SharedMemoryView> {
        let Some(backing) = &self.backing else {
            return Err(Error::InvalidState { reason: "the view was unmapped; map it again" });
        };
        match offset.checked_add(size) {
            Some(end) if end <= self.len => {}
            _ => {
                let asked = offset.saturating_add(size) as u64;
                return Err(Error::TooLarge {
                    what: "a window into the view",
                    asked,
                    max: self.len as u64,
                });
            }
        }
        // SAFETY: `offset` is at most `len`, so the address lies in, or one past, the same memory.
        let base = unsafe { self.base.add(offset) };
        Ok(Self { backing: Some(Arc::clone(backing)), base, len: size })
    }

    fn unmap(&mut self) {
        *self = Self::empty();
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeapMemory;
    use super::*;
    use crate::error::ErrorKind;

    fn heap(size: usize) -> HeapMemory {
        let mut heap = HeapMemory::new();
        heap.allocate(size).unwrap();
        heap
    }

    #[test]
    fn a_view_maps_the_bytes_of_its_memory_and_not_a_copy() {
        let heap = heap(4096);
        let whole = heap.map(0, 4096).unwrap();
        let window = whole.map(64, 128).unwrap();
        let inner = window.map(8, 8).unwrap();
        assert_eq!(window.as_ptr() as usize, whole.as_ptr() as usize + 64);
        assert_eq!(inner.as_ptr() as usize, whole.as_ptr() as usize + 72);
        // SAFETY: both addresses lie in the heap block, and no other thread uses it.
        let seen = unsafe {
            inner.as_ptr().write(0xA5);
            whole.as_ptr().add(72).read()
        };
        assert_eq!(seen, 0xA5);
    }

    #[test]
    fn a_view_refuses_to_allocate() {
        let error = heap(64).map(0, 64).unwrap().allocate(64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn ranges_beyond_the_memory_are_refused() {
        let view = heap(4096).map(0, 1024).unwrap();
        for (offset, size) in [(0, 1025), (1024, 1), (usize::MAX, 2), (1, usize::MAX)] {
            let error = view.map(offset, size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{offset} {size}");
        }
        assert_eq!(view.map(1024, 0).unwrap().len(), 0);
    }

    #[test]
    fn a_view_outlives_its_provider_and_is_empty_after_unmap() {
        let mut heap = heap(4096);
        let mut view = heap.map(0, 64).unwrap();
        heap.unmap();
        assert_eq!(heap.map(0, 1).unwrap_err().kind(), ErrorKind::InvalidState);
        // SAFETY: the view keeps the block alive, and no other thread uses it.
        assert_eq!(unsafe { view.as_ptr().read() }, 0);
        view.unmap();
        assert!(view.is_empty());
        assert_eq!(view.map(0, 0).unwrap_err().kind(), ErrorKind::InvalidState);
    }
}
