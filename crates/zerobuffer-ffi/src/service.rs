//! Servers of services: of any number of clients, each with memory of its own.

use crate::config::{duration, set, wait};
use crate::error::{run, run_or, zb_status};
use crate::frame::{Any, zb_frame};
use crate::pointers::{self, bytes, given, size_prefixed, text};
use crate::server::zb_server;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::null;
use zerobuffer::{ClientIdentity, Result, Service, ServiceConfig};

/// What a server of a service is made of. Set `size` to `sizeof(zb_service_config)` and the rest to zero,
/// then change what is to differ: zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_service_config {
    /// `sizeof(zb_service_config)`.
    pub size: usize,
    /// Bytes of the ring of a client that asks for none in particular. Default 32 MiB, all of which is
    /// reserved when the client attaches.
    pub ring_size: usize,
    /// Bytes of each of the two metadata blocks. Default 4096.
    pub metadata_size: usize,
    /// The largest ring that a client can ask for. Default 1 GiB, which is also the most.
    pub max_ring_size: usize,
    /// The most bytes of all clients' memory together. Default: half of what the machine, or the cgroup, has
    /// free when the service is created. Beyond it clients get `ZB_NO_SPACE`.
    pub max_bytes: u64,
    /// The most clients at the same time. Default 64. Further ones get `ZB_BUSY`, once their timeout has passed.
    pub max_clients: u32,
    /// The most clients of one user at the same time. Default: half of `max_clients` for other users, all of them
    /// for this server's own.
    pub max_clients_per_user: u32,
    /// `ZB_WAIT_*`: how the server waits for requests.
    pub wait: u32,
    /// Threads that `zb_server_start` runs the handler on, for all clients together. Default 1.
    pub workers: u32,
    /// The server's metadata, which each client can read; null for none.
    pub metadata: *const u8,
    /// Bytes of `metadata`.
    pub metadata_len: usize,
    /// Nanoseconds that `zb_server_stop` waits for running handlers. Default 2 s.
    pub stop_timeout_ns: i64,
    /// Ids of users whose programs may attach, besides this server's own user and root; null for none.
    pub users: *const u32,
    /// How many.
    pub users_len: usize,
    /// Ids of groups whose members may attach, the last of which owns the directory and the socket; null for none.
    pub groups: *const u32,
    /// How many.
    pub groups_len: usize,
    /// The runtime directory, UTF-8 that ends with a zero byte. Null for `$ZEROBUFFER_DIR`, else
    /// `/run/zerobuffer` for root, else `$XDG_RUNTIME_DIR/zerobuffer`, else `/tmp/zerobuffer-<uid>`.
    pub directory: *const c_char,
    /// Not zero: `listener` is set.
    pub has_listener: u32,
    /// A listening `SOCK_SEQPACKET` socket that this process was given, by systemd for instance, or that several
    /// servers inherit. It is neither closed, removed nor shut down. Default: a socket of the server's own.
    pub listener: i32,
    /// The most requests of one client that are worked on at the same time. Default: as many as there are
    /// handlers.
    pub handlers_per_client: u32,
    /// Zero.
    pub reserved: u32,
}

/// Who a client of a service is, by the system's word and by its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_client_identity {
    /// `sizeof(zb_client_identity)`, set by the caller: no more than that is written.
    pub size: usize,
    /// The number of its connection on this server, from 1, never used again; 0 for the client of a channel, of
    /// which the rest is 0, too.
    pub number: u64,
    /// What it says of itself, UTF-8; valid as long as the frame is, and its server is not stopped.
    pub label: *const u8,
    /// Bytes of `label`.
    pub label_len: usize,
    /// The process that connected; 0 if it is not visible from this one's pid namespace.
    pub pid: u32,
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group when it connected.
    pub gid: u32,
    /// Zero.
    pub reserved: u32,
}

size_prefixed!(zb_service_config, zb_client_identity);

