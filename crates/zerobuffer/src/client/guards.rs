//! What a client holds in its hands: a buffer to fill, a response to read.

use super::channel::ClientChannel;
use super::shared::Turn;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::memory::SharedMemoryView;
use crate::v2::ring::{Claim, Held};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// Makes a type stay on its thread.
type NotSend = PhantomData<*const ()>;

/// A request that is being written in place. [`commit`](Self::commit) sends it; dropping it sends
/// nothing.
///
/// Its bytes hold whatever was there before: write all of them, or [`resize`](Self::resize) to what
/// was written.
pub struct RequestBuffer<'c> {
    channel: &'c Arc<ClientChannel>,
    /// `None` once committed.
    claim: Option<Claim>,
    len: u64,
    not_send: NotSend,
}

debug_line!(RequestBuffer<'_>, "RequestBuffer", |buffer| len: buffer.len);

impl<'c> RequestBuffer<'c> {
    #[inline]
    pub(super) fn new(channel: &'c Arc<ClientChannel>, claim: Claim, len: u64) -> Self {
        Self { channel, claim: Some(claim), len, not_send: PhantomData }
    }

    /// The same buffer, free of the client's borrow: it may move to any thread, and outlive the
    /// client. Nothing is copied.
    pub fn into_owned(self) -> OwnedRequestBuffer {
        // It is committed on any thread from now on.
        self.channel.ring().set_concurrent();
        let mut this = ManuallyDrop::new(self);
        let channel = Arc::clone(this.channel);
        OwnedRequestBuffer { channel, claim: this.claim.take(), len: this.len, _turn: None }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Closed`] if the client was closed meanwhile; [`Error::WrongProcess`] in a forked child.
    /// Nothing was sent then.
    #[inline]
    pub fn commit(mut self) -> Result<u64> {
        self.channel.check()?;
        let claim = self.claim.take().ok_or(Error::WrongProcess)?;
        Ok(self.channel.commit(claim, self.len).for_caller())
    }
}

impl Drop for RequestBuffer<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.channel.ring().abandon(claim);
        }
    }
}

/// As [`RequestBuffer`], but it may move to any thread and outlive the client that it came from.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, Client, Frame, Server};
///
/// let name = format!("doc-owned-{}", std::process::id());
/// let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
/// server.start(|frame: &mut Frame| frame.data_mut().make_ascii_uppercase())?;
///
/// let client = Client::connect(&name, Duration::from_secs(5))?;
/// let mut buffer = client.acquire_request_buffer(5)?.into_owned();
/// let sequence = std::thread::spawn(move || {
///     buffer.data_mut().copy_from_slice(b"hello");
///     buffer.commit()
/// });
/// let sequence = sequence.join().expect("does not panic")?;
/// assert_eq!(client.receive_response_for(sequence, Duration::from_secs(5))?.data(), b"HELLO");
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct OwnedRequestBuffer {
    channel: Arc<ClientChannel>,
    /// `None` once committed.
    claim: Option<Claim>,
    len: u64,
    /// Keeps other threads of a shared client from sending; given back after the claim.
    _turn: Option<Turn>,
}

debug_line!(OwnedRequestBuffer, "OwnedRequestBuffer", |buffer| len: buffer.len);

impl OwnedRequestBuffer {
    pub(super) fn new(channel: Arc<ClientChannel>, claim: Claim, len: u64, turn: Turn) -> Self {
        Self { channel, claim: Some(claim), len, _turn: Some(turn) }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Closed`] if the client was closed meanwhile, [`Error::InvalidState`] if it has
    /// reconnected; [`Error::WrongProcess`] in a forked child. Nothing was sent then.
    pub fn commit(mut self) -> Result<u64> {
        self.channel.segment.check_process()?;
        match self.claim.take() {
            Some(claim) => Ok(self.channel.commit_unless_sealed(claim, self.len)?.for_caller()),
            None => Err(Error::WrongProcess),
        }
    }
}

impl Drop for OwnedRequestBuffer {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.channel.ring().abandon(claim);
        }
    }
}

