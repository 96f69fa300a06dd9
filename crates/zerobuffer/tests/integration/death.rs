//! kill -9 of either side at every step, as the survivor sees it.

use crate::harness::{LONG, Peer, SOON, Scene, eventually, fails, scene};
use crate::peer::{Op, edited, op, strategy};
use crate::work::{self, Rng};
use std::thread::JoinHandle;
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, Error, ErrorKind, LostRequest, RequestState};
use zerobuffer_test_support::Sleeper;

#[track_caller]
pub(crate) fn lost<T>(outcome: Result<T, Error>) -> Option<LostRequest> {
    fails(outcome, ErrorKind::PeerDied).lost_request()
}

/// The next client attaches, and is served, well within the bound.
#[track_caller]
pub(crate) fn next_client_is_served(t: &Scene) {
    let mut client = Client::connect(t.name(), SOON).expect("the next client attaches");
    let request = op(Op::Edit, 5, 3000);
    assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
    t.expect_few_tokens();
}

/// Kills `peer` from another thread; to be joined before the peer is waited for.
fn kill_after(peer: &Peer, delay: Duration) -> JoinHandle<()> {
    let pid = peer.pid();
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        // SAFETY: kill has no memory effects; the process was not waited for yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    })
}

#[test]
fn a_server_killed_while_it_makes_its_segment_leaves_nothing_in_the_way() {
    scene(|t| {
        t.expect_leftovers();
        let mut rng = Rng(work::seed());
        for _ in 0..10 * work::factor() {
            let mut server = t.peer("role=server payload=67108864");
            if rng.below(4) == 0 {
                // Once in a while exactly when it is ready.
                server.expect("ready");
            } else {
                eventually("a name", || !crate::harness::names(t.name()).is_empty());
                std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
            }
            server.kill();
            fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::NotRunning);
        }
        let server = t.server("");
        next_client_is_served(t);
        server.stop();
    });
}

#[test]
fn requests_that_a_killed_server_had_not_taken_are_not_started() {
    scene(|t| {
        for wait in ["park", "spin", "both"] {
            not_taken(t, ClientConfig::new().wait(strategy(wait)));
        }
    });
}

fn not_taken(t: &Scene, config: ClientConfig) {
    let server = t.server("handler=none");
    let client = t.client_with(config);
    let sent: Vec<_> = (0..3).map(|n| client.send_request(&[n; 100]).unwrap()).collect();
    t.kill(server);
    for sequence in sent {
        let state = RequestState::NotStarted;
        let expected = Some(LostRequest { sequence, state });
        assert_eq!(lost(client.receive_response_for(sequence, SOON)), expected);
    }
    assert_eq!(lost(client.receive_response(SOON)), None);
    assert_eq!(lost(client.send_request(&[1])), None);
    assert!(!client.is_server_connected());
}

#[test]
fn a_server_killed_in_its_handler_leaves_the_request_in_doubt_and_no_half_edited_answer() {
    scene(|t| {
        for by_itself in [false, true] {
            for percent in [0, 25, 50, 75, 100] {
                let mut server = t.server("handler=ops payload=4194304");
                let client = t.client();
                let how = if by_itself { Op::Die } else { Op::Stick };
                let sequence = client.send_request(&op(how, percent, 1 << 20)).unwrap();
                let queued = client.send_request(&op(Op::Edit, 0, 100)).unwrap();
                if !by_itself {
                    server.expect("stuck");
                    fails(
                        client.receive_response_for(sequence, Duration::ZERO),
                        ErrorKind::Timeout,
                    );
                    t.kill(server);
                }
                let expected = Some(LostRequest { sequence, state: RequestState::InDoubt });
                assert_eq!(lost(client.receive_response_for(sequence, LONG)), expected);
                let state = RequestState::NotStarted;
                let expected = Some(LostRequest { sequence: queued, state });
                assert_eq!(lost(client.receive_response(SOON)), expected);
                fails(client.receive_response_for(sequence, SOON), ErrorKind::UnknownSequence);
            }
        }
        t.expect_leftovers();
    });
}

