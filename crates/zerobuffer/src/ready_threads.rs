//! Threads that exist before their work does: a server whose threads cannot be made is as it was.

use crate::error::Result;
use crate::sys;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for their jobs; dropped without jobs, they end.
#[derive(Debug)]
pub(crate) struct ReadyThreads {
    orders: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadyThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// `System` if one cannot be made; those that were are gone again.
    pub(crate) fn gather(name: &str, count: usize) -> Result<Self> {
        let mut ready_threads = Self { orders: Vec::new(), threads: Vec::new() };
        for _ in 0..count {
            let (order, ordered) = channel::<Job>();
            let thread = sys::spawn(name, move || {
                if let Ok(job) = ordered.recv() {
                    job();
                }
            })?;
            ready_threads.orders.push(order);
            ready_threads.threads.push(thread);
        }
        Ok(ready_threads)
    }

    /// Gives each thread one of `jobs`.
    pub(crate) fn start<J: FnOnce() + Send + 'static>(
        mut self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Vec<JoinHandle<()>> {
        for (order, job) in self.orders.drain(..).zip(jobs) {
            // Fails only if the thread is gone, which ends with its job and not before.
            let _ = order.send(Box::new(job));
        }
        std::mem::take(&mut self.threads)
    }
}

impl Drop for ReadyThreads {
    fn drop(&mut self) {
        self.orders.clear();
        for thread in self.threads.drain(..) {
            crate::sys::join(thread);
        }
    }
}
