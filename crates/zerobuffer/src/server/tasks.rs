//! Async handlers: each request is a task of the caller's executor.

use super::connection::Connection;
use super::guards::{OwnedRequest, guarded};
use crate::atomics::{Ordering, fence};
use crate::tenure::Away;
use crate::v2::ring::Taken;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// A task, as executors take it.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the thread that takes requests does with each: makes a task of it, and waits until there is
/// room for the next one.
pub(super) fn spawner<S, R, H, F>(
    places: Arc<Places>,
    is_stopping: impl Fn() -> bool + Send + 'static,
    mut spawn: S,
    mut handler: H,
) -> impl FnMut(&Arc<Connection>, Taken, &Away) + Send + 'static
where
    S: FnMut(Task) -> R + Send + 'static,
    H: FnMut(OwnedRequest) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    move |connection, taken, away| {
        let request = OwnedRequest::new(connection, taken);
        let place = Place::take(&places);
        // An executor that panics has dropped the task, and with it the request.
        guarded(|| drop(spawn(Box::pin(task(handler(request), place)))));
        away.come_back();
        fence(Ordering::SeqCst);
        places.wait_for_one(&is_stopping);
    }
}

/// Polls `future` to its end, which a panic is, too.
async fn task(future: impl Future<Output = ()>, place: Place) {
    let _place = place;
    let mut future = pin!(future);
    poll_fn(|context| guarded(|| future.as_mut().poll(context)).unwrap_or(Poll::Ready(()))).await;
}

/// Counts the tasks that run.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: Mutex<usize>,
    changed: Condvar,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Mutex::new(0), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one is free, or `is_over`.
    fn wait_for_one(&self, is_over: &impl Fn() -> bool) {
        let is_full = |taken: &mut usize| *taken >= self.max && !is_over();
        drop(self.changed.wait_while(self.lock(), is_full));
    }

    /// Has a thread that waits check again whether it is over.
    pub(super) fn notify(&self) {
        // Under the lock: it may be between its check and its sleep.
        let _taken = self.lock();
        self.changed.notify_all();
    }
}

/// One of the places, for as long as its task lives, however that ends.
struct Place(Arc<Places>);

impl Place {
    fn take(places: &Arc<Places>) -> Self {
        *places.lock() += 1;
        Self(Arc::clone(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}
