//! The writer: attaches to a buffer, and writes frames in place.

use super::attach::{Attached, attach};
use super::config::WriterConfig;
use super::liveness::{Pace, SLICE};
use super::ring::{Claim, WriterRing, WriterStatistics};
use crate::closer::{Close, Closer};
use crate::debug::debug_line;
use crate::error::{Error, Medium, Result};
use crate::memory::{MemoryProvider, SharedMemoryView};
use crate::name::BufferName;
use crate::sys;
use crate::v1::layout::oieb;
use crate::v1::segment::Segment;
use crate::wait::{Deadline, Peer, Unready, WaitContext, Waiter, wake};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A writer: it attaches to a buffer that a reader has made, and fills it. One writer at a time.
///
/// | to | use |
/// |---|---|
/// | send bytes that lie elsewhere | [`write_frame`](Self::write_frame) |
/// | build a frame where the reader will read it | [`acquire`](Self::acquire) |
///
/// Frames of up to half of the ring minus 24 bytes can be mixed freely. Of longer ones, only sequences
/// of one length are sure to be placed: see [`Error::WouldNeverFit`].
///
/// Dropping it gives the writer's role back; frames that were written stay there to be read.
///
/// ```
/// use std::time::Duration;
/// use zerobuffer::{BufferConfig, ErrorKind, v1};
///
/// let name = format!("doc-v1-writer-{}", std::process::id());
/// let reader = v1::Reader::create(&name, BufferConfig::new(0, 1024))?;
/// let mut writer = v1::Writer::connect(&name, Duration::from_secs(5))?;
/// let mut frame = writer.acquire(4)?;
/// frame.data_mut().copy_from_slice(b"ring");
/// assert_eq!(frame.commit()?, 1);
/// assert_eq!(reader.read_frame(Duration::from_secs(5))?.data(), b"ring");
/// assert_eq!(writer.write_frame(&[0; 1024]).unwrap_err().kind(), ErrorKind::TooLarge);
/// # Ok::<(), zerobuffer::Error>(())
/// ```
pub struct Writer {
    attached: Attached,
    ring: WriterRing,
    waiter: Waiter,
    write_timeout: Duration,
    pid: u64,
    probed: Pace,
    end: Arc<End>,
}

debug_line!(Writer, "Writer", |writer| name: writer.name(), next_sequence: writer.next_sequence());

/// What closers of a writer share with it.
#[derive(Debug)]
struct End {
    closed: AtomicBool,
    segment: Arc<Segment>,
}

impl Close for End {
    fn is_this_process(&self) -> bool {
        self.segment.is_this_process()
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            // A surplus token does no harm: the writer reads the account (rule R12).
            wake(&self.segment.space_freed.semaphore);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Attaches to the buffer `name`, waiting until `timeout` has passed for it to be there and to have
    /// no other writer; zero tries once.
    ///
    /// # Errors
    /// [`Error::NotRunning`] or [`Error::Busy`] if that has not changed by then;
    /// [`Error::Incompatible`] for a header that is not version 1; [`Error::SequenceUnknown`] if a
    /// previous writer's last sequence cannot be determined; [`Error::BadName`],
    /// [`Error::PermissionDenied`], [`Error::ForeignObject`], [`Error::ProtocolViolation`].
    pub fn connect(name: &str, timeout: Duration) -> Result<Self> {
        Self::connect_with(name, timeout, WriterConfig::default())
    }

    /// As [`connect`](Self::connect), with a configuration of its own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_with(name: &str, timeout: Duration, config: WriterConfig) -> Result<Self> {
        Self::build(name, None, timeout, &config)
    }

    /// As [`connect`](Self::connect), to a buffer in the memory that
    /// [`Reader::create_in`](super::Reader::create_in) was given.
    ///
    /// # Safety
    /// It is the very memory of the reader that has made the buffer `name`, for which the promise of
    /// `create_in` holds.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and those of [`MemoryProvider::map`].
    // Nothing unsafe is done in here: `v1::frame` rests on the promise.
    #[allow(unsafe_code)]
    pub unsafe fn connect_in(
        name: &str,
        memory: &dyn MemoryProvider,
        timeout: Duration,
    ) -> Result<Self> {
        Self::build(name, Some(memory), timeout, &WriterConfig::default())
    }

