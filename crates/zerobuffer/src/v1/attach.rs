//! The writer's way to a segment that a reader has made.

use super::config::WriterConfig;
use super::layout::{Geometry, OIEB, oieb};
use super::liveness::PeerWatch;
use super::ring::{Used, WriterRing, last_sequence};
use super::segment::{Home, NamedSemaphore, Segment, map_header};
use super::words::Oieb;
use crate::error::{Error, Medium, Result};
use crate::memory::MemoryProvider;
use crate::name::BufferName;
use crate::object::{self, Attempt, Owner, Refusal};
use crate::sys;
use crate::wait::Deadline;
use std::sync::Arc;

/// A segment that this process writes.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) segment: Arc<Segment>,
    pub(super) reader: PeerWatch,
}

impl Attached {
    /// Gives the writer's role back, if it still is ours (rule P6). Nothing is posted (rule R10).
    pub(super) fn close(&self) {
        if self.segment.is_this_process() {
            let pid = u64::from(sys::process_id());
            self.segment.control.replace(oieb::WRITER_PID, pid, 0);
        }
    }
}

/// Attaches to the buffer, trying again until the deadline; at least once. `supplied` is the memory to
/// use in the place of a named segment.
///
/// # Errors
/// The reason of the last try: `NotRunning`, `Busy`, `PermissionDenied`, `ForeignObject`,
/// `Incompatible`, `SequenceUnknown`, `ProtocolViolation`.
pub(super) fn attach(
    name: &BufferName,
    config: &WriterConfig,
    supplied: Option<&dyn MemoryProvider>,
    deadline: &Deadline,
) -> Result<(Attached, WriterRing)> {
    object::retry(|| deadline.left(), &|| false, || try_attach(name, config, supplied))
}

fn not_running(name: &BufferName, found: &'static str) -> Refusal {
    Refusal::Retry(Error::NotRunning { medium: Medium::Buffer, name: name.to_string(), found })
}

/// Everything is opened and checked before the writer's role is claimed (rule L12).
fn try_attach(
    name: &BufferName,
    config: &WriterConfig,
    supplied: Option<&dyn MemoryProvider>,
) -> Attempt<(Attached, WriterRing)> {
    let owner = Owner::of_peer(config.owner);
    let (home, geometry) = match supplied {
        Some(memory) => supplied_home(name, memory)?,
        None => named_home(name, owner)?,
    };
    let semaphore = |object| {
        NamedSemaphore::open(object, owner)?
            .ok_or_else(|| not_running(name, "its semaphores are missing"))
    };
    let data_ready = semaphore(name.data_ready())?;
    let space_freed = semaphore(name.space_freed())?;
    let segment = Segment::new(name, home, geometry, data_ready, space_freed)?;
    let reader = PeerWatch::new(config.liveness, name);
    check_reader(&segment, &reader)?;
    claim(&segment, config)?;
    // From here on dropping `attached` releases the role.
    let attached = ReleaseOnDrop(Some(Attached { segment: Arc::new(segment), reader }));
    let ring = continue_ring(attached.get(), config)?;
    Ok((attached.keep(), ring))
}

/// Releases the role unless kept.
struct ReleaseOnDrop(Option<Attached>);

impl ReleaseOnDrop {
    fn get(&self) -> &Segment {
        &self.0.as_ref().expect("there until kept").segment
    }

    fn keep(mut self) -> Attached {
        self.0.take().expect("kept once")
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        if let Some(attached) = &self.0 {
            attached.close();
        }
    }
}

fn named_home(name: &BufferName, owner: Owner) -> Attempt<(Home, Geometry)> {
    let object = name.segment();
    let opened = object::open_segment(&object, owner)?;
    let (mut memory, size) = opened.ok_or_else(|| not_running(name, "there is no such buffer"))?;
    if size == 0 {
        return Err(not_running(name, "its segment is being made"));
    }
    if size < OIEB {
        return Err(incompatible(&object, "segment size", size, OIEB).into());
    }
    let header = map_header(&mut memory)?;
    let geometry = read_geometry(name, &object, &header, size)?;
    memory.map_file(geometry.total() as usize)?;
    Ok((Home::Named(memory), geometry))
}

fn supplied_home(name: &BufferName, memory: &dyn MemoryProvider) -> Attempt<(Home, Geometry)> {
    let view = memory.map(0, OIEB as usize)?;
    check_alignment(view.as_ptr().addr())?;
    // What does not fit the memory is refused by `map`.
    let geometry = read_geometry(name, "supplied memory", &Oieb::new(view), u64::MAX)?;
    Ok((Home::Supplied(memory.map(0, geometry.total() as usize)?), geometry))
}

