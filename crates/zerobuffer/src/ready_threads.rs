//! The background threads of servers, of both versions.
//!
//! They exist before their work does: a server whose threads cannot be started is unchanged.

use crate::error::{Error, Result};
use crate::sys;
use crate::tenure::{Away, Tenure};
use crate::wait::Deadline;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two checks whether a thread has ended.
pub(crate) const LOOK: Duration = Duration::from_micros(200);

/// The pause before another try to make what could not be made.
const RETRY: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce(&Away) + Send>;

/// Threads that wait for their jobs; dropped without jobs, they end.
#[derive(Debug)]
pub(crate) struct ReadyThreads {
    orders: Vec<Sender<Job>>,
    threads: Vec<Worker>,
}

/// One thread.
#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    away: Arc<Away>,
}

impl ReadyThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// `System` if one cannot be started; the others are ended again.
    pub(crate) fn gather(name: &str, count: usize) -> Result<Self> {
        let mut ready_threads = Self { orders: Vec::new(), threads: Vec::new() };
        for _ in 0..count {
            let (order, ordered) = channel::<Job>();
            let away = Arc::new(Away::new());
            let here = Arc::clone(&away);
            let thread = sys::spawn(name, move || {
                if let Ok(job) = ordered.recv() {
                    job(&here);
                }
            })?;
            ready_threads.orders.push(order);
            ready_threads.threads.push(Worker { thread, away });
        }
        Ok(ready_threads)
    }

    /// Gives each thread one of `jobs`.
    pub(crate) fn start<J: FnOnce(&Away) + Send + 'static>(
        mut self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Workers {
        for (order, job) in self.orders.drain(..).zip(jobs) {
            // Fails only if the thread has ended, which it does after its job and not before.
            let _ = order.send(Box::new(job));
        }
        Workers(std::mem::take(&mut self.threads))
    }
}

impl Drop for ReadyThreads {
    fn drop(&mut self) {
        self.orders.clear();
        for worker in self.threads.drain(..) {
            sys::join(worker.thread);
        }
    }
}

/// Threads with jobs.
#[derive(Debug, Default)]
pub(crate) struct Workers(Vec<Worker>);

impl Workers {
    /// Waits for their ends, after that of their [`Tenure`] was announced. Past the
    /// deadline one that is [`Away`] is left to itself: its handler does not come back. One that is not is
    /// waited for, as it may be about to take something; that takes it a few instructions.
    ///
    /// This very thread, if its handler is what ends the server, stays for the next call. How many such
    /// there are.
    fn join(&mut self, deadline: &Deadline) -> u64 {
        let (own, others): (Vec<_>, Vec<_>) =
            self.0.drain(..).partition(|worker| sys::is_this_thread(&worker.thread));
        self.0 = own;
        for Worker { thread, away } in others {
            let is_left = || deadline.left().is_zero() && away.is_away();
            while !thread.is_finished() && !is_left() {
                sys::sleep(LOOK);
            }
            if thread.is_finished() {
                sys::join(thread);
            }
        }
        self.0.len() as u64
    }
}

/// What a server has, in either version, until background threads have it.
#[derive(Debug)]
pub(crate) struct Background<T> {
    name: String,
    /// What takes its requests; `None` once the threads have it, or after the end.
    taker: Option<T>,
    workers: Workers,
    stop_timeout: Duration,
    fork_generation: u32,
}

impl<T> Background<T> {
    pub(crate) fn new(name: &str, taker: T, stop_timeout: Duration) -> Self {
        Self {
            name: name.to_owned(),
            taker: Some(taker),
            workers: Workers::default(),
            stop_timeout,
            fork_generation: sys::fork_generation(),
        }
    }

    /// The server's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What takes requests, if no thread has it.
    #[inline]
    pub(crate) fn taker(&mut self) -> Option<&mut T> {
        self.taker.as_mut()
    }

    /// That of the process that it belongs to.
    pub(crate) fn fork_generation(&self) -> u32 {
        self.fork_generation
    }

    /// # Errors
    /// `WrongProcess` in a forked child.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        match self.fork_generation == sys::fork_generation() {
            true => Ok(()),
            false => Err(Error::WrongProcess),
        }
    }

    /// Gives `count` threads what takes requests, as `start` says.
    ///
    /// # Errors
    /// `WrongProcess`; `InvalidState` if they, or the end, had it before; `System` if a thread cannot be made.
    pub(crate) fn start(
        &mut self,
        count: usize,
        start: impl FnOnce(ReadyThreads, T) -> Workers,
    ) -> Result<()> {
        self.check_process()?;
        let ready_threads = ReadyThreads::gather(&format!("zerobuffer-{}", self.name), count)?;
        let taker = self.taker.take().ok_or(Error::InvalidState {
            reason: "the server was started or stopped before; create another one",
        })?;
        self.workers = start(ready_threads, taker);
        Ok(())
    }

    /// Whether a thread serves.
    pub(crate) fn is_running(&self) -> bool {
        self.workers.0.iter().any(|worker| !worker.thread.is_finished())
    }

    /// Until when a handler that runs now is waited for.
    pub(crate) fn stop_deadline(&self) -> Deadline {
        Deadline::after(self.stop_timeout)
    }

    /// Takes no requests any more: see [`Workers::join`].
    pub(crate) fn end(&mut self, deadline: &Deadline) -> u64 {
        self.taker = None;
        self.workers.join(deadline)
    }
}

/// Whether a server goes on after `error`, which kept one of its threads from taking a request or from making
/// what the next client is to find. If not, the tenure has ended.
pub(crate) fn goes_on<T: Clone>(tenure: &Tenure<T>, error: Error) -> bool {
    match error {
        _ if tenure.is_over() => false,
        // That client is not served any more; the next one is.
        Error::ProtocolViolation { .. } => true,
        // The name is another's.
        Error::AlreadyRunning { .. } | Error::ForeignObject { .. } | Error::WrongProcess => {
            crate::trace::event!(%error, "server stopped");
            tenure.fail(error);
            false
        }
        // It cannot be created now: memory or descriptors are short.
        _ => {
            sys::sleep(RETRY);
            true
        }
    }
}
