//! The reader's way to a segment: create it whole, take over from a reader that died, and remove it.

use super::layout::{Geometry, OIEB, SIZE_AND_VERSION, oieb};
use super::liveness::PeerWatch;
use super::locks::{self, Locks};
use super::segment::{Home, NamedSemaphore, Segment, map_header};
use crate::config::Liveness;
use crate::error::{Error, Medium, Result};
use crate::memory::{SharedMemory, SharedMemoryView};
use crate::name::BufferName;
use crate::object::{self, Owner};
use crate::sys::{self, Semaphore};
use crate::tenure::Wanted;
use std::sync::Arc;
use std::time::Duration;

/// A turn that does not succeed has met a scanning peer in the very moment (rule L2).
const MAX_TURNS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(2);

/// What a new buffer is to be.
pub(super) struct Plan<'p> {
    pub(super) name: &'p BufferName,
    pub(super) geometry: Geometry,
    pub(super) mode: u32,
    pub(super) liveness: Liveness,
    /// Memory to use in the place of a named segment.
    pub(super) memory: Option<SharedMemoryView>,
    pub(super) wanted: Wanted<'p>,
}

/// A segment of our own, with the locks that say so.
#[derive(Debug)]
pub(super) struct Owned {
    /// Frames that outlive the buffer's name share it.
    pub(super) segment: Arc<Segment>,
    /// `None` once closed.
    locks: Option<Locks>,
}

/// Creates the buffer: locks, semaphores, and last the segment, complete under its name (rule L11).
///
/// # Errors
/// `AlreadyRunning`, `ForeignObject`, `PermissionDenied`, `NoSpace`; any error once it is not wanted.
/// Nothing is left behind.
pub(super) fn create(plan: &Plan<'_>) -> Result<Owned> {
    for _ in 0..MAX_TURNS {
        if !(plan.wanted)() {
            return Err(Error::Closed);
        }
        let locks = Locks::acquire(plan.name, plan.mode)?;
        locks::remove_abandoned(has_objects);
        match clear_leftover(plan, &locks) {
            Ok(()) => {
                if let Some(owned) = build_owned(plan, locks)? {
                    return Ok(owned);
                }
            }
            Err(error) => {
                locks.release();
                // A process that is being killed loses its locks before its life.
                if !matches!(error, Error::AlreadyRunning { .. }) {
                    return Err(error);
                }
            }
        }
        crate::sys::sleep(PAUSE);
    }
    Err(Error::AlreadyRunning { medium: Medium::Buffer, name: plan.name.to_string() })
}

