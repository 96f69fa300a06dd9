//! Fence 2: the only place where bytes of a segment become typed atomics.
//!
//! Control words and frame headers are read and written through these atomics only, never through
//! references to plain integers, because the peer may write them at any time.
#![allow(unsafe_code)]

use crate::atomics::AtomicU64;

#[cfg(not(loom))]
pub(crate) use mapped::{Block, Lines, Words};
#[cfg(loom)]
pub(crate) use modelled::{Block, Lines, Words};

/// Bytes of a line.
const LINE: usize = 64;
/// Words of a header, with which a line starts.
const HEADER_WORDS: usize = 4;

#[cfg(not(loom))]
mod mapped {
    use super::{AtomicU64, HEADER_WORDS, LINE};
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

    /// The first `N` words, checked to be there when this is made and not at each access.
    #[derive(Debug)]
    pub(crate) struct Block<const N: usize>(Words);

    impl<const N: usize> Block<N> {
        /// # Panics
        /// If there are fewer.
        pub(crate) fn new(words: Words) -> Self {
            let _checked = words.array::<N>(0);
            Self(words)
        }

        #[inline]
        pub(crate) fn words(&self) -> &[AtomicU64; N] {
            // SAFETY: `new` has made the same reference by `Words::array`, and a view's start and
            // length never change.
            unsafe { &*self.0.view.as_ptr().cast() }
        }
    }

    /// Words as lines of 64 bytes, each of which may start with a header: found with one comparison.
    #[derive(Debug)]
    pub(crate) struct Lines(Words);

    impl Lines {
        /// # Panics
        /// If the last line is not a whole one: geometries have whole ones.
        pub(crate) fn new(words: Words) -> Self {
            assert!(words.view.len().is_multiple_of(LINE), "lines must be whole");
            Self(words)
        }

        /// The header of the line at byte `position`, a multiple of 64.
        ///
        /// # Panics
        /// If it is not inside; callers compute positions as for [`Words::array`].
        #[inline]
        pub(crate) fn header(&self, position: u64) -> &[AtomicU64; HEADER_WORDS] {
            debug_assert!(position.is_multiple_of(LINE as u64), "lines start at multiples of 64");
            let start = position as usize & !(LINE - 1);
            assert!(start < self.0.view.len(), "line outside of the segment");
            // SAFETY: there are whole lines only (`new`), and one starts at `start`, which lies inside
            // (asserted) and is a multiple of 64 (masked): so its header lies inside and is aligned. All else
            // as in `Words::array`.
            unsafe { &*self.0.view.as_ptr().add(start).cast() }
        }
    }
}

#[cfg(loom)]
mod modelled {
    use super::{AtomicU64, HEADER_WORDS, LINE};
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

    /// As in the shipped code, but checked at each access.
    #[derive(Debug)]
    pub(crate) struct Block<const N: usize>(Words);

    impl<const N: usize> Block<N> {
        pub(crate) fn new(words: Words) -> Self {
            Self(words)
        }

        pub(crate) fn words(&self) -> &[AtomicU64; N] {
            self.0.array(0)
        }
    }

    /// As in the shipped code.
    #[derive(Debug)]
    pub(crate) struct Lines(Words);

    impl Lines {
        pub(crate) fn new(words: Words) -> Self {
            Self(words)
        }

        pub(crate) fn header(&self, position: u64) -> &[AtomicU64; HEADER_WORDS] {
            assert!(position.is_multiple_of(LINE as u64), "lines start at multiples of 64");
            self.0.array(position as usize)
        }
    }
}