#[test]
fn answers_that_were_there_are_delivered_before_the_death_is_reported() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let client = t.client();
        let answered: Vec<_> = (0..5).map(|n| op(Op::Edit, n, 200)).collect();
        for request in &answered {
            client.send_request(request).unwrap();
        }
        client.send_request(&op(Op::Stick, 50, 2000)).unwrap();
        client.send_request(&op(Op::Edit, 9, 200)).unwrap();
        server.expect("stuck");
        t.kill(server);
        for (n, request) in answered.iter().enumerate() {
            let answer = client.receive_response(SOON).unwrap();
            assert_eq!((answer.sequence(), answer.data()), (n as u64 + 1, &edited(request)[..]));
        }
        let (in_doubt, not_started) = (RequestState::InDoubt, RequestState::NotStarted);
        let expected = Some(LostRequest { sequence: 6, state: in_doubt });
        assert_eq!(lost(client.receive_response(SOON)), expected);
        let expected = Some(LostRequest { sequence: 7, state: not_started });
        assert_eq!(lost(client.receive_response(SOON)), expected);
        assert_eq!(lost(client.receive_response(SOON)), None);
    });
}

#[test]
fn a_server_that_dies_after_the_answer_has_answered() {
    scene(|t| {
        t.expect_leftovers();
        for _ in 0..5 {
            let server = t.server("handler=ops");
            let mut client = t.client();
            let request = op(Op::DieLater, 20, 500);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
            server.wait();
            assert_eq!(lost(client.receive_response(SOON)), None);
            assert!(
                lost(client.call(&request, SOON))
                    .is_none_or(|lost| { lost.state == RequestState::NotStarted })
            );
        }
    });
}

#[test]
fn a_client_that_only_looks_learns_of_the_death() {
    scene(|t| {
        for timeout in [Duration::ZERO, Duration::from_millis(2)] {
            let server = t.server("handler=none");
            let client = t.client();
            let sequence = client.send_request(&[1]).unwrap();
            fails(client.receive_response_for(sequence, Duration::ZERO), ErrorKind::Timeout);
            t.kill(server);
            let mut end = None;
            eventually("the notice of the death", || {
                match client.receive_response(timeout) {
                    Err(Error::Timeout { .. }) => {}
                    Err(error) => end = Some(error),
                    Ok(_) => panic!("nobody can have answered"),
                }
                end.is_some()
            });
            let expected = Some(LostRequest { sequence, state: RequestState::NotStarted });
            assert_eq!(end.unwrap().lost_request(), expected);
        }
    });
}

#[test]
fn a_client_that_waits_for_space_learns_of_the_death() {
    scene(|t| {
        let server = t.server("handler=none payload=1024");
        let client = t.client();
        client.send_request(&[1; 900]).unwrap();
        let (sleeper, pid) = (&Sleeper::default(), server.pid());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sleeper.expect_sleep();
                // SAFETY: kill has no memory effects; the process was not waited for yet.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            });
            sleeper.enters();
            // The configured send timeout is 5 seconds.
            fails(client.send_request(&[2; 900]), ErrorKind::PeerDied);
        });
        t.kill(server);
    });
}

#[test]
fn every_thread_that_waits_learns_of_the_death() {
    scene(|t| {
        let mut server = t.server("handler=ops workers=2");
        let client = t.client().into_shared();
        let sleepers: [Sleeper; 8] = Default::default();
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..8)
                .map(|n| {
                    let (client, sleepers) = (client.clone(), &sleepers);
                    scope.spawn(move || {
                        sleepers[n].enters();
                        client.call(&op(Op::Stick, 50, 100 + n), LONG).map(drop)
                    })
                })
                .collect();
            server.expect("stuck");
            server.expect("stuck");
            sleepers.iter().for_each(Sleeper::expect_sleep);
            t.kill(server);
            let states: Vec<_> = calls
                .into_iter()
                .filter_map(|call| lost(call.join().unwrap()))
                .map(|lost| lost.state)
                .collect();
            // Those that came too late to send anything have nothing to lose.
            let in_doubt = states.iter().filter(|state| **state == RequestState::InDoubt).count();
            assert_eq!(in_doubt, 2, "{states:?}");
        });
    });
}

