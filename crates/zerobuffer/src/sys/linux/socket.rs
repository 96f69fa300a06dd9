//! Unix sockets of kind SOCK_SEQPACKET, which keep messages apart: the link between a service and its
//! clients.
//!
//! Every call returns at once. Whether a descriptor blocks is a property of the open file, which the peer
//! of a socket does not share, and each call asks for it again with MSG_DONTWAIT.

use super::fork::Descriptor;
use super::shm::{ShmFile, check};
use super::wake_fd::WakeFd;
use super::{c_name, kernel, last_errno, monotonic_ns};
use crate::sys::{Errno, PeerProcess};
use std::mem::size_of;
use std::ptr::null_mut;

/// Linux 6.16; in no release of the libc crate.
const SO_PASSRIGHTS: libc::c_int = 83;
/// The most descriptors that the kernel lets one message carry (SCM_MAX_FD).
const MAX_DESCRIPTORS: usize = 253;
/// What Linux allows (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;
/// More than a listener's queue can hold; the kernel lowers it to its own limit.
const BACKLOG: libc::c_int = 4096;

/// A socket; closed when dropped, and by a forked child at its birth.
#[derive(Debug)]
pub(crate) struct Socket {
    file: Descriptor,
}

/// Descriptors that a peer sent. Closing them can block for as long as their makers wish, so a thread of its own does that
/// when this is dropped.
#[derive(Debug)]
pub(crate) struct Foreign(Vec<Descriptor>);

impl Foreign {
    /// `None` if there are none.
    fn of(descriptors: Vec<Descriptor>) -> Option<Self> {
        (!descriptors.is_empty()).then_some(Self(descriptors))
    }

    /// Closes them here, however long that takes, and holds up no other thread.
    pub(crate) fn close(mut self) {
        close_all(std::mem::take(&mut self.0));
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let descriptors = std::mem::take(&mut self.0);
        // A forked child has none of them.
        if descriptors.iter().any(Descriptor::is_this_process) {
            // Where there is no thread they are closed here.
            let _ = super::super::spawn_behind("zb-closes", move || close_all(descriptors));
        }
    }
}

fn close_all(descriptors: Vec<Descriptor>) {
    for descriptor in descriptors {
        let never = libc::linger { l_onoff: 0, l_linger: 0 };
        let size = size_of_val(&never) as libc::socklen_t;
        // Of what is no socket nothing is asked.
        let _ = kernel::call("setsockopt", || {
            let value = (&raw const never).cast();
            // SAFETY: `never` is a linger that can be read.
            check(unsafe {
                let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
                libc::setsockopt(descriptor.fd(), level, option, value, size)
            })
        });
        descriptor.close_apart();
    }
}

/// A message that may carry a file.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its length, also if that is more than the buffer's.
    pub(crate) len: usize,
    /// The only descriptor that came, if it is one of memory.
    pub(crate) file: Option<ShmFile>,
    /// How many descriptors came, of whatever kind.
    pub(crate) descriptors: usize,
    /// The kernel could not deliver what was sent along: no room, or no descriptor left.
    pub(crate) is_cut: bool,
}

