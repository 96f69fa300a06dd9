//! kill -9 and SIGSTOP at every step of a service's and of a client's, as all others see it (feature
//! `failpoints`).
//!
//! A child process arms one step, and signals itself when it gets there. That it got there is part of
//! every test: `Peer::died` and `has_stopped` fail otherwise.

mod clients;
pub(crate) mod peer;
mod servers;
mod stops;

use crate::scene::{LONG, NAME, Peer, Scene};
use std::thread::JoinHandle;
use std::time::Duration;
use zerobuffer::{Client, Error, ErrorKind, LostRequest};

/// A step, and how often it is passed before the one that counts.
type Step = (&'static str, u32);

fn killing(step: Step) -> String {
    armed(step, libc::SIGKILL)
}

fn stopping(step: Step) -> String {
    armed(step, libc::SIGSTOP)
}

fn armed(step: Step, signal: i32) -> String {
    format!("point={} skip={} signal={signal}", step.0, step.1)
}

/// A worker that serves, and that can be armed.
fn worker(scene: &Scene) -> Peer {
    scene.peer("role=worker")
}

/// A client process that can be armed, not yet attached.
fn caller(scene: &Scene) -> Peer {
    scene.peer("role=caller")
}

/// The next client attaches, and is served.
#[track_caller]
fn next_client_is_served(scene: &Scene) {
    let mut client = scene.client();
    works(&mut client);
}

#[track_caller]
fn works(client: &mut Client) {
    let response = client.call(&41_u64.to_le_bytes(), LONG).expect("served");
    assert_eq!(response.data(), 42_u64.to_le_bytes());
}

/// A client that connects while something happens to the only worker.
struct Early(JoinHandle<zerobuffer::Result<Client>>);

impl Early {
    fn new(scene: &Scene) -> Self {
        let config = scene.client_config();
        Self(std::thread::spawn(move || Client::connect_with(NAME, LONG, config)))
    }

    /// It is served by the worker that is there now; it may have attached to the one before, in the moment
    /// before its death.
    #[track_caller]
    fn expect_service(self) {
        let mut client = self.0.join().unwrap().expect("a worker is there");
        if !client.is_server_connected() {
            client.reconnect(LONG).expect("a worker is there");
        }
        works(&mut client);
    }
}

/// After whatever has happened: a worker starts, a client that has waited is served, and so is the next one;
/// and nothing is left.
#[track_caller]
fn a_next_pair_works(scene: &Scene, early: Early) {
    let server = worker(scene);
    early.expect_service();
    next_client_is_served(scene);
    server.stop();
}

/// What an outcome says of the request that the worker's death has left behind.
#[track_caller]
fn lost<T>(outcome: Result<T, Error>) -> Option<LostRequest> {
    let error = outcome.map(drop).expect_err("the worker has died");
    assert_eq!(error.kind(), ErrorKind::PeerDied, "{error}");
    error.lost_request()
}

/// Sockets that were bound and not named, as they are a minute later.
fn let_a_minute_pass(scene: &Scene) {
    for entry in scene.sockets() {
        let path = std::ffi::CString::new(format!("{}/{NAME}/{entry}", scene.directory)).unwrap();
        let time = std::time::SystemTime::now() - Duration::from_secs(61);
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
        let time = libc::timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: 0 };
        // SAFETY: the path is NUL-terminated, and there are two times.
        let set = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), [time; 2].as_ptr(), 0) };
        assert_eq!(set, 0, "{entry}");
    }
}
