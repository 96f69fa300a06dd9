//! The end of the socket of a connection that was closed on this side (docs/protocol-service.md, section 6 "Ends"): with
//! it the server gives the client's place to others, and takes the memory back. So it ends at once, or with the last
//! response that is in somebody's hands.
//!
//! ```text
//! the thread that closes                      a thread that releases, or cancels
//! 1 closed = true; collecting ends            3 its entry of the table is not held, or not being cancelled, any more
//!   change the count of releases, or a fence    change the count of releases, or a fence
//! 2 check all entries                         4 if closed: check all entries
//! ```
//!
//! One of the two comes first: 2 finds what 3 has done, or 4 finds it closed, and then all entries that nobody holds.

use super::ClientChannel;
use crate::atomics::{Ordering, fence};
use crate::link::ToServer;
use crate::v2::ring::Held;

impl ClientChannel {
    /// From now on no response is handed out, but for those that a thread is about to. To be called once `closed` is set.
    pub(super) fn end_hand_outs(&self) {
        if !self.is_to_service() {
            return;
        }
        self.ring.end_collecting();
        // For ever: each release asks from now on whether it was the last one.
        self.room_waits.fetch_add(1, Ordering::Relaxed);
        self.ring.order_after_releases();
    }

    /// A response that outlives its client is released. Over names the segment may belong to the next client.
    #[cold]
    pub(super) fn release_after_close(&self, held: &Held) {
        if self.is_to_service() {
            self.ring.release_after_end(held);
            self.hang_up_if_unheld();
        }
    }

    /// A request was cancelled, or its response came first: then it can be collected, unless the connection was closed
    /// meanwhile.
    pub(super) fn hang_up_after_cancel(&self) {
        // As drawn above, and with that of `end_collecting`.
        fence(Ordering::SeqCst);
        if self.is_closed() && self.is_to_service() {
            self.ring.end_collecting();
            self.hang_up_if_unheld();
        }
    }

    /// Ends the socket of a connection that was closed, unless a response is in somebody's hands.
    #[cold]
    pub(super) fn hang_up_if_unheld(&self) {
        if let ToServer::Socket { sleepers, .. } = &self.link
            && self.is_closed()
            && self.ring.is_unheld()
        {
            sleepers.bell().shut_down();
        }
    }
}
