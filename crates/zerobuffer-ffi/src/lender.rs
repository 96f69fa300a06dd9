//! What one thread at a time uses of a handle, and the guard of it that is in the caller's hands.

use std::cell::{Cell, UnsafeCell};
use std::ptr::with_exposed_provenance;
use std::rc::Rc;

/// A value, and at most one guard that borrows it. The caller has the guard's bytes and an address; the guard
/// itself stays here, so that closing the handle can end it.
///
/// The rule **Threads** holds for all of it: what counts without locks and moves to another thread does so
/// between two calls.
pub(crate) struct Lender<T, G> {
    /// Borrows `value`: dropped before it.
    guard: UnsafeCell<Option<G>>,
    /// Keeps this alive after the handle was closed, as long as the caller has the guard's address.
    itself: Cell<Option<Rc<Self>>>,
    /// Counts guards.
    serial: Cell<u64>,
    value: UnsafeCell<T>,
}

impl<T, G> Lender<T, G> {
    pub(crate) fn new(value: T) -> Rc<Self> {
        Rc::new(Self {
            guard: UnsafeCell::new(None),
            itself: Cell::new(None),
            serial: Cell::new(0),
            value: UnsafeCell::new(value),
        })
    }

    /// What a guard in the caller's memory says of where it belongs.
    pub(crate) fn address(self: &Rc<Self>) -> u64 {
        Rc::as_ptr(self).expose_provenance() as u64
    }

    /// # Safety
    /// `address` is of a lender of this type, whose guard the caller has (the rule **Guards**). It is not used
    /// any more when what [`take`](Self::take) returned is dropped.
    #[inline(always)]
    pub(crate) unsafe fn at<'l>(address: u64) -> &'l Self {
        // SAFETY: made by `Rc::as_ptr` (`address`); it lives, since it has kept itself when it lent the guard.
        unsafe { &*with_exposed_provenance::<Self>(address as usize) }
    }

    /// The value, for what borrows it and is kept with an `Rc` of this.
    ///
    /// # Safety
    /// What borrows the value is given to [`lend`](Self::lend), or kept together with an `Rc` of this and dropped
    /// before that. Nothing has it exclusively: no guard made of [`free`](Self::free).
    #[inline(always)]
    pub(crate) unsafe fn borrow(&self) -> &'static T {
        // SAFETY: it lives as long as what borrows it (the caller's), and is not exclusively borrowed.
        unsafe { &*self.value.get() }
    }

    /// The value alone, if the guard does not borrow it.
    ///
    /// # Safety
    /// As for [`borrow`](Self::borrow), and nothing but the guard borrows the value.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn free(&self) -> Option<&'static mut T> {
        // SAFETY: it lives as long as what borrows it (the caller's); nothing else borrows it, and no other
        // call is inside (the rule **Threads**).
        (!self.is_lent()).then(|| unsafe { &mut *self.value.get() })
    }

    /// Each function below makes one such reference and lets go of it, and runs no code meanwhile that could
    /// come back here.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn guard(&self) -> &mut Option<G> {
        // SAFETY: the only reference to it (as said above), on one thread (the rule **Threads**).
        unsafe { &mut *self.guard.get() }
    }

    /// Keeps a guard for the caller, who gets the address of this. Returns the guard's number.
    #[inline(always)]
    pub(crate) fn lend(self: &Rc<Self>, guard: G) -> u64 {
        *self.guard() = Some(guard);
        self.itself.set(Some(Rc::clone(self)));
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// The number of the latest guard.
    #[inline(always)]
    pub(crate) fn serial(&self) -> u64 {
        self.serial.get()
    }

    /// Whether a guard is lent and was not ended.
    #[inline(always)]
    pub(crate) fn is_lent(&self) -> bool {
        self.guard().is_some()
    }

    /// Uses the guard, unless it was ended.
    #[inline(always)]
    pub(crate) fn with_guard<R>(&self, use_it: impl FnOnce(&mut G) -> R) -> Option<R> {
        self.guard().as_mut().map(use_it)
    }

    /// The guard, whose address the caller does not have any more; none if it was ended before. And what keeps
    /// this alive until that is dropped.
    #[inline(always)]
    pub(crate) fn take(&self) -> (Option<G>, Option<Rc<Self>>) {
        (self.guard().take(), self.itself.take())
    }

    /// Ends the guard while its address is in the caller's hands.
    pub(crate) fn end(&self) -> Option<G> {
        self.guard().take()
    }
}
