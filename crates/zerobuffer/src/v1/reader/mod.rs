//! The reader: creates a buffer, owns it, and reads its frames where they lie.

mod core;
mod frames;

pub use frames::{FrameView, OwnedFrameView};

use self::core::Core;
use super::attach;
use super::config::ReaderConfig;
use super::create::{Plan, create};
use super::layout::{Geometry, oieb};
use super::ring::ReaderStatistics;
use crate::closer::Closer;
use crate::config::BufferConfig;
use crate::debug::debug_line;
use crate::error::{Error, Result};
use crate::memory::MemoryProvider;
use crate::name::BufferName;
use crate::tenure::Wanted;
use crate::wait::{Deadline, Peer};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A reader: it creates the buffer, owns it, and removes it when dropped.
///
/// Frames are read where the writer put them. Several can be held at the same time and dropped in any
/// order; the writer gets their space in the order of the ring, so a frame that is held keeps
/// all later ones from being reused.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, v1};
///
/// let name = format!("doc-v1-{}", std::process::id());
/// let reader = v1::Reader::create(&name, BufferConfig::new(64, 4096))?;
/// let mut writer = v1::Writer::connect(&name, Duration::from_secs(5))?;
/// writer.set_metadata(b"text")?;
/// writer.write_frame(b"hello")?;
///
/// let frame = reader.read_frame(Duration::from_secs(5))?;
/// assert_eq!((frame.data(), frame.sequence()), (&b"hello"[..], 1));
/// assert_eq!(reader.metadata()?.as_deref(), Some(&b"text"[..]));
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct Reader {
    core: Arc<Core>,
}

debug_line!(Reader, "Reader", |reader| name: reader.name());

impl Reader {
    /// Creates the buffer `name`; writers can attach as soon as this returns, and not before all of it
    /// is there. What a dead reader of the same name left behind is removed.
    ///
    /// Takes a [`BufferConfig`], or a [`ReaderConfig`] for more than sizes.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if a reader lives, of this library or of an existing v1 program; [`Error::NoSpace`] if
    /// /dev/shm does not have the memory, all of which is reserved here; [`Error::ForeignObject`] if
    /// something else has the name; [`Error::BadName`], [`Error::BadConfig`],
    /// [`Error::PermissionDenied`]; [`Error::Unsupported`] for a configuration over memory that
    /// exists, see [`create_in`](Self::create_in). Nothing is left behind.
    pub fn create(name: &str, config: impl Into<ReaderConfig>) -> Result<Self> {
        let config = config.into();
        if config.buffer.existing.is_some() {
            return Err(Error::Unsupported {
                what: "a version 1 buffer is one piece with its header; use Reader::create_in",
            });
        }
        Self::build(name, &config, None, &|| true)
    }

    /// As [`create`](Self::create), for as long as that is wanted.
    pub(in crate::v1) fn create_while(
        name: &str,
        config: &ReaderConfig,
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        Self::build(name, config, None, wanted)
    }

    /// As [`create`](Self::create), but header, metadata and ring lie at the beginning of `memory`,
    /// which must have [`segment_size`] bytes; only the semaphores and lock files get names. A writer
    /// attaches to the same memory with [`Writer::connect_in`](super::Writer::connect_in).
    ///
    /// # Safety
    /// The memory is this buffer's alone for as long as the reader, a writer that is attached to it, or a
    /// frame of theirs lives: nothing else may lie on any of those bytes, neither a buffer of another name
    /// nor a channel, in this process or another one, and nobody else may access them. Memory says nothing
    /// of who uses it, and can be mapped any number of times, so this cannot be checked here; two buffers
    /// on the same bytes would hand out two `&mut [u8]` to them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::memory::{HeapMemory, MemoryProvider};
    /// use zerobuffer::{BufferConfig, v1};
    ///
    /// let name = format!("doc-v1-heap-{}", std::process::id());
    /// let config = BufferConfig::new(0, 4096);
    /// let mut memory = HeapMemory::new();
    /// memory.allocate(v1::segment_size(&config)?)?;
    /// // SAFETY: nothing else uses this memory.
    /// let reader = unsafe { v1::Reader::create_in(&name, &memory, config)? };
    /// // SAFETY: it is the reader's memory.
    /// let mut writer = unsafe { v1::Writer::connect_in(&name, &memory, Duration::ZERO)? };
    /// writer.write_frame(b"hello")?;
    /// assert_eq!(reader.read_frame(Duration::ZERO)?.data(), b"hello");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// It takes that promise, so safe code cannot make two buffers in one memory:
    ///
    /// ```compile_fail,E0133
    /// # use zerobuffer::memory::{HeapMemory, MemoryProvider};
    /// # use zerobuffer::{BufferConfig, v1};
    /// # let config = BufferConfig::new(0, 4096);
    /// # let mut memory = HeapMemory::new();
    /// # memory.allocate(v1::segment_size(&config)?)?;
    /// let one = v1::Reader::create_in("one", &memory, config.clone())?;
    /// let two = v1::Reader::create_in("two", &memory, config)?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create), and those of [`MemoryProvider::map`].
    // Nothing unsafe is done in here: `v1::frame` rests on the promise.
    #[allow(unsafe_code)]
    pub unsafe fn create_in(
        name: &str,
        memory: &dyn MemoryProvider,
        config: impl Into<ReaderConfig>,
    ) -> Result<Self> {
        Self::build(name, &config.into(), Some(memory), &|| true)
    }

