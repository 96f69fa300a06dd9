//! What the tests of trust have in common. Each of them is a program of its own under `tests/`.

mod census;
mod work;

pub use census::{Census, names};
pub use work::{Rng, seed};

/// A channel name that no other test uses.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Ends in a letter, so that no name is part of another one.
    format!("trust-{what}-{}n{count}z", std::process::id())
}

/// Whether the library in this very program can make system calls fail on command.
pub fn holds_faults() -> bool {
    let program = std::env::current_exe().and_then(std::fs::read).expect("this program's file");
    // Backwards, so that this function itself does not hold it.
    let message: String = "fo srorre eht fo tsil on".chars().rev().collect();
    program.windows(message.len()).any(|bytes| bytes == message.as_bytes())
}
