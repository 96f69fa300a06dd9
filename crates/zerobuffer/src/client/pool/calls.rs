//! A pool's calls that no thread waits for.

use super::list::{OnOutcome, fail_all};
use super::members::{Place, Shared, State};
use crate::client::RequestLayout;
use crate::client::calls::{CallHandle, Cancel, Payload};
use crate::client::completions::{Attempted, OnDone, Request, contain};
use crate::client::resend::is_not_started;
use crate::error::{Error, Result};
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::Deadline;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

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
