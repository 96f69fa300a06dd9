//! Orderly ends.

use crate::harness::{LONG, SOON, eventually, fails, names, scene, traces};
use crate::peer::{Op, edited, op};
use crate::work;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, ChannelName, Client, ErrorKind, Frame, LostRequest, Pages, RequestState, Server,
    ServerConfig,
};

#[test]
fn a_server_that_stops_finishes_what_it_has_taken_and_says_that_the_rest_is_not_started() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let client = t.client();
        let slow = op(Op::Sleep, 150, 1000);
        let first = client.send_request(&slow).unwrap();
        let queued: Vec<_> = (0..3).map(|_| client.send_request(&[0; 100]).unwrap()).collect();
        eventually("the first is taken", || server.ask("calls", "") == "1");
        server.say("stop");
        let answer = client.receive_response_for(first, LONG).unwrap();
        assert_eq!(answer.data(), edited(&slow));
        for sequence in queued {
            let error = fails(client.receive_response(LONG), ErrorKind::PeerClosed);
            let state = RequestState::NotStarted;
            assert_eq!(error.lost_request(), Some(LostRequest { sequence, state }));
        }
        let error = fails(client.receive_response(LONG), ErrorKind::PeerClosed);
        assert_eq!(error.lost_request(), None);
        fails(client.send_request(&[1]), ErrorKind::PeerClosed);
        assert!(!client.is_server_connected());
        drop(answer);
        server.stopped();
        fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
    });
}

