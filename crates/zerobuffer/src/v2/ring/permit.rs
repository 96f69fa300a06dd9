//! Who may touch what only the sender has: the write position, the account of free bytes, the marker.

use crate::atomics::{AtomicBool, Ordering};
use std::marker::PhantomData;

/// The right to claim, to commit, and to take bytes back. There is one for each ring, so its
/// holder is the sender: a [`Claim`](super::Claim) has it until it is committed or abandoned, on whatever
/// thread that is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SendPermit(());

impl SendPermit {
    #[inline(always)]
    pub(super) fn reclaim(&self) -> ReclaimRight<'_> {
        ReclaimRight(PhantomData)
    }
}

/// The right to take bytes back: with the permit; or, while one is open, on the only thread there is.
pub(super) struct ReclaimRight<'r>(PhantomData<&'r ()>);

impl ReclaimRight<'_> {
    /// For the only thread of a ring: what it does between a claim and the commit comes to nobody in
    /// the way. It leaves the write position alone, so the claim stays what it is.
    #[inline(always)]
    pub(super) fn of_only_thread(concurrent: bool) -> Option<Self> {
        (!concurrent).then_some(Self(PhantomData))
    }
}

/// Where the permit lies while nobody has it.
#[derive(Debug, Default)]
pub(super) struct PermitHome {
    lent: AtomicBool,
}

impl PermitHome {
    /// The permit, unless a claim has it. One thread at a time may ask: the only one of a client, or the one of
    /// a shared client whose turn it is. Any thread may put it back meanwhile.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<SendPermit> {
        // Acquire: pairs with the Release in `put`: what was done with the permit is seen.
        if self.lent.load(Ordering::Acquire) {
            return None;
        }
        self.lent.store(true, Ordering::Relaxed);
        Some(SendPermit(()))
    }

    #[inline(always)]
    pub(super) fn put(&self, permit: SendPermit) {
        let SendPermit(()) = permit;
        // Release: pairs with the Acquire in `take`.
        self.lent.store(false, Ordering::Release);
    }

    /// Whether somebody has it at this moment.
    #[inline(always)]
    pub(super) fn is_lent(&self) -> bool {
        self.lent.load(Ordering::Relaxed)
    }
}
