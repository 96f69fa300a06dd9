//! A test's scene: a runtime directory of its own, its child processes, and the look at what is left.

use crate::peer;
use std::sync::atomic::{AtomicU32, Ordering};
use zerobuffer::{Client, ClientConfig, Servers, Service, ServiceConfig};
pub(crate) use zerobuffer_test_support::{LONG, Peer, eventually};

/// The service of every test, each in a directory of its own.
pub(crate) const NAME: &str = "images";

/// The stage of one test.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) directory: String,
    /// A server was killed: its socket is for the next one to remove.
    killed: std::cell::Cell<bool>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("/tmp/zb-service-{}-{count}", std::process::id());
        Self { directory, killed: std::cell::Cell::new(false) }
    }

    pub(crate) fn service_config(&self) -> ServiceConfig {
        ServiceConfig::new().ring(1 << 20).directory(&self.directory)
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::new().directory(&self.directory)
    }

    /// A server in this process, without a handler.
    pub(crate) fn service(&self) -> Service {
        Service::create(NAME, self.service_config()).expect("a service starts")
    }

    /// A client in this process.
    pub(crate) fn client(&self) -> Client {
        Client::connect_with(NAME, LONG, self.client_config()).expect("a client attaches")
    }

    /// The servers as a monitor sees them.
    pub(crate) fn servers(&self) -> Servers {
        Servers::of(NAME).expect("a name").directory(&self.directory)
    }

    /// A child process of this role and these properties, ready.
    pub(crate) fn peer(&self, description: &str) -> Peer {
        let mut peer = self.start(description);
        peer.expect("ready");
        peer
    }

    /// The same, as soon as it was started.
    pub(crate) fn start(&self, description: &str) -> Peer {
        let description = format!("directory={} {description}", self.directory);
        Peer::spawn(&mut zerobuffer_test_support::again(peer::VARIABLE, &description))
    }

    pub(crate) fn kill(&self, peer: Peer) {
        self.expect_leftovers();
        peer.kill();
    }

    /// A server dies in this scene, and its socket is for the next one to remove.
    pub(crate) fn expect_leftovers(&self) {
        self.killed.set(true);
    }

    /// The names in the service's directory.
    pub(crate) fn sockets(&self) -> Vec<String> {
        let entries = std::fs::read_dir(format!("{}/{NAME}", self.directory));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            if self.killed.get() {
                self.service().stop().expect("the next server starts and stops");
            }
            assert_eq!(self.sockets(), [""; 0], "left behind");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Raises this process's limit of descriptors, which children inherit; false if that is not allowed.
pub(crate) fn allow_descriptors(count: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` can be read and written.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= count
    }
}

/// Descriptors of this process that stand for what contains `what`.
pub(crate) fn descriptors(what: &str) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("can be read").flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().contains(what)).count()
}

/// Mappings of this process of segments of services.
pub(crate) fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("can be read");
    maps.lines().filter(|line| line.contains("/memfd:zerobuffer-")).count()
}
