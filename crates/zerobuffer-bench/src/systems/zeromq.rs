//! Through ZeroMQ: a request and a reply socket over `ipc://`, with the system's libzmq. It is loaded
//! when it is needed, so that this program builds and runs where it is not installed.
#![allow(unsafe_code)]

use super::exchange::{Exchange, Load};
use crate::machine::{Pinned, Seats};
use crate::names::unique_name;
use crate::peer::{Peer, answer_until_told};
use crate::plan::Unavailable;
use anyhow::{Context as _, Result, ensure};
use libloading::Library;
use serde::{Deserialize, Serialize};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Error;

/// The peer's role.
pub(crate) const ROLE: &str = "zeromq";

const REQUESTS: c_int = 3;
const REPLIES: c_int = 4;
const LINGER: c_int = 17;

/// `zmq_msg_t`: opaque, 64 bytes, aligned like a pointer.
#[repr(C, align(8))]
struct RawMessage([u8; 64]);

/// The functions of libzmq that are used, as `zmq.h` declares them.
struct Functions {
    ctx_new: unsafe extern "C" fn() -> *mut c_void,
    ctx_term: unsafe extern "C" fn(*mut c_void) -> c_int,
    socket: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
    setsockopt: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int,
    bind: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    connect: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    msg_init: unsafe extern "C" fn(*mut RawMessage) -> c_int,
    msg_init_size: unsafe extern "C" fn(*mut RawMessage, usize) -> c_int,
    msg_data: unsafe extern "C" fn(*mut RawMessage) -> *mut c_void,
    msg_size: unsafe extern "C" fn(*const RawMessage) -> usize,
    msg_send: unsafe extern "C" fn(*mut RawMessage, *mut c_void, c_int) -> c_int,
    msg_recv: unsafe extern "C" fn(*mut RawMessage, *mut c_void, c_int) -> c_int,
    msg_close: unsafe extern "C" fn(*mut RawMessage) -> c_int,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Functions {
    fn load() -> Result<Self> {
        const MISSING: Unavailable =
            Unavailable("libzmq.so.5 is not installed (Debian: apt-get install libzmq5)");
        // SAFETY: libzmq's initialisers have no requirements.
        let library = unsafe { Library::new("libzmq.so.5") }.map_err(|_| MISSING)?;
        // SAFETY: the names and the signatures are those of zmq.h of libzmq 4, soname 5.
        unsafe {
            Ok(Self {
                ctx_new: *library.get(b"zmq_ctx_new\0")?,
                ctx_term: *library.get(b"zmq_ctx_term\0")?,
                socket: *library.get(b"zmq_socket\0")?,
                close: *library.get(b"zmq_close\0")?,
                setsockopt: *library.get(b"zmq_setsockopt\0")?,
                bind: *library.get(b"zmq_bind\0")?,
                connect: *library.get(b"zmq_connect\0")?,
                msg_init: *library.get(b"zmq_msg_init\0")?,
                msg_init_size: *library.get(b"zmq_msg_init_size\0")?,
                msg_data: *library.get(b"zmq_msg_data\0")?,
                msg_size: *library.get(b"zmq_msg_size\0")?,
                msg_send: *library.get(b"zmq_msg_send\0")?,
                msg_recv: *library.get(b"zmq_msg_recv\0")?,
                msg_close: *library.get(b"zmq_msg_close\0")?,
                _library: library,
            })
        }
    }
}

/// One socket with a context of its own.
struct Socket {
    functions: Functions,
    context: *mut c_void,
    socket: *mut c_void,
}

// SAFETY: a ZeroMQ socket may be handed to another thread; it is used by one at a time, because every
// use takes `&mut self`.
unsafe impl Send for Socket {}

impl Socket {
    fn new(kind: c_int) -> Result<Self> {
        let functions = Functions::load()?;
        // SAFETY: a new context, and a socket in it; both are checked before they are used.
        let (context, socket) = unsafe {
            let context = (functions.ctx_new)();
            ensure!(!context.is_null(), "zmq_ctx_new: {}", Error::last_os_error());
            (context, (functions.socket)(context, kind))
        };
        ensure!(!socket.is_null(), "zmq_socket: {}", Error::last_os_error());
        let this = Self { functions, context, socket };
        // What was not sent when a socket is closed is of no use to anybody.
        let none: c_int = 0;
        // SAFETY: the socket is open, and the option's value is an int.
        let result = unsafe {
            let value = (&raw const none).cast();
            (this.functions.setsockopt)(this.socket, LINGER, value, size_of::<c_int>())
        };
        ensure!(result == 0, "zmq_setsockopt: {}", Error::last_os_error());
        Ok(this)
    }

