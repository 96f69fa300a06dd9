//! Lets clients in, on a thread of its own: nothing that a new client asks for, and no memory that is made
//! for it, holds up those that are served. The same thread notices when a client ends, whatever the others do.

use super::attached::Attached;
use super::status::About;
use crate::atomics::{AtomicBool, Ordering};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::link::ToClient;
use crate::link::socket::{
    Ask, BadHello, Bell, EMPTY_BUFFER, Estate, Growing, Hello, Published, Refusal, Remains, Reply,
    Side, geometry, segment_size,
};
use crate::name::ChannelName;
use crate::server::connection::Connection;
use crate::server::identity::ClientIdentity;
use crate::sys::{self, Epoll, Errno, Foreign, PeerProcess, Readiness, ShmFile, Socket, WakeFd};
use crate::wait::later;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The numbers of what is no visitor.
const WAKE: u64 = 0;
const LISTENER: u64 = u64::MAX;
/// Of the clients' ends.
const ENDS: u64 = LISTENER - 1;

/// How long a visitor may say nothing, and how many such there are at the most.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_SILENT: usize = 256;
/// The same once the service stops: their hello is on its way.
const LAST_PATIENCE: Duration = Duration::from_millis(100);
/// Connections that are accepted in one turn.
const MAX_ACCEPTS: u32 = 64;
/// The most metadata of a client, unless the service's own may have more: a thread that serves copies them, and others
/// wait meanwhile.
const MOST_METADATA: u64 = 1 << 20;
/// The most that a listener's queue holds.
const MOST_WAITING: u32 = 4096;
/// The pause where nothing can be accepted for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause between two looks at whether clients still find the socket.
const NAME_CHECK: Duration = Duration::from_secs(5);

/// What the door's thread and the service share.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) wake: WakeFd,
    pub(super) is_closing: AtomicBool,
}

