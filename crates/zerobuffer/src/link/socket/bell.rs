//! One end of a connection: rings the peer, hears it, and notices its end (docs/protocol-service.md,
//! section 5 "Waking").

use super::segment::Flags;
use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::failpoint::failpoint;
use crate::sys::{Foreign, Socket};
use crate::v2::ring::Violation;
use crate::wait::bell;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Bells that are received in a row.
const MAX_BELLS: u32 = 16;
/// Tries to ring while the kernel has no memory, a millisecond apart.
const MAX_TRIES: u32 = 1000;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// The socket of a connection and the two flags in its segment.
#[derive(Debug)]
pub(crate) struct Bell {
    socket: Socket,
    flags: Flags,
    side: Side,
    /// The kernel keeps descriptors out that the peer attaches to its bells.
    refuses_descriptors: bool,
    /// The other end is closed, or cannot be reached.
    has_ended: AtomicBool,
    /// Bells that may still come. Kept here: the flag is the peer's to write, too.
    expected: AtomicU64,
    /// The first thing that the peer has sent against the rules.
    violation: OnceLock<Violation>,
    /// Descriptors that it has sent, to be closed where that holds up nobody.
    foreign: Mutex<Vec<Foreign>>,
}

impl Bell {
    /// `is_armed`: the side's flag was raised when the segment was made.
    pub(crate) fn new(socket: Socket, flags: Flags, side: Side, refuses_descriptors: bool) -> Self {
        let expected = AtomicU64::new(u64::from(side == Side::Server));
        let has_ended = AtomicBool::new(false);
        let (violation, foreign) = (OnceLock::new(), Mutex::default());
        Self { socket, flags, side, refuses_descriptors, has_ended, expected, violation, foreign }
    }

    pub(super) fn own_flag(&self) -> &AtomicU32 {
        match self.side {
            Side::Server => self.flags.server_sleeps(),
            Side::Client => self.flags.client_sleeps(),
        }
    }

