//! Why an object could not be created: what is short, and what helps.

use super::{Errno, imp};
use crate::error::Error;

/// Where an object is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'p> {
    /// /dev/shm.
    SharedMemory,
    /// In memory, without a name.
    Anonymous,
    /// A folder of lock files.
    Folder(&'p str),
}

impl Place<'_> {
    fn has_no_inodes(self) -> bool {
        match self {
            Self::Anonymous => false,
            Self::SharedMemory => imp::has_no_inodes("/dev/shm"),
            Self::Folder(path) => imp::has_no_inodes(path),
        }
    }
}

impl Errno {
    /// As [`Errno::on`], for making an object of `needed` bytes in `place`: a shortage has a kind of its own.
    pub(crate) fn making(
        self,
        operation: &'static str,
        object: &str,
        needed: u64,
        place: Place<'_>,
    ) -> Error {
        match self.shortage(place) {
            Some(reason) => Error::NoSpace { object: object.to_owned(), needed, reason },
            None => self.on(operation, object),
        }
    }

    fn shortage(self, place: Place<'_>) -> Option<&'static str> {
        let inodes = || place.has_no_inodes();
        Some(match (self.0, place) {
            (libc::ENOSPC, Place::SharedMemory) if inodes() => {
                "/dev/shm has no inodes left (see `df -i /dev/shm`); remove files there, or have it \
                 mounted with more"
            }
            (libc::ENOSPC, Place::SharedMemory) => {
                "/dev/shm is full (see `df /dev/shm`); free some of it, enlarge it, or ask for a \
                 smaller payload"
            }
            (libc::ENOSPC, Place::Anonymous) => {
                "there is no memory left; end other programs, or ask for a smaller ring"
            }
            (libc::ENOSPC, Place::Folder(_)) if inodes() => {
                "the disk of the lock files has no inodes left (see `df -i`); remove files there"
            }
            (libc::ENOSPC, Place::Folder(_)) => {
                "the disk of the lock files is full (see `df`); free some of it"
            }
            (libc::EDQUOT, _) => {
                "this user's quota there is used up; remove files, or have it raised"
            }
            (libc::EFBIG, _) => {
                "this process may not make a file of that size (RLIMIT_FSIZE, see `ulimit -f`); have \
                 the limit raised, or ask for a smaller payload"
            }
            (libc::ENOMEM, _) => {
                "the system, or what this process may have of it, has no memory left; end other \
                 programs, have the limit raised, or ask for a smaller payload"
            }
            _ => return None,
        })
    }
}
