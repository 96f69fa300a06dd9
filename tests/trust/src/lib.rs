//! What the tests of trust ask about the library that they are built with. Each of them is a program of
//! its own under `tests/`.

/// Whether the library in this very program can make system calls fail on command.
pub fn holds_faults() -> bool {
    let program = std::env::current_exe().and_then(std::fs::read).expect("this program's file");
    // Backwards, so that this function itself does not hold it.
    let message: String = "fo srorre eht fo tsil on".chars().rev().collect();
    program.windows(message.len()).any(|bytes| bytes == message.as_bytes())
}
