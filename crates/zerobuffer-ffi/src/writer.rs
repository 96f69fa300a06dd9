//! Version 1: the writer to a buffer.

use crate::buffer::{Owner, zb_buffer};
use crate::client::{NOT_OPEN, SAME_LENGTH};
use crate::config::{self, bytes, duration, zb_writer_config};
use crate::error::{null, run, run_or, zb_status};
use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::ptr::{NonNull, null_mut};
use zerobuffer::{Closer, Error, Result, v1};

/// Version 1: a writer, which attaches to a reader's buffer and fills it.
///
/// Threads: one at a time. `zb_writer_shutdown` may be called on any other meanwhile.
pub struct zb_writer {
    closer: Closer,
    writing: UnsafeCell<Writing>,
}

/// What the one thread at a time uses.
struct Writing {
    /// Borrows the writer: dropped first.
    open: Option<v1::FrameBuffer<'static>>,
    /// A buffer is in the caller's hands; it keeps the handle.
    lent: bool,
    /// To be freed when that is given back.
    closing: bool,
    /// Boxed: references to this struct do not reach into it.
    writer: NonNull<v1::Writer>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.open = None;
        // SAFETY: made by `Box::leak`, and nothing borrows it any more.
        drop(unsafe { Box::from_raw(self.writer.as_ptr()) });
    }
}

impl zb_writer {
    /// # Safety
    /// The C contract; and the only reference to it on the one thread that uses it.
    unsafe fn of<'w>(writer: *const Self) -> Result<&'w mut Writing> {
        // SAFETY: the C contract.
        let this = unsafe { writer.as_ref() }.ok_or_else(|| null("writer"))?;
        // SAFETY: the caller's.
        Ok(unsafe { &mut *this.writing.get() })
    }

    /// # Safety
    /// As [`zb_writer::of`].
    pub(crate) unsafe fn commit(writer: *mut Self, len: usize) -> Result<u64> {
        // SAFETY: the caller's: a buffer keeps its writer's handle.
        let open = unsafe { Self::of(writer)? }.open.take();
        let committed = match open {
            None => Err(NOT_OPEN),
            Some(open) if len != open.len() => Err(SAME_LENGTH),
            Some(open) => open.commit(),
        };
        // SAFETY: the caller's; the buffer is gone.
        unsafe { Self::give_back(writer) };
        committed
    }

    /// # Safety
    /// As [`zb_writer::of`].
    pub(crate) unsafe fn abandon(writer: *mut Self) {
        // SAFETY: the caller's: a buffer keeps its writer's handle.
        if let Ok(this) = unsafe { Self::of(writer) } {
            this.open = None;
            // SAFETY: the caller's; the buffer is gone.
            unsafe { Self::give_back(writer) };
        }
    }

    /// Notes that the buffer is gone, and frees the writer if it is closed.
    ///
    /// # Safety
    /// As [`zb_writer::of`], and no reference to it is used afterwards.
    unsafe fn give_back(writer: *mut Self) {
        // SAFETY: the caller's.
        let Ok(this) = (unsafe { Self::of(writer) }) else { return };
        if std::mem::replace(&mut this.lent, false) && this.closing {
            // SAFETY: made by `Box::into_raw`; `zb_writer_close` has left it to the buffer.
            drop(unsafe { Box::from_raw(writer) });
        }
    }
}

impl Writing {
    /// The writer, unless a frame that is open borrows it.
    fn free(&mut self) -> Result<&mut v1::Writer> {
        match self.open {
            Some(_) => Err(Error::ClaimOpen),
            // SAFETY: it lives as long as this, and only `open` borrows it otherwise.
            None => Ok(unsafe { self.writer.as_mut() }),
        }
    }
}