#[test]
fn an_idle_client_sees_that_its_server_was_killed() {
    scene(|t| {
        let server = t.server("");
        let client = t.client();
        assert!(client.is_server_connected());
        t.kill(server);
        assert!(!client.is_server_connected());
    });
}

/// The names of a process's threads.
fn threads(pid: i32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc").flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
}

#[test]
fn who_waits_for_long_is_told_of_a_death_by_a_thread_that_ends_with_the_connection() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut client = t.client_peer("");
        let watchers = |pid| threads(pid).iter().filter(|name| *name == "zb-death-watch\n").count();
        client.ask("call len=100 seed=512", "ok");
        assert_eq!(watchers(client.pid()), 0, "short calls need none");
        // What is held keeps the memory, and nothing else.
        client.ask("send len=100 seed=512", "ok");
        client.ask("hold", "ok");
        client.say("op op=8 arg=0 len=100");
        server.expect("gate");
        eventually("the thread", || watchers(client.pid()) == 1);
        server.say("open");
        client.expect("ok");
        client.ask("close", "ok");
        assert_eq!(watchers(client.pid()), 0);
        client.stop();
        server.stop();
    });
}

#[test]
fn the_death_of_a_process_that_only_has_the_servers_id_is_a_hint_and_no_more() {
    use std::os::unix::fs::FileExt;
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // As in another pid namespace, where the id stands for somebody else: OIEB_Request.reader_pid.
        let segment = format!("/dev/shm/{}_duplex", t.name());
        let segment = std::fs::File::options().write(true).open(segment).unwrap();
        segment.write_all_at(&u64::from(other.id()).to_le_bytes(), 0x50).unwrap();
        let mut client = t.client_peer("");
        client.say("op op=8 arg=0 len=100");
        server.expect("gate");
        let is_watched = || threads(client.pid()).iter().any(|name| name == "zb-death-watch\n");
        eventually("who watches the other process", is_watched);
        other.kill().unwrap();
        other.wait().unwrap();
        // Told of it, and back asleep.
        client.expect_naps(3);
        server.say("open");
        client.expect("ok 100");
        client.stop();
        server.stop();
    });
}

/// Kills a client after `step` said how far it should go, and sees the next one served.
fn client_killed_after(server: &str, step: impl Fn(&mut Peer) + Send + 'static) {
    let server = server.to_owned();
    scene(move |t| {
        let server = t.server(&server);
        for _ in 0..5 {
            let mut client = t.client_peer("");
            step(&mut client);
            client.kill();
            next_client_is_served(t);
        }
        server.stop();
    });
}

#[test]
fn a_client_killed_before_its_first_request_makes_room_for_the_next() {
    client_killed_after("handler=ops", |_| {});
    // Long after it has attached, too.
    client_killed_after("handler=ops", |_| std::thread::sleep(Duration::from_millis(130)));
}

#[test]
fn a_client_killed_while_it_fills_a_request_makes_room_for_the_next() {
    client_killed_after("handler=ops", |client| {
        client.ask("claim len=60000", "ok");
    });
}

#[test]
fn a_client_killed_after_the_commit_makes_room_for_the_next() {
    client_killed_after("handler=ops", |client| {
        client.ask("send len=60000 seed=512", "ok");
    });
}

#[test]
fn a_client_killed_while_it_holds_responses_makes_room_for_the_next() {
    client_killed_after("handler=f", |client| {
        for seed in 0..3 {
            client.ask(&format!("send len=15000 seed={seed}"), "ok");
            client.ask("hold", "ok");
        }
    });
}

#[test]
fn a_client_killed_while_it_waits_makes_room_for_the_next() {
    scene(|t| {
        for workers in [1, 2] {
            let mut server = t.server(&format!("handler=ops workers={workers}"));
            for _ in 0..5 {
                let mut client = t.client_peer("");
                client.say("op op=8 arg=0 len=50000");
                server.expect("gate");
                client.kill();
                if workers == 1 {
                    // Its one thread is in the handler, which then ends on memory that is still there.
                    server.say("open");
                    next_client_is_served(t);
                } else {
                    next_client_is_served(t);
                    server.say("open");
                }
            }
            server.stop();
        }
    });
}

