//! Services: the waiter is another process, and sleeps on a socket.
//!
//! Its flag, and the system call that it is in, say that it sleeps. A waiter that sleeps while its flag is up has
//! checked the state a last time; if it has not seen what was published before, nothing will wake it, since who
//! rings takes the flag down first.

use crate::{LONG, Tally, make_visible, send_requests, store_in_lines};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use zerobuffer::{Client, ClientConfig, Error, Service, ServiceConfig, WaitStrategy};
use zerobuffer_test_support::{Peer, again, commands, not_run, say};

/// What makes a process the waiter.
pub(crate) const VARIABLE: &str = "ZEROBUFFER_LITMUS_PEER";
/// How many requests in a row a client sends that waits for their responses then.
#[cfg(not(zerobuffer_without_wake_fence))]
const BATCH: usize = 128;

/// The waiting process.
pub(crate) fn run(description: &str) {
    let (role, name) = description.split_once(' ').expect("a role and a name");
    match role {
        "server" => serve(name),
        #[cfg(not(zerobuffer_without_wake_fence))]
        "client" => call(name),
        role => panic!("no role {role}"),
    }
}

fn directory(name: &str) -> String {
    format!("/tmp/{name}")
}

fn create(name: &str, wait: WaitStrategy) -> Service {
    let config = ServiceConfig::new().ring(1 << 16).directory(directory(name)).wait(wait);
    Service::create(name, config).expect("a service starts")
}

fn connect(name: &str, wait: WaitStrategy) -> Client {
    let config = ClientConfig::new().directory(directory(name)).wait(wait);
    Client::connect_with(name, LONG, config).expect("a client attaches")
}

/// Responds on its first thread until it is told to stop.
fn serve(name: &str) {
    let mut service = create(name, WaitStrategy::Park);
    let closer = service.closer();
    std::thread::spawn(move || {
        commands().for_each(drop);
        closer.close();
    });
    say("ready");
    loop {
        match service.receive(LONG) {
            Ok(request) => {
                store_in_lines(request.sequence());
                request.respond();
            }
            Err(Error::Timeout { .. }) => {}
            Err(Error::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The end of a test: the waiter ends well, and its directory goes.
fn end(waiter: Peer, name: &str) {
    waiter.finish();
    std::fs::remove_dir_all(directory(name)).expect("made by the server");
}

/// The segment of this process's only connection, where it is mapped.
struct Segment {
    start: usize,
    end: usize,
}

impl Segment {
    fn find(name: &str) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
        let what = format!("/memfd:zerobuffer-{name}");
        let line = maps.lines().find(|line| line.contains(&what)).expect("a mapping");
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split(' ').next().expect("its end");
        let address = |text| usize::from_str_radix(text, 16).expect("an address");
        Self { start: address(start), end: address(end) }
    }

    /// How many requests the server has taken.
    fn taken(&self) -> &AtomicU64 {
        // SAFETY: an aligned word in the mapping, which the client, or the service, keeps until the test's end.
        unsafe { AtomicU64::from_ptr((self.start + 0x40) as *mut u64) }
    }

    /// A flag of the doorbell page: the server's lies at 0, the client's at 0x40.
    fn flag(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above; the doorbell page is the last one.
        unsafe { AtomicU32::from_ptr((self.end - 4096 + offset) as *mut u32) }
    }
}

/// Whether the first thread of this process is in a system call that waits for sockets.
fn is_in_wait(call: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    const WAITS: [i64; 2] = [libc::SYS_epoll_wait, libc::SYS_ppoll];
    #[cfg(not(target_arch = "x86_64"))]
    const WAITS: [i64; 2] = [libc::SYS_epoll_pwait, libc::SYS_ppoll];
    let text = std::fs::read_to_string(call).expect("the waiter lives");
    let number = text.split(' ').next().and_then(|number| number.trim().parse().ok());
    number.is_some_and(|number: i64| WAITS.contains(&number))
}

/// After WAKE has returned: `waiting` tells whether what was published is still not seen. A waiter that has raised its
/// flag and is about to check is waited for.
fn look(tally: &mut Tally, flag: &AtomicU32, call: &str, waiting: impl Fn() -> bool) {
    make_visible();
    let is_left = || flag.load(Ordering::SeqCst) != 0 && waiting();
    if !is_left() {
        return;
    }
    tally.asleep += 1;
    while is_left() {
        // In this order: it was asleep, and has not seen anything before or since.
        if is_in_wait(call) && is_left() {
            tally.lost += 1;
            return;
        }
    }
}

/// Whether the kernel tells what system call a process is in; a note if not.
fn tells_calls() -> bool {
    let told = std::fs::read_to_string("/proc/self/syscall");
    if let Err(error) = &told {
        not_run("lost bells of services", &format!("/proc/self/syscall: {error}"));
    }
    told.is_ok()
}

/// The server parks, and the client sends.
pub(crate) fn requests(name: &str, messages: u64, seed: u64) -> Tally {
    if !tells_calls() {
        return Tally::default();
    }
    let mut server = Peer::spawn(&mut again(VARIABLE, &format!("server {name}")));
    server.expect("ready");
    let client = connect(name, WaitStrategy::Spin);
    let (segment, call) = (Segment::find(name), format!("/proc/{}/syscall", server.pid()));
    let tally = send_requests(&client, messages, seed, |tally, sequence| {
        look(tally, segment.flag(0), &call, || segment.taken().load(Ordering::SeqCst) < sequence);
    });
    drop(client);
    end(server, name);
    tally
}

/// The latest response that the client has seen, in a file of the two processes.
#[cfg(not(zerobuffer_without_wake_fence))]
fn seen(name: &str) -> crate::Watched {
    crate::Watched::open(&format!("{}/seen", directory(name)))
}

/// Sends and receives on its first thread until its server has ended.
#[cfg(not(zerobuffer_without_wake_fence))]
fn call(name: &str) {
    let (client, seen) = (connect(name, WaitStrategy::Park), seen(name));
    say("ready");
    loop {
        for _ in 0..BATCH {
            if client.send_request(&[0; 8]).is_err() {
                return;
            }
        }
        for _ in 0..BATCH {
            match client.receive_response(LONG) {
                Ok(response) => seen.word(0).store(response.sequence(), Ordering::SeqCst),
                Err(Error::PeerClosed { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The client parks, and the server responds.
#[cfg(not(zerobuffer_without_wake_fence))]
pub(crate) fn responses(name: &str, messages: u64, seed: u64) -> Tally {
    if !tells_calls() {
        return Tally::default();
    }
    let mut service = create(name, WaitStrategy::Spin);
    std::fs::write(format!("{}/seen", directory(name)), [0; 8]).expect("its directory");
    let mut client = Peer::spawn(&mut again(VARIABLE, &format!("client {name}")));
    client.expect("ready");
    let (segment, seen) = (Segment::find(name), seen(name));
    let call = format!("/proc/{}/syscall", client.pid());
    let (mut rng, mut tally) = (zerobuffer_test_support::Rng(seed), Tally::default());
    while !tally.is_done(messages) {
        let request = service.receive(LONG).expect("the client sends");
        let sequence = request.sequence();
        request.respond();
        tally.messages += 1;
        let waiting = || seen.word(0).load(Ordering::SeqCst) < sequence;
        look(&mut tally, segment.flag(0x40), &call, waiting);
        crate::pause(&mut rng);
    }
    service.stop().expect("stops");
    end(client, name);
    tally
}
