//! Lock files: files whose open descriptor holds a BSD lock (`flock`), as the peers of version 1 use them.

use super::fork::Descriptor;
use super::shm::{check, object_stat};
use super::{c_name, effective_uid, kernel, last_errno};
use crate::sys::{Errno, NO_PROC, ObjectStat};
use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An open lock file. Its lock lives as long as the file is open in this process; a forked child
/// gives its copy of the descriptor back at birth, and drop does nothing there.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: Descriptor,
    /// The name that the file has until it is linked, where the file system knows no unnamed files.
    temporary: Option<String>,
}

impl LockFile {
    /// Opens a lock file that exists.
    pub(crate) fn open(path: &str) -> Result<Self, Errno> {
        Self::open_with(path, libc::O_RDWR | libc::O_NOFOLLOW, 0)
    }

    /// As [`LockFile::open`], to check the lock only: permission to read suffices.
    pub(crate) fn open_to_probe(path: &str) -> Result<Self, Errno> {
        Self::open_with(path, libc::O_RDONLY | libc::O_NOFOLLOW, 0)
    }

    /// A new file in `directory` that nobody can find before [`LockFile::link`].
    pub(crate) fn create_hidden(directory: &str, mode: u32) -> Result<Self, Errno> {
        let file = match Self::open_with(directory, libc::O_RDWR | libc::O_TMPFILE, 0o600) {
            // Older overlay file systems have no unnamed files.
            Err(Errno(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                Self::create_temporary(directory)?
            }
            opened => opened?,
        };
        kernel::call("fchmod", || {
            // SAFETY: `fd` is open for the life of `file`.
            check(unsafe { libc::fchmod(file.file.fd(), mode) })
        })?;
        Ok(file)
    }

    /// The temporary name must not end in `.lock`: peers of version 1 delete such files.
    fn create_temporary(directory: &str) -> Result<Self, Errno> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = format!("{directory}/.new-{}-{count}", std::process::id());
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let mut file = Self::open_with(&path, flags, 0o600)?;
        file.temporary = Some(path);
        Ok(file)
    }

    fn open_with(path: &str, flags: i32, mode: libc::mode_t) -> Result<Self, Errno> {
        let path = c_name(path)?;
        let file = Descriptor::open(|| {
            let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
            kernel::call_again("open", || {
                // SAFETY: `path` is NUL-terminated and outlives the call.
                let fd = unsafe { libc::open(path.as_ptr(), flags, mode) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file, temporary: None })
    }

    /// Gives the file its name; fails with EEXIST if the name is taken.
    pub(crate) fn link(&mut self, path: &str) -> Result<(), Errno> {
        match self.temporary.take() {
            None => link_descriptor(&self.file, path),
            Some(temporary) => {
                let linked = kernel::call("link", || {
                    std::fs::hard_link(&temporary, path).map_err(|error| errno_of(&error))
                });
                let _ = unlink_path(&temporary);
                linked
            }
        }
    }

    /// Takes the exclusive lock for as long as the file is open. False: another open file has it.
    pub(crate) fn try_lock(&self) -> Result<bool, Errno> {
        self.flock(libc::LOCK_EX)
    }

    /// Whether nobody has the exclusive lock at this moment.
    pub(crate) fn is_free(&self) -> Result<bool, Errno> {
        self.flock(libc::LOCK_SH)
    }

    fn flock(&self, operation: i32) -> Result<bool, Errno> {
        let locked = kernel::call_again("flock", || {
            // SAFETY: `fd` is open for the life of `self`.
            check(unsafe { libc::flock(self.file.fd(), operation | libc::LOCK_NB) })
        });
        match locked {
            Ok(()) => Ok(true),
            Err(Errno(libc::EWOULDBLOCK)) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// What the file is.
    pub(crate) fn stat(&self) -> Result<ObjectStat, Errno> {
        // SAFETY: an all-zero stat is a valid value of this plain C struct.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        kernel::call("fstat", || {
            // SAFETY: `fd` is open for the life of `self`, and `stat` is a valid place to write to.
            check(unsafe { libc::fstat(self.file.fd(), &mut stat) })
        })?;
        Ok(object_stat(&stat))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.file.is_this_process()
            && let Some(temporary) = &self.temporary
        {
            let _ = unlink_path(temporary);
        }
    }
}

/// Gives the unnamed file behind `file` a name; fails with EEXIST if the name is taken, and with
/// [`NO_PROC`] if this system knows no way to do it without /proc.
pub(super) fn link_descriptor(file: &Descriptor, path: &str) -> Result<(), Errno> {
    let by_path = c_name(&format!("/proc/self/fd/{}", file.fd()))?;
    let to = c_name(path)?;
    match link(libc::AT_FDCWD, &by_path, &to, libc::AT_SYMLINK_FOLLOW) {
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => {}
        linked => return linked,
    }
    // Not everybody may do it this way before Linux 6.10, and then it is said that nothing is there.
    match link(file.fd(), c"", &to, libc::AT_EMPTY_PATH) {
        Err(Errno(libc::ENOENT)) if !is_there("/proc/self/fd") => Err(NO_PROC),
        linked => linked,
    }
}

fn link(folder: i32, from: &CStr, to: &CStr, flags: i32) -> Result<(), Errno> {
    kernel::call("linkat", || {
        // SAFETY: both names are NUL-terminated and outlive the call.
        check(unsafe { libc::linkat(folder, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
    })
}

fn is_there(path: &str) -> bool {
    stat_path(path).is_ok_and(|found| found.is_some())
}

/// What a path stands for (symbolic links are not followed); `None` if it stands for nothing.
pub(crate) fn stat_path(path: &str) -> Result<Option<ObjectStat>, Errno> {
    let path = c_name(path)?;
    // SAFETY: an all-zero stat is a valid value of this plain C struct.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let found = kernel::call("lstat", || {
        // SAFETY: `path` is NUL-terminated, and `stat` is a valid place to write to.
        check(unsafe { libc::lstat(path.as_ptr(), &mut stat) })
    });
    match found {
        Ok(()) => Ok(Some(object_stat(&stat))),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of empty files in `folder` that are this user's and have not changed for so long; as far as
/// they can be seen.
pub(crate) fn old_empty_files(folder: &str, age: Duration) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let old = entries.flatten().filter(|entry| {
        entry.metadata().is_ok_and(|found| {
            let changed = found.modified().ok().and_then(|time| time.elapsed().ok());
            let is_this_process = found.uid() == effective_uid();
            found.is_file()
                && found.len() == 0
                && is_this_process
                && changed.is_some_and(|past| past > age)
        })
    });
    old.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes a file.
pub(crate) fn unlink_path(path: &str) -> Result<(), Errno> {
    let path = c_name(path)?;
    kernel::call("unlink", || {
        // SAFETY: `path` is NUL-terminated and outlives the call.
        check(unsafe { libc::unlink(path.as_ptr()) })
    })
}

/// Makes a directory and those above it, as far as they are missing, with the umask's permissions.
pub(crate) fn make_directories(path: &str) -> Result<(), Errno> {
    kernel::call("mkdir", || std::fs::create_dir_all(path).map_err(|error| errno_of(&error)))
}

/// The error number in an error of the standard library, which says "not a directory" in words.
fn errno_of(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::ENOTDIR))
}
