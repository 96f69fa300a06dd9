//! A test program that is its own child processes, without a test that only serves as their `main`.

use std::panic::catch_unwind;
use std::process::Command;

/// Makes `$run` the `main` of this test program wherever the variable `$variable` is set.
///
/// The test harness's own `main` cannot be replaced, so the program is taken over before it begins, by
/// the function that the C library calls first.
#[macro_export]
macro_rules! entry {
    ($variable:expr, $run:expr) => {
        extern "C" fn enter() {
            $crate::run_if_asked($variable, $run);
        }

        #[used]
        // SAFETY: the section holds pointers to functions, which the C library calls once, on the first
        // thread, after itself and the standard library's environment are ready. `enter` returns to it or
        // ends the process, and never unwinds into it.
        #[unsafe(link_section = ".init_array")]
        static ENTER: extern "C" fn() = enter;
    };
}

/// Runs the life of a child process and ends it, if this process is one; returns at once otherwise.
pub fn run_if_asked(variable: &str, run: fn(&str)) {
    let Ok(description) = std::env::var(variable) else { return };
    // As `main` would have it: a write that nobody reads is an error, and no signal.
    // SAFETY: the action runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let outcome = catch_unwind(|| run(&description));
    std::process::exit(if outcome.is_ok() { 0 } else { 101 });
}

/// This program again, as a child process of this description.
///
/// # Panics
/// If this program has no path.
pub fn again(variable: &str, description: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.env(variable, description);
    command
}
