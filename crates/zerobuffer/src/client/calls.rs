//! Calls that no thread waits for, as callers see them: futures, and callbacks with a handle to cancel.

use super::completions::{
    Call, Completions, Fill, OnDone, Queued, Request, SendTurn, Sent, has_ended, is_sealed,
};
use super::number::Number;
use super::shared::{InPlace, SharedClient};
use super::turns::Refused;
use super::{OwnedResponse, RequestLayout};
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::sys;
use crate::v2::layout::Demand;
use crate::wait::Deadline;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A call under way that no thread blocks for; see [`SharedClient::start_call`].
#[derive(Clone)]
pub struct CallHandle {
    calls: Weak<dyn Cancel>,
    id: u64,
    fork_generation: u32,
}

/// Where calls are cancelled by their numbers.
pub(super) trait Cancel: Send + Sync {
    /// True if nothing will come of the call.
    fn cancel(&self, id: u64) -> bool;
}

impl Cancel for Completions {
    fn cancel(&self, id: u64) -> bool {
        self.cancel(id)
    }
}

debug_line!(CallHandle, "CallHandle", |handle| id: handle.id);

impl CallHandle {
    pub(super) fn new<T: Cancel + 'static>(calls: &Arc<T>, id: u64) -> Self {
        let calls: Weak<T> = Arc::downgrade(calls);
        Self { calls, id, fork_generation: sys::fork_generation() }
    }

    /// The call's number among those of its client, for [`SharedClient::cancel_call`]: for code that can keep a
    /// number and no handle, like a binding for another language.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Cancels the call. True if nothing will come of it: its callback is dropped, without being called,
    /// before this returns, or soon after if the completer has the call in hand at this moment. False if its
    /// callback is being called, was, or is about to be. Dropping the handle cancels nothing.
    ///
    /// The server may be working on the request all the same; its late response is swallowed.
    pub fn cancel(&self) -> bool {
        self.fork_generation == sys::fork_generation()
            && self.calls.upgrade().is_some_and(|calls| calls.cancel(self.id))
    }
}

/// A call as a future, which any executor can run: [`SharedClient::call_async`] makes it.
///
/// Dropping it cancels the request.
#[must_use = "a call that is dropped is cancelled"]
pub struct CallFuture {
    slot: Arc<Mutex<Slot>>,
    /// `None` if it failed at once, or is done.
    handle: Option<CallHandle>,
    fork_generation: u32,
}

debug_line!(CallFuture, "CallFuture", |future| is_done: future.handle.is_none());

