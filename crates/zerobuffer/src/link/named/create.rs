//! The server's way to a segment: create one (section 9.1 "Server: create"), or take over from a server that
//! died (section 9.2 "Server: the name exists already").

use super::role::Role;
use super::segment::{Segment, Semaphores, semaphore_names, unlink_semaphores};
use crate::atomics::Ordering;
use crate::config::{BufferConfig, ServerConfig};
use crate::error::{Error, Medium, Result};
use crate::failpoint::failpoint;
use crate::memory::{MemoryProvider, SharedMemory};
use crate::name::ChannelName;
use crate::object::{self, Owner};
use crate::sys;
use crate::tenure::Wanted;
use crate::v2::layout::{Geometry, MAX_METADATA, METADATA, REQUEST, RESPONSE, UNIT, oieb};
use crate::v2::words::Words;

/// Every turn but the last loses a race against another server, or cleans up after a dead one. Even
/// eight servers that start at once need a handful of turns.
const MAX_TURNS: u32 = 1000;

/// The geometry of a channel of `buffer`'s sizes, which are rounded up to multiples of 64.
pub(crate) fn geometry(buffer: &BufferConfig) -> Result<Geometry> {
    if buffer.existing.is_some() {
        return Err(Error::Unsupported {
            what: "an in-place channel in memory that exists; it is one segment of its own, use \
                   BufferConfig::new",
        });
    }
    let whole = |size: usize| (size as u64).checked_next_multiple_of(UNIT);
    let refuse =
        |what, asked: usize, allowed| Error::BadConfig { what, asked: asked as u64, allowed };
    if buffer.payload_size == 0 {
        return Err(refuse("payload size", 0, "64 bytes to 256 GiB"));
    }
    if buffer.metadata_size as u64 > MAX_METADATA {
        return Err(refuse("metadata size", buffer.metadata_size, "0 bytes to 64 MiB"));
    }
    whole(buffer.metadata_size)
        .zip(whole(buffer.payload_size))
        .and_then(|(metadata, payload)| Geometry::new(metadata, metadata, payload))
        .ok_or_else(|| refuse("payload size", buffer.payload_size, "64 bytes to 256 GiB"))
}

/// Creates the segment and its semaphores, ready for a client, for as long as that is wanted.
///
/// # Errors
/// `AlreadyRunning`, `ForeignObject`, `PermissionDenied`, `NoSpace`, `TooLarge` (metadata); any error
/// once it is not wanted. Nothing is left behind.
pub(crate) fn create(
    name: &ChannelName,
    geometry: Geometry,
    config: &ServerConfig,
    wanted: Wanted<'_>,
) -> Result<Segment> {
    let object = name.segment();
    for _ in 0..MAX_TURNS {
        if !wanted() {
            return Err(Error::Closed);
        }
        let mut memory = hidden(name, geometry, config.mode)?;
        memory.set_pages(config.pages);
        failpoint!("create.locked");
        match object::publish(&memory, geometry.total())? {
            true => match build(name, memory, geometry, config, wanted) {
                Ok(Some(segment)) => return Ok(segment),
                // Somebody has removed the name, or makes semaphores of these names.
                Ok(None) => {}
                Err(error) if sys::is_taken(&error) => {}
                Err(error) => return Err(error),
            },
            false => clear_leftover(name, &object)?,
        }
    }
    Err(Error::AlreadyRunning { medium: Medium::Channel, name: name.to_string() })
}

/// A new segment that is locked before anybody can find it: so nobody takes it for a leftover, and if
/// this fails there is nothing to be undone.
fn hidden(name: &ChannelName, geometry: Geometry, mode: u32) -> Result<SharedMemory> {
    let memory = object::create_hidden(&name.segment(), mode, geometry.total())?;
    match Role::Server.claim(&memory)? {
        true => Ok(memory),
        false => Err(Error::AlreadyRunning { medium: Medium::Channel, name: name.to_string() }),
    }
}

/// Removes all of a channel's names, when its server stops.
///
/// If somebody has removed the segment's name alone, the semaphores' are left, and only the server that has
/// that name may touch them. So it is taken as a successor would take it, if it is free, and released.
pub(crate) fn remove(segment: &Segment) -> Result<()> {
    segment.unlink()?;
    if segment.own_semaphore_names().next().is_some() {
        let memory = object::create_hidden(&segment.name.segment(), 0o600, 0)?;
        if Role::Server.claim(&memory)? && object::publish(&memory, 0)? {
            let removed = segment
                .own_semaphore_names()
                .try_for_each(|semaphore| object::unlink_semaphore(&semaphore));
            memory.unlink()?;
            removed?;
        }
    }
    Ok(())
}