    fn bind(&mut self, endpoint: &str) -> Result<()> {
        let endpoint = CString::new(endpoint)?;
        // SAFETY: the socket is open, and the text ends with a zero byte.
        let result = unsafe { (self.functions.bind)(self.socket, endpoint.as_ptr()) };
        ensure!(result == 0, "zmq_bind: {}", Error::last_os_error());
        Ok(())
    }

    fn connect(&mut self, endpoint: &str) -> Result<()> {
        let endpoint = CString::new(endpoint)?;
        // SAFETY: the socket is open, and the text ends with a zero byte.
        let result = unsafe { (self.functions.connect)(self.socket, endpoint.as_ptr()) };
        ensure!(result == 0, "zmq_connect: {}", Error::last_os_error());
        Ok(())
    }

    /// Sends a new message.
    fn send(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut message = RawMessage([0; 64]);
        // SAFETY: `message` is room for a message that is not initialised yet.
        let result = unsafe { (self.functions.msg_init_size)(&raw mut message, len) };
        ensure!(result == 0, "zmq_msg_init_size: {}", Error::last_os_error());
        self.edit(&mut message, fill);
        self.transmit(message)
    }

    fn receive(&mut self) -> Result<RawMessage> {
        let mut message = RawMessage([0; 64]);
        // SAFETY: room for a message, which is initialised before it is received into.
        let result = unsafe {
            (self.functions.msg_init)(&raw mut message);
            (self.functions.msg_recv)(&raw mut message, self.socket, 0)
        };
        ensure!(result >= 0, "zmq_msg_recv: {}", Error::last_os_error());
        Ok(message)
    }

    fn edit<R>(&mut self, message: &mut RawMessage, edit: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: an initialised message, which owns `msg_size` bytes at `msg_data`; a freshly
        // allocated one may hold any bytes, and u8 has no invalid ones.
        let bytes = unsafe {
            let data = (self.functions.msg_data)(message).cast();
            std::slice::from_raw_parts_mut(data, (self.functions.msg_size)(message))
        };
        edit(bytes)
    }

    fn transmit(&mut self, mut message: RawMessage) -> Result<()> {
        // SAFETY: an initialised message, which is empty after it was sent.
        let result = unsafe { (self.functions.msg_send)(&raw mut message, self.socket, 0) };
        ensure!(result >= 0, "zmq_msg_send: {}", Error::last_os_error());
        Ok(())
    }

    fn free(&mut self, mut message: RawMessage) {
        // SAFETY: an initialised message that nobody uses any more.
        unsafe { (self.functions.msg_close)(&raw mut message) };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: both are open, and not used again.
        unsafe {
            (self.functions.close)(self.socket);
            (self.functions.ctx_term)(self.context);
        }
    }
}

/// A client with its server process.
pub(crate) struct Requester {
    socket: Socket,
    peer: Peer,
    len: usize,
}

impl Requester {
    pub(crate) fn open(seats: Seats, load: Load) -> Result<Self> {
        let mut socket = Socket::new(REQUESTS)?;
        // Abstract: there is no file to remove.
        let endpoint = format!("ipc://@{}", unique_name("zeromq"));
        let spec = ServerSpec { endpoint, load };
        let peer = Peer::start(ROLE, &spec, seats.server)?;
        socket.connect(&spec.endpoint)?;
        Ok(Self { socket, peer, len: load.len })
    }
}

impl Exchange for Requester {
    fn exchange<R>(
        &mut self,
        fill: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        self.socket.send(self.len, fill)?;
        let mut message = self.socket.receive()?;
        let result = self.socket.edit(&mut message, |bytes| read(bytes));
        self.socket.free(message);
        Ok(result)
    }

    fn server(&self) -> &Peer {
        &self.peer
    }
}

/// What a peer needs to know to be ZeroMQ's server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServerSpec {
    endpoint: String,
    load: Load,
}

/// The server's process.
pub(crate) fn serve(spec: &ServerSpec, cpu: usize) -> Result<()> {
    // Before it binds: its own threads inherit the CPU.
    let _pinned = Pinned::to(cpu)?;
    let mut replier = Replier::bind(&spec.endpoint, spec.load)?;
    answer_until_told(cpu, move || replier.answer())
}

/// The server's end.
struct Replier {
    socket: Socket,
    load: Load,
}

impl Replier {
    fn bind(endpoint: &str, load: Load) -> Result<Self> {
        let mut socket = Socket::new(REPLIES)?;
        socket.bind(endpoint).context("bind ZeroMQ's server")?;
        Ok(Self { socket, load })
    }

    /// Answers each message with itself, edited, for ever.
    fn answer(&mut self) -> Result<()> {
        let work = self.load.work;
        loop {
            let mut message = self.socket.receive()?;
            self.socket.edit(&mut message, |bytes| work.on(bytes));
            self.socket.transmit(message)?;
        }
    }
}
