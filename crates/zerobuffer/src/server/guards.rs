//! What a server holds in its hands: a frame to edit, a request to answer.

use super::connection::Connection;
use super::identity::ClientIdentity;
use crate::debug::debug_line;
use crate::error::{Error, Result, shortened};
use crate::handler::catch;
use crate::memory::SharedMemoryView;
use crate::v2::ring::Taken;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Failure codes in a response's status word (protocol v2, section 5.5 "Status of a response").
pub(super) mod status {
    pub(crate) const OK: u16 = 0;
    pub(crate) const HANDLER_ERROR: u16 = 1;
    pub(crate) const HANDLER_PANIC: u16 = 2;
    pub(crate) const DROPPED: u16 = 3;
}

/// The segment that a frame lies in: borrowed from the server, or kept alive by the frame.
#[derive(Debug)]
enum Home<'s> {
    Borrowed(&'s Arc<Connection>),
    Kept(Arc<Connection>),
}

impl Home<'_> {
    fn keep(&self) -> Arc<Connection> {
        match self {
            Self::Borrowed(connection) => Arc::clone(connection),
            Self::Kept(connection) => Arc::clone(connection),
        }
    }
}

impl Deref for Home<'_> {
    type Target = Connection;

    #[inline]
    fn deref(&self) -> &Connection {
        match self {
            Self::Borrowed(connection) => connection,
            Self::Kept(connection) => connection,
        }
    }
}

/// A request in the server's hands: its bytes, in shared memory, to be edited in place. What they are
/// when the handler returns is the response.
pub struct Frame<'s> {
    home: Home<'s>,
    taken: Taken,
    len: u64,
    answered: bool,
}

