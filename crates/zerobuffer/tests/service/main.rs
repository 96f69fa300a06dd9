//! Services with real processes: any number of clients and servers, what each sees when another is killed,
//! stopped or hostile, and that nothing is left behind.
//!
//! Child processes are this program itself, see [`peer::run`].
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::disallowed_methods)]

mod peer;
mod raw;
mod scene;

mod bells;
mod calls;
mod death;
mod event_loop;
mod forks;
mod futures;
mod handlers;
mod hostile;
mod idle;
mod limits;
mod namespaces;
mod pool;
mod readiness;
mod restart;
mod room;
mod siege;
mod status;
#[cfg(feature = "failpoints")]
mod steps;
#[cfg(feature = "tokio")]
mod tokio_client;

zerobuffer_test_support::entry!(peer::VARIABLE, peer::run);
