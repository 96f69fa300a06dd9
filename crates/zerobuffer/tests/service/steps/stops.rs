//! Processes that are stopped (SIGSTOP) at each of their steps, and go on later: they are alive, nobody
//! waits for them longer than its deadline, and in the end all is well.

use super::clients::{LIVES, about_to};
use super::servers::{AT_WORK, LET_IN, PUBLISH, STOP};
use super::{next_client_is_served, stopping, worker, works};
use crate::scene::{LONG, NAME, Scene, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerobuffer::{Client, ErrorKind};
use zerobuffer_test_support::Peer;

const SHORT: Duration = Duration::from_millis(30);

#[test]
fn a_worker_stopped_at_each_step_of_making_its_socket_goes_on_with_it() {
    for step in PUBLISH {
        let scene = Scene::new();
        let mut server = scene.start(&format!("role=worker {}", stopping(step)));
        server.has_stopped();
        // Neither a name to remove, nor one in the way.
        let second = worker(&scene);
        next_client_is_served(&scene);
        second.stop();
        server.go_on();
        server.expect("ready");
        next_client_is_served(&scene);
        server.stop();
    }
}

#[test]
fn a_client_of_a_worker_stopped_while_it_lets_it_in_goes_to_another_one() {
    for step in LET_IN {
        let scene = Scene::new();
        let mut first = scene.peer(&format!("role=worker {}", stopping(step)));
        let early = super::Early::new(&scene);
        first.has_stopped();
        let second = worker(&scene);
        if step.0 == "door.replied" {
            // The client is in; nothing else of the worker is held up by this than its work.
            first.go_on();
            early.expect_service();
        } else {
            early.expect_service();
            first.go_on();
        }
        // It is rid of the connection that was left.
        eventually("nobody is left", || first.ask("clients", "clients") == "0");
        second.stop();
        next_client_is_served(&scene);
        first.stop();
    }
}

#[test]
fn a_worker_stopped_at_each_step_of_its_work_is_late_and_not_dead() {
    let at_work = AT_WORK.map(|(step, _)| step).into_iter();
    for step in at_work.chain([("sleep.armed", 0)]) {
        let scene = Scene::new();
        let mut server = worker(&scene);
        let [mut client, mut other] = [(); 2].map(|()| scene.client());
        works(&mut client);
        works(&mut other);
        server.ask(&format!("arm {}", stopping(step)), "armed");
        let has_stopped = AtomicBool::new(false);
        let is_over = || has_stopped.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            // It sleeps by the time that it is answered; on a busy machine not the first time.
            let waiting = scope.spawn(|| {
                while !is_over() {
                    let response = client.call(&u64::MAX.to_le_bytes(), LONG);
                    assert_eq!(response.expect("late, not lost").data(), [0; 8], "{step:?}");
                }
            });
            server.has_stopped();
            has_stopped.store(true, Ordering::SeqCst);
            let error = other.call(&1_u64.to_le_bytes(), SHORT).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{step:?}: {error}");
            assert!(other.is_server_connected());
            server.go_on();
            waiting.join().expect("answered");
        });
        works(&mut other);
        works(&mut client);
        drop(other);
        drop(client);
        server.stop();
    }
}

#[test]
fn a_worker_stopped_at_each_step_of_stopping_stops_in_the_end() {
    for step in STOP {
        let scene = Scene::new();
        let mut server = worker(&scene);
        let mut client = scene.client();
        works(&mut client);
        server.ask(&format!("arm {}", stopping(step)), "armed");
        server.say("stop");
        server.has_stopped();
        let error = Client::connect_with(NAME, Duration::ZERO, scene.client_config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning, "{step:?}: {error}");
        let error = client.receive_response(SHORT).unwrap_err();
        let kinds = [ErrorKind::Timeout, ErrorKind::PeerClosed];
        assert!(kinds.contains(&error.kind()), "{step:?}: {error:?}");
        server.go_on();
        server.stopped();
        assert_eq!(client.receive_response(LONG).unwrap_err().kind(), ErrorKind::PeerClosed);
    }
}

#[test]
fn a_client_stopped_at_each_of_its_steps_keeps_its_place_and_holds_up_nobody() {
    let scene = Scene::new();
    let mut server = worker(&scene);
    let mut other = scene.client();
    for life in &LIVES {
        for step in life.steps {
            let (mut client, last) = about_to(&scene, life, &stopping(*step));
            stops_at_its_step(&mut client, last);
            works(&mut other);
            next_client_is_served(&scene);
            client.go_on();
            let line = client.hear();
            let late = line.starts_with("err Timeout") && last.ends_with("ms=5");
            assert!(line == "ok" || late, "{step:?}: {line}");
            client.stop();
            eventually("it has left", || server.ask("clients", "clients") == "1");
        }
    }
    drop(other);
    server.stop();
}

/// Tells an armed client to do something, again where on a busy machine its step was not part of it.
#[track_caller]
fn stops_at_its_step(client: &mut Peer, last: &str) {
    client.say(last);
    eventually("its step", || {
        if client.heard().is_some() {
            client.say(last);
        }
        client.is_stopped()
    });
}
