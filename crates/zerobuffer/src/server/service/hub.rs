//! The clients of a service, and the threads that take their requests in turn.
//!
//! A connection is in one of three places: armed (its bell wakes a thread), in the queue (threads look at it
//! again and again), or in the hands of the one thread that has taken it out of the queue. A thread that finds
//! nothing in the queue for a while arms all that is in there, and sleeps until one of their bells rings. With
//! as many requests in hand as one client may have, a connection is in none of them, and comes back by an answer.
//!
//! A thread that takes alone keeps the connection of its latest request in its hands, and looks there first: one
//! client that calls again and again meets no lock. Once another one is ready both go through the queue.

use super::attached::{Attached, Ended};
use super::queue::{self, HandedOver, ReadyQueue, Round};
use crate::atomics::{AtomicBool, Ordering, fence};
use crate::closer::Close;
use crate::error::{Error, Result};
use crate::server::connection::Connection;
use crate::server::tasks::Places;
use crate::sys::{self, Epoll, Waited, WakeFd};
use crate::v2::ring::Taken;
use crate::wait::{Deadline, Peer, Sleep, Unready, WaitContext, Waiter};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of the bell that wakes threads of this process; connections have larger ones.
const WAKE: u64 = 0;
/// Looks in vain between two looks at what the system has to tell.
const ROUND: u32 = 64;
/// The same for a thread that finds one request after the other.
const ROUND_NS: u64 = 20_000;
/// Requests of one connection between two readings of the clock, at the most.
const MOST_IN_A_ROW: u64 = 16;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Hub {
    epoll: Epoll,
    /// The same connections, for their ends alone: told to the door's thread, which is never busy for long.
    pub(super) ends: Epoll,
    wake: WakeFd,
    queue: ReadyQueue<Arc<Attached>>,
    clients: Mutex<HashMap<u64, Arc<Attached>>>,
    /// What clients that have left have had done.
    left: Mutex<Ended>,
    /// Several threads take requests.
    is_shared: bool,
    is_stopping: AtomicBool,
    fork_generation: u32,
    /// Of async handlers.
    pub(super) places: Arc<Places>,
}

impl Hub {
    pub(super) fn new(service: &str, workers: usize, max_concurrent: usize) -> Result<Self> {
        let (epoll, ends, wake) = (|| {
            let (epoll, ends, wake) = (Epoll::new()?, Epoll::new()?, WakeFd::new()?);
            epoll.add_wake(&wake, WAKE)?;
            Ok((epoll, ends, wake))
        })()
        .map_err(|errno: sys::Errno| errno.on("make the queue of service", service))?;
        Ok(Self {
            epoll,
            ends,
            wake,
            queue: ReadyQueue::new(),
            clients: Mutex::default(),
            left: Mutex::default(),
            is_shared: workers > 1,
            is_stopping: AtomicBool::new(false),
            fork_generation: sys::fork_generation(),
            places: Arc::new(Places::new(max_concurrent)),
        })
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

    #[inline(always)]
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
        // It rings on: see `queue::silence`.
        self.wake.ring();
        self.places.notify();
    }

    // ---- clients ----

