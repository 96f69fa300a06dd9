//! One client's connection over two buffers, for any number of threads: which response responses which
//! request.
//!
//! Responses come in the order of the requests; this is all that ties them together (rule X1). So requests
//! enter the list of what is in flight in the order in which they are published, and one thread at a time
//! reads responses and hands each to the thread that waits for it.

use super::connect::connect;
use super::in_flight::{DESYNCHRONISED, End, Pending, State, in_doubt};
use crate::closer::Closer;
use crate::config::ClientConfig;
use crate::error::{Error, LostRequest, Medium, Result};
use crate::memory::SharedMemoryView;
use crate::v1::reader::{OwnedFrameView, Reader};
use crate::v1::ring::Claim;
use crate::v1::writer::Writer;
use crate::wait::Deadline;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most that a thread sleeps that waits for another one to read.
const NAP: Duration = Duration::from_secs(3600);

const REPLACED: Error = Error::InvalidState {
    reason: "its connection has ended, and the client reconnects; acquire a new buffer",
};
pub(crate) const SAME_LENGTH: Error = Error::InvalidState {
    reason: "a frame of version 1 has the length that it was acquired with; acquire another one",
};

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Channel {
    name: String,
    responses: Reader,
    ends: [Closer; 2],
    /// The number of the first request.
    first: u64,
    max_request: usize,
    max_in_flight: usize,
    /// Half of the response buffer (rule X5).
    budget: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Brings the thread that reads back early, to check what it waits for.
    recheck: AtomicBool,
}

