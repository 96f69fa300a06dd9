//! Other processes, by their ids: all that the peers of version 1 leave to know each other by.

use super::fork::Descriptor;
use super::shm::check;
use super::{kernel, last_errno};
use crate::sys::Errno;

/// A process that existed when it was first checked. Where the kernel has pidfds, another process that gets
/// the same id later is not mistaken for this one.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: Option<PidFd>,
}

#[derive(Debug)]
pub(super) struct PidFd {
    file: Descriptor,
}

impl Process {
    /// The process with this id; `None` if there is none.
    pub(crate) fn find(pid: u64) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        match PidFd::open(pid) {
            Ok(pidfd) => Some(Self { pid, pidfd: Some(pidfd) }),
            // EINVAL: the id belongs to a thread by now, so the process has exited.
            Err(Errno(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => None,
            // No pidfds in this kernel, or no descriptors left.
            Err(_) => Some(Self { pid, pidfd: None }).filter(Self::is_running),
        }
    }

    /// Whether the process runs. One that has ended and that nobody has waited for does not.
    pub(crate) fn is_running(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) if pidfd.file.is_this_process() => !pidfd.has_ended(),
            _ => may_be_signalled(self.pid) && !is_zombie(self.pid),
        }
    }
}

impl PidFd {
    pub(super) fn open(pid: i32) -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("pidfd_open", || {
                // SAFETY: pidfd_open takes two integers and touches no memory of ours. The
                // descriptor that it makes is close-on-exec.
                let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd as i32) }
            })
        })?;
        Ok(Self { file })
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.fd()
    }

    /// A pidfd becomes readable when its process ends, and stays so.
    fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        let polled = kernel::call_again("poll", || {
            // SAFETY: `poll` is one valid pollfd, the descriptor is open for the life of `self`.
            match unsafe { libc::poll(&mut poll, 1, 0) } {
                -1 => Err(last_errno()),
                ready => Ok(ready),
            }
        });
        polled == Ok(1)
    }
}

/// Whether there is a process, or a zombie, of that id: EPERM says that it is another user's.
fn may_be_signalled(pid: i32) -> bool {
    let result = kernel::call("kill", || {
        // SAFETY: signal 0 is never delivered.
        check(unsafe { libc::kill(pid, 0) })
    });
    matches!(result, Ok(()) | Err(Errno(libc::EPERM)))
}

fn is_zombie(pid: i32) -> bool {
    let read = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let stat = super::uncancelled(read).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    state.starts_with(['Z', 'X'])
}

/// Sends a signal to the calling thread: by SIGKILL or SIGSTOP all of the process ends or stops, and this
/// thread does nothing more before. (One that is sent to the process can leave it some microseconds.)
#[cfg(feature = "failpoints")]
pub(crate) fn signal_self(signal: i32) {
    // SAFETY: raise has no memory effects; whatever the signal does to this process is wanted.
    unsafe { libc::raise(signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule P1: a zombie is dead, and so is an id that nobody has.
    #[test]
    fn a_zombie_is_not_running_by_either_way_of_looking() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::find(child.id().into());
        while !is_zombie(child.id() as i32) {
            std::thread::yield_now();
        }
        assert!(process.is_none_or(|process| !process.is_running()));
        assert!(!Process::find(child.id().into()).is_some_and(|process| process.is_running()));
        let by_signal = Process { pid: child.id() as i32, pidfd: None };
        assert!(may_be_signalled(by_signal.pid) && !by_signal.is_running());
        child.wait().unwrap();
        assert!(Process::find(child.id().into()).is_none());
        assert!(!by_signal.is_running());
    }

    #[test]
    fn ids_that_no_process_can_have_are_dead() {
        for pid in [0, u64::MAX, 1 << 31, (1 << 32) + u64::from(std::process::id())] {
            assert!(Process::find(pid).is_none(), "{pid}");
        }
        assert!(Process::find(std::process::id().into()).unwrap().is_running());
    }

    /// Rule P3: a process that may not be signalled is alive.
    #[test]
    fn a_process_of_another_user_is_running() {
        // Process 1 is root's; as root the signal is allowed, and the result is the same.
        let by_signal = Process { pid: 1, pidfd: None };
        assert!(by_signal.is_running());
        assert!(Process::find(1).unwrap().is_running());
    }
}
