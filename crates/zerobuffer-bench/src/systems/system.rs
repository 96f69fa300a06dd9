//! The systems by name, and what is measured with any of them.

use super::clients::{self, Rates};
use super::exchange::{self, Load};
use super::growth;
#[cfg(feature = "iceoryx2")]
use super::iceoryx;
use super::in_place::{self, Wait};
use super::{service, streams, two_buffers, zeromq};
use crate::plan::{Round, Unavailable};
use crate::work::Work;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::sync::Arc;

/// A way to exchange messages with another process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum System {
    InPlace(Wait),
    Service(Wait),
    TwoBuffers,
    /// The answer is a copy of the request, edited.
    Iceoryx,
    /// The answer is other memory, which nobody has written: no work in place, but no copy either.
    IceoryxUntouched,
    UnixSocket,
    Pipe,
    ZeroMq,
}

/// Runs `$body` with `$open` being the function that opens `$system`.
macro_rules! with_open {
    ($system:expr, $open:ident => $body:expr) => {
        match $system {
            System::InPlace(wait) => {
                let $open = |seats, load| in_place::Channel::open(seats, load, wait);
                $body
            }
            System::Service(wait) => {
                let $open = |seats, load| service::open(seats, load, wait);
                $body
            }
            System::TwoBuffers => {
                let $open = two_buffers::Channel::open;
                $body
            }
            #[cfg(feature = "iceoryx2")]
            System::Iceoryx => {
                let $open =
                    |seats, load| iceoryx::Service::open(seats, load, iceoryx::Answer::Copy);
                $body
            }
            #[cfg(feature = "iceoryx2")]
            System::IceoryxUntouched => {
                let $open =
                    |seats, load| iceoryx::Service::open(seats, load, iceoryx::Answer::Other);
                $body
            }
            #[cfg(not(feature = "iceoryx2"))]
            System::Iceoryx | System::IceoryxUntouched => {
                Err(Unavailable("this program was built without its feature iceoryx2").into())
            }
            System::UnixSocket => {
                let $open = streams::Socket::open;
                $body
            }
            System::Pipe => {
                let $open = streams::Pipes::open;
                $body
            }
            System::ZeroMq => {
                let $open = zeromq::Requester::open;
                $body
            }
        }
    };
}

impl System {
    pub(crate) const SPINNING: Self = Self::InPlace(Wait::Spin);
    pub(crate) const SLEEPING: Self = Self::InPlace(Wait::Park);

    /// As the plots name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InPlace(Wait::Spin) => "in place, spinning",
            Self::InPlace(Wait::Park) => "in place, sleeping",
            Self::InPlace(Wait::Default) => "in place",
            Self::Service(Wait::Spin) => "service, spinning",
            Self::Service(Wait::Park) => "service, sleeping",
            Self::Service(Wait::Default) => "service",
            Self::TwoBuffers => "two buffers",
            Self::Iceoryx => "iceoryx2",
            Self::IceoryxUntouched => "iceoryx2, nothing copied",
            Self::UnixSocket => "Unix socket",
            Self::Pipe => "pipes",
            Self::ZeroMq => "ZeroMQ",
        }
    }

    /// Nanoseconds of a round trip of `len` bytes of which the server edits eight.
    pub(crate) fn echo_ns(self, round: &Round, len: usize) -> Result<f64> {
        with_open!(self, open => exchange::echo_ns(round, Load::echo(len), open))
    }

    /// How long single round trips of `len` bytes take.
    pub(crate) fn latencies(self, round: &Round, len: usize) -> Result<Histogram<u64>> {
        with_open!(self, open => exchange::latencies(round, Load::echo(len), open))
    }

    /// Nanoseconds for a picture that is filled here, worked on there, and read here.
    pub(crate) fn frame_ns(self, round: &Round, work: Work) -> Result<f64> {
        with_open!(self, open => exchange::frame_ns(round, Load::picture(work), open))
    }

    /// Nanoseconds for editing a twentieth of a picture that lies there already: the client writes
    /// nothing, and reads what was edited.
    pub(crate) fn redaction_ns(self, round: &Round) -> Result<f64> {
        with_open!(self, open => exchange::redaction_ns(round, Load::picture(Work::Redact), open))
    }

    /// Bytes of memory that both processes together use for exchanging pictures.
    pub(crate) fn memory(self, round: &Round) -> Result<f64> {
        with_open!(self, open => exchange::memory(round, open))
    }

    /// Calls of eight bytes in a second, of so many clients at the same time.
    pub(crate) fn rates(self, round: &Round, count: usize) -> Result<Rates> {
        let load = Load::echo(8);
        match self {
            Self::InPlace(wait) => growth::rates(round, wait, count),
            Self::Service(wait) => service::rates(round, load, wait, count),
            #[cfg(feature = "iceoryx2")]
            Self::Iceoryx => {
                let seats = round.seats()?;
                let host = iceoryx::Host::start(seats, load, iceoryx::Answer::Copy, count)?;
                clients::rates(round, seats, load, count, |_| iceoryx::Service::connect(&host))
            }
            Self::UnixSocket => {
                let seats = round.seats()?;
                let spec = streams::SocketSpec::new(load);
                let peer = spec.start(seats)?;
                clients::rates(round, seats, load, count, |_| {
                    streams::Socket::connect(&spec, Arc::clone(&peer))
                })
            }
            _ => Err(Unavailable("not measured with several clients").into()),
        }
    }

    /// Messages of 64 bytes in a second with `in_flight` under way.
    pub(crate) fn pipelined(self, round: &Round, in_flight: usize) -> Result<f64> {
        let load = Load { in_flight, ..Load::echo(64) };
        match self {
            Self::InPlace(wait) => exchange::pipelined(round, load, |seats, load| {
                in_place::Channel::open(seats, load, wait)
            }),
            Self::TwoBuffers => exchange::pipelined(round, load, two_buffers::Channel::open),
            #[cfg(feature = "iceoryx2")]
            Self::Iceoryx => exchange::pipelined(round, load, |seats, load| {
                iceoryx::Service::open(seats, load, iceoryx::Answer::Copy)
            }),
            Self::UnixSocket => exchange::pipelined(round, load, streams::Socket::open),
            _ => Err(Unavailable("not measured with several requests in flight").into()),
        }
    }
}
