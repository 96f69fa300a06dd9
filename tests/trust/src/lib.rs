//! What the tests of trust have in common. Each of them is a program of its own under `tests/`.

mod census;
mod mounts;
mod work;

pub use census::{Census, names};
pub use mounts::with_mount;
pub use work::{Rng, seed};

/// A channel name that no other test uses.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Ends in a letter, so that no name is part of another one.
    format!("trust-{what}-{}n{count}z", std::process::id())
}

/// Says that something cannot be tested here; `cargo xtask test` repeats it at its end.
pub fn not_run(what: &str) {
    use std::io::Write;
    println!("not run: {what}");
    if let Some(list) = std::env::var_os("ZEROBUFFER_NOT_RUN") {
        let list = std::fs::File::options().create(true).append(true).open(list);
        let _ = list.and_then(|mut list| writeln!(list, "not run: {what}"));
    }
}

/// Whether the library in this very program can make system calls fail on command.
pub fn holds_faults() -> bool {
    let program = std::env::current_exe().and_then(std::fs::read).expect("this program's file");
    // Backwards, so that this function itself does not hold it.
    let message: String = "fo srorre eht fo tsil on".chars().rev().collect();
    program.windows(message.len()).any(|bytes| bytes == message.as_bytes())
}
