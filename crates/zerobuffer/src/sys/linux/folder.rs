//! Directories in which sockets are found.

use super::fork::Descriptor;
use super::shm::check;
use super::{c_name, kernel, last_errno};
use crate::sys::{Errno, FolderStat, SocketEntry};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

/// File systems on which a socket can be reached through another inode than the one it is bound to.
const NOT_LOCAL: [i64; 6] = [
    0x794c_7630, // overlayfs
    0x6969,      // NFS
    0x6573_5546, // FUSE
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
];

/// An open directory.
#[derive(Debug)]
pub(crate) struct Folder {
    file: Descriptor,
    path: String,
}

impl Folder {
    /// Opens a directory that exists; the last part of `path` may be no symbolic link (ELOOP or ENOTDIR).
    pub(crate) fn open(path: &str) -> Result<Self, Errno> {
        let name = c_name(path)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = Descriptor::open(|| {
            kernel::call_again("open", || {
                // SAFETY: `name` is NUL-terminated and outlives the call.
                let fd = unsafe { libc::open(name.as_ptr(), flags) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes the directory, with exactly the permission bits `mode`; EEXIST if something has the name.
    pub(crate) fn make(path: &str, mode: u32) -> Result<(), Errno> {
        let name = c_name(path)?;
        kernel::call("mkdir", || {
            // SAFETY: `name` is NUL-terminated and outlives the call.
            check(unsafe { libc::mkdir(name.as_ptr(), 0o700) })
        })?;
        if mode == 0o700 {
            return Ok(());
        }
        // The umask takes bits away.
        let folder = Self::open(path)?;
        kernel::call("fchmod", || {
            // SAFETY: `fd` is open for the life of `folder`.
            check(unsafe { libc::fchmod(folder.file.fd(), mode) })
        })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whose it is, and who may write in it.
    pub(crate) fn stat(&self) -> Result<FolderStat, Errno> {
        // SAFETY: an all-zero stat is a valid value of this plain C struct.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        kernel::call("fstat", || {
            // SAFETY: `fd` is open for the life of `self`, and `stat` is a valid place to write to.
            check(unsafe { libc::fstat(self.file.fd(), &mut stat) })
        })?;
        Ok(FolderStat { uid: stat.st_uid, mode: stat.st_mode & 0o7777 })
    }

    /// Gives the directory to a group.
    pub(crate) fn set_group(&self, gid: u32) -> Result<(), Errno> {
        kernel::call("fchown", || {
            // SAFETY: `fd` is open for the life of `self`; the owner stays.
            check(unsafe { libc::fchown(self.file.fd(), u32::MAX, gid) })
        })
    }

    /// A path of `entry` that is short however long the directory's own is, for a socket's address.
    pub(crate) fn address(&self, entry: &str) -> String {
        let short = format!("/proc/self/fd/{}/{entry}", self.file.fd());
        let has_proc = std::path::Path::new("/proc/self/fd").exists();
        if has_proc { short } else { format!("{}/{entry}", self.path) }
    }

    /// The sockets in it, as far as they can be seen, in no order.
    pub(crate) fn sockets(&self) -> Result<Vec<SocketEntry>, Errno> {
        let read = || -> std::io::Result<Vec<SocketEntry>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&self.path)?.flatten() {
                let (Ok(name), Ok(stat)) = (entry.file_name().into_string(), entry.metadata())
                else {
                    continue;
                };
                if stat.file_type().is_socket() {
                    let age = stat.modified().ok().and_then(|time| time.elapsed().ok());
                    let identity = crate::sys::Identity { device: stat.dev(), inode: stat.ino() };
                    let age = age.unwrap_or(Duration::ZERO);
                    found.push(SocketEntry { name, identity, age });
                }
            }
            Ok(found)
        };
        kernel::call_again("open", || {
            read().map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::ENOTDIR)))
        })
    }

    /// Whether a socket in it that refuses is a dead one.
    pub(crate) fn is_local(&self) -> bool {
        // SAFETY: an all-zero statfs is a valid value of this plain C struct.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        let found = kernel::call_again("fstatvfs", || {
            // SAFETY: `fd` is open for the life of `self`, and `stat` is a valid place to write to.
            check(unsafe { libc::fstatfs(self.file.fd(), &mut stat) })
        });
        found.is_ok() && !NOT_LOCAL.contains(&(stat.f_type as i64 & 0xffff_ffff))
    }

    pub(crate) fn set_mode(&self, entry: &str, mode: u32) -> Result<(), Errno> {
        let entry = c_name(entry)?;
        kernel::call("fchmod", || {
            // SAFETY: `entry` is NUL-terminated and outlives the call.
            check(unsafe { libc::fchmodat(self.file.fd(), entry.as_ptr(), mode, 0) })
        })
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to, fd) = (c_name(from)?, c_name(to)?, self.file.fd());
        kernel::call("rename", || {
            // SAFETY: both names are NUL-terminated and outlive the call.
            check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) })
        })
    }

    /// Removes an entry; one that does not exist is removed already.
    pub(crate) fn unlink(&self, entry: &str) -> Result<(), Errno> {
        let entry = c_name(entry)?;
        let removed = kernel::call("unlink", || {
            // SAFETY: `entry` is NUL-terminated and outlives the call.
            check(unsafe { libc::unlinkat(self.file.fd(), entry.as_ptr(), 0) })
        });
        if removed == Err(Errno(libc::ENOENT)) { Ok(()) } else { removed }
    }

    /// Removes the directory, if it is empty (ENOTEMPTY) and still has its path; one that does not exist is
    /// removed already.
    pub(crate) fn remove(&self) -> Result<(), Errno> {
        let path = c_name(&self.path)?;
        let removed = kernel::call("unlink", || {
            // SAFETY: `path` is NUL-terminated and outlives the call.
            check(unsafe { libc::rmdir(path.as_ptr()) })
        });
        if removed == Err(Errno(libc::ENOENT)) { Ok(()) } else { removed }
    }
}

/// Tells that something in some directories has changed.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    file: Descriptor,
}

impl FolderWatch {
    /// Watches those of `paths` that exist.
    pub(crate) fn of<'p>(paths: impl IntoIterator<Item = &'p str>) -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("inotify_init", || {
                // SAFETY: the call takes an integer.
                let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        // The kernel waits, milliseconds and more, until nobody can be about to tell it something.
        let file = file.apart();
        let events = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB | libc::IN_DELETE_SELF;
        for path in paths {
            let path = c_name(path)?;
            // What does not exist yet appears in the directory above.
            let _ = kernel::call("inotify_add_watch", || {
                // SAFETY: `path` is NUL-terminated and outlives the call.
                check(unsafe { libc::inotify_add_watch(file.fd(), path.as_ptr(), events) })
            });
        }
        Ok(Self { file })
    }

    /// Sleeps until something has changed or the deadline has passed; whether something has. A watch tells
    /// once: what is there may have been replaced as a whole, so the caller makes a new one.
    pub(crate) fn wait(&self, deadline_ns: u64) -> Result<bool, Errno> {
        let mut polls = [libc::pollfd { fd: self.file.fd(), events: libc::POLLIN, revents: 0 }];
        match super::socket::poll(&mut polls, Some(deadline_ns)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno(libc::EINTR)) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}
