//! The one rule of what is sent again: a request whose server ended before it took the request.

use crate::error::{Error, RequestState, Result};

/// Makes attempts at a call until one ends otherwise than by the end of a server that had not started the
/// request. Between two attempts `mend` finds the next server; `false`: the call ends with that error after all.
///
/// # Errors
/// What the last attempt failed with, also if `mend` failed, unless the client was closed meanwhile.
pub(super) fn until_started<S, T>(
    state: &mut S,
    mut attempt: impl FnMut(&mut S) -> Result<T>,
    mut mend: impl FnMut(&mut S) -> Result<bool>,
) -> Result<T> {
    loop {
        let error = match attempt(state) {
            Err(error) if is_not_started(&error) => error,
            outcome => return outcome,
        };
        match mend(state) {
            Ok(true) => {}
            Ok(false) => return Err(error),
            Err(next) => return Err(error.unless_closed(next)),
        }
    }
}

/// Whether a call can be made again: the server disconnected before it took the request.
pub(super) fn is_not_started(error: &Error) -> bool {
    match error {
        Error::PeerDied { request } | Error::PeerClosed { request } => {
            request.is_none_or(|request| request.state == RequestState::NotStarted)
        }
        _ => false,
    }
}

impl Error {
    /// The error of a request that was to be sent again, which failed with `next`: what became of the request,
    /// unless the client was closed meanwhile.
    pub(super) fn unless_closed(self, next: Self) -> Self {
        if matches!(next, Self::Closed) { next } else { self }
    }
}
