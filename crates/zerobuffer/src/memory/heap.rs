//! Heap memory in the place of shared memory.
#![allow(unsafe_code)]

use super::view::Backing;
use super::{MemoryProvider, SharedMemoryView};
use crate::error::{Error, Result};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

/// Blocks start at a page boundary, as mappings do.
const ALIGNMENT: usize = 4096;

/// Memory of this process alone: for tests, and for channels whose two ends live in one process.
#[derive(Debug, Default)]
pub struct HeapMemory {
    view: Option<SharedMemoryView>,
}

impl HeapMemory {
    /// A provider that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl MemoryProvider for HeapMemory {
    fn allocate(&mut self, size: usize) -> Result<()> {
        if self.view.is_some() {
            return Err(Error::InvalidState { reason: "this provider has allocated already" });
        }
        let block = Block::new(size)?;
        self.view = Some(SharedMemoryView::new(Arc::new(Backing::Heap(block))));
        Ok(())
    }

    fn map(&self, offset: usize, size: usize) -> Result<SharedMemoryView> {
        match &self.view {
            Some(view) => view.map(offset, size),
            None => {
                Err(Error::InvalidState { reason: "nothing is allocated; call allocate first" })
            }
        }
    }

    fn unmap(&mut self) {
        self.view = None;
    }
}

/// A vector with room for `len` bytes, which a peer may have said: an error and not the end of the process
/// if there is not that much.
pub(crate) fn room_for(len: usize, what: &str) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(len).map_err(|_| no_memory(what, len))?;
    Ok(room)
}

fn no_memory(what: &str, size: usize) -> Error {
    let reason = "this process can have no more memory (see `ulimit -v`); ask for less";
    Error::NoSpace { object: what.to_owned(), needed: size as u64, reason }
}

/// An allocation, freed when dropped.
#[derive(Debug)]
pub(super) struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is an address range without thread affinity; it gives out an address only.
unsafe impl Send for Block {}
// SAFETY: as for Send.
unsafe impl Sync for Block {}

impl Block {
    fn new(size: usize) -> Result<Self> {
        let no_space = || no_memory("heap memory", size);
        let layout = Layout::from_size_align(size.max(1), ALIGNMENT).map_err(|_| no_space())?;
        // SAFETY: the layout's size is at least 1.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(no_space)?;
        Ok(Self { base, layout })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `base` was allocated with exactly this layout in `new`, and every view into it
        // holds the Arc that owns this block.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) };
    }
}