    fn peers_flag(&self) -> &AtomicU32 {
        match self.side {
            Side::Server => self.flags.client_sleeps(),
            Side::Client => self.flags.server_sleeps(),
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// WAKE: the peer checks the state that was published before this call.
    #[inline(always)]
    pub(crate) fn wake_peer(&self) {
        bell::wake_sleeper(self.peers_flag(), || self.ring());
    }

    #[cold]
    fn ring(&self) {
        failpoint!("bell.before_send");
        for _ in 0..MAX_TRIES {
            match self.socket.send(&[1]) {
                // A full socket holds bells enough.
                Ok(()) => return,
                Err(errno) if errno.is_not_yet() => return,
                Err(errno) if errno.is_shortage() => crate::sys::sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
        }
        self.end();
    }

    /// Receives the bells that are there; whether there was anything. The end of the connection is remembered. More bells
    /// than this side was armed for, a message that is no bell, and a descriptor end it, see [`Bell::violation`].
    pub(crate) fn hear(&self) -> bool {
        self.hear_as(self.refuses_descriptors)
    }

    /// The first time: what was sent before this side could have descriptors kept out may have some.
    pub(crate) fn hear_first(&self) {
        self.hear_as(false);
    }

    fn hear_as(&self, without_descriptors: bool) -> bool {
        let heard = self.receive_bells(without_descriptors);
        if let Err(violation) = heard {
            crate::trace::event!(
                field = violation.field,
                observed = violation.observed,
                "bad bell"
            );
            let _ = self.violation.set(violation);
            self.shut_down();
        }
        // What the ringer has stored before is checked after this. The kernel's own locks order it as
        // well, but no manual promises that.
        fence(Ordering::SeqCst);
        heard.unwrap_or(true)
    }

    /// What the peer has sent that no conforming one sends; it has ended the connection.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    fn receive_bells(&self, without_descriptors: bool) -> Result<bool, Violation> {
        let mut has_heard = false;
        for _ in 0..MAX_BELLS {
            let mut byte = [0; 1];
            let received = match without_descriptors {
                true => self.socket.receive(&mut byte).map(|len| (len, None)),
                false => self.socket.receive_with(&mut byte),
            };
            match received {
                Ok((_, Some(foreign))) => {
                    self.foreign.lock().unwrap_or_else(PoisonError::into_inner).push(foreign);
                    return violation("descriptors of a bell", 1, 0);
                }
                Ok((0, None)) => {
                    self.end();
                    break;
                }
                Ok((1, None)) => {
                    has_heard = true;
                    let is_last = self.count_bell()?;
                    // A client asks the system again before it sleeps, and that tells of what is left; a
                    // server is told of each message once.
                    if is_last && self.side == Side::Client {
                        break;
                    }
                }
                Ok((len, None)) => return violation("length of a bell", len as u64, 1),
                Err(errno) if errno.is_not_yet() || errno.is_shortage() => break,
                Err(_) => {
                    self.end();
                    break;
                }
            }
        }
        Ok(has_heard || self.has_ended())
    }

    /// Whether no other one can be on its way.
    fn count_bell(&self) -> Result<bool, Violation> {
        let less = |expected: u64| expected.checked_sub(1);
        let (relaxed, expected) = (Ordering::Relaxed, &self.expected);
        match expected.fetch_update(relaxed, relaxed, less) {
            Ok(before) => Ok(before == 1),
            Err(_) => violation("bells received", 1, 0),
        }
    }

    /// The first half of SLEEP: the peer rings from now on. Then the state is to be checked once more.
    pub(crate) fn arm(&self) {
        // Counted first: a bell may come at once.
        self.expected.fetch_add(1, Ordering::Relaxed);
        if !bell::arm(self.own_flag()) {
            // It was armed before, and was counted then.
            self.expected.fetch_sub(1, Ordering::Relaxed);
        }
        failpoint!("sleep.armed");
    }

    /// Takes back what [`Bell::arm`] said, if the peer has not rung for it.
    pub(crate) fn disarm(&self) {
        if bell::disarm(self.own_flag()) {
            let less = |expected: u64| Some(expected.saturating_sub(1));
            let _ = self.expected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Whether the other end was found closed or shut down.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        // Acquire: pairs with the Release in `end`; what was seen of the peer before is seen here.
        self.has_ended.load(Ordering::Acquire)
    }

    /// The same, asking the system.
    pub(crate) fn probe(&self) -> bool {
        if !self.has_ended() && self.socket.has_ended() {
            self.end();
        }
        self.has_ended()
    }

    fn end(&self) {
        // Release: pairs with the Acquire in `has_ended`.
        self.has_ended.store(true, Ordering::Release);
    }

    /// Ends the connection, for both sides and for every process that inherited the socket.
    pub(crate) fn shut_down(&self) {
        self.socket.shut_down();
        self.end();
    }

    /// Ends the connection, and hands out all descriptors that the peer has sent. Then closing the socket takes no time.
    pub(crate) fn take_foreign(&mut self) -> Vec<Foreign> {
        let foreign = self.foreign.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(foreign);
        // Once: nothing comes after the end.
        let is_clean = std::mem::replace(&mut self.refuses_descriptors, true);
        if !is_clean && self.socket.is_this_process() {
            self.shut_down();
            all.append(&mut self.socket.drain());
        }
        all
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        drop(self.take_foreign());
    }
}

fn violation<T>(field: &'static str, observed: u64, allowed: u64) -> Result<T, Violation> {
    Err(Violation { field, observed, allowed })
}

#[cfg(all(test, not(zerobuffer_unsupported)))]
pub(super) mod tests {
    use super::*;
    use crate::link::socket::segment::{Growing, geometry};
    use crate::name::ChannelName;
    use crate::sys::{Folder, ShmFile};

    /// A side's bell, which never keeps descriptors out, and the peer's socket.
    pub(in crate::link::socket) fn bell(side: Side) -> (Bell, Socket) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/tmp/zb-bell-{}-{number}", std::process::id());
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder::open(&path).unwrap();
        let (listener, peer) = (Socket::new().unwrap(), Socket::new().unwrap());
        listener.bind(&folder.address("s")).unwrap();
        listener.listen().unwrap();
        peer.connect(&folder.address("s")).unwrap();
        let own = listener.accept().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        let name = ChannelName::new("unit").unwrap();
        let mut growing = Growing::begin(&name, geometry(0, 0, 64).unwrap()).unwrap();
        while !growing.step(&name).unwrap() {}
        let (_segment, flags, _file) = growing.finish(&name, b"").unwrap();
        (Bell::new(own, flags, side, false), peer)
    }

    fn heard(bell: &Bell) -> Option<&'static str> {
        bell.hear();
        bell.violation().map(|violation| violation.field)
    }

    #[test]
    fn a_bell_for_each_arming_is_right_and_one_more_is_none() {
        let (bell, peer) = bell(Side::Client);
        bell.arm();
        peer.send(&[1]).unwrap();
        assert_eq!(heard(&bell), None);
        peer.send(&[1]).unwrap();
        assert_eq!(heard(&bell), Some("bells received"));
        assert!(bell.has_ended() && peer.has_ended());
    }

    #[test]
    fn a_descriptor_and_another_length_are_none_and_the_first_of_them_is_told() {
        let (mut bell, peer) = bell(Side::Server);
        let file = ShmFile::create_memory("unit").unwrap();
        peer.send_with(&[1], &file).unwrap();
        peer.send(&[1, 1]).unwrap();
        assert_eq!(heard(&bell), Some("descriptors of a bell"));
        assert_eq!(heard(&bell), Some("descriptors of a bell"));
        assert_eq!(bell.take_foreign().len(), 1);
    }
}
