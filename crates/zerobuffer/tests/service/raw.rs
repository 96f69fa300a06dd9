//! A client that keeps to no rule: system calls and bytes.

use crate::scene::{NAME, Scene};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A connection to a server's socket.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) socket: OwnedFd,
    /// The segment, once it has come.
    pub(crate) segment: Option<(*mut u8, usize)>,
}

/// The hello of a client that asks for everything by default.
pub(crate) fn hello() -> [u8; 64] {
    let mut hello = [0; 64];
    hello[..8].copy_from_slice(b"ZBUFSVC\0");
    hello[8] = 1;
    hello[12] = 1;
    hello
}

impl Raw {
    /// Connects to the only socket there is.
    pub(crate) fn connect(scene: &Scene) -> Self {
        Self::try_connect(&scene.directory).expect("the server accepts connections")
    }

    /// The same, if there is room in the listener's queue.
    pub(crate) fn try_connect(directory: &str) -> Option<Self> {
        let mut entries = std::fs::read_dir(format!("{directory}/{NAME}")).expect("a directory");
        let path = entries.next().expect("a socket").expect("can be read").path();
        let path = path.to_str().expect("UTF-8").to_owned();
        // SAFETY: the address is a zeroed sockaddr_un with a path that fits.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0);
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as libc::sa_family_t;
            assert!(path.len() < address.sun_path.len());
            for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
                *to = from.cast_signed();
            }
            let size = size_of_val(&address) as libc::socklen_t;
            let socket = OwnedFd::from_raw_fd(socket);
            let fd = socket.as_raw_fd();
            if libc::connect(fd, (&raw const address).cast(), size) != 0 {
                return None;
            }
            let time = libc::timeval { tv_sec: 20, tv_usec: 0 };
            let size = size_of_val(&time) as libc::socklen_t;
            let value = (&raw const time).cast();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, size);
            socket
        };
        Some(Self { socket, segment: None })
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> bool {
        // SAFETY: the bytes can be read.
        let sent = unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            libc::send(self.socket.as_raw_fd(), data, len, libc::MSG_NOSIGNAL)
        };
        sent == bytes.len() as isize
    }

    /// Sends a byte with a descriptor.
    pub(crate) fn send_descriptor(&self, fd: i32) -> bool {
        self.send_with(&[1], fd)
    }

    /// Sends a message with a descriptor.
    pub(crate) fn send_with(&self, bytes: &[u8], fd: i32) -> bool {
        let (start, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len());
        let mut part = libc::iovec { iov_base: start, iov_len: len };
        let mut control = [0_u64; 8];
        // SAFETY: the control buffer is aligned and large enough for one descriptor.
        let sent = unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(4) as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(first).cast::<i32>().write_unaligned(fd);
            libc::sendmsg(self.socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL)
        };
        sent == bytes.len() as isize
    }

    /// The next message; empty at the end of the connection. A descriptor that comes with it is mapped.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let (bytes, file) = self.receive_file();
        if let Some(file) = file {
            self.map(&file);
        }
        bytes
    }

    /// The same; a descriptor that comes with it is handed out.
    pub(crate) fn receive_file(&self) -> (Vec<u8>, Option<OwnedFd>) {
        let mut bytes = [0_u8; 512];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = [0_u64; 8];
        // SAFETY: all places can be written; a descriptor is read from where the header says that one is.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            let len = libc::recvmsg(self.socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC);
            let Ok(len) = usize::try_from(len) else { return (Vec::new(), None) };
            let first = libc::CMSG_FIRSTHDR(&header);
            let file = (!first.is_null()).then(|| {
                OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<i32>().read_unaligned())
            });
            (bytes[..len].to_vec(), file)
        }
    }

    pub(crate) fn map(&mut self, file: &OwnedFd) {
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping of the segment's own size, at no address in particular.
        unsafe {
            let size = usize::try_from(libc::lseek(fd, 0, libc::SEEK_END)).expect("a size");
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let start = libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, fd, 0);
            assert_ne!(start, libc::MAP_FAILED);
            self.segment = Some((start.cast(), size));
        }
    }

    /// Attaches as any client does.
    pub(crate) fn attach(scene: &Scene) -> Self {
        let mut raw = Self::connect(scene);
        assert!(raw.send(&hello()));
        let reply = raw.receive();
        assert_eq!((reply.len(), reply[12]), (64, 0), "accepted");
        assert!(raw.segment.is_some());
        raw
    }

    /// Whether the server ends the connection, soon.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, 20_000) == 1 }
    }

    /// Writes into the segment.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let (start, size) = self.segment.expect("attached");
        assert!(offset + bytes.len() <= size);
        // SAFETY: inside of the mapping; races are what this is for.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(offset), bytes.len()) };
    }

    /// Writes the state word of the ring's first slot; the ring has `ring` bytes.
    pub(crate) fn write_first_state(&self, ring: usize, state: u64) {
        const DOORBELL_PAGE: usize = 4096;
        const STATE: usize = 0x10;
        let (_, size) = self.segment.expect("attached");
        self.write(size - DOORBELL_PAGE - ring + STATE, &state.to_le_bytes());
    }

    /// A byte of the segment.
    pub(crate) fn read(&self, offset: usize) -> u8 {
        let (start, size) = self.segment.expect("attached");
        assert!(offset < size);
        // SAFETY: inside of the mapping.
        unsafe { start.add(offset).read_volatile() }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some((start, size)) = self.segment {
            // SAFETY: the mapping of `map`, which nobody uses any more.
            unsafe { libc::munmap(start.cast(), size) };
        }
    }
}