/// Where the completer leaves the outcome.
#[derive(Default)]
struct Slot {
    outcome: Option<Result<OwnedResponse>>,
    waker: Option<Waker>,
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallFuture {
    pub(super) fn start(
        start: impl FnOnce(Box<dyn FnOnce(Result<OwnedResponse>) + Send>) -> Result<CallHandle>,
    ) -> Self {
        let slot = Arc::<Mutex<Slot>>::default();
        let place = Arc::clone(&slot);
        let on_done = Box::new(move |outcome| {
            let mut slot = lock(&place);
            slot.outcome = Some(outcome);
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let handle = match start(on_done) {
            Ok(handle) => Some(handle),
            Err(error) => {
                lock(&slot).outcome = Some(Err(error));
                None
            }
        };
        Self { slot, handle, fork_generation: sys::fork_generation() }
    }
}

impl Future for CallFuture {
    type Output = Result<OwnedResponse>;

    /// Once it has returned the outcome, it returns [`Error::InvalidState`].
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Before the lock, which another thread may have had when the process forked.
        if self.fork_generation != sys::fork_generation() {
            return Poll::Ready(Err(Error::WrongProcess));
        }
        let mut slot = lock(&self.slot);
        if let Some(outcome) = slot.outcome.take() {
            drop(slot);
            self.handle = None;
            return Poll::Ready(outcome);
        }
        if self.handle.is_none() {
            return Poll::Ready(Err(Error::InvalidState {
                reason: "its outcome was returned before",
            }));
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for CallFuture {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

impl SharedClient {
    /// As [`call`](Self::call), but no thread waits for the response: the returned future does, on any
    /// executor and without a runtime's timer. Nothing here blocks the calling thread. The request is sent
    /// before this returns if there is room and no other one is before it; otherwise it waits for its turn
    /// and for room in the background, in order and within `timeout`.
    ///
    /// Dropping the future cancels the request. With [`ClientConfig::resend_not_started`](crate::ClientConfig::resend_not_started) the request is
    /// sent again after a server's end. The first such call of a client starts a thread, `zb-completer`,
    /// which takes the signals that the calling thread takes, sleeps while nothing happens, and ends with the connection.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Frame, Server};
    /// # let name = format!("doc-call-async-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// let second = Duration::from_secs(1);
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// runtime.block_on(async {
    ///     let (one, two) = (client.call_async(b"one", second), client.call_async(b"two", second));
    ///     assert_eq!(two.await?.data(), b"TWO");
    ///     assert_eq!(one.await?.data(), b"ONE");
    ///     Ok::<(), zerobuffer::Error>(())
    /// })?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// The future's are those of [`call`](Self::call), with [`Error::lost_request`] also for what still waited
    /// for its turn; over two buffers
    /// ([`is_in_place`](Self::is_in_place) is false) [`Error::Unsupported`].
    pub fn call_async(&self, data: &[u8], timeout: Duration) -> CallFuture {
        CallFuture::start(|on_done| {
            let (mut payload, layout) = (Payload::Copy(data), RequestLayout::new());
            self.submit_outcome(data.len(), layout, &mut payload, timeout, on_done)
        })
    }

    /// As [`call_async`](Self::call_async), but `fill` writes the request, of `size` bytes, where the server
    /// will read it: on this thread before this returns, or later on the completer's. It is called again if
    /// another thread has reconnected before the request was sent.
    ///
    /// # Errors
    /// The future's are those of [`call_with`](Self::call_with).
    pub fn call_async_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
    ) -> CallFuture {
        CallFuture::start(|on_done| {
            let mut payload = Payload::Fill(Some(Box::new(fill)));
            self.submit_outcome(size, layout, &mut payload, timeout, on_done)
        })
    }

    /// As [`call_async`](Self::call_async), for programs without futures, such as bindings: `on_done` gets
    /// the outcome. It runs on the completer's thread, whose other calls wait meanwhile: it is to be short
    /// and must not block. What it panics with is dropped. It may use this client; to send it should start
    /// another call and not make a blocking one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Frame, Server};
    /// # let name = format!("doc-start-call-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// let second = Duration::from_secs(1);
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let (done, outcome) = std::sync::mpsc::channel();
    /// let call = client.start_call(b"hello", second, move |response| done.send(response).unwrap())?;
    /// assert_eq!(outcome.recv().unwrap()?.data(), b"HELLO");
    /// assert!(!call.cancel(), "it is done");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// What is known at once; `on_done` is dropped then: [`Error::Unsupported`] over two buffers,
    /// [`Error::TooLarge`], [`Error::Closed`],
    /// [`Error::WrongProcess`], [`Error::ProtocolViolation`], [`Error::PeerDied`] and
    /// [`Error::PeerClosed`] unless requests are sent again, [`Error::System`] if the thread cannot be
    /// started. All others come to `on_done`. [`Error::lost_request`] tells what became of the request at
    /// the server's end, also if it was never sent.
    pub fn start_call(
        &self,
        data: &[u8],
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        let (mut payload, layout) = (Payload::Copy(data), RequestLayout::new());
        self.submit_outcome(data.len(), layout, &mut payload, timeout, Box::new(on_done))
    }

    /// As [`start_call`](Self::start_call), for callers to whom a few microseconds are no wait: if no other such call is
    /// under way, it checks for the response for so long. A response that comes at once needs no other thread, so it
    /// comes several times sooner.
    ///
    /// `Break`: the response, and `on_done` is dropped. `Continue`: as from `start_call`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Frame, Server};
    /// # let name = format!("doc-try-start-call-{}", std::process::id());
    /// # let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// # server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
    /// use std::ops::ControlFlow;
    /// let second = Duration::from_secs(1);
    /// let client = Client::connect(&name, second)?.into_shared();
    /// let (done, outcome) = std::sync::mpsc::channel();
    /// let started = client.try_start_call(b"hello", second, move |response| done.send(response).unwrap())?;
    /// let response = match started {
    ///     ControlFlow::Break(response) => response,
    ///     ControlFlow::Continue(_) => outcome.recv().unwrap()?,
    /// };
    /// assert_eq!(response.data(), b"HELLO");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn try_start_call(
        &self,
        data: &[u8],
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<ControlFlow<OwnedResponse, CallHandle>> {
        let (size, mut payload) = (data.len(), Payload::Copy(data));
        let (demand, deadline) = (RequestLayout::new().demand(size)?, Deadline::after(timeout));
        let sent = self.send_first(size, demand, &mut payload)?;
        let calls = &self.inner.completions;
        // With others under way the caller has more to do than to wait for this one.
        let is_alone = calls.state().is_empty();
        if let Some((connection, number)) = &sent
            && is_alone
        {
            let held = connection.channel.receive_at_once(*number);
            calls.came_at_once.store(held.is_some(), Ordering::Relaxed);
            if let Some(held) = held {
                let channel = Arc::clone(&connection.channel);
                return Ok(ControlFlow::Break(OwnedResponse::new(channel, held)));
            }
        }
        let on_done = OnDone::Outcome(Box::new(on_done));
        let request = || payload.keep(size, demand);
        self.add(sent, &deadline, on_done, request).map(ControlFlow::Continue)
    }

    /// As [`start_call`](Self::start_call), but `fill` writes the request, as for
    /// [`call_async_with`](Self::call_async_with).
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call); [`Error::BadConfig`] for an impossible alignment.
    pub fn start_call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        fill: impl FnMut(&mut [u8]) + Send + 'static,
        timeout: Duration,
        on_done: impl FnOnce(Result<OwnedResponse>) + Send + 'static,
    ) -> Result<CallHandle> {
        let mut payload = Payload::Fill(Some(Box::new(fill)));
        self.submit_outcome(size, layout, &mut payload, timeout, Box::new(on_done))
    }

    /// As [`CallHandle::cancel`], for the call of that [`id`](CallHandle::id).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use zerobuffer::{BufferConfig, Client, Server};
    /// # let name = format!("doc-cancel-call-{}", std::process::id());
    /// # let server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let client = Client::connect(&name, Duration::from_secs(5))?.into_shared();
    /// // Nobody responds.
    /// let id = client.start_call(b"ping", Duration::MAX, |_| unreachable!())?.id();
    /// assert!(client.cancel_call(id));
    /// assert!(!client.cancel_call(id), "no such call any more");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn cancel_call(&self, id: u64) -> bool {
        self.inner.fork_generation == sys::fork_generation() && self.inner.completions.cancel(id)
    }

    fn submit_outcome(
        &self,
        size: usize,
        layout: RequestLayout,
        payload: &mut Payload<'_>,
        timeout: Duration,
        on_done: Box<dyn FnOnce(Result<OwnedResponse>) + Send>,
    ) -> Result<CallHandle> {
        let on_done = OnDone::Outcome(on_done);
        self.submit(size, layout.demand(size)?, payload, &Deadline::after(timeout), on_done)
    }

    /// Starts a call. If it fails at once, `payload` is unchanged.
    pub(super) fn submit(
        &self,
        size: usize,
        demand: Demand,
        payload: &mut Payload<'_>,
        deadline: &Deadline,
        on_done: OnDone,
    ) -> Result<CallHandle> {
        let sent = self.send_first(size, demand, payload)?;
        self.add(sent, deadline, on_done, || payload.keep(size, demand))
    }

    /// Sends a request, if there is room and none is to be sent before it.
    fn send_first(
        &self,
        size: usize,
        demand: Demand,
        payload: &mut Payload<'_>,
    ) -> Result<Option<(InPlace, Number)>> {
        let connection = self.in_place()?;
        connection.channel.check()?;
        let calls = &self.inner.completions;
        calls.ensure_completer(&self.inner)?;
        if !calls.state().may_overtake_nothing() {
            return Ok(None);
        }
        match payload.send_at_once(&connection, size, demand) {
            Ok(sent) => Ok(sent.map(|number| (connection, number))),
            Err(error) if self.may_go_on(&error, &connection) => Ok(None),
            Err(error) => Err(error.never_sent()),
        }
    }

    /// The completer completes it, and sends it before if that was not done.
    fn add(
        &self,
        sent: Option<(InPlace, Number)>,
        deadline: &Deadline,
        on_done: OnDone,
        request: impl FnOnce() -> Request,
    ) -> Result<CallHandle> {
        let calls = &self.inner.completions;
        let id = calls.next_id.fetch_add(1, Ordering::Relaxed);
        let handle = CallHandle::new(calls, id);
        let call = Call::new(id, deadline.timeout(), deadline.due_ns(), on_done);
        let is_served = match sent {
            Some((connection, number)) => calls.add_sent(Sent { call, connection, number }),
            None => calls.add_queued(Queued { call, request: request() }),
        };
        self.started(handle, is_served)
    }

    /// A call that was added, with a completer or without.
    fn started(&self, handle: CallHandle, is_served: bool) -> Result<CallHandle> {
        let calls = &self.inner.completions;
        if !is_served
            && let Err(error) = calls.ensure_completer(&self.inner)
            && calls.cancel(handle.id)
        {
            return Err(error);
        }
        Ok(handle)
    }

    /// Whether what could not be sent on this connection may be sent on another one.
    fn may_go_on(&self, error: &Error, failed: &InPlace) -> bool {
        let was_replaced = || self.in_place().is_ok_and(|now| !now.is(failed));
        has_ended(error)
            && (self.inner.config.resend_not_started || is_sealed(error) || was_replaced())
    }
}

/// What a request is to hold, while it may still be sent at once.
pub(super) enum Payload<'d> {
    Copy(&'d [u8]),
    Fill(Option<Fill>),
}

impl Payload<'_> {
    fn send_at_once(
        &mut self,
        connection: &InPlace,
        size: usize,
        demand: Demand,
    ) -> Result<Option<Number>> {
        let ticket = match connection.senders.try_enter() {
            Ok(Some(ticket)) => ticket,
            Ok(None) => return Ok(None),
            Err(Refused::Closed) => return Err(connection.why_refused()),
            Err(_) => return Ok(None),
        };
        let _turn = SendTurn { connection: connection.clone(), ticket };
        connection.send_once(size, demand, |to| match self {
            Self::Copy(data) => to.copy_from_slice(data),
            Self::Fill(fill) => fill.iter_mut().for_each(|fill| fill(to)),
        })
    }

    /// For later.
    pub(super) fn keep(&mut self, size: usize, demand: Demand) -> Request {
        let fill = match self {
            Self::Copy(data) => {
                let data = data.to_vec();
                Box::new(move |to: &mut [u8]| to.copy_from_slice(&data))
            }
            Self::Fill(fill) => fill.take().unwrap_or_else(|| Box::new(|_| ())),
        };
        Request { size, demand, fill }
    }
}
