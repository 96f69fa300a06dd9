//! One client for many threads.

use super::channel::{Attached, ClientChannel, Looked};
use super::{OwnedResponse, RequestLayout, is_not_started};
use crate::config::ClientConfig;
use crate::error::{Error, Result};
use crate::name::ChannelName;
use crate::sys;
use crate::v2::ring::Held;
use crate::wait::{Deadline, Peer, Unready, WaitStrategy, Watch};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// How long a thread that does not wait on the semaphore itself sleeps before it looks again.
const SLICE: Duration = Duration::from_millis(10);

/// A client that many threads call at once; clones share one connection.
///
/// Answers are handed out as [`OwnedResponse`]s, which may be given back on any thread. For one thread
/// [`Client`](super::Client) is faster: it takes no lock.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, Frame, Server};
///
/// let name = format!("doc-shared-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| frame.data_mut()[0] *= 2)?;
///
/// let client = Client::connect(&name, Duration::from_secs(5))?.into_shared();
/// std::thread::scope(|scope| {
///     for n in 1..=4 {
///         let client = client.clone();
///         scope.spawn(move || {
///             let response = client.call(&[n], Duration::from_secs(5)).unwrap();
///             assert_eq!(response.data(), [2 * n]);
///         });
///     }
/// });
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SharedClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: ChannelName,
    config: ClientConfig,
    connection: RwLock<Arc<Connection>>,
    /// Held by the one thread that attaches to a new server.
    reconnecting: Mutex<()>,
    fork_generation: u32,
}

/// One connection, and what its threads need to take turns.
#[derive(Debug)]
struct Connection {
    channel: Attached,
    senders: Gate,
    receivers: Crowd,
}

impl Connection {
    fn new(channel: Attached) -> Arc<Self> {
        channel.ring.set_concurrent();
        Arc::new(Self { channel, senders: Gate::default(), receivers: Crowd::default() })
    }
}

impl SharedClient {
    pub(super) fn new(name: ChannelName, config: ClientConfig, channel: Attached) -> Self {
        let connection = RwLock::new(Connection::new(channel));
        let (reconnecting, fork_generation) = (Mutex::new(()), sys::fork_generation());
        let inner = Inner { name, config, connection, reconnecting, fork_generation };
        Self { inner: Arc::new(inner) }
    }

    /// # Errors
    /// `WrongProcess` in a forked child, before any lock: another thread may have held it when the
    /// process forked, and is not there to give it back.
    fn connection(&self) -> Result<Arc<Connection>> {
        if self.inner.fork_generation != sys::fork_generation() {
            return Err(Error::WrongProcess);
        }
        Ok(Arc::clone(&self.inner.connection.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        self.inner.name.as_str()
    }

    /// As [`Client::is_server_connected`](super::Client::is_server_connected).
    pub fn is_server_connected(&self) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.is_server_connected())
    }

    /// What the present server has published about itself; empty if nothing, and in a forked child.
    pub fn server_metadata(&self) -> Vec<u8> {
        let connection = self.connection();
        connection.map_or(Vec::new(), |connection| connection.channel.server_metadata.clone())
    }

    /// Requests in flight, of all threads together. Those whose responses were given back since a
    /// request was sent last are still counted.
    pub fn in_flight(&self) -> usize {
        self.connection().map_or(0, |connection| connection.channel.ring.in_flight() as usize)
    }

    /// As [`Client::max_request_size`](super::Client::max_request_size).
    pub fn max_request_size(&self) -> usize {
        self.connection().map_or(0, |connection| connection.channel.ring.max_capacity() as usize)
    }

