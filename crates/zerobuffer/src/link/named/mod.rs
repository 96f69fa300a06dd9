//! A channel with names: the segment and its four semaphores in `/dev/shm`, and locks on the segment that say
//! who lives.

mod attach;
mod create;
mod death_watch;
mod role;
mod segment;

pub(crate) use attach::{NO_CHANNEL, attach};
pub(crate) use create::{create, geometry, remove};
pub(crate) use death_watch::DeathWatch;
pub(crate) use role::{Role, has_server};
pub(crate) use segment::Segment;
