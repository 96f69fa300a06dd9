//! What a round trip must not cost: a system call, an allocation. Both ends take turns on one thread,
//! so that nobody waits and every step is counted.
#![cfg(all(target_os = "linux", not(zerobuffer_unsupported)))]
#![allow(clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, Server};

const TIMEOUT: Duration = Duration::from_secs(20);

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: the system's allocator, with a counter that does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn channel(kind: &str) -> (Server, Client) {
    let name = format!("hot-path-{kind}-{}", std::process::id());
    let server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let client = Client::connect(&name, TIMEOUT).unwrap();
    (server, client)
}

/// `count` round trips, one after the other and several in flight.
fn step(server: &mut Server, client: &mut Client, count: u8) {
    for number in 0..count {
        let sequence = client.send_request(&[number; 100]).unwrap();
        let second = client.send_request(&[!number; 7]).unwrap();
        for _ in 0..2 {
            let mut request = server.receive(TIMEOUT).unwrap();
            request.data_mut()[0] ^= 0xff;
            request.respond();
        }
        assert_eq!(client.receive_response_for(second, TIMEOUT).unwrap().data()[0], number);
        assert_eq!(client.receive_response_for(sequence, TIMEOUT).unwrap().data()[0], !number);
    }
}

#[test]
fn a_round_trip_allocates_nothing() {
    let (mut server, mut client) = channel("allocations");
    step(&mut server, &mut client, 100);
    let before = ALLOCATIONS.get();
    step(&mut server, &mut client, 250);
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

/// The kernel ends the thread at its first system call other than reading and writing.
fn forbid_system_calls() {
    // SAFETY: two numbers; from here on this thread computes only, as the test is about.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    assert_eq!(result, 0, "strict seccomp: {}", std::io::Error::last_os_error());
}

#[test]
fn a_round_trip_makes_no_system_call() {
    let ends = Arc::new(Mutex::new(Some(channel("calls"))));
    let done = Arc::new(AtomicBool::new(false));
    let (thread_ends, thread_done) = (ends.clone(), done.clone());
    // It never comes back, so it is not joined.
    std::thread::spawn(move || {
        let mut ends = thread_ends.lock().unwrap();
        let (server, client) = ends.as_mut().unwrap();
        step(server, client, 100);
        forbid_system_calls();
        step(server, client, 250);
        drop(ends);
        thread_done.store(true, Ordering::Release);
        // SAFETY: ends this thread alone, the only way that is left to it. What it owns is leaked.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    let start = Instant::now();
    // Pairs with the Release store above.
    while !done.load(Ordering::Acquire) {
        assert!(start.elapsed() < TIMEOUT, "the thread was ended by a system call");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(ends.lock().unwrap().take());
}
