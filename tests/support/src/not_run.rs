//! What could not be tested.

use std::io::Write;

/// Notes that `what` was not tested, and why. `cargo xtask test` repeats it at its end and counts it.
///
/// # Panics
/// If it cannot be noted: a test must not pass in silence without having tested.
pub fn not_run(what: &str, why: &str) {
    let line = format!("not run: {what} ({why})\n");
    // Past the test harness, which shows nothing of a test that passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("ZEROBUFFER_NOT_RUN") {
        let mut list =
            std::fs::File::options().create(true).append(true).open(&list).expect("list");
        list.write_all(line.as_bytes()).expect("the list of what was not run can be written");
    }
}
