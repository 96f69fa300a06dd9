//! The guard of bytes to fill: a request, or a version 1 frame.

use crate::client::{NOT_OPEN, zb_client};
use crate::error::{null, run, run_or, zb_status};
use crate::writer::zb_writer;
use std::ptr::{NonNull, null_mut};
use zerobuffer::{Error, OwnedRequestBuffer, Result};

/// Bytes in shared memory that are the caller's to fill; then `zb_buffer_commit` sends them, or
/// `zb_buffer_abandon` gives them up. They hold whatever was there before: write all of them.
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
    /// The most bytes that there is room for, here and for the answer.
    pub capacity: usize,
    /// The library's.
    pub opaque: [u64; 2],
}

/// Whose buffer it is, in the first opaque word; the second one is the handle's address.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Owner {
    Client = 0x7a62_2e62_7566_6331,
    Writer = 0x7a62_2e62_7566_7731,
    /// A boxed [`OwnedRequestBuffer`] in place of a handle: a client for many threads has several.
    Boxed = 0x7a62_2e62_7566_6f31,
}

impl zb_buffer {
    pub(crate) const EMPTY: Self = Self { data: null_mut(), len: 0, capacity: 0, opaque: [0; 2] };

    pub(crate) fn new<T>(
        data: NonNull<[u8]>,
        capacity: usize,
        owner: Owner,
        handle: *mut T,
    ) -> Self {
        let handle = handle.expose_provenance() as u64;
        let (data, len) = (data.cast().as_ptr(), data.len());
        Self { data, len, capacity, opaque: [owner as u64, handle] }
    }

    fn handle<T>(&self, owner: Owner) -> Option<*mut T> {
        let address = self.opaque[1] as usize;
        (self.opaque[0] == owner as u64).then(|| std::ptr::with_exposed_provenance_mut(address))
    }
}

/// Sends the first `buffer->len` bytes, and leaves the buffer empty. After an error that can be
/// mended (`ZB_TOO_LARGE`: `len` beyond `capacity`) it stays open; after any other it is given up.
///
/// `sequence`, if it is not null, gets the number of the request or frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_buffer_commit(buffer: *mut zb_buffer, sequence: *mut u64) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let buffer = unsafe { buffer.as_mut() }.ok_or_else(|| null("buffer"))?;
        // SAFETY: the C contract.
        let committed = unsafe { commit(buffer) };
        if !matches!(committed, Err(Error::TooLarge { .. })) {
            *buffer = zb_buffer::EMPTY;
        }
        let committed = committed?;
        // SAFETY: the C contract.
        if let Some(sequence) = unsafe { sequence.as_mut() } {
            *sequence = committed;
        }
        Ok(())
    })
}

/// # Safety
/// The C contract.
#[inline]
unsafe fn commit(buffer: &zb_buffer) -> Result<u64> {
    if let Some(client) = buffer.handle::<zb_client>(Owner::Client) {
        // SAFETY: the C contract.
        return unsafe { zb_client::commit(client, buffer.len) };
    }
    if let Some(writer) = buffer.handle::<zb_writer>(Owner::Writer) {
        // SAFETY: the C contract.
        return unsafe { zb_writer::commit(writer, buffer.len) };
    }
    if let Some(request) = buffer.handle::<OwnedRequestBuffer>(Owner::Boxed) {
        // SAFETY: made by `Box::into_raw`, and this buffer is the only one that has it.
        unsafe { &mut *request }.resize(buffer.len)?;
        // SAFETY: as above; from here on the buffer is emptied.
        return unsafe { Box::from_raw(request) }.commit();
    }
    Err(NOT_OPEN)
}

/// Gives the buffer up: nothing is sent. Leaves it empty; does nothing for an empty or null one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_buffer_abandon(buffer: *mut zb_buffer) {
    run_or((), || {
        // SAFETY: the C contract.
        let Some(buffer) = (unsafe { buffer.as_mut() }) else { return };
        if let Some(client) = buffer.handle::<zb_client>(Owner::Client) {
            // SAFETY: the C contract.
            unsafe { zb_client::abandon(client) };
        } else if let Some(writer) = buffer.handle::<zb_writer>(Owner::Writer) {
            // SAFETY: the C contract.
            unsafe { zb_writer::abandon(writer) };
        } else if let Some(request) = buffer.handle::<OwnedRequestBuffer>(Owner::Boxed) {
            // SAFETY: made by `Box::into_raw`, and forgotten here.
            drop(unsafe { Box::from_raw(request) });
        }
        *buffer = zb_buffer::EMPTY;
    });
}