#[test]
fn a_client_killed_while_the_server_polls_makes_room_for_the_next() {
    scene(|t| {
        let mut server = t.own_server(4096);
        for timeout in [0, 3] {
            let mut client = t.client_peer("");
            client.ask("send len=100 seed=1", "ok");
            drop(server.receive(LONG).unwrap());
            client.kill();
            let mut pump = || drop(server.receive(Duration::from_millis(timeout)));
            t.client_peer_while(&mut pump).stop();
        }
    });
}

#[test]
fn both_sides_killed_in_any_order_leave_nothing_in_the_way_of_the_next_pair() {
    scene(|t| {
        for server_first in [true, false] {
            let mut server = t.server("handler=ops");
            let mut client = t.client_peer("");
            client.say("op op=5 arg=50 len=50000");
            server.expect("stuck");
            let (first, second) = if server_first { (server, client) } else { (client, server) };
            first.kill();
            t.kill(second);
            let server = t.server("handler=ops");
            next_client_is_served(t);
            server.stop();
        }
        // The server dies, its client lives on for a while: the name is free all the same.
        let server = t.server("handler=ops");
        let client = t.client_peer("");
        t.kill(server);
        let server = t.server("handler=ops");
        next_client_is_served(t);
        client.kill();
        next_client_is_served(t);
        server.stop();
    });
}

#[test]
fn servers_killed_at_random_moments_never_answer_wrongly() {
    scene(|t| {
        let mut rng = Rng(work::seed());
        for n in 0..15 * work::factor() {
            let server = t.server(&format!("handler=ops payload=65536 workers={}", 1 + n % 2));
            let mut client = t.client();
            let delay = Duration::from_micros(rng.below(15_000) as u64);
            let killer = kill_after(&server, delay);
            let end = loop {
                let request = op(Op::Edit, rng.next_word(), rng.below(30_000));
                match client.call(&request, LONG) {
                    Ok(answer) => assert_eq!(answer.data(), edited(&request)),
                    Err(error) => break error,
                }
            };
            assert_eq!(end.kind(), ErrorKind::PeerDied, "{end:?}");
            killer.join().unwrap();
            t.kill(server);
        }
    });
}

#[test]
fn clients_killed_at_random_moments_leave_the_server_in_order() {
    scene(|t| {
        let server = t.server("payload=65536 workers=2");
        let mut rng = Rng(work::seed());
        for _ in 0..15 * work::factor() {
            let mut client = t.client_peer("");
            client.say("calls count=1000000 largest=30000 seed=3");
            std::thread::sleep(Duration::from_micros(rng.below(15_000) as u64));
            client.kill();
            next_client_is_served(t);
        }
        server.stop();
    });
}

#[test]
fn clients_killed_while_they_attach_leave_the_server_in_order() {
    scene(|t| {
        let server = t.server("");
        let mut rng = Rng(work::seed());
        for n in 0..30 * work::factor() {
            let mut client = t.peer("role=client");
            client.expect("ready");
            client.say("connect");
            if n % 2 == 0 {
                client.say("close");
            }
            std::thread::sleep(Duration::from_micros(rng.below(2_000) as u64));
            client.kill();
            next_client_is_served(t);
        }
        server.stop();
    });
}

#[test]
fn the_last_answer_of_a_server_that_dies_is_never_lost_and_never_wrong() {
    scene(|t| {
        // The handler's own process dies at about the time of the answer, before, in or after it.
        for n in 0..20 * work::factor() as usize {
            let server = t.server("handler=ops wait=park");
            let mut client = t.client();
            let request = op(Op::DieLater, 0, 200 + n % 20 * 1000);
            match client.call(&request, LONG) {
                Ok(answer) => assert_eq!(answer.data(), edited(&request)),
                Err(error) => {
                    let state = error.lost_request().map(|lost| lost.state);
                    assert_eq!(state, Some(RequestState::InDoubt), "{error:?}");
                }
            }
            assert!(server.wait().code().is_none(), "killed");
            t.expect_leftovers();
        }
    });
}
