//! The reader: creates a buffer, owns it, and reads its frames where they lie.

use super::config::ReaderConfig;
use super::create::{Owned, Plan, create};
use super::layout::{Geometry, oieb};
use super::liveness::{Pace, PeerWatch, SLICE};
use super::ring::{Look, ReaderRing, ReaderStatistics, Taken};
use super::{attach, segment::Segment};
use crate::config::BufferConfig;
use crate::error::{Error, Result};
use crate::memory::{MemoryProvider, SharedMemoryView};
use crate::name::BufferName;
use crate::wait::{Deadline, Peer, Unready, Waiter, Watch};
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Tokens for freed space pile up while a writer does not need them; beyond this many no more are
/// posted. A writer takes them one by one and looks at the account after each, so none is missed
/// (rule R12).
const MAX_SPACE_TOKENS: i32 = 1 << 20;

/// After so many slices without a token, a frame is looked for without one (rule R11).
const LOOK_EVERY: u32 = 10;

/// A reader: it creates the buffer, owns it, and removes it when dropped.
///
/// Frames are read where the writer put them. Several can be held at the same time and dropped in any
/// order; their space goes back to the writer in the order of the ring, so a frame that is held keeps
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
#[derive(Debug)]
pub struct Reader {
    core: Arc<Core>,
}

