//! The one thing that a server keeps under its name, replaces from time to time, and ends once.
//!
//! A segment takes time to make, and its owner may end the server meanwhile, from another thread. The
//! end must stay: nothing that was under way may come to stand under the name afterwards. So a
//! replacement, from the removal of the old thing to the moment when the new one is known here, is one
//! step that the end waits for; and it notices, from inside of long work, that nobody wants it any more.
//!
//! Nor may anything be taken out of it once its end has been told to others. Threads that take do so
//! without a lock, so each says when it is [`Away`], in a handler, and the end waits for all that are not:
//!
//! ```text
//! a thread that takes                      the end
//! 1 come back (store)                      3 announce it (store)
//!   fence(SeqCst)                            fence(SeqCst)
//! 2 check that it goes on                  4 see whether the thread is away
//! ```
//!
//! One of the two fences comes first. If it is the thread's, 4 sees that it is back, and waits until it has
//! ended, or is away with what it has taken. If it is the end's, 2 sees the end, and takes nothing.

use crate::atomics::{AtomicBool, Ordering, fence};
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
    /// Why there can be no next thing.
    failure: Mutex<Option<Error>>,
}

impl<T: Clone> Tenure<T> {
    pub(crate) fn new(first: T) -> Self {
        Self {
            over: AtomicBool::new(false),
            replacing: Mutex::new(()),
            current: Mutex::new(Some(first)),
            failure: Mutex::new(None),
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
        // Between this store and the load in `Away::is_away`: see the top of this file.
        fence(Ordering::SeqCst);
    }

    /// There can be no next thing: the end, with its reason.
    pub(crate) fn fail(&self, error: Error) {
        *lock(&self.failure) = Some(error);
        self.announce_end();
    }

    /// The reason, for the first who asks.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
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

/// Whether a thread is away from the thing: in a handler, which may take any time. In a line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Away(AtomicBool);

impl Away {
    /// A thread that has not come yet.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The thread has taken something, and goes away with it.
    #[inline(always)]
    pub(crate) fn go(&self) {
        // Release: pairs with the Acquire in `is_away`: that it was taken is seen.
        self.0.store(true, Ordering::Release);
    }

    /// The thread comes back. A SeqCst fence must follow before it checks [`Tenure::is_over`], which it must
    /// do before it takes something: that of WAKE, after its response, will do.
    #[inline(always)]
    pub(crate) fn come_back(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// After [`Tenure::announce_end`]: if this is true, the thread takes nothing any more.
    pub(crate) fn is_away(&self) -> bool {
        // Acquire: pairs with the Release in `go`.
        self.0.load(Ordering::Acquire)
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

    /// One thread takes, in a loop as workers have it; the end is told how much was taken. Nothing may be
    /// taken after that.
    fn take_against(
        fence_of_worker: bool,
        end: impl Fn(&Tenure<()>) + Sync + Send + Copy + 'static,
    ) {
        loom::model(move || {
            let tenure = Arc::new(Tenure::new(()));
            let (away, taken) = (Arc::new(Away::new()), Arc::new(AtomicU64::new(0)));
            let finished = Arc::new(AtomicBool::new(false));
            let worker = {
                let (tenure, away) = (Arc::clone(&tenure), Arc::clone(&away));
                let (taken, finished) = (Arc::clone(&taken), Arc::clone(&finished));
                thread::spawn(move || {
                    for request in 1..=2 {
                        if tenure.is_over() {
                            break;
                        }
                        taken.store(request, Ordering::Relaxed);
                        away.go();
                        away.come_back();
                        if fence_of_worker {
                            fence(Ordering::SeqCst);
                        }
                    }
                    finished.store(true, Ordering::Release);
                })
            };
            end(&tenure);
            while !finished.load(Ordering::Acquire) && !away.is_away() {
                thread::yield_now();
            }
            let told = taken.load(Ordering::Relaxed);
            worker.join().unwrap();
            assert_eq!(taken.load(Ordering::Relaxed), told, "taken after the end");
        });
    }

    #[test]
    fn nothing_is_taken_after_its_end_was_told() {
        take_against(true, Tenure::announce_end);
    }

    /// The controls: without either fence.
    #[test]
    #[should_panic(expected = "taken after the end")]
    fn a_thread_that_comes_back_without_a_fence_takes_after_the_end() {
        take_against(false, Tenure::announce_end);
    }

    #[test]
    #[should_panic(expected = "taken after the end")]
    fn an_end_without_a_fence_is_missed() {
        take_against(true, |tenure| tenure.over.store(true, Ordering::Release));
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
