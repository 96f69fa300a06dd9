//! What clients cost that do nothing.

use crate::scene::{Scene, allow_descriptors};
use std::time::Duration;
use zerobuffer_test_support::not_run;

const CLIENTS: usize = 1000;
/// Long enough for timers and slices, were there any: each of them would be seen a thousand times.
const WHILE: Duration = Duration::from_millis(300);
/// A server's look at whether its socket still has its name, and what may be left of the last client's arrival.
const FEW: u64 = 20;

fn count(pid: i32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("/proc").count()
}

/// How often all threads of a process have gone to sleep or were put aside.
fn switches(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc").flatten();
    let status = threads.map(|thread| std::fs::read_to_string(thread.path().join("status")));
    let lines = status.flatten().flat_map(|text| {
        let counts = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        counts.map(|(_, count)| count.trim().parse::<u64>().expect("a number")).collect::<Vec<_>>()
    });
    lines.sum()
}

#[test]
fn a_thousand_idle_clients_have_one_descriptor_on_each_side_and_wake_nobody() {
    if !allow_descriptors(CLIENTS as u64 + 200) {
        return not_run(
            "a thousand idle clients of a service",
            "the limit of descriptors is lower",
        );
    }
    let scene = Scene::new();
    let mut server = scene.peer(&format!("role=server ring=64 clients={CLIENTS}"));
    let one = scene.peer("role=crowd count=1");
    let descriptors = |of: &zerobuffer_test_support::Peer| count(of.pid(), "fd");
    let (of_server, of_one) = (descriptors(&server), descriptors(&one));
    let mut crowd = scene.peer(&format!("role=crowd count={}", CLIENTS - 1));
    assert_eq!(server.ask("clients", "clients"), CLIENTS.to_string());
    // Before, one of the first client's arrival may have been open still.
    assert!(descriptors(&server) < of_server + CLIENTS, "{} of them", descriptors(&server));
    // The one that is kept for the next client that sleeps, which the first one may not have done.
    assert!(descriptors(&crowd) < of_one + CLIENTS, "{} of them", descriptors(&crowd));
    assert_eq!(count(crowd.pid(), "task"), count(one.pid(), "task"), "no thread for any of them");
    let both = || switches(server.pid()) + switches(crowd.pid());
    let before = both();
    std::thread::sleep(WHILE);
    let more = both() - before;
    assert!(more <= FEW, "{more} context switches of a thousand clients that do nothing");
    crowd.ask("leave", "left");
    one.finish();
    server.ask("stop", "stopped");
}