debug_line!(Frame<'_>, "Frame", |frame| sequence: frame.sequence(), len: frame.len());

impl<'s> Frame<'s> {
    #[inline]
    pub(super) fn new(connection: &'s Arc<Connection>, taken: Taken) -> Self {
        Self { len: taken.len, home: Home::Borrowed(connection), taken, answered: false }
    }

    /// The same frame, free of the borrow; to be moved out of a guard that is forgotten right after.
    fn transfer(&mut self) -> Frame<'static> {
        // Responses are published by any thread from now on.
        self.home.ring.set_concurrent();
        let home = Home::Kept(self.home.keep());
        Frame { home, taken: self.taken.transfer(), len: self.len, answered: false }
    }

    /// The bytes; empty in a forked child.
    #[inline]
    pub fn data(&self) -> &[u8] {
        if self.home.segment.is_this_process() {
            self.taken.data(&self.home.segment.payload, self.len)
        } else {
            &[]
        }
    }

    /// The bytes, to be edited; empty in a forked child.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        if self.home.segment.is_this_process() {
            self.taken.data_mut(&self.home.segment.payload, self.len)
        } else {
            &mut []
        }
    }

    /// The bytes as memory that stays mapped for as long as the view lives, even after the frame was
    /// answered: for code that hands out their address, like a binding for another language. They are
    /// the holder's alone only while the frame lives. Empty in a forked child.
    pub fn memory(&self) -> SharedMemoryView {
        match self.home.segment.is_this_process() {
            true => self.home.segment.payload.window(self.taken.data_start(), self.len),
            false => SharedMemoryView::empty(),
        }
    }

    /// The length in bytes: the request's, until it is changed for the response.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most bytes that the response can have. At least the request's length, rounded up as slots
    /// are; more if the client asked for it.
    pub fn capacity(&self) -> usize {
        self.taken.capacity() as usize
    }

    /// Changes the length; bytes that are added are zero.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`capacity`](Self::capacity), and nothing is changed.
    pub fn resize(&mut self, len: usize) -> Result<()> {
        let previous = self.len();
        if len > self.capacity() {
            return Err(Error::TooLarge {
                what: "a resized response",
                asked: len as u64,
                max: self.capacity() as u64,
            });
        }
        self.len = len as u64;
        if let Some(added) = self.data_mut().get_mut(previous..) {
            added.fill(0);
        }
        Ok(())
    }

    /// The request's sequence number; its response carries the same one.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.taken.sequence
    }

    /// The metadata of the client that sent it; empty if it has none.
    pub fn metadata(&self) -> &[u8] {
        self.home.client_metadata()
    }

    /// Who sent it; `None` on a channel, whose one client needs no telling from others.
    pub fn client(&self) -> Option<&ClientIdentity> {
        self.home.client()
    }

    /// Whether nobody gets the response any more: the client has cancelled the request or its call's timeout
    /// has passed, or the client has closed or died. Once true it stays true.
    ///
    /// Ask between two pieces of long work, and return (or fail, it makes no difference) when it is true: the
    /// thread is free for the next request. Whatever is given as a response then reaches nobody. It costs a
    /// system call, some 300 ns.
    ///
    /// A server that is being stopped still delivers the response, so this stays false: finish it, or
    /// [`fail`](OwnedRequest::fail) the request (in a handler, return an error). To learn early that the server
    /// stops, give the handler a [`Closer`](crate::Closer) of its server and ask
    /// [`is_closed`](crate::Closer::is_closed). Only when the stop's time is up
    /// ([`ServerConfig::stop_timeout`](crate::ServerConfig::stop_timeout)), and the client is told that the
    /// request is in doubt, is this true as well: a later response is not delivered.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, Client, ErrorKind, Frame, Server};
    ///
    /// let name = format!("doc-cancelled-{}", std::process::id());
    /// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    /// let (pieces, done) = channel();
    /// server.start_mut(move |frame: &mut Frame| {
    ///     let mut count = 0_u64;
    ///     while !frame.cancelled() {
    ///         count += 1; // a piece of long work
    ///         std::thread::yield_now();
    ///     }
    ///     let _ = pieces.send(count);
    /// })?;
    ///
    /// let mut client = Client::connect(&name, Duration::from_secs(5))?;
    /// let error = client.call(b"a large picture", Duration::from_millis(20)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// assert!(done.recv().expect("the handler has stopped working") > 0);
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn cancelled(&self) -> bool {
        // Nothing reaches the client from a forked child.
        !self.home.segment.is_this_process() || !self.home.is_wanted(&self.taken)
    }

    #[inline(always)]
    pub(super) fn publish(&mut self, status: u16) {
        self.answered = true;
        if self.home.segment.is_this_process() {
            self.home.answer(&self.taken, self.len, status);
        }
    }

    /// Answers with a failure: as much of `message` as fits the slot, with a mark if it was cut.
    pub(super) fn publish_failure(&mut self, status: u16, message: &str) {
        self.answered = true;
        publish_failure(&self.home, self.taken.transfer(), status, message);
    }
}

/// See [`Frame::publish_failure`].
#[cold]
fn publish_failure(connection: &Connection, mut taken: Taken, status: u16, message: &str) {
    if connection.segment.is_this_process() {
        let message = shortened(message, taken.capacity() as usize);
        let len = message.len() as u64;
        taken.data_mut(&connection.segment.payload, len).copy_from_slice(message.as_bytes());
        connection.count_failure();
        connection.answer(&taken, len, status);
    }
}

/// Takes the frame's parts and not the frame, which can stay in registers if nobody has its address.
#[cold]
fn publish_dropped(connection: &Connection, taken: Taken) {
    publish_failure(connection, taken, status::DROPPED, "the request was dropped unanswered");
}

/// A request that was taken with [`Server::receive`](super::Server::receive), to be answered.
///
/// It is a [`Frame`]: edit its bytes, then [`respond`](Self::respond) or [`fail`](Self::fail). If it is
/// dropped unanswered, the client's call fails at once.
pub struct Request<'s> {
    frame: Frame<'s>,
    /// Responses of this server are counted without locked instructions, on one thread.
    not_send: PhantomData<*const ()>,
}

