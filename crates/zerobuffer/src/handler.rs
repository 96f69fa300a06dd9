//! What handlers return, in both protocol versions.

use std::fmt::Display;

/// What a handler returns: nothing, or a `Result` whose error is the client's.
pub trait HandlerOutcome {
    /// `Err` with the message for the client if the handler failed.
    ///
    /// # Errors
    /// The handler's own.
    fn into_result(self) -> std::result::Result<(), String>;
}

impl HandlerOutcome for () {
    fn into_result(self) -> std::result::Result<(), String> {
        Ok(())
    }
}

impl<E: Display> HandlerOutcome for std::result::Result<(), E> {
    fn into_result(self) -> std::result::Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// Drops what a handler panicked with. Should that panic in turn, the thread lives on all the same.
pub(crate) fn drop_quietly(panic: Box<dyn std::any::Any + Send>) {
    let drop_it = std::panic::AssertUnwindSafe(|| drop(panic));
    if let Err(again) = std::panic::catch_unwind(drop_it) {
        // Somebody means it.
        std::mem::forget(again);
    }
}

/// The message in a handler's panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the handler panicked")
}