    /// As [`Client::call`](super::Client::call). With [`ClientConfig::resend_not_started`] the request is sent again after a
    /// server's end whatever else is in flight.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    pub fn call(&self, data: &[u8], timeout: Duration) -> Result<OwnedResponse> {
        self.call_with(data.len(), RequestLayout::default(), |to| to.copy_from_slice(data), timeout)
    }

    /// As [`call`](Self::call), but `fill` writes the request, of `size` bytes, where the server will
    /// read it. Other threads cannot send while it runs.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call); [`Error::BadConfig`] for an impossible alignment.
    pub fn call_with(
        &self,
        size: usize,
        layout: RequestLayout,
        mut fill: impl FnMut(&mut [u8]),
        timeout: Duration,
    ) -> Result<OwnedResponse> {
        let deadline = Deadline::after(timeout);
        loop {
            let connection = self.connection()?;
            let outcome = send(&connection, size, layout, &mut fill, &deadline)
                .and_then(|sequence| receive(&connection, &self.inner.config, sequence, &deadline));
            match outcome {
                Ok(held) => return Ok(OwnedResponse::new(Arc::clone(&connection.channel), held)),
                Err(error) if self.inner.config.resend_not_started && is_not_started(&error) => {
                    self.replace(&connection, &deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Client::send_request`](super::Client::send_request).
    ///
    /// # Errors
    /// The same.
    pub fn send_request(&self, data: &[u8]) -> Result<u64> {
        let deadline = Deadline::after(self.inner.config.send_timeout);
        let layout = RequestLayout::default();
        let fill = &mut |to: &mut [u8]| to.copy_from_slice(data);
        send(&*self.connection()?, data.len(), layout, fill, &deadline)
    }

    /// As [`Client::receive_response_for`](super::Client::receive_response_for).
    ///
    /// # Errors
    /// The same.
    pub fn receive_response_for(&self, sequence: u64, timeout: Duration) -> Result<OwnedResponse> {
        let connection = self.connection()?;
        let held = if timeout.is_zero() {
            connection.channel.check()?;
            connection.channel.poll_for(sequence)?
        } else {
            let deadline = Deadline::after(timeout);
            receive(&connection, &self.inner.config, sequence, &deadline)?
        };
        Ok(OwnedResponse::new(Arc::clone(&connection.channel), held))
    }

    /// As [`Client::cancel`](super::Client::cancel).
    pub fn cancel(&self, sequence: u64) -> bool {
        self.connection().is_ok_and(|connection| connection.channel.ring.cancel(sequence))
    }

    /// Attaches to the channel's present server if the former one has gone, or if the connection has no
    /// sequence numbers left. Requests that are in flight on the former connection report its end to
    /// those who wait for them. A connection that works is left as it is: each thread may call this
    /// after an error, in whatever order they notice.
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect), and the client is as before.
    pub fn reconnect(&self, timeout: Duration) -> Result<()> {
        self.replace(&self.connection()?, &Deadline::after(timeout))
    }

    /// Replaces the connection that failed, unless another thread has done so already.
    fn replace(&self, failed: &Arc<Connection>, deadline: &Deadline) -> Result<()> {
        let _turn = self.inner.reconnecting.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(failed, &self.connection()?) {
            return Ok(());
        }
        if failed.channel.is_server_connected() {
            if !failed.channel.ring.is_exhausted() {
                // Others have requests in flight there.
                return Ok(());
            }
            failed.channel.close();
        }
        let channel = ClientChannel::attach(&self.inner.name, &self.inner.config, deadline)?;
        let mut current = self.inner.connection.write().unwrap_or_else(PoisonError::into_inner);
        *current = Connection::new(channel);
        Ok(())
    }
}

fn send(
    connection: &Connection,
    size: usize,
    layout: RequestLayout,
    fill: &mut impl FnMut(&mut [u8]),
    deadline: &Deadline,
) -> Result<u64> {
    let channel = &*connection.channel;
    channel.check()?;
    let _turn = connection.senders.enter(deadline).ok_or(Error::Full {
        needed: size as u64,
        free: 0,
        in_flight: channel.ring.in_flight(),
    })?;
    let claim = channel.claim(layout.demand(size)?, deadline)?;
    let mut open = OpenClaim { channel, claim: Some(claim) };
    if let Some(claim) = &mut open.claim {
        fill(claim.data_mut(&channel.segment.payload, size as u64));
    }
    Ok(channel.commit(open.claim.take().expect("set above"), size as u64))
}

/// Gives an open claim up if the user's code panics.
struct OpenClaim<'c> {
    channel: &'c ClientChannel,
    claim: Option<crate::v2::ring::Claim>,
}

impl Drop for OpenClaim<'_> {
    fn drop(&mut self) {
        if self.claim.is_some() {
            self.channel.abandon_claim();
        }
    }
}

/// Waits for one answer among threads that all wait for theirs. One of them, the leader, waits on the
/// semaphore (one thread per process may); whenever it is woken, all look at their own requests.
fn receive(
    connection: &Connection,
    config: &ClientConfig,
    sequence: u64,
    deadline: &Deadline,
) -> Result<Held> {
    let channel = &*connection.channel;
    channel.check()?;
    if config.wait == WaitStrategy::Spin {
        // Nobody waits on the semaphore.
        return match channel.receive_at_once(sequence) {
            Some(held) => Ok(held),
            None => channel.receive_for(sequence, deadline),
        };
    }
    let crowd = &connection.receivers;
    loop {
        let turn = crowd.turn();
        let looked = channel.look(sequence);
        if let Some(looked) = looked {
            return channel.settle(sequence, deadline, Ok(looked));
        }
        if crowd.try_lead() {
            let waited = channel
                .await_response(deadline, &Leader { channel, crowd }, || channel.look(sequence));
            crowd.step_down();
            return channel.settle(sequence, deadline, waited);
        }
        if deadline.left().is_zero() {
            return channel.settle(sequence, deadline, Err::<Looked, _>(Unready::Timeout));
        }
        crowd.follow(turn, deadline.left().min(SLICE));
    }
}

/// The leader's view of the channel: it passes every wake-up on.
struct Leader<'c> {
    channel: &'c ClientChannel,
    crowd: &'c Crowd,
}

impl Watch for Leader<'_> {
    fn peer(&self) -> Peer {
        self.channel.peer()
    }

    fn probe(&self) -> Peer {
        self.channel.probe()
    }

    fn slice(&self) -> Duration {
        self.channel.slice()
    }

    fn woken(&self) {
        self.crowd.notify();
    }
}

/// Threads that wait for answers: one leads, the others follow.
#[derive(Debug, Default)]
struct Crowd {
    state: Mutex<CrowdState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CrowdState {
    led: bool,
    /// Counts the reasons to look again.
    turn: u64,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, CrowdState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be read before the look that precedes [`Crowd::follow`]: whatever comes after it ends the
    /// sleep.
    fn turn(&self) -> u64 {
        self.lock().turn
    }

    fn try_lead(&self) -> bool {
        !std::mem::replace(&mut self.lock().led, true)
    }

    fn step_down(&self) {
        self.lock().led = false;
        self.notify();
    }

    fn notify(&self) {
        self.lock().turn += 1;
        self.changed.notify_all();
    }

    fn follow(&self, turn: u64, at_most: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, at_most, |state| state.turn == turn);
    }
}

/// One thread at a time, in the order in which they came, the others waiting with a deadline.
#[derive(Debug, Default)]
struct Gate {
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    /// The first one is inside.
    tickets: VecDeque<u64>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, deadline: &Deadline) -> Option<GateGuard<'_>> {
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.tickets.push_back(ticket);
        let guard = GateGuard { gate: self, ticket };
        while queue.tickets.front() != Some(&ticket) {
            let left = deadline.left();
            if left.is_zero() {
                drop(queue);
                return None;
            }
            queue = self.moved.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        Some(guard)
    }
}

/// A place in the queue, given up when dropped.
struct GateGuard<'g> {
    gate: &'g Gate,
    ticket: u64,
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        self.gate.lock().tickets.retain(|ticket| *ticket != self.ticket);
        self.gate.moved.notify_all();
    }
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_threads_in_as_they_came_and_forgets_who_gave_up() {
        let gate = Gate::default();
        let order = Mutex::new(Vec::new());
        let inside = gate.enter(&Deadline::after(Duration::ZERO)).unwrap();
        assert!(gate.enter(&Deadline::after(Duration::from_millis(1))).is_none());
        std::thread::scope(|scope| {
            for number in 0..5 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let _inside = gate.enter(&Deadline::after(Duration::from_secs(60))).unwrap();
                    order.lock().unwrap().push(number);
                });
                while gate.lock().tickets.len() < number + 2 {
                    std::thread::yield_now();
                }
            }
            drop(inside);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
