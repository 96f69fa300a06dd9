//! One connection of a client, of either kind, and how it is found.

use super::channel::{Attached, ClientChannel, end_error};
use super::lifeline::{Connected, Lifeline};
use super::number::Number;
use crate::config::{ChannelKind, ClientConfig};
use crate::error::{Error, LostRequest, Medium, Result};
use crate::name::ChannelName;
use crate::v1;
use crate::wait::{Deadline, Peer, WaitContext};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to find a server of either kind.
const PAUSE: Duration = Duration::from_millis(1);

/// A connection that is closed when its owner goes; guards may keep the memory for longer.
#[derive(Debug)]
pub(super) enum Connection {
    InPlace(Attached),
    TwoBuffers(TwoBuffers),
}

/// What [`Attached`] is for the other kind.
#[derive(Debug)]
pub(super) struct TwoBuffers(pub(super) Arc<v1::Channel>);

impl std::ops::Deref for TwoBuffers {
    type Target = Arc<v1::Channel>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for TwoBuffers {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Connected for v1::Channel {
    fn end(&self) {
        self.end();
    }
}

impl TwoBuffers {
    /// Connects to the server of `name`; the first request gets the number `next`.
    pub(super) fn connect(
        name: &str,
        config: &ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
        next: u64,
    ) -> Result<Self> {
        v1::Channel::connect(name, config, deadline, is_cancelled, next).map(Self)
    }
}

impl Connection {
    /// Connects to whatever server of the wanted kinds has the name.
    pub(super) fn find(
        name: &str,
        config: &ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Self> {
        match config.channel {
            ChannelKind::Any => find_any(name, config, deadline, is_cancelled),
            ChannelKind::InPlace | ChannelKind::Service => {
                let name = ChannelName::new(name)?;
                ClientChannel::attach(&name, config, deadline, false, is_cancelled)
                    .map(Self::InPlace)
            }
            ChannelKind::TwoBuffers => {
                let found = TwoBuffers::connect(name, config, deadline, is_cancelled, 1);
                found.map(Self::TwoBuffers)
            }
        }
    }

    pub(super) fn lifeline(&self) -> Arc<Lifeline> {
        match self {
            Self::InPlace(channel) => Lifeline::new(channel),
            Self::TwoBuffers(channel) => Lifeline::new(channel),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::InPlace(channel) => channel.segment.name.as_str(),
            Self::TwoBuffers(channel) => channel.name(),
        }
    }

    pub(super) fn is_in_place(&self) -> bool {
        matches!(self, Self::InPlace(_))
    }

    /// Whether it leads to a service, of which there may be several servers.
    pub(super) fn is_to_service(&self) -> bool {
        matches!(self, Self::InPlace(channel) if channel.is_to_service())
    }

    /// Whether it is known to be of no use any more.
    pub(super) fn is_spent(&self) -> bool {
        match self {
            Self::InPlace(channel) => !self.works() || channel.end().is_some(),
            Self::TwoBuffers(channel) => !self.works() || !channel.is_server_connected(),
        }
    }

    pub(super) fn is_this_process(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.segment.is_this_process(),
            Self::TwoBuffers(channel) => channel.is_this_process(),
        }
    }

    /// What the server has published about itself; with version 1 it has no place for that.
    pub(super) fn server_metadata(&self) -> &[u8] {
        match self {
            Self::InPlace(channel) => &channel.server_metadata,
            Self::TwoBuffers(_) => &[],
        }
    }

    pub(super) fn is_server_connected(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.is_server_connected(),
            Self::TwoBuffers(channel) => channel.is_server_connected(),
        }
    }

    pub(super) fn is_desynchronised(&self) -> bool {
        match self {
            Self::InPlace(_) => false,
            Self::TwoBuffers(channel) => channel.is_desynchronised(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::InPlace(channel) => channel.ring().in_flight() as usize,
            Self::TwoBuffers(channel) => channel.in_flight(),
        }
    }

    pub(super) fn max_request_size(&self) -> usize {
        match self {
            Self::InPlace(channel) => channel.ring().max_capacity() as usize,
            Self::TwoBuffers(channel) => channel.max_request_size(),
        }
    }

    pub(super) fn cancel(&self, number: Number) -> bool {
        match self {
            Self::InPlace(channel) => channel.cancel(number),
            Self::TwoBuffers(channel) => channel.cancel(number.for_caller()),
        }
    }

    /// Whether the number was given on this connection, or will be.
    pub(super) fn has_counted(&self, number: Number) -> bool {
        match self {
            Self::InPlace(channel) => channel.has_counted(number),
            Self::TwoBuffers(channel) => channel.has_counted(number.for_caller()),
        }
    }

    // ---- the end ----

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::InPlace(channel) => channel.check(),
            Self::TwoBuffers(channel) => channel.check(),
        }
    }

