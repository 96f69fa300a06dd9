//! The end of a connection's list of requests: sealed first, then listed, then replaced.

use super::channel::ClientChannel;
use super::number::Number;
use crate::error::{LostRequest, RequestState};

/// A connection on which nothing is committed any more, so that what is in flight can be listed: whatever
/// is not in the list was never sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'c> {
    channel: &'c ClientChannel,
}

impl<'c> Sealed<'c> {
    /// For [`ClientChannel::seal`] alone.
    pub(super) fn new(channel: &'c ClientChannel) -> Self {
        Self { channel }
    }

    /// The requests without a collected answer, the oldest first.
    pub(super) fn pending(self) -> impl Iterator<Item = Number> + 'c {
        let channel = self.channel;
        channel.ring().pending().map(|sequence| channel.number(sequence))
    }

    /// How many numbers were used up to the end of this connection.
    pub(super) fn used_numbers(self) -> u64 {
        self.channel.number(self.channel.ring().next_sequence() - 1).for_caller()
    }

    /// What is known of a request that is cancelled with its connection.
    pub(super) fn lost_request(self, number: Number, server_lives: bool) -> LostRequest {
        // A server that lives may be at work on any of them.
        match server_lives || self.channel.is_answered(number) {
            true => LostRequest { sequence: number.for_caller(), state: RequestState::InDoubt },
            false => self.channel.lost_request(number),
        }
    }

    /// What is known of everything in flight.
    pub(super) fn report(self) -> Vec<LostRequest> {
        let lives = self.channel.has_server();
        self.pending().map(|number| self.lost_request(number, lives)).collect()
    }
}
