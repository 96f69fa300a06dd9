//! What is in flight on one channel of two buffers: requests in their order, and responses that wait for their
//! threads.

use crate::error::{Error, LostRequest, RequestState, Result};
use crate::v1::reader::OwnedFrameView;
use crate::v1::writer::Writer;
use std::collections::VecDeque;

pub(super) const DESYNCHRONISED: Error =
    Error::Desynchronised { reason: "a response came that no request had asked for" };

/// The requests and responses of one channel, under its lock.
#[derive(Debug)]
pub(super) struct State {
    /// `None` while a request is being filled or waits for room, and after the end.
    pub(super) requests: Option<Box<Writer>>,
    /// The number of the next request.
    pub(super) next: u64,
    /// In the order in which they were sent.
    pub(super) pending: VecDeque<Pending>,
    /// Responses that came while others were asked for.
    pub(super) ready: VecDeque<OwnedFrameView>,
    /// The requests whose responses threads wait for by their numbers.
    pub(super) wanted: Vec<u64>,
    /// A thread waits in the response buffer.
    pub(super) is_reading: bool,
    /// Threads that sleep until something changes.
    pub(super) sleepers: u32,
    /// A response came that no request had asked for.
    pub(super) surplus: bool,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// None so far.
    Open,
    Closed,
    /// Another connection takes its place.
    Replaced,
}

/// A request whose response has not come.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) len: u64,
    pub(super) is_cancelled: bool,
}

impl State {
    /// The first request gets the number `next`.
    pub(super) fn new(requests: Writer, next: u64) -> Self {
        Self {
            requests: Some(Box::new(requests)),
            next,
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            wanted: Vec::new(),
            is_reading: false,
            sleepers: 0,
            surplus: false,
            end: End::Open,
        }
    }

    pub(super) fn take_ready(&mut self, number: Option<u64>) -> Option<OwnedFrameView> {
        let Self { ready, wanted, .. } = self;
        let index = ready.iter().position(|frame| match number {
            Some(number) => frame.sequence() == number,
            None => !wanted.contains(&frame.sequence()),
        });
        ready.remove(index?)
    }

    pub(super) fn is_waiting_for(&self, number: u64) -> bool {
        self.pending.iter().any(|entry| entry.number == number && !entry.is_cancelled)
    }

    /// A response has come: it is the caller's that waits for request `number` or for any, or kept.
    pub(super) fn arrived(
        &mut self,
        frame: OwnedFrameView,
        number: Option<u64>,
    ) -> Result<Option<OwnedFrameView>> {
        let Some(request) = self.pending.pop_front() else {
            self.surplus = true;
            return Err(DESYNCHRONISED);
        };
        if request.is_cancelled {
            return Ok(None);
        }
        let frame = frame.renumbered(request.number);
        let is_ours = match number {
            Some(number) => number == request.number,
            None => !self.wanted.contains(&request.number),
        };
        if is_ours {
            return Ok(Some(frame));
        }
        self.ready.push_back(frame);
        Ok(None)
    }

    /// The request that a thread is told of that waits for `number`, or for any: it is forgotten.
    pub(super) fn lose(&mut self, number: Option<u64>) -> Option<Pending> {
        self.pending.retain(|pending| !pending.is_cancelled);
        match number {
            Some(number) => {
                let index = self.pending.iter().position(|pending| pending.number == number);
                self.pending.remove(index?)
            }
            None => {
                let Self { pending, wanted, .. } = self;
                let index = pending.iter().position(|pending| !wanted.contains(&pending.number));
                pending.remove(index?)
            }
        }
    }
}

/// Nothing tells whether the handler ran on it.
pub(super) fn in_doubt(sequence: u64) -> LostRequest {
    LostRequest { sequence, state: RequestState::InDoubt }
}
