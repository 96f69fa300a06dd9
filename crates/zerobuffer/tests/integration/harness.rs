//! A test's scene: a channel name of its own, its child processes, a watchdog, and the look at what is
//! left at the end.
// Some of it serves the tests at the steps of the protocol only.
#![cfg_attr(not(feature = "failpoints"), allow(dead_code, unused_imports))]

use crate::{peer, work};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, ClientConfig, Error, ErrorKind, Server};
pub(crate) use zerobuffer_test_support::{
    LONG, Peer, eventually, names, no_isolation, not_run, traces,
};
use zerobuffer_test_support::{again, isolation, unique};

/// A peer's death, and the next client's service, must be there well before this.
pub(crate) const SOON: Duration = Duration::from_millis(500);
/// A test that takes longer hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `body` under a watchdog, in a scene with a channel name of its own.
pub(crate) fn scene(body: impl FnOnce(&Scene) + Send + 'static) {
    let scene = Arc::new(Scene::new());
    let (done, finished) = channel();
    let inside = Arc::clone(&scene);
    let thread = std::thread::spawn(move || {
        // Children die with the thread that made them, so the end is looked at on this one.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            body(&inside);
            inside.expect_unchanged();
        }));
        inside.sweep();
        let _ = done.send(());
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    });
    let patience = WATCHDOG * work::factor();
    if finished.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        scene.sweep();
        panic!("hangs: not finished after {patience:?} (channel {})", scene.name);
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// The stage of one test.
#[derive(Debug)]
pub(crate) struct Scene {
    name: String,
    /// Every child ever made, for the sweep.
    pids: Mutex<Vec<i32>>,
    /// A side was killed: the next server of the name is to clean up, nobody else has to.
    killed: AtomicBool,
    /// Children live in a pid namespace, and with a /tmp, of their own.
    isolated: AtomicBool,
}

impl Scene {
    fn new() -> Self {
        let name = unique("it");
        let (killed, isolated) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { name, pids: Mutex::default(), killed, isolated }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A further name of this test.
    pub(crate) fn other(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Starts a child process; `more` are its properties (see [`peer::run`]).
    pub(crate) fn peer(&self, more: &str) -> Peer {
        let mut description = format!("name={} ", self.name);
        let _ = write!(description, "{more}");
        let mut command = again(peer::VARIABLE, &description);
        if self.isolated.load(Ordering::Relaxed) {
            command = isolation(command.get_program().as_ref());
            command.env(peer::VARIABLE, &description);
        }
        let peer = Peer::spawn(&mut command);
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(peer.pid());
        peer
    }

    /// From now on each child lives in a pid namespace of its own, and with a /tmp of its own.
    pub(crate) fn isolate(&self) {
        self.isolated.store(true, Ordering::Relaxed);
    }

    /// A server in a child process, ready for clients.
    pub(crate) fn server(&self, more: &str) -> Peer {
        let mut server = self.peer(&format!("role=server {more}"));
        server.expect("ready");
        server
    }

    /// A client in a child process, attached.
    pub(crate) fn client_peer(&self, more: &str) -> Peer {
        let mut client = self.peer(&format!("role=client {more}"));
        client.expect("ready");
        client.ask("connect", "ok");
        client
    }

    /// As [`Scene::client_peer`], for a server in this process that `pump` keeps going.
    pub(crate) fn client_peer_while(&self, mut pump: impl FnMut()) -> Peer {
        let mut client = self.peer("role=client");
        client.expect("ready");
        client.say("connect");
        let start = Instant::now();
        while start.elapsed() < LONG {
            pump();
            std::thread::sleep(Duration::from_millis(1));
            if let Some(line) = client.heard() {
                assert!(line.starts_with("ok"), "{line}");
                return client;
            }
        }
        panic!("the client never attached");
    }

    /// A process that is no child of this one, to be killed at the end.
    pub(crate) fn adopt(&self, pid: i32) {
        assert!(pid > 0, "{pid} stands for more than one process");
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }

    /// A client in this process.
    pub(crate) fn client(&self) -> Client {
        self.client_with(ClientConfig::new())
    }

    pub(crate) fn client_with(&self, config: ClientConfig) -> Client {
        Client::connect_with(&self.name, LONG, config).expect("a client attaches")
    }

    /// A server in this process, without a handler.
    pub(crate) fn own_server(&self, payload: usize) -> Server {
        Server::create(&self.name, BufferConfig::new(256, payload)).expect("a server starts")
    }

    /// Kills `peer` with SIGKILL and waits for its end; what it leaves behind is for the next server.
    pub(crate) fn kill(&self, peer: Peer) {
        self.expect_leftovers();
        peer.kill();
    }

    /// The last server of the name did not end cleanly.
    pub(crate) fn expect_leftovers(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Every semaphore of this test's channels holds two tokens at the most (I7).
    pub(crate) fn expect_few_tokens(&self) {
        for file in names(&self.name).iter().filter(|file| file.contains("/sem.")) {
            let Ok(bytes) = std::fs::read(file) else { continue };
            let Some(value) = bytes.first_chunk::<4>() else { continue };
            let value = u32::from_le_bytes(*value);
            assert!(value <= 2, "{value} tokens in {file}");
        }
    }

    /// As before the test: no name, no descriptor, no mapping of its channels (I8). A leftover of a kill
    /// must go with the next server of the same name.
    fn expect_unchanged(&self) {
        if self.killed.load(Ordering::Relaxed) {
            self.own_server(64).stop().expect("the next server starts and stops");
        }
        let traces = traces(&self.name);
        assert!(traces.is_empty(), "left behind: {traces:#?}");
    }

    /// Leaves nothing behind, whatever happened.
    fn sweep(&self) {
        for pid in self.pids.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: kill has no memory effects. A peer that was waited for already has had its pid
            // freed, but pids are not used again within the seconds of a test.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for path in names(&self.name) {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}

/// The error of a call that must fail with `kind`.
#[track_caller]
pub(crate) fn fails<T>(outcome: Result<T, Error>, kind: ErrorKind) -> Error {
    match outcome {
        Ok(_) => panic!("succeeded, expected {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}
