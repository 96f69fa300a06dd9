//! The client's way to a worker (docs/protocol-service.md, section 2 "Where a service is" and 3
//! "Handshake").

use super::bell::{Bell, Side};
use super::directory::{Address, NO_SOCKET};
use super::handshake::{Ask, Buffer, EMPTY_BUFFER, Hello, Refusal, Reply};
use super::segment;
use super::sleepers::Sleepers;
use crate::config::Place;
use crate::error::{Error, ErrorKind, Medium, Result};
use crate::failpoint::failpoint;
use crate::link::segment::Segment;
use crate::name::ChannelName;
use crate::seats::{Seat, Seats};
use crate::sys::{self, Errno, FolderWatch, Packet, Pages, Socket};
use crate::v2::ring::Violation;
use crate::wait::{Deadline, NOTICE, later};
use std::time::Duration;

/// A worker that has not replied after this long hangs; more for a large ring, which takes time to make.
const PATIENCE: Duration = Duration::from_millis(500);
/// The least that a worker is given, also after the deadline.
const MOMENT: Duration = Duration::from_millis(50);
/// What `NotRunning` says of a worker that does not reply in time.
const NO_REPLY: &str = "its server has ended the connection, or does not reply";
/// What it says where each server is taken.
const ALL_TAKEN: &str = "this pool has a connection to each of its servers";
const PATIENCE_FOR_MIB: Duration = Duration::from_millis(4);
/// The pauses between two rounds through all workers.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(20);
/// How long a watch of the directories is trusted.
const WATCH: Duration = Duration::from_secs(1);

/// What a client wants of a service.
pub(crate) struct Wanted<'w> {
    pub(crate) service: &'w ChannelName,
    pub(crate) place: &'w Place,
    /// Bytes of the ring; 0 leaves it to the worker.
    pub(crate) ring: u64,
    pub(crate) label: &'w str,
    pub(crate) metadata: &'w [u8],
    pub(crate) pages: Pages,
    /// Servers that are left out, if this is a pool's connection.
    pub(crate) seats: Option<&'w Seats>,
    /// There is one round through all workers, and the deadline bounds how long one that hangs is waited for.
    pub(crate) once: bool,
    pub(crate) is_cancelled: &'w dyn Fn() -> bool,
}

/// A connection to a worker.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) segment: Segment,
    pub(crate) sleepers: Sleepers,
    /// The server, for a pool's connection.
    pub(crate) seat: Option<Seat>,
}

/// Why a worker does not serve this client.
enum Refused {
    /// It may serve it later, and another one may at once.
    Retry(Error),
    /// It never will; another one may.
    Final(Error),
}

/// Attaches to one of the service's workers, trying until the deadline; at least once.
///
/// # Errors
/// `Closed` if it was cancelled; otherwise what the workers said last, or `NotRunning` if there is none.
pub(crate) fn connect(wanted: &Wanted<'_>, deadline: &Deadline) -> Result<Connected> {
    try_until(wanted, deadline).map_err(|error| wanted.place.told(wanted.service, error))
}

fn try_until(wanted: &Wanted<'_>, deadline: &Deadline) -> Result<Connected> {
    let mut pause = MIN_PAUSE;
    let mut refused = None;
    let mut was_none = false;
    loop {
        if (wanted.is_cancelled)() {
            return Err(Error::Closed);
        }
        // Only where nobody was found: the end of a watch takes the kernel milliseconds. It is made before the
        // directory is read, so that what appears in between is told.
        let watched = || wanted.place.watched(wanted.service);
        let watch = || FolderWatch::of(watched().iter().map(String::as_str)).ok();
        let watch = was_none.then(watch).flatten();
        let workers = wanted.place.find(wanted.service)?;
        let none = workers.is_empty();
        let error = match try_all(wanted, workers, deadline) {
            Ok(connected) => return Ok(connected),
            Err(Refused::Final(error)) => return Err(error),
            Err(Refused::Retry(error)) => error,
        };
        let is_silent = matches!(error, Error::NotRunning { found: NO_REPLY, .. });
        // A refusal says more than that there was no time left for another one.
        let error = refused.take().filter(|_| is_silent).unwrap_or(error);
        let left = deadline.left();
        if wanted.once || left.is_zero() {
            return Err(error);
        }
        refused = Some(error).filter(|error| error.kind() != ErrorKind::NotRunning);
        match watch {
            Some(watch) if none => await_worker(watch, wanted, left),
            None if none && !was_none => {}
            _ => sys::sleep(pause.min(left)),
        }
        pause = (2 * pause).min(MAX_PAUSE);
        was_none = none;
    }
}

