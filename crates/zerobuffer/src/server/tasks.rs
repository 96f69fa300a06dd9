//! Async handlers: each request is a task of the caller's executor.

use super::acceptor::Shared;
use super::channel::ServerChannel;
use super::guards::{Frame, OwnedRequest, status};
use crate::atomics::{Ordering, fence};
use crate::handler::catch;
use crate::tenure::Away;
use crate::v2::ring::Taken;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// A task, as executors take it.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the thread that takes requests does with each: makes a task of it, and waits until there is
/// room for the next one.
pub(super) fn spawner<S, R, H, F>(
    shared: Arc<Shared>,
    max_concurrent: usize,
    mut spawn: S,
    mut handler: H,
) -> impl FnMut(&Arc<ServerChannel>, Taken, &Away) + Send + 'static
where
    S: FnMut(Task) -> R + Send + 'static,
    H: FnMut(OwnedRequest) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    move |channel, taken, away| {
        let request = OwnedRequest::new(channel, taken);
        let place = Place::take(&shared.places);
        // An executor that panics has dropped the task, and with it the request.
        guarded(|| drop(spawn(Box::pin(task(handler(request), place)))));
        away.come_back();
        fence(Ordering::SeqCst);
        shared.places.wait_for_one(max_concurrent, || shared.is_stopping());
    }
}

/// Polls `future` to its end, which a panic is, too.
async fn task(future: impl Future<Output = ()>, place: Place) {
    let _place = place;
    let mut future = pin!(future);
    poll_fn(|context| guarded(|| future.as_mut().poll(context)).unwrap_or(Poll::Ready(()))).await;
}

thread_local! {
    /// While this thread runs a piece of a handler: the requests that a panic there has dropped.
    static DROPPED: RefCell<Option<Vec<Frame<'static>>>> = const { RefCell::new(None) };
}

/// Takes a frame that is being dropped unanswered, to be answered with the message of the panic that is
/// under way, if that is one of a task.
pub(super) fn keep_for_panic(frame: Frame<'static>) -> Option<Frame<'static>> {
    let mut frame = Some(frame);
    if std::thread::panicking() {
        // Fails only where the thread is at its end, which no task is.
        let _ = DROPPED.try_with(|dropped| {
            if let Some(dropped) = &mut *dropped.borrow_mut() {
                dropped.extend(frame.take());
            }
        });
    }
    frame
}

/// Runs a piece of a handler; `None` if it panics. The requests that it drops thereby fail at their
/// client with the panic's message.
fn guarded<T>(piece: impl FnOnce() -> T) -> Option<T> {
    let outer = DROPPED.replace(Some(Vec::new()));
    let outcome = catch(piece);
    let dropped = DROPPED.replace(outer).unwrap_or_default();
    // A panic that the handler has caught itself has taken its message with it.
    let message = outcome.as_ref().err().map_or("the handler panicked", String::as_str);
    for mut frame in dropped {
        frame.publish_failure(status::HANDLER_PANIC, message);
    }
    outcome.ok()
}

/// Counts the tasks that run.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<usize>,
    changed: Condvar,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `max` are taken, or `is_over`.
    fn wait_for_one(&self, max: usize, is_over: impl Fn() -> bool) {
        let is_full = |taken: &mut usize| *taken >= max && !is_over();
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
