//! Version 1: the writer to a buffer.

use crate::buffer::{LocalWriter, Owner, zb_buffer};
use crate::config::{duration, zb_writer_config};
use crate::error::{run, run_or, zb_status};
use crate::lender::Lender;
use crate::pointers::{self, bytes, given};
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::rc::Rc;
use zerobuffer::{Closer, Error, Result, v1};

/// Version 1: a writer, which attaches to a reader's buffer and fills it.
///
/// Threads: one at a time. `zb_writer_shutdown` may be called on any other meanwhile.
pub struct zb_writer {
    closer: Closer,
    writer: Rc<LocalWriter>,
}

impl zb_writer {
    /// The writer, unless a frame that is open borrows it.
    fn free(&self) -> Result<&'static mut v1::Writer> {
        // SAFETY: what borrows it is lent (`zb_writer_acquire`), and nothing else.
        unsafe { self.writer.free() }.ok_or(Error::ClaimOpen)
    }
}

impl Drop for zb_writer {
    fn drop(&mut self) {
        self.writer.end();
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
    writer: Option<&mut MaybeUninit<*mut zb_writer>>,
) -> zb_status {
    let make = |name: &str, config: Option<zb_writer_config>| {
        let config =
            config.map_or_else(|| Ok(v1::WriterConfig::new()), |config| config.writer())?;
        let writer = v1::Writer::connect_with(name, duration(timeout_ns), config)?;
        Ok(zb_writer { closer: writer.closer(), writer: Lender::new(writer) })
    };
    // SAFETY: the rule **Pointers**.
    unsafe { pointers::create(name, config, writer, make) }
}

/// Ends the writer from any thread, while another one is inside of its calls: a call that waits for
/// room comes back at once, and it and every later one fails with `ZB_CLOSED`. Once the thread has come
/// back `zb_writer_close` frees it. Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_shutdown(writer: Option<&zb_writer>) {
    run_or((), || writer.map_or((), |writer| writer.closer.close()));
}

/// Gives the writer's role back and frees the writer. Frames that were written stay there to be read.
/// Null does nothing.
///
/// An open buffer is abandoned; the writer stays until that is committed or
/// abandoned.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_close(writer: Option<Box<zb_writer>>) {
    run_or((), || drop(writer));
}

/// Writes a copy of `len` bytes as one frame. `sequence`, if it is not null, gets its number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_write(
    writer: Option<&zb_writer>,
    data: *const u8,
    len: usize,
    sequence: Option<&mut MaybeUninit<u64>>,
) -> zb_status {
    run(|| {
        // SAFETY: the rule **Pointers**.
        let data = unsafe { bytes(data, len, "data")? };
        let written = given(writer, "writer")?.free()?.write_frame(data)?;
        if let Some(sequence) = sequence {
            sequence.write(written);
        }
        Ok(())
    })
}

/// A frame of `size` bytes to be filled in the ring. Nothing else can be written until it is
/// committed or abandoned.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_acquire(
    writer: Option<&zb_writer>,
    size: usize,
    buffer: Option<&mut MaybeUninit<zb_buffer>>,
) -> zb_status {
    run(|| {
        let out = given(buffer, "buffer")?.write(zb_buffer::EMPTY);
        let writer = given(writer, "writer")?;
        let mut frame = writer.free()?.acquire(size)?;
        *out = zb_buffer::new(frame.data_mut(), size, Owner::Writer, writer.writer.address());
        writer.writer.lend(frame);
        Ok(())
    })
}

/// Describes the stream, once in the buffer's life; to be called before the first frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_writer_set_metadata(
    writer: Option<&zb_writer>,
    data: *const u8,
    len: usize,
) -> zb_status {
    run(|| {
        // SAFETY: the rule **Pointers**.
        let data = unsafe { bytes(data, len, "data")? };
        given(writer, "writer")?.free()?.set_metadata(data)
    })
}

/// How long writing waits for room from now on, instead of what the configuration said. Fails with
/// `ZB_CLAIM_OPEN` while a buffer is open.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_set_write_timeout(
    writer: Option<&zb_writer>,
    timeout_ns: i64,
) -> zb_status {
    run(|| {
        given(writer, "writer")?.free()?.set_write_timeout(duration(timeout_ns));
        Ok(())
    })
}

/// The number that the next frame gets: 1, or the one after a previous writer's last. 0 while a buffer is
/// open.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_next_sequence(writer: Option<&zb_writer>) -> u64 {
    run_or(0, || writer.map_or(0, |writer| writer.free().map_or(0, |free| free.next_sequence())))
}

/// Whether the reader is there at this moment, and the buffer's name still its own. False while a
/// buffer is open.
#[unsafe(no_mangle)]
pub extern "C" fn zb_writer_is_reader_connected(writer: Option<&zb_writer>) -> bool {
    run_or(false, || {
        writer.is_some_and(|writer| writer.free().is_ok_and(|free| free.is_reader_connected()))
    })
}
