//! The clients of a service, and the threads that take their requests in turn.
//!
//! A connection is in one of three places: armed (its bell wakes a thread), in the queue (threads look at it
//! again and again), or in the hands of the one thread that has taken it out of the queue. A thread that finds
//! nothing in the queue for a while arms all that is in there, and sleeps until one of their bells rings.

use super::attached::{Attached, Ended};
use crate::atomics::{AtomicBool, AtomicU32, Ordering, fence};
use crate::closer::Close;
use crate::error::{Error, Result};
use crate::server::connection::Connection;
use crate::server::tasks::Places;
use crate::sys::{self, Epoll, Waited, WakeFd};
use crate::v2::ring::Taken;
use crate::wait::{Deadline, Peer, Sleep, Unready, WaitContext, WaitStrategy, Waiter};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of the bell that wakes threads of this process; connections have larger ones.
const WAKE: u64 = 0;
/// Looks in vain between two looks at what the system has to tell.
const ROUND: u32 = 64;
/// The same for a thread that finds one request after the other.
const ROUND_NS: u64 = 20_000;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Hub {
    epoll: Epoll,
    wake: WakeFd,
    queue: Mutex<Queue>,
    clients: Mutex<HashMap<u64, Arc<Attached>>>,
    /// What clients that have left have had done.
    left: Mutex<Ended>,
    /// Threads that sleep, or are about to.
    sleepers: AtomicU32,
    /// Several threads take requests.
    is_shared: bool,
    is_stopping: AtomicBool,
    /// Of async handlers.
    pub(super) places: Arc<Places>,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Arc<Attached>>,
    /// Threads that look at the queue until they find something or arm it all.
    lookers: u32,
}