impl Reader {
    /// Creates the buffer `name`; writers can attach as soon as this returns, and not before all of it
    /// is there. What a dead reader of the same name left behind is removed.
    ///
    /// Takes a [`BufferConfig`], or a [`ReaderConfig`] for more than sizes.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if a reader lives, ours or a deployed one; [`Error::NoSpace`] if
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
        Self::build(name, &config, None)
    }

    /// As [`create`](Self::create), but header, metadata and ring lie at the beginning of `memory`,
    /// which must have [`segment_size`] bytes; only the semaphores and lock files get names. A writer
    /// attaches to the same memory with [`Writer::connect_in`](super::Writer::connect_in).
    ///
    /// The memory is the buffer's alone for as long as the reader or one of its frames lives.
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
    /// let reader = v1::Reader::create_in(&name, &memory, config)?;
    /// let mut writer = v1::Writer::connect_in(&name, &memory, Duration::ZERO)?;
    /// writer.write_frame(b"hello")?;
    /// assert_eq!(reader.read_frame(Duration::ZERO)?.data(), b"hello");
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create), and those of [`MemoryProvider::map`].
    pub fn create_in(
        name: &str,
        memory: &dyn MemoryProvider,
        config: impl Into<ReaderConfig>,
    ) -> Result<Self> {
        Self::build(name, &config.into(), Some(memory))
    }

    fn build(
        name: &str,
        config: &ReaderConfig,
        memory: Option<&dyn MemoryProvider>,
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
        let plan = Plan { name, geometry, mode: config.mode, liveness: config.liveness, memory };
        let core = Core::new(create(&plan)?, config);
        crate::trace::event!(buffer = %name, "created");
        Ok(Self { core: Arc::new(core) })
    }

    /// The buffer's name.
    pub fn name(&self) -> &str {
        self.core.segment.name.as_str()
    }

    /// The next frame, waiting for it until `timeout` has passed: zero looks once, `None` waits for
    /// ever.
    ///
    /// Once the writer is gone, what it had written is delivered first; then every call fails at once
    /// until another writer attaches, see [`wait_for_writer`](Self::wait_for_writer).
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::NotConnectedYet`] if no writer has been there so far;
    /// [`Error::PeerClosed`] or [`Error::PeerDied`]; [`Error::SequenceGap`] or
    /// [`Error::ProtocolViolation`] if a peer broke the protocol, from then on at every call;
    /// [`Error::WrongProcess`].
    #[inline]
    pub fn read_frame(&self, timeout: impl Into<Option<Duration>>) -> Result<Frame<'_>> {
        let deadline = Deadline::after(timeout.into().unwrap_or(Duration::MAX));
        let taken = self.core.read(&deadline, None)?;
        Ok(Frame { core: &self.core, taken })
    }

    /// As [`read_frame`](Self::read_frame), but comes back with `Timeout` once `stop` is set.
    pub(super) fn read_frame_unless(
        &self,
        timeout: Duration,
        stop: &AtomicBool,
    ) -> Result<Frame<'_>> {
        let taken = self.core.read(&Deadline::after(timeout), Some(stop))?;
        Ok(Frame { core: &self.core, taken })
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
        core.segment.is_ours() && core.peer() == Peer::Alive && core.is_writer_alive() == Some(true)
    }

    /// Waits until a live writer is attached.
    ///
    /// # Errors
    /// [`Error::NotConnectedYet`] when the timeout has passed; [`Error::WrongProcess`].
    pub fn wait_for_writer(&self, timeout: Duration) -> Result<()> {
        self.core.segment.check_process()?;
        let deadline = Deadline::after(timeout);
        while !self.is_writer_connected() {
            if deadline.left().is_zero() {
                return Err(Error::NotConnectedYet { waited: timeout });
            }
            std::thread::sleep(Duration::from_millis(1).min(deadline.left()));
        }
        Ok(())
    }

    /// Whether writers still find the buffer: false once its name, its semaphores or its lock files
    /// were deleted or replaced from outside. A writer that is attached already does not mind.
    pub fn is_in_place(&self) -> bool {
        let owned = self.core.owned();
        self.core.segment.is_ours() && owned.is_in_place()
    }

    /// What was read and seen so far.
    pub fn statistics(&self) -> ReaderStatistics {
        self.core.ring().statistics
    }

    /// Removes the buffer, as dropping does. Frames that are held stay valid.
    pub fn close(self) {}

    /// Whether writers can attach, as far as the header says: for who does not wait for a frame, which
    /// looks at the same.
    pub(super) fn check_fixed_words(&self) -> Result<()> {
        self.core.check_fixed_words()
    }

    /// Whether a token waits to be taken: there is, most probably, a frame.
    pub(super) fn has_token(&self) -> bool {
        self.core.segment.is_ours()
            && self.core.segment.data_ready.semaphore.value().is_some_and(|value| value > 0)
    }

    /// Makes room for the next writer's metadata, if there is no writer. Deployed readers never do:
    /// there the first writer's metadata is the last one's as well.
    pub(super) fn forget_writer(&self) {
        let control = &self.core.segment.control;
        let written = control.load(oieb::METADATA_WRITTEN_BYTES);
        if self.core.segment.is_ours() && self.core.segment.writer_pid() == 0 && written > 0 {
            control.store(oieb::METADATA_FREE_BYTES, self.core.segment.geometry.metadata_size);
            control.replace(oieb::METADATA_WRITTEN_BYTES, written, 0);
        }
    }

    /// Whether a next writer will find everything in order: asked when there is no writer and nothing
    /// to read. A peer that died in the middle of a write, or wrote nonsense, leaves it otherwise.
    pub(super) fn is_ready_for_writer(&self) -> bool {
        let segment = &self.core.segment;
        let account_is_right = || {
            segment.control.load(oieb::METADATA_WRITTEN_BYTES) == 0 && self.core.ring().is_settled()
        };
        segment.is_sound() && (segment.writer_pid() != 0 || account_is_right())
    }

    /// The id in the header's writer field; 0 if there is none.
    pub(super) fn writer_pid(&self) -> u64 {
        self.core.segment.writer_pid()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.core.owned().close();
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

/// What readers and their frames share.
#[derive(Debug)]
struct Core {
    segment: Arc<Segment>,
    owned: Mutex<Owned>,
    ring: Mutex<ReaderRing>,
    /// What made the buffer unusable (rule R15).
    fault: OnceLock<Error>,
    waiter: Waiter,
    writer: PeerWatch,
    /// The id of the writer that was seen last; 0 before any.
    seen_writer: AtomicU64,
    /// That writer died: its id was cleared by us.
    writer_died: AtomicBool,
    probed: Pace,
}

/// How a frame announced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Token,
    /// It is published, but its token is missing (rule R11).
    Published,
}

impl Core {
    fn new(owned: Owned, config: &ReaderConfig) -> Self {
        let segment = Arc::clone(&owned.segment);
        let (control, headers) = (segment.control.clone(), segment.headers.clone());
        Self {
            ring: Mutex::new(ReaderRing::new(control, headers, segment.geometry.payload_size)),
            fault: OnceLock::new(),
            waiter: Waiter::new(config.wait),
            writer: PeerWatch::new(config.liveness, &segment.name),
            seen_writer: AtomicU64::new(0),
            writer_died: AtomicBool::new(false),
            probed: Pace::every(SLICE),
            owned: Mutex::new(owned),
            segment,
        }
    }

    #[inline]
    fn ring(&self) -> MutexGuard<'_, ReaderRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn read(&self, deadline: &Deadline, stop: Option<&AtomicBool>) -> Result<Taken> {
        self.segment.check_process()?;
        loop {
            if let Some(fault) = self.fault.get() {
                return Err(fault.clone());
            }
            let taken = match self.wait(deadline, stop) {
                Ok(arrival) => self.take(arrival)?,
                Err(unready) => return Err(self.end(unready, deadline)),
            };
            match taken {
                Some(taken) => return Ok(taken),
                // A flood of tokens without frames must not keep a call beyond its deadline.
                None if deadline.left().is_zero() => {
                    return Err(self.end(Unready::Timeout, deadline));
                }
                None => {}
            }
        }
    }

    /// Waits for a token; without one, looks for a published frame once in a while and at the end of
    /// the writer (rules R11 and T6).
    #[inline]
    fn wait(
        &self,
        deadline: &Deadline,
        stop: Option<&AtomicBool>,
    ) -> std::result::Result<Arrival, Unready> {
        let semaphore = &self.segment.data_ready.semaphore;
        let turn = Turn {
            core: self,
            stop,
            token: Cell::new(false),
            look: Cell::new(false),
            probes: Cell::new(0),
        };
        self.waiter.wait(semaphore, deadline, &turn, || {
            if turn.token.take() || semaphore.try_wait() {
                return Some(Arrival::Token);
            }
            (turn.look.take() && self.is_published()).then_some(Arrival::Published)
        })
    }

    fn is_published(&self) -> bool {
        matches!(self.ring().look(), Ok(Look::Frame(found)) if found.accounted)
    }

    /// Takes the frame that has announced itself; `None` if there is none.
    #[inline]
    fn take(&self, arrival: Arrival) -> Result<Option<Taken>> {
        let mut ring = self.ring();
        match ring.look() {
            Ok(Look::Frame(found)) => {
                if arrival == Arrival::Published {
                    ring.statistics.missing_tokens += 1;
                }
                Ok(Some(ring.take(found)))
            }
            Ok(Look::Nothing) => {
                ring.statistics.spurious_tokens += 1;
                Ok(None)
            }
            Err(fault) => Err(self.poison(fault)),
        }
    }

    /// Nothing more is read from now on.
    #[cold]
    fn poison(&self, fault: Error) -> Error {
        crate::trace::event!(buffer = %self.segment.name, %fault, "poisoned");
        self.fault.get_or_init(|| fault).clone()
    }

    fn check_fixed_words(&self) -> Result<()> {
        self.segment.check_fixed_words().map_err(|fault| self.poison(fault))
    }

    /// Why there is no frame (rule T5).
    #[cold]
    fn end(&self, unready: Unready, deadline: &Deadline) -> Error {
        let mut peer = match unready {
            Unready::Gone(peer) => peer,
            _ => self.peer(),
        };
        // Whoever polls with short timeouts never waits through a slice.
        if peer == Peer::Alive && self.probed.is_due() {
            peer = self.probe();
        }
        if let Some(fault) = self.fault.get() {
            return fault.clone();
        }
        let waited = deadline.timeout();
        match peer {
            Peer::Closed => Error::PeerClosed { request: None },
            Peer::Died => Error::PeerDied { request: None },
            Peer::Alive if !self.has_seen_writer() => Error::NotConnectedYet { waited },
            Peer::Alive => Error::Timeout { waited, what: "waiting for a frame" },
        }
    }

    fn has_seen_writer(&self) -> bool {
        // A writer that came and went unseen has left something.
        self.seen_writer.load(Ordering::Relaxed) != 0
            || self.ring().statistics.frames > 0
            || self.segment.control.load(oieb::METADATA_WRITTEN_BYTES) > 0
    }

    /// Whether the writer in the header is alive; `None` if there is none.
    fn is_writer_alive(&self) -> Option<bool> {
        let pid = self.segment.writer_pid();
        (pid != 0).then(|| self.writer.is_writer_alive(pid))
    }

    /// How the writer fares, as the header says.
    fn peer(&self) -> Peer {
        let pid = self.segment.writer_pid();
        if pid != 0 {
            if self.seen_writer.swap(pid, Ordering::Relaxed) != pid {
                self.writer_died.store(false, Ordering::Relaxed);
            }
            return Peer::Alive;
        }
        if !self.has_seen_writer() {
            return Peer::Alive;
        }
        if self.writer_died.load(Ordering::Relaxed) { Peer::Died } else { Peer::Closed }
    }

    /// How the writer fares, as the system says. A dead writer's id is cleared: C# readers would
    /// destroy a live buffer that has one (rule L8). Once the buffer is of no use to any writer there
    /// is nothing left to wait for.
    fn probe(&self) -> Peer {
        if self.check_fixed_words().is_err() {
            return Peer::Died;
        }
        let pid = self.segment.writer_pid();
        if pid == 0 || self.writer.is_writer_alive(pid) {
            return self.peer();
        }
        self.seen_writer.store(pid, Ordering::Relaxed);
        self.writer_died.store(true, Ordering::Relaxed);
        self.segment.control.replace(oieb::WRITER_PID, pid, 0);
        crate::trace::event!(buffer = %self.segment.name, pid, "writer died");
        Peer::Died
    }

    #[inline]
    fn release(&self, taken: &Taken) {
        if !self.segment.is_ours() {
            return;
        }
        let tokens = self.ring().release(taken);
        let semaphore = &self.segment.space_freed.semaphore;
        for _ in 0..tokens {
            if semaphore.value().is_none_or(|value| value < MAX_SPACE_TOKENS) {
                semaphore.post();
            }
        }
    }

    fn data<'f>(&'f self, taken: &'f Taken) -> &'f [u8] {
        match self.segment.is_ours() {
            true => taken.data(&self.segment.payload),
            false => &[],
        }
    }

    fn memory(&self, taken: &Taken) -> SharedMemoryView {
        match self.segment.is_ours() {
            true => self.segment.payload.window(taken.data_start, taken.len),
            false => SharedMemoryView::empty(),
        }
    }
}

/// What one wait for a frame looks at.
struct Turn<'t> {
    core: &'t Core,
    stop: Option<&'t AtomicBool>,
    /// A token was taken while sleeping.
    token: Cell<bool>,
    /// It is time to look for a frame without a token.
    look: Cell<bool>,
    /// How often the writer was probed.
    probes: Cell<u32>,
}

impl Watch for Turn<'_> {
    fn peer(&self) -> Peer {
        let peer = self.core.peer();
        if peer != Peer::Alive {
            self.look.set(true);
        }
        peer
    }

    fn probe(&self) -> Peer {
        let peer = self.core.probe();
        self.probes.set(self.probes.get() + 1);
        // A live writer between its account and its token is given more time than a dead one.
        if peer != Peer::Alive || self.probes.get().is_multiple_of(LOOK_EVERY) {
            self.look.set(true);
        }
        peer
    }

    fn slice(&self) -> Duration {
        SLICE
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn woken(&self) {
        self.token.set(true);
    }
}

/// A frame, read where the writer put it. Its space goes back when it is dropped.
#[derive(Debug)]
pub struct Frame<'r> {
    core: &'r Arc<Core>,
    taken: Taken,
}

impl Frame<'_> {
    /// The same frame, free of the reader's borrow: it may outlive the reader. Nothing is copied.
    pub fn into_owned(self) -> OwnedFrame {
        let this = ManuallyDrop::new(self);
        OwnedFrame { core: Arc::clone(this.core), taken: this.taken.transfer() }
    }
}

impl Drop for Frame<'_> {
    #[inline]
    fn drop(&mut self) {
        self.core.release(&self.taken);
    }
}

/// As [`Frame`], but it may outlive the reader that read it.
#[derive(Debug)]
pub struct OwnedFrame {
    core: Arc<Core>,
    taken: Taken,
}

impl Drop for OwnedFrame {
    fn drop(&mut self) {
        self.core.release(&self.taken);
    }
}

macro_rules! frame_methods {
    ($type:ty) => {
        impl $type {
            /// The frame's bytes, in shared memory; empty in a forked child.
            #[inline]
            pub fn data(&self) -> &[u8] {
                self.core.data(&self.taken)
            }

            /// The bytes as memory that stays mapped for as long as the view lives, even after the
            /// frame was given back: for code that hands out their address, like a binding for another
            /// language. They are the holder's alone only while the frame lives. Empty in a forked child.
            pub fn memory(&self) -> SharedMemoryView {
                self.core.memory(&self.taken)
            }

            /// The frame's length in bytes. C# writers can send frames of no bytes.
            pub fn len(&self) -> usize {
                self.taken.len as usize
            }

            /// Whether the frame has no bytes.
            pub fn is_empty(&self) -> bool {
                self.taken.len == 0
            }

            /// The frame's sequence number, as its writer counts: from 1.
            pub fn sequence(&self) -> u64 {
                self.taken.sequence
            }

            /// Whether this is a writer's first frame. Deployed writers start again at 1 when they
            /// attach to a used buffer; ours go on.
            pub fn is_first(&self) -> bool {
                self.taken.first
            }
        }

        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                self.data()
            }
        }
    };
}

frame_methods!(Frame<'_>);
frame_methods!(OwnedFrame);
