//! System calls that fail on command, for tests: the n-th call of a thread, with each error that its
//! manual names. Only in builds with the feature `faults`, which no release has.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

impl Plan {
    const NONE: Self =
        Self { armed: false, made: 0, at: 0, choice: 0, lasting: false, struck: None };

    fn new(at: usize, choice: usize, lasting: bool) -> Self {
        Self { armed: true, at, choice, lasting, ..Self::default() }
    }

    fn strike(&mut self, call: &'static str) -> Option<i32> {
        if !self.armed {
            return None;
        }
        let number = self.made;
        self.made += 1;
        if let Some(fault) = self.struck {
            let again = self.lasting && LASTING.contains(&fault.errno);
            let again = again && errors_of(call).contains(&fault.errno);
            return again.then_some(fault.errno);
        }
        let mut errors =
            errors_of(call).iter().filter(|errno| !self.lasting || LASTING.contains(errno));
        let errno = (number == self.at).then(|| errors.nth(self.choice)).flatten()?;
        self.struck = Some(Fault { call, errno: *errno });
        Some(*errno)
    }

    fn outcome(self) -> Struck {
        Struck { fault: self.struck, calls: self.made }
    }
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
}

/// What the library's own threads meet whose names begin like this.
static ELSEWHERE: Mutex<(&str, Plan)> = Mutex::new(("", Plan::NONE));

fn elsewhere() -> MutexGuard<'static, (&'static str, Plan)> {
    ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body`, in which system call number `at` of this thread fails with error number `choice` of its
/// manual; says which call that was, and how many there were.
pub fn with_fault<T>(
    at: usize,
    choice: usize,
    lasting: bool,
    body: impl FnOnce() -> T,
) -> (T, Struck) {
    PLAN.set(Plan::new(at, choice, lasting));
    let value = body();
    (value, PLAN.take().outcome())
}

/// The same for a call of a thread of the library's own, whose name begins with `thread`, while `body` runs.
pub fn with_fault_in<T>(
    thread: &'static str,
    at: usize,
    choice: usize,
    lasting: bool,
    body: impl FnOnce() -> T,
) -> (T, Struck) {
    *elsewhere() = (thread, Plan::new(at, choice, lasting));
    let value = body();
    let (_, plan) = std::mem::replace(&mut *elsewhere(), ("", Plan::NONE));
    (value, plan.outcome())
}

/// The error that the call about to be made is to fail with.
pub(crate) fn strike(call: &'static str) -> Option<i32> {
    PLAN.with_borrow_mut(|plan| plan.strike(call)).or_else(|| {
        let mut elsewhere = elsewhere();
        let (thread, plan) = &mut *elsewhere;
        let is_meant = plan.armed
            && std::thread::current().name().is_some_and(|name| name.starts_with(*thread));
        is_meant.then(|| plan.strike(call)).flatten()
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
        "munlock" => &[EAGAIN, EINVAL, ENOMEM, EPERM],
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
        // Without EAGAIN, the answer that there are bells enough: one that lies takes a wake-up away.
        "send" => &[ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE],
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