/// Long enough for what must not happen to happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

/// A listening socket that somebody else has made for the service, and its path.
pub(crate) fn listener(scene: &Scene) -> (OwnedFd, String) {
    use std::os::unix::fs::DirBuilderExt;
    let directory = format!("{}/{NAME}", scene.directory);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
    let path = format!("{directory}/activated.sock");
    // SAFETY: the address is a zeroed sockaddr_un with a path that fits.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        assert!(path.len() < address.sun_path.len());
        for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
            *to = from.cast_signed();
        }
        let size = size_of_val(&address) as libc::socklen_t;
        assert_eq!(libc::bind(socket, (&raw const address).cast(), size), 0);
        assert_eq!(libc::listen(socket, 10), 0);
        OwnedFd::from_raw_fd(socket)
    };
    (socket, path)
}

/// The next one who connects to it.
pub(crate) fn accepted(listener: &OwnedFd) -> Raw {
    // SAFETY: the caller's address is not asked for.
    let socket = unsafe {
        let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        libc::accept4(listener.as_raw_fd(), address, len, libc::SOCK_CLOEXEC)
    };
    assert!(socket >= 0);
    // SAFETY: the descriptor is new, and this one's own.
    Raw { socket: unsafe { OwnedFd::from_raw_fd(socket) }, segment: None }
}

/// What `/proc` calls the file behind a descriptor of this process.
pub(crate) fn link_of(fd: i32) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open");
    link.to_str().expect("UTF-8").to_owned()
}

/// Whether this process has the file open.
pub(crate) fn is_open(link: &str) -> bool {
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    all.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|found| found.as_os_str() == link)
}

/// Lets every user reach the sockets of a scene.
pub(crate) fn let_in(scene: &Scene) {
    use std::os::unix::fs::PermissionsExt;
    let directory = format!("{}/{NAME}", scene.directory);
    for path in [&scene.directory, &directory] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for entry in scene.sockets() {
        let path = format!("{directory}/{entry}");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    }
}

/// A TCP socket whose last close takes until its peer, the second one, is closed: it has unsent bytes, and is
/// told to linger.
pub(crate) fn lingering() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut socket, &[0; 1 << 16]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: 600 };
    // SAFETY: the option's value can be read.
    let set = unsafe {
        let (value, size) = ((&raw const linger).cast(), size_of_val(&linger));
        let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
        libc::setsockopt(socket.as_raw_fd(), level, option, value, size as libc::socklen_t)
    };
    assert_eq!(set, 0);
    (socket, peer)
}
