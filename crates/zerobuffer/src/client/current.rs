//! What many threads reach all the time and one of them replaces now and then: a client's connection.
//!
//! A thread holds the pin for as long as it uses the connection without a reference of its own: to send a
//! short request, to take a response that is there, to clone the reference. That costs one locked
//! instruction. A thread that finds the pin held goes another way, or waits for some nanoseconds.
#![allow(unsafe_code)]

use crate::atomics::{AtomicBool, Ordering, spin_hint};
#[cfg(loom)]
use loom::{cell::UnsafeCell, sync::Arc};
#[cfg(not(loom))]
use std::sync::Arc;

/// Turns of a wait for the pin before the thread yields the CPU, and before it sleeps: the thread that holds
/// the pin may need this very CPU, and may have the lower priority.
const SPINS: u32 = 100;
const YIELDS: u32 = 20;

/// Held by one thread at a time, for a few instructions.
#[derive(Debug, Default)]
pub(super) struct Pin {
    held: AtomicBool,
}

/// While it lives, its thread holds the pin.
#[derive(Debug)]
pub(super) struct Pinned<'p>(&'p Pin);

impl Pin {
    #[inline(always)]
    pub(super) fn try_hold(&self) -> Option<Pinned<'_>> {
        // Acquire: pairs with the Release in `drop`: what was done under the pin is seen.
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let held = self.held.compare_exchange(false, true, acquire, relaxed);
        // Not `then_some`: a `Pinned` that is made and dropped would release what another thread holds.
        held.is_ok().then(|| Pinned(self))
    }

    #[cold]
    pub(super) fn hold(&self) -> Pinned<'_> {
        let mut turn = 0;
        loop {
            if let Some(pinned) = self.try_hold() {
                return pinned;
            }
            pause(turn);
            turn += 1;
        }
    }

    /// Waits until the thread that holds the pin, if there is one, has released it.
    pub(super) fn pass(&self) {
        drop(self.hold());
    }
}

impl Drop for Pinned<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `try_hold`.
        self.0.held.store(false, Ordering::Release);
    }
}

fn pause(turn: u32) {
    if turn < SPINS || cfg!(loom) {
        return spin_hint();
    }
    #[cfg(not(loom))]
    if turn < SPINS + YIELDS {
        std::thread::yield_now();
    } else {
        crate::sys::sleep(std::time::Duration::from_micros(50));
    }
}

/// A reference that is replaced under the pin.
#[derive(Debug)]
pub(super) struct Current<T> {
    pin: Arc<Pin>,
    slot: Slot<Arc<T>>,
}

#[cfg(loom)]
type Slot<T> = UnsafeCell<T>;

/// The part of loom's cell that is used here.
#[cfg(not(loom))]
#[derive(Debug)]
struct Slot<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> Slot<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    fn with<R>(&self, run: impl FnOnce(*const T) -> R) -> R {
        run(self.0.get())
    }

    #[inline(always)]
    fn with_mut<R>(&self, run: impl FnOnce(*mut T) -> R) -> R {
        run(self.0.get())
    }
}

// SAFETY: the slot is only touched by the thread that holds the pin, so one at a time, each seeing what the one
// before has done; the reference itself may be used on, and dropped by, any thread.
unsafe impl<T: Send + Sync> Sync for Current<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Current<T> {}

impl<T> Current<T> {
    pub(super) fn new(pin: &Arc<Pin>, value: Arc<T>) -> Self {
        Self { pin: Arc::clone(pin), slot: Slot::new(value) }
    }

    /// What `run` makes of the reference; `None` also if another thread holds the pin. `run` must be short,
    /// and must not ask for the pin.
    #[inline(always)]
    pub(super) fn try_with<R>(&self, run: impl FnOnce(&Arc<T>) -> Option<R>) -> Option<R> {
        let _pinned = self.pin.try_hold()?;
        // SAFETY: this thread holds the pin, so no other one changes the slot while the borrow lives.
        self.slot.with(|slot| run(unsafe { &*slot }))
    }

