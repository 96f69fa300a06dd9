//! The server's end of one segment, from its creation to the client that made it stale.

use crate::atomics::{AtomicBool, Ordering};
use crate::config::ServerConfig;
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::link::named;
use crate::link::named::Role;
use crate::link::named::Segment;
use crate::link::segment::Block;
use crate::name::ChannelName;
use crate::tenure::Wanted;
use crate::v2::layout::{REQUEST, RESPONSE, oieb};
use crate::v2::ring::{ServerRing, Take, Taken};
use crate::wait::{Deadline, Peer, WaitContext, WaitStrategy, Waiter, wake};
use std::sync::OnceLock;
use std::time::Duration;

/// Between two checks whether the attached client is alive.
const CLIENT_SLICE: Duration = Duration::from_millis(20);
/// Between two checks whether the channel's names still exist, with no client.
const IDLE_SLICE: Duration = Duration::from_millis(100);
/// Between two checks whether the client has read its responses, when the server stops.
const STOP_SLICE: Duration = Duration::from_millis(5);

/// One segment and the ring on it. Requests that are being handled keep it, while the server may have
/// gone on to a new one.
#[derive(Debug)]
pub(super) struct ServerChannel {
    pub(super) segment: Segment,
    pub(super) ring: ServerRing,
    /// A copy of the client's metadata, made when its first request is taken.
    client_metadata: OnceLock<Vec<u8>>,
    /// The client broke the protocol: nothing more is taken from it.
    pub(super) poisoned: AtomicBool,
    /// The server is to stop.
    stopping: AtomicBool,
    metadata_len: usize,
}

impl ServerChannel {
    pub(super) fn create(
        name: &ChannelName,
        config: &ServerConfig,
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        let geometry = named::geometry(&config.buffer)?;
        let segment = named::create(name, geometry, config, wanted)?;
        let ring =
            ServerRing::new(segment.control.clone(), segment.payload_words(), &segment.geometry);
        if config.workers > 1 {
            ring.set_concurrent();
        }
        crate::trace::event!(channel = %name, bytes = geometry.total(), "created");
        Ok(Self {
            segment,
            ring,
            client_metadata: OnceLock::new(),
            poisoned: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            metadata_len: config.metadata.len(),
        })
    }

    /// Whether the client's metadata were copied.
    #[inline]
    pub(super) fn has_client_metadata(&self) -> bool {
        self.client_metadata.get().is_some()
    }

    /// Takes what stands at the server's position; before the first time, the client's metadata, which
    /// are complete before its first request. What is taken must be answered, so they come first.
    ///
    /// # Errors
    /// `ProtocolViolation`, and nothing is taken.
    pub(super) fn take(&self) -> Result<Take> {
        if !self.has_client_metadata() {
            if !self.ring.ready_check()() {
                return Ok(Take::Nothing);
            }
            let metadata = self.segment.read_metadata(Block::Request)?;
            self.client_metadata.get_or_init(|| metadata);
        }
        Ok(self.ring.take()?)
    }

    /// The client's metadata, once a request has been taken.
    pub(super) fn client_metadata(&self) -> &[u8] {
        self.client_metadata.get().map_or(&[], Vec::as_slice)
    }

    #[inline(always)]
    pub(super) fn answer(&self, taken: &Taken, len: u64, status: u16) {
        self.ring.answer(taken, len, status);
        failpoint!("answer.before_post");
        wake(&self.segment.semaphores.response_ready);
    }

    /// Asks the thread that takes requests to come back, and handlers to come to an end.
    pub(super) fn ask_to_stop(&self) {
        // Release: pairs with the Acquire in `is_wanted`.
        self.stopping.store(true, Ordering::Release);
        wake(&self.segment.semaphores.request_ready);
    }

    /// Whether somebody still waits for the response to `taken`: its client lives and has not cancelled
    /// it, and the server is not being stopped.
    pub(super) fn is_wanted(&self, taken: &Taken) -> bool {
        // Acquire: pairs with the Release in `ask_to_stop`.
        !self.stopping.load(Ordering::Acquire)
            && !self.ring.is_cancelled(taken)
            && self.is_client_connected()
    }

    /// Whether a client is attached at this moment.
    pub(super) fn is_client_connected(&self) -> bool {
        self.segment.load(REQUEST + oieb::WRITER_PID) != 0
            && Role::Client.is_held(&self.segment.memory).unwrap_or(true)
    }

    /// Says that this server takes nothing more, and wakes every wait for it.
    pub(super) fn announce_end(&self) {
        self.ring.publish_account();
        self.segment.store(REQUEST + oieb::READER_PID, 0);
        failpoint!("stop.one_pid");
        self.segment.store(RESPONSE + oieb::WRITER_PID, 0);
        failpoint!("stop.before_post");
        wake(&self.segment.semaphores.response_ready);
        wake(&self.segment.semaphores.space_available);
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
        let removed = self.segment.unlink();
        failpoint!("retire.unlinked");
        self.segment.resign();
        failpoint!("retire.resigned");
        removed
    }

    /// Orderly stop, once everything that was taken is answered: announces the end, gives the client
    /// until the deadline to read its responses, removes the names, and lets go.
    pub(super) fn close(&self, deadline: &Deadline) -> Result<()> {
        self.announce_end();
        let consumed = &self.segment.semaphores.response_consumed;
        let all_read = || (self.unread_answers() == 0).then_some(());
        // All ends of this wait are alike: read, the client gone, or time up.
        let waiter = Waiter::new(WaitStrategy::Park);
        let _ = waiter.wait(consumed, deadline, &Reader(self), all_read);
        failpoint!("stop.before_unlink");
        let removed = named::remove(&self.segment);
        failpoint!("stop.unlinked");
        self.segment.resign();
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
        let closed = self.segment.load(REQUEST + oieb::WRITER_PID) == 0 && !self.segment.is_fresh();
        if closed { Peer::Closed } else { Peer::Alive }
    }

    fn probe(&self) -> Peer {
        let removed = || !self.segment.is_named().unwrap_or(true);
        // What a hostile process has written over this server's own words would stay for ever.
        let unsound = || !self.segment.is_sound(self.metadata_len);
        let stale = !self.segment.is_fresh() || unsound() || removed();
        // By taking the client's lock, never by a look alone: nobody can attach in between.
        if stale && Role::Client.claim(&self.segment.memory).unwrap_or(false) {
            Peer::Died
        } else {
            self.peer()
        }
    }

    fn slice(&self) -> Duration {
        // The account is read only before the first request: it lies in lines that the client writes
        // with every request, and a read takes them away from it.
        let idle = self.ring.is_untouched() && self.segment.is_fresh();
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
        match Role::Client.is_held(&self.0.segment.memory) {
            Ok(false) => Peer::Died,
            Ok(true) | Err(_) => Peer::Alive,
        }
    }

    fn slice(&self) -> Duration {
        STOP_SLICE
    }
}
