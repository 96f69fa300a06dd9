//! Where a channel's bytes lie: named shared memory, a view of memory that exists, or the heap.

mod heap;
mod shared;
mod view;

pub use heap::HeapMemory;
pub(crate) use heap::room_for;
pub use shared::SharedMemory;
pub use view::SharedMemoryView;

use crate::error::Result;
use crate::sys;

/// Whether core dumps of this process hold what its channels carry. They do not, unless this is called with
/// `true`, for the mappings that are made from then on: by both protocols, at either end.
///
/// A core dump is often kept, or sent to somebody, who is not to see what was in the pictures; and a ring
/// may be larger than the rest of the process. Copies that the program has made are as its other memory, and
/// so is [`HeapMemory`].
///
/// ```
/// // While one looks for a fault in what is sent.
/// zerobuffer::memory::include_in_core_dumps(cfg!(debug_assertions));
/// # zerobuffer::memory::include_in_core_dumps(false);
/// ```
pub fn include_in_core_dumps(include: bool) {
    sys::include_in_core_dumps(include);
}

/// Something that memory can be taken from and mapped into this process.
///
/// | provider | `allocate` | use it for |
/// |---|---|---|
/// | [`SharedMemory`] | reserves a named segment | talking to another process |
/// | [`SharedMemoryView`] | is refused | a window of memory that somebody else allocated |
/// | [`HeapMemory`] | takes heap memory | tests, and channels inside one process |
///
/// ```
/// use zerobuffer::memory::{HeapMemory, MemoryProvider};
///
/// let mut memory = HeapMemory::new();
/// memory.allocate(4096)?;
/// let mut window = memory.map(1024, 512)?;
/// assert_eq!(window.len(), 512);
/// assert!(window.allocate(1).is_err(), "a view refuses to allocate");
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub trait MemoryProvider: Send + Sync + std::fmt::Debug {
    /// Reserves `size` bytes, all zero.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::Error::NoSpace) if there are not that many;
    /// [`Error::InvalidState`](crate::Error::InvalidState) if memory was allocated before;
    /// [`Error::Unsupported`](crate::Error::Unsupported) from a view, which maps what exists.
    fn allocate(&mut self, size: usize) -> Result<()>;

    /// A view of `size` bytes from `offset`. It keeps the memory alive and mapped for as long as it
    /// lives itself, whatever becomes of the provider.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) if the range is not inside of the memory;
    /// [`Error::InvalidState`](crate::Error::InvalidState) before `allocate` or after `unmap`.
    fn map(&self, offset: usize, size: usize) -> Result<SharedMemoryView>;

    /// Releases the memory; views that were handed out stay valid.
    fn unmap(&mut self);
}
