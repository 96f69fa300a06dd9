//! What handlers return, in both protocol versions.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Why a handler failed, with the message for the client.
pub(crate) enum Failure {
    Error(String),
    Panic(String),
}

/// Runs `piece`, a handler or a part of one. After a panic nobody sees what it has left behind: it is not
/// delivered.
///
/// # Errors
/// The message of its panic.
#[inline(always)]
pub(crate) fn catch<T>(piece: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(piece)).map_err(message_of_panic)
}

/// As [`catch`], for the whole of a handler.
#[inline(always)]
pub(crate) fn run<O: HandlerOutcome>(
    handler: impl FnOnce() -> O,
) -> std::result::Result<(), Failure> {
    match catch(|| handler().into_result()) {
        Ok(outcome) => outcome.map_err(Failure::Error),
        Err(message) => Err(Failure::Panic(message)),
    }
}

#[cold]
fn message_of_panic(panic: Box<dyn Any + Send>) -> String {
    let message = panic_message(&*panic).to_owned();
    drop_quietly(panic);
    message
}

/// Drops what a handler panicked with. Should that panic in turn, the thread lives on all the same.
fn drop_quietly(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Somebody means it.
        std::mem::forget(again);
    }
}

/// The message in a handler's panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the handler panicked")
}
