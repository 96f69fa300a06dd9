//! Signals, stopped processes, and a single CPU.

use crate::harness::{LONG, SOON, fails, scene};
use crate::peer::{Op, edited, op, strategy};
use std::time::{Duration, Instant};
use zerobuffer::{ClientConfig, ErrorKind};

#[test]
fn one_thousand_signals_a_second_change_nothing_on_either_side() {
    scene(|t| {
        for wait in ["park", "both"] {
            let server = t.server(&format!("alarm=1 wait={wait} payload=67108864 workers=2"));
            let mut client = t.peer("role=client alarm=1");
            client.expect("ready");
            client.ask(&format!("connect wait={wait}"), "ok");
            client.ask("calls count=1500 largest=20000 seed=1", "ok");
            t.expect_few_tokens();
            client.stop();
            server.stop();
        }
    });
}

#[test]
fn a_stopped_server_is_slow_and_not_dead() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client();
        for n in 0..3 {
            let slow = client.send_request(&op(Op::Gate, n, 5000)).unwrap();
            server.expect("gate");
            server.freeze();
            let timeout = Duration::from_millis(100);
            fails(client.receive_response_for(slow, timeout), ErrorKind::Timeout);
            assert!(client.is_server_connected());
            fails(client.call(&op(Op::Edit, n, 5000), timeout), ErrorKind::Timeout);
            server.go_on();
            server.say("open");
            let request = op(Op::Edit, n, 5001);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
            fails(client.receive_response(Duration::ZERO), ErrorKind::Timeout);
        }
        assert_eq!(client.in_flight(), 0);
        t.expect_few_tokens();
        drop(client);
        server.stop();
    });
}

#[test]
fn a_call_ends_at_its_deadline_and_not_before() {
    scene(|t| {
        for wait in ["park", "spin", "both"] {
            let mut server = t.server("handler=ops");
            let config = ClientConfig::new().wait(strategy(wait));
            let mut client = t.client_with(config.send_timeout(Duration::from_millis(60)));
            let stuck = client.send_request(&op(Op::Gate, 0, 40_000)).unwrap();
            server.expect("gate");
            for ms in [1, 9, 10, 11, 60] {
                let timeout = Duration::from_millis(ms);
                let start = Instant::now();
                fails(client.call(&[0; 100], timeout), ErrorKind::Timeout);
                ends_at(start, timeout);
                let start = Instant::now();
                fails(client.receive_response(timeout), ErrorKind::Timeout);
                ends_at(start, timeout);
                // Of the whole ring.
                let start = Instant::now();
                fails(client.call(&[0; 65_000], timeout), ErrorKind::Full);
                ends_at(start, timeout);
            }
            let start = Instant::now();
            fails(client.send_request(&[0; 65_000]), ErrorKind::Full);
            ends_at(start, Duration::from_millis(60));
            server.say("open");
            // The longest time there is, from now on.
            drop(client.receive_response_for(stuck, Duration::MAX).unwrap());
            drop(client.call(&op(Op::Edit, 0, 100), Duration::MAX).unwrap());
            drop(client);
            server.stop();
        }
    });
}

#[track_caller]
fn ends_at(start: Instant, timeout: Duration) {
    let elapsed = start.elapsed();
    assert!(elapsed >= timeout && elapsed < timeout + SOON * 4, "{elapsed:?} for {timeout:?}");
}

#[test]
fn a_stopped_client_keeps_its_place() {
    scene(|t| {
        let server = t.server("");
        let mut client = t.client_peer("");
        client.ask("call len=100 seed=1", "ok");
        client.freeze();
        let busy = zerobuffer::Client::connect(t.name(), Duration::from_millis(300));
        fails(busy, ErrorKind::Busy);
        client.go_on();
        client.ask("call len=100 seed=2", "ok");
        client.stop();
        server.stop();
    });
}

#[test]
fn one_cpu_is_enough_for_both_sides() {
    scene(|t| {
        let cpu = first_cpu();
        for wait in ["park", "spin", "both"] {
            for workers in [1, 3] {
                let server =
                    t.server(&format!("cpu={cpu} wait={wait} workers={workers} payload=32768"));
                let mut client = t.peer(&format!("role=client cpu={cpu}"));
                client.expect("ready");
                client.ask(&format!("connect wait={wait}"), "ok");
                client.ask("calls count=500 largest=30000 seed=1", "ok");
                client.stop();
                server.stop();
            }
        }
    });
}

/// The first CPU that this process may run on.
fn first_cpu() -> usize {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set; the calls get a valid pointer to one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set)).unwrap()
    }
}