impl Socket {
    pub(crate) fn new() -> Result<Self, Errno> {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let file = Descriptor::open(|| {
            kernel::call("socket", || {
                // SAFETY: socket takes three integers and touches no memory of ours.
                let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    /// A listening socket that this process was given, by its number.
    pub(crate) fn adopt(fd: i32) -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("dup", || {
                // SAFETY: fcntl makes a descriptor and touches no memory; of a wrong number it says EBADF.
                let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
                if own < 0 { Err(last_errno()) } else { Ok(own) }
            })
        })?;
        let socket = Self { file };
        let is_right = socket.option(libc::SO_TYPE)? == libc::SOCK_SEQPACKET
            && socket.option(libc::SO_DOMAIN)? == libc::AF_UNIX
            && socket.option(libc::SO_ACCEPTCONN)? == 1;
        if !is_right {
            return Err(Errno(libc::EINVAL));
        }
        // Several processes may share it, and one of them is faster.
        kernel::call("fcntl", || {
            // SAFETY: fcntl takes integers here.
            let flags = unsafe { libc::fcntl(socket.file.fd(), libc::F_GETFL) };
            // SAFETY: as above.
            check(unsafe { libc::fcntl(socket.file.fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })
        })?;
        Ok(socket)
    }

    /// Gives the socket a path, which must not exist.
    pub(crate) fn bind(&self, path: &str) -> Result<(), Errno> {
        let (address, len) = address(path)?;
        kernel::call("bind", || {
            // SAFETY: `address` is a sockaddr_un of which `len` bytes are set.
            check(unsafe { libc::bind(self.file.fd(), (&raw const address).cast(), len) })
        })
    }

    pub(crate) fn listen(&self) -> Result<(), Errno> {
        kernel::call("listen", || {
            // SAFETY: listen takes two integers.
            check(unsafe { libc::listen(self.file.fd(), BACKLOG) })
        })
    }

    /// EAGAIN: the listener's queue is full.
    pub(crate) fn connect(&self, path: &str) -> Result<(), Errno> {
        let (address, len) = address(path)?;
        kernel::call_again("connect", || {
            // SAFETY: as in `bind`.
            check(unsafe { libc::connect(self.file.fd(), (&raw const address).cast(), len) })
        })
    }

    /// The next connection; EAGAIN if there is none.
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let file = Descriptor::open(|| {
            kernel::call_again("accept", || {
                // SAFETY: the caller's address is not asked for.
                let fd = unsafe { libc::accept4(self.file.fd(), null_mut(), null_mut(), flags) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &[u8]) -> Result<(), Errno> {
        kernel::call_again("send", || {
            let (data, len) = (message.as_ptr().cast(), message.len());
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `message` can be read.
            let sent = unsafe { libc::send(self.file.fd(), data, len, flags) };
            if sent < 0 { Err(last_errno()) } else { Ok(()) }
        })
    }

    /// Sends one message, and a file with it.
    pub(crate) fn send_with(&self, message: &[u8], file: &ShmFile) -> Result<(), Errno> {
        let mut part =
            libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        let mut control = Control::<1>::new();
        let mut header = message_header(&mut part);
        header.msg_control = control.start();
        header.msg_controllen = control.room() as _;
        let len = size_of::<libc::c_int>() as u32;
        // SAFETY: the control buffer is aligned for a cmsghdr, and has room for one with one descriptor.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(first).cast::<libc::c_int>().write_unaligned(file.fd());
            header.msg_controllen = libc::CMSG_SPACE(len) as _;
        }
        kernel::call_again("sendmsg", || {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the header's parts live until the call returns.
            let sent = unsafe { libc::sendmsg(self.file.fd(), &header, flags) };
            if sent < 0 { Err(last_errno()) } else { Ok(()) }
        })
    }

    /// Receives one message and says how long it is; 0 is the end. Whatever came along with it is dropped
    /// by the kernel, which can block: only where [`Socket::refuse_descriptors`] has kept it out.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        kernel::call_again("recv", || {
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            // SAFETY: `buffer` can be written.
            let len = unsafe {
                libc::recv(self.file.fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags)
            };
            if len < 0 { Err(last_errno()) } else { Ok(len as usize) }
        })
    }

    /// As [`Socket::receive`]; descriptors that came along are handed out.
    pub(crate) fn receive_with(
        &self,
        buffer: &mut [u8],
    ) -> Result<(usize, Option<Foreign>), Errno> {
        let (len, descriptors, _) = self.receive_all::<MAX_DESCRIPTORS>(buffer)?;
        Ok((len, Foreign::of(descriptors)))
    }

    /// Receives one message with the one file that may come with it.
    pub(crate) fn receive_file(&self, buffer: &mut [u8]) -> Result<Packet, Errno> {
        let (len, mut descriptors, is_cut) = self.receive_all::<MAX_DESCRIPTORS>(buffer)?;
        let count = descriptors.len();
        let is_memory = match &descriptors[..] {
            [only] => ShmFile::is_memory(only),
            _ => Ok(false),
        };
        let file = if is_memory == Ok(true) { descriptors.pop().map(ShmFile::of) } else { None };
        drop(Foreign::of(descriptors));
        is_memory.map(|_| Packet { len, file, descriptors: count, is_cut })
    }

    /// After [`Socket::shut_down`], when nothing more can come: the descriptors that came and that nobody has received. From
    /// then on closing the socket takes no time; of a listener, its queue of connections is emptied in the same way.
    pub(crate) fn drain(&self) -> Vec<Foreign> {
        let mut all = Vec::new();
        while let Ok(waiting) = self.accept() {
            waiting.shut_down();
            all.append(&mut waiting.drain());
        }
        // An empty message looks as the end does; a peer's buffer does not hold so many of them.
        let mut ends = 0..512;
        while let Ok((len, foreign)) = self.receive_with(&mut [0; 1]) {
            if len == 0 && foreign.is_none() && ends.next().is_none() {
                break;
            }
            all.extend(foreign);
        }
        all
    }

    fn receive_all<const N: usize>(
        &self,
        buffer: &mut [u8],
    ) -> Result<(usize, Vec<Descriptor>, bool), Errno> {
        let ((len, is_cut), descriptors) = Descriptor::open_all(|fds| {
            let mut part =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut control = Control::<N>::new();
            let mut header = message_header(&mut part);
            header.msg_control = control.start();
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
            let len = kernel::call_again("recvmsg", || {
                header.msg_controllen = control.room() as _;
                // SAFETY: the header's parts can be written and live until the call returns.
                let len = unsafe { libc::recvmsg(self.file.fd(), &mut header, flags) };
                if len < 0 { Err(last_errno()) } else { Ok(len as usize) }
            })?;
            collect_descriptors(&header, fds);
            Ok((len, header.msg_flags & libc::MSG_CTRUNC != 0))
        })?;
        Ok((len, descriptors, is_cut))
    }

    /// From now on the kernel refuses descriptors that are sent to this socket, and to those that it
    /// accepts. False: this kernel does not know how.
    pub(crate) fn refuse_descriptors(&self) -> bool {
        let off: libc::c_int = 0;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let set = kernel::call("setsockopt", || {
            let value = (&raw const off).cast();
            // SAFETY: `off` is an int that can be read.
            check(unsafe {
                libc::setsockopt(self.file.fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, value, size)
            })
        });
        set.is_ok()
    }

    fn option(&self, option: libc::c_int) -> Result<libc::c_int, Errno> {
        let mut value: libc::c_int = 0;
        self.read_option(option, &mut value).map(|()| value)
    }

    /// `T` is a plain C value of the option's size.
    fn read_option<T: Copy>(&self, option: libc::c_int, value: &mut T) -> Result<(), Errno> {
        let mut size = size_of::<T>() as libc::socklen_t;
        kernel::call("getsockopt", || {
            let value = (&raw mut *value).cast();
            // SAFETY: `value` has `size` bytes that can be written, and any bytes are a value of it.
            check(unsafe {
                libc::getsockopt(self.file.fd(), libc::SOL_SOCKET, option, value, &mut size)
            })
        })
    }

    /// Who made the other end, as this process's namespaces see it.
    pub(crate) fn peer(&self) -> Result<PeerProcess, Errno> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        self.read_option(libc::SO_PEERCRED, &mut found)?;
        let pid = u32::try_from(found.pid).unwrap_or(0);
        Ok(PeerProcess { pid, uid: found.uid, gid: found.gid })
    }

    /// The groups of the process at the other end; empty if the system does not tell.
    pub(crate) fn peer_groups(&self) -> Vec<u32> {
        let mut groups = vec![0_u32; MAX_GROUPS];
        let mut size = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        let found = kernel::call("getsockopt", || {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
            let value = groups.as_mut_ptr().cast();
            // SAFETY: `groups` has `size` bytes that can be written.
            check(unsafe { libc::getsockopt(self.file.fd(), level, option, value, &mut size) })
        });
        groups.truncate(found.map_or(0, |()| size as usize / size_of::<u32>()));
        groups
    }

    /// Ends the connection in both directions: the peer notices, whatever other process has the socket open.
    pub(crate) fn shut_down(&self) {
        // ENOTCONN: the peer has ended before.
        let _ = kernel::call("shutdown", || {
            // SAFETY: shutdown takes two integers.
            check(unsafe { libc::shutdown(self.file.fd(), libc::SHUT_RDWR) })
        });
    }

    /// Whether the other end is closed or shut down. Messages may still be there to be received.
    pub(crate) fn has_ended(&self) -> bool {
        let mut polls = [self.poll(libc::POLLRDHUP)];
        poll(&mut polls, Some(0)).is_ok_and(|ready| ready > 0)
    }

    /// Sleeps until there is something to receive, the connection has ended, `wake` is rung, or the
    /// deadline has passed. False: only the time is up.
    pub(crate) fn wait(&self, wake: Option<&WakeFd>, deadline_ns: u64) -> Result<bool, Errno> {
        let own = self.poll(libc::POLLIN | libc::POLLRDHUP);
        let Some(wake) = wake else { return Ok(poll(&mut [own], Some(deadline_ns))? > 0) };
        let mut polls = [own, wake.poll()];
        let ready = poll(&mut polls, Some(deadline_ns))?;
        if polls[1].revents != 0 {
            wake.silence();
        }
        Ok(ready > 0)
    }

    /// Sleeps until one of `sockets` has something to receive or has ended, or the deadline has passed.
    pub(crate) fn wait_for_any(sockets: &[&Self], deadline_ns: u64) -> Result<bool, Errno> {
        let polls = sockets.iter().map(|socket| socket.poll(libc::POLLIN | libc::POLLRDHUP));
        let mut polls: Vec<libc::pollfd> = polls.collect();
        Ok(poll(&mut polls, Some(deadline_ns))? > 0)
    }

    /// Closes it, however long that takes, and holds up no other thread.
    pub(crate) fn close(self) {
        self.file.close_apart();
    }

    /// Whether this is the process that made it.
    pub(crate) fn is_this_process(&self) -> bool {
        self.file.is_this_process()
    }

    fn poll(&self, events: libc::c_short) -> libc::pollfd {
        libc::pollfd { fd: self.file.fd(), events, revents: 0 }
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.fd()
    }
}

/// `ppoll` until `deadline_ns` of the monotonic clock; `None` for ever. EINTR is reported.
pub(super) fn poll(polls: &mut [libc::pollfd], deadline_ns: Option<u64>) -> Result<usize, Errno> {
    let left = deadline_ns.map(|deadline| match deadline {
        0 => 0,
        deadline => deadline.saturating_sub(monotonic_ns()),
    });
    let left = left.map(|left| libc::timespec {
        tv_sec: (left / 1_000_000_000) as libc::time_t,
        tv_nsec: (left % 1_000_000_000) as libc::c_long,
    });
    let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    kernel::call("poll", || {
        let (start, count) = (polls.as_mut_ptr(), polls.len() as libc::nfds_t);
        // SAFETY: `polls` are so many valid pollfds, `left` is null or a normalised time, and the mask of
        // signals stays as it is.
        let ready = unsafe { libc::ppoll(start, count, left, std::ptr::null()) };
        if ready < 0 { Err(last_errno()) } else { Ok(ready as usize) }
    })
}

/// A control buffer for `N` descriptors, aligned as its headers need it, and twice as large as one int
/// asks for: `CMSG_SPACE` of one has room for two.
#[repr(C, align(8))]
struct Control<const N: usize> {
    header: [u8; size_of::<libc::cmsghdr>()],
    descriptors: [[libc::c_int; 2]; N],
}

impl<const N: usize> Control<N> {
    fn new() -> Self {
        Self { header: [0; size_of::<libc::cmsghdr>()], descriptors: [[0; 2]; N] }
    }

    fn start(&mut self) -> *mut libc::c_void {
        (&raw mut *self).cast()
    }

    fn room(&self) -> usize {
        size_of::<Self>()
    }
}

fn message_header(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is a valid value of this plain C struct: no name, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

/// Adds the descriptors that came with a message.
fn collect_descriptors(header: &libc::msghdr, fds: &mut Vec<i32>) {
    // SAFETY: the kernel has filled the control buffer, which the macros walk within its length; a
    // descriptor is read from where the message's own length says that one is.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(next).cast::<libc::c_int>();
                let bytes = message.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                fds.extend(
                    (0..bytes / size_of::<libc::c_int>()).map(|at| data.add(at).read_unaligned()),
                );
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
}

fn address(path: &str) -> Result<(libc::sockaddr_un, libc::socklen_t), Errno> {
    let path = c_name(path)?;
    let bytes = path.as_bytes_with_nul();
    // SAFETY: an all-zero sockaddr_un is a valid value of this plain C struct.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() > address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len();
    Ok((address, len as libc::socklen_t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Folder;

    /// A listener in a directory of its own, a connection to it, and the accepted end.
    fn pair() -> (Socket, Socket, Socket) {
        let path =
            format!("/tmp/zb-socket-{}-{:?}", std::process::id(), std::thread::current().id());
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::open(&path).unwrap();
        let listener = Socket::new().unwrap();
        listener.bind(&folder.address("s")).unwrap();
        listener.listen().unwrap();
        let client = Socket::new().unwrap();
        client.connect(&folder.address("s")).unwrap();
        let server = listener.accept().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        (listener, client, server)
    }

    fn soon() -> u64 {
        monotonic_ns() + 20_000_000_000
    }

    #[test]
    fn messages_stay_apart_and_their_length_is_told_even_if_they_are_cut() {
        let (_listener, client, server) = pair();
        client.send(b"one").unwrap();
        client.send(&[7; 300]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(server.receive(&mut buffer), Ok(3));
        assert_eq!(&buffer[..3], b"one");
        assert_eq!(server.receive(&mut buffer), Ok(300));
        assert_eq!(server.receive(&mut buffer), Err(Errno(libc::EAGAIN)));
        assert_eq!(server.peer().unwrap().pid, std::process::id());
        drop(client);
        assert_eq!(server.wait(None, soon()), Ok(true));
        assert!(server.has_ended());
        assert_eq!(server.receive(&mut buffer), Ok(0));
        assert_eq!(server.send(b"x"), Err(Errno(libc::EPIPE)));
    }

    #[test]
    fn one_file_travels_and_more_than_one_is_counted() {
        let (_listener, client, server) = pair();
        let file = ShmFile::create_memory("test").unwrap();
        file.reserve(4096, &|| true).unwrap();
        server.send_with(b"take", &file).unwrap();
        let packet = client.receive_file(&mut [0; 8]).unwrap();
        assert_eq!((packet.len, packet.descriptors, packet.is_cut), (4, 1, false));
        let (own, came) = (file.stat().unwrap(), packet.file.unwrap().stat().unwrap());
        assert_eq!((came.identity, came.size), (own.identity, 4096));
        let (len, foreign) = {
            client.send_with(b"x", &file).unwrap();
            server.receive_with(&mut [0; 8]).unwrap()
        };
        assert_eq!(len, 1);
        foreign.unwrap().close();
    }

    #[test]
    fn a_socket_that_refuses_descriptors_gets_none() {
        let (_listener, client, server) = pair();
        let file = ShmFile::create_memory("test").unwrap();
        if !server.refuse_descriptors() {
            return;
        }
        assert!(client.send_with(b"x", &file).is_err());
        client.send(b"y").unwrap();
        assert_eq!(server.receive(&mut [0; 8]), Ok(1));
    }

    #[test]
    fn who_sleeps_on_a_socket_is_woken_by_a_bell_of_this_process_too() {
        let (_listener, client, _server) = pair();
        let wake = WakeFd::new().unwrap();
        wake.ring();
        assert_eq!(client.wait(Some(&wake), soon()), Ok(true));
        assert_eq!(client.wait(Some(&wake), monotonic_ns() + 1_000_000), Ok(false));
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_and_not_cut() {
        let socket = Socket::new().unwrap();
        let path = format!("/tmp/{}", "x".repeat(108));
        assert_eq!(socket.bind(&path), Err(Errno(libc::ENAMETOOLONG)));
        assert!(Socket::adopt(socket.fd()).is_err(), "it does not listen");
        assert_eq!(Socket::adopt(1 << 20).unwrap_err(), Errno(libc::EBADF));
    }
}
