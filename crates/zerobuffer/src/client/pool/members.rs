//! A pool's connections: which of them gets a request, and what becomes of those that are lost.

use super::list::Calls;
use crate::client::connection::Connection;
use crate::client::shared::SharedClient;
use crate::closer::Closer;
use crate::config::{ChannelKind, ClientConfig};
use crate::error::{Error, Medium, Result};
use crate::seats::Seats;
use crate::sys;
use crate::wait::{Deadline, later};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often calls look for new servers while there are fewer connections than wanted.
const EVERY: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Member {
    pub(super) client: SharedClient,
    is_to_service: bool,
    /// Calls under way.
    calls: AtomicUsize,
}

/// A call's place on a connection, where it is counted until this is dropped.
pub(super) struct Place(Arc<Member>);

impl Place {
    fn on(member: &Arc<Member>) -> Self {
        // Relaxed: a count, and every place is taken under the lock.
        member.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(member))
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.0
    }

    pub(super) fn client(&self) -> &SharedClient {
        &self.0.client
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a pool's handles, calls and threads share.
pub(super) struct Shared {
    name: String,
    most: usize,
    config: ClientConfig,
    state: Mutex<State>,
    /// A connection has come, or none will.
    changed: Condvar,
    pub(super) calls: Calls,
    fork_generation: u32,
}

#[derive(Default)]
pub(super) struct State {
    /// Those that get requests.
    pub(super) members: Vec<Arc<Member>>,
    /// Those that were lost. Only the mender and the end of the pool drop them, since that waits for the
    /// callbacks on a connection's own thread, and such threads must not wait for each other.
    pub(super) retired: Vec<Arc<Member>>,
    /// Threads that wait for a connection.
    pub(super) waiting: usize,
    /// Why there is no connection, and how often it was found that none will come.
    pub(super) why_none: Option<Error>,
    pub(super) refusals: u64,
    pub(super) is_mending: bool,
    pub(super) mender: Option<JoinHandle<()>>,
    /// A call may start the mender again.
    mends_at: u64,
    pub(super) is_closed: bool,
}

impl State {
    fn least_busy(&self) -> Option<&Arc<Member>> {
        self.members.iter().min_by_key(|member| member.calls.load(Ordering::Relaxed))
    }

    /// Whether there is no other server to connect to.
    pub(super) fn is_full(&self, most: usize) -> bool {
        // A channel has one client.
        self.members.len() >= most || self.members.iter().any(|member| !member.is_to_service)
    }

    /// Those whose last call has ended.
    pub(super) fn take_unused(&mut self) -> Vec<Arc<Member>> {
        self.retired.extract_if(.., |member| Arc::strong_count(member) == 1).collect()
    }

    pub(super) fn why_none(&self) -> Error {
        self.why_none.clone().unwrap_or(Error::Closed)
    }
}

impl Shared {
    pub(super) fn connect(
        name: &str,
        most: usize,
        mut config: ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<Self>> {
        config.seats = Some(Seats::default());
        // The pool does that, and not on the same connection.
        config.resend_not_started = false;
        let shared = Self {
            name: name.to_owned(),
            most,
            config,
            state: Mutex::default(),
            changed: Condvar::new(),
            calls: Calls::default(),
            fork_generation: sys::fork_generation(),
        };
        let mut state = State { mends_at: later(sys::monotonic_ns(), EVERY), ..State::default() };
        state.members.push(shared.attach(true, deadline, is_cancelled)?);
        while !state.is_full(most) {
            match shared.attach(false, &Deadline::after(Duration::ZERO), is_cancelled) {
                Ok(member) => state.members.push(member),
                Err(Error::Closed) => return Err(Error::Closed),
                Err(_) => break,
            }
        }
        *shared.state() = state;
        Ok(Arc::new(shared))
    }

    /// Makes a connection, to any server or to another one of the service.
    pub(super) fn attach(
        &self,
        is_first: bool,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<Member>> {
        let mut config = self.config.clone();
        if !is_first {
            config.channel = ChannelKind::Service;
        }
        let connection = Connection::find(&self.name, &config, deadline, is_cancelled)?;
        let (life, is_to_service) = (connection.lifeline(), connection.is_to_service());
        let client = SharedClient::new(connection, config, Vec::new(), life);
        Ok(Arc::new(Member { client, is_to_service, calls: AtomicUsize::new(0) }))
    }

    pub(super) fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    /// For this process, and for threads of it.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The state of a pool that is not closed.
    ///
    /// # Errors
    /// `WrongProcess`, `Closed`.
    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        // Before the lock, which another thread may have held when the process forked.
        if !self.is_this_process() {
            return Err(Error::WrongProcess);
        }
        let state = self.state();
        if state.is_closed { Err(Error::Closed) } else { Ok(state) }
    }

    /// A place for a call on the connection with the fewest, waiting for a connection.
    pub(super) fn choose(self: &Arc<Self>, deadline: &Deadline) -> Result<Place> {
        let mut state = self.open_state()?;
        loop {
            if let Some(place) = self.place_at_once(&mut state) {
                return Ok(place);
            }
            let refusals = state.refusals;
            state.waiting += 1;
            // Counted before: the mender waits for a server only while somebody waits for it.
            let started = self.mend(&mut state);
            let left = deadline.left();
            if started.is_ok() && !left.is_zero() {
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.waiting -= 1;
            started?;
            if state.is_closed {
                return Err(Error::Closed);
            }
            let is_over = state.refusals != refusals || deadline.left().is_zero();
            if state.members.is_empty() && is_over {
                return Err(state.why_none());
            }
        }
    }

    /// The same without waiting; if there is no connection, `otherwise` gets the locked state.
    ///
    /// # Errors
    /// `WrongProcess`, `Closed`, and those of `otherwise`.
    pub(super) fn choose_or(
        self: &Arc<Self>,
        otherwise: impl FnOnce(&mut State) -> Result<()>,
    ) -> Result<Option<Place>> {
        let mut state = self.open_state()?;
        match self.place_at_once(&mut state) {
            Some(place) => Ok(Some(place)),
            None => otherwise(&mut state).map(|()| None),
        }
    }

    fn place_at_once(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        let place = Place::on(state.least_busy()?);
        let is_whole = state.is_full(self.most) && state.retired.is_empty();
        if !is_whole && !state.is_mending && sys::monotonic_ns() >= state.mends_at {
            // There is a connection, so another one can wait until the system has a thread for it.
            let _ = self.mend(state);
        }
        Some(place)
    }

    /// Starts the mender unless it runs.
    pub(super) fn mend(self: &Arc<Self>, state: &mut State) -> Result<()> {
        if state.is_mending {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let mender = sys::spawn("zb-mender", move || shared.run_mender())?;
        // The previous one has ended but for its last few instructions.
        state.mender = Some(mender);
        state.is_mending = true;
        state.mends_at = later(sys::monotonic_ns(), EVERY);
        Ok(())
    }

    /// The connection gets no more calls, and is replaced. Those on it end by themselves.
    pub(super) fn retire(&self, member: &Arc<Member>) {
        let mut state = self.state();
        if let Some(at) = state.members.iter().position(|other| Arc::ptr_eq(other, member)) {
            let member = state.members.remove(at);
            state.why_none = Some(Error::NotRunning {
                medium: if member.is_to_service { Medium::Service } else { Medium::Channel },
                name: self.name.clone(),
                found: "its server has ended, and no other one has come",
            });
            state.retired.push(member);
            state.mends_at = 0;
        }
    }

    pub(super) fn retire_if_spent(&self, member: &Arc<Member>) {
        if member.client.is_spent() {
            self.retire(member);
        }
    }

    // ---- the end ----

    pub(super) fn close_connections(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let members = state.members.iter().chain(&state.retired);
        let closers: Vec<_> = members.map(|member| member.client.closer()).collect();
        drop(state);
        closers.iter().for_each(Closer::close);
        self.notify();
    }

    pub(super) fn has_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Closes everything, and waits for the callbacks that are running, unless this is called by one.
    pub(super) fn end(&self) {
        if !self.is_this_process() {
            return;
        }
        self.close_connections();
        let mut state = self.state();
        let mut members = std::mem::take(&mut state.members);
        members.append(&mut state.retired);
        let mender = state.mender.take();
        drop(state);
        let completions = || members.iter().map(|member| &member.client.inner.completions);
        let is_own_thread = mender.as_ref().is_some_and(sys::is_this_thread)
            || completions().any(|completions| completions.is_this_thread());
        if is_own_thread {
            // They wait for this very callback.
            return self.state().retired.append(&mut members);
        }
        completions().for_each(|completions| completions.end());
        mender.into_iter().for_each(sys::join);
    }

    // ---- what there is to know ----

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn connections(&self) -> usize {
        self.open_state().map_or(0, |state| state.members.len())
    }

    pub(super) fn in_flight(&self) -> usize {
        let calls = |member: &Arc<Member>| member.calls.load(Ordering::Relaxed);
        self.open_state().map_or(0, |state| state.members.iter().map(calls).sum())
    }

    /// Whether one of the members has its server. If not, another one is looked for, as a call does: a program may wait for
    /// this before it calls again.
    pub(super) fn is_server_connected(self: &Arc<Self>) -> bool {
        let Ok(state) = self.open_state() else { return false };
        let members = state.members.clone();
        drop(state);
        // Without the lock: each asks the system.
        if members.iter().any(|member| member.client.is_server_connected()) {
            return true;
        }
        members.iter().for_each(|member| self.retire(member));
        if let Ok(mut state) = self.open_state()
            && sys::monotonic_ns() >= state.mends_at
        {
            // Fails only where the system has no thread for it, and the next one who asks tries again.
            let _ = self.mend(&mut state);
        }
        false
    }

    pub(super) fn max_request_size(&self) -> usize {
        let size = |member: &Arc<Member>| member.client.max_request_size();
        self.open_state().map_or(0, |state| state.members.iter().map(size).min().unwrap_or(0))
    }
}