debug_line!(Request<'_>, "Request", |request| sequence: request.sequence(), len: request.len());

impl<'s> Request<'s> {
    #[inline]
    pub(super) fn new(frame: Frame<'s>) -> Self {
        Self { frame, not_send: PhantomData }
    }

    /// The same request, free of the server's borrow: it may move to any thread, and be answered after
    /// others that came later. Nothing is copied.
    pub fn into_owned(self) -> OwnedRequest {
        let mut this = ManuallyDrop::new(self);
        OwnedRequest { frame: this.frame.transfer() }
    }
}

/// As [`Request`], but it may move to any thread and outlive the borrow of its server.
pub struct OwnedRequest {
    frame: Frame<'static>,
}

debug_line!(OwnedRequest, "OwnedRequest", |request|
    sequence: request.sequence(),
    len: request.len()
);

impl OwnedRequest {
    pub(super) fn new(connection: &Arc<Connection>, taken: Taken) -> Self {
        Self { frame: Frame::new(connection, taken).transfer() }
    }
}

macro_rules! request_methods {
    ([$($lifetime:lifetime)?] $type:ty => $frame:ty) => {
        impl $(<$lifetime>)? $type {
            /// Answers with the frame's bytes as they are now.
            #[inline(always)]
            pub fn respond(mut self) {
                self.frame.publish(status::OK);
            }

            /// Answers with a failure: the client gets
            /// [`Error::HandlerFailed`] with status 1 and as much of `message` as fits the slot.
            pub fn fail(mut self, message: &str) {
                self.frame.publish_failure(status::HANDLER_ERROR, message);
            }
        }

        impl $(<$lifetime>)? Deref for $type {
            type Target = $frame;

            #[inline]
            fn deref(&self) -> &Self::Target {
                &self.frame
            }
        }

        impl $(<$lifetime>)? DerefMut for $type {
            #[inline]
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.frame
            }
        }
    };
}

request_methods!(['s] Request<'s> => Frame<'s>);
request_methods!([] OwnedRequest => Frame<'static>);

impl Drop for Request<'_> {
    #[inline]
    fn drop(&mut self) {
        let Frame { home, taken, answered, .. } = &mut self.frame;
        if !*answered {
            publish_dropped(home, taken.transfer());
        }
    }
}

impl Drop for OwnedRequest {
    fn drop(&mut self) {
        if !self.frame.answered
            && let Some(frame) = keep_for_panic(self.frame.transfer())
        {
            publish_dropped(&frame.home, frame.taken);
        }
    }
}

thread_local! {
    /// While this thread runs a piece of a handler: the requests that a panic there has dropped.
    static DROPPED: RefCell<Option<Vec<Frame<'static>>>> = const { RefCell::new(None) };
}

/// Takes a frame that is being dropped unanswered, to be answered with the message of the panic that is
/// under way, if that is one of a task.
fn keep_for_panic(frame: Frame<'static>) -> Option<Frame<'static>> {
    let mut frame = Some(frame);
    if std::thread::panicking() {
        // Fails only where the thread is at its end, which no task is.
        let _ = DROPPED.try_with(|dropped| {
            if let Some(dropped) = &mut *dropped.borrow_mut() {
                dropped.extend(frame.take());
            }
        });
    }
    frame
}

/// Runs a piece of a handler; `None` if it panics. The requests that it drops thereby fail at their
/// client with the panic's message.
pub(super) fn guarded<T>(piece: impl FnOnce() -> T) -> Option<T> {
    let outer = DROPPED.replace(Some(Vec::new()));
    let outcome = catch(piece);
    let dropped = DROPPED.replace(outer).unwrap_or_default();
    // A panic that the handler has caught itself has taken its message with it.
    let message = outcome.as_ref().err().map_or("the handler panicked", String::as_str);
    for mut frame in dropped {
        frame.publish_failure(status::HANDLER_PANIC, message);
    }
    outcome.ok()
}
