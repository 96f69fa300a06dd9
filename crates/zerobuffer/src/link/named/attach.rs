//! The client's way to a segment (section 9.3 "Client: attach").

use super::role::Role;
use super::segment::{self, Segment, Semaphores};
use crate::atomics::Ordering;
use crate::config::ClientConfig;
use crate::error::{Error, Medium, Result};
use crate::failpoint::failpoint;
use crate::memory::{MemoryProvider, SharedMemory};
use crate::name::ChannelName;
use crate::object::{self, Attempt, Owner, Refusal};
use crate::sys;
use crate::v2::layout::{Geometry, METADATA, REQUEST, RESPONSE, SIZE_AND_VERSION, oieb, slot};
use crate::v2::words::Words;
use crate::wait::Deadline;
use std::time::Duration;

/// While the server makes its segment.
const PAUSE: Duration = Duration::from_millis(1);

/// What `NotRunning` says where nothing of a channel's name exists.
pub(crate) const NO_CHANNEL: &str = "there is no such channel";

/// Attaches to the channel's server, trying again until the deadline; at least once, unless it
/// `is_cancelled` by the caller.
///
/// # Errors
/// `Closed` if it was cancelled; the reason of the last try: `NotRunning`, `Busy`, `PermissionDenied`, `ForeignObject`,
/// `Incompatible`, `TooLarge` (metadata).
pub(crate) fn attach(
    name: &ChannelName,
    config: &ClientConfig,
    deadline: &Deadline,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Segment> {
    let is_over = || deadline.left().is_zero() || is_cancelled();
    let attempt = || try_attach(name, config, &is_over, is_cancelled);
    object::retry(|| deadline.left(), is_cancelled, attempt)
}

fn try_attach(
    name: &ChannelName,
    config: &ClientConfig,
    is_over: &dyn Fn() -> bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Attempt<Segment> {
    let owner = Owner::of_peer(config.owner);
    let metadata = config.metadata.as_slice();
    let not_running = |found| {
        Refusal::Retry(Error::NotRunning { medium: Medium::Channel, name: name.to_string(), found })
    };
    let busy = || Refusal::Retry(Error::Busy { medium: Medium::Channel, name: name.to_string() });

    let mut memory = open_segment(name, owner, &not_running)?;
    memory.set_pages(config.pages);
    failpoint!("attach.opened");
    let geometry = map_segment(&mut memory, is_over, &not_running)?;
    failpoint!("attach.mapped");
    if !metadata.is_empty() && metadata.len() as u64 + 8 > geometry.metadata_request {
        let max = geometry.metadata_request.saturating_sub(8);
        return Err(Error::TooLarge { what: "metadata", asked: metadata.len() as u64, max }.into());
    }
    if !is_fresh(&memory, &geometry)? && !Role::Client.is_held(&memory)? {
        return Err(not_running("its server is replacing the segment of the previous client"));
    }
    if !is_fresh(&memory, &geometry)? {
        return Err(busy());
    }
    failpoint!("attach.fresh");
    if !Role::Client.claim(&memory)? {
        return Err(busy());
    }
    failpoint!("attach.locked");
    // The role must be released on every way out: the segment does so when it is dropped.
    let semaphores = Semaphores::each(name, |semaphore| {
        let opened = object::open_semaphore(semaphore, owner)?;
        opened.ok_or_else(|| not_running("its semaphores are missing"))
    });
    let semaphores = semaphores.inspect_err(|_| {
        let _ = Role::Client.resign(&memory);
    })?;
    let segment = Segment::new(name, memory, geometry, semaphores, Role::Client)?;
    failpoint!("attach.semaphores");
    segment.memory.fault_in(&|| !is_cancelled())?;
    if !segment.is_fresh() {
        return Err(busy());
    }
    let server_pids = [REQUEST + oieb::READER_PID, RESPONSE + oieb::WRITER_PID];
    if server_pids.into_iter().any(|pid| segment.load(pid) == 0) {
        return Err(not_running("it is being closed"));
    }
    if !Role::Server.is_held(&segment.memory)? || !segment.memory.is_named()? {
        return Err(not_running("its server has just gone"));
    }
    failpoint!("attach.looked_again");
    let pid = u64::from(sys::process_id());
    segment.store(RESPONSE + oieb::READER_PID, pid);
    failpoint!("attach.one_pid");
    segment.store(REQUEST + oieb::WRITER_PID, pid);
    failpoint!("attach.pids");
    segment.write_metadata(metadata)?;
    failpoint!("attach.metadata");
    Ok(segment)
}

/// Opens the segment and makes sure that it is the expected owner's, and that a server is there.
fn open_segment(
    name: &ChannelName,
    owner: Owner,
    not_running: &impl Fn(&'static str) -> Refusal,
) -> Attempt<SharedMemory> {
    let object = name.segment();
    let opened = object::open_segment(&object, owner)?;
    let (memory, size) = opened.ok_or_else(|| not_running(NO_CHANNEL))?;
    if size == 0 {
        return Err(not_running("its segment is being made"));
    }
    if size < METADATA as u64 {
        let uid = memory.stat()?.uid;
        return Err(object::foreign(&object, uid, "it is too short for a segment").into());
    }
    if !Role::Server.is_held(&memory)? {
        return Err(not_running("its segment is left over from a server that has ended"));
    }
    Ok(memory)
}

/// Maps all of a segment once its server has made it, and returns the private copy of its geometry.
fn map_segment(
    memory: &mut SharedMemory,
    is_over: &dyn Fn() -> bool,
    not_running: &impl Fn(&'static str) -> Refusal,
) -> Attempt<Geometry> {
    // The control part first: it says how much more there is.
    memory.map_file(METADATA)?;
    wait_until_made(memory, is_over, not_running)?;
    let geometry = read_geometry(memory)?;
    let size = memory.stat()?.size;
    if size != geometry.total() {
        return Err(violation("segment size", size, geometry.total()));
    }
    memory.map_file(size as usize)?;
    Ok(geometry)
}

/// Waits until the server has stored the first word, which it does last.
fn wait_until_made(
    memory: &SharedMemory,
    is_over: &dyn Fn() -> bool,
    not_running: &impl Fn(&'static str) -> Refusal,
) -> Attempt<()> {
    let words = Words::new(memory.map(0, METADATA)?);
    loop {
        // Acquire: pairs with the Release in `create`: all initial values are visible.
        let found = words.at(REQUEST + oieb::SIZE_AND_VERSION).load(Ordering::Acquire);
        if found as u32 != 0 {
            return check_version(memory, found);
        }
        if is_over() || !Role::Server.is_held(memory)? || !memory.is_named()? {
            return Err(not_running("its segment is being made"));
        }
        crate::sys::sleep(PAUSE);
    }
}

/// Checks the first word of an OIEB; minor, patch and reserved version bytes may be anything.
fn check_version(memory: &SharedMemory, found: u64) -> Attempt<()> {
    let (size, major) = (u64::from(found as u32), found >> 32 & 0xff);
    let (expected_size, expected_major) = (SIZE_AND_VERSION & 0xffff_ffff, SIZE_AND_VERSION >> 32);
    let (field, found, expected) = if size != expected_size {
        ("OIEB size", size, expected_size)
    } else if major != expected_major {
        ("major version", major, expected_major)
    } else {
        return Ok(());
    };
    Err(Error::Incompatible { object: memory.object().to_owned(), field, found, expected }.into())
}

/// Reads the sizes once and checks them.
fn read_geometry(memory: &SharedMemory) -> Attempt<Geometry> {
    let words = Words::new(memory.map(0, METADATA)?);
    let read = |offset: usize| words.at(offset).load(Ordering::Acquire);
    check_version(memory, read(RESPONSE + oieb::SIZE_AND_VERSION))?;
    let payload = read(REQUEST + oieb::PAYLOAD_SIZE);
    let same = read(RESPONSE + oieb::PAYLOAD_SIZE);
    if same != payload {
        return Err(violation("OIEB_Response.payload_size", same, payload));
    }
    let request = read(REQUEST + oieb::METADATA_SIZE);
    let response = read(RESPONSE + oieb::METADATA_SIZE);
    // One at a time, so that the error names the field; what is left is their sum.
    let largest = isize::MAX as u64;
    for (field, sizes, observed, allowed) in [
        ("OIEB_Request.payload_size", (0, 0, payload), payload, u64::from(u32::MAX) * 64),
        ("OIEB_Request.metadata_size", (request, 0, 64), request, largest),
        ("OIEB_Response.metadata_size", (0, response, 64), response, largest),
        ("OIEB_Response.metadata_size", (request, response, payload), response, largest),
    ] {
        if Geometry::new(sizes.0, sizes.1, sizes.2).is_none() {
            return Err(violation(field, observed, allowed));
        }
    }
    Geometry::new(request, response, payload)
        .ok_or_else(|| violation("OIEB_Request.payload_size", payload, largest))
}

fn is_fresh(memory: &SharedMemory, geometry: &Geometry) -> Result<bool> {
    let whole = Words::new(memory.map(0, geometry.total() as usize)?);
    let first_state = geometry.payload_offset as usize + slot::STATE;
    Ok(segment::is_fresh(&whole, geometry) && whole.at(first_state).load(Ordering::Acquire) == 0)
}

fn violation(field: &'static str, observed: u64, allowed: u64) -> Refusal {
    Refusal::Final(Error::ProtocolViolation { field, observed, allowed })
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
mod tests {
    use super::*;
    use crate::{BufferConfig, ErrorKind, Pages, Server};
    use std::cell::Cell;

    #[test]
    fn a_cancelled_attach_does_not_wait_for_pages() {
        let name = ChannelName::new(&format!("give-up-{}", std::process::id())).unwrap();
        let _server = Server::create(name.as_str(), BufferConfig::new(0, 16 << 20)).unwrap();
        let config = ClientConfig::new().pages(Pages::Prefaulted);
        let deadline = Deadline::after(Duration::from_secs(20));
        let checks = Cell::new(0);
        // After the first of some pieces.
        let is_cancelled = || checks.replace(checks.get() + 1) >= 2;
        let cancelled = attach(&name, &config, &deadline, &is_cancelled);
        assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Closed);
        // And the role was released.
        attach(&name, &config, &deadline, &|| false).unwrap();
    }
}
