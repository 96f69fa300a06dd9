//! System calls that fail on command, for tests: the n-th call of a thread, with each error that its
//! manual names. Only in builds with the feature `faults`, which no release has.

use std::cell::RefCell;

/// What a thread's calls meet.
#[derive(Debug, Default)]
struct Plan {
    armed: bool,
    /// Calls made so far.
    made: usize,
    /// Which call fails, counted from 0.
    at: usize,
    /// Which of the errors that its manual names.
    choice: usize,
    /// It is a shortage, which later calls meet as well.
    lasting: bool,
    struck: Option<Fault>,
}

/// A call that was made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its manual page.
    pub call: &'static str,
    /// The error it was given.
    pub errno: i32,
}

/// What a run with a fault came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Struck {
    /// The call that failed; `None` if there was no such call, or no such error in its manual.
    pub fault: Option<Fault>,
    /// How many calls were made.
    pub calls: usize,
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
}

/// Runs `body`, in which system call number `at` of this thread fails with error number `choice` of its
/// manual; says which call that was, and how many there were.
pub fn with_fault<T>(
    at: usize,
    choice: usize,
    lasting: bool,
    body: impl FnOnce() -> T,
) -> (T, Struck) {
    PLAN.set(Plan { armed: true, at, choice, lasting, ..Plan::default() });
    let value = body();
    let Plan { made, struck, .. } = PLAN.take();
    (value, Struck { fault: struck, calls: made })
}

/// The error that the call about to be made is to fail with.
pub(crate) fn strike(call: &'static str) -> Option<i32> {
    PLAN.with_borrow_mut(|plan| {
        if !plan.armed {
            return None;
        }
        let number = plan.made;
        plan.made += 1;
        if let Some(fault) = plan.struck {
            let again = plan.lasting && LASTING.contains(&fault.errno);
            let again = again && errors_of(call).contains(&fault.errno);
            return again.then_some(fault.errno);
        }
        let mut errors =
            errors_of(call).iter().filter(|errno| !plan.lasting || LASTING.contains(errno));
        let errno = (number == plan.at).then(|| errors.nth(plan.choice)).flatten()?;
        plan.struck = Some(Fault { call, errno: *errno });
        Some(*errno)
    })
}

/// What is short now is short for a while.
const LASTING: [i32; 3] = [libc::EMFILE, libc::ENFILE, libc::ENOSPC];

