//! One client of a service.

use crate::atomics::{AtomicBool, Ordering};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::link::socket::Bell;
use crate::server::connection::Connection;
use crate::server::identity::ClientIdentity;
use crate::sys;
use crate::v2::layout::{REQUEST, RESPONSE, oieb};
use crate::v2::ring::{Take, Taken};
use std::sync::Arc;

/// Markers and cancelled requests that are passed in one turn: a client can publish them for ever.
const MAX_SKIPPED: u32 = 64;

/// A client with its place among the others.
#[derive(Debug)]
pub(super) struct Attached {
    bell: Arc<Bell>,
    pub(super) connection: Arc<Connection>,
    identity: Arc<ClientIdentity>,
    since_ns: u64,
    /// Nothing more is taken: the client has ended, or was told that the service ends.
    is_over: AtomicBool,
    /// It is not in the queue, and its bell brings it there.
    is_armed: AtomicBool,
}

impl Attached {
    /// A client whose bell was armed when its segment was made.
    pub(super) fn new(
        connection: Connection,
        bell: Arc<Bell>,
        identity: Arc<ClientIdentity>,
    ) -> Self {
        let (is_over, is_armed) = (AtomicBool::new(false), AtomicBool::new(true));
        let (connection, since_ns) = (Arc::new(connection), sys::monotonic_ns());
        Self { bell, connection, identity, since_ns, is_over, is_armed }
    }

    pub(super) fn number(&self) -> u64 {
        self.identity.number()
    }

    pub(super) fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    /// When it came.
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Whether nothing may be taken any more. A thread that takes at this moment was not told in time, which
    /// does no harm: either its client has ended, or it is none of those that the end of a service waits for
    /// (see `tenure`).
    #[inline(always)]
    fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `forbid`.
        self.is_over.load(Ordering::Acquire)
    }

    fn forbid(&self) {
        // Release: pairs with the Acquire in `is_over`.
        self.is_over.store(true, Ordering::Release);
        self.connection.end_responses();
    }

    /// The usual case of [`Attached::take`].
    #[inline(always)]
    pub(super) fn take_at_once(&self) -> Option<Taken> {
        // With a client's first request come its metadata.
        let is_usual = self.connection.has_client_metadata() && !self.is_over();
        if is_usual { self.connection.ring.take_at_once() } else { None }
    }

    /// Takes its next request, if there is one. One thread at a time: the one that has it in its hands.
    ///
    /// # Errors
    /// `ProtocolViolation`: its connection is to end.
    pub(super) fn take(&self) -> Result<Option<Taken>> {
        if !self.connection.ring.is_ready() {
            return Ok(None);
        }
        if self.is_over() || self.bell.has_ended() {
            return Ok(None);
        }
        for _ in 0..MAX_SKIPPED {
            match self.connection.take()? {
                Take::Request(taken) => return Ok(Some(taken)),
                Take::Nothing => break,
                Take::Skipped => self.bell.wake_peer(),
            }
        }
        Ok(None)
    }

    /// Has the bell bring it to the queue; whether there is something to look at already.
    pub(super) fn arm(&self) -> bool {
        // No request has come for a moment.
        self.connection.ring.publish_account();
        // AcqRel: a thread that has taken an event for nothing, since this was in the queue, did so before, and
        // what that event said is seen below.
        self.is_armed.swap(true, Ordering::AcqRel);
        self.bell.hear();
        self.bell.arm();
        self.connection.ring.is_ready() || self.bell.has_ended()
    }

    /// It goes into the queue. False: somebody else has put it there.
    pub(super) fn leave_armed(&self) -> bool {
        // AcqRel: pairs with `arm`.
        self.is_armed.swap(false, Ordering::AcqRel)
    }

    /// The client has ended, or broke the protocol.
    pub(super) fn end(&self) {
        self.forbid();
        self.connection.link.abandon();
        failpoint!("end.abandoned");
        self.bell.shut_down();
        failpoint!("end.shut_down");
    }

    /// The service ends: nothing more is taken, and the client is told so before its socket ends.
    pub(super) fn close(&self) {
        self.forbid();
        let segment = &self.connection.segment;
        failpoint!("goodbye.forbidden");
        segment.store(REQUEST + oieb::READER_PID, 0);
        failpoint!("goodbye.one_pid");
        segment.store(RESPONSE + oieb::WRITER_PID, 0);
        failpoint!("goodbye.before_bell");
        self.bell.wake_peer();
        failpoint!("goodbye.told");
        self.bell.shut_down();
        failpoint!("goodbye.shut_down");
    }
}

/// Requests that have ended, by how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

impl Ended {
    pub(super) fn of(client: &Attached) -> Self {
        let (ring, failed) = (&client.connection.ring, client.connection.failed());
        Self { done: ring.answered().saturating_sub(failed), failed, cancelled: ring.skipped() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
    }
}
