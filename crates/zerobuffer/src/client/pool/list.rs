//! What is known of a pool's calls that no thread waits for.

use crate::client::OwnedResponse;
use crate::client::calls::CallHandle;
use crate::client::completions::{Request, contain};
use crate::error::{Error, ErrorKind, Result};
use crate::wait::Deadline;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) type OnOutcome = Box<dyn FnOnce(Result<OwnedResponse>) + Send>;

/// The calls under way, by their numbers. The thread that takes a call out of the list ends it.
#[derive(Default)]
pub(super) struct Calls(Mutex<List>);

#[derive(Default)]
pub(super) struct List {
    next_id: u64,
    pub(super) calls: HashMap<u64, Call>,
    /// What waits for a connection.
    pub(super) queue: VecDeque<(u64, Request)>,
}

pub(super) struct Call {
    pub(super) on_done: OnOutcome,
    timeout: Duration,
    due: u64,
    /// Why it is sent again.
    first_error: Option<Error>,
    /// On how many connections it was tried, and how that is cancelled on the latest.
    attempts: u64,
    pub(super) attempt: Option<CallHandle>,
}

impl Call {
    /// Ends with what went wrong first, unless a server that lives has no room.
    pub(super) fn fail(self, error: Error) {
        let is_said_of_next = matches!(error.kind(), ErrorKind::Full | ErrorKind::TooLarge);
        let error = match self.first_error {
            Some(first) if !is_said_of_next => first.unless_closed(error),
            _ => error,
        };
        contain(|| (self.on_done)(Err(error)));
    }
}

impl Calls {
    pub(super) fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, on_done: OnOutcome, deadline: &Deadline) -> u64 {
        let (timeout, due) = (deadline.timeout(), deadline.due_ns());
        let mut list = self.list();
        let id = list.next_id;
        list.next_id += 1;
        let call = Call { on_done, timeout, due, first_error: None, attempts: 0, attempt: None };
        list.calls.insert(id, call);
        id
    }

    pub(super) fn take(&self, id: u64) -> Option<Call> {
        self.list().calls.remove(&id)
    }

    /// The number of the next attempt at a call, and when it is due; `None` if the call has ended.
    pub(super) fn begin(&self, id: u64) -> Option<(u64, Deadline)> {
        let mut list = self.list();
        let call = list.calls.get_mut(&id)?;
        call.attempts += 1;
        Some((call.attempts, Deadline::at(call.due, call.timeout)))
    }

    /// The attempt is under way. It is cancelled if the call has ended.
    pub(super) fn began(&self, id: u64, attempt: u64, handle: CallHandle) {
        let mut list = self.list();
        match list.calls.get_mut(&id) {
            Some(call) if call.attempts == attempt => call.attempt = Some(handle),
            Some(_) => {}
            None => {
                drop(list);
                handle.cancel();
            }
        }
    }

    pub(super) fn note_error(&self, id: u64, error: Error) {
        if let Some(call) = self.list().calls.get_mut(&id) {
            call.first_error.get_or_insert(error);
        }
    }

    pub(super) fn is_none_queued(&self) -> bool {
        self.list().queue.is_empty()
    }

    /// When the first of what is queued is due; far away if nothing is.
    pub(super) fn soonest(&self) -> u64 {
        let list = self.list();
        let dues = list.queue.iter().filter_map(|(id, _)| list.calls.get(id).map(|call| call.due));
        dues.min().unwrap_or(u64::MAX)
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::at(self.soonest(), Duration::MAX)
    }

    /// Takes out what is queued and due by then, with its requests.
    pub(super) fn take_queued(&self, due: u64) -> Vec<(Option<Call>, Request)> {
        let mut list = self.list();
        let List { calls, queue, .. } = &mut *list;
        let is_due = |call: &Call| call.due <= due;
        let (late, waiting): (VecDeque<_>, _) =
            queue.drain(..).partition(|(id, _)| calls.get(id).is_none_or(is_due));
        *queue = waiting;
        late.into_iter().map(|(id, request)| (calls.remove(&id), request)).collect()
    }

    pub(super) fn fail_queued(&self, error: &Error) {
        fail_all(self.take_queued(u64::MAX), error);
    }
}

pub(super) fn fail_all(calls: Vec<(Option<Call>, Request)>, error: &Error) {
    for (call, request) in calls {
        contain(|| drop(request));
        call.into_iter().for_each(|call| call.fail(error.clone()));
    }
}
