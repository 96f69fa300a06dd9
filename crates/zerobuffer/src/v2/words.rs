//! Fence 2: the only place where bytes of a segment become typed atomics.
//!
//! Control words and frame headers are read and written through these atomics only, never through
//! references to plain integers, because the peer may write them at any time.
#![allow(unsafe_code)]

use crate::atomics::AtomicU64;

#[cfg(not(loom))]
pub(crate) use mapped::Words;
#[cfg(loom)]
pub(crate) use modelled::Words;

#[cfg(not(loom))]
mod mapped {
    use super::AtomicU64;
    use crate::atomics::AtomicU32;
    use crate::memory::SharedMemoryView;

    /// A part of a segment as a sequence of aligned 64-bit words.
    #[derive(Debug, Clone)]
    pub(crate) struct Words {
        view: SharedMemoryView,
    }

    impl Words {
        /// # Panics
        /// If the view does not start at a multiple of 8: geometries never ask for one.
        pub(crate) fn new(view: SharedMemoryView) -> Self {
            assert!(view.as_ptr().addr().is_multiple_of(8), "words must be aligned");
            Self { view }
        }

        /// The word at byte `offset`.
        ///
        /// # Panics
        /// As [`Words::array`].
        #[inline]
        pub(crate) fn at(&self, offset: usize) -> &AtomicU64 {
            let [word] = self.array(offset);
            word
        }

        /// `N` words from byte `offset` on, checked once.
        ///
        /// # Panics
        /// If they are not aligned or not inside; callers compute offsets from checked geometry
        /// and from their own records, never from what the peer wrote.
        #[inline]
        pub(crate) fn array<const N: usize>(&self, offset: usize) -> &[AtomicU64; N] {
            let inside = self.view.len().checked_sub(8 * N).is_some_and(|last| offset <= last);
            assert!(inside && offset.is_multiple_of(8), "word outside of the segment");
            // SAFETY: the words at `offset` lie inside of the view (asserted), which stays
            // mapped for as long as `self` lives; base and offset are multiples of 8, so they are
            // aligned; and in this process the bytes of words are only accessed through atomics:
            // slices (`v2::frame`) cover the data of a slot and the metadata, never a header or OIEB.
            unsafe { &*self.view.as_ptr().add(offset).cast() }
        }

        /// The half word at byte `offset`, in a part of the segment that holds only such.
        ///
        /// # Panics
        /// If it is not aligned or not inside, as [`Words::array`].
        #[inline]
        pub(crate) fn half(&self, offset: usize) -> &AtomicU32 {
            let inside = self.view.len().checked_sub(4).is_some_and(|last| offset <= last);
            assert!(inside && offset.is_multiple_of(4), "half word outside of the segment");
            // SAFETY: as in `array`; the doorbell page is accessed through this function alone, so no
            // byte is part of atomics of two sizes.
            unsafe { &*self.view.as_ptr().add(offset).cast() }
        }
    }
}

#[cfg(loom)]
mod modelled {
    use super::AtomicU64;
    use std::sync::Arc;

    /// Loom's atomics cannot lie in raw memory, so a model brings its own words.
    #[derive(Debug, Clone)]
    pub(crate) struct Words {
        words: Arc<Vec<AtomicU64>>,
    }

    impl Words {
        pub(crate) fn zeroed(bytes: usize) -> Self {
            Self { words: Arc::new((0..bytes / 8).map(|_| AtomicU64::new(0)).collect()) }
        }

        pub(crate) fn at(&self, offset: usize) -> &AtomicU64 {
            let [word] = self.array(offset);
            word
        }

        pub(crate) fn array<const N: usize>(&self, offset: usize) -> &[AtomicU64; N] {
            assert!(offset.is_multiple_of(8), "words must be aligned");
            self.words[offset / 8..][..N].try_into().expect("N words")
        }
    }
}
