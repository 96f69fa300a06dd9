//! Waiting the way Python programs expect it: other threads run, and Ctrl-C ends it.

use crate::stop::Stop;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::cell::{Cell, OnceCell};
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

/// Calls `connect` once, without the interpreter, and with what it asks whether its result is still wanted: no more
/// once a signal's handler has raised, or `stop` is set. It may be asked as often as one likes.
///
/// In one call and not in slices: a server makes a client's memory in a time of its own, and would have to begin
/// again with each slice.
///
/// `Err`: a signal's handler has raised, Ctrl-C most probably.
pub(crate) fn until_signal<T: Send>(
    py: Python<'_>,
    stop: Option<&Stop>,
    connect: impl FnOnce(&dyn Fn() -> bool) -> Result<T, Error> + Send,
) -> PyResult<Result<T, Error>> {
    py.detach(|| {
        let signals = Signals { due: Cell::new(Instant::now() + SLICE), raised: OnceCell::new() };
        let is_stopped = || stop.is_some_and(Stop::is_set);
        let outcome = connect(&|| !is_stopped() && signals.is_quiet());
        // What has connected all the same ends here.
        signals.raised.into_inner().map_or(Ok(outcome), Err)
    })
}

/// The signals of a thread that is detached from the interpreter.
struct Signals {
    /// When they are checked next: attaching takes its time where other threads run.
    due: Cell<Instant>,
    raised: OnceCell<PyErr>,
}

impl Signals {
    /// Whether none of their handlers has raised.
    fn is_quiet(&self) -> bool {
        if self.raised.get().is_none() && self.due.get() <= Instant::now() {
            // An interpreter that ends runs no handlers.
            if let Some(Err(error)) = Python::try_attach(|py| py.check_signals()) {
                let _ = self.raised.set(error);
            }
            self.due.set(Instant::now() + SLICE);
        }
        self.raised.get().is_none()
    }
}

/// The error of a part of a wait, its last slice for instance, as that of all of it.
pub(crate) fn after(error: Error, waited: Duration) -> Error {
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