/// A connection that is no client yet.
#[derive(Debug)]
struct Visitor {
    socket: Socket,
    peer: PeerProcess,
    since_ns: u64,
    /// What it has asked for, and its segment as far as that is made.
    wish: Option<(Hello, Growing, u64)>,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Door {
    about: Arc<About>,
    handle: Arc<Handle>,
    listener: Socket,
    /// `None` with a listener that was given.
    published: Option<Published>,
    epoll: Epoll,
    visitors: BTreeMap<u64, Visitor>,
    next_number: u64,
    heir: Sender<Remains>,
    /// A descriptor to close, so that a client can be told that there are no more.
    spare: Option<WakeFd>,
    paused_until_ns: u64,
    name_checked_ns: u64,
}

impl Door {
    /// Makes the socket, under a name that clients find unless one was given.
    pub(super) fn open(about: Arc<About>, heir: Sender<Remains>) -> Result<Self> {
        let About { name, config, .. } = &*about;
        let failed = |errno: Errno| errno.on("make the socket of service", name.as_str());
        let wake = WakeFd::new().map_err(failed)?;
        let epoll = Epoll::new().map_err(failed)?;
        epoll.add_wake(&wake, WAKE).map_err(failed)?;
        epoll.add_set(&about.hub.ends, ENDS).map_err(failed)?;
        let (published, listener) = match config.listener {
            Some(fd) => {
                let adopted = Socket::adopt(fd).map_err(|errno| refused(errno, fd, name))?;
                // Those that have connected before may have sent some.
                let _ = adopted.refuse_descriptors();
                (None, adopted)
            }
            None => {
                let (published, listener) = Published::new(&config.place, name)?;
                (Some(published), listener)
            }
        };
        let watched = epoll.add_listener(&listener, LISTENER);
        if let Err(errno) = watched {
            published.iter().for_each(Published::remove);
            return Err(failed(errno));
        }
        Ok(Self {
            handle: Arc::new(Handle { wake, is_closing: AtomicBool::new(false) }),
            spare: WakeFd::new().ok(),
            visitors: BTreeMap::new(),
            next_number: 1,
            paused_until_ns: 0,
            name_checked_ns: sys::monotonic_ns(),
            about,
            listener,
            published,
            epoll,
            heir,
        })
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Removes the socket's name, if it is this service's to remove.
    pub(super) fn unpublish(&self) {
        self.published.iter().for_each(Published::remove);
    }

    /// Serves at the door until the service closes it.
    pub(super) fn run(mut self) {
        while !self.handle.is_closing.load(Ordering::Acquire) {
            self.turn(self.next_event());
            self.check_name();
        }
        self.unpublish();
        failpoint!("door.unpublished");
        self.say_goodbye();
        let is_clean = self.refuses_descriptors();
        let Self { listener, published, heir, .. } = self;
        // Never fails: see `close_apart`.
        let _ = heir.send(match published {
            Some(_) => Remains::Socket { socket: listener, foreign: None, is_clean },
            None => Remains::Given(listener),
        });
    }

    /// When there is something to do whatever happens.
    fn next_event(&self) -> u64 {
        if self.visitors.values().any(|visitor| visitor.wish.is_some()) {
            return 0;
        }
        let silent = self.visitors.values().map(|visitor| later(visitor.since_ns, PATIENCE));
        let name = self.published.as_ref().map(|_| later(self.name_checked_ns, NAME_CHECK));
        let pause = (self.paused_until_ns > 0).then_some(self.paused_until_ns);
        silent.chain(name).chain(pause).min().unwrap_or(u64::MAX)
    }

    fn turn(&mut self, deadline_ns: u64) {
        let mut ready: Vec<Readiness> = Vec::new();
        if self.epoll.wait(deadline_ns, |event| ready.push(event)).is_err() {
            sys::sleep(Duration::from_millis(1));
        }
        for event in ready {
            match event.number {
                WAKE => self.handle.wake.silence(),
                LISTENER => _ = self.accept(),
                ENDS => self.about.hub.end_disconnected(),
                number => self.hear(number),
            }
        }
        self.end_pause();
        self.grow();
        self.expire(PATIENCE);
    }

    // ---- visitors ----

    /// Lets some in that wait at the listener; whether more may be there.
    fn accept(&mut self) -> bool {
        for _ in 0..MAX_ACCEPTS {
            match self.listener.accept() {
                Ok(socket) => self.welcome(socket),
                Err(errno) if errno.is_not_yet() => return false,
                Err(errno) if errno.is_shortage() => {
                    self.refuse_for_want();
                    return false;
                }
                // That connection has ended before it was accepted.
                Err(_) => {}
            }
        }
        true
    }

    /// All that wait at a listener that is about to be closed.
    fn accept_all(&mut self) {
        // No more than its queue holds, so that those who come meanwhile do not hold this up for ever.
        let mut turns = 0..MOST_WAITING.div_ceil(MAX_ACCEPTS);
        while turns.next().is_some() && self.accept() {}
    }

    fn welcome(&mut self, socket: Socket) {
        let number = self.next_number;
        let peer = socket.peer().and_then(|peer| self.epoll.add(&socket, number).map(|()| peer));
        let Ok(peer) = peer else { return self.close_apart(socket, None) };
        self.next_number += 1;
        let since_ns = sys::monotonic_ns();
        self.visitors.insert(number, Visitor { socket, peer, since_ns, wish: None });
        failpoint!("door.accepted");
        // It may have said already what it wants.
        self.hear(number);
        let silent = self.visitors.iter().filter(|(_, visitor)| visitor.wish.is_none());
        let oldest = silent.clone().next().map(|(number, _)| *number);
        if silent.count() > MAX_SILENT
            && let Some(oldest) = oldest
        {
            self.send_away(oldest);
        }
    }

    /// Tells one client that there are no descriptors, with one that was kept for it, and accepts nothing
    /// for a while: the listener would wake this thread again and again.
    fn refuse_for_want(&mut self) {
        self.spare = None;
        if let Ok(socket) = self.listener.accept() {
            let mut buffer = EMPTY_BUFFER;
            // The hello first: otherwise the client sees a reset in place of the reply.
            let foreign = socket.receive_with(&mut buffer).ok().and_then(|(_, foreign)| foreign);
            let text = "this server has no descriptors or memory left";
            let _ = socket.send(&self.reply(Some(Refusal::NoMemory), 0, 0, text).encode());
            socket.shut_down();
            self.close_apart(socket, foreign);
        }
        self.spare = WakeFd::new().ok();
        self.epoll.remove(&self.listener);
        self.paused_until_ns = later(sys::monotonic_ns(), PAUSE);
    }

    fn end_pause(&mut self) {
        if self.paused_until_ns > 0 && sys::monotonic_ns() >= self.paused_until_ns {
            self.spare = self.spare.take().or_else(|| WakeFd::new().ok());
            self.watch_listener();
        }
    }

    /// A listener that is not watched is, now or after another pause.
    fn watch_listener(&mut self) {
        let is_watched = self.epoll.add_listener(&self.listener, LISTENER).is_ok();
        self.paused_until_ns = if is_watched { 0 } else { later(sys::monotonic_ns(), PAUSE) };
    }

    /// Those that have said nothing for too long.
    fn expire(&mut self, patience: Duration) {
        let now = sys::monotonic_ns();
        let silent = self.visitors.iter().filter(|(_, visitor)| {
            visitor.wish.is_none() && now >= later(visitor.since_ns, patience)
        });
        let silent: Vec<u64> = silent.map(|(number, _)| *number).collect();
        silent.into_iter().for_each(|number| self.send_away(number));
    }

    /// Ends a visitor's connection.
    fn send_away(&mut self, number: u64) {
        self.send_away_with(number, None);
    }

    /// The same, with the descriptors that it has sent.
    fn send_away_with(&mut self, number: u64, foreign: Option<Foreign>) {
        if let Some(Visitor { socket, wish, .. }) = self.visitors.remove(&number) {
            self.epoll.remove(&socket);
            socket.shut_down();
            self.close_apart(socket, foreign);
            if let Some((_, _, size)) = wish {
                self.about.used.fetch_sub(size, Ordering::Relaxed);
            }
        }
    }

    fn refuse(&mut self, number: u64, refusal: Refusal, limit: u64, text: &str) {
        crate::trace::event!(service = %self.about.name, ?refusal, text, "refused");
        let reply = self.reply(Some(refusal), limit, 0, text).encode();
        if let Some(visitor) = self.visitors.get(&number) {
            let _ = visitor.socket.send(&reply);
        }
        self.send_away(number);
    }

    fn reply(&self, refusal: Option<Refusal>, size: u64, number: u64, text: &str) -> Reply {
        let (attached, _) = self.about.hub.count(0);
        Reply {
            refusal,
            size,
            number,
            attached: attached as u32,
            allowed: self.about.config.max_clients as u32,
            worker: self.about.worker,
            text: text.to_owned(),
        }
    }

    /// A visitor has said something, or has ended.
    fn hear(&mut self, number: u64) {
        let Some(visitor) = self.visitors.get(&number) else { return };
        let mut buffer = EMPTY_BUFFER;
        if visitor.wish.is_some() {
            // What it sends now are bells, if it lives.
            if visitor.socket.has_ended() {
                self.send_away(number);
            }
            return;
        }
        let len = match visitor.socket.receive_with(&mut buffer) {
            Ok((len, None)) if len > 0 => len,
            Ok((_, foreign)) => return self.send_away_with(number, foreign),
            Err(errno) if errno.is_not_yet() => return,
            Err(_) => return self.send_away(number),
        };
        failpoint!("door.heard");
        match Hello::decode(&buffer, len) {
            Err(BadHello::Foreign) => self.send_away(number),
            Err(BadHello::Incompatible) => {
                self.refuse(
                    number,
                    Refusal::Incompatible,
                    1,
                    "it speaks version 1 of the protocol",
                );
            }
            Ok(hello) => self.answer(number, hello),
        }
    }

    fn answer(&mut self, number: u64, hello: Hello) {
        let Some(peer) = self.visitors.get(&number).map(|visitor| visitor.peer) else { return };
        if self.handle.is_closing.load(Ordering::Acquire) {
            return self.refuse(number, Refusal::Stopping, 0, "this server is stopping");
        }
        if !self.is_allowed(number, peer) {
            let text = format!("user {} is not one of those that may attach", peer.uid);
            return self.refuse(number, Refusal::NotAllowed, 0, &text);
        }
        match hello.ask {
            Ask::Load => {
                let reply = self.reply(None, 0, 0, "").encode();
                if let Some(visitor) = self.visitors.get(&number) {
                    let _ = visitor.socket.send(&reply);
                }
                self.send_away(number);
            }
            Ask::Status => self.tell_status(number),
            Ask::Attach => match self.plan(&hello, peer) {
                Ok((growing, size)) => {
                    if let Some(visitor) = self.visitors.get_mut(&number) {
                        visitor.wish = Some((hello, growing, size));
                    }
                }
                Err((refusal, limit, text)) => self.refuse(number, refusal, limit, &text),
            },
        }
    }

    /// Hands a visitor the service's state as text.
    fn tell_status(&mut self, number: u64) {
        let text = self.about.text();
        let sent = ShmFile::of_text("zerobuffer-status", text.as_bytes()).and_then(|file| {
            let reply = self.reply(None, text.len() as u64, 0, "").encode();
            let visitor = self.visitors.get(&number);
            visitor.map_or(Ok(()), |visitor| visitor.socket.send_with(&reply, &file))
        });
        match sent {
            Ok(()) => self.send_away(number),
            Err(_) => self.refuse(number, Refusal::NoMemory, 0, "it has no memory for its status"),
        }
    }

    fn is_allowed(&self, number: u64, peer: PeerProcess) -> bool {
        let own = [0, sys::effective_uid()];
        let users = || own.iter().chain(&self.about.config.users).any(|uid| *uid == peer.uid);
        let in_group = |gid: &u32| {
            let visitor = self.visitors.get(&number);
            *gid == peer.gid
                || visitor.is_some_and(|visitor| visitor.socket.peer_groups().contains(gid))
        };
        // Whom this namespace does not know could be anybody.
        let is_known = peer.uid == 0 || peer.uid != sys::overflow_uid();
        is_known && (users() || self.about.config.groups.iter().any(in_group))
    }

    /// Begins a client's segment, or says why it gets none.
    fn plan(
        &self,
        hello: &Hello,
        peer: PeerProcess,
    ) -> std::result::Result<(Growing, u64), (Refusal, u64, String)> {
        let config = &self.about.config;
        // A client that has ended makes room for this one, in whatever order both are told.
        self.about.hub.end_disconnected();
        let (count, of_user) = self.about.hub.count(peer.uid);
        let wishes = self.visitors.values().filter(|visitor| visitor.wish.is_some());
        let wishes_of_user = wishes.clone().filter(|visitor| visitor.peer.uid == peer.uid).count();
        if count + wishes.count() >= config.max_clients {
            let limit = config.max_clients as u64;
            return Err((Refusal::Full, limit, format!("it has its {limit} clients")));
        }
        let limit = config.clients_of(peer.uid);
        if of_user + wishes_of_user >= limit {
            let text = format!("user {} has the {limit} clients that one user may have", peer.uid);
            return Err((Refusal::Full, limit as u64, text));
        }
        let or = |asked: u64, usual: usize| if asked == 0 { usual as u64 } else { asked };
        let (ring, request) =
            (or(hello.ring, config.ring), or(hello.metadata, config.metadata_size));
        let max = config.max_ring as u64;
        if ring > max {
            let text = format!("a ring may have {max} bytes");
            return Err((Refusal::TooLarge, max, text));
        }
        let most = MOST_METADATA.max(config.metadata_size as u64);
        if request > most {
            let text = format!("a client's metadata may have {most} bytes");
            return Err((Refusal::TooLarge, most, text));
        }
        let response = config.metadata_size as u64;
        let planned = geometry(request, response, ring).zip(segment_size(request, response, ring));
        let Some((geometry, size)) = planned else {
            return Err((Refusal::TooLarge, max, "there is no segment of that size".to_owned()));
        };
        let used = self.about.used.load(Ordering::Relaxed);
        if size > self.about.max_bytes.saturating_sub(used) {
            let max = self.about.max_bytes;
            let text =
                format!("its clients have {used} of the {max} bytes that they may have together");
            return Err((Refusal::NoMemory, max, text));
        }
        match Growing::begin(&self.about.name, geometry) {
            Ok(growing) => {
                self.about.used.fetch_add(size, Ordering::Relaxed);
                Ok((growing, size))
            }
            Err(error) => Err((Refusal::NoMemory, size, error.to_string())),
        }
    }

    // ---- segments ----

    /// Goes on with each segment that is being made, a piece each.
    fn grow(&mut self) {
        let growing = self.visitors.iter().filter(|(_, visitor)| visitor.wish.is_some());
        let growing: Vec<u64> = growing.map(|(number, _)| *number).collect();
        for number in growing {
            let Some(visitor) = self.visitors.get_mut(&number) else { continue };
            let Some((_, growing, size)) = &mut visitor.wish else { continue };
            match growing.step(&self.about.name) {
                Ok(false) => {}
                Ok(true) => self.let_in(number),
                Err(error) => {
                    let size = *size;
                    self.refuse(number, Refusal::NoMemory, size, &error.to_string());
                }
            }
        }
    }

    /// Makes a client of a visitor whose segment is complete.
    fn let_in(&mut self, number: u64) {
        let Some(visitor) = self.visitors.remove(&number) else { return };
        self.epoll.remove(&visitor.socket);
        let Visitor { socket, peer, wish: Some((hello, growing, size)), .. } = visitor else {
            return;
        };
        let (segment, flags, file) =
            match growing.finish(&self.about.name, &self.about.config.metadata) {
                Ok(made) => made,
                Err(error) => {
                    self.about.used.fetch_sub(size, Ordering::Relaxed);
                    let reply = self.reply(Some(Refusal::NoMemory), size, 0, &error.to_string());
                    let _ = socket.send(&reply.encode());
                    socket.shut_down();
                    return self.close_apart(socket, None);
                }
            };
        let bell = Bell::new(socket, flags, Side::Server, self.refuses_descriptors());
        let bell = Arc::new(bell);
        let estate =
            Estate::new(Arc::clone(&bell), segment.payload.clone(), size, self.heir.clone());
        let identity = Arc::new(ClientIdentity::new(number, peer, hello.label));
        let connection =
            Connection::new(segment, ToClient::Socket(estate), self.about.hub.is_shared())
                .of_client(Arc::clone(&identity), self.about.limit(number));
        let client = Arc::new(Attached::new(connection, bell, identity));
        // Before it is told: from its reply on it is one of those that are counted and served.
        if self.about.hub.enter(&client).is_err() {
            let text = "this server cannot watch another connection";
            let reply = self.reply(Some(Refusal::NoMemory), 0, 0, text).encode();
            let _ = client.bell().socket().send(&reply);
            return client.end();
        }
        failpoint!("door.entered");
        crate::trace::event!(service = %self.about.name, number, uid = peer.uid, "client attached");
        let reply = self.reply(None, size, number, "").encode();
        if let Err(errno) = client.bell().socket().send_with(&reply, &file) {
            if errno.is_shortage() {
                let text = "too many descriptors are on their way";
                let reply = self.reply(Some(Refusal::NoMemory), 0, 0, text).encode();
                let _ = client.bell().socket().send(&reply);
            }
            self.about.hub.end(&client);
        }
        failpoint!("door.replied");
    }

    /// Whether the kernel has kept descriptors out of all connections.
    fn refuses_descriptors(&self) -> bool {
        self.published.as_ref().is_some_and(Published::refuses_descriptors)
    }

    /// Closes a socket and what came over it. Descriptors may lie in it unread, and a peer's can take as long to close
    /// as the peer wishes: never on the door's thread.
    fn close_apart(&self, socket: Socket, foreign: Option<Foreign>) {
        let is_clean = self.refuses_descriptors();
        // Never fails: the other thread outlives all who can send.
        let _ = self.heir.send(Remains::Socket { socket, foreign, is_clean });
    }

    // ---- the name ----

    /// Publishes a new socket where somebody has removed the old one's name.
    fn check_name(&mut self) {
        let now = sys::monotonic_ns();
        let Some(published) = &self.published else { return };
        if now < later(self.name_checked_ns, NAME_CHECK) {
            return;
        }
        self.name_checked_ns = now;
        // What fails is tried again at the next check.
        if published.is_named() != Ok(false) {
            return;
        }
        if let Ok((published, listener)) =
            Published::new(&self.about.config.place, &self.about.name)
        {
            self.accept_all();
            self.epoll.remove(&self.listener);
            self.published = Some(published);
            let old = std::mem::replace(&mut self.listener, listener);
            self.close_apart(old, None);
            self.watch_listener();
        }
    }

    /// Tells those that have found the socket before its name was removed that they come too late. What is
    /// in the queue of a listener that others share is for the others.
    fn say_goodbye(&mut self) {
        let waiting: Vec<u64> = self.visitors.keys().copied().collect();
        for number in waiting {
            let is_silent =
                self.visitors.get(&number).is_some_and(|visitor| visitor.wish.is_none());
            if !is_silent {
                self.refuse(number, Refusal::Stopping, 0, "this server is stopping");
            }
        }
        if self.published.is_some() {
            self.accept_all();
        } else {
            self.epoll.remove(&self.listener);
        }
        let end = later(sys::monotonic_ns(), LAST_PATIENCE);
        while !self.visitors.is_empty() && sys::monotonic_ns() < end {
            self.turn(end);
        }
        let late: Vec<u64> = self.visitors.keys().copied().collect();
        late.into_iter().for_each(|number| self.send_away(number));
    }
}

/// Why a given descriptor cannot be used.
fn refused(errno: Errno, fd: RawFd, name: &ChannelName) -> Error {
    if errno.is_no_listener() {
        return Error::BadConfig {
            what: "the listener's descriptor",
            asked: u64::try_from(fd).unwrap_or(u64::MAX),
            allowed: "one of a listening Unix socket of type SOCK_SEQPACKET",
        };
    }
    errno.on("use the given listener of", name.as_str())
}