    /// Whether this side has ended the connection.
    pub(super) fn has_ended_here(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.has_ended_here(),
            Self::TwoBuffers(channel) => channel.has_ended_here(),
        }
    }

    /// Whether nothing can be sent any more because another connection takes its place.
    pub(super) fn is_sealed(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.is_sealed(),
            Self::TwoBuffers(channel) => channel.is_replaced(),
        }
    }

    /// Whether this end was closed, so that nothing is in flight any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.is_closed(),
            Self::TwoBuffers(channel) => channel.has_ended_here() || channel.is_replaced(),
        }
    }

    pub(super) fn has_server(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.has_server(),
            Self::TwoBuffers(channel) => channel.is_server_connected(),
        }
    }

    /// How the server fares, as far as is known without asking.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::InPlace(channel) => channel.peer(),
            // What the threads that waited for it have not been told is told as the end of the connection.
            Self::TwoBuffers(_) => Peer::Closed,
        }
    }

    /// Why a request of `size` bytes was not sent in time.
    pub(super) fn why_not_sent(&self, size: usize) -> Error {
        match self {
            Self::InPlace(channel) if channel.peer() != Peer::Alive => {
                end_error(channel.peer(), None)
            }
            Self::InPlace(channel) => channel.full(size as u64, 0),
            Self::TwoBuffers(channel) => {
                let (needed, in_flight) = (size as u64, channel.in_flight() as u64);
                Error::Full { medium: Medium::Channel, needed, free: 0, in_flight, held: 0 }
            }
        }
    }

    /// Whether requests can go on here for as long as the server does.
    pub(super) fn works(&self) -> bool {
        match self {
            Self::InPlace(channel) => channel.check().is_ok() && !channel.ring().is_exhausted(),
            Self::TwoBuffers(channel) => channel.check().is_ok() && !channel.is_desynchronised(),
        }
    }

    pub(super) fn close(&self) {
        match self {
            Self::InPlace(channel) => channel.close(),
            Self::TwoBuffers(channel) => channel.close(),
        }
    }

    /// Ends the connection to make room for the next one, and lists what was in flight.
    pub(super) fn leave(&self) -> Vec<LostRequest> {
        match self {
            Self::InPlace(channel) => {
                let lost = channel.seal().report();
                channel.leave();
                lost
            }
            Self::TwoBuffers(channel) => channel.replace(),
        }
    }

    /// A connection to the next server of the same kind.
    pub(super) fn connect_again(
        &self,
        config: &ClientConfig,
        deadline: &Deadline,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Self> {
        match self {
            Self::InPlace(channel) => {
                let name = &channel.segment.name;
                ClientChannel::attach(name, config, deadline, false, is_cancelled)
                    .map(Self::InPlace)
            }
            Self::TwoBuffers(channel) => {
                let (name, next) = (channel.name(), channel.next_number());
                let next = TwoBuffers::connect(name, config, deadline, is_cancelled, next);
                next.map(Self::TwoBuffers)
            }
        }
    }

    /// Nothing is sent here from now on, and the numbers go on with `next`. Lists what is in flight.
    pub(super) fn seal_for(&self, next: &Self) -> Vec<LostRequest> {
        match (self, next) {
            (Self::InPlace(channel), Self::InPlace(next)) => {
                let sealed = channel.seal();
                next.count_on(sealed);
                sealed.report()
            }
            // Left before the next one was made.
            _ => Vec::new(),
        }
    }
}

fn find_any(
    name: &str,
    config: &ClientConfig,
    deadline: &Deadline,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Connection> {
    let channel_name = ChannelName::new(name)?;
    loop {
        let in_place = ClientChannel::attach(&channel_name, config, deadline, true, is_cancelled);
        let error = match in_place {
            Ok(channel) => return Ok(Connection::InPlace(channel)),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        // A name that is too long for two buffers has none.
        if v1::is_duplex_server_running(name).unwrap_or(false) {
            let channel = TwoBuffers::connect(name, config, deadline, is_cancelled, 1);
            return channel.map(Connection::TwoBuffers);
        }
        if is_cancelled() {
            return Err(Error::Closed);
        }
        if deadline.left().is_zero() {
            return Err(error);
        }
        crate::sys::sleep(PAUSE.min(deadline.left()));
    }
}
