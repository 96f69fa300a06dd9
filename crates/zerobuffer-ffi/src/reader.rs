//! Version 1: the reader of a buffer.

use crate::config::{self, copy_out, duration, zb_reader_config};
use crate::error::{null, run, run_or, zb_status};
use crate::view::{receive, zb_view};
use std::ffi::c_char;
use std::ptr::null_mut;
use zerobuffer::{BufferConfig, Closer, Result, v1};

/// Version 1: a reader, which creates a buffer and owns it.
///
/// Threads: any number may use it at once; each frame goes to one of them. `zb_reader_close` must
/// be the last call.
pub struct zb_reader {
    closer: Closer,
    reader: v1::Reader,
}

impl zb_reader {
    /// # Safety
    /// The C contract.
    unsafe fn of<'r>(reader: *const Self) -> Result<&'r v1::Reader> {
        // SAFETY: the C contract.
        unsafe { reader.as_ref() }.map(|this| &this.reader).ok_or_else(|| null("reader"))
    }
}

// What the documentation of the handle promises.
const _: () = {
    const fn usable_by_many_threads<T: Send + Sync>() {}
    usable_by_many_threads::<v1::Reader>();
};

/// Creates the buffer `name`; writers can attach as soon as this returns. `config` may be null for
/// the defaults: 1 KiB of metadata and 1 MiB of payload. `reader` gets the handle, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_create(
    name: *const c_char,
    config: *const zb_reader_config,
    reader: *mut *mut zb_reader,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let out = unsafe { reader.as_mut() }.ok_or_else(|| null("reader"))?;
        *out = null_mut();
        // SAFETY: the C contract.
        let (name, config) = unsafe { (config::name(name)?, config::read(config)?) };
        let config = match config {
            Some(config) => config.reader()?,
            None => v1::ReaderConfig::new(BufferConfig::default()),
        };
        let reader = v1::Reader::create(name, config)?;
        *out = Box::into_raw(Box::new(zb_reader { closer: reader.closer(), reader }));
        Ok(())
    })
}

/// Ends the reader from any thread: each `zb_reader_read` that waits comes back at once, and it and
/// every later one fails with `ZB_CLOSED`. Once the threads have come back `zb_reader_close` frees it.
/// Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_shutdown(reader: *const zb_reader) {
    run_or((), || {
        // SAFETY: the C contract.
        if let Some(this) = unsafe { reader.as_ref() } {
            this.closer.close();
        }
    });
}

/// Removes the buffer and frees the reader. Views of it stay valid until they are released. Null
/// does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_close(reader: *mut zb_reader) {
    run_or((), || {
        if !reader.is_null() {
            // SAFETY: made by `Box::into_raw`, not closed before (the C contract).
            drop(unsafe { Box::from_raw(reader) });
        }
    });
}

/// The next frame, waiting for it until the timeout has passed; 0 looks once. `frame` gets it, or
/// is empty. What a writer had written before its end is delivered first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_read(
    reader: *mut zb_reader,
    timeout_ns: i64,
    frame: *mut zb_view,
) -> zb_status {
    // SAFETY: the C contract.
    unsafe {
        receive(frame, |out| {
            let frame = zb_reader::of(reader)?.read_frame(duration(timeout_ns))?;
            zb_view::put(out, frame.into_owned());
            Ok(())
        })
    }
}

/// Copies the writer's metadata into `buffer` of `capacity` bytes; see
/// `zb_client_server_metadata`. No bytes if the writer has set none: look after the first frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_metadata(
    reader: *const zb_reader,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> zb_status {
    run(|| {
        // SAFETY: the C contract.
        let metadata = unsafe { zb_reader::of(reader)? }.metadata()?.unwrap_or_default();
        // SAFETY: the C contract.
        unsafe { copy_out(&metadata, buffer, capacity, len) }
    })
}

/// Whether a live writer is attached at this moment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_is_writer_connected(reader: *const zb_reader) -> bool {
    // SAFETY: the C contract.
    run_or(false, || unsafe { zb_reader::of(reader) }.is_ok_and(v1::Reader::is_writer_connected))
}
