//! What a client holds in its hands: a buffer to fill, a response to read.

use super::channel::ClientChannel;
use super::shared::Turn;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::memory::SharedMemoryView;
use crate::v1;
use crate::v2::ring::{Claim, Held};
use std::borrow::Borrow;
use std::marker::PhantomData;
use std::sync::Arc;

/// Makes a type stay on its thread.
type NotSend = PhantomData<*const ()>;

/// The bytes of a request that is being written in place, of a channel of either kind. `C` leads to the
/// in-place channel.
enum Filling<C: Borrow<Arc<ClientChannel>>> {
    InPlace(Slot<C>),
    TwoBuffers(v1::Filling),
}

struct Slot<C: Borrow<Arc<ClientChannel>>> {
    channel: C,
    /// `None` once committed.
    claim: Option<Claim>,
    len: u64,
}

impl<C: Borrow<Arc<ClientChannel>>> Drop for Slot<C> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            let channel = self.channel.borrow();
            channel.ring().abandon(claim);
            channel.claim_ended();
        }
    }
}

impl<C: Borrow<Arc<ClientChannel>>> Filling<C> {
    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(Slot { channel, claim: Some(claim), len }) => {
                let segment = &(*channel).borrow().segment;
                match segment.is_this_process() {
                    true => claim.data_mut(&segment.payload, *len),
                    false => &mut [],
                }
            }
            Self::InPlace(_) => &mut [],
            Self::TwoBuffers(filling) => filling.data_mut(),
        }
    }

    fn memory(&self) -> SharedMemoryView {
        match self {
            Self::InPlace(slot) => {
                let segment = &slot.channel.borrow().segment;
                match &slot.claim {
                    Some(claim) if segment.is_this_process() => {
                        segment.payload.window(claim.data_start(), slot.len)
                    }
                    _ => SharedMemoryView::empty(),
                }
            }
            Self::TwoBuffers(filling) => filling.memory(),
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::InPlace(slot) => slot.channel.borrow().next_number().for_caller(),
            Self::TwoBuffers(filling) => filling.number(),
        }
    }

    #[inline]
    fn len(&self) -> u64 {
        match self {
            Self::InPlace(slot) => slot.len,
            Self::TwoBuffers(filling) => filling.len(),
        }
    }

    #[inline]
    fn capacity(&self) -> u64 {
        match self {
            Self::InPlace(slot) => slot.claim.as_ref().map_or(0, Claim::capacity),
            Self::TwoBuffers(filling) => filling.len(),
        }
    }

    fn resize(&mut self, len: usize) -> Result<()> {
        let (asked, max) = (len as u64, self.capacity());
        match self {
            Self::InPlace(slot) if asked <= max => {
                slot.len = asked;
                Ok(())
            }
            Self::InPlace(_) => Err(Error::TooLarge { what: "a resized request", asked, max }),
            Self::TwoBuffers(filling) if asked == filling.len() => Ok(()),
            Self::TwoBuffers(_) => Err(v1::SAME_LENGTH),
        }
    }
}

macro_rules! request_buffer_methods {
    ($type:ty, $name:literal) => {
        debug_line!($type, $name, |buffer| len: buffer.len());

        impl $type {
            /// The request's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data_mut(&mut self) -> &mut [u8] {
                self.filling.data_mut()
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// commit: for code that hands out their address, like a binding for another language.
            /// They are the holder's alone only until then. Empty in a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                self.filling.memory()
            }

            /// The sequence number that the request gets when it is committed.
            pub fn sequence(&self) -> u64 {
                self.filling.sequence()
            }

            /// The request's length in bytes.
            #[inline]
            pub fn len(&self) -> usize {
                self.filling.len() as usize
            }

            /// Whether the request has no bytes.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The most bytes that the request may have; in place, the response as well.
            #[inline]
            pub fn capacity(&self) -> usize {
                self.filling.capacity() as usize
            }

            /// Changes the request's length. Bytes beyond the previous length hold whatever was there
            /// before.
            ///
            /// # Errors
            /// [`Error::TooLarge`] beyond [`capacity`](Self::capacity); [`Error::InvalidState`] over two
            /// buffers, whose frames keep the length that they were acquired with.
            pub fn resize(&mut self, len: usize) -> Result<()> {
                self.filling.resize(len)
            }
        }
    };
}

