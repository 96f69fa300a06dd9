//! Waiting for any of many sockets: epoll.

use super::fork::above_standard_streams;
use super::shm::check;
use super::socket::Socket;
use super::wake_fd::WakeFd;
use super::{kernel, last_errno, monotonic_ns, uncancelled};
use crate::sys::{Errno, Readiness};
use std::os::fd::{AsFd, BorrowedFd};

/// Events that one wait hands out.
const EVENTS: usize = 64;

/// The descriptor of an epoll instance.
///
/// It is not in the list of those that a forked child closes, since the program may have borrowed it. The child's
/// copy keeps nothing open that is watched.
#[derive(Debug)]
struct Instance(i32);

impl Instance {
    fn new() -> Result<Self, Errno> {
        let fd = kernel::call("epoll_create", || {
            // SAFETY: the call takes an integer.
            let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            if fd < 0 { Err(last_errno()) } else { Ok(fd) }
        })?;
        above_standard_streams(fd).map(Self)
    }

    fn control(&self, operation: i32, fd: i32, events: i32, number: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        kernel::call("epoll_ctl", || {
            // SAFETY: `event` is a valid epoll_event; a descriptor that is not open is an error.
            check(unsafe { libc::epoll_ctl(self.0, operation, fd, &mut event) })
        })
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open from `new` to `drop`, in a forked child as well.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: this is the only owner of the descriptor, and nobody can have borrowed it for longer.
        uncancelled(|| unsafe { libc::close(self.0) });
    }
}

/// A set of sockets, each with a number of the caller's choice.
#[derive(Debug)]
pub(crate) struct Epoll {
    instance: Instance,
}

impl Epoll {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { instance: Instance::new()? })
    }

    /// Watches `socket` until it is removed. Edge-triggered: what arrives is told to one thread, once.
    pub(crate) fn add(&self, socket: &Socket, number: u64) -> Result<(), Errno> {
        let events = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
        self.instance.control(libc::EPOLL_CTL_ADD, socket.fd(), events, number)
    }

    /// Watches a listener. Level-triggered: connections that nobody could accept are told again.
    pub(crate) fn add_listener(&self, listener: &Socket, number: u64) -> Result<(), Errno> {
        self.instance.control(libc::EPOLL_CTL_ADD, listener.fd(), libc::EPOLLIN, number)
    }

    /// Watches for the end of the connection alone, told once. A `socket` can be in several sets.
    pub(crate) fn add_end(&self, socket: &Socket, number: u64) -> Result<(), Errno> {
        let events = libc::EPOLLRDHUP | libc::EPOLLET;
        self.instance.control(libc::EPOLL_CTL_ADD, socket.fd(), events, number)
    }

    /// Watches another set: level-triggered, for as long as that has something to tell.
    pub(crate) fn add_set(&self, set: &Self, number: u64) -> Result<(), Errno> {
        self.instance.control(libc::EPOLL_CTL_ADD, set.instance.0, libc::EPOLLIN, number)
    }

    /// Watches a bell of this process: level-triggered, so that every thread comes back until it is
    /// silenced.
    pub(crate) fn add_wake(&self, wake: &WakeFd, number: u64) -> Result<(), Errno> {
        self.instance.control(libc::EPOLL_CTL_ADD, wake.fd(), libc::EPOLLIN, number)
    }

    /// Forgets `socket`, which a forked child may keep open.
    pub(crate) fn remove(&self, socket: &Socket) {
        let _ = self.instance.control(libc::EPOLL_CTL_DEL, socket.fd(), 0, 0);
    }

    /// For others to wait on: readable while there is an event that nobody has been told of.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }

    /// Hands each event to `found`, sleeping until `deadline_ns` of the monotonic clock if there is none; 0
    /// does not sleep. Comes back early when a signal interrupts it.
    pub(crate) fn wait(
        &self,
        deadline_ns: u64,
        mut found: impl FnMut(Readiness),
    ) -> Result<(), Errno> {
        // SAFETY: all-zero events are valid values of this plain C struct.
        let mut events: [libc::epoll_event; EVENTS] = unsafe { std::mem::zeroed() };
        let timeout = match deadline_ns {
            0 => 0,
            u64::MAX => -1,
            deadline => {
                let left = deadline.saturating_sub(monotonic_ns()).div_ceil(1_000_000);
                i32::try_from(left).unwrap_or(i32::MAX)
            }
        };
        let count = kernel::call("epoll_wait", || {
            let (start, room) = (events.as_mut_ptr(), EVENTS as i32);
            // SAFETY: `events` are so many places that can be written.
            match unsafe { libc::epoll_wait(self.instance.0, start, room, timeout) } {
                -1 => Err(last_errno()),
                count => Ok(count as usize),
            }
        });
        match count {
            Ok(count) => {
                for event in &events[..count] {
                    let ends = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
                    found(Readiness { number: event.u64, has_ended: event.events & ends != 0 });
                }
                Ok(())
            }
            Err(Errno(libc::EINTR)) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// A socket and a bell of this process behind one descriptor, which is readable while one of them has something
/// or has ended: for a program's own event loop. Nobody asks it what it is.
#[derive(Debug)]
pub(crate) struct ReadySet {
    instance: Instance,
}

impl ReadySet {
    pub(crate) fn new(socket: &Socket, wake: &WakeFd) -> Result<Self, Errno> {
        let instance = Instance::new()?;
        let (add, events) = (libc::EPOLL_CTL_ADD, libc::EPOLLIN | libc::EPOLLRDHUP);
        instance.control(add, socket.fd(), events, 0)?;
        instance.control(add, wake.fd(), libc::EPOLLIN, 0)?;
        Ok(Self { instance })
    }

    /// A socket that has ended stays ready; it is not to make the descriptor readable any more.
    pub(crate) fn forget(&self, socket: &Socket) {
        let _ = self.instance.control(libc::EPOLL_CTL_DEL, socket.fd(), 0, 0);
    }
}

impl AsFd for ReadySet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }
}
