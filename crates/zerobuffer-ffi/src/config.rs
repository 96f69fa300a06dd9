//! Configurations, and how parameters come in.

use crate::pointers::{bytes, size_prefixed, text};
use std::ffi::c_char;
use std::time::Duration;
use zerobuffer::v1::{self, Liveness};
use zerobuffer::{
    BufferConfig, ChannelKind, ClientConfig, Error, Result, ServerConfig, WaitStrategy,
};

/// For a timeout: no deadline.
pub const ZB_FOREVER: i64 = -1;

/// Spin for a while, then sleep. For nearly everybody.
pub const ZB_WAIT_DEFAULT: u32 = 0;
/// Sleep at once: the least CPU time.
pub const ZB_WAIT_PARK: u32 = 1;
/// Spin as long as no other thread needs the CPU: the lowest latency, for a core that has nothing else to do.
pub const ZB_WAIT_SPIN: u32 = 2;

/// A client finds out what there is under its name: a service first, then an in-place channel.
pub const ZB_CHANNEL_ANY: u32 = 0;
/// Protocol version 2: the response lies where the request was. A service or a channel.
pub const ZB_CHANNEL_IN_PLACE: u32 = 1;
/// Protocol version 1: the response lies in a buffer of its own.
pub const ZB_CHANNEL_TWO_BUFFERS: u32 = 2;
/// A service, which serves any number of clients, and no channel.
pub const ZB_CHANNEL_SERVICE: u32 = 3;

/// Requests are edited where they lie.
pub const ZB_SERVER_IN_PLACE: u32 = 0;
/// Two buffers: the handler edits a copy of the request, which becomes the response.
pub const ZB_SERVER_MUTABLE: u32 = 1;
/// Two buffers: the handler reads the request and writes a response with `zb_frame_reply`.
pub const ZB_SERVER_IMMUTABLE: u32 = 2;

/// A handle is used by one thread at a time. The fastest.
pub const ZB_THREADS_ONE: u32 = 0;
/// A handle is used by any number of threads at once.
pub const ZB_THREADS_MANY: u32 = 1;

/// Version 1: the peer is alive as long as its process id is, as existing v1 programs do it.
pub const ZB_LIVENESS_PID: u32 = 0;
/// Version 1: a reader is alive as long as it holds its lock file; for containers that share /tmp.
pub const ZB_LIVENESS_LOCK: u32 = 1;
/// Version 1: nobody is ever taken for dead; for containers that share nothing but /dev/shm.
pub const ZB_LIVENESS_NONE: u32 = 2;

/// What a server is made of. Set `size` to `sizeof(zb_server_config)` and the rest to zero, then
/// change what is to differ: zero means the default, except for the two block sizes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_server_config {
    /// `sizeof(zb_server_config)`.
    pub size: usize,
    /// `ZB_SERVER_*`. Default: in place.
    pub kind: u32,
    /// Permission bits of the segment, as 0660. Default 0600: the same user only.
    pub mode: u32,
    /// Bytes of metadata for each direction; a message needs 8 more than its length.
    pub metadata_size: usize,
    /// Bytes of the ring. A frame of n bytes takes n + 64 of it, rounded up to a multiple of 64.
    pub payload_size: usize,
    /// `ZB_WAIT_*`: how the server waits for requests.
    pub wait: u32,
    /// In place: threads that `zb_server_start` runs the handler on. Default 1.
    pub workers: u32,
    /// In place: the server's metadata, which each client can read; null for none.
    pub metadata: *const u8,
    /// Bytes of `metadata`.
    pub metadata_len: usize,
    /// Nanoseconds that `zb_server_stop` waits for running handlers, and then for the client to
    /// read its responses. Default 2 s.
    pub stop_timeout_ns: i64,
    /// Two buffers: `ZB_LIVENESS_*`.
    pub liveness: u32,
    /// Zero.
    pub reserved: u32,
}

/// The `payload_size` of a ring that holds exactly `in_flight` frames of up to `frame_size` bytes at the
/// same time: requests under way and responses that are held, together. `SIZE_MAX`, which a server
/// refuses, where that is more than memory can hold. Two buffers may need one frame more.
#[unsafe(no_mangle)]
pub extern "C" fn zb_payload_size_for_frames(frame_size: usize, in_flight: usize) -> usize {
    BufferConfig::for_frames(frame_size, in_flight).payload_size()
}