/// Sleeps until a worker may have appeared.
fn await_worker(watch: FolderWatch, wanted: &Wanted<'_>, left: Duration) {
    let end = after(left.min(WATCH));
    while !(wanted.is_cancelled)() && sys::monotonic_ns() < end {
        if watch.wait(end.min(after(NOTICE))).unwrap_or(true) {
            return;
        }
    }
}

pub(super) fn after(time: Duration) -> u64 {
    later(sys::monotonic_ns(), time)
}

/// Asks the workers in turn, the one with fewer clients of two at random first.
fn try_all(
    wanted: &Wanted<'_>,
    workers: Vec<Address>,
    deadline: &Deadline,
) -> std::result::Result<Connected, Refused> {
    let mut refused = None;
    let mut may_change = workers.is_empty();
    let found = if may_change { NO_SOCKET } else { ALL_TAKEN };
    for worker in in_order(wanted, workers, deadline) {
        if (wanted.is_cancelled)() {
            return Err(Refused::Final(Error::Closed));
        }
        match attach(wanted, &worker, deadline) {
            Ok(connected) => return Ok(connected),
            Err(Refused::Retry(error)) => {
                may_change = true;
                let is_silent = matches!(error, Error::NotRunning { found: NO_REPLY, .. });
                // One that lives has said more.
                refused = refused.filter(|_| is_silent).or(Some(error));
                if is_silent && deadline.left().is_zero() {
                    break;
                }
            }
            // What one of them may still grant counts for more.
            Err(Refused::Final(error)) => refused = refused.or(Some(error)),
        }
    }
    Err(match refused {
        None => Refused::Retry(not_running(wanted, found)),
        Some(error) if may_change => Refused::Retry(error),
        Some(error) => Refused::Final(error),
    })
}

fn not_running(wanted: &Wanted<'_>, found: &'static str) -> Error {
    Error::NotRunning { medium: Medium::Service, name: wanted.service.to_string(), found }
}

/// Two at random, the less loaded one first, and then the others; of a pool's, all that it does not have, the
/// less loaded ones first.
fn in_order(wanted: &Wanted<'_>, mut workers: Vec<Address>, deadline: &Deadline) -> Vec<Address> {
    if workers.len() < 2 && wanted.seats.is_none() {
        return workers;
    }
    for at in 0..workers.len() {
        let random = sys::random().unwrap_or_default();
        let other = at + (random % (workers.len() - at) as u64) as usize;
        workers.swap(at, other);
    }
    let Some(seats) = wanted.seats else {
        let loads = loads(wanted, &workers[..2], deadline);
        if load(&loads[1]) < load(&loads[0]) {
            workers.swap(0, 1);
        }
        return workers;
    };
    let replies = loads(wanted, &workers, deadline);
    let mut workers: Vec<_> = replies.into_iter().zip(workers).collect();
    workers.retain(|(reply, _)| reply.as_ref().is_none_or(|reply| !seats.is_taken(reply.worker)));
    workers.sort_by_key(|(reply, _)| load(reply));
    workers.into_iter().map(|(_, worker)| worker).collect()
}

/// One that does not say has most.
fn load(reply: &Option<Reply>) -> u32 {
    reply.as_ref().map_or(u32::MAX, |reply| reply.attached)
}