    fn build(
        name: &str,
        memory: Option<&dyn MemoryProvider>,
        timeout: Duration,
        config: &WriterConfig,
    ) -> Result<Self> {
        let name = &BufferName::new(name)?;
        let (attached, ring) = attach(name, config, memory, &Deadline::after(timeout))?;
        crate::trace::event!(buffer = %name, "attached");
        let segment = Arc::clone(&attached.segment);
        Ok(Self {
            end: Arc::new(End { closed: AtomicBool::new(false), segment }),
            attached,
            ring,
            waiter: Waiter::new(config.wait),
            write_timeout: config.write_timeout,
            pid: u64::from(sys::process_id()),
            probed: Pace::every(SLICE),
        })
    }

    /// The buffer's name.
    pub fn name(&self) -> &str {
        self.attached.segment.name.as_str()
    }

    /// What closes this writer from another thread: a call that waits for space returns with
    /// [`Error::Closed`]. Dropping the writer releases its role.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.end)
    }

    /// Copies `data` into the ring as one frame, and returns its sequence number. Waits for room as long
    /// as [`WriterConfig::write_timeout`] says, in all.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room by then; [`Error::TooLarge`] if the ring can never take the
    /// frame; [`Error::WouldNeverFit`] if it cannot from its present position; [`Error::EmptyFrame`];
    /// [`Error::PeerClosed`] or [`Error::PeerDied`] if the reader has ended; [`Error::Busy`] if another
    /// writer has taken over; [`Error::ProtocolViolation`], [`Error::Closed`], [`Error::WrongProcess`].
    #[inline]
    pub fn write_frame(&mut self, data: &[u8]) -> Result<u64> {
        let mut claim = self.claim(data.len(), self.write_timeout)?;
        self.data_mut(&mut claim).copy_from_slice(data);
        self.commit(claim)
    }

    /// A buffer of `len` bytes in the ring, to be filled in place and committed. Nothing is sent, and
    /// no sequence number is used up, before the commit.
    ///
    /// # Errors
    /// As [`write_frame`](Self::write_frame).
    pub fn acquire(&mut self, len: usize) -> Result<FrameBuffer<'_>> {
        let claim = self.claim(len, self.write_timeout)?;
        Ok(FrameBuffer { writer: self, claim })
    }

    /// The bytes of a claim of this writer's.
    pub(super) fn data_mut<'g>(&'g self, claim: &'g mut Claim) -> &'g mut [u8] {
        match self.attached.segment.is_this_process() {
            true => claim.data_mut(&self.attached.segment.payload),
            false => &mut [],
        }
    }

    /// The same as memory that stays mapped.
    pub(super) fn memory(&self, claim: &Claim) -> SharedMemoryView {
        match self.attached.segment.is_this_process() {
            true => self.attached.segment.payload.window(claim.data_start(), claim.len()),
            false => SharedMemoryView::empty(),
        }
    }

    /// Describes the stream, once in the buffer's life; to be called before the first frame.
    ///
    /// # Errors
    /// [`Error::MetadataAlreadyWritten`], by this writer or a previous one; [`Error::TooLarge`] if the
    /// block does not hold the bytes and 8 more; [`Error::EmptyFrame`] for no bytes, which C++ and
    /// Python readers fail on; [`Error::PeerClosed`], [`Error::Busy`], [`Error::WrongProcess`].
    pub fn set_metadata(&mut self, metadata: &[u8]) -> Result<()> {
        self.check()?;
        self.attached.segment.write_metadata(metadata)
    }

    /// How long a write waits for room from now on, see [`WriterConfig::write_timeout`].
    pub fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    /// Waits until the reader has taken every frame; it may still hold the last ones. To be called before a writer
    /// is dropped whose reader must see all: existing C++ readers stop at once when their writer has left.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerobuffer::{BufferConfig, ErrorKind, v1};
    ///
    /// let name = format!("doc-drain-{}", std::process::id());
    /// let reader = v1::Reader::create(&name, BufferConfig::new(0, 4096))?;
    /// let mut writer = v1::Writer::connect(&name, Duration::ZERO)?;
    /// writer.write_frame(b"one frame")?;
    /// assert_eq!(writer.drain(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
    /// let _frame = reader.read_frame(Duration::ZERO)?;
    /// writer.drain(Duration::ZERO)?;
    /// # Ok::<(), zerobuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`] if frames are left by then; [`Error::PeerClosed`] or [`Error::PeerDied`] if the reader
    /// has left them unread; [`Error::Busy`], [`Error::WrongProcess`], [`Error::Closed`].
    pub fn drain(&mut self, timeout: Duration) -> Result<()> {
        if self.is_all_taken() {
            return Ok(());
        }
        self.check()?;
        let deadline = Deadline::after(timeout);
        let semaphore = &self.attached.segment.space_freed.semaphore;
        let wait = RoomWait { writer: self, stop: None };
        let waited =
            self.waiter.wait(semaphore, &deadline, &wait, || self.is_all_taken().then_some(Ok(())));
        waited.unwrap_or_else(|unready| match unready {
            // It may have taken the last one just before it left.
            _ if self.is_all_taken() => Ok(()),
            Unready::Gone(peer) => end_of(peer),
            Unready::Stopped if self.end.is_closed() => Err(Error::Closed),
            _ => {
                let what = "waiting for the reader to take every frame";
                Err(Error::Timeout { waited: deadline.timeout(), what })
            }
        })
    }

    /// Whether the reader is there at this moment, and the buffer's name still its own.
    pub fn is_reader_connected(&self) -> bool {
        self.attached.segment.is_this_process() && self.look_at_reader() == Peer::Alive
    }

    /// The longest frame that the ring can take at its beginning.
    pub fn max_frame_size(&self) -> usize {
        self.attached.segment.geometry.max_frame() as usize
    }

    /// What was written so far.
    pub fn statistics(&self) -> WriterStatistics {
        self.ring.statistics
    }

    /// The sequence number that the next frame gets: 1, or after a previous writer the one that follows
    /// its last.
    pub fn next_sequence(&self) -> u64 {
        self.ring.next_sequence()
    }

    /// Whether metadata is there, this writer's or a previous one's.
    pub(super) fn has_metadata(&self) -> bool {
        self.attached.segment.control.load(oieb::METADATA_WRITTEN_BYTES) > 0
    }

    /// Whether the reader has taken everything and released it.
    pub(super) fn is_drained(&self) -> bool {
        let free = self.attached.segment.control.load(oieb::PAYLOAD_FREE_BYTES);
        self.has_equal_positions() && free == self.attached.segment.geometry.payload_size
    }

    /// Whether the reader has taken everything. Equal positions also stand in a full ring.
    fn is_all_taken(&self) -> bool {
        let free = self.attached.segment.control.load(oieb::PAYLOAD_FREE_BYTES);
        self.has_equal_positions() && free > 0
    }

    fn has_equal_positions(&self) -> bool {
        let size = self.attached.segment.geometry.payload_size;
        let [write, read] = [oieb::PAYLOAD_WRITE_POS, oieb::PAYLOAD_READ_POS]
            .map(|offset| self.attached.segment.control.load(offset) % size);
        write == read
    }

    /// The segment that it writes, for others that watch its reader.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.attached.segment
    }

    /// Whether the reader has closed the buffer, as the header says.
    pub(super) fn is_closed(&self) -> bool {
        self.attached.segment.reader_pid() == 0
    }

    /// The id in the header's reader field.
    pub(super) fn reader_pid(&self) -> u64 {
        self.attached.segment.reader_pid()
    }

    // ---- writing ----

    /// Whether writing makes sense at all.
    #[inline]
    fn check(&self) -> Result<()> {
        let segment = &self.attached.segment;
        segment.check_process()?;
        if self.end.is_closed() {
            return Err(Error::Closed);
        }
        // Another writer may have taken us for dead (rule L13).
        if segment.writer_pid() != self.pid {
            return Err(Error::Busy { medium: Medium::Buffer, name: segment.name.to_string() });
        }
        match segment.reader_pid() {
            0 => Err(Error::PeerClosed { request: None }),
            _ => Ok(()),
        }
    }

    /// Finds room for a frame, waiting until one deadline for all of it (rule T3).
    #[inline]
    pub(super) fn claim(&mut self, len: usize, timeout: Duration) -> Result<Claim> {
        let (claim, has_room) = self.place(len)?;
        if !has_room {
            self.wait_for_room(&claim, &Deadline::after(timeout), None)?;
        }
        Ok(claim)
    }

    /// Where a frame goes, and whether there is room; if not, it [must wait](Self::wait_for_room) before
    /// its bytes may be touched, and counts as one that has waited.
    #[inline]
    pub(super) fn place(&mut self, len: usize) -> Result<(Claim, bool)> {
        self.check()?;
        // Once in a while, even if there always is room: the reader of an orphaned ring never makes
        // any, and until then every frame would be lost (rules L10 and P4).
        if self.probed.is_due() {
            end_of(self.look_at_reader())?;
        }
        let claim = self.ring.claim(len as u64)?;
        let has_room = self.ring.shortage(&claim)?.is_none();
        if !has_room {
            self.ring.statistics.waits += 1;
        }
        Ok((claim, has_room))
    }

    /// Waits until there is room for a frame; may be called again after `Full`.
    #[cold]
    pub(super) fn wait_for_room(
        &self,
        claim: &Claim,
        deadline: &Deadline,
        stop: Option<&AtomicBool>,
    ) -> Result<()> {
        self.check()?;
        let semaphore = &self.attached.segment.space_freed.semaphore;
        let free = Cell::new(0);
        let wait = RoomWait { writer: self, stop };
        // Tokens that have piled up are taken one by one; the account says whether there is room.
        let waited =
            self.waiter.wait(semaphore, deadline, &wait, || match self.ring.shortage(claim) {
                Ok(None) => Some(Ok(())),
                Ok(Some(shortage)) => {
                    free.set(shortage);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        waited.unwrap_or_else(|unready| match unready {
            Unready::Gone(peer) => end_of(peer),
            Unready::Stopped if self.end.is_closed() => Err(Error::Closed),
            _ => Err(self.full(claim, free.get())),
        })
    }

    fn full(&self, claim: &Claim, free: u64) -> Error {
        let count = |field| self.attached.segment.control.load(field);
        let written = count(oieb::PAYLOAD_WRITTEN_COUNT);
        Error::Full {
            medium: Medium::Buffer,
            needed: claim.required(),
            free,
            in_flight: written.saturating_sub(count(oieb::PAYLOAD_READ_COUNT)),
            held: 0,
        }
    }

    #[inline]
    pub(super) fn commit(&mut self, claim: Claim) -> Result<u64> {
        self.check()?;
        let sequence = self.ring.commit(claim);
        // One token for one frame, always: existing readers act on tokens alone (rule R10).
        self.attached.segment.data_ready.semaphore.post();
        // Keeps the tokens for freed space from piling up: at 2^31 a C++ reader dies (rule R12).
        self.attached.segment.space_freed.semaphore.try_wait();
        Ok(sequence)
    }

    fn look_at_reader(&self) -> Peer {
        let segment = &self.attached.segment;
        let pid = segment.reader_pid();
        let is_there =
            pid != 0 && self.attached.reader.is_reader_alive(pid) && !segment.is_replaced();
        match is_there {
            true => Peer::Alive,
            // It may have closed, and another one come, since its id was read.
            false if segment.reader_pid() == 0 => Peer::Closed,
            false => Peer::Died,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.attached.close();
    }
}

fn end_of(reader: Peer) -> Result<()> {
    match reader {
        Peer::Alive => Ok(()),
        Peer::Closed => Err(Error::PeerClosed { request: None }),
        Peer::Died => Err(Error::PeerDied { request: None }),
    }
}

/// What one wait for space checks.
struct RoomWait<'w> {
    writer: &'w Writer,
    stop: Option<&'w AtomicBool>,
}

impl WaitContext for RoomWait<'_> {
    fn peer(&self) -> Peer {
        match self.writer.is_closed() {
            true => Peer::Closed,
            false => Peer::Alive,
        }
    }

    fn probe(&self) -> Peer {
        self.writer.look_at_reader()
    }

    fn slice(&self) -> Duration {
        SLICE
    }

    fn stopped(&self) -> bool {
        self.writer.end.is_closed() || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// A frame that is being written in place. [`commit`](Self::commit) sends it; dropping it sends
/// nothing and changes nothing.
///
/// Its bytes hold whatever was there before: write all of them.
pub struct FrameBuffer<'w> {
    writer: &'w mut Writer,
    claim: Claim,
}

debug_line!(FrameBuffer<'_>, "FrameBuffer", |buffer| len: buffer.len());

impl FrameBuffer<'_> {
    /// The frame's bytes, in shared memory; empty in a forked child.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.writer.data_mut(&mut self.claim)
    }

    /// The bytes as memory that stays mapped for as long as the view lives, even after the commit: for
    /// code that hands out their address, like a binding for another language. They are the holder's
    /// alone only until then. Empty in a forked child.
    pub fn memory(&self) -> SharedMemoryView {
        self.writer.memory(&self.claim)
    }

    /// The frame's length in bytes.
    pub fn len(&self) -> usize {
        self.claim.len() as usize
    }

    /// Never: a frame has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Sends the frame, and returns its sequence number.
    ///
    /// # Errors
    /// [`Error::PeerClosed`] if the reader has closed meanwhile; [`Error::Busy`] if another writer has
    /// taken over; [`Error::WrongProcess`].
    pub fn commit(self) -> Result<u64> {
        let Self { writer, claim } = self;
        writer.commit(claim)
    }
}
