//! Frames in their reader's hands.

use super::core::Core;
use crate::debug::debug_line;
use crate::memory::SharedMemoryView;
use crate::v1::ring::Taken;
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// A frame, read where the writer put it. Dropping it releases its space.
pub struct FrameView<'r> {
    core: &'r Arc<Core>,
    taken: Taken,
}

debug_line!(FrameView<'_>, "FrameView", |frame| sequence: frame.sequence(), len: frame.len());

impl<'r> FrameView<'r> {
    #[inline]
    pub(super) fn new(core: &'r Arc<Core>, taken: Taken) -> Self {
        Self { core, taken }
    }

    /// The same frame, free of the reader's borrow: it may outlive the reader. Nothing is copied.
    pub fn into_owned(self) -> OwnedFrameView {
        let this = ManuallyDrop::new(self);
        OwnedFrameView { core: Arc::clone(this.core), taken: this.taken.transfer() }
    }
}

impl Drop for FrameView<'_> {
    #[inline]
    fn drop(&mut self) {
        self.core.release(&self.taken);
    }
}

/// As [`FrameView`], but it may outlive the reader that read it.
pub struct OwnedFrameView {
    core: Arc<Core>,
    taken: Taken,
}

debug_line!(OwnedFrameView, "OwnedFrameView", |frame| sequence: frame.sequence(), len: frame.len());

impl OwnedFrameView {
    /// The same frame under the number of the request that it responds to.
    pub(in crate::v1) fn renumbered(mut self, number: u64) -> Self {
        self.taken.sequence = number;
        self
    }
}

impl Drop for OwnedFrameView {
    fn drop(&mut self) {
        self.core.release(&self.taken);
    }
}

macro_rules! frame_methods {
    ($type:ty) => {
        impl $type {
            /// The frame's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data(&self) -> &[u8] {
                self.core.data(&self.taken)
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// frame was released: for code that hands out their address, like a binding for another
            /// language. They are the holder's alone only while the frame lives. Empty in a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                self.core.memory(&self.taken)
            }

            /// The frame's length in bytes. C# writers can send frames of no bytes.
            pub fn len(&self) -> usize {
                self.taken.len as usize
            }

            /// Whether the frame has no bytes.
            pub fn is_empty(&self) -> bool {
                self.taken.len == 0
            }

            /// The frame's sequence number, as its writer counts: from 1.
            pub fn sequence(&self) -> u64 {
                self.taken.sequence
            }

            /// Whether this is a writer's first frame. Existing v1 programs start again at 1 when they
            /// attach to a used buffer; writers of this library continue.
            pub fn is_first(&self) -> bool {
                self.taken.first
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                self.data()
            }
        }
    };
}

frame_methods!(FrameView<'_>);
frame_methods!(OwnedFrameView);