/// Asks each worker how many clients it has; `None` from one that does not say. All are asked at once, since
/// one that hangs costs its whole wait.
fn loads(wanted: &Wanted<'_>, workers: &[Address], deadline: &Deadline) -> Vec<Option<Reply>> {
    let mut replies = vec![None; workers.len()];
    let mut asked: Vec<(usize, Socket)> = Vec::new();
    for (at, worker) in workers.iter().enumerate() {
        if let Ok(socket) = worker.connect()
            && socket.send(&hello(wanted, Ask::Load).encode()).is_ok()
        {
            asked.push((at, socket));
        }
    }
    let end = after(within(PATIENCE, deadline));
    while !asked.is_empty() {
        asked.retain(|(at, socket)| match receive(socket) {
            Err(errno) if errno.is_not_yet() => true,
            Ok((packet, buffer)) => {
                let reply = Reply::decode(&buffer, packet.len).ok();
                replies[*at] = reply.filter(|reply| reply.refusal.is_none());
                false
            }
            Err(_) => false,
        });
        let sockets: Vec<&Socket> = asked.iter().map(|(_, socket)| socket).collect();
        if sockets.is_empty() || sys::monotonic_ns() >= end || (wanted.is_cancelled)() {
            break;
        }
        let _ = Socket::wait_for_any(&sockets, end.min(after(NOTICE)));
    }
    replies
}

/// How long a worker is waited for: not beyond the deadline, but a moment that one that lives replies in. A caller
/// with no time at all gets the reply of one that is there, however large the ring is that it makes.
fn within(patience: Duration, deadline: &Deadline) -> Duration {
    let left = deadline.left().max(MOMENT);
    if deadline.timeout().is_zero() { patience } else { patience.min(left) }
}

fn hello(wanted: &Wanted<'_>, ask: Ask) -> Hello {
    let metadata = match wanted.metadata.len() as u64 {
        0 => 0,
        len => len + 8,
    };
    Hello { ask, ring: wanted.ring, metadata, flags: 0, label: wanted.label.to_owned() }
}

pub(super) fn receive(socket: &Socket) -> std::result::Result<(Packet, Buffer), Errno> {
    let mut buffer = EMPTY_BUFFER;
    let packet = socket.receive_file(&mut buffer)?;
    Ok((packet, buffer))
}

fn attach(
    wanted: &Wanted<'_>,
    worker: &Address,
    deadline: &Deadline,
) -> std::result::Result<Connected, Refused> {
    let (medium, name) = (Medium::Service, wanted.service.to_string());
    let absent = |found| Refused::Retry(Error::NotRunning { medium, name: name.clone(), found });
    let failed = |errno: Errno| {
        if errno.is_refusal() || errno.is_absence() {
            absent(
                "the socket of a server refuses; it has died, or a file system between does not \
                    pass sockets on",
            )
        } else if errno.is_not_yet() {
            absent("its server accepts no more connections at the moment")
        } else if errno.is_end() {
            absent(NO_REPLY)
        } else {
            Refused::Final(errno.on("connect to service", &name))
        }
    };
    let socket = worker.connect().map_err(failed)?;
    failpoint!("connect.connected");
    judge(wanted.service, wanted.place, &socket).map_err(Refused::Final)?;
    let sent = socket.send(&hello(wanted, Ask::Attach).encode());
    if let Err(errno) = sent
        && !errno.is_end()
    {
        return Err(failed(errno));
    }
    failpoint!("connect.greeted");
    // After an end that came while this was sent, a refusal may lie there.
    let (packet, buffer) = await_reply(wanted, &socket, deadline).map_err(failed)?;
    if packet.len == 0 {
        return Err(absent("its server has ended the connection"));
    }
    let reply = Reply::decode(&buffer, packet.len).map_err(Refused::Final)?;
    if let Some(refusal) = reply.refusal {
        let error = reply.error(refusal, wanted.service.as_str(), wanted.ring);
        return Err(match refusal {
            Refusal::Full | Refusal::NoMemory | Refusal::Stopping => Refused::Retry(error),
            Refusal::Incompatible | Refusal::TooLarge | Refusal::NotAllowed => {
                Refused::Final(error)
            }
        });
    }
    failpoint!("connect.accepted");
    let seat = match wanted.seats.map(|seats| seats.take(reply.worker)) {
        // Several servers may share a socket, and another one may have replied before.
        Some(None) => return Err(Refused::Retry(not_running(wanted, ALL_TAKEN))),
        seat => seat.flatten(),
    };
    match enter(wanted, socket, packet, &reply) {
        Ok(connected) => Ok(Connected { seat, ..connected }),
        Err(error @ Error::NotRunning { .. }) => Err(Refused::Retry(error)),
        Err(error) => Err(Refused::Final(error)),
    }
}

