//! A lost wake-up on real hardware, with the library as it is shipped.
//!
//! The waiting side parks at once. The other side publishes at random moments around the one at which
//! the waiter has taken an old token and checks a last time before it sleeps: there, and only there, the
//! fences of WAKE and WAIT decide (protocol v2, section 7.4 "Why both fences"). A loss is seen without a
//! clock: when WAKE has returned, a waiter that sleeps without a token while what it waits for is there will
//! not be woken.
//!
//! On x86 this shows the waker's fence: a build without it (`--cfg zerobuffer_without_wake_fence`) loses
//! wake-ups here; on a machine where it does not, a note says so. The waiter's fence costs nothing there,
//! because taking a token is a locked instruction. The loom models need both fences, on every machine.
//! Responses lose a wake-up far more rarely than requests (one in millions, against one in tens of
//! thousands), so it is by requests that the missing fence is judged. `ZEROBUFFER_LITMUS_MESSAGES` says how
//! many of them are sent; of responses it is a tenth.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, ClientConfig, Error, Server, ServerConfig, WaitStrategy};
use zerobuffer_test_support::{Rng, not_run, seed, unique};

const LONG: Duration = Duration::from_secs(60);
/// What this build is expected to do.
const LOSES: bool = cfg!(zerobuffer_without_wake_fence);

#[test]
fn no_wake_up_of_a_server_that_parks_is_lost() {
    judge("requests", requests);
}

#[cfg(not(zerobuffer_without_wake_fence))]
#[test]
fn no_wake_up_of_a_client_that_parks_is_lost() {
    judge("responses", |name, messages, seed| responses(name, messages / 10, seed));
}

/// The counterpart is in the tests of failing system calls: only such builds have them.
#[test]
fn this_build_holds_no_faults() {
    assert!(!zerobuffer_trust::holds_faults());
}

fn judge(what: &str, run: impl Fn(&str, u64, u64) -> Tally) {
    // One at a time: each needs both of two CPUs.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let messages = std::env::var("ZEROBUFFER_LITMUS_MESSAGES");
    let messages = messages.map_or(100_000, |count| count.parse().expect("a number"));
    let start = Instant::now();
    let tally = run(&unique(what), messages, seed());
    println!("{what}: {tally:?} in {:?}", start.elapsed());
    match (LOSES, tally.lost) {
        (false, lost) => assert_eq!(lost, 0, "{what}: wake-ups are lost"),
        (true, 0) => {
            let why = format!("none was lost in {} messages", tally.messages);
            not_run("that real processors lose wake-ups without the fence", &why);
        }
        (true, _) => {}
    }
}

#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    /// Messages after which the waiter was seen asleep, before it was woken or before it looked.
    asleep: u64,
    lost: u64,
}

impl Tally {
    /// After WAKE has returned: `waiting` tells whether what was published is still not seen.
    fn look(&mut self, semaphore: &Watched, waiting: impl FnOnce() -> bool) {
        self.messages += 1;
        let word = semaphore.word(0).load(Ordering::SeqCst);
        let (tokens, waiters) = (word as u32, word >> 32);
        if waiters > 0 {
            self.asleep += 1;
            self.lost += u64::from(tokens == 0 && waiting());
        }
    }

    fn is_done(&self, messages: u64) -> bool {
        self.messages >= messages || LOSES && self.lost > 0
    }
}

/// A shared-memory object, mapped to be read.
struct Watched {
    base: *mut u64,
    len: usize,
}

