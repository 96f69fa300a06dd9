//! The in-place channel with real processes: what its users see, also when a side is killed, stopped,
//! restarted, or met by somebody else's objects.
//!
//! One binary: child processes are this binary itself, which becomes the peer that `ZEROBUFFER_TEST_PEER`
//! describes (`peer.rs`) before its test harness begins; tests drive it line by line (`harness.rs`). Every test runs under a watchdog with a channel name of its own, and ends with a look
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
mod futures;
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

zerobuffer_test_support::entry!(peer::VARIABLE, peer::run);
