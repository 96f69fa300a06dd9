//! The background threads of servers, of both versions.
//!
//! They exist before their work does: a server whose threads cannot be started is unchanged.

use crate::error::Result;
use crate::sys;
use crate::tenure::Away;
use crate::wait::Deadline;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two checks whether a thread has ended.
pub(crate) const LOOK: Duration = Duration::from_micros(200);

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
    /// Whether one of them is at work.
    pub(crate) fn are_running(&self) -> bool {
        self.0.iter().any(|worker| !worker.thread.is_finished())
    }

    /// Waits for their ends, after that of their [`Tenure`](crate::tenure::Tenure) was announced. Past the
    /// deadline one that is [`Away`] is left to itself: its handler does not come back. One that is not is
    /// waited for, as it may be about to take something; that takes it a few instructions.
    ///
    /// This very thread, if its handler is what ends the server, stays for the next call. How many such
    /// there are.
    pub(crate) fn join(&mut self, deadline: &Deadline) -> u64 {
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