macro_rules! request_buffer_methods {
    ($type:ty) => {
        impl $type {
            /// The request's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data_mut(&mut self) -> &mut [u8] {
                match &mut self.claim {
                    Some(claim) if self.channel.segment.is_this_process() => {
                        claim.data_mut(&self.channel.segment.payload, self.len)
                    }
                    _ => &mut [],
                }
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// commit: for code that hands out their address, like a binding for another language.
            /// They are the holder's alone only until then. Empty in a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                match &self.claim {
                    Some(claim) if self.channel.segment.is_this_process() => {
                        self.channel.segment.payload.window(claim.data_start(), self.len)
                    }
                    _ => SharedMemoryView::empty(),
                }
            }

            /// The sequence number that the request gets when it is committed.
            pub fn sequence(&self) -> u64 {
                self.channel.next_number().for_caller()
            }

            /// The request's length in bytes.
            #[inline]
            pub fn len(&self) -> usize {
                self.len as usize
            }

            /// Whether the request has no bytes.
            pub fn is_empty(&self) -> bool {
                self.len == 0
            }

            /// The most bytes that request or response may have.
            #[inline]
            pub fn capacity(&self) -> usize {
                self.claim.as_ref().map_or(0, Claim::capacity) as usize
            }

            /// Changes the request's length. Bytes beyond the former length hold whatever was there
            /// before.
            ///
            /// # Errors
            /// [`Error::TooLarge`] beyond [`capacity`](Self::capacity).
            pub fn resize(&mut self, len: usize) -> Result<()> {
                let max = self.capacity();
                if len > max {
                    return Err(Error::TooLarge {
                        what: "a resized request",
                        asked: len as u64,
                        max: max as u64,
                    });
                }
                self.len = len as u64;
                Ok(())
            }
        }
    };
}

request_buffer_methods!(RequestBuffer<'_>);
request_buffer_methods!(OwnedRequestBuffer);

/// An answer, read where the server left it. Its bytes go back to the ring when it is dropped.
///
/// Several can be held at the same time, and dropped in any order. A response stays on the thread
/// that received it, which keeps giving it back free of locked instructions;
/// [`into_owned`](Self::into_owned) makes one that may go anywhere.
pub struct Response<'c> {
    channel: &'c Arc<ClientChannel>,
    held: Held,
    not_send: NotSend,
}

debug_line!(Response<'_>, "Response", |response|
    sequence: response.sequence(),
    len: response.data().len()
);

impl<'c> Response<'c> {
    #[inline]
    pub(super) fn new(channel: &'c Arc<ClientChannel>, held: Held) -> Self {
        Self { channel, held, not_send: PhantomData }
    }

    /// The same response, free of the client's borrow: it may move to any thread, and outlive the
    /// client. Nothing is copied; the bytes stay where they are.
    pub fn into_owned(self) -> OwnedResponse {
        // Giving back happens on any thread from now on.
        self.channel.ring().set_concurrent();
        let mut this = ManuallyDrop::new(self);
        OwnedResponse { channel: Arc::clone(this.channel), held: this.held.transfer() }
    }
}

impl Drop for Response<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.release(&self.held);
    }
}

/// As [`Response`], but it may move to any thread and outlive the client that received it.
pub struct OwnedResponse {
    channel: Arc<ClientChannel>,
    held: Held,
}

debug_line!(OwnedResponse, "OwnedResponse", |response|
    sequence: response.sequence(),
    len: response.data().len()
);

impl OwnedResponse {
    /// `channel` must be concurrent.
    #[inline]
    pub(super) fn new(channel: Arc<ClientChannel>, held: Held) -> Self {
        debug_assert!(channel.ring().is_concurrent());
        Self { channel, held }
    }
}

impl Drop for OwnedResponse {
    fn drop(&mut self) {
        self.channel.release(&self.held);
    }
}

macro_rules! response_methods {
    ($type:ty) => {
        impl $type {
            /// The answer's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data(&self) -> &[u8] {
                if self.channel.segment.is_this_process() {
                    self.held.data(&self.channel.segment.payload)
                } else {
                    &[]
                }
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// response was given back: for code that hands out their address, like a binding for
            /// another language. They are the holder's alone only while the response lives. Empty in
            /// a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                match self.channel.segment.is_this_process() {
                    true => {
                        let payload = &self.channel.segment.payload;
                        payload.window(self.held.data_start(), self.held.len)
                    }
                    false => SharedMemoryView::empty(),
                }
            }

            /// The answer's length in bytes.
            #[inline]
            pub fn len(&self) -> usize {
                self.held.len as usize
            }

            /// Whether the answer has no bytes.
            #[inline]
            pub fn is_empty(&self) -> bool {
                self.held.len == 0
            }

            /// The sequence number of the request that this is the answer to.
            #[inline]
            pub fn sequence(&self) -> u64 {
                self.channel.number_of(&self.held).for_caller()
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                self.data()
            }
        }
    };
}

response_methods!(Response<'_>);
response_methods!(OwnedResponse);
