//! Version 1: the reader of a buffer.

use crate::config::{duration, zb_reader_config};
use crate::error::{run, run_or, zb_status};
use crate::pointers::{self, copy_out, given};
use crate::view::{receive, zb_view};
use std::ffi::c_char;
use std::mem::MaybeUninit;
use zerobuffer::{BufferConfig, Closer, v1};

/// Version 1: a reader, which creates a buffer and owns it.
///
/// Threads: any number may use it at once; each frame goes to one of them. `zb_reader_close` must
/// be the last call.
pub struct zb_reader {
    closer: Closer,
    reader: v1::Reader,
}

// What the documentation of the handle promises.
const _: () = {
    const fn usable_by_many_threads<T: Send + Sync>() {}
    usable_by_many_threads::<zb_reader>();
};

/// Creates the buffer `name`; writers can attach as soon as this returns. `config` may be null for
/// the defaults: 1 KiB of metadata and 1 MiB of payload. `reader` gets the handle, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_create(
    name: *const c_char,
    config: *const zb_reader_config,
    reader: Option<&mut MaybeUninit<*mut zb_reader>>,
) -> zb_status {
    let make = |name: &str, config: Option<zb_reader_config>| {
        let default = || Ok(v1::ReaderConfig::new(BufferConfig::default()));
        let reader =
            v1::Reader::create(name, config.map_or_else(default, |config| config.reader())?)?;
        Ok(zb_reader { closer: reader.closer(), reader })
    };
    // SAFETY: the rule **Pointers**.
    unsafe { pointers::create(name, config, reader, make) }
}

/// Ends the reader from any thread: each `zb_reader_read` that waits comes back at once, and it and
/// every later one fails with `ZB_CLOSED`. Once the threads have come back `zb_reader_close` frees it.
/// Null does nothing, nor does a second time.
#[unsafe(no_mangle)]
pub extern "C" fn zb_reader_shutdown(reader: Option<&zb_reader>) {
    run_or((), || reader.map_or((), |reader| reader.closer.close()));
}

/// Removes the buffer and frees the reader. Views of it stay valid until they are released. Null
/// does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn zb_reader_close(reader: Option<Box<zb_reader>>) {
    run_or((), || drop(reader));
}

/// The next frame, waiting for it until the timeout has passed; 0 looks once. `frame` gets it, or
/// is empty. What a writer had written before its end is delivered first.
#[unsafe(no_mangle)]
pub extern "C" fn zb_reader_read(
    reader: Option<&zb_reader>,
    timeout_ns: i64,
    frame: Option<&mut MaybeUninit<zb_view>>,
) -> zb_status {
    receive(frame, |out| {
        let frame = given(reader, "reader")?.reader.read_frame(duration(timeout_ns))?;
        zb_view::put(out, frame.into_owned());
        Ok(())
    })
}

/// Copies the writer's metadata into `buffer` of `capacity` bytes; see
/// `zb_client_server_metadata`. No bytes if the writer has set none: look after the first frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zb_reader_metadata(
    reader: Option<&zb_reader>,
    buffer: *mut u8,
    capacity: usize,
    len: Option<&mut MaybeUninit<usize>>,
) -> zb_status {
    run(|| {
        let metadata = given(reader, "reader")?.reader.metadata()?.unwrap_or_default();
        // SAFETY: the rule **Pointers**.
        unsafe { copy_out(&metadata, buffer, capacity, len) }
    })
}

/// Whether a live writer is attached at this moment.
#[unsafe(no_mangle)]
pub extern "C" fn zb_reader_is_writer_connected(reader: Option<&zb_reader>) -> bool {
    run_or(false, || reader.is_some_and(|reader| reader.reader.is_writer_connected()))
}
