//! The guard of bytes to fill: a request, or a version 1 frame.

use crate::error::{run, run_or, zb_status};
use crate::lender::Lender;
use crate::pointers::given;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{null_mut, with_exposed_provenance_mut};
use zerobuffer::{Client, Error, OwnedRequestBuffer, RequestBuffer, Result, v1};

/// Bytes in shared memory that are the caller's to fill; then `zb_buffer_commit` sends them, or
/// `zb_buffer_abandon` ends them. They hold whatever was there before: write all of them.
///
/// A handle has at most one open buffer, which belongs to the thread that may use the handle. That of a
/// client for many threads may be used on any thread and outlive the client; other threads that send
/// wait until it is committed or abandoned.
#[repr(C)]
pub struct zb_buffer {
    /// The first byte.
    pub data: *mut u8,
    /// Bytes to send: as asked for. A request may be made shorter, or longer up to `capacity`.
    pub len: usize,
    /// The most bytes that there is room for, here and for the response.
    pub capacity: usize,
    /// The library's.
    pub opaque: [u64; 2],
}

/// A client for one thread. Its buffer and its views borrow it.
pub(crate) type LocalClient = Lender<Client, RequestBuffer<'static>>;

/// A writer. Its buffer has it exclusively.
pub(crate) type LocalWriter = Lender<v1::Writer, v1::FrameBuffer<'static>>;

/// Whose buffer it is, in the first opaque word; the second one is an address.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Owner {
    /// Of a [`LocalClient`].
    Client = 0x7a62_2e62_7566_6331,
    /// Of a [`LocalWriter`].
    Writer = 0x7a62_2e62_7566_7731,
    /// Of a boxed [`OwnedRequestBuffer`]: a client for many threads has several.
    Boxed = 0x7a62_2e62_7566_6f31,
}

const NOT_OPEN: Error = Error::InvalidState { reason: "the buffer is not open" };

const SAME_LENGTH: Error = Error::InvalidState {
    reason: "a frame of version 1 has the length that it was acquired with; acquire another one",
};

impl zb_buffer {
    pub(crate) const EMPTY: Self = Self { data: null_mut(), len: 0, capacity: 0, opaque: [0; 2] };

    pub(crate) fn new(data: &mut [u8], capacity: usize, owner: Owner, address: u64) -> Self {
        let len = data.len();
        Self { data: data.as_mut_ptr(), len, capacity, opaque: [owner as u64, address] }
    }

    pub(crate) fn boxed(mut buffer: OwnedRequestBuffer) -> Self {
        let capacity = buffer.capacity();
        let mut this = Self::new(buffer.data_mut(), capacity, Owner::Boxed, 0);
        this.opaque[1] = Box::into_raw(Box::new(buffer)).expose_provenance() as u64;
        this
    }

    fn abandon(&mut self) {
        if let Some(open) = std::mem::replace(self, Self::EMPTY).open() {
            open.abandon();
        }
    }

    fn open(&self) -> Option<Open> {
        let [tag, address] = self.opaque;
        // SAFETY: the rule **Guards**: this library has stored the address of a lender of this type with the tag,
        // or of a box, and empties the buffer when its guard is taken.
        unsafe {
            match tag {
                _ if tag == Owner::Client as u64 => Some(Open::Client(Lender::at(address))),
                _ if tag == Owner::Writer as u64 => Some(Open::Writer(Lender::at(address))),
                _ if tag == Owner::Boxed as u64 => {
                    let request = with_exposed_provenance_mut(address as usize);
                    Some(Open::Boxed(ManuallyDrop::new(Box::from_raw(request))))
                }
                _ => None,
            }
        }
    }
}

/// The guard of a buffer.
enum Open {
    Client(&'static LocalClient),
    Writer(&'static LocalWriter),
    /// Stays boxed until it is taken.
    Boxed(ManuallyDrop<Box<OwnedRequestBuffer>>),
}

impl Open {
    fn resize(&mut self, len: usize) -> Result<()> {
        match self {
            Self::Client(client) => {
                client.with_guard(|request| request.resize(len)).unwrap_or(Err(NOT_OPEN))
            }
            Self::Writer(writer) => {
                match writer.with_guard(|frame| frame.len() == len).ok_or(NOT_OPEN)? {
                    true => Ok(()),
                    false => Err(SAME_LENGTH),
                }
            }
            Self::Boxed(request) => request.resize(len),
        }
    }

    #[inline]
    fn commit(self) -> Result<u64> {
        match self {
            Self::Client(client) => {
                let (request, _keep) = client.take();
                request.ok_or(NOT_OPEN)?.commit()
            }
            Self::Writer(writer) => {
                let (frame, _keep) = writer.take();
                frame.ok_or(NOT_OPEN)?.commit()
            }
            Self::Boxed(request) => ManuallyDrop::into_inner(request).commit(),
        }
    }

    fn abandon(self) {
        match self {
            Self::Client(client) => drop(client.take()),
            Self::Writer(writer) => drop(writer.take()),
            Self::Boxed(request) => drop(ManuallyDrop::into_inner(request)),
        }
    }
}

/// Sends the first `buffer->len` bytes, and leaves the buffer empty. After an error that can be
/// repaired (`ZB_TOO_LARGE`: `len` beyond `capacity`) it stays open; after any other it is abandoned.
///
/// `sequence`, if it is not null, gets the number of the request or frame.
#[unsafe(no_mangle)]
pub extern "C" fn zb_buffer_commit(
    buffer: Option<&mut zb_buffer>,
    sequence: Option<&mut MaybeUninit<u64>>,
) -> zb_status {
    run(|| {
        let buffer = given(buffer, "buffer")?;
        let mut open = buffer.open().ok_or(NOT_OPEN)?;
        match open.resize(buffer.len) {
            Err(error @ Error::TooLarge { .. }) => return Err(error),
            Err(error) => {
                buffer.abandon();
                return Err(error);
            }
            Ok(()) => *buffer = zb_buffer::EMPTY,
        }
        let committed = open.commit()?;
        if let Some(sequence) = sequence {
            sequence.write(committed);
        }
        Ok(())
    })
}

/// Gives the buffer up: nothing is sent. Leaves it empty; does nothing for an empty or null one.
#[unsafe(no_mangle)]
pub extern "C" fn zb_buffer_abandon(buffer: Option<&mut zb_buffer>) {
    run_or((), || buffer.map_or((), zb_buffer::abandon));
}
