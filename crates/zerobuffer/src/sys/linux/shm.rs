//! Named shared memory: open files with role locks, and mappings.

use super::fork::Descriptor;
use super::lockfile::link_descriptor;
use super::{c_name, fork, kernel, last_errno};
use crate::sys::{Errno, Identity, NO_POPULATE, ObjectStat, Pages};
use crate::tenure::Wanted;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// What is shared may be confidential, and a core dump goes to others.
static IN_CORE_DUMPS: AtomicBool = AtomicBool::new(false);

/// Whether core dumps hold the mappings that are made from now on.
pub(crate) fn include_in_core_dumps(include: bool) {
    // Relaxed: a choice, and nothing that comes with it.
    IN_CORE_DUMPS.store(include, Ordering::Relaxed);
}

/// Pages are reserved in pieces of this size: a signal interrupts the reservation of one piece only,
/// so even a steady stream of signals cannot keep it from finishing.
const RESERVE_STEP: u64 = 1 << 20;

/// Where a huge page begins, on the machines that this is written for.
const HUGE_PAGE: usize = 2 << 20;

/// Linux 6.3; not in every release of the libc crate.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

const SIZE_SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
const ALL_SEALS: libc::c_int = SIZE_SEALS | libc::F_SEAL_WRITE;

/// Linux 6.1; not in every release of the libc crate.
const MADV_COLLAPSE: libc::c_int = 25;
const COLLAPSE_TRIES: u32 = 5;

/// An open shared-memory object: the owner of role locks, which live as long as it is open.
///
/// In a forked child it is inert: the descriptor is closed there, and drop does nothing.
#[derive(Debug)]
pub(crate) struct ShmFile {
    file: Descriptor,
}