/// Supplied memory must start where words may start.
pub(super) fn check_alignment(address: usize) -> Result<()> {
    match address.is_multiple_of(8) {
        true => Ok(()),
        false => Err(Error::BadConfig {
            what: "address of the supplied memory",
            asked: address as u64,
            allowed: "a multiple of 8",
        }),
    }
}

/// Reads the sizes once and checks them (rule R17).
fn read_geometry(
    name: &BufferName,
    object: &str,
    header: &Oieb,
    available: u64,
) -> Attempt<Geometry> {
    let first = header.load(oieb::SIZE_AND_VERSION);
    let (size, major) = (u64::from(first as u32), first >> 32 & 0xff);
    if first == 0 {
        return Err(not_running(name, "its segment is being made"));
    }
    if size != OIEB {
        return Err(incompatible(object, "OIEB size", size, OIEB).into());
    }
    // Existing readers fill the header under its name, field by field, this one last; and clear it
    // when they close.
    if header.load(oieb::READER_PID) == 0 {
        return Err(not_running(name, "it is being made, or closed"));
    }
    // Releases before 1.1 wrote 0 and other duplex frames (rule X7).
    if major != 1 {
        return Err(incompatible(object, "major version", major, 1).into());
    }
    let (metadata, payload) = (header.load(oieb::METADATA_SIZE), header.load(oieb::PAYLOAD_SIZE));
    Geometry::of_segment(metadata, payload, available)
        .ok_or_else(|| incompatible(object, "payload or metadata size", payload, 64).into())
}

/// A live reader, in the segment that the name stands for at this moment (rule P4).
fn check_reader(segment: &Segment, reader: &PeerWatch) -> Attempt<()> {
    let pid = segment.reader_pid();
    if pid == 0 {
        return Err(not_running(&segment.name, "it is being closed"));
    }
    if !reader.is_reader_alive(pid) {
        return Err(not_running(&segment.name, "its reader has ended"));
    }
    match segment.is_named() {
        true => Ok(()),
        false => Err(not_running(&segment.name, "it is being replaced")),
    }
}

/// Takes the writer's role if it is free, or its writer has ended (rule L13).
fn claim(segment: &Segment, config: &WriterConfig) -> Attempt<()> {
    let former = segment.writer_pid();
    let writer = PeerWatch::new(config.liveness, &segment.name);
    let is_free = former == 0 || !writer.is_writer_alive(former);
    let pid = u64::from(sys::process_id());
    match is_free && segment.control.replace(oieb::WRITER_PID, former, pid) {
        true => Ok(()),
        false => Err(Refusal::Retry(Error::Busy {
            medium: Medium::Buffer,
            name: segment.name.to_string(),
        })),
    }
}

/// A ring that goes on where the buffer's former writer stopped (rules R4 and R13).
fn continue_ring(segment: &Segment, config: &WriterConfig) -> Attempt<WriterRing> {
    let size = segment.geometry.payload_size;
    let bounded = |offset, field| match segment.control.load(offset) {
        value if value <= size => Ok(value),
        observed => Err(Error::ProtocolViolation { field, observed, allowed: size }),
    };
    let write = bounded(oieb::PAYLOAD_WRITE_POS, "oieb.payload_write_pos")?;
    let free = bounded(oieb::PAYLOAD_FREE_BYTES, "oieb.payload_free_bytes")?;
    let read = bounded(oieb::PAYLOAD_READ_POS, "oieb.payload_read_pos")?;
    let unread = (write % size + size - read % size) % size;
    if free > size - unread {
        // A writer died between moving its position and accounting for the frame. Nobody repairs the
        // account under a reader (rule R8): the reader must be made anew. It may also be a reader in
        // the middle of a wrap, which is over in a moment.
        return Err(Refusal::Retry(Error::ProtocolViolation {
            field: "oieb.payload_free_bytes",
            observed: free,
            allowed: size - unread,
        }));
    }
    let written = segment.control.load(oieb::PAYLOAD_WRITTEN_COUNT);
    let next = match written {
        0 => 1,
        _ => match last_sequence(&segment.headers, Used { size, read, write, written }) {
            Some(last) => last + 1,
            None if config.restart_sequence => 1,
            None => return Err(Error::SequenceUnknown { name: segment.name.to_string() }.into()),
        },
    };
    let (control, headers) = (segment.control.clone(), segment.headers.clone());
    Ok(WriterRing::new(control, headers, size, write, next))
}

fn incompatible(object: &str, field: &'static str, found: u64, expected: u64) -> Error {
    Error::Incompatible { object: object.to_owned(), field, found, expected }
}
