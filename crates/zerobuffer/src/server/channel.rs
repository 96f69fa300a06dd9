//! The server's end of one segment, from its creation to the client that made it stale.

use super::connection::Connection;
use crate::atomics::{AtomicBool, Ordering};
use crate::config::ServerConfig;
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::link::ToClient;
use crate::link::named::{self, Role, Segment};
use crate::name::ChannelName;
use crate::sys::Semaphore;
use crate::tenure::Wanted;
use crate::v2::layout::{REQUEST, RESPONSE, oieb};
use crate::wait::{Deadline, Peer, WaitContext, WaitStrategy, Waiter, wake};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Between two checks whether the attached client is alive.
const CLIENT_SLICE: Duration = Duration::from_millis(20);
/// Between two checks whether the channel's names still exist, with no client.
const IDLE_SLICE: Duration = Duration::from_millis(100);
/// Between two checks whether the client has read its responses, when the server stops.
const STOP_SLICE: Duration = Duration::from_millis(5);

/// One segment under the channel's name.
#[derive(Debug)]
pub(super) struct ServerChannel {
    pub(super) connection: Arc<Connection>,
    named: Arc<Segment>,
    /// The client broke the protocol: nothing more is taken from it.
    pub(super) poisoned: AtomicBool,
    metadata_len: usize,
}

impl Deref for ServerChannel {
    type Target = Connection;

    #[inline]
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl ServerChannel {
    pub(super) fn create(
        name: &ChannelName,
        config: &ServerConfig,
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        let geometry = named::geometry(&config.buffer)?;
        let named = Arc::new(named::create(name, geometry, config, wanted)?);
        let link = ToClient::Named(Arc::clone(&named));
        let connection = Arc::new(Connection::new(named.views(), link, config.workers > 1));
        crate::trace::event!(channel = %name, bytes = geometry.total(), "created");
        let poisoned = AtomicBool::new(false);
        Ok(Self { connection, named, poisoned, metadata_len: config.metadata.len() })
    }

    /// What the thread that takes requests sleeps on.
    pub(super) fn requests(&self) -> &Semaphore {
        &self.named.semaphores.request_ready
    }

    /// What a client that waits for room sleeps on.
    pub(super) fn space(&self) -> &Semaphore {
        &self.named.semaphores.space_available
    }

    /// Asks the thread that takes requests to come back.
    pub(super) fn ask_to_stop(&self) {
        wake(self.requests());
    }

    /// Says that this server takes nothing more, and wakes every wait for it.
    pub(super) fn announce_end(&self) {
        self.ring.publish_account();
        self.segment.store(REQUEST + oieb::READER_PID, 0);
        failpoint!("stop.one_pid");
        self.segment.store(RESPONSE + oieb::WRITER_PID, 0);
        failpoint!("stop.before_post");
        wake(&self.named.semaphores.response_ready);
        wake(&self.named.semaphores.space_available);
    }

    /// Marks the channel as not to be used any more after a violation; the client, if it still looks,
    /// finds it closed.
    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Relaxed);
        self.announce_end();
    }

    /// Removes the names of a segment whose client has ended. Both locks are held, and released after
    /// that: a client that has opened this segment sees that its server has ended.
    pub(super) fn retire(&self) -> Result<()> {
        failpoint!("retire.both_locked");
        let removed = self.named.unlink();
        failpoint!("retire.unlinked");
        self.named.resign();
        failpoint!("retire.resigned");
        removed
    }

    /// Orderly stop, once everything that was taken is answered or the time for that is up: announces the end,
    /// gives the client until the deadline to read its responses, removes the names, and lets go.
    pub(super) fn close(&self, deadline: &Deadline) -> Result<()> {
        self.end_responses();
        self.announce_end();
        let consumed = &self.named.semaphores.response_consumed;
        let all_read = || (self.unread_answers() == 0).then_some(());
        // All ends of this wait are alike: read, the client gone, or time up.
        let waiter = Waiter::new(WaitStrategy::Park);
        let _ = waiter.wait(consumed, deadline, &Reader(self), all_read);
        failpoint!("stop.before_unlink");
        let removed = named::remove(&self.named);
        failpoint!("stop.unlinked");
        self.named.resign();
        failpoint!("stop.resigned");
        crate::trace::event!(channel = %self.segment.name, "closed");
        removed
    }

    fn unread_answers(&self) -> u64 {
        let read = self.segment.load(RESPONSE + oieb::PAYLOAD_READ_COUNT);
        self.ring.answered().saturating_sub(read)
    }
}

/// Is there a client to serve here? `Closed` when one has closed, `Died` when the segment is stale and
/// this server holds both roles: then it is to be replaced.
impl WaitContext for ServerChannel {
    fn peer(&self) -> Peer {
        let closed = self.segment.load(REQUEST + oieb::WRITER_PID) == 0 && !self.named.is_fresh();
        if closed { Peer::Closed } else { Peer::Alive }
    }

    fn probe(&self) -> Peer {
        let removed = || !self.named.is_named().unwrap_or(true);
        // What a hostile process has written over this server's own words would stay for ever.
        let unsound = || !self.named.is_sound(self.metadata_len);
        let stale = !self.named.is_fresh() || unsound() || removed();
        // By taking the client's lock, never by a look alone: nobody can attach in between.
        if stale && Role::Client.claim(&self.named.memory).unwrap_or(false) {
            Peer::Died
        } else {
            self.peer()
        }
    }

    fn slice(&self) -> Duration {
        // The account is read only before the first request: it lies in lines that the client writes
        // with every request, and a read takes them away from it.
        let idle = self.ring.is_untouched() && self.named.is_fresh();
        if idle { IDLE_SLICE } else { CLIENT_SLICE }
    }
}

/// The client as a reader of responses.
struct Reader<'s>(&'s ServerChannel);

impl WaitContext for Reader<'_> {
    fn peer(&self) -> Peer {
        let pids = [REQUEST + oieb::WRITER_PID, RESPONSE + oieb::READER_PID];
        let closed = pids.into_iter().any(|pid| self.0.segment.load(pid) == 0);
        if closed { Peer::Closed } else { Peer::Alive }
    }

    fn probe(&self) -> Peer {
        match Role::Client.is_held(&self.0.named.memory) {
            Ok(false) => Peer::Died,
            Ok(true) | Err(_) => Peer::Alive,
        }
    }

    fn slice(&self) -> Duration {
        STOP_SLICE
    }
}
