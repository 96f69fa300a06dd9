//! The thread that connects, so that no call waits for more than a connection: it is started when one is
//! missing, and ends when no server is left to connect to and no call waits for one.

use super::members::Shared;
use crate::sys;
use crate::wait::Deadline;
use std::sync::Arc;
use std::time::Duration;

impl Shared {
    pub(super) fn run_mender(self: Arc<Self>) {
        let mut has_tried = false;
        loop {
            let mut state = self.state();
            let unused = state.take_unused();
            drop(state);
            // Without the lock: it waits for callbacks.
            drop(unused);
            self.finish_due();
            let mut state = self.state();
            if state.is_closed {
                state.is_mending = false;
                drop(state);
                return self.calls.fail_queued(&crate::Error::Closed);
            }
            let is_wanted = state.waiting > 0 || !self.calls.is_none_queued();
            let is_first = state.members.is_empty();
            let goes_on = if is_first { is_wanted || !has_tried } else { !has_tried };
            if state.is_full(self.most()) || !goes_on {
                state.is_mending = false;
                return;
            }
            drop(state);
            has_tried = true;
            let is_waited_for = is_first && is_wanted;
            let deadline = match is_waited_for {
                true => self.calls.deadline(),
                false => Deadline::after(Duration::ZERO),
            };
            match self.attach(is_first, &deadline, &|| self.is_attaching_over(is_waited_for)) {
                Ok(member) => {
                    let mut state = self.state();
                    if !state.is_closed {
                        state.members.push(member);
                        has_tried = false;
                    }
                    drop(state);
                    self.notify();
                    self.send_queued();
                }
                Err(crate::Error::Closed) => {}
                Err(error) => {
                    let is_refused = !error.may_pass();
                    let mut state = self.state();
                    state.why_none = Some(error.clone());
                    let is_over = is_refused && state.members.is_empty();
                    state.refusals += u64::from(is_over);
                    drop(state);
                    if is_over {
                        self.calls.fail_queued(&error);
                        self.notify();
                    }
                }
            }
        }
    }

    /// Whether the mender has something else to do than to wait for a server.
    fn is_attaching_over(&self, is_waited_for: bool) -> bool {
        let state = self.state();
        let is_wanted = state.waiting > 0 || !self.calls.is_none_queued();
        state.is_closed
            || (is_waited_for && !is_wanted)
            || state.retired.iter().any(|member| Arc::strong_count(member) == 1)
            || self.calls.soonest() <= sys::monotonic_ns()
    }
}
