//! What is left of a client's connection on the server: it ends on a thread of its own, since giving memory
//! back and closing what a peer had a hand in can take long.

use super::bell::Bell;
use crate::atomics::{AtomicBool, AtomicU64, Ordering};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::memory::SharedMemoryView;
use crate::sys::{self, Foreign, Socket};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The server's end of a connection. When the last request of it is dropped its parts go to the
/// [`Undertaker`].
#[derive(Debug)]
pub(crate) struct Estate {
    /// `None` only while this is dropped.
    bell: Option<Arc<Bell>>,
    memory: SharedMemoryView,
    /// Bytes that the segment has taken of the service's.
    size: u64,
    /// The client has ended: nobody reads the segment any more, though somebody may have it mapped.
    is_abandoned: AtomicBool,
    heir: Sender<Remains>,
    fork_generation: u32,
}

/// What is to be ended where it holds up nobody.
#[derive(Debug)]
pub(crate) enum Remains {
    /// What [`Estate`] leaves.
    Connection { bell: Option<Arc<Bell>>, memory: SharedMemoryView, size: u64, is_abandoned: bool },
    /// A socket that never got a segment, or that listened, and descriptors that came over it. `is_clean`: no others lie in
    /// it.
    Socket { socket: Socket, foreign: Option<Foreign>, is_clean: bool },
    /// A listener that others may share: it is not shut down.
    Given(Socket),
}

impl Estate {
    pub(crate) fn new(
        bell: Arc<Bell>,
        memory: SharedMemoryView,
        size: u64,
        heir: Sender<Remains>,
    ) -> Self {
        let (bell, is_abandoned) = (Some(bell), AtomicBool::new(false));
        Self { bell, memory, size, is_abandoned, heir, fork_generation: sys::fork_generation() }
    }

    /// WAKE, for the client.
    #[inline(always)]
    pub(crate) fn wake_client(&self) {
        if let Some(bell) = &self.bell {
            bell.wake_peer();
        }
    }

    /// Whether the client has not ended, asking the system.
    pub(crate) fn has_client(&self) -> bool {
        self.bell.as_ref().is_some_and(|bell| !bell.probe())
    }

    /// The client has ended, so its memory is freed, even if a process keeps it mapped.
    pub(crate) fn abandon(&self) {
        // Release: pairs with the Acquire in `drop`.
        self.is_abandoned.store(true, Ordering::Release);
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        if self.fork_generation != sys::fork_generation() {
            // In a forked child nothing of it is here, and the thread is not either.
            return;
        }
        let (bell, memory, size) = (self.bell.take(), self.memory.clone(), self.size);
        // Acquire: pairs with the Release in `abandon`.
        let is_abandoned = self.is_abandoned.load(Ordering::Acquire);
        self.memory = SharedMemoryView::empty();
        // Fails only after the end of the service, and then drops them here.
        let _ = self.heir.send(Remains::Connection { bell, memory, size, is_abandoned });
    }
}

/// The threads that end connections: one for memory and sockets, and one for descriptors of peers, which take as long to
/// close as a peer wishes. So that nothing else waits for that.
#[derive(Debug)]
pub(crate) struct Undertaker {
    heir: Sender<Remains>,
    thread: JoinHandle<()>,
}

impl Undertaker {
    /// Of the service `name`. `used` is what all segments have taken together, of which each end gives its part back.
    pub(crate) fn start(name: &str, used: &Arc<AtomicU64>) -> Result<Self> {
        let (heir, remains) = channel::<Remains>();
        let (closer, to_close) = channel::<Foreign>();
        let used = Arc::clone(used);
        let closing = sys::spawn_behind(&format!("zb-closes-{name}"), move || {
            to_close.into_iter().for_each(Foreign::close);
        })?;
        let thread = sys::spawn_behind(&format!("zb-ends-{name}"), move || {
            for foreign in remains.into_iter().flat_map(|remains| end(remains, &used)) {
                // Never fails: that thread ends after this one.
                let _ = closer.send(foreign);
            }
            drop(closer);
            sys::join(closing);
        })?;
        Ok(Self { heir, thread })
    }

    pub(crate) fn heir(&self) -> Sender<Remains> {
        self.heir.clone()
    }

    /// The thread ends once all estates have ended and all is closed; it is not waited for here.
    pub(crate) fn dismiss(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Frees the memory and the socket; what a peer has sent over it is left.
fn end(remains: Remains, used: &AtomicU64) -> Vec<Foreign> {
    match remains {
        Remains::Connection { bell, memory, size, is_abandoned } => {
            if is_abandoned {
                memory.punch();
            }
            failpoint!("end.punched");
            drop(memory);
            used.fetch_sub(size, Ordering::Relaxed);
            bell.and_then(Arc::into_inner).map(|mut bell| bell.take_foreign()).unwrap_or_default()
        }
        Remains::Socket { socket, foreign, is_clean } => {
            socket.shut_down();
            let mut all = if is_clean { Vec::new() } else { socket.drain() };
            all.extend(foreign);
            all
        }
        Remains::Given(listener) => {
            listener.close();
            Vec::new()
        }
    }
}