impl Watched {
    fn open(file: &str) -> Self {
        let path = format!("/dev/shm/{file}");
        let file = File::options().read(true).write(true).open(path).expect("it is there");
        let len = file.metadata().expect("a file").len() as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so no existing mapping is touched; the file is open.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self { base: base.cast(), len }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: the word is aligned and lies inside of the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.base.byte_add(offset)) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`; all references borrow from `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Now and then some moments, to meet the waiter where it is about to sleep; messages in between keep
/// it awake, so that it finds them without their tokens.
fn pause(rng: &mut Rng) {
    if rng.below(4) == 0 {
        (0..rng.below(60)).for_each(|_| std::hint::spin_loop());
    }
}

/// Lines that no cache holds. A CPU's stores become visible in their order, so one that sends right after it
/// has stored here, where each line has to come from memory, checks the semaphore long before its request is
/// visible, unless a fence is between. That the other CPU writes the lines too would not do: it may share
/// its caches with this one.
#[repr(align(64))]
struct Line(AtomicU64);

static LINES: [Line; 16] = [const { Line(AtomicU64::new(0)) }; 16];

fn store_in_lines(value: u64) {
    #[cfg(target_arch = "x86_64")]
    for line in &LINES {
        // SAFETY: the instruction is part of x86-64, and writes a line back without changing it.
        unsafe { std::arch::x86_64::_mm_clflush(std::ptr::from_ref(line).cast()) };
    }
    LINES.iter().for_each(|line| line.0.store(value, Ordering::Relaxed));
}

fn pair(name: &str, server: WaitStrategy, client: WaitStrategy) -> (Server, Client) {
    let config = ServerConfig::new(BufferConfig::new(0, 1 << 16)).wait(server);
    let server = Server::create(name, config).expect("a server starts");
    let client = Client::connect_with(name, LONG, ClientConfig::new().wait(client));
    (server, client.expect("a client attaches"))
}

/// The server parks, and the client sends.
fn requests(name: &str, messages: u64, seed: u64) -> Tally {
    const READ_COUNT: usize = 0x40;
    let (mut server, client) = pair(name, WaitStrategy::Park, WaitStrategy::Spin);
    let semaphore = Watched::open(&format!("sem.sem-request-ready-{name}"));
    let segment = Watched::open(&format!("{name}_duplex"));
    let taken = segment.word(READ_COUNT);
    let (mut rng, mut tally, stop) = (Rng(seed), Tally::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match server.receive(Duration::from_millis(200)) {
                    Ok(request) => {
                        store_in_lines(request.sequence());
                        request.respond();
                    }
                    Err(Error::Timeout { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let receive = || drop(client.receive_response(LONG).expect("answered"));
        while !tally.is_done(messages) {
            // The side that has just answered is awake, and about to sleep.
            client.send_request(&[0; 8]).expect("sent");
            receive();
            let batch = [1 + rng.below(16), 128][rng.below(2)];
            for _ in 0..batch {
                pause(&mut rng);
                store_in_lines(tally.messages);
                let sequence = client.send_request(&[0; 8]).expect("sent");
                tally.look(&semaphore, || taken.load(Ordering::SeqCst) < sequence);
            }
            (0..batch).for_each(|_| receive());
        }
        stop.store(true, Ordering::Relaxed);
    });
    tally
}

/// The client parks, and the server answers.
#[cfg(not(zerobuffer_without_wake_fence))]
fn responses(name: &str, messages: u64, seed: u64) -> Tally {
    const BATCH: usize = 128;
    let (mut server, client) = pair(name, WaitStrategy::Spin, WaitStrategy::Park);
    let semaphore = Watched::open(&format!("sem.sem-response-ready-{name}"));
    let (mut rng, mut tally, stop) = (Rng(seed), Tally::default(), AtomicBool::new(false));
    // The latest response that the client has seen. A slot does not tell: nothing is stored in it on release.
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (stop, seen) = (&stop, &seen);
        let sender = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                (0..BATCH).for_each(|_| {
                    client.send_request(&[0; 8]).expect("sent");
                });
                for _ in 0..BATCH {
                    let response = client.receive_response(LONG).expect("answered");
                    seen.store(response.sequence(), Ordering::SeqCst);
                }
            }
        });
        while !sender.is_finished() {
            let request = match server.receive(Duration::from_millis(200)) {
                Ok(request) => request,
                Err(Error::Timeout { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            let sequence = request.sequence();
            request.respond();
            tally.look(&semaphore, || seen.load(Ordering::SeqCst) < sequence);
            stop.store(tally.is_done(messages), Ordering::Relaxed);
            pause(&mut rng);
        }
    });
    tally
}