/// Makes the buffer under its locks; `None`, and all of it undone, if a scanning peer has deleted
/// something between two steps (rule L2) or somebody else was faster.
fn build_owned(plan: &Plan<'_>, locks: Locks) -> Result<Option<Owned>> {
    let segment = match build(plan) {
        Ok(Some(segment)) => segment,
        Ok(None) => return Ok(None),
        Err(error) if sys::is_taken(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let owned = Owned { segment: Arc::new(segment), locks: Some(locks) };
    Ok(Some(owned).filter(Owned::is_in_place))
}

impl Owned {
    /// Whether all names stand for what was made.
    pub(super) fn is_in_place(&self) -> bool {
        self.segment.is_named() && self.locks.as_ref().is_some_and(Locks::are_in_place)
    }

    /// Removes the buffer. The names go first, so that a death in between never leaves a segment
    /// without any pid (rules L4 and L9); the locks go last, so that no successor starts before.
    pub(super) fn close(&mut self) {
        if let Some(locks) = self.locks.take()
            && self.segment.is_this_process()
        {
            self.segment.unlink();
            // Not if somebody has taken the segment over (rule P6).
            let pid = u64::from(sys::process_id());
            self.segment.control.replace(oieb::READER_PID, pid, 0);
            drop(locks);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.close();
    }
}

/// Removes a segment whose reader has ended, and nothing else. Both locks are held.
fn clear_leftover(plan: &Plan<'_>, locks: &Locks) -> Result<()> {
    let object = plan.name.segment();
    let Some((memory, size)) = object::open_segment(&object, Owner::Own)? else { return Ok(()) };
    match read_leftover(memory, size)? {
        Leftover::Reader(pid) if is_alive(plan, pid) => {
            Err(Error::AlreadyRunning { medium: Medium::Buffer, name: plan.name.to_string() })
        }
        // Bytes that never were a buffer are somebody else's, unless other traces say that they were.
        Leftover::Unknown if !locks.were_left_over() && !has_semaphores(plan.name) => {
            Err(object::foreign(&object, sys::effective_uid(), "it is not a version 1 buffer"))
        }
        _ => sys::unlink_object(&object).map_err(|errno| errno.on("unlink", &object)),
    }
}

enum Leftover {
    /// A buffer, with the pid in its header.
    Reader(u64),
    /// What a reader leaves that died while it made its segment: no bytes, or only zeros.
    HalfMade,
    Unknown,
}

fn read_leftover(mut memory: SharedMemory, size: u64) -> Result<Leftover> {
    if size < OIEB {
        return Ok(if size == 0 { Leftover::HalfMade } else { Leftover::Unknown });
    }
    let header = map_header(&mut memory)?;
    let first = header.load(oieb::SIZE_AND_VERSION);
    if (0..OIEB as usize / 8).all(|word| header.load(word * 8) == 0) {
        return Ok(Leftover::HalfMade);
    }
    // Only the size counts here: releases before 1.1 wrote version 0 (rule X7).
    Ok(match first as u32 {
        128 => Leftover::Reader(header.load(oieb::READER_PID)),
        _ => Leftover::Unknown,
    })
}

/// Whether the reader with that pid is to be taken for alive, although we hold its locks.
fn is_alive(plan: &Plan<'_>, pid: u64) -> bool {
    // Our own pid: another reader in this process would hold the locks, so it is from an earlier life
    // (the main process of a container has the same pid in each).
    plan.liveness == Liveness::Pid
        && pid != 0
        && pid != u64::from(sys::process_id())
        && PeerWatch::new(Liveness::Pid, plan.name).is_reader_alive(pid)
}

/// Whether there is something of a buffer besides its lock files, or may be: one cannot look.
fn has_objects(name: &BufferName) -> bool {
    let semaphores = [name.data_ready(), name.space_freed()].map(|object| Semaphore::stat(&object));
    let segment = sys::stat_object(&name.segment());
    semaphores.into_iter().chain([segment]).any(|found| !matches!(found, Ok(None)))
}

fn has_semaphores(name: &BufferName) -> bool {
    [name.data_ready(), name.space_freed()]
        .iter()
        .any(|object| Semaphore::stat(object).is_ok_and(|found| found.is_some()))
}

/// Makes everything but the locks; `None` if somebody else has made a segment of that name meanwhile.
fn build(plan: &Plan<'_>) -> Result<Option<Segment>> {
    let mut undo = RemoveOnDrop { name: plan.name, armed: true };
    let data_ready = NamedSemaphore::create(plan.name.data_ready(), plan.mode)?;
    let space_freed = NamedSemaphore::create(plan.name.space_freed(), plan.mode)?;
    let home = match &plan.memory {
        Some(view) => Home::Supplied(view.clone()),
        None => Home::Named(hidden_segment(plan)?),
    };
    let segment = Segment::new(plan.name, home, plan.geometry, data_ready, space_freed)?;
    write_header(&segment);
    if !segment.publish()? {
        return Ok(None);
    }
    undo.armed = false;
    Ok(Some(segment))
}

/// A segment with all its pages, which nobody can find yet (rules L11, L14 and L16).
fn hidden_segment(plan: &Plan<'_>) -> Result<SharedMemory> {
    let object = plan.name.segment();
    let needed = plan.geometry.total();
    let mut memory = object::create_hidden(&object, plan.mode, needed)?;
    memory.allocate_while(needed as usize, plan.wanted)?;
    Ok(memory)
}

/// Writes all words of the header: supplied memory may hold anything.
fn write_header(segment: &Segment) {
    let Geometry { metadata_size, payload_size } = segment.geometry;
    let mut words = [0; OIEB as usize / 8];
    words[oieb::METADATA_SIZE / 8] = metadata_size;
    words[oieb::METADATA_FREE_BYTES / 8] = metadata_size;
    words[oieb::PAYLOAD_SIZE / 8] = payload_size;
    words[oieb::PAYLOAD_FREE_BYTES / 8] = payload_size;
    words[oieb::READER_PID / 8] = u64::from(sys::process_id());
    for (index, word) in words.into_iter().enumerate().skip(1) {
        segment.control.store(index * 8, word);
    }
    // Last: in supplied memory this is what a writer waits for.
    segment.control.store(oieb::SIZE_AND_VERSION, SIZE_AND_VERSION);
}

/// Removes the semaphores of a buffer that could not be made. Its segment has no name yet.
struct RemoveOnDrop<'n> {
    name: &'n BufferName,
    armed: bool,
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = object::unlink_semaphore(&self.name.data_ready());
            let _ = object::unlink_semaphore(&self.name.space_freed());
        }
    }
}

/// Removes what a crash has left of one buffer: segment, semaphores and lock files, if both sides are
/// dead. True if there was something, and it is removed now.
///
/// A reader of the same name does this by itself when it is created; this is for names that nobody
/// uses any more. Of other names only abandoned lock files are looked at, by new readers (rule L6).
///
/// ```
/// assert!(!zerobuffer::v1::remove_leftovers("nobody-ever-used-this")?);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
///
/// # Errors
/// [`Error::BadName`]; [`Error::AlreadyRunning`] if the reader lives; [`Error::Busy`] if a writer
/// lives; [`Error::PermissionDenied`]; [`Error::ForeignObject`].
pub fn remove_leftovers(name: &str) -> Result<bool> {
    let name = &BufferName::new(name)?;
    let plan = Plan {
        name,
        geometry: Geometry::for_request(0, 64)?,
        mode: 0o600,
        liveness: Liveness::Pid,
        memory: None,
        wanted: &|| true,
    };
    let locks = Locks::acquire(name, plan.mode)?;
    let found = locks.were_left_over() || has_objects(name);
    if let Err(error) = refuse_live_writer(name).and_then(|()| clear_leftover(&plan, &locks)) {
        locks.release();
        return Err(error);
    }
    object::unlink_semaphore(&name.data_ready())?;
    object::unlink_semaphore(&name.space_freed())?;
    Ok(found)
}

fn refuse_live_writer(name: &BufferName) -> Result<()> {
    let Ok(mut memory) = SharedMemory::open_object(&name.segment()) else { return Ok(()) };
    if memory.stat()?.size < OIEB {
        return Ok(());
    }
    let pid = map_header(&mut memory)?.load(oieb::WRITER_PID);
    match pid != 0 && PeerWatch::new(Liveness::Pid, name).is_writer_alive(pid) {
        true => Err(Error::Busy { medium: Medium::Buffer, name: name.to_string() }),
        false => Ok(()),
    }
}