/// What a client is made of. Set `size` to `sizeof(zb_client_config)` and the rest to zero, then
/// change what is to differ: zero means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_client_config {
    /// `sizeof(zb_client_config)`.
    pub size: usize,
    /// `ZB_CHANNEL_*`. Default: the client finds out.
    pub channel: u32,
    /// `ZB_THREADS_*`. Default: one at a time.
    pub threads: u32,
    /// `ZB_WAIT_*`: how the client waits for responses and for room.
    pub wait: u32,
    /// The most requests in flight, held responses included. Default 4096.
    pub max_in_flight: u32,
    /// Nanoseconds that sending waits for room. Default 5 s.
    pub send_timeout_ns: i64,
    /// The client's metadata, which the handler finds in every frame; null for none.
    pub metadata: *const u8,
    /// Bytes of `metadata`.
    pub metadata_len: usize,
    /// In place, not zero: `zb_client_call` and `zb_client_reconnect` send requests again that a
    /// server's end left not started.
    pub resend_not_started: u32,
    /// Not zero: `owner` is set.
    pub has_owner: u32,
    /// The user id that must own the channel's objects. Default: the process's effective user.
    pub owner: u32,
    /// Two buffers: permission bits of the response buffer. Default 0600.
    pub mode: u32,
    /// Two buffers: `ZB_LIVENESS_*`.
    pub liveness: u32,
    /// Not zero: the client mends itself, for programs that run for long. It has up to so many connections to different
    /// servers of a service, or one to a channel; sends each call on the one with the fewest under way, again elsewhere
    /// if a server's end left it not started, and connects to new servers as servers come and go. It is for any number
    /// of threads, whatever `threads` says, and for `zb_client_call`, `zb_client_call_async` and
    /// `zb_client_call_async_with`. Default: one connection, whose end is the caller's to see.
    pub connections: u32,
    /// Two buffers: metadata bytes of the response buffer, which the client makes; 0 with
    /// `response_payload_size` 0: 4 KiB.
    pub response_metadata_size: usize,
    /// Two buffers: ring bytes of the response buffer. Default 32 MiB. Responses of up to half of it, less
    /// 24 bytes, always fit; requests in flight are bounded by half of it, too.
    pub response_payload_size: usize,
    /// Services: bytes of the ring. Default: what the server gives its clients.
    pub ring_size: usize,
    /// Services: what the server calls this client, UTF-8 of at most 192 bytes that ends with a zero byte. Null for the
    /// program's name.
    pub label: *const c_char,
    /// Services: the runtime directory in which their sockets are, UTF-8 that ends with a zero byte. Null for
    /// `$ZEROBUFFER_DIR`, else every place in which this user's services, or root's, may be.
    pub directory: *const c_char,
}

/// What a version 1 reader is made of; see `zb_server_config` for how to fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_reader_config {
    /// `sizeof(zb_reader_config)`.
    pub size: usize,
    /// Bytes of metadata; a message needs 8 more than its length.
    pub metadata_size: usize,
    /// Bytes of the ring. A frame of n bytes takes n + 16 of it.
    pub payload_size: usize,
    /// Permission bits of the buffer. Default 0600.
    pub mode: u32,
    /// `ZB_WAIT_*`: how the reader waits for frames.
    pub wait: u32,
    /// `ZB_LIVENESS_*`: how it finds out that a writer has ended.
    pub liveness: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a version 1 writer is made of; see `zb_server_config` for how to fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct zb_writer_config {
    /// `sizeof(zb_writer_config)`.
    pub size: usize,
    /// Nanoseconds that a write waits for room, in all. Default 5 s.
    pub write_timeout_ns: i64,
    /// `ZB_WAIT_*`: how the writer waits for room.
    pub wait: u32,
    /// `ZB_LIVENESS_*`: how it finds out that the reader has ended.
    pub liveness: u32,
    /// Not zero: `owner` is set.
    pub has_owner: u32,
    /// Not zero: start again with sequence 1 on a used buffer whose last one cannot be determined.
    pub restart_sequence: u32,
    /// The user id that must own the buffer's objects. Default: the process's effective user.
    pub owner: u32,
    /// Zero.
    pub reserved: u32,
}

size_prefixed!(zb_server_config, zb_client_config = 88, zb_reader_config, zb_writer_config);

/// A timeout of C: negative is for ever.
#[inline]
pub(crate) fn duration(nanoseconds: i64) -> Duration {
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        Err(_) => Duration::MAX,
    }
}

pub(crate) fn wait(code: u32) -> Result<WaitStrategy> {
    match code {
        ZB_WAIT_DEFAULT => Ok(WaitStrategy::SpinThenPark),
        ZB_WAIT_PARK => Ok(WaitStrategy::Park),
        ZB_WAIT_SPIN => Ok(WaitStrategy::Spin),
        _ => Err(bad("wait", code, "a ZB_WAIT_ constant")),
    }
}

