//! A lost wake-up on real hardware, with the library as it is shipped.
//!
//! The waiting side parks at once. The other side publishes at random moments around the one at which
//! the waiter checks a last time before it sleeps: there, and only there, the fences of WAKE and of the waiting
//! side decide (protocol v2, section 7.4 "Why both fences"). A loss is seen without a clock: when WAKE has
//! returned, a waiter that sleeps and has not been woken while what it waits for is there will not be
//! woken. How one sees that it sleeps is different for channels (`channel`) and services (`service`).
//!
//! On x86 this shows the waker's fence: a build without it (`--cfg zerobuffer_without_wake_fence`) loses
//! wake-ups here; on a machine where it does not, a note says so. The waiter's fence costs nothing there,
//! because taking a token, and raising a flag, is a locked instruction. The loom models need both fences, on every machine.
//! Responses lose a wake-up far more rarely than requests (one in millions, against one in tens of
//! thousands), so it is by requests that the missing fence is judged. `ZEROBUFFER_LITMUS_MESSAGES` says how
//! many of them are sent; of responses it is a tenth.
#![cfg(target_os = "linux")]

mod channel;
mod service;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};
use zerobuffer::Client;
use zerobuffer_test_support::{Rng, not_run, seed, unique};

const LONG: Duration = Duration::from_secs(60);
/// What this build is expected to do.
const LOSES: bool = cfg!(zerobuffer_without_wake_fence);

zerobuffer_test_support::entry!(service::VARIABLE, service::run);

#[test]
fn no_wake_up_of_a_server_that_parks_is_lost() {
    judge("requests", channel::requests);
}

#[cfg(not(zerobuffer_without_wake_fence))]
#[test]
fn no_wake_up_of_a_client_that_parks_is_lost() {
    judge("responses", |name, messages, seed| channel::responses(name, messages / 10, seed));
}

#[test]
fn no_bell_of_a_service_that_parks_is_lost() {
    judge("bells", |name, messages, seed| service::requests(name, messages / 4, seed));
}

#[cfg(not(zerobuffer_without_wake_fence))]
#[test]
fn no_bell_of_a_services_client_that_parks_is_lost() {
    judge("bells-back", |name, messages, seed| service::responses(name, messages / 40, seed));
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
            let why = format!("{what}: none was lost in {} messages", tally.messages);
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
    fn is_done(&self, messages: u64) -> bool {
        self.messages >= messages || self.lost > 0
    }
}

/// Sends requests to a server that parks, at random moments around the one at which it is about to sleep, until so many
/// were sent or one was lost. `look` sees after each of them whether its wake-up was.
fn send_requests(
    client: &Client,
    messages: u64,
    seed: u64,
    mut look: impl FnMut(&mut Tally, u64),
) -> Tally {
    let (mut rng, mut tally) = (Rng(seed), Tally::default());
    let receive = || drop(client.receive_response(LONG).expect("answered"));
    let mut send = |tally: &mut Tally| {
        let sequence = client.send_request(&[0; 8]).expect("sent");
        tally.messages += 1;
        look(tally, sequence);
    };
    while !tally.is_done(messages) {
        // The side that has just answered is awake, and about to sleep.
        send(&mut tally);
        if tally.lost > 0 {
            break;
        }
        receive();
        let batch = [1 + rng.below(16), 128][rng.below(2)];
        for _ in 0..batch {
            pause(&mut rng);
            store_in_lines(tally.messages);
            send(&mut tally);
            if tally.lost > 0 {
                return tally;
            }
        }
        (0..batch).for_each(|_| receive());
    }
    tally
}

/// Has this CPU's stores come before its next loads. Without it a build without WAKE's fence could look before its own
/// message is visible, as WAKE did, and miss the waiter that has missed the message.
fn make_visible() {
    fence(Ordering::SeqCst);
}

/// Now and then some moments, to meet the waiter where it is about to sleep; messages in between keep
/// it awake, so that it finds them without their tokens.
fn pause(rng: &mut Rng) {
    if rng.below(4) == 0 {
        (0..rng.below(60)).for_each(|_| std::hint::spin_loop());
    }
}

/// Lines that no cache holds. A CPU's stores become visible in their order, so one that sends right after it
/// has stored here, where each line has to come from memory, checks the semaphore or the flag long before its
/// request is visible, unless a fence is between. That the other CPU writes the lines too would not do: it may
/// share its caches with this one.
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

/// A file, mapped to be watched.
struct Watched {
    base: *mut u64,
    len: usize,
}

impl Watched {
    fn open(path: &str) -> Self {
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