    fn build(
        name: &str,
        config: &ReaderConfig,
        memory: Option<&dyn MemoryProvider>,
        wanted: Wanted<'_>,
    ) -> Result<Self> {
        let name = &BufferName::new(name)?;
        let buffer = &config.buffer;
        let geometry = Geometry::for_request(buffer.metadata_size, buffer.payload_size)?;
        let memory = match memory {
            Some(memory) => Some(memory.map(0, geometry.total() as usize)?),
            None => None,
        };
        if let Some(view) = &memory {
            attach::check_alignment(view.as_ptr().addr())?;
        }
        let (mode, liveness) = (config.mode, config.liveness);
        let plan = Plan { name, geometry, mode, liveness, memory, wanted };
        let core = Core::new(create(&plan)?, config);
        crate::trace::event!(buffer = %name, "created");
        Ok(Self { core: Arc::new(core) })
    }

    /// The buffer's name.
    pub fn name(&self) -> &str {
        self.core.segment.name.as_str()
    }

    /// What closes this reader from another thread: who waits for a frame or for a writer comes back
    /// with [`Error::Closed`]. The buffer stays until the reader is dropped.
    ///
    /// ```
    /// use zerobuffer::{BufferConfig, ErrorKind, v1};
    ///
    /// let name = format!("doc-v1-closer-{}", std::process::id());
    /// let reader = v1::Reader::create(&name, BufferConfig::new(0, 4096))?;
    /// let closer = reader.closer();
    /// std::thread::spawn(move || closer.close());
    /// assert_eq!(reader.read_frame(None).unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    pub fn closer(&self) -> Closer {
        Closer::of(&self.core)
    }

    /// The next frame, waiting for it until `timeout` has passed: zero looks once, `None` waits for
    /// ever.
    ///
    /// Once the writer has ended, what it had written is delivered first; then every call fails at once
    /// until another writer attaches, see [`wait_for_writer`](Self::wait_for_writer).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::NotConnectedYet`] if no writer has been there so far;
    /// [`Error::PeerClosed`] or [`Error::PeerDied`]; [`Error::SequenceGap`] or
    /// [`Error::ProtocolViolation`] if a peer broke the protocol, from then on at every call;
    /// [`Error::Closed`], [`Error::WrongProcess`].
    #[inline]
    pub fn read_frame(&self, timeout: impl Into<Option<Duration>>) -> Result<FrameView<'_>> {
        let deadline = Deadline::after(timeout.into().unwrap_or(Duration::MAX));
        let taken = self.core.read(&deadline, None)?;
        Ok(FrameView::new(&self.core, taken))
    }

    /// The most bytes of a frame that fits wherever the ring stands (rules R1 and R2).
    pub(in crate::v1) fn sure_frame(&self) -> u64 {
        self.core.segment.geometry.sure_frame()
    }

    /// As [`read_frame`](Self::read_frame), but comes back with `Timeout` once `stop` is set.
    pub(in crate::v1) fn read_frame_unless(
        &self,
        timeout: Duration,
        stop: &AtomicBool,
    ) -> Result<FrameView<'_>> {
        let taken = self.core.read(&Deadline::after(timeout), Some(stop))?;
        Ok(FrameView::new(&self.core, taken))
    }

    /// A copy of the metadata; `None` if the writer has set none. Look after the first frame: writers
    /// set it before.
    ///
    /// # Errors
    /// [`Error::ProtocolViolation`] for lengths that do not fit; [`Error::WrongProcess`].
    pub fn metadata(&self) -> Result<Option<Vec<u8>>> {
        self.core.segment.check_process()?;
        self.core.segment.read_metadata()
    }

    /// Whether a live writer is attached at this moment.
    pub fn is_writer_connected(&self) -> bool {
        let core = &self.core;
        core.segment.is_this_process()
            && core.peer() == Peer::Alive
            && core.is_writer_alive() == Some(true)
    }

    /// Waits until a live writer is attached.
    ///
    /// # Errors
    /// [`Error::NotConnectedYet`] when the timeout has passed; [`Error::ProtocolViolation`] if no writer
    /// can attach any more, because a peer wrote over the header; [`Error::Closed`],
    /// [`Error::WrongProcess`].
    pub fn wait_for_writer(&self, timeout: Duration) -> Result<()> {
        self.core.segment.check_process()?;
        let deadline = Deadline::after(timeout);
        while !self.is_writer_connected() {
            self.core.check_usable()?;
            self.core.check_fixed_words()?;
            if deadline.left().is_zero() {
                return Err(Error::NotConnectedYet { waited: timeout });
            }
            crate::sys::sleep(Duration::from_millis(1).min(deadline.left()));
        }
        Ok(())
    }

    /// Whether writers still find the buffer: false once its name, its semaphores or its lock files
    /// were deleted or replaced from outside. A writer that is attached already does not mind.
    pub fn is_in_place(&self) -> bool {
        self.core.segment.is_this_process() && self.core.owned().is_in_place()
    }

    /// What was read and seen so far.
    pub fn statistics(&self) -> ReaderStatistics {
        self.core.ring().statistics
    }

    /// Removes the buffer, as dropping does. Frames that are held stay valid.
    pub fn close(self) {}

    /// The same for a reader that others share: nothing can be sent any more, what was sent can be read.
    pub(in crate::v1) fn remove(&self) {
        // In a forked child there is nothing to remove, and another thread may have had the lock.
        if self.core.segment.is_this_process() {
            self.core.owned().close();
        }
    }

    pub(in crate::v1) fn is_this_process(&self) -> bool {
        self.core.segment.is_this_process()
    }

    /// Whether anything can still be read.
    pub(in crate::v1) fn check_usable(&self) -> Result<()> {
        self.core.check_usable()
    }

    /// Whether writers can attach, according to the header: for callers that do not wait for a frame, as such a
    /// wait checks the same.
    pub(in crate::v1) fn check_fixed_words(&self) -> Result<()> {
        self.core.check_fixed_words()
    }

    /// Whether a token waits to be taken: there is, most probably, a frame.
    pub(in crate::v1) fn has_token(&self) -> bool {
        self.core.segment.is_this_process()
            && self.core.segment.data_ready.semaphore.value().is_some_and(|value| value > 0)
    }

    /// Makes room for the next writer's metadata, if there is no writer. Existing v1 programs never do:
    /// there the first writer's metadata is the last one's as well.
    pub(in crate::v1) fn forget_writer(&self) {
        let control = &self.core.segment.control;
        let written = control.load(oieb::METADATA_WRITTEN_BYTES);
        if self.core.segment.is_this_process() && self.core.segment.writer_pid() == 0 && written > 0
        {
            control.store(oieb::METADATA_FREE_BYTES, self.core.segment.geometry.metadata_size);
            control.replace(oieb::METADATA_WRITTEN_BYTES, written, 0);
        }
    }

    /// Whether a next writer will find everything in order, or one that has come and written nothing yet: asked when
    /// there is nothing to read. A peer that died in the middle of a write, or wrote nonsense, leaves it otherwise.
    pub(in crate::v1) fn is_ready_for_writer(&self) -> bool {
        let segment = &self.core.segment;
        let ring = self.core.ring();
        // One that is there may have metadata, and count as older releases did before it (rule R9).
        let is_forgotten =
            || segment.control.load(oieb::METADATA_WRITTEN_BYTES) == 0 && ring.has_equal_counts();
        segment.is_sound() && ring.is_settled() && (segment.writer_pid() != 0 || is_forgotten())
    }

    /// The id in the header's writer field; 0 if there is none.
    pub(in crate::v1) fn writer_pid(&self) -> u64 {
        self.core.segment.writer_pid()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.remove();
    }
}

/// How many bytes of memory a buffer of these sizes needs, for [`Reader::create_in`].
///
/// ```
/// use zerobuffer::{BufferConfig, v1};
/// // 128 bytes of header; 100 and 1000 are rounded up to 128 and 1024.
/// assert_eq!(v1::segment_size(&BufferConfig::new(100, 1000))?, 1280);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
///
/// # Errors
/// [`Error::BadConfig`].
pub fn segment_size(config: &BufferConfig) -> Result<usize> {
    let geometry = Geometry::for_request(config.metadata_size, config.payload_size)?;
    Ok(geometry.total() as usize)
}
