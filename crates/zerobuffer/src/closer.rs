//! Ending an object from another thread.

use std::fmt;
use std::sync::{Arc, Weak};

/// What a [`Closer`] closes.
pub(crate) trait Close: Send + Sync {
    /// Whether this is the process that has made it, without any lock. In one that was forked from that a closer touches
    /// nothing else of it, wherever the closer was made: its memory is not there, another file may have its
    /// descriptor's number, and a thread that does not exist may hold its locks.
    fn is_this_process(&self) -> bool;
    fn close(&self);
    fn is_closed(&self) -> bool;
}

/// Closes an object from any thread, while other threads wait inside of it.
///
/// Every object that can wait hands one out: [`Client`](crate::Client::closer),
/// [`SharedClient`](crate::SharedClient::closer), [`Server`](crate::Server::closer), and the readers,
/// writers, clients and servers of [`v1`](crate::v1). The object itself is freed as always, when it is
/// dropped; a closer does not keep it.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, ErrorKind, Server};
///
/// let name = format!("doc-closer-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// let closer = server.closer();
/// let received = std::thread::scope(|scope| {
///     let waiting = scope.spawn(|| server.receive(Duration::MAX).map(drop));
///     closer.close();
///     waiting.join().expect("does not panic")
/// });
/// assert_eq!(received.unwrap_err().kind(), ErrorKind::Closed);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct Closer {
    target: Weak<dyn Close>,
}

impl Closer {
    pub(crate) fn of<T: Close + 'static>(target: &Arc<T>) -> Self {
        let target: Weak<T> = Arc::downgrade(target);
        Self { target }
    }

    /// Closes the object for good: every thread that waits inside of it comes back at once, and that
    /// call and every later one that could wait fails with [`Error::Closed`](crate::Error::Closed). The
    /// object releases its part of the channel when it is dropped.
    ///
    /// It does nothing when called again, after the object was dropped, or in a forked child.
    pub fn close(&self) {
        if let Some(target) = self.target.upgrade()
            && target.is_this_process()
        {
            target.close();
        }
    }

    /// Whether the object was closed or dropped. In a forked child, where none can be used: true.
    pub fn is_closed(&self) -> bool {
        self.target.upgrade().is_none_or(|target| !target.is_this_process() || target.is_closed())
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closer").field("is_closed", &self.is_closed()).finish()
    }
}
