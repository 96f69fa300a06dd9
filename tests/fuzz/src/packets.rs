//! Sockets that keep messages apart, of a peer that keeps to no rule.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A listener, or one end of a connection.
pub(crate) struct Packets(OwnedFd);

impl Packets {
    fn new() -> Self {
        // SAFETY: the call takes integers, and what it returns is this one's alone.
        unsafe {
            let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", Error::last_os_error());
            Self(OwnedFd::from_raw_fd(fd))
        }
    }

    fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub(crate) fn connect(path: &str) -> Self {
        let (socket, (address, len)) = (Self::new(), address(path));
        // SAFETY: the address is valid and has that length.
        let done = unsafe { libc::connect(socket.fd(), (&raw const address).cast(), len) };
        assert_eq!(done, 0, "{path}: {}", Error::last_os_error());
        socket
    }

    pub(crate) fn listen(path: &str) -> Self {
        let (socket, (address, len)) = (Self::new(), address(path));
        // SAFETY: as above.
        let done = unsafe {
            libc::bind(socket.fd(), (&raw const address).cast(), len) | libc::listen(socket.fd(), 8)
        };
        assert_eq!(done, 0, "{path}: {}", Error::last_os_error());
        socket
    }

    pub(crate) fn accept(&self) -> Self {
        // SAFETY: no address is asked for, and what it returns is this one's alone.
        unsafe {
            let fd = libc::accept4(
                self.fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            );
            assert!(fd >= 0, "{}", Error::last_os_error());
            Self(OwnedFd::from_raw_fd(fd))
        }
    }

    /// Sends a message with any number of descriptors, of the same file; the peer may have ended.
    pub(crate) fn send(&self, bytes: &[u8], file: Option<&File>, count: usize) {
        const ROOM: usize = 8;
        let mut part =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = [0_u64; 2 + ROOM];
        // SAFETY: the control buffer is aligned, and large enough for a header and so many descriptors.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
            if let Some(file) = file.filter(|_| count > 0) {
                let count = count.min(ROOM);
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = libc::CMSG_SPACE(4 * count as u32) as _;
                let message = libc::CMSG_FIRSTHDR(&header);
                (*message).cmsg_level = libc::SOL_SOCKET;
                (*message).cmsg_type = libc::SCM_RIGHTS;
                (*message).cmsg_len = libc::CMSG_LEN(4 * count as u32) as _;
                for at in 0..count {
                    libc::CMSG_DATA(message)
                        .cast::<i32>()
                        .add(at)
                        .write_unaligned(file.as_raw_fd());
                }
            }
            libc::sendmsg(self.fd(), &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        }
    }

    /// The next message, and the descriptor that came with it; nothing once the peer has ended.
    pub(crate) fn receive(&self) -> (Vec<u8>, Option<File>) {
        let mut bytes = vec![0; 300];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = [0_u64; 4];
        // SAFETY: the buffers can be written; a descriptor that came is this one's alone.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            let len = libc::recvmsg(self.fd(), &mut header, libc::MSG_CMSG_CLOEXEC);
            bytes.truncate(usize::try_from(len).unwrap_or(0));
            let message = libc::CMSG_FIRSTHDR(&header);
            let came = !message.is_null() && (*message).cmsg_type == libc::SCM_RIGHTS;
            let file = came.then(|| {
                File::from_raw_fd(libc::CMSG_DATA(message).cast::<i32>().read_unaligned())
            });
            (bytes, file)
        }
    }
}

fn address(path: &str) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: an all-zero address is a valid value of this plain C struct.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    assert!(path.len() < address.sun_path.len());
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from.cast_signed();
    }
    (address, size_of::<libc::sockaddr_un>() as libc::socklen_t)
}