impl zb_service_config {
    /// # Safety
    /// The rule **Pointers** for all that it leads to.
    unsafe fn service(&self) -> Result<ServiceConfig> {
        // SAFETY: the caller's.
        let (metadata, users, groups, directory) = unsafe {
            let metadata = bytes(self.metadata, self.metadata_len, "metadata")?;
            let users = bytes(self.users, self.users_len, "users")?;
            let groups = bytes(self.groups, self.groups_len, "groups")?;
            (metadata, users, groups, text(self.directory, "directory")?)
        };
        let config = ServiceConfig::new().wait(wait(self.wait)?).metadata(metadata);
        let config = set(config, self.ring_size, ServiceConfig::ring);
        let config = set(config, self.metadata_size, ServiceConfig::metadata_size);
        let config = set(config, self.max_ring_size, ServiceConfig::max_ring);
        let config = set(config, self.max_bytes, ServiceConfig::max_bytes);
        let config = set(config, self.max_clients as usize, ServiceConfig::max_clients);
        let per_user = self.max_clients_per_user as usize;
        let config = set(config, per_user, ServiceConfig::max_clients_per_user);
        let config = set(config, self.workers as usize, ServiceConfig::workers);
        let per_client = self.handlers_per_client as usize;
        let config = set(config, per_client, ServiceConfig::handlers_per_client);
        let config =
            set(config, self.stop_timeout_ns, |config, ns| config.stop_timeout(duration(ns)));
        let config = users.iter().copied().fold(config, ServiceConfig::user);
        let config = groups.iter().copied().fold(config, ServiceConfig::group);
        let config = directory.into_iter().fold(config, ServiceConfig::directory);
        Ok(if self.has_listener != 0 { config.listener(self.listener) } else { config })
    }
}

impl zb_client_identity {
    fn of(client: Option<&ClientIdentity>) -> Self {
        let none = Self {
            size: 0,
            number: 0,
            label: null(),
            label_len: 0,
            pid: 0,
            uid: 0,
            gid: 0,
            reserved: 0,
        };
        client.map_or(none, |client| Self {
            number: client.number(),
            label: client.label().as_ptr(),
            label_len: client.label().len(),
            pid: client.pid(),
            uid: client.uid(),
            gid: client.gid(),
            ..none
        })
    }
}

/// Creates a server of the service `name`: of any number of clients, each with memory of its own. Other processes
/// may create servers of the same service at the same time, and share its clients. `config` may be null for the
/// defaults. `server` gets the handle, or null; all functions of a `zb_server` are for it, too.
///
/// Clients attach with `zb_client_connect` as soon as this returns, and find a service before a channel of the
/// same name. Nothing is left in the file system but an empty directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_service_create(
    name: *const c_char,
    config: *const zb_service_config,
    server: Option<&mut MaybeUninit<*mut zb_server>>,
) -> zb_status {
    // SAFETY: the rule **Pointers**.
    unsafe {
        pointers::create(name, config, server, |name, config: Option<zb_service_config>| {
            let config = config.map_or(Ok(ServiceConfig::new()), |config| config.service())?;
            Ok(zb_server::new(Any::Service(Service::create(name, config)?)))
        })
    }
}

/// How many clients are attached at this moment: of a service any number, of a channel at most one. Any thread
/// may ask at any time before `zb_server_close`.
#[unsafe(no_mangle)]
pub extern "C" fn zb_server_clients(server: Option<&zb_server>) -> usize {
    run_or(0, || server.map_or(0, zb_server::clients))
}

/// Fills `client`, of which `size` is set, with who has sent the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_frame_client(
    frame: Option<&mut zb_frame>,
    client: *mut zb_client_identity,
) -> zb_status {
    run(|| {
        let found = given(frame, "frame")?.client(zb_client_identity::of)?;
        // SAFETY: the rule **Pointers**, for `size` bytes.
        unsafe { pointers::fill(client, "client", |size| zb_client_identity { size, ..found }) }
    })
}
