//! One client's connection, as its requests know it: however the client came, and whatever thread took them.

use super::identity::ClientIdentity;
use super::limit::Limit;
use crate::atomics::{AtomicBool, AtomicU64, Ordering, fence};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::link::ToClient;
use crate::link::segment::{Block, Segment};
use crate::v2::ring::{ServerRing, Take, Taken};
use std::sync::{Arc, OnceLock};

/// The segment, the ring on it, and the way to the client. Requests that are being handled keep it, while
/// the server may have gone on to another one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) segment: Segment,
    pub(super) ring: ServerRing,
    pub(super) link: ToClient,
    /// A copy of the client's metadata, made when its first request is taken.
    client_metadata: OnceLock<Vec<u8>>,
    /// The client is told that its server has ended: no response is delivered from now on.
    is_over: AtomicBool,
    /// Responses that were failures.
    failed: AtomicU64,
    /// Who the client is, as far as a socket tells.
    client: Option<Arc<ClientIdentity>>,
    /// Of its requests in hand.
    limit: Option<Limit>,
}

impl Connection {
    /// `is_concurrent`: several threads answer.
    pub(super) fn new(segment: Segment, link: ToClient, is_concurrent: bool) -> Self {
        let ring =
            ServerRing::new(segment.control.clone(), segment.payload_words(), &segment.geometry);
        if is_concurrent {
            ring.set_concurrent();
        }
        let (client_metadata, is_over) = (OnceLock::new(), AtomicBool::new(false));
        let (failed, client, limit) = (AtomicU64::new(0), None, None);
        Self { segment, ring, link, client_metadata, is_over, failed, client, limit }
    }

    /// The same, of a client that is known.
    pub(super) fn of_client(self, client: Arc<ClientIdentity>, limit: Option<Limit>) -> Self {
        Self { client: Some(client), limit, ..self }
    }

    /// Whether nothing is to be taken until one of the requests in hand is answered.
    #[inline(always)]
    pub(super) fn is_at_limit(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.is_reached(self.ring.in_hand()))
    }

    /// See [`Limit::sets_aside`].
    pub(super) fn sets_aside(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.sets_aside(|| self.ring.in_hand()))
    }

    /// Who the client is.
    pub(super) fn client(&self) -> Option<&ClientIdentity> {
        self.client.as_deref()
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

    /// Publishes the response to `taken`, unless the client is told already that there will be none.
    #[inline(always)]
    pub(super) fn answer(&self, taken: &Taken, len: u64, status: u16) {
        // Relaxed: a thread that has read this as true in `is_wanted`, or one that it tells, reads it so again.
        if self.is_over.load(Ordering::Relaxed) {
            // That of the WAKE that is left out: see `Away::come_back`.
            return fence(Ordering::SeqCst);
        }
        self.ring.answer(taken, len, status);
        failpoint!("answer.before_post");
        self.link.wake_receiver();
        if let Some(limit) = &self.limit {
            limit.answered();
        }
    }

    /// The response that is about to be published is a failure.
    pub(super) fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Failures so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// From now on no response is delivered; to be called before the client is told that its server has ended.
    /// A handler that stops its work because of `is_wanted` leaves half a response, which must not go out.
    pub(super) fn end_responses(&self) {
        // Release: pairs with the Acquire in `is_wanted`.
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether the client can still get the response to `taken` and wants it: it lives, has not cancelled the
    /// request, and was not told that its server has ended. A server that is being stopped delivers the
    /// responses that come until then.
    pub(super) fn is_wanted(&self, taken: &Taken) -> bool {
        // Acquire: pairs with the Release in `end_responses`.
        !self.ring.is_cancelled(taken)
            && self.is_client_connected()
            && !self.is_over.load(Ordering::Acquire)
    }

    /// Whether a client is attached at this moment.
    pub(super) fn is_client_connected(&self) -> bool {
        self.segment.has_client_pid() && self.link.has_client()
    }
}
