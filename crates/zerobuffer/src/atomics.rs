//! The atomics that the protocol code is written against: the standard library's, or loom's when the
//! crate is built with `--cfg loom`, so that model checking runs the shipped algorithm itself.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Loom has no compiler fence: it never reorders what the program says.
#[cfg(loom)]
pub(crate) fn compiler_fence(_: Ordering) {}

/// A Release store to a word that the other side may be changing by compare-and-swap.
///
/// Loom orders such a store after the exchange only if it is a read-modify-write itself, while every
/// memory model has it so: the exchange is atomic, so nothing comes between what it read and what it
/// wrote.
#[inline]
pub(crate) fn store_over(word: &AtomicU64, value: u64) {
    #[cfg(not(loom))]
    word.store(value, Ordering::Release);
    #[cfg(loom)]
    word.swap(value, Ordering::Release);
}

/// Waits until the loads before are done, so that none after it is speculated: the shortest pause
/// between two reads of a word.
#[inline]
#[allow(unsafe_code)]
pub(crate) fn load_fence() {
    // SAFETY: the instruction is part of SSE2, which every x86-64 processor has.
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fence(Ordering::SeqCst);
}

/// One turn of a busy wait.
#[inline]
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