impl Hub {
    pub(super) fn new(workers: usize, max_concurrent: usize) -> Result<Self> {
        let (epoll, wake) = (|| {
            let (epoll, wake) = (Epoll::new()?, WakeFd::new()?);
            epoll.add_wake(&wake, WAKE)?;
            Ok((epoll, wake))
        })()
        .map_err(|errno: sys::Errno| errno.on("make a queue of", "connections"))?;
        Ok(Self {
            epoll,
            wake,
            queue: Mutex::default(),
            clients: Mutex::default(),
            left: Mutex::default(),
            sleepers: AtomicU32::new(0),
            is_shared: workers > 1,
            is_stopping: AtomicBool::new(false),
            places: Arc::new(Places::new(max_concurrent)),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Attached>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Ended> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(super) fn is_stopping(&self) -> bool {
        // Acquire: pairs with the Release in `stop`.
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Nothing more is taken, and every thread that waits for requests comes back.
    pub(super) fn stop(&self) {
        // Release: pairs with the Acquire in `is_stopping`.
        self.is_stopping.store(true, Ordering::Release);
        // Between this store and the check of whether a thread is away: see `tenure`.
        fence(Ordering::SeqCst);
        // Nobody silences it any more.
        self.wake.ring();
        self.places.notify();
    }

    // ---- clients ----

    /// Takes a new client in, armed.
    pub(super) fn enter(&self, client: &Arc<Attached>) -> Result<()> {
        self.clients().insert(client.number(), Arc::clone(client));
        let added = self.epoll.add(client.bell().socket(), client.number());
        added.map_err(|errno| {
            self.clients().remove(&client.number());
            errno.on("watch a connection of", "a service")
        })
    }

    /// How many clients there are, and how many of `uid`.
    pub(super) fn count(&self, uid: u32) -> (usize, usize) {
        let clients = self.clients();
        let own = clients.values().filter(|client| client.identity().uid() == uid).count();
        (clients.len(), own)
    }

    /// The clients in the order of their numbers, and what those that have left have had done.
    pub(super) fn survey(&self) -> (Ended, Vec<Arc<Attached>>) {
        let clients = self.clients();
        let mut all: Vec<_> = clients.values().cloned().collect();
        all.sort_by_key(|client| client.number());
        (*self.left(), all)
    }

    /// Ends the connections of clients that have ended theirs, should all threads be busy.
    pub(super) fn sweep(&self) {
        let clients: Vec<_> = self.clients().values().cloned().collect();
        clients.iter().filter(|client| client.bell().probe()).for_each(|client| self.end(client));
    }

    /// Ends a connection whose client has ended it, or broke the protocol.
    pub(super) fn end(&self, client: &Arc<Attached>) {
        client.end();
        self.forget(client);
    }

    fn forget(&self, client: &Attached) {
        self.epoll.remove(client.bell().socket());
        let mut clients = self.clients();
        if clients.remove(&client.number()).is_some() {
            self.left().add(Ended::of(client));
        }
    }

    /// Ends all connections, in the order that tells clients what happened to their requests.
    pub(super) fn close_all(&self) {
        let clients: Vec<_> = self.clients().values().cloned().collect();
        for client in clients {
            client.close();
            self.forget(&client);
        }
        self.queue().ready.clear();
    }

    /// Requests that were taken and are not answered.
    pub(super) fn in_hand(&self) -> u64 {
        self.clients().values().map(|client| client.connection.ring.in_hand()).sum()
    }

    // ---- requests ----

    /// This thread goes to work on a request of `client`, and lets the others go on.
    fn hand_over(&self, client: &Arc<Attached>) {
        let (is_looked_at, is_left) = {
            let mut queue = self.queue();
            queue.lookers -= 1;
            let is_looked_at = !self.is_shared || queue.lookers > 0;
            let is_left = !queue.ready.is_empty() && !is_looked_at;
            if is_looked_at {
                queue.ready.push_back(Arc::clone(client));
            }
            (is_looked_at, is_left)
        };
        if is_left {
            self.wake_sleeper();
        }
        if !is_looked_at {
            // One of those that sleep is woken when more comes.
            self.arm(client);
        }
    }

    /// Has one of the threads that sleep look at the queue.
    fn wake_sleeper(&self) {
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake.ring();
        }
    }

    /// Has the client's bell wake a thread; a connection with something new goes into the queue instead.
    fn arm(&self, client: &Arc<Attached>) {
        let has_work = client.arm();
        if has_work && client.leave_armed() {
            self.queue().ready.push_back(Arc::clone(client));
            if self.is_shared {
                self.wake_sleeper();
            }
        }
    }

    /// Takes a request of the first connection in the queue that has one.
    fn take(&self, cursor: &mut Cursor) -> Option<(Arc<Connection>, Taken)> {
        let mut left = self.queue().ready.len();
        while left > 0 {
            left -= 1;
            let Some(client) = self.queue().ready.pop_front() else { break };
            match client.take() {
                Ok(Some(taken)) => {
                    cursor.is_looking = false;
                    self.hand_over(&client);
                    return Some((Arc::clone(&client.connection), taken));
                }
                Ok(None) if client.bell().has_ended() => self.end(&client),
                Ok(None) => self.queue().ready.push_back(client),
                Err(_error) => {
                    crate::trace::event!(client = client.number(), error = %_error, "client ended");
                    self.end(&client);
                }
            }
        }
        None
    }

    /// Looks at what the system has to tell, without sleeping.
    fn poll(&self) {
        self.collect(0);
    }

    /// Puts the connections whose bells ring into the queue.
    fn collect(&self, deadline_ns: u64) {
        let waited = self.epoll.wait(deadline_ns, |ready| {
            if ready.number == WAKE {
                if !self.is_stopping() {
                    self.wake.silence();
                }
                return;
            }
            let client = self.clients().get(&ready.number).cloned();
            if let Some(client) = client {
                if ready.has_ended {
                    client.bell().probe();
                }
                if client.leave_armed() {
                    self.queue().ready.push_back(client);
                }
            }
        });
        if waited.is_err() {
            // No memory in the kernel: not in a busy loop.
            sys::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the next request of any client.
    ///
    /// # Errors
    /// `Timeout`; `Closed` once the service stops.
    pub(super) fn next(
        &self,
        cursor: &mut Cursor,
        deadline: &Deadline,
    ) -> Result<(Arc<Connection>, Taken)> {
        self.look(cursor);
        let now = sys::monotonic_ns();
        if now.saturating_sub(cursor.polled_ns) > ROUND_NS {
            cursor.polled_ns = now;
            self.poll();
        }
        let waiter = Arc::clone(&cursor.waiter);
        let cursor = RefCell::new(cursor);
        let sleeper = Sleeper { hub: self, cursor: &cursor };
        let waited = waiter.wait(&sleeper, deadline, self, || {
            let mut cursor = cursor.borrow_mut();
            if self.is_stopping() {
                return None;
            }
            self.look(&mut cursor);
            cursor.looks = cursor.looks.wrapping_add(1);
            if cursor.looks.is_multiple_of(ROUND) {
                self.poll();
            }
            self.take(&mut cursor)
        });
        let mut cursor = cursor.borrow_mut();
        if std::mem::take(&mut cursor.is_looking) {
            self.queue().lookers -= 1;
        }
        waited.map_err(|unready| match unready {
            Unready::Timeout => {
                Error::Timeout { waited: deadline.timeout(), what: "waiting for a request" }
            }
            Unready::Stopped | Unready::Gone(_) => Error::Closed,
        })
    }

    /// This thread looks at the queue from now on.
    fn look(&self, cursor: &mut Cursor) {
        if !std::mem::replace(&mut cursor.is_looking, true) {
            self.queue().lookers += 1;
        }
    }
}

/// What a thread that takes requests remembers.
#[derive(Debug)]
pub(super) struct Cursor {
    waiter: Arc<Waiter>,
    /// It is counted among those that look at the queue.
    is_looking: bool,
    looks: u32,
    /// When it has looked last at what the system has to tell.
    polled_ns: u64,
}

impl Cursor {
    pub(super) fn new(wait: WaitStrategy) -> Self {
        Self { waiter: Arc::new(Waiter::new(wait)), is_looking: false, looks: 0, polled_ns: 0 }
    }
}

/// A thread's way to sleep on all connections.
struct Sleeper<'h, 'c> {
    hub: &'h Hub,
    cursor: &'h RefCell<&'c mut Cursor>,
}

impl Sleeper<'_, '_> {
    /// The others cannot rely on this thread any more; whether there is something in the queue, which they
    /// may have left to it.
    fn stop_looking(&self) -> bool {
        let mut queue = self.hub.queue();
        if std::mem::take(&mut self.cursor.borrow_mut().is_looking) {
            queue.lookers -= 1;
        }
        !queue.ready.is_empty()
    }
}

impl Sleep for Sleeper<'_, '_> {
    fn prepare(&self) -> Option<u64> {
        let hub = self.hub;
        hub.sleepers.fetch_add(1, Ordering::Relaxed);
        let idle = std::mem::take(&mut hub.queue().ready);
        idle.iter().for_each(|client| hub.arm(client));
        Some(0)
    }

    fn abandon(&self) {
        self.hub.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    fn sleep(&self, _prepared: Option<u64>, deadline_ns: u64) -> Waited {
        let has_left = self.stop_looking();
        self.hub.collect(if has_left { 0 } else { deadline_ns });
        self.hub.sleepers.fetch_sub(1, Ordering::Relaxed);
        Waited::Token
    }
}

/// Clients come and go; the service stays.
impl WaitContext for Hub {
    fn peer(&self) -> Peer {
        Peer::Alive
    }

    fn probe(&self) -> Peer {
        Peer::Alive
    }

    fn slice(&self) -> Duration {
        Duration::MAX
    }

    fn stopped(&self) -> bool {
        self.is_stopping()
    }
}

impl Close for Hub {
    fn close(&self) {
        self.stop();
    }

    fn is_closed(&self) -> bool {
        self.is_stopping()
    }
}