impl Channel {
    /// Connects to the server of `name`, which `is_cancelled` ends early. The first request gets the
    /// number `next`.
    ///
    /// # Errors
    /// `NotRunning` if there is no server, or none that responds; `Busy` if it has another client;
    /// `Closed` if it was cancelled; `BadName`, `BadConfig`, `PermissionDenied`, `ForeignObject`,
    /// `Incompatible`, `NoSpace`, and for metadata `TooLarge` and `MetadataAlreadyWritten`. Nothing is
    /// left behind.
    pub(crate) fn connect(
        name: &str,
        config: &ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
        next: u64,
    ) -> Result<Arc<Self>> {
        let (requests, responses) = connect(name, config, deadline, is_cancelled)?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            ends: [requests.closer(), responses.closer()],
            first: next,
            max_request: requests.max_frame_size(),
            max_in_flight: config.max_in_flight,
            budget: config.response_buffer.payload_size as u64 / 2,
            state: Mutex::new(State::new(requests, next)),
            responses,
            changed: Condvar::new(),
            recheck: AtomicBool::new(false),
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_this_process(&self) -> bool {
        self.responses.is_this_process()
    }

    /// To be asked before any lock: in a forked child another thread may have held it.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_this_process() { Ok(()) } else { Err(Error::WrongProcess) }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.check_process()?;
        self.responses.check_usable()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A system call only if a thread sleeps.
    fn notify(&self, state: MutexGuard<'_, State>) {
        if state.sleepers > 0 {
            drop(state);
            self.changed.notify_all();
        }
    }

    fn sleep<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        deadline: &Deadline,
    ) -> MutexGuard<'s, State> {
        state.sleepers += 1;
        let slept = self.changed.wait_timeout(state, deadline.left().min(NAP));
        let mut state = slept.unwrap_or_else(PoisonError::into_inner).0;
        state.sleepers -= 1;
        state
    }

    /// Whether the server reads requests and is attached to the responses at this moment.
    pub(crate) fn is_server_connected(&self) -> bool {
        self.is_this_process()
            && self.responses.is_writer_connected()
            // While a request is being filled its thread finds out.
            && self.state().requests.as_ref().is_none_or(|writer| writer.is_reader_connected())
            && self.check().is_ok()
    }

    /// Whether responses may not match: a cancelled request's response has not come yet, or one came
    /// that no request had asked for.
    pub(crate) fn is_desynchronised(&self) -> bool {
        if !self.is_this_process() {
            return false;
        }
        let state = self.state();
        state.surplus || state.pending.iter().any(|pending| pending.is_cancelled)
    }

    /// Requests whose response has not come.
    pub(crate) fn in_flight(&self) -> usize {
        if self.is_this_process() { self.state().pending.len() } else { 0 }
    }

    /// The most bytes that a request can have.
    pub(crate) fn max_request_size(&self) -> usize {
        self.max_request
    }

    /// Whether the number was given here, or will be.
    pub(crate) fn has_counted(&self, number: u64) -> bool {
        number >= self.first
    }

    /// The number of the next request.
    pub(crate) fn next_number(&self) -> u64 {
        self.state().next
    }

    // ---- sending ----

    /// Copies `data` into the ring and sends it.
    pub(crate) fn send(
        self: &Arc<Self>,
        data: &[u8],
        deadline: &Deadline,
        patience: Patience,
    ) -> Result<u64> {
        let mut request = self.acquire(data.len(), deadline, patience)?;
        request.data_mut().copy_from_slice(data);
        request.commit(false)
    }

    /// Room for a request of `size` bytes. Nothing else can be sent while the caller has it.
    ///
    /// # Errors
    /// `Full`; `ClaimOpen` while another request is being filled; those of the writer; `Desynchronised`.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        size: usize,
        deadline: &Deadline,
        patience: Patience,
    ) -> Result<Filling> {
        self.check_process()?;
        let mut state = self.state();
        loop {
            self.check_open(&state)?;
            self.check_order(&mut state)?;
            match self.check_in_flight(&state, size as u64) {
                Ok(()) => break,
                Err(full) if patience == Patience::None || deadline.left().is_zero() => {
                    return Err(full);
                }
                // Other threads receive.
                Err(_) => state = self.sleep(state, deadline),
            }
        }
        let mut writer = state.requests.take().ok_or(Error::ClaimOpen)?;
        let placed = writer.place(size);
        // What waits for room waits without the lock.
        drop(state);
        let mut filling = Filling { channel: Arc::clone(self), writer: Some(writer), claim: None };
        let (claim, has_room) = placed?;
        if let Some(writer) = filling.writer.as_ref().filter(|_| !has_room) {
            writer.wait_for_room(&claim, deadline, None)?;
        }
        filling.claim = Some(claim);
        Ok(filling)
    }

    fn check_open(&self, state: &State) -> Result<()> {
        match state.end {
            End::Open => self.responses.check_usable(),
            End::Closed => Err(Error::Closed),
            End::Replaced => Err(Error::PeerClosed { request: None }),
        }
    }

    /// A response that is there before its request shows that the server sends more than it should.
    fn check_order(&self, state: &mut State) -> Result<()> {
        let is_idle = state.pending.is_empty() && !state.is_reading;
        if is_idle && self.responses.has_token() {
            state.surplus |= self.responses.read_frame(Duration::ZERO).is_ok();
        }
        if state.surplus { Err(DESYNCHRONISED) } else { Ok(()) }
    }

    /// Bounds what is in flight by the response buffer (rule X5).
    fn check_in_flight(&self, state: &State, size: u64) -> Result<()> {
        let pending = &state.pending;
        let cost = |len: u64| len + 16;
        let in_flight: u64 = pending.iter().map(|pending| cost(pending.len)).sum();
        let fits = in_flight + cost(size) <= self.budget && pending.len() < self.max_in_flight;
        if pending.is_empty() || fits {
            return Ok(());
        }
        Err(Error::Full {
            medium: Medium::Channel,
            needed: cost(size),
            free: self.budget.saturating_sub(in_flight),
            in_flight: pending.len() as u64,
            held: 0,
        })
    }

    // ---- receiving ----

    /// The response to request `number`, or to the oldest one that no other thread waits for.
    ///
    /// # Errors
    /// `Timeout`, which changes nothing; `UnknownSequence` if no such request waits for a response;
    /// `PeerClosed` and `PeerDied` with the request, or the oldest one, which is forgotten by that;
    /// `Desynchronised`, `ProtocolViolation`, `SequenceGap`, `Closed`, `WrongProcess`.
    pub(crate) fn receive(
        &self,
        number: Option<u64>,
        deadline: &Deadline,
    ) -> Result<OwnedFrameView> {
        self.check_process()?;
        let mut state = self.state();
        state.wanted.extend(number);
        self.receive_wanted(state, number, deadline)
    }

    /// The response to the request of a call, which is cancelled when the deadline passes.
    pub(crate) fn receive_for_call(
        &self,
        number: u64,
        deadline: &Deadline,
    ) -> Result<OwnedFrameView> {
        self.check_process()?;
        let received = self.receive_wanted(self.state(), Some(number), deadline);
        self.cancel_after(number, received)
    }

    /// What is received by its number is in the list of what is wanted already.
    fn receive_wanted<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        number: Option<u64>,
        deadline: &Deadline,
    ) -> Result<OwnedFrameView> {
        let received;
        (state, received) = match self.responses.check_usable() {
            Ok(()) => self.receive_in(state, number, deadline),
            Err(error) => {
                let error = self.explain(&mut state, error, number, deadline);
                (state, Err(error))
            }
        };
        if let Some(index) = state.wanted.iter().rposition(|wanted| Some(*wanted) == number) {
            state.wanted.swap_remove(index);
        }
        if received.is_err() && state.ready.iter().any(|frame| Some(frame.sequence()) == number) {
            // A thread that takes any response has passed it over.
            self.recheck.store(true, Ordering::Relaxed);
            self.notify(state);
        }
        received
    }

    fn receive_in<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        number: Option<u64>,
        deadline: &Deadline,
    ) -> (MutexGuard<'s, State>, Result<OwnedFrameView>) {
        loop {
            if let Some(frame) = state.take_ready(number) {
                return (state, Ok(frame));
            }
            let unknown = number.filter(|number| !state.is_waiting_for(*number));
            if let Some(sequence) = unknown.filter(|_| state.end == End::Open) {
                return (state, Err(Error::UnknownSequence { sequence }));
            }
            if !state.is_reading {
                let read;
                (state, read) = self.read(state, deadline);
                match read {
                    Ok(frame) => {
                        if let Some(arrived) = state.arrived(frame, number).transpose() {
                            return (state, arrived);
                        }
                    }
                    Err(None) => {}
                    Err(Some(error)) => {
                        let error = self.explain(&mut state, error, number, deadline);
                        return (state, Err(error));
                    }
                }
            } else if deadline.left().is_zero() {
                let error = self.timed_out(&state, deadline);
                return (state, Err(error));
            } else {
                state = self.sleep(state, deadline);
            }
        }
    }

    /// As [`Channel::receive`]; when the deadline passes the request is cancelled.
    pub(crate) fn receive_or_cancel(
        &self,
        number: u64,
        deadline: &Deadline,
    ) -> Result<OwnedFrameView> {
        self.cancel_after(number, self.receive(Some(number), deadline))
    }

    fn cancel_after(
        &self,
        number: u64,
        received: Result<OwnedFrameView>,
    ) -> Result<OwnedFrameView> {
        if matches!(received, Err(Error::Timeout { .. })) {
            self.cancel(number);
        }
        received
    }

    /// Reads the next response, on behalf of all threads. `Err(None)`: it was asked to check what it waits
    /// for.
    fn read<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        deadline: &Deadline,
    ) -> (MutexGuard<'s, State>, std::result::Result<OwnedFrameView, Option<Error>>) {
        state.is_reading = true;
        self.recheck.store(false, Ordering::Relaxed);
        drop(state);
        let read = self.responses.read_frame_unless(deadline.left(), &self.recheck);
        let read = read.map(crate::v1::reader::FrameView::into_owned);
        let mut state = self.state();
        state.is_reading = false;
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
        let asked = self.recheck.load(Ordering::Relaxed);
        let read = match read {
            // The handler may have seen its client leave, and stopped with half a response.
            Ok(_) if state.end != End::Open => Err(Some(Error::Closed)),
            Ok(frame) => Ok(frame),
            Err(Error::Timeout { .. } | Error::NotConnectedYet { .. }) if asked => Err(None),
            Err(error) => Err(Some(error)),
        };
        (state, read)
    }

    /// Cancels a request: its response, when it comes, is swallowed. True if it was waiting.
    pub(crate) fn cancel(&self, number: u64) -> bool {
        if !self.is_this_process() {
            return false;
        }
        let mut state = self.state();
        let mut pending = state.pending.iter_mut();
        let Some(found) = pending.find(|entry| entry.number == number && !entry.is_cancelled)
        else {
            return false;
        };
        found.is_cancelled = true;
        if state.wanted.contains(&number) {
            self.recheck.store(true, Ordering::Relaxed);
        }
        self.notify(state);
        true
    }

    /// Says which request a server's end has left without a response, and if the response may have been
    /// too long: a server whose response does not fit drops it (rule X5), or closes the channel.
    fn explain(
        &self,
        state: &mut State,
        error: Error,
        number: Option<u64>,
        deadline: &Deadline,
    ) -> Error {
        let lose = |state: &mut State, end: fn(Option<LostRequest>) -> Error| {
            let Some(Pending { number, len, .. }) = state.lose(number) else {
                // Another thread has listed it meanwhile; it was sent all the same.
                return end(number.filter(|number| *number < state.next).map(in_doubt));
            };
            let error = end(Some(in_doubt(number)));
            self.explain_length(error, len)
        };
        match error {
            Error::PeerClosed { .. } => lose(state, |request| Error::PeerClosed { request }),
            Error::PeerDied { .. } => lose(state, |request| Error::PeerDied { request }),
            Error::Closed if state.end == End::Replaced => {
                Error::PeerClosed { request: number.map(in_doubt) }
            }
            Error::Timeout { .. } | Error::NotConnectedYet { .. } => {
                self.timed_out(state, deadline)
            }
            error => error,
        }
    }

    fn timed_out(&self, state: &State, deadline: &Deadline) -> Error {
        let may_be_long = |pending: &Pending| pending.len > self.responses.sure_frame();
        let what = match state.pending.iter().any(may_be_long) {
            false => "waiting for the response",
            true => {
                "waiting for the response; one as long as its request may not fit the response \
                 buffer, then it never comes: make that buffer larger"
            }
        };
        Error::Timeout { waited: deadline.timeout(), what }
    }

    fn explain_length(&self, error: Error, len: u64) -> Error {
        let sure = self.responses.sure_frame();
        if len <= sure {
            return error;
        }
        let message = format!(
            "{error}; its response may have been too long: the request has {len} bytes, and responses of at \
             most {sure} are sure to fit the response buffer, so make that larger"
        );
        error.explained(message)
    }

    // ---- the end ----

    /// Ends every wait from whatever thread. What the channel holds stays until [`Channel::close`].
    pub(crate) fn end(&self) {
        self.end_as(End::Closed);
    }

    fn end_as(&self, end: End) {
        let mut state = self.state();
        if state.end == End::Open || end == End::Closed {
            state.end = end;
        }
        drop(state);
        self.ends.iter().for_each(Closer::close);
        self.changed.notify_all();
    }

    /// Ends it and removes what this side has made; the server then serves the next client. Responses that are
    /// held stay readable.
    pub(crate) fn close(&self) {
        if self.is_this_process() {
            self.end_as(End::Closed);
            self.let_go();
        }
    }

    /// The same to make room for another connection. Lists everything in flight.
    pub(crate) fn replace(&self) -> Vec<LostRequest> {
        self.end_as(End::Replaced);
        self.let_go();
        let mut state = self.state();
        let State { pending, ready, .. } = &mut *state;
        let waiting = pending.drain(..).filter(|pending| !pending.is_cancelled);
        let mut left: Vec<u64> = waiting.map(|pending| pending.number).collect();
        left.extend(ready.drain(..).map(|frame| frame.sequence()));
        left.sort_unstable();
        left.into_iter().map(in_doubt).collect()
    }

    /// Whether this side has closed it.
    pub(crate) fn has_ended_here(&self) -> bool {
        self.state().end == End::Closed
    }

    /// Whether another connection takes its place.
    pub(crate) fn is_replaced(&self) -> bool {
        self.state().end == End::Replaced
    }

    fn let_go(&self) {
        // First the writer: with it the server sees that its client leaves.
        let writer = self.state().requests.take();
        drop(writer);
        self.responses.remove();
    }
}

