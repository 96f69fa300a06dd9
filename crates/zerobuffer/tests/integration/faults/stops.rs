//! Processes that are stopped (SIGSTOP) at each of their steps, and go on later: nobody takes them for
//! dead, nobody waits longer than its deadline, and in the end all is well.

use super::clients::LIVES;
use super::servers::{AT_WORK, CREATE, RETIRE, STOP};
use super::{armed, stopping};
use crate::death::next_client_is_served;
use crate::harness::{LONG, Peer, Scene, eventually, fails, scene};
use crate::peer::{Op, edited, op};
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ErrorKind, RequestState, Server};

const SHORT: Duration = Duration::from_millis(30);

/// Nobody can attach at this moment, and that is said in time and without a death.
#[track_caller]
fn nobody_gets_in(t: &Scene) {
    let error = Client::connect(t.name(), SHORT).unwrap_err();
    let kinds = [ErrorKind::NotRunning, ErrorKind::Busy];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

#[test]
fn a_server_stopped_at_each_step_of_making_its_segment_goes_on_with_it() {
    scene(|t| {
        for step in CREATE {
            if step.0 == "create.locked" || step.0 == "create.ready" {
                // Without a name yet, or all done: see below.
                continue;
            }
            let mut server = t.peer(&format!("role=server metadata=x {}", stopping(step)));
            server.has_stopped();
            nobody_gets_in(t);
            let second = Server::create(t.name(), BufferConfig::new(0, 64));
            fails(second, ErrorKind::AlreadyRunning);
            server.go_on();
            server.expect("ready");
            next_client_is_served(t);
            server.stop();
        }
    });
}

#[test]
fn a_server_stopped_before_its_segment_has_a_name_loses_the_name_to_the_next() {
    scene(|t| {
        let mut first = t.peer(&format!("role=server {}", stopping(("create.locked", 0))));
        first.has_stopped();
        let second = t.server("handler=ops");
        first.go_on();
        first.expect("failed AlreadyRunning");
        next_client_is_served(t);
        second.stop();
    });
}

#[test]
fn a_server_stopped_at_each_step_of_its_work_is_late_and_not_dead() {
    scene(|t| {
        for (step, _) in AT_WORK {
            let mut server = t.server("handler=ops wait=park");
            let mut client = t.client();
            server.ask(&format!("arm {}", stopping(step)), "armed");
            let request = op(Op::Edit, 7, 4000);
            let sequence = client.send_request(&request).unwrap();
            server.has_stopped();
            match client.receive_response_for(sequence, SHORT) {
                // Whether it was handled before the stop depends on the step.
                Ok(answer) => assert_eq!(answer.data(), edited(&request), "{step:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{step:?}: {error:?}"),
            }
            assert!(client.is_server_connected());
            fails(client.receive_response(SHORT), ErrorKind::Timeout);
            server.go_on();
            // The late answer goes nowhere; this one is its own.
            let request = op(Op::Edit, 8, 4000);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
            eventually("all of the ring", || client.in_flight() == 0);
            drop(client);
            next_client_is_served(t);
            server.stop();
        }
    });
}

#[test]
fn a_server_stopped_at_each_step_of_replacing_a_segment_goes_on_with_it() {
    scene(|t| {
        for step in RETIRE {
            let mut server = t.server("handler=ops");
            let mut client = t.client();
            drop(client.call(&op(Op::Edit, 1, 100), LONG).unwrap());
            server.ask(&format!("arm {}", stopping(step)), "armed");
            drop(client);
            server.has_stopped();
            let is_there = ["retire.renewed", "create.ready"].contains(&step.0);
            if !is_there {
                nobody_gets_in(t);
            }
            server.go_on();
            next_client_is_served(t);
            server.stop();
        }
    });
}

#[test]
fn a_server_stopped_without_a_name_gives_way_to_the_one_that_has_taken_it() {
    scene(|t| {
        for step in [("retire.unlinked", 0), ("retire.resigned", 0)] {
            let mut first = t.server("handler=ops");
            first.ask(&format!("arm {}", stopping(step)), "armed");
            drop(t.client().call(&op(Op::Edit, 1, 100), LONG).unwrap());
            first.has_stopped();
            let second = t.server("handler=ops");
            first.go_on();
            eventually("the first stops", || first.ask("running", "") == "false");
            next_client_is_served(t);
            first.say("stop");
            first.expect("failed AlreadyRunning");
            next_client_is_served(t);
            second.stop();
        }
    });
}

#[test]
fn a_server_stopped_at_each_step_of_stopping_stops_in_the_end() {
    scene(|t| {
        for step in STOP {
            let mut server = t.server("handler=ops stop=50");
            let client = t.client();
            server.ask(&format!("arm {}", stopping(step)), "armed");
            server.say("stop");
            server.has_stopped();
            let error = client.receive_response(SHORT).unwrap_err();
            let kinds = [ErrorKind::Timeout, ErrorKind::PeerClosed];
            assert!(kinds.contains(&error.kind()), "{step:?}: {error:?}");
            server.go_on();
            server.stopped();
            fails(client.receive_response(LONG), ErrorKind::PeerClosed);
        }
    });
}

/// A thread that is off the CPU for longer than the server waits for handlers, between its last check that
/// the server goes on and its take. The client must not be told that the request was not started: it
/// would send it again, and it would run twice.
#[test]
fn a_thread_held_while_it_takes_a_request_is_waited_for() {
    scene(|t| {
        for (handler, workers) in [("keep", 1), ("keep", 3), ("task", 1)] {
            let description = format!("handler={handler} workers={workers} stop=20 wait=park");
            let mut server = t.server(&description);
            let client = t.client();
            let step = armed(("take.before_count", 0), libc::SIGUSR1);
            server.ask(&format!("arm {step}"), "armed");
            let sequence = client.send_request(b"once").unwrap();
            server.expect("held");
            server.say("stop");
            // Many times the stop timeout, in which nothing may be said of the request.
            let told = client.receive_response(Duration::from_millis(400));
            fails(told, ErrorKind::Timeout);
            server.signal(libc::SIGUSR2);
            match client.receive_response_for(sequence, LONG) {
                Ok(response) => assert_eq!(response.data(), b"once"),
                Err(error) => {
                    let lost = error.lost_request().expect("about this request");
                    assert_eq!(lost.state, RequestState::InDoubt, "{error}");
                }
            }
            server.stopped();
        }
    });
}

#[test]
fn a_client_stopped_at_each_of_its_steps_keeps_its_place() {
    scene(|t| {
        let server = t.server("handler=ops payload=4096 wait=park");
        for life in &LIVES {
            let (last, before) = life.commands.split_last().unwrap();
            for step in life.steps {
                if ["attach.opened", "attach.mapped", "attach.fresh"].contains(&step.0) {
                    // Not locked yet: see below.
                    continue;
                }
                let mut client = t.peer("role=client");
                client.expect("ready");
                before.iter().for_each(|command| drop(client.ask(command, "ok")));
                client.ask(&format!("arm {}", stopping(*step)), "ok");
                client.say(last);
                client.has_stopped();
                nobody_gets_in(t);
                client.go_on();
                let line = client.hear();
                let late = line.starts_with("err Timeout") && last.ends_with("ms=5");
                assert!(line.starts_with("ok") || late, "{step:?}: {line}");
                client.stop();
                next_client_is_served(t);
            }
        }
        server.stop();
    });
}

/// A client that stops before it takes its lock.
fn stopped_before_its_lock(t: &Scene) -> Peer {
    stopped_while_it_attaches(t, "attach.mapped")
}

fn stopped_while_it_attaches(t: &Scene, step: &'static str) -> Peer {
    let mut client = t.peer("role=client");
    client.expect("ready");
    client.ask(&format!("arm {}", stopping((step, 0))), "ok");
    client.say("connect");
    client.has_stopped();
    client
}

#[test]
fn a_client_stopped_before_its_lock_finds_out_that_others_were_there() {
    scene(|t| {
        let mut server = t.server("handler=ops");
        let mut first = stopped_before_its_lock(t);
        let mut second = t.client();
        drop(second.call(&op(Op::Edit, 1, 100), LONG).unwrap());
        first.go_on();
        drop(second.call(&op(Op::Edit, 1, 100), LONG).unwrap());
        // The second one goes while the server cannot replace the segment it has used: its lock is free,
        // its traces are there.
        server.freeze();
        drop(second);
        first.expect_naps(5);
        server.go_on();
        first.expect("ok");
        first.ask("call len=100 seed=512", "ok 1");
        first.stop();
        assert_eq!(server.ask("calls", ""), "3");
        server.stop();
    });
}

#[test]
fn a_client_stopped_before_its_lock_does_not_attach_to_a_server_that_has_ended() {
    scene(|t| {
        for orderly in [true, false] {
            let server = t.server("handler=ops");
            let mut client = stopped_before_its_lock(t);
            if orderly {
                server.stop();
            } else {
                t.kill(server);
            }
            let server = t.server("handler=ops");
            client.go_on();
            client.expect("ok");
            client.ask("call len=100 seed=512", "ok 1");
            client.stop();
            server.stop();
        }
    });
}

/// Where a look at the segment is not enough: it was fresh when the client looked, was used by another
/// one meanwhile, and that one has ended.
#[test]
fn a_client_looks_again_once_it_has_its_lock() {
    scene(|t| {
        let server = t.server("handler=ops");
        let mut first = stopped_while_it_attaches(t, "attach.fresh");
        let mut second = t.client();
        drop(second.call(&op(Op::Edit, 1, 100), LONG).unwrap());
        server.freeze();
        drop(second);
        first.go_on();
        first.expect_naps(5);
        server.go_on();
        first.expect("ok");
        first.ask("call len=100 seed=512", "ok 1");
        first.stop();
        server.stop();
    });
}

/// A segment that somebody has written into is replaced though no client has used it. The client that is
/// about to attach to it gets the next one, and not a server that seems to die.
#[test]
fn a_client_does_not_attach_to_a_segment_that_is_being_replaced() {
    use std::os::unix::fs::FileExt;
    scene(|t| {
        let step = stopping(("retire.both_locked", 0));
        let server = t.server(&format!("handler=ops {step}"));
        let mut client = stopped_while_it_attaches(t, "attach.fresh");
        let segment = format!("/dev/shm/{}_duplex", t.name());
        let segment = std::fs::File::options().write(true).open(segment).unwrap();
        // OIEB_Response.metadata_written_bytes: the server has written none.
        segment.write_all_at(&[1], 0x70).unwrap();
        server.has_stopped();
        client.go_on();
        client.expect_naps(5);
        server.go_on();
        client.expect("ok");
        client.ask("call len=100 seed=512", "ok 1");
        client.stop();
        server.stop();
    });
}