    pub(super) fn get(&self) -> Arc<T> {
        let _pinned = self.pin.try_hold().unwrap_or_else(|| self.pin.hold());
        // SAFETY: as in `try_with`.
        self.slot.with(|slot| Arc::clone(unsafe { &*slot }))
    }

    /// Replaces the reference by what `run` returns, if it returns one; `run` as for
    /// [`Current::try_with`].
    pub(super) fn replace(&self, run: impl FnOnce() -> Arc<T>) {
        let _pinned = self.pin.hold();
        let next = run();
        // SAFETY: as in `try_with`; there is no other borrow, as that would need the pin.
        let previous = self.slot.with_mut(|slot| unsafe { std::mem::replace(&mut *slot, next) });
        drop(_pinned);
        drop(previous);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomics::AtomicU64;
    use loom::thread;

    /// What is freed when the last reference is dropped: loom watches it.
    struct Connection {
        number: u64,
        sealed: AtomicBool,
        published: AtomicU64,
    }

    fn connection(number: u64) -> Arc<Connection> {
        let (sealed, published) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Connection { number, sealed, published })
    }

    /// A request is published on the connection only before it is listed, or on the next one.
    fn publish_beside_a_replacement(pinned: bool) {
        loom::model(move || {
            let pin = Arc::new(Pin::default());
            let first = connection(1);
            let current = Arc::new(Current::new(&pin, Arc::clone(&first)));
            let sender = {
                let current = Arc::clone(&current);
                thread::spawn(move || {
                    let publish = |connection: &Arc<Connection>| {
                        let open = !connection.sealed.load(Ordering::Relaxed);
                        if open {
                            connection.published.store(1, Ordering::Relaxed);
                        }
                        open.then_some(connection.number)
                    };
                    if pinned { current.try_with(publish) } else { publish(&current.get()) }
                })
            };
            let mut listed = 0;
            current.replace(|| {
                first.sealed.store(true, Ordering::Relaxed);
                listed = first.published.load(Ordering::Relaxed);
                connection(2)
            });
            let sent = sender.join().unwrap();
            assert!(sent != Some(1) || listed == 1, "neither listed nor refused");
            assert_eq!(current.get().number, 2);
        });
    }

    #[test]
    fn what_is_sent_under_the_pin_is_listed_or_refused() {
        publish_beside_a_replacement(true);
    }

    #[test]
    #[should_panic(expected = "neither listed nor refused")]
    fn control_without_the_pin_a_request_is_forgotten() {
        publish_beside_a_replacement(false);
    }

    /// A thread that has got its turn in line, and one that sends under the pin because nobody is in line:
    /// never both at a time.
    fn turn_beside_a_pin(passes: bool) {
        loom::model(move || {
            let pin = Arc::new(Pin::default());
            let in_line = Arc::new(AtomicU64::new(0));
            let ring = Arc::new(UnsafeCell::new(0));
            let other = {
                let (pin, in_line, ring) = (pin.clone(), in_line.clone(), ring.clone());
                thread::spawn(move || {
                    if let Some(_pinned) = pin.try_hold()
                        && in_line.load(Ordering::Acquire) == 0
                    {
                        // SAFETY: this is what the model proves: loom fails if both touch it.
                        ring.with_mut(|ring| unsafe { *ring += 1 });
                    }
                })
            };
            in_line.store(1, Ordering::Release);
            if passes {
                pin.pass();
            }
            // SAFETY: as above.
            ring.with_mut(|ring| unsafe { *ring += 1 });
            in_line.store(0, Ordering::Release);
            other.join().unwrap();
        });
    }

    #[test]
    fn a_turn_and_the_pin_exclude_each_other() {
        turn_beside_a_pin(true);
    }

    #[test]
    #[should_panic]
    fn control_a_turn_that_does_not_pass_the_pin_is_shared() {
        turn_beside_a_pin(false);
    }
}
