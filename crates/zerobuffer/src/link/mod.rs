//! How the two ends of one segment find, wake and watch each other.

pub(crate) mod named;
pub(crate) mod segment;
pub(crate) mod socket;

use crate::error::Error;
use crate::failpoint::failpoint;
use crate::seats::Seat;
use crate::sys::ReadySet;
use crate::v2::ring::Violation;
use crate::wait::{Deadline, Unready, WaitContext, WaitStrategy, Waiter, post_if_empty, wake};
use named::{DeathWatch, Role};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at a channel's server while something is outstanding. A service's client needs them only
/// where it never sleeps, and so does not hear of the end.
const SLICE: Duration = Duration::from_millis(10);

/// What a client says that no event loop can wait for.
pub(crate) const NO_SOCKET: Error = Error::Unsupported {
    what: "an event loop waits for services only, since channels have no descriptor; use `call_async` of a \
           `SharedClient`, whose calls a thread of the library completes",
};

/// A server's way to one client.
#[derive(Debug)]
pub(crate) enum ToClient {
    /// Semaphores under names, and locks.
    Named(Arc<named::Segment>),
    /// A socket, which says by its end that the client has ended.
    Socket(socket::Estate),
}

impl ToClient {
    /// Wakes the client that waits for a response.
    #[inline(always)]
    pub(crate) fn wake_receiver(&self) {
        match self {
            Self::Named(segment) => wake(&segment.semaphores.response_ready),
            Self::Socket(estate) => estate.wake_client(),
        }
    }

    /// Whether a client is there, by a look at what its end leaves.
    pub(crate) fn has_client(&self) -> bool {
        match self {
            Self::Named(segment) => Role::Client.is_held(&segment.memory).unwrap_or(true),
            Self::Socket(estate) => estate.has_client(),
        }
    }

    /// The client has ended: what it leaves is nobody's any more.
    pub(crate) fn abandon(&self) {
        match self {
            // Its segment is retired by its own rules.
            Self::Named(_) => {}
            Self::Socket(estate) => estate.abandon(),
        }
    }
}

/// A client's way to its server.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each connection, and a box is in every wake's way"
)]
pub(crate) enum ToServer {
    Named {
        segment: named::Segment,
        death_watch: DeathWatch,
    },
    Socket {
        sleepers: socket::Sleepers,
        /// Between two looks at whether the server has ended, for a thread that does not sleep.
        slice: Duration,
        /// Of a pool's connection.
        seat: Option<Seat>,
    },
}

/// What a thread of a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    Response,
    Room,
}

impl ToServer {
    pub(crate) fn named(segment: named::Segment) -> Self {
        Self::Named { segment, death_watch: DeathWatch::default() }
    }

    pub(crate) fn over_socket(
        sleepers: socket::Sleepers,
        seat: Option<Seat>,
        strategy: WaitStrategy,
    ) -> Self {
        let slice = if strategy == WaitStrategy::Spin { SLICE } else { Duration::MAX };
        Self::Socket { sleepers, slice, seat }
    }

    /// Whether it leads to one of a service's servers.
    pub(crate) fn is_to_service(&self) -> bool {
        matches!(self, Self::Socket { .. })
    }

    /// WAKE, for the server.
    #[inline(always)]
    pub(crate) fn wake_server(&self) {
        match self {
            Self::Named { segment, .. } => wake(&segment.semaphores.request_ready),
            Self::Socket { sleepers, .. } => sleepers.bell().wake_peer(),
        }
    }

    /// A response was released, which a named channel's server may wait for at its end.
    #[inline(always)]
    pub(crate) fn tell_of_release(&self) {
        match self {
            // Its only waiter, a server that stops, looks again every slice.
            Self::Named { segment, .. } => post_if_empty(&segment.semaphores.response_consumed),
            Self::Socket { .. } => {}
        }
    }

    /// Threads of this process that wait here check again.
    #[inline]
    pub(crate) fn wake_own(&self, awaited: Awaited) {
        match (self, awaited) {
            (Self::Named { segment, .. }, Awaited::Response) => {
                wake(&segment.semaphores.response_ready);
            }
            (Self::Named { segment, .. }, Awaited::Room) => {
                wake(&segment.semaphores.space_available);
            }
            (Self::Socket { sleepers, .. }, _) => sleepers.wake_own(),
        }
    }

