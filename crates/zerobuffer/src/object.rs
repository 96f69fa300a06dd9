//! Named objects: found, judged, made and removed, as both versions do it.
//!
//! Whatever has one of our names may be anybody's. So it is opened first, judged by its open file (owner, kind,
//! size), and believed only then; what may be removed is this user's own.

use crate::error::{Error, OTHER_OWNER, Result, UNEXPECTED_OWNER};
use crate::memory::SharedMemory;
use crate::sys::{self, Errno, ObjectStat, Place, Semaphore};
use std::time::Duration;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// Why one try came to nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It may change: try again until the deadline, then report this.
    Retry(Error),
    /// It will not change.
    Final(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

pub(crate) type Attempt<T> = std::result::Result<T, Refusal>;

/// Tries until nothing is `left` of the time; at least once, unless the caller `is_cancelled`.
///
/// # Errors
/// `Closed` if it was cancelled; the reason of the last try.
pub(crate) fn retry<T>(
    left: impl Fn() -> Duration,
    is_cancelled: &dyn Fn() -> bool,
    mut attempt: impl FnMut() -> Attempt<T>,
) -> Result<T> {
    loop {
        if is_cancelled() {
            return Err(Error::Closed);
        }
        let error = match attempt() {
            Ok(value) => return Ok(value),
            // Why it was left unfinished is one thing, whatever step noticed it.
            Err(_) if is_cancelled() => return Err(Error::Closed),
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Retry(error)) => error,
        };
        let left = left();
        if left.is_zero() {
            return Err(error);
        }
        sys::sleep(PAUSE.min(left));
    }
}

/// Whose an object must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// This process's effective user: what it may remove.
    Own,
    /// The user that a peer is expected to be.
    Peer(u32),
}

impl Owner {
    /// The peer's user as configured; else this process's.
    pub(crate) fn of_peer(uid: Option<u32>) -> Self {
        Self::Peer(uid.unwrap_or_else(sys::effective_uid))
    }

    fn judge(self, object: &str, found: &ObjectStat) -> Result<()> {
        let (uid, reason) = match self {
            Self::Own => (sys::effective_uid(), OTHER_OWNER),
            Self::Peer(uid) => (uid, UNEXPECTED_OWNER),
        };
        if found.uid == uid { Ok(()) } else { Err(foreign(object, found.uid, reason)) }
    }

    /// Why an object that exists could not be opened; `found` is what its name stands for.
    fn open_error(self, errno: Errno, object: &str, found: Option<ObjectStat>) -> Error {
        let Some(found) = found else { return errno.on("open", object) };
        // ELOOP for a symbolic link, EINVAL for a directory, ENXIO for a socket: check, rather than know all.
        match (self, self.judge(object, &found)) {
            (Self::Own, Err(error)) => error,
            _ if !found.regular => foreign(object, found.uid, "it is not a regular file"),
            _ => errno.on("open", object),
        }
    }
}

pub(crate) fn foreign(object: &str, uid: u32, reason: &'static str) -> Error {
    Error::ForeignObject { object: object.to_owned(), uid, reason }
}

/// A new segment of `needed` bytes that nobody can find before it is published.
///
/// # Errors
/// `NoSpace`, `PermissionDenied`, `System`.
pub(crate) fn create_hidden(object: &str, mode: u32, needed: u64) -> Result<SharedMemory> {
    SharedMemory::create_hidden(object, mode).map_err(|errno| make_error(errno, object, needed))
}

/// Gives a hidden segment of `needed` bytes its name; false if the name is taken.
pub(crate) fn publish(memory: &SharedMemory, needed: u64) -> Result<bool> {
    sys::unless_taken(memory.publish()).map_err(|errno| make_error(errno, memory.object(), needed))
}

fn make_error(errno: Errno, object: &str, needed: u64) -> Error {
    errno.making("create", object, needed, Place::SharedMemory)
}

/// Opens the segment of this name, with nothing mapped, and how many bytes it has; `None` if there is none.
///
/// # Errors
/// `ForeignObject`, `PermissionDenied`, `System`.
pub(crate) fn open_segment(object: &str, owner: Owner) -> Result<Option<(SharedMemory, u64)>> {
    let opened = sys::if_there(SharedMemory::open_object(object)).map_err(|errno| {
        owner.open_error(errno, object, sys::stat_object(object).ok().flatten())
    })?;
    let Some(memory) = opened else { return Ok(None) };
    let stat = memory.stat()?;
    owner.judge(object, &stat)?;
    match stat.regular {
        true => Ok(Some((memory, stat.size))),
        false => Err(foreign(object, stat.uid, "it is not a shared-memory segment")),
    }
}

/// Creates a semaphore with value 0.
///
/// # Errors
/// Of those that [`sys::is_taken`] knows if the name is taken; `NoSpace`, `PermissionDenied`, `System`.
pub(crate) fn create_semaphore(object: &str, mode: u32) -> Result<Semaphore> {
    Semaphore::create_new(object, mode)
        .map_err(|errno| make_error(errno, object, Semaphore::FILE_SIZE))
}

/// Opens the semaphore of this name; `None` if there is none.
///
/// # Errors
/// `ForeignObject`, `PermissionDenied`, `System`.
pub(crate) fn open_semaphore(object: &str, owner: Owner) -> Result<Option<Semaphore>> {
    let opened = sys::if_there(Semaphore::open_file(object))
        .map_err(|errno| owner.open_error(errno, object, Semaphore::stat(object).ok().flatten()))?;
    let Some(file) = opened else { return Ok(None) };
    let stat = file.stat().map_err(|errno| errno.on("examine", object))?;
    judge_semaphore(object, owner, &stat)?;
    Semaphore::map(&file).map(Some).map_err(|errno| errno.on("map", object))
}

/// Whether the name stands for a semaphore of this user's, which may be removed; false if for nothing.
///
/// # Errors
/// `ForeignObject` if it stands for something else; `System`.
pub(crate) fn has_own_semaphore(object: &str) -> Result<bool> {
    let found = Semaphore::stat(object).map_err(|errno| errno.on("look up", object))?;
    found.map_or(Ok(false), |stat| judge_semaphore(object, Owner::Own, &stat).map(|()| true))
}

fn judge_semaphore(object: &str, owner: Owner, stat: &ObjectStat) -> Result<()> {
    owner.judge(object, stat)?;
    match Semaphore::is_semaphore(stat) {
        true => Ok(()),
        false => Err(foreign(object, stat.uid, "it is not a semaphore")),
    }
}

/// Removes a semaphore's name; a missing one is fine.
pub(crate) fn unlink_semaphore(object: &str) -> Result<()> {
    let removed = sys::if_there(Semaphore::unlink(object));
    removed.map(drop).map_err(|errno| errno.on("unlink", object))
}
