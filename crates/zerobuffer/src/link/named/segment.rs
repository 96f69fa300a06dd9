//! One segment with its semaphores: what creating and attaching have in common.

use super::role::Role;
use crate::atomics::Ordering;
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::link::segment::{self as mapped, Block};
use crate::memory::SharedMemory;
use crate::name::ChannelName;
use crate::object;
use crate::sys::Semaphore;
use crate::v2::layout::{Geometry, REQUEST, RESPONSE, oieb};
use crate::v2::words::Words;
use std::ops::Deref;

/// Nobody posts where there is a token, so there never are more than a handful.
const MANY_TOKENS: i32 = 1000;

/// The four semaphores of a channel.
#[derive(Debug)]
pub(crate) struct Semaphores {
    pub(crate) request_ready: Semaphore,
    pub(crate) response_ready: Semaphore,
    pub(crate) response_consumed: Semaphore,
    pub(crate) space_available: Semaphore,
}

/// Their names, in the order of the fields.
pub(crate) fn semaphore_names(name: &ChannelName) -> [String; 4] {
    [name.request_ready(), name.response_ready(), name.response_consumed(), name.space_available()]
}

impl Semaphores {
    /// Makes all four by `make`, stopping at the first failure.
    pub(crate) fn each<E>(
        name: &ChannelName,
        mut make: impl FnMut(&str) -> std::result::Result<Semaphore, E>,
    ) -> std::result::Result<Self, E> {
        let [request_ready, response_ready, response_consumed, space_available] =
            semaphore_names(name);
        Ok(Self {
            request_ready: make(&request_ready)?,
            response_ready: make(&response_ready)?,
            response_consumed: make(&response_consumed)?,
            space_available: make(&space_available)?,
        })
    }

    /// All four, in the order of their names.
    fn all(&self) -> [&Semaphore; 4] {
        let Self { request_ready, response_ready, response_consumed, space_available } = self;
        [request_ready, response_ready, response_consumed, space_available]
    }
}

/// A mapped segment in which this process has a role.
#[derive(Debug)]
pub(crate) struct Segment {
    mapped: mapped::Segment,
    pub(crate) memory: SharedMemory,
    pub(crate) semaphores: Semaphores,
    role: Role,
}

impl Deref for Segment {
    type Target = mapped::Segment;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.mapped
    }
}

impl Segment {
    /// The views of `memory`, all of which is mapped, as `geometry` divides it.
    pub(crate) fn new(
        name: &ChannelName,
        memory: SharedMemory,
        geometry: Geometry,
        semaphores: Semaphores,
        role: Role,
    ) -> Result<Self> {
        let mapped = mapped::Segment::new(name, &memory, geometry)?;
        Ok(Self { mapped, memory, semaphores, role })
    }

    /// The segment without its names.
    pub(crate) fn views(&self) -> mapped::Segment {
        self.mapped.clone()
    }

    /// Whether no client has left a trace (section 9.3.1 "Fresh").
    pub(crate) fn is_fresh(&self) -> bool {
        is_fresh(&self.control, &self.geometry)
            && self.payload_words().at(crate::v2::layout::slot::STATE).load(Ordering::Acquire) == 0
    }

    /// Whether clients find the segment and all four semaphores under their names.
    pub(crate) fn is_named(&self) -> Result<bool> {
        for (object, semaphore) in semaphore_names(&self.name).iter().zip(self.semaphores.all()) {
            if !semaphore.is_named(object).map_err(|errno| errno.on("find", object))? {
                return Ok(false);
            }
        }
        self.memory.is_named()
    }

    /// Whether a client will find what this server wrote, metadata of `metadata_len` bytes included, and
    /// semaphores that hold as few tokens as they can.
    pub(crate) fn is_sound(&self, metadata_len: usize) -> bool {
        let (block, start, _) = self.block(Block::Response);
        let written = if metadata_len == 0 { 0 } else { 8 + metadata_len as u64 };
        let len_is_right = metadata_len == 0 || self.load(start as usize) == metadata_len as u64;
        self.server_words().into_iter().all(|(offset, value)| self.load(offset) == value)
            && self.load(block + oieb::METADATA_WRITTEN_BYTES) == written
            && len_is_right
            && self
                .semaphores
                .all()
                .into_iter()
                .all(|semaphore| semaphore.value().is_some_and(|tokens| tokens < MANY_TOKENS))
    }

    /// Writes this side's metadata; called once, before the other side may look.
    ///
    /// # Errors
    /// `TooLarge` if the block does not hold the length and the bytes.
    pub(crate) fn write_metadata(&self, bytes: &[u8]) -> Result<()> {
        let block = match self.role {
            Role::Client => Block::Request,
            Role::Server => Block::Response,
        };
        self.mapped.write_metadata(block, bytes)
    }

    /// The semaphores' names that still stand for this segment's.
    pub(super) fn own_semaphore_names(&self) -> impl Iterator<Item = String> {
        let pairs = semaphore_names(&self.name).into_iter().zip(self.semaphores.all());
        let own = pairs.filter(|(object, semaphore)| semaphore.is_named(object).unwrap_or(false));
        own.map(|(object, _)| object)
    }

    /// Removes the channel's names, semaphores first, if the segment's name still stands for this
    /// segment; otherwise they are somebody else's.
    pub(crate) fn unlink(&self) -> Result<()> {
        if self.memory.is_named()? {
            unlink_semaphores(&self.name)?;
            failpoint!("unlink.semaphores");
            self.memory.unlink()?;
        }
        Ok(())
    }

    /// Releases the role at once, even while guards keep the mapping, and with it the open file,
    /// alive. It does nothing in a forked child: the lock is the parent's.
    pub(crate) fn resign(&self) {
        if self.is_this_process() {
            let _ = self.role.resign(&self.memory);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.resign();
    }
}

/// Whether all words that a client, or a server's work for a client, would have changed are as at
/// creation. The caller checks the first slot's state word.
pub(crate) fn is_fresh(control: &Words, geometry: &Geometry) -> bool {
    let is = |offset: usize, value: u64| control.at(offset).load(Ordering::Acquire) == value;
    is(REQUEST + oieb::METADATA_FREE_BYTES, geometry.metadata_request)
        && is(REQUEST + oieb::METADATA_WRITTEN_BYTES, 0)
        && is(REQUEST + oieb::PAYLOAD_FREE_BYTES, geometry.payload_size)
        && is(REQUEST + oieb::PAYLOAD_WRITTEN_BYTES, 0)
        && is(REQUEST + oieb::PAYLOAD_WRITTEN_COUNT, 0)
        && is(REQUEST + oieb::PAYLOAD_READ_COUNT, 0)
        && is(REQUEST + oieb::WRITER_PID, 0)
        && is(RESPONSE + oieb::PAYLOAD_FREE_BYTES, geometry.payload_size)
        && is(RESPONSE + oieb::PAYLOAD_WRITTEN_BYTES, 0)
        && is(RESPONSE + oieb::PAYLOAD_WRITTEN_COUNT, 0)
        && is(RESPONSE + oieb::PAYLOAD_READ_COUNT, 0)
        && is(RESPONSE + oieb::READER_PID, 0)
}

/// Removes the names of the four semaphores; missing ones are fine. Only for who holds the server's
/// lock on the segment that the channel's name stands for.
pub(crate) fn unlink_semaphores(name: &ChannelName) -> Result<()> {
    for semaphore in semaphore_names(name) {
        failpoint!("unlink.semaphore");
        object::unlink_semaphore(&semaphore)?;
    }
    Ok(())
}
