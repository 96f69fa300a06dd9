//! What one buffer's reader and the frames that it handed out have in common: the ring, the wait for a
//! frame, and how the writer fares.

use crate::closer::Close;
use crate::error::{Error, Result};
use crate::memory::SharedMemoryView;
use crate::v1::config::ReaderConfig;
use crate::v1::create::Owned;
use crate::v1::layout::oieb;
use crate::v1::liveness::{Pace, PeerWatch, SLICE};
use crate::v1::ring::{Look, ReaderRing, Taken};
use crate::v1::segment::Segment;
use crate::wait::{Deadline, Peer, Unready, WaitContext, Waiter, wake};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Tokens for freed space pile up while a writer does not need them; beyond this many no more are
/// posted. A writer takes them one by one and reads the account after each, so it misses none
/// (rule R12).
const MAX_SPACE_TOKENS: i32 = 1 << 20;

/// After so many slices without a token, a frame is looked for without one (rule R11).
const LOOK_EVERY: u32 = 10;

/// What readers and their frames share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) segment: Arc<Segment>,
    owned: Mutex<Owned>,
    ring: Mutex<ReaderRing>,
    /// What stands in the place of the next frame, so that nothing can be read any more (rule R15); or
    /// that the reader was closed.
    fault: OnceLock<Error>,
    closed: AtomicBool,
    /// What keeps writers out from now on (rule R17). What was sent before can be read.
    damage: OnceLock<Error>,
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
    pub(super) fn new(owned: Owned, config: &ReaderConfig) -> Self {
        let segment = Arc::clone(&owned.segment);
        let (control, headers) = (segment.control.clone(), segment.headers.clone());
        Self {
            ring: Mutex::new(ReaderRing::new(control, headers, segment.geometry.payload_size)),
            fault: OnceLock::new(),
            closed: AtomicBool::new(false),
            damage: OnceLock::new(),
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
    pub(super) fn ring(&self) -> MutexGuard<'_, ReaderRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn read(&self, deadline: &Deadline, stop: Option<&AtomicBool>) -> Result<Taken> {
        self.segment.check_process()?;
        loop {
            self.check_usable()?;
            let unready = match self.wait(deadline, stop) {
                Ok(arrival) => match self.take(arrival)? {
                    Some(taken) => return Ok(taken),
                    // A flood of tokens without frames must not keep a call beyond its deadline.
                    None if deadline.left().is_zero() => Unready::Timeout,
                    None => continue,
                },
                Err(unready) => unready,
            };
            if let Some(taken) = self.end(unready, deadline)? {
                return Ok(taken);
            }
        }
    }

    /// Waits for a token; without one, looks for a published frame once in a while (rule R11).
    #[inline]
    fn wait(
        &self,
        deadline: &Deadline,
        stop: Option<&AtomicBool>,
    ) -> std::result::Result<Arrival, Unready> {
        let semaphore = &self.segment.data_ready.semaphore;
        let frame_wait = FrameWait {
            core: self,
            stop,
            token: Cell::new(false),
            look: Cell::new(false),
            probes: Cell::new(0),
        };
        self.waiter.wait(semaphore, deadline, &frame_wait, || {
            if frame_wait.token.take() || semaphore.try_wait() {
                return Some(Arrival::Token);
            }
            (frame_wait.look.take() && self.is_published()).then_some(Arrival::Published)
        })
    }

    /// Whether anything can still be read.
    #[inline]
    pub(super) fn check_usable(&self) -> Result<()> {
        match self.fault.get() {
            None => Ok(()),
            Some(fault) => Err(self.fail(fault)),
        }
    }

    #[cold]
    fn fail(&self, fault: &Error) -> Error {
        if self.is_closed() && self.segment.is_this_process() {
            // Only one of those who sleep took the token: each passes it on.
            wake(&self.segment.data_ready.semaphore);
        }
        fault.clone()
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

    pub(super) fn check_fixed_words(&self) -> Result<()> {
        self.segment.check_fixed_words().map_err(|damage| {
            crate::trace::event!(buffer = %self.segment.name, %damage, "words written over");
            self.damage.get_or_init(|| damage).clone()
        })
    }

    /// Why there is no frame (rule T5); or the one that a writer has published that has ended, token or not (rules R11
    /// and T6), noticed here or before.
    #[cold]
    fn end(&self, unready: Unready, deadline: &Deadline) -> Result<Option<Taken>> {
        let peer = self.peer_after(unready);
        if peer != Peer::Alive && !self.is_closed() && self.is_published() {
            let has_token = self.segment.data_ready.semaphore.try_wait();
            return self.take(if has_token { Arrival::Token } else { Arrival::Published });
        }
        Err(self.why(peer, deadline))
    }

    fn peer_after(&self, unready: Unready) -> Peer {
        let mut peer = match unready {
            Unready::Gone(peer) => peer,
            _ => self.peer(),
        };
        // A caller that polls with short timeouts never waits through a slice, and no caller does once the
        // writer has ended.
        if self.probed.is_due() {
            let probed = self.probe();
            peer = if peer == Peer::Alive { probed } else { peer };
        }
        peer
    }

    fn why(&self, peer: Peer, deadline: &Deadline) -> Error {
        if self.is_closed() {
            return Error::Closed;
        }
        if let Some(damage) = self.damage.get() {
            return damage.clone();
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
    pub(super) fn is_writer_alive(&self) -> Option<bool> {
        let pid = self.segment.writer_pid();
        (pid != 0).then(|| self.writer.is_writer_alive(pid))
    }

    /// How the writer fares, as the header says.
    pub(super) fn peer(&self) -> Peer {
        if self.damage.get().is_some() {
            return Peer::Died;
        }
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
    pub(super) fn release(&self, taken: &Taken) {
        if !self.segment.is_this_process() {
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

    #[inline]
    pub(super) fn data<'f>(&'f self, taken: &'f Taken) -> &'f [u8] {
        match self.segment.is_this_process() {
            true => taken.data(&self.segment.payload),
            false => &[],
        }
    }

    pub(super) fn memory(&self, taken: &Taken) -> SharedMemoryView {
        match self.segment.is_this_process() {
            true => self.segment.payload.window(taken.data_start, taken.len),
            false => SharedMemoryView::empty(),
        }
    }
}

impl Close for Core {
    fn is_this_process(&self) -> bool {
        self.segment.is_this_process()
    }

    fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            self.fault.get_or_init(|| Error::Closed);
            wake(&self.segment.data_ready.semaphore);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// What one wait for a frame checks.
struct FrameWait<'t> {
    core: &'t Core,
    stop: Option<&'t AtomicBool>,
    /// A token was taken while sleeping.
    token: Cell<bool>,
    /// It is time to look for a frame without a token.
    look: Cell<bool>,
    /// How often the writer was probed.
    probes: Cell<u32>,
}

impl WaitContext for FrameWait<'_> {
    fn peer(&self) -> Peer {
        self.core.peer()
    }

    fn probe(&self) -> Peer {
        self.probes.set(self.probes.get() + 1);
        // A live writer between its account and its token is given time. What one has left that has ended is looked for
        // when the wait has.
        if self.probes.get().is_multiple_of(LOOK_EVERY) {
            self.look.set(true);
        }
        self.core.probe()
    }

    fn slice(&self) -> Duration {
        SLICE
    }

    fn stopped(&self) -> bool {
        self.core.is_closed() || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn woken(&self) {
        self.token.set(true);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::BufferConfig;
    use crate::v1::{Reader, Writer};

    /// The time is over first, then the writer publishes its last frame and ends, and that end is seen.
    #[test]
    fn what_a_writer_published_last_comes_before_its_end_however_that_is_noticed() {
        let name = format!("last-frame-{}", std::process::id());
        let long = Duration::from_secs(30);
        for is_over in [Unready::Timeout, Unready::Stopped, Unready::Gone(Peer::Closed)] {
            let reader = Reader::create(&name, BufferConfig::new(0, 1024)).unwrap();
            let mut writer = Writer::connect(&name, long).unwrap();
            writer.write_frame(b"first").unwrap();
            drop(reader.read_frame(long).unwrap());
            writer.write_frame(b"last").unwrap();
            drop(writer);
            let deadline = Deadline::after(Duration::ZERO);
            let last = reader.core.end(is_over, &deadline).unwrap().expect("it was published");
            assert_eq!(reader.core.data(&last), b"last");
            reader.core.release(&last);
            let error = reader.core.end(is_over, &deadline).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::PeerClosed { .. }), "{error}");
        }
        // What keeps writers out from now on is no reason to lose what was sent before, either.
        let reader = Reader::create(&name, BufferConfig::new(0, 1024)).unwrap();
        let mut writer = Writer::connect(&name, long).unwrap();
        writer.write_frame(b"last").unwrap();
        reader.core.damage.set(Error::Closed).unwrap();
        let last = reader.core.end(Unready::Timeout, &Deadline::after(Duration::ZERO)).unwrap();
        assert_eq!(reader.core.data(&last.expect("it was published")), b"last");
    }
}