    /// Takes a new client in, armed.
    pub(super) fn enter(&self, client: &Arc<Attached>) -> Result<()> {
        self.clients().insert(client.number(), Arc::clone(client));
        let (socket, number) = (client.bell().socket(), client.number());
        let added = self.epoll.add(socket, number).and_then(|()| self.ends.add_end(socket, number));
        added.map_err(|errno| {
            self.epoll.remove(socket);
            self.clients().remove(&number);
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

    /// Ends the connections of clients that have ended theirs, however busy the threads are that take requests.
    pub(super) fn end_disconnected(&self) {
        // What does not fit or fails is told at the next call.
        let _ = self.ends.wait(0, |ended| {
            let client = self.clients().get(&ended.number).cloned();
            client.iter().for_each(|client| self.end(client));
        });
    }

    /// Ends a connection whose client has ended it, or broke the protocol.
    pub(super) fn end(&self, client: &Arc<Attached>) {
        client.end();
        self.forget(client);
    }

    fn forget(&self, client: &Arc<Attached>) {
        self.epoll.remove(client.bell().socket());
        self.ends.remove(client.bell().socket());
        self.queue.retain(|ready| !Arc::ptr_eq(ready, client));
        let mut clients = self.clients();
        if clients.remove(&client.number()).is_some() {
            self.left().add(Ended::of(client));
        }
    }

    /// Ends all connections, in the order that tells clients what happened to their requests.
    pub(super) fn close_all(&self) {
        // Threads that come back later take nothing any more: see `Attached::is_over`.
        debug_assert!(self.is_stopping(), "threads could take requests still");
        let clients: Vec<_> = self.clients().values().cloned().collect();
        for client in clients {
            client.close();
            self.forget(&client);
        }
        self.queue.close();
    }

    /// Requests that were taken and are not answered.
    pub(super) fn in_hand(&self) -> u64 {
        self.clients().values().map(|client| client.connection.ring.in_hand()).sum()
    }

    // ---- requests ----

    /// Waits for the next request of any client, which is that of [`Cursor::connection`] afterwards.
    ///
    /// # Errors
    /// `Timeout`; `Closed` once the service stops.
    #[inline(always)]
    pub(super) fn next(&self, cursor: &mut Cursor, deadline: &Deadline) -> Result<Taken> {
        self.attend_in_turn(&mut cursor.hand);
        match self.next_at_once(cursor) {
            Some(taken) => Ok(taken),
            None => self.next_slowly(cursor, deadline),
        }
    }

    /// The usual case of [`Hub::next`]: the client whose request this thread has taken last is the only one
    /// that is ready, and has the next one soon.
    #[inline(always)]
    fn next_at_once(&self, cursor: &Cursor) -> Option<Taken> {
        let client = cursor.hand.held()?;
        // Others that are ready are served in turn with it.
        let is_alone = self.queue.seems_empty() && !self.is_stopping();
        if !is_alone
            || client.connection.is_at_limit()
            || !cursor.waiter.spin(client.connection.ring.ready_check())
        {
            return None;
        }
        client.take_at_once().or_else(|| Self::take_behind_marker(client, &cursor.waiter))
    }

    /// Small requests go back to the start of their ring every now and then, behind a marker that comes
    /// moments before the request.
    #[cold]
    fn take_behind_marker(client: &Attached, waiter: &Waiter) -> Option<Taken> {
        match client.take() {
            Ok(None) if waiter.spin(client.connection.ring.ready_check()) => client.take_at_once(),
            Ok(taken) => taken,
            // It is found again, where the connection is ended for it.
            Err(_) => None,
        }
    }

    #[cold]
    fn next_slowly(&self, cursor: &mut Cursor, deadline: &Deadline) -> Result<Taken> {
        self.put_back(&mut cursor.hand);
        let Cursor { waiter, hand } = cursor;
        let hand = RefCell::new(hand);
        let sleeper = Sleeper { hub: self, hand: &hand };
        let waited = waiter.wait(&sleeper, deadline, self, || {
            let mut hand = hand.borrow_mut();
            if self.is_stopping() {
                return None;
            }
            hand.looks = hand.looks.wrapping_add(1);
            if hand.looks.is_multiple_of(ROUND) {
                self.poll();
            }
            self.take(&mut hand)
        });
        let hand = hand.into_inner();
        let waited = match waited {
            // What has come since it was last asked for is not to be missed, however short the time was.
            Err(Unready::Timeout) if !self.is_stopping() => {
                self.poll();
                self.take(hand).ok_or(Unready::Timeout)
            }
            waited => waited,
        };
        if hand.is_looking {
            self.queue.stop_looking(&mut hand.is_looking);
        }
        waited.map_err(|unready| match unready {
            Unready::Timeout => {
                Error::Timeout { waited: deadline.timeout(), what: "waiting for a request" }
            }
            Unready::Stopped | Unready::Gone(_) => Error::Closed,
        })
    }

    #[inline(always)]
    fn attend_in_turn(&self, hand: &mut Hand) {
        if hand.in_a_row == 0 {
            self.attend(hand);
        }
        hand.in_a_row -= 1;
    }

    /// Looks at what the system has to tell, every now and then: while one client keeps this thread busy,
    /// others may have come, or ended.
    #[cold]
    fn attend(&self, hand: &mut Hand) {
        let now = sys::monotonic_ns();
        let passed = now.saturating_sub(hand.read_ns).max(1);
        if now.saturating_sub(hand.polled_ns) > ROUND_NS {
            hand.polled_ns = now;
            self.poll();
        }
        // As many as come in that time if they come as they did.
        let expected = hand.row.saturating_mul(ROUND_NS) / passed;
        hand.row = expected.clamp(1, MOST_IN_A_ROW);
        (hand.in_a_row, hand.read_ns) = (hand.row, now);
    }

    /// The client that this thread has kept goes to the end of the queue.
    fn put_back(&self, hand: &mut Hand) {
        let client = hand.client.take();
        if std::mem::take(&mut hand.is_holding)
            && let Some(client) = client
        {
            self.queue.push(client);
        }
    }

    /// This thread goes to work on a request of `client`.
    fn begin_work(&self, hand: &mut Hand, client: Arc<Attached>) {
        if self.is_shared {
            // The others go on.
            let left = (!client.connection.sets_aside()).then(|| Arc::clone(&client));
            let is_left = left.is_some();
            if let HandedOver::IsIdle { wakes } = self.queue.hand_over(left, &mut hand.is_looking) {
                if wakes {
                    self.wake_sleeper();
                }
                if is_left {
                    // One of those that sleep is woken when more comes.
                    self.arm(&client);
                }
            }
        }
        hand.is_holding = !self.is_shared;
        hand.client = Some(client);
    }

    /// A client that was set aside has an answer: it may have more taken.
    pub(super) fn resume(&self, number: u64) {
        let client = self.clients().get(&number).cloned();
        if let Some(client) = client {
            self.queue.push(client);
            // Also for one that waits for the descriptor, which is no sleeper.
            self.wake.ring();
        }
    }

    /// Has one of the threads that sleep look at the queue.
    fn wake_sleeper(&self) {
        if self.queue.has_sleepers() {
            self.wake.ring();
        }
    }

    /// Has the client's bell wake a thread; a connection with something new goes into the queue instead.
    fn arm(&self, client: &Arc<Attached>) {
        let has_work = client.arm();
        if has_work && client.leave_armed() {
            self.queue.push(Arc::clone(client));
            if self.is_shared {
                self.wake_sleeper();
            }
        }
    }

    /// Takes a request of the first connection in the queue that has one.
    fn take(&self, hand: &mut Hand) -> Option<Taken> {
        let (mut is_looking, mut checked) = (hand.is_looking, None);
        let mut round = Round::new(&mut is_looking);
        let found = loop {
            let Some(client) = self.queue.next(checked.take(), &mut round) else { break None };
            if client.connection.sets_aside() {
                continue;
            }
            match client.take() {
                Ok(Some(taken)) => break Some((client, taken)),
                Ok(None) if client.bell().has_ended() => self.end(&client),
                Ok(None) => checked = Some(client),
                Err(_error) => {
                    crate::trace::event!(client = client.number(), error = %_error, "client ended");
                    self.end(&client);
                }
            }
        };
        hand.is_looking = is_looking;
        let (client, taken) = found?;
        self.begin_work(hand, client);
        Some(taken)
    }

    /// Looks at what the system has to tell, without sleeping.
    fn poll(&self) {
        self.collect(0);
    }

    /// Puts the connections whose bells ring into the queue.
    fn collect(&self, deadline_ns: u64) {
        let waited = self.epoll.wait(deadline_ns, |ready| {
            if ready.number == WAKE {
                let (bell, is_stopping) = (&self.wake, || self.is_stopping());
                return queue::silence(|| bell.silence(), is_stopping, || bell.ring());
            }
            let client = self.clients().get(&ready.number).cloned();
            if let Some(client) = client {
                if ready.has_ended {
                    client.bell().probe();
                }
                if client.leave_armed() {
                    self.queue.push(client);
                }
            }
        });
        if waited.is_err() {
            // No memory in the kernel: not in a busy loop.
            sys::sleep(Duration::from_millis(1));
        }
    }

    /// Takes the next request of any client, and does not sleep. If there is none, whatever comes makes the
    /// descriptor readable.
    ///
    /// # Errors
    /// `Closed` once the service stops.
    pub(super) fn try_next(&self, cursor: &mut Cursor) -> Result<Option<Taken>> {
        let hand = &mut cursor.hand;
        self.put_back(hand);
        let taken = self.take_or_arm(hand);
        if hand.is_looking {
            self.queue.stop_looking(&mut hand.is_looking);
        }
        if self.is_stopping() && taken.is_none() {
            return Err(Error::Closed);
        }
        Ok(taken)
    }

    fn take_or_arm(&self, hand: &mut Hand) -> Option<Taken> {
        for _ in 0..ROUND {
            if self.is_stopping() {
                return None;
            }
            self.attend_in_turn(hand);
            if let Some(taken) = self.take(hand) {
                return Some(taken);
            }
            self.poll();
            if self.arm_all() {
                return None;
            }
        }
        // Clients that have nothing for a server, again and again: the caller has other things to do.
        self.wake.ring();
        None
    }

    /// Has the bells of all in the queue wake a thread; whether none of them had something new.
    fn arm_all(&self) -> bool {
        self.queue.take_all().iter().for_each(|client| self.arm(client));
        self.queue.is_empty()
    }

    /// What wakes a thread that waits for [`Hub::try_next`] to have something.
    pub(super) fn epoll(&self) -> &Epoll {
        &self.epoll
    }
}

/// What a thread that takes requests remembers.
#[derive(Debug)]
pub(super) struct Cursor {
    waiter: Waiter,
    hand: Hand,
}

/// The same, but for its way to wait.
#[derive(Debug)]
struct Hand {
    /// Whose request it has taken last.
    client: Option<Arc<Attached>>,
    /// That client is neither in the queue nor armed: nobody else takes its requests.
    is_holding: bool,
    /// It is counted among those that look at the queue.
    is_looking: bool,
    looks: u32,
    /// Requests until the clock is read again, and from the latest reading on.
    in_a_row: u64,
    row: u64,
    read_ns: u64,
    /// When it has looked last at what the system has to tell.
    polled_ns: u64,
}

impl Hand {
    #[inline(always)]
    fn held(&self) -> Option<&Arc<Attached>> {
        if self.is_holding { self.client.as_ref() } else { None }
    }
}

impl Cursor {
    pub(super) fn new(waiter: Waiter) -> Self {
        let hand = Hand {
            client: None,
            is_holding: false,
            is_looking: false,
            looks: 0,
            in_a_row: 0,
            row: 1,
            read_ns: 0,
            polled_ns: 0,
        };
        Self { waiter, hand }
    }

    /// One more for another thread, which waits in the same way.
    pub(super) fn another(&self) -> Self {
        Self::new(self.waiter.another())
    }

    /// That of the latest request.
    #[inline(always)]
    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.hand.client.as_ref().map(|client| &client.connection)
    }
}

/// A thread's way to sleep on all connections.
struct Sleeper<'h, 'c> {
    hub: &'h Hub,
    hand: &'h RefCell<&'c mut Hand>,
}

impl Sleep for Sleeper<'_, '_> {
    fn prepare(&self) -> Option<u64> {
        self.hub.queue.begin_sleep();
        self.hub.arm_all();
        Some(0)
    }

    fn abandon(&self) {
        self.hub.queue.end_sleep();
    }

    fn sleep(&self, _prepared: Option<u64>, deadline_ns: u64) -> Waited {
        let mut hand = self.hand.borrow_mut();
        // The others cannot rely on this thread any more.
        let has_left = self.hub.queue.stop_looking(&mut hand.is_looking);
        self.hub.collect(if has_left { 0 } else { deadline_ns });
        self.hub.queue.end_sleep();
        hand.polled_ns = sys::monotonic_ns();
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
    fn is_this_process(&self) -> bool {
        self.fork_generation == sys::fork_generation()
    }

    fn close(&self) {
        self.stop();
    }

    fn is_closed(&self) -> bool {
        self.is_stopping()
    }
}