#[test]
fn answers_that_were_not_read_yet_can_be_read_while_and_after_the_server_stops() {
    scene(|t| {
        for read_in_time in [true, false] {
            let stop = if read_in_time { 20_000 } else { 50 };
            let mut server = t.server(&format!("handler=ops stop={stop}"));
            let client = t.client();
            for n in 0..10 {
                client.send_request(&op(Op::Edit, n, 500)).unwrap();
            }
            eventually("all answers", || server.ask("calls", "") == "10");
            server.say("stop");
            if read_in_time {
                std::thread::sleep(Duration::from_millis(50));
                assert!(!names(t.name()).is_empty(), "waits for its reader");
            } else {
                server.stopped();
                server = t.server("");
            }
            for n in 0..10 {
                let answer = client.receive_response(LONG).unwrap();
                assert_eq!(answer.data(), edited(&op(Op::Edit, n, 500)));
            }
            let error = fails(client.receive_response(LONG), ErrorKind::PeerClosed);
            assert_eq!(error.lost_request(), None);
            if read_in_time {
                server.stopped();
            } else {
                drop(client);
                server.stop();
            }
        }
    });
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_client_that_goes() {
    scene(|t| {
        for kill in [true, false] {
            let mut server = t.server("handler=f stop=30000");
            let mut client = t.client_peer("");
            client.ask("send len=100 seed=1", "ok");
            server.say("stop");
            std::thread::sleep(Duration::from_millis(50));
            if kill {
                client.kill()
            } else {
                client.stop()
            }
            let start = Instant::now();
            server.stopped();
            assert!(start.elapsed() < LONG);
        }
    });
}

#[test]
fn a_handler_that_does_not_return_holds_the_stop_up_for_its_time_only() {
    scene(|t| {
        let mut server = t.server("handler=ops stop=100");
        let client = t.client();
        let stuck = client.send_request(&op(Op::Stick, 50, 1000)).unwrap();
        server.expect("stuck");
        server.say("stop");
        let error = fails(client.receive_response_for(stuck, LONG), ErrorKind::PeerClosed);
        let state = RequestState::InDoubt;
        assert_eq!(error.lost_request(), Some(LostRequest { sequence: stuck, state }));
        // The thread is still there, of course.
        assert!(server.hear().starts_with("changed"));
        assert_eq!(names(t.name()), [""; 0]);
        server.kill();
    });
}

#[test]
fn a_client_that_waits_for_space_learns_that_the_server_stops() {
    scene(|t| {
        let mut server = t.server("handler=none payload=1024 stop=100");
        let client = t.client();
        client.send_request(&[1; 900]).unwrap();
        server.say("stop");
        fails(client.send_request(&[2; 900]), ErrorKind::PeerClosed);
        server.stopped();
    });
}

#[test]
fn a_server_stops_at_once_where_nobody_is_attached_and_twice_is_fine() {
    scene(|t| {
        for drop_only in [true, false] {
            let mut server = t.own_server(4096);
            assert!(!server.is_running());
            server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
            assert!(server.is_running() && !server.is_client_connected());
            fails(server.start(|_: &mut Frame<'_>| {}), ErrorKind::InvalidState);
            fails(server.receive(SOON).map(drop), ErrorKind::InvalidState);
            let mut client = t.client_peer("");
            client.ask("call len=100 seed=1", "ok");
            assert!(server.is_client_connected());
            client.stop();
            eventually("the client has disconnected", || !server.is_client_connected());
            if !drop_only {
                server.stop().unwrap();
                server.stop().unwrap();
                assert!(!server.is_running());
                fails(server.start(|_: &mut Frame<'_>| {}), ErrorKind::InvalidState);
            }
            drop(server);
            assert_eq!(names(t.name()), [""; 0]);
        }
    });
}

#[test]
fn an_end_of_the_client_cancels_what_it_has_sent() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client_peer("");
        client.say("op op=8 arg=0 len=100 ms=100");
        server.expect("gate");
        client.expect("err Timeout");
        for seed in 0..10 {
            client.ask(&format!("send len=1000 seed={seed}"), "ok");
        }
        client.stop();
        server.say("open");
        let mut client = t.client();
        drop(client.call(&op(Op::Edit, 0, 100), LONG).unwrap());
        drop(client);
        assert_eq!(server.ask("calls", ""), "2", "cancelled requests are not handled");
        server.stop();
    });
}

/// Stops a server at the very moment when it makes a new segment for its next client. However long that
/// takes, the end stays: no name is there when `stop` returns, none comes later, and another server may
/// have the name at once.
#[test]
fn a_server_that_is_making_a_new_segment_stops_for_good() {
    scene(|t| {
        let path = format!("/dev/shm{}", ChannelName::new(t.name()).unwrap().segment());
        let inode = || std::fs::metadata(&path).map(|found| found.ino()).unwrap_or(0);
        for round in 0..30 {
            // Both ways to take long: pages that are reserved, and pages that are made to be there.
            let pages = [Pages::OnDemand, Pages::Prefaulted, Pages::Huge][round % 3];
            let config = ServerConfig::new(BufferConfig::new(0, 48 << 20)).pages(pages);
            let config = config.stop_timeout(Duration::ZERO);
            let mut server = Server::create(t.name(), config).unwrap();
            server.start(|_: &mut Frame<'_>| {}).unwrap();
            let mut client = t.client();
            drop(client.call(&[1], LONG).unwrap());
            let first = inode();
            drop(client);
            eventually("another segment", || ![0, first].contains(&inode()));
            std::thread::sleep(Duration::from_millis(round as u64 / 3));
            server.stop().unwrap();
            assert_eq!(names(t.name()), [""; 0], "round {round}, {pages:?}");
            t.own_server(64).stop().unwrap();
            drop(server);
        }
        // The threads of servers that did not wait for them.
        eventually("everything is unmapped", || traces(t.name()).is_empty());
    });
}

#[test]
fn when_stop_returns_its_threads_are_done_and_what_their_handler_had_is_dropped() {
    /// Takes its time to go.
    struct Slow(Arc<AtomicBool>);

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(100));
            self.0.store(true, Ordering::SeqCst);
        }
    }

    scene(|t| {
        let dropped = Arc::new(AtomicBool::new(false));
        let slow = Slow(Arc::clone(&dropped));
        let mut server = t.own_server(4096);
        server
            .start(move |_: &mut Frame| {
                let _kept = &slow;
            })
            .unwrap();
        server.stop().unwrap();
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_server_knows_its_name_and_takes_1_to_1024_workers() {
    scene(|t| {
        for workers in [0, 1025] {
            let config = ServerConfig::new(BufferConfig::new(0, 4096)).workers(workers);
            fails(Server::create(t.name(), config), ErrorKind::BadConfig);
        }
        for workers in [1, 1024] {
            let config = ServerConfig::new(BufferConfig::new(0, 4096)).workers(workers);
            assert_eq!(Server::create(t.name(), config).unwrap().name(), t.name());
        }
    });
}