impl ShmFile {
    /// Opens an object that exists, for reading and writing.
    pub(crate) fn open(name: &str) -> Result<Self, Errno> {
        let name = c_name(name)?;
        let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = Descriptor::open(|| {
            kernel::call_again("shm_open", || {
                // SAFETY: `name` is NUL-terminated and outlives the call.
                let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    /// Creates an object without a name: nobody can find it before [`ShmFile::publish`], and if this
    /// process dies before, nothing is left. Its mode is `mode` whatever the umask says.
    pub(crate) fn create_hidden(mode: u32) -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            let flags = libc::O_RDWR | libc::O_TMPFILE | libc::O_CLOEXEC;
            kernel::call_again("open", || {
                // SAFETY: the path is NUL-terminated.
                let fd = unsafe { libc::open(c"/dev/shm".as_ptr(), flags, 0o600) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        let file = Self { file };
        file.set_mode(mode)?;
        Ok(file)
    }

    /// Creates an object that has no name and never gets one: it is handed over by its descriptor. `label`
    /// is what /proc shows.
    pub(crate) fn create_memory(label: &str) -> Result<Self, Errno> {
        let label = c_name(label)?;
        let file = Descriptor::open(|| {
            let make = |flags| {
                kernel::call("memfd_create", || {
                    // SAFETY: `label` is NUL-terminated and outlives the call.
                    let fd = unsafe { libc::memfd_create(label.as_ptr(), flags) };
                    if fd < 0 { Err(last_errno()) } else { Ok(fd) }
                })
            };
            let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
            match make(flags | MFD_NOEXEC_SEAL) {
                // Before Linux 6.3 it is not known.
                Err(Errno(libc::EINVAL)) => make(flags),
                made => made,
            }
        })?;
        Ok(Self { file })
    }

    /// Whether a descriptor that came over a socket is one of an object in memory of the usual kind: closing anything else
    /// can take for ever, and of huge pages its maker could take some away, however they are sealed, and who touched
    /// them then would die.
    pub(super) fn is_memory(file: &Descriptor) -> Result<bool, Errno> {
        // SAFETY: an all-zero statfs is a valid value of this plain C struct.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        kernel::call_again("fstatvfs", || {
            // SAFETY: the descriptor is open, and `stat` is a valid place to write to.
            check(unsafe { libc::fstatfs(file.fd(), &mut stat) })
        })?;
        Ok(stat.f_type == libc::TMPFS_MAGIC)
    }

    /// An object that came over a socket.
    pub(super) fn of(file: Descriptor) -> Self {
        Self { file }
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.fd()
    }

    /// From now on nobody changes the object's length, or what is sealed.
    pub(crate) fn seal_size(&self) -> Result<(), Errno> {
        self.seal(SIZE_SEALS)
    }

    /// Whether [`ShmFile::seal_size`] holds, in whatever process it was called.
    pub(crate) fn is_size_sealed(&self) -> Result<bool, Errno> {
        self.has_seals(SIZE_SEALS)
    }

    /// Makes an object of `text`, which nobody changes from now on, to be handed over.
    pub(crate) fn of_text(label: &str, text: &[u8]) -> Result<Self, Errno> {
        let object = Self::create_memory(label)?;
        object.check_room(text.len() as u64)?;
        let mut done = 0;
        while done < text.len() {
            let rest = &text[done..];
            done += kernel::call_again("write", || {
                let (data, len, at) = (rest.as_ptr().cast(), rest.len(), done as libc::off_t);
                // SAFETY: `rest` can be read.
                let written = unsafe { libc::pwrite(object.file.fd(), data, len, at) };
                if written < 0 { Err(last_errno()) } else { Ok(written as usize) }
            })?;
        }
        object.seal(ALL_SEALS)?;
        Ok(object)
    }

    /// Whether nobody can change what is in it, as after [`ShmFile::of_text`].
    pub(crate) fn is_sealed(&self) -> Result<bool, Errno> {
        self.has_seals(ALL_SEALS)
    }

    /// The first `len` bytes, or as many as there are.
    pub(crate) fn read(&self, len: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        text.try_reserve_exact(len).map_err(|_| Errno(libc::ENOMEM))?;
        text.resize(len, 0);
        let mut done = 0;
        while done < len {
            let rest = &mut text[done..];
            let read = kernel::call_again("read", || {
                let (data, len, at) = (rest.as_mut_ptr().cast(), rest.len(), done as libc::off_t);
                // SAFETY: `rest` can be written.
                let read = unsafe { libc::pread(self.file.fd(), data, len, at) };
                if read < 0 { Err(last_errno()) } else { Ok(read as usize) }
            })?;
            if read == 0 {
                break;
            }
            done += read;
        }
        text.truncate(done);
        Ok(text)
    }

    fn seal(&self, seals: libc::c_int) -> Result<(), Errno> {
        kernel::call_again("fcntl", || {
            // SAFETY: `fd` is open for the life of `self`; the call takes integers.
            check(unsafe { libc::fcntl(self.file.fd(), libc::F_ADD_SEALS, seals) })
        })
    }

    fn has_seals(&self, wanted: libc::c_int) -> Result<bool, Errno> {
        let seals = kernel::call_again("fcntl", || {
            // SAFETY: as above.
            let seals = unsafe { libc::fcntl(self.file.fd(), libc::F_GET_SEALS) };
            if seals < 0 { Err(last_errno()) } else { Ok(seals) }
        });
        match seals {
            // It is no memfd.
            Err(Errno(libc::EINVAL)) => Ok(false),
            seals => seals.map(|seals| seals & wanted == wanted),
        }
    }

    /// Gives a hidden object its name; fails with EEXIST if the name is taken.
    pub(crate) fn publish(&self, name: &str) -> Result<(), Errno> {
        link_descriptor(&self.file, &format!("/dev/shm{name}"))
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        kernel::call("fchmod", || {
            // SAFETY: `fd` is open for the life of `self`.
            check(unsafe { libc::fchmod(self.file.fd(), mode) })
        })
    }

    /// What the object is.
    pub(crate) fn stat(&self) -> Result<ObjectStat, Errno> {
        // SAFETY: an all-zero stat is a valid value of this plain C struct.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        kernel::call("fstat", || {
            // SAFETY: `fd` is open for the life of `self`, and `stat` is a valid place to write to.
            check(unsafe { libc::fstat(self.file.fd(), &mut stat) })
        })?;
        Ok(object_stat(&stat))
    }

    /// Makes the object `size` bytes long with every page reserved, so that a full /dev/shm is an
    /// error here and never a SIGBUS later. ECANCELED once it is not `wanted` any more.
    pub(crate) fn reserve(&self, size: u64, wanted: Wanted<'_>) -> Result<(), Errno> {
        self.check_room(size)?;
        let mut done = 0;
        while done < size {
            check_wanted(wanted)?;
            done = self.reserve_step(done, size)?;
        }
        Ok(())
    }

    /// Whether an object of `size` bytes can be reserved, as far as that can be told before.
    pub(crate) fn check_room(&self, size: u64) -> Result<(), Errno> {
        // Checked first: reaching the limit is a signal that ends the process.
        if size > file_size_limit() {
            return Err(Errno(libc::EFBIG));
        }
        // And this, as going on until there is nothing left would take it from everybody else.
        if self.free_bytes()?.is_some_and(|free| size > free) {
            return Err(Errno(libc::ENOSPC));
        }
        Ok(())
    }

    /// Reserves one piece more of an object that is to have `size` bytes, of which `done` are reserved; how
    /// many are then.
    pub(crate) fn reserve_step(&self, done: u64, size: u64) -> Result<u64, Errno> {
        let step = RESERVE_STEP.min(size.saturating_sub(done));
        kernel::call_again("posix_fallocate", || {
            let (start, len) = (done as libc::off_t, step as libc::off_t);
            // SAFETY: `fd` is open for the life of `self`.
            match unsafe { libc::posix_fallocate(self.file.fd(), start, len) } {
                0 => Ok(()),
                errno => Err(Errno(errno)),
            }
        })?;
        Ok(done + step)
    }

    /// How much can still be reserved where the object lies; `None` if there is no limit.
    fn free_bytes(&self) -> Result<Option<u64>, Errno> {
        // SAFETY: an all-zero statvfs is a valid value of this plain C struct.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        kernel::call_again("fstatvfs", || {
            // SAFETY: `fd` is open for the life of `self`, and `stat` is a valid place to write to.
            check(unsafe { libc::fstatvfs(self.file.fd(), &mut stat) })
        })?;
        // A tmpfs without a limit reports no blocks at all.
        Ok((stat.f_blocks != 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Takes the exclusive lock on one byte, for as long as this file is open. False: another open
    /// file holds it.
    ///
    /// Once it is taken, all that its last holder stored is seen.
    pub(crate) fn try_lock(&self, byte: u64) -> Result<bool, Errno> {
        match self.lock_call(libc::F_OFD_SETLK, libc::F_WRLCK, byte) {
            Ok(_) => {
                // Its partner is the kernel's release of the last holder's lock. That the kernel locks
                // inside of both calls orders most machines already, but no manual promises it.
                fence(Ordering::SeqCst);
                Ok(true)
            }
            Err(Errno(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the lock on one byte back; unlike closing, this works while a mapping keeps the open
    /// file alive.
    pub(crate) fn unlock(&self, byte: u64) -> Result<(), Errno> {
        self.lock_call(libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
    }

    /// Whether another open file holds the lock on one byte. If none does, all that its last holder
    /// stored is seen.
    pub(crate) fn is_locked_elsewhere(&self, byte: u64) -> Result<bool, Errno> {
        let is_held = self.lock_call(libc::F_OFD_GETLK, libc::F_WRLCK, byte)? != libc::F_UNLCK;
        if !is_held {
            // As in `try_lock`.
            fence(Ordering::SeqCst);
        }
        Ok(is_held)
    }

    fn lock_call(&self, command: i32, kind: i32, byte: u64) -> Result<i32, Errno> {
        if !self.file.is_this_process() {
            return Err(Errno(libc::EBADF));
        }
        // SAFETY: an all-zero flock is a valid value of this plain C struct; OFD locks need l_pid 0.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = byte as libc::off_t;
        lock.l_len = 1;
        kernel::call_again("fcntl", || {
            // SAFETY: `fd` is open for the life of `self`, and `lock` is a valid flock.
            check(unsafe { libc::fcntl(self.file.fd(), command, &mut lock) })
        })?;
        Ok(i32::from(lock.l_type))
    }
}

/// The first bytes of a shared-memory object, mapped for reading and writing; unmapped when dropped.
///
/// Forked children do not inherit it, and drop does nothing there.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    generation: u32,
}

// SAFETY: a mapping is an address range without thread affinity; who may access which bytes is
// decided by those who hand out references (`v2::words`, `v2::frame`).
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `&Mapping` gives out an address and a length only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, which must be at least that long, at an address that suits
    /// `pages`; [`Mapping::fault_in`] makes them be there.
    pub(crate) fn new(file: &ShmFile, len: usize, pages: Pages) -> Result<Self, Errno> {
        fork::unforked(|| Self::make(file, len, pages))
    }

    fn make(file: &ShmFile, len: usize, pages: Pages) -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapping = if pages == Pages::Huge && len >= HUGE_PAGE {
            let reserved = Self::reserve_aligned(len)?;
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            map(reserved.base.as_ptr().cast(), len, access, flags, file.file.fd())?;
            reserved
        } else {
            Self::owning(
                map(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.file.fd())?,
                len,
            )
        };
        // A child must not hold the mapping: it would keep the open file, and with it the parent's
        // lock, alive.
        mapping.advise(&(0..len), libc::MADV_DONTFORK)?;
        if !IN_CORE_DUMPS.load(Ordering::Relaxed) {
            mapping.advise(&(0..len), libc::MADV_DONTDUMP)?;
        }
        Ok(mapping)
    }

    fn owning(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, generation: fork::generation() }
    }

    /// Addresses for `len` bytes that start at a multiple of a huge page; nothing can be read there yet.
    fn reserve_aligned(len: usize) -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // Only whole pages can be unmapped.
        let whole = len.checked_next_multiple_of(page_size()).ok_or(Errno(libc::ENOMEM))?;
        let room = whole.checked_add(HUGE_PAGE).ok_or(Errno(libc::ENOMEM))?;
        let start = map(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1)?;
        let before = start.align_offset(HUGE_PAGE);
        // SAFETY: `before` is less than a huge page, and so inside of the reservation, as are the `whole`
        // bytes behind it and what is left of the huge page at the end.
        let (base, end) = unsafe { (start.add(before), start.add(before + whole)) };
        // Dropping these values unmaps the surplus.
        drop((Self::owning(start, before), Self::owning(end, HUGE_PAGE - before)));
        Ok(Self::owning(base, len))
    }

    /// Makes the pages be there, if `pages` asks for that. ECANCELED once it is not `wanted` any more: a
    /// huge page at a time, which takes milliseconds.
    pub(crate) fn fault_in(&self, pages: Pages, wanted: Wanted<'_>) -> Result<(), Errno> {
        if pages == Pages::OnDemand {
            return Ok(());
        }
        for start in (0..self.len).step_by(HUGE_PAGE) {
            check_wanted(wanted)?;
            let piece = start..self.len.min(start + HUGE_PAGE);
            if pages == Pages::Huge {
                // Older kernels do not know it, and others may have no huge page to give: small ones serve
                // as well. EAGAIN: some page was in use for a moment.
                let once = |_| self.advise(&piece, MADV_COLLAPSE) != Err(Errno(libc::EAGAIN));
                let _ = (0..COLLAPSE_TRIES).any(once);
            }
            self.advise(&piece, libc::MADV_POPULATE_WRITE).map_err(|errno| match errno {
                // The kernel does not know the advice.
                Errno(libc::EINVAL) => NO_POPULATE,
                errno => errno,
            })?;
        }
        Ok(())
    }

    /// Gives the memory behind the mapping back to the system, for everybody who has it mapped: its bytes
    /// are zero from then on. For the time when the protocol gives nobody any of them.
    pub(crate) fn punch(&self) -> Result<(), Errno> {
        let all = 0..self.len;
        match self.advise(&all, libc::MADV_REMOVE) {
            // Pages that are locked, as they are in a program that calls mlockall, stay where they are.
            Err(Errno(libc::EINVAL)) => {
                kernel::call("munlock", || {
                    // SAFETY: the range is this mapping. No bytes change.
                    check(unsafe { libc::munlock(self.base.as_ptr().cast(), self.len) })
                })?;
                self.advise(&all, libc::MADV_REMOVE)
            }
            done => done,
        }
    }

    fn advise(&self, piece: &Range<usize>, advice: libc::c_int) -> Result<(), Errno> {
        debug_assert!(piece.end <= self.len, "a piece of this mapping");
        kernel::call_again("madvise", || {
            // SAFETY: the pieces that are asked for lie inside of this mapping. Only `punch` changes
            // bytes, which is what any process that shares them can do at any time.
            check(unsafe {
                let start = self.base.as_ptr().add(piece.start);
                libc::madvise(start.cast(), piece.len(), advice)
            })
        })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.generation == fork::generation() && self.len > 0 {
            let _ = kernel::call("munmap", || {
                // SAFETY: the range is the mapping that `new` made in this process, and every
                // reference into it borrows from a value that keeps this mapping alive.
                check(unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) })
            });
        }
    }
}

fn page_size() -> usize {
    // SAFETY: the call has no memory effects; this value is known on every system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// `mmap`. At an address that is fixed there must be a reservation that the caller owns.
fn map(
    at: *mut libc::c_void,
    len: usize,
    access: i32,
    flags: i32,
    fd: i32,
) -> Result<NonNull<u8>, Errno> {
    let base = kernel::call("mmap", || {
        // SAFETY: without a fixed address no existing mapping is touched, and with one only what the
        // caller has reserved; `fd` is open, or -1 for none.
        match unsafe { libc::mmap(at, len, access, flags, fd, 0) } {
            libc::MAP_FAILED => Err(last_errno()),
            base => Ok(base),
        }
    })?;
    NonNull::new(base.cast()).ok_or(Errno(libc::ENOMEM))
}

/// The longest file that this process may make (RLIMIT_FSIZE).
fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to; with that the call cannot fail.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Whether the file system of `folder`, or where it would be, has no inode left; false if it has no
/// limit, or does not say.
pub(crate) fn has_no_inodes(folder: &str) -> bool {
    let places = std::path::Path::new(folder).ancestors();
    let stat = places.filter_map(std::path::Path::to_str).find_map(|place| stat_system(place).ok());
    stat.is_some_and(|stat| stat.f_files != 0 && stat.f_ffree == 0)
}

fn stat_system(place: &str) -> Result<libc::statvfs, Errno> {
    let place = c_name(place)?;
    // SAFETY: an all-zero statvfs is a valid value of this plain C struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    kernel::call_again("statvfs", || {
        // SAFETY: `place` is NUL-terminated, and `stat` is a valid place to write to.
        check(unsafe { libc::statvfs(place.as_ptr(), &mut stat) })
    })?;
    Ok(stat)
}

/// Removes a shared-memory name. The object lives on for those who have it open.
pub(crate) fn unlink_object(name: &str) -> Result<(), Errno> {
    let name = c_name(name)?;
    kernel::call("shm_unlink", || {
        // SAFETY: `name` is NUL-terminated and outlives the call.
        check(unsafe { libc::shm_unlink(name.as_ptr()) })
    })
}

/// What a shared-memory name stands for at this moment (symbolic links are not followed); `None` if
/// it stands for nothing.
pub(crate) fn stat_object(name: &str) -> Result<Option<ObjectStat>, Errno> {
    let path = c_name(&format!("/dev/shm{name}"))?;
    // SAFETY: an all-zero stat is a valid value of this plain C struct.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let found = kernel::call("lstat", || {
        // SAFETY: `path` is NUL-terminated, and `stat` is a valid place to write to.
        check(unsafe { libc::lstat(path.as_ptr(), &mut stat) })
    });
    match found {
        Ok(()) => Ok(Some(object_stat(&stat))),
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn object_stat(stat: &libc::stat) -> ObjectStat {
    ObjectStat {
        identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        size: stat.st_size as u64,
        // In units of 512 bytes, whatever the file system's own are.
        reserved: (stat.st_blocks as u64).saturating_mul(512),
        uid: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
    }
}

/// Ends a piece of long work that nobody waits for any more.
fn check_wanted(wanted: Wanted<'_>) -> Result<(), Errno> {
    if wanted() { Ok(()) } else { Err(Errno(libc::ECANCELED)) }
}

/// Turns C's -1 into the error number.
pub(super) fn check(result: i32) -> Result<(), Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of address space that this process has taken.
    fn address_space() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn memory_of_huge_pages_is_told_from_the_usual_kind() {
        let usual = ShmFile::create_memory("unit").unwrap();
        assert_eq!(ShmFile::is_memory(&usual.file), Ok(true));
        let huge = Descriptor::open(|| {
            // SAFETY: the name is NUL-terminated.
            let fd = unsafe { libc::memfd_create(c"unit".as_ptr(), libc::MFD_HUGETLB) };
            if fd < 0 { Err(last_errno()) } else { Ok(fd) }
        });
        // Some kernels have none.
        if let Ok(huge) = huge {
            assert_eq!(ShmFile::is_memory(&huge), Ok(false));
        }
    }

    #[test]
    fn address_space_for_huge_pages_is_released_whatever_the_length() {
        let page = page_size();
        let reserve = || {
            let before = address_space();
            for round in 0..10_000 {
                let len = HUGE_PAGE + [1, page - 1, page, page + 1][round % 4];
                let reserved = Mapping::reserve_aligned(len).unwrap();
                assert!(reserved.base().addr().get().is_multiple_of(HUGE_PAGE));
            }
            let more = address_space().saturating_sub(before);
            // For the texts; what got lost each time would be many GiB.
            assert!(more < 1 << 10, "{more} KiB more than before");
        };
        // In a process that does nothing else; threads of other tests come and go in this one.
        // SAFETY: the child is a copy of this thread alone; what it does needs no other thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let outcome = std::panic::catch_unwind(reserve);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(outcome.is_err())) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place to write to.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child found a fault, see above");
    }
}
