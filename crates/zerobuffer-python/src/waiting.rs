//! Waiting the way Python programs expect it: other threads run, and Ctrl-C ends it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::time::{Duration, Instant};
use zerobuffer::{Error, ErrorKind, WaitStrategy};

/// Between two checks for pending signals.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// A timeout in seconds, as Python gives it: `None` waits for ever, zero and less checks once.
pub(crate) fn timeout(seconds: Option<f64>) -> PyResult<Duration> {
    match seconds {
        None => Ok(Duration::MAX),
        Some(seconds) if seconds.is_nan() => {
            Err(PyValueError::new_err("the timeout is not a number"))
        }
        Some(seconds) if seconds <= 0.0 => Ok(Duration::ZERO),
        // The same for the usual ones, with fewer instructions: nanoseconds that a f64 counts exactly.
        Some(seconds) if seconds < 1e6 => Ok(Duration::from_nanos((seconds * 1e9 + 0.5) as u64)),
        Some(seconds) => Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
    }
}

/// Calls `step` with a time that it may take until it fails in a way that is not `transient`, or until
/// `timeout` has passed: at first with no time at all and the interpreter locked, then slice by slice.
///
/// `Err`: a signal's handler has raised, Ctrl-C most probably.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    timeout: Duration,
    transient: fn(&Error) -> bool,
    mut step: impl FnMut(Duration) -> Result<T, Error> + Send,
) -> PyResult<Result<T, Error>> {
    match step(Duration::ZERO) {
        Err(error) if transient(&error) && !timeout.is_zero() => {}
        done => return Ok(done),
    }
    wait_detached(py, timeout, transient, step)
}

/// As [`wait`], for steps that take their time at once.
pub(crate) fn wait_detached<T: Send>(
    py: Python<'_>,
    timeout: Duration,
    transient: fn(&Error) -> bool,
    mut step: impl FnMut(Duration) -> Result<T, Error> + Send,
) -> PyResult<Result<T, Error>> {
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match py.detach(|| step(left.min(SLICE))) {
            Err(error) if transient(&error) => {
                py.check_signals()?;
                if left <= SLICE {
                    return Ok(Err(after(error, timeout)));
                }
            }
            done => return Ok(done),
        }
    }
}

/// The error of a last slice, as that of the whole wait.
fn after(error: Error, waited: Duration) -> Error {
    match error {
        Error::Timeout { what, .. } => Error::Timeout { waited, what },
        Error::NotConnectedYet { .. } => Error::NotConnectedYet { waited },
        error => error,
    }
}

/// Nothing has come, or there is no room.
pub(crate) fn not_yet(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Full | ErrorKind::NotConnectedYet)
}

/// There is no server, or it has another client.
pub(crate) fn not_there(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotRunning | ErrorKind::Busy)
}

/// As [`not_there`], or another thread is still looking.
pub(crate) fn not_reconnected(error: &Error) -> bool {
    not_there(error) || matches!(error, Error::Timeout { .. })
}

/// A way to wait by its name.
pub(crate) fn strategy(name: &str) -> PyResult<WaitStrategy> {
    match name {
        "default" => Ok(WaitStrategy::SpinThenPark),
        "park" => Ok(WaitStrategy::Park),
        "spin" => Ok(WaitStrategy::Spin),
        _ => Err(PyValueError::new_err(format!(
            "wait is {name:?}; allowed: 'default', 'park', 'spin'"
        ))),
    }
}
