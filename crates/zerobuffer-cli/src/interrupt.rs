//! Ctrl-C and its relatives, noticed between two steps so that everything is put away first.

use crate::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Between two checks whether Ctrl-C was pressed.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Whether one of the signals has come that end a program.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens from now on; before anything exists that would have to be put away.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .map_err(|error| Failure::system(format!("cannot listen for signals: {error}")))?;
        }
        Ok(Self(signal))
    }

    /// The signal that has come.
    pub(crate) fn signal(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as u8),
        }
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.signal().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
    }

    /// Sleeps, but not through a signal.
    pub(crate) fn sleep(&self, time: Duration) {
        let start = Instant::now();
        while self.signal().is_none() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    /// One that no signal reaches.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::new(AtomicUsize::new(0)))
    }
}
