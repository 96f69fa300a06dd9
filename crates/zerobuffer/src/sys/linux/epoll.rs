//! Waiting for any of many sockets: epoll.

use super::fork::Descriptor;
use super::shm::check;
use super::socket::Socket;
use super::wake_fd::WakeFd;
use super::{kernel, last_errno, monotonic_ns};
use crate::sys::{Errno, Readiness};

/// Events that one wait hands out.
const EVENTS: usize = 64;

/// A set of sockets, each with a number of the caller's choice.
#[derive(Debug)]
pub(crate) struct Epoll {
    file: Descriptor,
}

impl Epoll {
    pub(crate) fn new() -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("epoll_create", || {
                // SAFETY: the call takes an integer.
                let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    /// Watches `socket` until it is removed. Edge-triggered: what arrives is told to one thread, once.
    pub(crate) fn add(&self, socket: &Socket, number: u64) -> Result<(), Errno> {
        let events = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
        self.control(libc::EPOLL_CTL_ADD, socket.fd(), events, number)
    }

    /// Watches a listener. Level-triggered: connections that nobody could accept are told again.
    pub(crate) fn add_listener(&self, listener: &Socket, number: u64) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, listener.fd(), libc::EPOLLIN, number)
    }

    /// Watches a bell of this process: level-triggered, so that every thread comes back until it is
    /// silenced.
    pub(crate) fn add_wake(&self, wake: &WakeFd, number: u64) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, wake.fd(), libc::EPOLLIN, number)
    }

    /// Forgets `socket`, which a forked child may keep open.
    pub(crate) fn remove(&self, socket: &Socket) {
        let _ = self.control(libc::EPOLL_CTL_DEL, socket.fd(), 0, 0);
    }

    fn control(&self, operation: i32, fd: i32, events: i32, number: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        kernel::call("epoll_ctl", || {
            // SAFETY: `event` is a valid epoll_event, and both descriptors are open.
            check(unsafe { libc::epoll_ctl(self.file.fd(), operation, fd, &mut event) })
        })
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
            match unsafe { libc::epoll_wait(self.file.fd(), start, room, timeout) } {
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