/// Removes a segment whose server has ended.
fn clear_leftover(name: &ChannelName, object: &str) -> Result<()> {
    let Some((mut memory, size)) = object::open_segment(object, Owner::Own)? else { return Ok(()) };
    if !Role::Server.claim(&memory)? {
        return Err(Error::AlreadyRunning { medium: Medium::Channel, name: name.to_string() });
    }
    if !may_be_a_segment(&mut memory, size)? {
        let _ = Role::Server.resign(&memory);
        let uid = sys::effective_uid();
        return Err(object::foreign(object, uid, "it is not a segment of this protocol"));
    }
    failpoint!("clear.locked");
    // A client that holds its lock sees the death of its server now. Dropping `memory` releases the lock; it is
    // released explicitly, as a mapping elsewhere may keep the open file.
    let removed = memory.unlink();
    failpoint!("clear.unlinked");
    let _ = Role::Server.resign(&memory);
    removed
}

/// Whether a leftover is what a server leaves behind, at whatever point it died: not made at all yet,
/// or starting with the size of an OIEB, or with the zero that stands there until the last step.
fn may_be_a_segment(memory: &mut SharedMemory, size: u64) -> Result<bool> {
    if size < METADATA as u64 {
        return Ok(size == 0);
    }
    memory.map_file(METADATA)?;
    let first =
        Words::new(memory.map(0, 8)?).at(REQUEST + oieb::SIZE_AND_VERSION).load(Ordering::Acquire);
    Ok(matches!(first as u32, 0 | 88))
}

/// Fills a new segment that is locked and named; undoes everything if a step fails. `None` if the name
/// was removed meanwhile.
fn build(
    name: &ChannelName,
    memory: SharedMemory,
    geometry: Geometry,
    config: &ServerConfig,
    wanted: Wanted<'_>,
) -> Result<Option<Segment>> {
    let mut undo = RemoveOnDrop { name, memory: Some(memory), semaphores: false };
    failpoint!("create.named");
    let memory = undo.memory.as_mut().expect("set above");
    if !memory.is_named()? {
        return Ok(None);
    }
    memory.allocate_while(geometry.total() as usize, wanted)?;
    memory.fault_in(wanted)?;
    failpoint!("create.reserved");
    unlink_leftover_semaphores(name)?;
    undo.semaphores = true;
    let semaphores = Semaphores::each(name, |semaphore| {
        failpoint!("create.semaphore");
        object::create_semaphore(semaphore, config.mode)
    })?;
    let memory = undo.memory.take().expect("set above");
    let segment = Segment::new(name, memory, geometry, semaphores, Role::Server)?;
    match write_initial_values(&segment, &config.metadata) {
        Ok(()) => Ok(Some(segment)),
        Err(error) => {
            let _ = segment.unlink();
            Err(error)
        }
    }
}

/// Removes what a predecessor left under the semaphores' names, and nothing else: what is not ours, or
/// no semaphore, is left alone.
fn unlink_leftover_semaphores(name: &ChannelName) -> Result<()> {
    for semaphore in semaphore_names(name) {
        object::has_own_semaphore(&semaphore)?;
    }
    unlink_semaphores(name)
}

/// The memory is zero; only what is not zero is written, and OIEB_Request's first word last.
fn write_initial_values(segment: &Segment, metadata: &[u8]) -> Result<()> {
    let geometry = segment.geometry;
    let blocks = [(REQUEST, geometry.metadata_request), (RESPONSE, geometry.metadata_response)];
    for (block, metadata_size) in blocks {
        segment.store(block + oieb::METADATA_FREE_BYTES, metadata_size);
        segment.store(block + oieb::PAYLOAD_FREE_BYTES, geometry.payload_size);
    }
    let words = segment.server_words();
    let (sizes, rest) = words.split_at(4);
    let store = |words: &[(usize, u64)]| {
        words.iter().for_each(|(offset, value)| segment.store(*offset, *value));
    };
    store(sizes);
    segment.write_metadata(metadata)?;
    failpoint!("create.sizes");
    let (rest, last) = rest.split_at(3);
    store(rest);
    failpoint!("create.written");
    store(last);
    failpoint!("create.ready");
    Ok(())
}

/// Removes a half-made channel when dropped with its memory still inside.
struct RemoveOnDrop<'n> {
    name: &'n ChannelName,
    memory: Option<SharedMemory>,
    /// What has the semaphores' names was made by this try; before, it may be somebody else's.
    semaphores: bool,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory
            && memory.is_named().unwrap_or(false)
        {
            if self.semaphores {
                let _ = unlink_semaphores(self.name);
            }
            let _ = memory.unlink();
            let _ = Role::Server.resign(memory);
        }
    }
}