/// The errors that a call's manual names, without those that only a wrong program can get (EBADF,
/// EFAULT), and without "there is no such process", which is the answer to what was asked.
fn errors_of(call: &str) -> &'static [i32] {
    use libc::*;
    use longer::{LINK, MKDIR, OPEN, UNLINK};
    match call {
        "open" | "shm_open" => OPEN,
        "fchmod" => &[EIO, EPERM, EROFS, ENOTSUP],
        "fstat" | "lstat" => {
            &[EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EOVERFLOW, EIO]
        }
        "fstatvfs" | "statvfs" => &[EINTR, EIO, ENOMEM, ENOSYS, EOVERFLOW, EACCES],
        "posix_fallocate" => &[EINTR, EFBIG, EINVAL, ENODEV, ENOSPC, EOPNOTSUPP, ESPIPE, EIO],
        "fcntl" => &[EINTR, EACCES, EAGAIN, EDEADLK, EINVAL, ENOLCK, EOVERFLOW],
        "read" => &[EINTR, EIO],
        "write" => &[EINTR, EIO, ENOMEM, ENOSPC, EPERM],
        "flock" => &[EINTR, EINVAL, ENOLCK, EWOULDBLOCK],
        "mmap" => {
            &[EACCES, EAGAIN, EEXIST, EINVAL, ENFILE, ENODEV, ENOMEM, EOVERFLOW, EPERM, ETXTBSY]
        }
        "madvise" => &[EAGAIN, EINVAL, ENOMEM, EPERM, EIO],
        "munmap" => &[EINVAL, ENOMEM],
        "close" => &[EINTR, EIO, ENOSPC, EDQUOT],
        "linkat" | "link" => LINK,
        "unlink" | "shm_unlink" | "sem_unlink" => UNLINK,
        "mkdir" => MKDIR,
        "sem_init" => &[EINVAL, ENOSYS],
        "futex" => &[EINTR, EACCES, EAGAIN, EINVAL, ENOMEM, ENOSYS, EPERM, ETIMEDOUT],
        "dup" => &[EMFILE, ENFILE],
        "eventfd" => &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM],
        "pidfd_open" => &[EMFILE, ENFILE, ENODEV, ENOMEM, ENOSYS, EPERM],
        "poll" => &[EINTR, EINVAL, ENOMEM],
        "kill" => &[EPERM],
        "socket" => &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES],
        "bind" => &[EACCES, EADDRINUSE, ELOOP, ENOENT, ENOMEM, ENOTDIR, EROFS],
        "listen" => &[EADDRINUSE],
        "connect" => &[EACCES, EPERM, EAGAIN, ECONNREFUSED, EINTR, ENOENT],
        "accept" => &[EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM],
        "send" => &[EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE],
        "sendmsg" => &[EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE, ETOOMANYREFS],
        "recv" | "recvmsg" => &[EAGAIN, ECONNREFUSED, EINTR, ENOMEM],
        "setsockopt" | "getsockopt" => &[EINVAL, ENOPROTOOPT],
        "shutdown" => &[ENOTCONN],
        "epoll_create" => &[EMFILE, ENFILE, ENOMEM],
        "epoll_ctl" => &[EEXIST, ENOENT, ENOMEM, ENOSPC, EPERM],
        "epoll_wait" => &[EINTR],
        "rename" => &[EACCES, EDQUOT, EEXIST, ENOENT, ENOMEM, ENOSPC, ENOTDIR, EPERM, EROFS],
        "fchown" => &[EIO, EPERM, EROFS],
        "inotify_init" => &[EMFILE, ENFILE, ENOMEM],
        "inotify_add_watch" => &[EACCES, ENOENT, ENOMEM, ENOSPC, ENOTDIR],
        "getrandom" => &[EAGAIN, EINTR, ENOSYS],
        "memfd_create" => &[EINVAL, EMFILE, ENFILE, ENOMEM, EACCES],
        "pthread_atfork" => &[ENOMEM],
        "pthread_create" => &[EAGAIN, EINVAL, EPERM],
        call => panic!("no list of the errors of {call}"),
    }
}

mod longer {
    //! The longest of those lists.

    use libc::*;

    pub(super) const OPEN: &[i32] = &[
        EINTR,
        EACCES,
        EEXIST,
        EINVAL,
        EISDIR,
        ELOOP,
        EMFILE,
        ENAMETOOLONG,
        ENFILE,
        ENODEV,
        ENOENT,
        ENOMEM,
        ENOSPC,
        ENOTDIR,
        ENXIO,
        EOPNOTSUPP,
        EOVERFLOW,
        EPERM,
        EROFS,
        ETXTBSY,
        EBUSY,
        EDQUOT,
        EWOULDBLOCK,
    ];
    pub(super) const LINK: &[i32] = &[
        EACCES,
        EDQUOT,
        EEXIST,
        EIO,
        ELOOP,
        EMLINK,
        ENAMETOOLONG,
        ENOENT,
        ENOMEM,
        ENOSPC,
        ENOTDIR,
        EPERM,
        EROFS,
        EXDEV,
        EINVAL,
    ];
    pub(super) const UNLINK: &[i32] =
        &[EACCES, EBUSY, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EPERM, EROFS];
    pub(super) const MKDIR: &[i32] = &[
        EACCES,
        EDQUOT,
        EEXIST,
        ELOOP,
        EMLINK,
        ENAMETOOLONG,
        ENOENT,
        ENOMEM,
        ENOSPC,
        ENOTDIR,
        EPERM,
        EROFS,
    ];
}