/// Whether the worker is one to be trusted with requests, and to be believed.
pub(super) fn judge(service: &ChannelName, place: &Place, socket: &Socket) -> Result<()> {
    let name = service.as_str();
    let peer = socket.peer().map_err(|errno| errno.on("identify the server of", name))?;
    let trusted = [Some(0), Some(sys::effective_uid()), place.owner];
    if trusted.contains(&Some(peer.uid)) && !(peer.uid != 0 && peer.uid == sys::overflow_uid()) {
        return Ok(());
    }
    let reason = "its server runs as another user than this one, root, or the one expected";
    let object = format!("service {name:?}");
    Err(Error::ForeignObject { object, uid: peer.uid, reason })
}

/// The worker's message; as if it had ended if there is none within the time that one has for it.
fn await_reply(
    wanted: &Wanted<'_>,
    socket: &Socket,
    deadline: &Deadline,
) -> std::result::Result<(Packet, Buffer), Errno> {
    let mebibytes = u32::try_from(wanted.ring >> 20).unwrap_or(u32::MAX).max(32);
    let patience = PATIENCE.saturating_add(PATIENCE_FOR_MIB.saturating_mul(mebibytes));
    let end = after(within(patience, deadline));
    loop {
        match receive(socket) {
            Err(errno) if errno.is_not_yet() => {}
            received => return received,
        }
        if sys::monotonic_ns() >= end || (wanted.is_cancelled)() {
            return Err(Errno::ENDED);
        }
        match socket.wait(None, end.min(after(NOTICE))) {
            Err(errno) if !errno.is_interruption() => return Err(errno),
            _ => {}
        }
    }
}

/// Makes a connection of what an accepting worker has sent.
fn enter(wanted: &Wanted<'_>, socket: Socket, packet: Packet, reply: &Reply) -> Result<Connected> {
    let Packet { file, descriptors, is_cut, .. } = packet;
    let Some(file) = file else {
        if descriptors == 0 && is_cut {
            // Nothing that the worker did: this process has no descriptor left.
            return Err(Errno::NO_DESCRIPTOR.on("receive the segment of", wanted.service.as_str()));
        }
        return Err(match descriptors {
            1 => violation("descriptors of memory in the reply", 0, 1),
            count => violation("descriptors of the reply", count as u64, 1),
        });
    };
    let wanted_still = || !(wanted.is_cancelled)();
    let (segment, flags) =
        segment::open(wanted.service, file, reply.size, wanted.pages, &wanted_still)?;
    segment::announce_client(&segment, wanted.metadata)?;
    failpoint!("connect.announced");
    crate::trace::event!(service = %wanted.service, number = reply.number, "attached");
    let refuses_descriptors = socket.refuse_descriptors();
    let bell = Bell::new(socket, flags, Side::Client, refuses_descriptors);
    // What was sent right behind the reply was not kept out.
    bell.hear_first();
    if let Some(Violation { field, observed, allowed }) = bell.violation() {
        return Err(violation(field, observed, allowed));
    }
    if bell.has_ended() {
        return Err(not_running(wanted, "its server has ended the connection"));
    }
    Ok(Connected { segment, sleepers: Sleepers::new(bell), seat: None })
}

fn violation(field: &'static str, observed: u64, allowed: u64) -> Error {
    Error::ProtocolViolation { field, observed, allowed }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_hangs_is_not_waited_for_beyond_the_deadline() {
        let within = |timeout| within(4 * PATIENCE, &Deadline::after(timeout));
        assert!(within(PATIENCE / 5) <= PATIENCE / 5);
        assert_eq!(within(Duration::from_nanos(1)), MOMENT, "one that lives replies in it");
        assert_eq!(within(Duration::MAX), 4 * PATIENCE);
        assert_eq!(within(Duration::ZERO), 4 * PATIENCE, "to have its reply, if it has one");
    }
}