    /// All of them, whatever they wait for.
    pub(crate) fn wake_all_own(&self) {
        match self {
            Self::Named { .. } => {
                self.wake_own(Awaited::Response);
                self.wake_own(Awaited::Room);
            }
            Self::Socket { sleepers, .. } => sleepers.wake_own(),
        }
    }

    /// WAIT, for something that the server does.
    #[inline]
    pub(crate) fn wait<T>(
        &self,
        awaited: Awaited,
        waiter: &Waiter,
        deadline: &Deadline,
        context: &impl WaitContext,
        cond: impl FnMut() -> Option<T>,
    ) -> Result<T, Unready> {
        match (self, awaited) {
            (Self::Named { segment, .. }, Awaited::Response) => {
                waiter.wait(&segment.semaphores.response_ready, deadline, context, cond)
            }
            (Self::Named { segment, .. }, Awaited::Room) => {
                waiter.wait(&segment.semaphores.space_available, deadline, context, cond)
            }
            (Self::Socket { sleepers, .. }, _) => waiter.wait(sleepers, deadline, context, cond),
        }
    }

    /// From now on a program's event loop waits for what the server does, on the descriptor that is returned.
    ///
    /// # Errors
    /// `Unsupported` where there is no socket.
    pub(crate) fn lead_by_event_loop(&self) -> Result<ReadySet, Error> {
        match self {
            Self::Named { .. } => Err(NO_SOCKET),
            Self::Socket { sleepers, .. } => {
                let ready = sleepers.lead_by_event_loop();
                ready.map_err(|errno| errno.on("epoll", "an event loop's descriptor"))
            }
        }
    }

    /// For that event loop, before it looks at the state.
    pub(crate) fn listen(&self) {
        if let Self::Socket { sleepers, .. } = self {
            sleepers.listen();
        }
    }

    /// Takes the socket out of what makes the event loop's descriptor readable.
    pub(crate) fn forget_in(&self, ready: &ReadySet) {
        if let Self::Socket { sleepers, .. } = self {
            ready.forget(sleepers.bell().socket());
        }
    }

    /// Whether the server is there, by a look at what its end leaves.
    pub(crate) fn has_server(&self) -> bool {
        match self {
            // A lock that cannot be looked at says nothing about its holder.
            Self::Named { segment, .. } => Role::Server.is_held(&segment.memory).unwrap_or(true),
            Self::Socket { sleepers, .. } => !sleepers.bell().probe(),
        }
    }

    /// Whether something has told of the server's end, so that a look is worth it.
    #[inline]
    pub(crate) fn is_end_told(&self) -> bool {
        match self {
            Self::Named { death_watch, .. } => death_watch.was_told(),
            Self::Socket { sleepers, .. } => sleepers.bell().has_ended(),
        }
    }

    /// What the server has sent beside the ring that no conforming one sends.
    pub(crate) fn violation(&self) -> Option<Violation> {
        match self {
            Self::Named { .. } => None,
            Self::Socket { sleepers, .. } => sleepers.bell().violation(),
        }
    }

    /// Between two looks, for one that waits.
    pub(crate) fn slice(&self) -> Duration {
        match self {
            Self::Named { .. } => SLICE,
            Self::Socket { slice, .. } => *slice,
        }
    }

    /// Calls `tell` on another thread when the process `pid`, the server, ends. A socket needs none.
    pub(crate) fn watch_server(&self, pid: u64, tell: impl FnOnce() + Send + 'static) {
        if let Self::Named { death_watch, .. } = self {
            death_watch.ask(pid, tell);
        }
    }

    /// The server's process has ended, another thread says.
    pub(crate) fn hear_of_end(&self) {
        if let Self::Named { death_watch, .. } = self {
            death_watch.tell();
        }
        self.wake_all_own();
    }

    /// Nothing of the server is waited for any more.
    pub(crate) fn stop_watching(&self) {
        if let Self::Named { death_watch, .. } = self {
            death_watch.end();
        }
    }

    /// Lets go of the segment, after the pids say so and the server was woken. A socket stays for as long as
    /// responses are held: with its end the server takes the memory back.
    pub(crate) fn let_go(&self) {
        failpoint!("close.before_unlock");
        match self {
            Self::Named { segment, .. } => segment.resign(),
            Self::Socket { seat, .. } => seat.iter().for_each(Seat::release),
        }
    }
}
