//! Takes requests from one client after the other.

use super::channel::ServerChannel;
use super::tasks::Places;
use crate::atomics::Ordering;
use crate::closer::Close;
use crate::config::ServerConfig;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::name::ChannelName;
use crate::sys;
use crate::tenure::Tenure;
use crate::v2::ring::{Take, Taken};
use crate::wait::{Deadline, Peer, Unready, WaitContext, Waiter, wake};
use std::sync::Arc;
use std::time::Duration;

/// The pause between two tries to take over from a client that is about to let go.
const PAUSE: Duration = Duration::from_millis(1);

/// What the server's threads and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) segments: Tenure<Arc<ServerChannel>>,
    /// Of async handlers.
    pub(super) places: Arc<Places>,
    fork_generation: u32,
}

impl Shared {
    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.segments.is_over()
    }

    /// Asks the thread that takes requests to come back.
    pub(super) fn stop(&self) {
        self.segments.announce_end();
        if let Some(channel) = self.segments.current() {
            channel.ask_to_stop();
        }
        self.places.notify();
    }
}

impl Close for Shared {
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

/// Takes requests, and replaces the segment when its client has ended.
#[derive(Debug)]
pub(super) struct Acceptor {
    name: ChannelName,
    config: ServerConfig,
    waiter: Waiter,
    channel: Option<Arc<ServerChannel>>,
    pub(super) shared: Arc<Shared>,
}

impl Acceptor {
    pub(super) fn create(name: ChannelName, config: ServerConfig) -> Result<Self> {
        let channel = Arc::new(ServerChannel::create(&name, &config, &|| true)?);
        let segments = Tenure::new(Arc::clone(&channel));
        let places = Arc::new(Places::new(config.max_concurrent));
        let fork_generation = sys::fork_generation();
        let shared = Arc::new(Shared { segments, places, fork_generation });
        Ok(Self { name, waiter: Waiter::new(config.wait), config, channel: Some(channel), shared })
    }

    /// The segment that the latest request came from.
    #[inline]
    pub(super) fn channel(&self) -> Option<&Arc<ServerChannel>> {
        self.channel.as_ref()
    }

    /// The usual case of [`Acceptor::next`]: a request comes while one spins, and nothing else is to
    /// be done.
    #[inline(always)]
    pub(super) fn next_at_once(&self) -> Option<Taken> {
        let channel = self.channel.as_ref()?;
        // A client's first request is not usual: with it come the client's metadata.
        let usable = channel.segment.is_this_process()
            && channel.has_client_metadata()
            && !channel.poisoned.load(Ordering::Relaxed);
        if !usable || self.shared.is_stopping() || !self.waiter.spin(channel.ring.ready_check()) {
            return None;
        }
        channel.ring.take_at_once()
    }

    /// Waits for the next request, of this client or one after it.
    ///
    /// # Errors
    /// `Timeout`; `Closed` once the server is stopping; `ProtocolViolation`, after which the next
    /// call waits until that client has disconnected; `AlreadyRunning`, `NoSpace` … if a new segment is needed
    /// and cannot be made, which the next call tries again.
    #[cold]
    pub(super) fn next(&mut self, deadline: &Deadline) -> Result<Taken> {
        let mut skipped = 0_u32;
        if let Some(channel) = &self.channel {
            // No request has come for a moment.
            channel.ring.publish_account();
        }
        loop {
            if self.shared.is_stopping() {
                return Err(Error::Closed);
            }
            let Some(channel) = &self.channel else {
                self.renew()?;
                continue;
            };
            channel.segment.check_process()?;
            let poisoned = channel.poisoned.load(Ordering::Relaxed);
            let watch = Stoppable { channel, shared: &self.shared };
            let semaphore = channel.requests();
            let taken = self.waiter.wait(semaphore, deadline, &watch, || {
                if poisoned {
                    return None;
                }
                channel.take().map(|take| (take != Take::Nothing).then_some(take)).transpose()
            });
            match taken {
                Ok(Ok(Take::Request(taken))) => return Ok(taken),
                Ok(Ok(_)) => {
                    wake(channel.space());
                    // A client can publish what needs no work for ever; the deadline holds all the same.
                    skipped = skipped.wrapping_add(1);
                    if skipped.is_multiple_of(64) && deadline.left().is_zero() {
                        return Err(timed_out(deadline));
                    }
                }
                Ok(Err(violation)) => return Err(self.poison(channel, violation)),
                Err(Unready::Gone(peer)) => self.after_client(peer, deadline)?,
                Err(Unready::Stopped) => {}
                Err(Unready::Timeout) => return Err(timed_out(deadline)),
            }
        }
    }

    /// The client broke the protocol: nothing more is taken from it.
    #[cold]
    fn poison(&self, channel: &ServerChannel, error: Error) -> Error {
        channel.poison();
        crate::trace::event!(channel = %self.name, %error, "client poisoned");
        error
    }

    /// The client has closed or died: creates a new segment, as soon as the client has released this one.
    fn after_client(&mut self, peer: Peer, deadline: &Deadline) -> Result<()> {
        let Some(channel) = &self.channel else {
            return Ok(());
        };
        if peer != Peer::Died && channel.probe() != Peer::Died {
            if deadline.left().is_zero() {
                return Err(timed_out(deadline));
            }
            sys::sleep(PAUSE);
            return Ok(());
        }
        crate::trace::event!(channel = %self.name, "client gone, segment retired");
        self.renew()
    }

    /// Retires the segment, if there is one, and makes the next one.
    fn renew(&mut self) -> Result<()> {
        self.channel = None;
        let (name, config) = (&self.name, &self.config);
        let renewed = self.shared.segments.replace(|old, wanted| {
            if let Some(old) = old {
                old.retire()?;
            }
            ServerChannel::create(name, config, wanted).map(Arc::new)
        })?;
        failpoint!("retire.renewed");
        self.channel = Some(renewed);
        Ok(())
    }
}

fn timed_out(deadline: &Deadline) -> Error {
    Error::Timeout { waited: deadline.timeout(), what: "waiting for a request" }
}

/// A channel, and the wish to stop.
struct Stoppable<'s> {
    channel: &'s ServerChannel,
    shared: &'s Shared,
}

impl WaitContext for Stoppable<'_> {
    fn peer(&self) -> Peer {
        self.channel.peer()
    }

    fn probe(&self) -> Peer {
        self.channel.probe()
    }

    fn slice(&self) -> Duration {
        self.channel.slice()
    }

    fn stopped(&self) -> bool {
        self.shared.is_stopping()
    }
}
