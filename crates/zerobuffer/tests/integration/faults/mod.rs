//! kill -9 and SIGSTOP at every step of the protocol, as the other side sees it (feature `failpoints`).
//!
//! A child process arms one step, and signals itself when it gets there. That it got there is part of
//! every test: [`Peer::died`](crate::harness::Peer::died) and `has_stopped` fail otherwise.

mod clients;
mod isolated;
mod servers;
mod stops;

use crate::death::next_client_is_served;
use crate::harness::{LONG, Scene};
use crate::peer::{Op, edited, op};
use zerobuffer::Client;

/// A step, and how often it is passed before the one that counts.
type Step = (&'static str, u32);

fn armed(step: Step, signal: i32) -> String {
    format!("point={} skip={} signal={signal}", step.0, step.1)
}

fn killing(step: Step) -> String {
    armed(step, libc::SIGKILL)
}

fn stopping(step: Step) -> String {
    armed(step, libc::SIGSTOP)
}

/// A client that has been waiting for a server since before there was one.
struct Early(std::thread::JoinHandle<zerobuffer::Result<Client>>);

impl Early {
    fn new(t: &Scene) -> Self {
        let name = t.name().to_owned();
        Self(std::thread::spawn(move || Client::connect(&name, LONG)))
    }

    /// It is served by the server that is there now; it may have attached to the one before, in the moment
    /// before its death.
    #[track_caller]
    fn expect_service(self) {
        let mut client = self.0.join().unwrap().expect("a server is there");
        if !client.is_server_connected() {
            client.reconnect(LONG).expect("a server is there");
        }
        let request = op(Op::Edit, 1, 500);
        assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
    }
}

/// After whatever has happened: a server starts, a client that has waited is served, and so is the next one.
#[track_caller]
fn a_next_pair_works(t: &Scene, early: Early) {
    let server = t.server("handler=ops");
    early.expect_service();
    next_client_is_served(t);
    server.stop();
}