/// Whether one waits while too much is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The same thread would have to receive.
    None,
    /// Other threads receive.
    UntilDeadline,
}

/// A request that is being written in place. Dropping it sends nothing.
#[derive(Debug)]
pub(crate) struct Filling {
    channel: Arc<Channel>,
    /// `None` once it is back in the channel.
    writer: Option<Box<Writer>>,
    /// `None` while there is no room yet.
    claim: Option<Claim>,
}

impl Filling {
    /// The request's bytes, in shared memory; empty in a forked child.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        match (&self.writer, &mut self.claim) {
            (Some(writer), Some(claim)) => writer.data_mut(claim),
            _ => &mut [],
        }
    }

    /// The bytes as memory that stays mapped for as long as the view lives.
    pub(crate) fn memory(&self) -> SharedMemoryView {
        match (&self.writer, &self.claim) {
            (Some(writer), Some(claim)) => writer.memory(claim),
            _ => SharedMemoryView::empty(),
        }
    }

    /// The number that the request gets when it is committed.
    pub(crate) fn number(&self) -> u64 {
        if self.channel.is_this_process() { self.channel.state().next } else { 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.claim.as_ref().map_or(0, Claim::len)
    }

    /// Sends the request, and returns its number. The response to an addressed one is kept for the caller, who
    /// follows with [`Channel::receive_for_call`].
    ///
    /// # Errors
    /// `PeerClosed`, `Closed`, `WrongProcess`; `InvalidState` if its client has reconnected.
    pub(crate) fn commit(mut self, addressed: bool) -> Result<u64> {
        self.channel.check_process()?;
        let mut state = self.channel.state();
        match state.end {
            End::Open => {}
            End::Closed => return Err(Error::Closed),
            End::Replaced => return Err(REPLACED),
        }
        let (Some(mut writer), Some(claim)) = (self.writer.take(), self.claim.take()) else {
            return Err(Error::ClaimOpen);
        };
        let len = claim.len();
        // Under the lock: a response finds its request in the list.
        let committed = writer.commit(claim);
        let number = state.next;
        if committed.is_ok() {
            state.next += 1;
            state.pending.push_back(Pending { number, len, is_cancelled: false });
            if addressed {
                state.wanted.push(number);
            }
        }
        state.requests = Some(writer);
        committed.map(|_| number)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // In a forked child another thread may have held the lock.
        if let Some(writer) = self.writer.take().filter(|_| self.channel.is_this_process()) {
            let mut state = self.channel.state();
            if state.end == End::Open {
                state.requests = Some(writer);
            }
        }
    }
}

#[cfg(all(test, not(loom), not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::BufferConfig;
    use crate::error::RequestState;
    use crate::v1::{Draft, DuplexServer};

    /// The server ends, a thread that reads hears of it, and before it has the lock another one has listed the request
    /// and made room for the next connection.
    #[test]
    fn a_request_that_was_listed_is_in_doubt_to_the_thread_that_waits_for_it() {
        let name = format!("listed-{}", std::process::id());
        let mut server = DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
        server.start_mutable(|_: &mut Draft<'_>| {}).unwrap();
        let soon = Deadline::after(Duration::from_secs(20));
        let config = ClientConfig::new();
        let channel = Channel::connect(&name, &config, &soon, &|| false, 1).unwrap();
        let number = channel.send(b"request", &soon, Patience::None).unwrap();
        assert_eq!(channel.replace().len(), 1);
        for end in [Error::PeerClosed { request: None }, Error::PeerDied { request: None }] {
            let error = channel.explain(&mut channel.state(), end, Some(number), &soon);
            assert_eq!(error.lost_request().map(|lost| lost.state), Some(RequestState::InDoubt));
        }
    }
}
