//! The in-place channel with real processes: what its users see, also when a side is killed, stopped,
//! restarted, or met by somebody else's objects.
//!
//! One binary: child processes are this binary itself, run again for the one test [`peer_entry`], which
//! becomes the peer that `ZEROBUFFER_TEST_PEER` describes (`peer.rs`) and drives it line by line
//! (`harness.rs`). Every test runs under a watchdog with a channel name of its own, and ends with a look
//! at what is left: names, descriptors, mappings, threads, tokens.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::disallowed_methods)]

mod harness;
mod peer;
mod work;

mod calls;
mod cancelled;
mod claims;
mod closing;
mod damage;
mod death;
mod debug;
#[cfg(feature = "failpoints")]
mod faults;
mod fork;
mod handlers;
mod handles;
mod names;
mod pages;
mod pull;
mod races;
mod reconnecting;
mod resources;
mod responses;
mod restart;
mod signals;
mod sizes;
mod stop;
mod tasks;
mod threads;

/// Not a test: the way into a child process. Returns at once where no peer is asked for.
#[test]
fn peer_entry() {
    if let Ok(description) = std::env::var(peer::VARIABLE) {
        peer::run(&description);
    }
}
