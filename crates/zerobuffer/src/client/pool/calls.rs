//! A pool's calls that no thread waits for.

use super::members::{Place, Shared, State};
use crate::client::calls::{CallHandle, Cancel, Payload};
use crate::client::completions::{Attempted, OnDone, Request, contain};
use crate::client::resend::is_not_started;
use crate::client::{OwnedResponse, RequestLayout};
use crate::error::{Error, Result};
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::Deadline;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) type OnOutcome = Box<dyn FnOnce(Result<OwnedResponse>) + Send>;

/// The calls under way, by their numbers. The thread that takes a call out of the list ends it.
#[derive(Default)]
pub(super) struct Calls(Mutex<List>);

#[derive(Default)]
struct List {
    next_id: u64,
    calls: HashMap<u64, Call>,
    /// What waits for a connection.
    queue: VecDeque<(u64, Request)>,
}

struct Call {
    on_done: OnOutcome,
    timeout: Duration,
    due: u64,
    /// Why it is sent again.
    first_error: Option<Error>,
    /// On how many connections it was tried, and how that is cancelled on the latest.
    attempts: u64,
    attempt: Option<CallHandle>,
}

impl Call {
    /// Ends with what went wrong first, unless a server that lives has no room.
    fn fail(self, error: Error) {
        let is_said_of_next = matches!(error, Error::Full { .. } | Error::TooLarge { .. });
        let error = match self.first_error {
            Some(first) if !is_said_of_next => first.unless_closed(error),
            _ => error,
        };
        contain(|| (self.on_done)(Err(error)));
    }
}

impl Calls {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, on_done: OnOutcome, deadline: &Deadline) -> u64 {
        let (timeout, due) = (deadline.timeout(), deadline.due_ns());
        let mut list = self.list();
        let id = list.next_id;
        list.next_id += 1;
        let call = Call { on_done, timeout, due, first_error: None, attempts: 0, attempt: None };
        list.calls.insert(id, call);
        id
    }

    fn take(&self, id: u64) -> Option<Call> {
        self.list().calls.remove(&id)
    }

    /// The number of the next attempt at a call, and when it is due; `None` if the call has ended.
    fn begin(&self, id: u64) -> Option<(u64, Deadline)> {
        let mut list = self.list();
        let call = list.calls.get_mut(&id)?;
        call.attempts += 1;
        Some((call.attempts, Deadline::at(call.due, call.timeout)))
    }

    /// The attempt is under way. It is cancelled if the call has ended.
    fn began(&self, id: u64, attempt: u64, handle: CallHandle) {
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

    fn note_error(&self, id: u64, error: Error) {
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
    fn take_queued(&self, due: u64) -> Vec<(Option<Call>, Request)> {
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

fn fail_all(calls: Vec<(Option<Call>, Request)>, error: &Error) {
    for (call, request) in calls {
        contain(|| drop(request));
        call.into_iter().for_each(|call| call.fail(error.clone()));
    }
}

impl Shared {
    pub(super) fn start(
        self: &Arc<Self>,
        size: usize,
        layout: RequestLayout,
        mut payload: Payload<'_>,
        timeout: Duration,
        on_done: OnOutcome,
    ) -> Result<CallHandle> {
        if !self.is_this_process() {
            return Err(Error::WrongProcess);
        }
        let demand = layout.demand(size)?;
        let id = self.calls.add(on_done, &Deadline::after(timeout));
        match catch_unwind(AssertUnwindSafe(|| self.send(id, size, demand, &mut payload))) {
            Err(panic) => {
                // The code that fills the request is the caller's.
                drop(self.calls.take(id));
                resume_unwind(panic)
            }
            Ok(Err(error)) if self.calls.take(id).is_some() => Err(error),
            Ok(_) => Ok(CallHandle::new(self, id)),
        }
    }

    /// Sends the request of a call on the best connection, or puts it into the queue if there is none.
    fn send(
        self: &Arc<Self>,
        id: u64,
        size: usize,
        demand: Demand,
        payload: &mut Payload<'_>,
    ) -> Result<()> {
        loop {
            let Some((attempt, deadline)) = self.calls.begin(id) else { return Ok(()) };
            let queue = |state: &mut State| {
                let request = payload.keep(size, demand);
                self.calls.list().queue.push_back((id, request));
                self.mend(state)
            };
            let Some(place) = self.choose_or(queue)? else { return Ok(()) };
            let member = Arc::clone(place.member());
            let shared = Arc::clone(self);
            let on_done = move |attempted| shared.attempted(id, place, attempted);
            let on_done = OnDone::Attempt(Box::new(on_done));
            match member.client.submit(size, demand, payload, &deadline, on_done) {
                Ok(handle) => {
                    self.calls.began(id, attempt, handle);
                    return Ok(());
                }
                Err(error) if is_not_started(&error) => {
                    self.retire(&member);
                    self.calls.note_error(id, error);
                }
                Err(error) => {
                    self.retire_if_spent(&member);
                    return Err(error);
                }
            }
        }
    }

    /// An attempt at a call has ended: so has the call, or it goes on elsewhere.
    fn attempted(self: &Arc<Self>, id: u64, place: Place, attempted: Attempted) {
        match attempted {
            Attempted::Done(outcome) => {
                if outcome.is_err() {
                    self.retire_if_spent(place.member());
                }
                drop(place);
                if let Some(call) = self.calls.take(id) {
                    (call.on_done)(outcome);
                }
            }
            Attempted::NotStarted(error, request) => {
                self.retire(place.member());
                drop(place);
                self.calls.note_error(id, error);
                self.resend(id, request);
            }
        }
    }

    /// On a thread of the pool's, which what the user's code panics with must not end.
    fn resend(self: &Arc<Self>, id: u64, request: Request) {
        let Request { size, demand, fill } = request;
        let mut payload = Payload::Fill(Some(fill));
        let mut sent = Err(Error::InvalidState { reason: "the code that fills it panicked" });
        contain(|| sent = self.send(id, size, demand, &mut payload));
        contain(|| drop(payload));
        if let Err(error) = sent
            && let Some(call) = self.calls.take(id)
        {
            call.fail(error);
        }
    }

    /// There is a connection for what is queued.
    pub(super) fn send_queued(self: &Arc<Self>) {
        let queue = std::mem::take(&mut self.calls.list().queue);
        for (id, request) in queue {
            self.resend(id, request);
        }
    }

    /// Ends what is queued and due.
    pub(super) fn finish_due(&self) {
        let late = self.calls.take_queued(sys::monotonic_ns());
        if !late.is_empty() {
            let error = self.state().why_none();
            fail_all(late, &error);
        }
    }

    pub(super) fn cancel_call(&self, id: u64) -> bool {
        let mut list = self.calls.list();
        let call = list.calls.remove(&id);
        let at = list.queue.iter().position(|(queued, _)| *queued == id);
        let request = at.and_then(|at| list.queue.remove(at));
        drop(list);
        // What they drop is the user's code: not under the lock.
        drop(request);
        if let Some(attempt) = call.as_ref().and_then(|call| call.attempt.as_ref()) {
            attempt.cancel();
        }
        call.is_some()
    }
}

impl Cancel for Shared {
    fn cancel(&self, id: u64) -> bool {
        self.cancel_call(id)
    }
}
