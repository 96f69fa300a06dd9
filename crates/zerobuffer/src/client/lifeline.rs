//! Closing a client from another thread, for as long as the client wants.

use crate::closer::Close;
use crate::error::{Error, Result};
use crate::sys;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a close ends: the connection of the moment.
pub(super) trait Connected: Send + Sync {
    /// Every wait in it comes back, and nothing more is done with it.
    fn end(&self);
}

/// What a client, whose connections come and go, shares with those who close it.
///
/// A reconnection says when it began, and is refused if the client was closed after that: what was closed
/// stays closed until its owner begins to reconnect.
pub(super) struct Lifeline {
    state: Mutex<State>,
    fork_generation: u32,
}

struct State {
    /// How often it was closed.
    closes: u64,
    /// Closed by a [`Closer`](crate::Closer): there is no reconnecting.
    for_good: bool,
    connection: Weak<dyn Connected>,
}

/// When a reconnection began, as the number of closes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun(u64);

impl Lifeline {
    pub(super) fn new<T: Connected + 'static>(connection: &Arc<T>) -> Arc<Self> {
        let connection: Weak<T> = Arc::downgrade(connection);
        let state = State { closes: 0, for_good: false, connection };
        Arc::new(Self { state: Mutex::new(state), fork_generation: sys::fork_generation() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection of the moment, and any reconnection that is under way.
    pub(super) fn close_once(&self) {
        if self.is_this_process() {
            self.close_as(false);
        }
    }

    fn close_as(&self, for_good: bool) {
        let mut state = self.state();
        state.closes += 1;
        state.for_good |= for_good;
        // Under the lock: who begins to reconnect after this finds the connection ended.
        if let Some(connection) = state.connection.upgrade() {
            connection.end();
        }
    }

    /// Notes that a reconnection begins.
    ///
    /// # Errors
    /// `Closed` if the client was closed for good.
    pub(super) fn begin(&self) -> Result<Begun> {
        let state = self.state();
        if state.for_good { Err(Error::Closed) } else { Ok(Begun(state.closes)) }
    }

    /// Whether the client was closed after `begun`.
    pub(super) fn closed_since(&self, begun: Begun) -> bool {
        self.state().closes != begun.0
    }

    /// Makes `connection` the one that is ended by a close.
    ///
    /// # Errors
    /// `Closed` if the client was closed after `begun`.
    pub(super) fn renew<T: Connected + 'static>(
        &self,
        begun: Begun,
        connection: &Arc<T>,
    ) -> Result<()> {
        let connection: Weak<T> = Arc::downgrade(connection);
        let mut state = self.state();
        if state.closes != begun.0 {
            return Err(Error::Closed);
        }
        state.connection = connection;
        Ok(())
    }

    /// Makes `connection` the one that is ended by a close, another view of the one before.
    pub(super) fn hand_over<T: Connected + 'static>(&self, connection: &Arc<T>) {
        let connection: Weak<T> = Arc::downgrade(connection);
        let mut state = self.state();
        if state.closes > 0
            && let Some(connection) = connection.upgrade()
        {
            connection.end();
        }
        state.connection = connection;
    }
}

impl Close for Lifeline {
    fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    fn close(&self) {
        self.close_as(true);
    }

    fn is_closed(&self) -> bool {
        self.state().for_good
    }
}

impl std::fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifeline").field("closes", &self.state().closes).finish_non_exhaustive()
    }
}