fn liveness(code: u32) -> Result<Liveness> {
    match code {
        ZB_LIVENESS_PID => Ok(Liveness::Pid),
        ZB_LIVENESS_LOCK => Ok(Liveness::Lock),
        ZB_LIVENESS_NONE => Ok(Liveness::None),
        _ => Err(bad("liveness", code, "a ZB_LIVENESS_ constant")),
    }
}

pub(crate) fn bad(what: &'static str, asked: u32, allowed: &'static str) -> Error {
    Error::BadConfig { what, asked: u64::from(asked), allowed }
}

/// Applies a setter unless the value is the zero that stands for the default.
pub(crate) fn set<C, V: Default + PartialEq>(
    config: C,
    value: V,
    setter: impl FnOnce(C, V) -> C,
) -> C {
    if value == V::default() { config } else { setter(config, value) }
}

impl zb_server_config {
    fn buffer(&self) -> BufferConfig {
        BufferConfig::new(self.metadata_size, self.payload_size)
    }

    /// # Safety
    /// The rule **Pointers** for `metadata`.
    pub(crate) unsafe fn server(&self) -> Result<ServerConfig> {
        // SAFETY: the caller's.
        let metadata = unsafe { bytes(self.metadata, self.metadata_len, "metadata")? };
        let config = ServerConfig::new(self.buffer())
            .wait(wait(self.wait)?)
            .liveness(liveness(self.liveness)?)
            .metadata(metadata);
        let config = set(config, self.mode, ServerConfig::mode);
        let config = set(config, self.workers as usize, ServerConfig::workers);
        Ok(set(config, self.stop_timeout_ns, |config, ns| config.stop_timeout(duration(ns))))
    }
}

impl zb_client_config {
    /// For calls that are told theirs one by one.
    pub(crate) fn send_timeout(&self) -> Duration {
        match self.send_timeout_ns {
            0 => Duration::from_secs(5),
            nanoseconds => duration(nanoseconds),
        }
    }

    /// # Safety
    /// The rule **Pointers** for `metadata` and the texts.
    pub(crate) unsafe fn client(&self) -> Result<ClientConfig> {
        // SAFETY: the caller's.
        let (metadata, label, directory) = unsafe {
            let metadata = bytes(self.metadata, self.metadata_len, "metadata")?;
            (metadata, text(self.label, "label")?, text(self.directory, "directory")?)
        };
        let sizes = (self.response_metadata_size, self.response_payload_size);
        let config = ClientConfig::new()
            .channel(self.kind()?)
            .wait(wait(self.wait)?)
            .liveness(liveness(self.liveness)?)
            .metadata(metadata)
            .send_timeout(self.send_timeout())
            .resend_not_started(self.resend_not_started != 0);
        let config = set(config, sizes, |config, (metadata, payload)| {
            config.response_buffer(BufferConfig::new(metadata, payload))
        });
        let config = set(config, self.mode, ClientConfig::mode);
        let config = set(config, self.max_in_flight as usize, ClientConfig::max_in_flight);
        let config = set(config, self.ring_size, ClientConfig::ring);
        let config = label.into_iter().fold(config, ClientConfig::label);
        let config = directory.into_iter().fold(config, ClientConfig::directory);
        Ok(if self.has_owner != 0 { config.owner(self.owner) } else { config })
    }

    fn kind(&self) -> Result<ChannelKind> {
        match self.channel {
            ZB_CHANNEL_ANY => Ok(ChannelKind::Any),
            ZB_CHANNEL_IN_PLACE => Ok(ChannelKind::InPlace),
            ZB_CHANNEL_TWO_BUFFERS => Ok(ChannelKind::TwoBuffers),
            ZB_CHANNEL_SERVICE => Ok(ChannelKind::Service),
            other => Err(bad("channel", other, "a ZB_CHANNEL_ constant")),
        }
    }
}

impl zb_reader_config {
    pub(crate) fn reader(&self) -> Result<v1::ReaderConfig> {
        let buffer = BufferConfig::new(self.metadata_size, self.payload_size);
        let config =
            v1::ReaderConfig::new(buffer).wait(wait(self.wait)?).liveness(liveness(self.liveness)?);
        Ok(set(config, self.mode, v1::ReaderConfig::mode))
    }
}

impl zb_writer_config {
    pub(crate) fn writer(&self) -> Result<v1::WriterConfig> {
        let config = v1::WriterConfig::new()
            .wait(wait(self.wait)?)
            .liveness(liveness(self.liveness)?)
            .restart_sequence(self.restart_sequence != 0);
        let config =
            set(config, self.write_timeout_ns, |config, ns| config.write_timeout(duration(ns)));
        Ok(if self.has_owner != 0 { config.owner(self.owner) } else { config })
    }
}
