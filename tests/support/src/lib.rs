//! What the tests of several packages share: names of their own and what is left of them, other
//! processes, numbers that can be replayed, and a note of what could not be tested.
#![cfg(target_os = "linux")]

mod census;
mod entry;
mod mounts;
mod names;
mod not_run;
mod peer;
mod random;
mod sleeper;

pub use census::Census;
pub use entry::{again, run_if_asked};
pub use mounts::with_mount;
pub use names::{lock_folders, names, traces, unique};
pub use not_run::not_run;
pub use peer::{Peer, commands, isolation, no_isolation, say};
pub use random::{Rng, seed};
pub use sleeper::Sleeper;

use std::time::{Duration, Instant};

/// For what succeeds at once on an idle machine; tests run on busy ones.
pub const LONG: Duration = Duration::from_secs(20);

/// Waits for a sign.
///
/// # Panics
/// If it has not come after twice [`LONG`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG * 2, "never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