/// Attaches to the buffer `name`, waiting until the timeout has passed for it to be there and to
/// have no other writer; 0 tries once. `config` may be null for the defaults. `writer` gets the
/// handle, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_connect(
    name: *const c_char,
    config: *const zb_writer_config,
    timeout_ns: i64,
    writer: *mut *mut zb_writer,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { writer.as_mut() }.ok_or_else(|| null("writer"))?;
        *out = null_mut();
        // SAFETY: the C contract.
        let (name, config) = unsafe { (config::name(name)?, config::read(config)?) };
        let config = match config {
            Some(config) => config.writer()?,
            None => v1::WriterConfig::new(),
        };
        let writer = v1::Writer::connect_with(name, duration(timeout_ns), config)?;
        let closer = writer.closer();
        let writer = NonNull::from(Box::leak(Box::new(writer)));
        let writing = Writing { open: None, lent: false, closing: false, writer };
        *out = Box::into_raw(Box::new(zb_writer { closer, writing: UnsafeCell::new(writing) }));
        Ok(())
    })
}

/// Ends the writer from any thread, while another one is inside of its calls: a call that waits for
/// room comes back at once, and it and every later one fails with `ZB_CLOSED`. Once the thread has come
/// back `zb_writer_close` frees it. Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_shutdown(writer: *const zb_writer) {
    run_or((), || {
        // SAFETY: the C contract. What the thread inside uses lies in a cell, and is not looked at.
        if let Some(this) = unsafe { writer.as_ref() } {
            this.closer.close();
        }
    });
}

/// Gives the writer's role back and frees the writer. Frames that were written stay there to be read.
/// Null does nothing.
///
/// What is not sent of an open buffer is given up; the writer stays until that is committed or
/// abandoned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_close(writer: *mut zb_writer) {
    run_or((), || {
        // SAFETY: the C contract.
        let Ok(this) = (unsafe { zb_writer::of(writer) }) else { return };
        this.open = None;
        this.closing = true;
        if !this.lent {
            // SAFETY: made by `Box::into_raw`, not closed before (the C contract).
            drop(unsafe { Box::from_raw(writer) });
        }
    });
}

/// Writes a copy of `len` bytes as one frame. `sequence`, if it is not null, gets its number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_write(
    writer: *mut zb_writer,
    data: *const u8,
    len: usize,
    sequence: *mut u64,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let (writer, data) = unsafe { (zb_writer::of(writer)?, bytes(data, len, "data")?) };
        let written = writer.free()?.write_frame(data)?;
        // SAFETY: the C contract.
        if let Some(sequence) = unsafe { sequence.as_mut() } {
            *sequence = written;
        }
        Ok(())
    })
}

/// A frame of `size` bytes to be filled in the ring. Nothing else can be written until it is
/// committed or abandoned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_acquire(
    writer: *mut zb_writer,
    size: usize,
    buffer: *mut zb_buffer,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { buffer.as_mut() }.ok_or_else(|| null("buffer"))?;
        *out = zb_buffer::EMPTY;
        // SAFETY: the C contract.
        let this = unsafe { zb_writer::of(writer)? };
        let mut frame = this.free()?.acquire(size)?;
        *out = zb_buffer::new(NonNull::from(frame.data_mut()), size, Owner::Writer, writer);
        // SAFETY: only the lifetime changes: the writer it borrows is boxed, dropped after it, and not
        // touched meanwhile (`free`).
        this.open = Some(unsafe {
            std::mem::transmute::<v1::FrameBuffer<'_>, v1::FrameBuffer<'static>>(frame)
        });
        this.lent = true;
        Ok(())
    })
}

/// Describes the stream, once in the buffer's life; to be called before the first frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_set_metadata(
    writer: *mut zb_writer,
    data: *const u8,
    len: usize,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let (writer, data) = unsafe { (zb_writer::of(writer)?, bytes(data, len, "data")?) };
        writer.free()?.set_metadata(data)
    })
}

/// Whether the reader is there at this moment, and the buffer's name still its own. False while a
/// buffer is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_is_reader_connected(writer: *mut zb_writer) -> bool {
    run_or(false, || {
        // SAFETY: the C contract.
        let writer = unsafe { zb_writer::of(writer) };
        writer.and_then(Writing::free).is_ok_and(|writer| writer.is_reader_connected())
    })
}
