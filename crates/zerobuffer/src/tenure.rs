//! The one thing that a server keeps under its name, replaces from time to time, and ends once.
//!
//! A segment takes time to make, and its owner may end the server meanwhile, from another thread. The
//! end must stay: nothing that was under way may come to stand under the name afterwards. So a
//! replacement, from the removal of the old thing to the moment when the new one is known here, is one
//! step that the end waits for; and it notices, from inside of long work, that nobody wants it any more.

use crate::atomics::{AtomicBool, Ordering};
use crate::error::{Error, Result};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

/// Asked between two pieces of long work: whether its result is still wanted.
pub(crate) type Wanted<'w> = &'w dyn Fn() -> bool;

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Tenure<T> {
    over: AtomicBool,
    /// Held for the whole of a replacement. The order of the locks: this one first.
    replacing: Mutex<()>,
    /// `None` after the end, or while there is nothing because making it failed.
    current: Mutex<Option<T>>,
}

impl<T: Clone> Tenure<T> {
    pub(crate) fn new(first: T) -> Self {
        Self {
            over: AtomicBool::new(false),
            replacing: Mutex::new(()),
            current: Mutex::new(Some(first)),
        }
    }

    /// What there is at this moment.
    pub(crate) fn current(&self) -> Option<T> {
        lock(&self.current).clone()
    }

    /// Whether the end was announced.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `announce_end`.
        self.over.load(Ordering::Acquire)
    }

    /// The same, for who waits with an eye on it.
    #[cfg(not(loom))]
    pub(crate) fn over(&self) -> &AtomicBool {
        &self.over
    }

    /// Announces the end: no replacement begins any more, and one that is under way is not wanted.
    pub(crate) fn announce_end(&self) {
        // Release: pairs with the Acquire in `is_over`.
        self.over.store(true, Ordering::Release);
    }

    /// Replaces what there is. `make` gets the old thing, if there is one, removes it, and makes a new one
    /// for as long as that is wanted; after a failure there is nothing.
    ///
    /// # Errors
    /// `Closed` after the end; those of `make`.
    pub(crate) fn replace(
        &self,
        make: impl FnOnce(Option<T>, Wanted<'_>) -> Result<T>,
    ) -> Result<T> {
        let _replacing = lock(&self.replacing);
        if self.is_over() {
            return Err(Error::Closed);
        }
        let old = lock(&self.current).take();
        let made = make(old, &|| !self.is_over());
        // Why it was left unfinished is one thing, whatever step noticed it.
        let made = made.map_err(|error| if self.is_over() { Error::Closed } else { error })?;
        *lock(&self.current) = Some(made.clone());
        Ok(made)
    }

    /// The end: announces it, waits for a replacement that is under way, and hands out what there is, for
    /// the caller to remove. Nothing comes after it.
    pub(crate) fn end(&self) -> Option<T> {
        self.announce_end();
        let _replacing = lock(&self.replacing);
        lock(&self.current).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// The names that exist: one bit for each thing that was made and not removed.
    #[derive(Debug, Default)]
    struct Names(AtomicU64);

    impl Names {
        fn add(&self, thing: u64) -> u64 {
            self.0.fetch_or(1 << thing, Ordering::AcqRel);
            thing
        }

        fn remove(&self, thing: u64) {
            self.0.fetch_and(!(1 << thing), Ordering::AcqRel);
        }

        fn left(&self) -> u64 {
            self.0.load(Ordering::Acquire)
        }
    }

    /// One thread replaces the thing twice, another one ends the tenure. At the moment when `end` returns
    /// no name may be left, nor may one come afterwards.
    fn replace_against(end: impl Fn(&Tenure<u64>) -> Option<u64> + Sync + Send + Copy + 'static) {
        loom::model(move || {
            let names = Arc::new(Names::default());
            let tenure = Arc::new(Tenure::new(names.add(0)));
            let server = {
                let (names, tenure) = (Arc::clone(&names), Arc::clone(&tenure));
                thread::spawn(move || {
                    for thing in 1..=2 {
                        let _ = tenure.replace(|old, wanted| {
                            old.into_iter().for_each(|old| names.remove(old));
                            if wanted() { Ok(names.add(thing)) } else { Err(Error::Closed) }
                        });
                    }
                })
            };
            end(&tenure).into_iter().for_each(|last| names.remove(last));
            assert_eq!(names.left(), 0, "after the end");
            server.join().unwrap();
            assert_eq!(names.left(), 0, "for good");
        });
    }

    #[test]
    fn nothing_stands_under_the_name_after_the_end() {
        replace_against(Tenure::end);
    }

    /// The control: an end that does not wait for what is under way.
    #[test]
    #[should_panic(expected = "after the end")]
    fn an_end_that_does_not_wait_is_undone() {
        replace_against(|tenure| {
            tenure.announce_end();
            lock(&tenure.current).take()
        });
    }
}