/// A request that is being written in place. [`commit`](Self::commit) sends it; dropping it sends
/// nothing.
///
/// Its bytes hold whatever was there before: write all of them, or [`resize`](Self::resize) to what
/// was written.
pub struct RequestBuffer<'c> {
    filling: Filling<&'c Arc<ClientChannel>>,
    not_send: NotSend,
}

request_buffer_methods!(RequestBuffer<'_>, "RequestBuffer");

impl<'c> RequestBuffer<'c> {
    #[inline]
    pub(super) fn new(channel: &'c Arc<ClientChannel>, claim: Claim, len: u64) -> Self {
        let slot = Slot { channel, claim: Some(claim), len };
        Self { filling: Filling::InPlace(slot), not_send: PhantomData }
    }

    pub(super) fn of_two_buffers(filling: v1::Filling) -> Self {
        Self { filling: Filling::TwoBuffers(filling), not_send: PhantomData }
    }

    /// The same buffer, free of the client's borrow: it may move to any thread, and outlive the
    /// client. Nothing is copied.
    pub fn into_owned(self) -> OwnedRequestBuffer {
        let filling = match self.filling {
            Filling::InPlace(mut slot) => {
                // It is committed on any thread from now on.
                slot.channel.ring().set_concurrent();
                let (channel, claim) = (Arc::clone(slot.channel), slot.claim.take());
                Filling::InPlace(Slot { channel, claim, len: slot.len })
            }
            Filling::TwoBuffers(filling) => Filling::TwoBuffers(filling),
        };
        OwnedRequestBuffer { filling, _turn: None }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Closed`] if the client was closed meanwhile; over two buffers [`Error::PeerClosed`] if the
    /// server was; [`Error::WrongProcess`] in a forked child. Nothing was sent then.
    #[inline]
    pub fn commit(self) -> Result<u64> {
        match self.filling {
            Filling::InPlace(mut slot) => {
                slot.channel.check()?;
                let claim = slot.claim.take().ok_or(Error::WrongProcess)?;
                Ok(slot.channel.commit(claim, slot.len).for_caller())
            }
            Filling::TwoBuffers(filling) => filling.commit(false),
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
    filling: Filling<Arc<ClientChannel>>,
    /// Keeps other threads of a shared client from sending; released after the claim.
    _turn: Option<Turn>,
}

request_buffer_methods!(OwnedRequestBuffer, "OwnedRequestBuffer");

impl OwnedRequestBuffer {
    pub(super) fn new(channel: Arc<ClientChannel>, claim: Claim, len: u64, turn: Turn) -> Self {
        let slot = Slot { channel, claim: Some(claim), len };
        Self { filling: Filling::InPlace(slot), _turn: Some(turn) }
    }

    pub(super) fn of_two_buffers(filling: v1::Filling, turn: Turn) -> Self {
        Self { filling: Filling::TwoBuffers(filling), _turn: Some(turn) }
    }

    /// Sends the request, and returns its sequence number.
    ///
    /// # Errors
    /// As [`RequestBuffer::commit`]; [`Error::InvalidState`] if the client has reconnected. Nothing was sent
    /// then.
    pub fn commit(self) -> Result<u64> {
        let Self { filling, _turn } = self;
        match filling {
            Filling::InPlace(mut slot) => {
                slot.channel.segment.check_process()?;
                let claim = slot.claim.take().ok_or(Error::WrongProcess)?;
                let committed = slot.channel.commit_unless_sealed(claim, slot.len);
                slot.channel.claim_ended();
                Ok(committed?.for_caller())
            }
            Filling::TwoBuffers(filling) => filling.commit(false),
        }
    }
}

/// The bytes of a response, of a channel of either kind. `C` leads to the in-place channel.
enum Bytes<C: Borrow<Arc<ClientChannel>>> {
    InPlace(HeldSlot<C>),
    /// Behind a pointer, so that it makes neither a response nor the code that drops one any larger: the
    /// release of an in-place response is inlined.
    TwoBuffers(Arc<v1::OwnedFrameView>),
}

struct HeldSlot<C: Borrow<Arc<ClientChannel>>> {
    channel: C,
    held: Held,
}

impl<C: Borrow<Arc<ClientChannel>>> Drop for HeldSlot<C> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.borrow().release(&self.held);
    }
}

impl<C: Borrow<Arc<ClientChannel>>> Bytes<C> {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        match self {
            Self::InPlace(HeldSlot { channel, held }) => {
                let segment = &channel.borrow().segment;
                if segment.is_this_process() { held.data(&segment.payload) } else { &[] }
            }
            Self::TwoBuffers(frame) => frame.data(),
        }
    }

    fn memory(&self) -> SharedMemoryView {
        match self {
            Self::InPlace(HeldSlot { channel, held }) => {
                let segment = &channel.borrow().segment;
                match segment.is_this_process() {
                    true => segment.payload.window(held.data_start(), held.len),
                    false => SharedMemoryView::empty(),
                }
            }
            Self::TwoBuffers(frame) => frame.memory(),
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match self {
            Self::InPlace(slot) => slot.held.len as usize,
            Self::TwoBuffers(frame) => frame.len(),
        }
    }

    #[inline(always)]
    fn sequence(&self) -> u64 {
        match self {
            Self::InPlace(slot) => slot.channel.borrow().number_of(&slot.held).for_caller(),
            Self::TwoBuffers(frame) => frame.sequence(),
        }
    }
}

macro_rules! response_methods {
    ($type:ty, $name:literal) => {
        debug_line!($type, $name, |response|
            sequence: response.sequence(),
            len: response.data().len()
        );

        impl $type {
            /// The response's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data(&self) -> &[u8] {
                self.bytes.data()
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// response was released: for code that hands out their address, like a binding for
            /// another language. They are the holder's alone only while the response lives. Empty in
            /// a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                self.bytes.memory()
            }

            /// The response's length in bytes.
            #[inline]
            pub fn len(&self) -> usize {
                self.bytes.len()
            }

            /// Whether the response has no bytes.
            #[inline]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The sequence number of the request that this is the response to.
            #[inline]
            pub fn sequence(&self) -> u64 {
                self.bytes.sequence()
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                self.data()
            }
        }
    };
}

/// A response, read where the server left it. Its bytes are released when it is dropped.
///
/// Several can be held at the same time, and dropped in any order. A response stays on the thread
/// that received it, which keeps its release free of locked instructions;
/// [`into_owned`](Self::into_owned) makes one that may go anywhere.
pub struct Response<'c> {
    bytes: Bytes<&'c Arc<ClientChannel>>,
    not_send: NotSend,
}

response_methods!(Response<'_>, "Response");

// One word for the channel, four for the slot: what bindings keep in a structure of a fixed size.
const _: () = assert!(size_of::<Response<'_>>() <= 40 && size_of::<OwnedResponse>() <= 40);

impl<'c> Response<'c> {
    #[inline(always)]
    pub(super) fn new(channel: &'c Arc<ClientChannel>, held: Held) -> Self {
        Self { bytes: Bytes::InPlace(HeldSlot { channel, held }), not_send: PhantomData }
    }

    pub(super) fn of_two_buffers(frame: v1::OwnedFrameView) -> Self {
        Self { bytes: Bytes::TwoBuffers(Arc::new(frame)), not_send: PhantomData }
    }

    /// The same response, free of the client's borrow: it may move to any thread, and outlive the
    /// client. Nothing is copied; the bytes stay where they are.
    pub fn into_owned(self) -> OwnedResponse {
        match self.bytes {
            Bytes::InPlace(slot) => {
                // It is released on any thread from now on.
                slot.channel.ring().set_concurrent();
                let mut slot = std::mem::ManuallyDrop::new(slot);
                OwnedResponse::new(Arc::clone(slot.channel), slot.held.transfer())
            }
            Bytes::TwoBuffers(frame) => OwnedResponse { bytes: Bytes::TwoBuffers(frame) },
        }
    }
}

/// As [`Response`], but it may move to any thread and outlive the client that received it.
pub struct OwnedResponse {
    bytes: Bytes<Arc<ClientChannel>>,
}

response_methods!(OwnedResponse, "OwnedResponse");

impl OwnedResponse {
    /// `channel` must be concurrent.
    #[inline]
    pub(super) fn new(channel: Arc<ClientChannel>, held: Held) -> Self {
        debug_assert!(channel.ring().is_concurrent());
        Self { bytes: Bytes::InPlace(HeldSlot { channel, held }) }
    }

    pub(super) fn of_two_buffers(frame: v1::OwnedFrameView) -> Self {
        Self { bytes: Bytes::TwoBuffers(Arc::new(frame)) }
    }
}
