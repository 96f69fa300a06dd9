//! Ctrl-C and its relatives, noticed between two steps so that everything is put away first.

use crate::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
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
        for number in ending_signals() {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .map_err(unheard)?;
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

    /// Does what may wait for ever, as for the other end of a pipe, on a thread of its own, which is left there once a
    /// signal has come.
    pub(crate) fn wait_for<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = channel();
        std::thread::spawn(move || tell.send(work()));
        loop {
            self.check()?;
            match told.recv_timeout(SLICE) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::system("a thread has panicked"));
                }
            }
        }
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

/// The same for a thread that waits for the signals.
pub(crate) fn signals() -> Result<Signals, Failure> {
    Signals::new(ending_signals()).map_err(unheard)
}

/// The signals that end this program, without those that it was started to ignore: `nohup` has it outlive a hangup, and
/// a script that starts it in the background has it outlive the script's Ctrl-C. A handler would undo that.
fn ending_signals() -> Vec<i32> {
    // Where that is not known, a program that can be stopped is better than one that cannot.
    let ignored = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(ignored);
    let is_ignored = |signal: i32| ignored.unwrap_or(0) & 1 << (signal - 1) != 0;
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)).collect()
}

/// The ignored signals, a bit for each, as proc_pid_status(5) has them.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn unheard(error: std::io::Error) -> Failure {
    Failure::system(format!("cannot listen for signals: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_as_the_kernel_writes_them() {
        let status =
            "Name:\tzerobuffer\nSigBlk:\t0000000000004002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), Some(1 << (SIGHUP - 1) | 1 << (13 - 1)));
        for status in ["", "SigIgn:\n", "SigIgn:\tnone\n", "SigCgt:\t0000000000000001\n"] {
            assert_eq!(ignored(status), None, "{status:?}");
        }
    }
}
