//! Workers that are killed at each of their steps.

use super::peer::GATE;
use super::{
    Early, Step, a_next_pair_works, caller, killing, let_a_minute_pass, lost, worker, works,
};
use crate::scene::{LONG, NAME, Scene, eventually};
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, ErrorKind, RequestState, WaitStrategy};

/// The steps of making a socket that clients find.
pub(super) const PUBLISH: [Step; 3] =
    [("publish.bound", 0), ("publish.listening", 0), ("publish.named", 0)];

#[test]
fn a_worker_killed_at_each_step_of_making_its_socket_leaves_nothing_in_the_way() {
    for step in PUBLISH {
        let scene = Scene::new();
        scene.expect_leftovers();
        let early = Early::new(&scene);
        scene.start(&format!("role=worker {}", killing(step))).died();
        let error = Client::connect_with(NAME, Duration::ZERO, scene.client_config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning, "{step:?}: {error}");
        let_a_minute_pass(&scene);
        a_next_pair_works(&scene, early);
        assert_eq!(scene.sockets(), [""; 0], "{step:?}");
    }
}

/// The steps of letting a client in.
pub(super) const LET_IN: [Step; 9] = [
    ("door.accepted", 0),
    ("door.heard", 0),
    ("segment.begun", 0),
    ("segment.reserved", 0),
    ("metadata.written", 0),
    ("segment.written", 0),
    ("segment.sealed", 0),
    ("door.entered", 0),
    ("door.replied", 0),
];

#[test]
fn a_client_that_a_worker_dies_on_while_it_attaches_gets_to_the_next_one() {
    for step in LET_IN {
        let scene = Scene::new();
        scene.expect_leftovers();
        let server = scene.peer(&format!("role=worker {}", killing(step)));
        let early = Early::new(&scene);
        server.died();
        a_next_pair_works(&scene, early);
    }
}

/// What a client gets whose one request is on its way when the worker dies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Response,
    Lost(RequestState),
}

const NOT_STARTED: Seen = Seen::Lost(RequestState::NotStarted);
const IN_DOUBT: Seen = Seen::Lost(RequestState::InDoubt);

pub(super) const AT_WORK: [(Step, Seen); 7] = [
    (("wait.token_taken", 0), NOT_STARTED),
    (("take.before_count", 0), NOT_STARTED),
    (("take.counted", 0), IN_DOUBT),
    (("answer.before_state", 0), IN_DOUBT),
    (("answer.after_state", 0), Seen::Response),
    (("answer.before_post", 0), Seen::Response),
    (("bell.before_send", 0), Seen::Response),
];

#[test]
fn a_worker_killed_at_each_step_of_its_work_is_reported_with_what_is_known_of_the_request() {
    for (step, seen) in AT_WORK {
        for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark] {
            killed_at_work(step, seen, wait);
        }
    }
}

fn killed_at_work(step: Step, seen: Seen, wait: WaitStrategy) {
    let scene = Scene::new();
    scene.expect_leftovers();
    let mut server = worker(&scene);
    let config = scene.client_config().wait(wait);
    let mut client = Client::connect_with(NAME, LONG, config).expect("attaches");
    let mut bystander = scene.client();
    works(&mut bystander);
    server.ask(&format!("arm {}", killing(step)), "armed");
    // Long enough in the handler for the client to fall asleep, so that its bell is rung.
    let request = u64::MAX.to_le_bytes();
    let mut call = || client.call(&request, LONG).map(|response| response.data().to_vec());
    let mut outcome = call();
    // On a busy machine one side may have been late to fall asleep, so that nobody had to wake it.
    let of_sleep = ["wait.token_taken", "bell.before_send"].contains(&step.0);
    while of_sleep && outcome.is_ok() && server.reply_or_end("is armed") == Some("true".into()) {
        outcome = call();
    }
    match (seen, outcome) {
        (Seen::Response, outcome) => assert_eq!(outcome.unwrap(), [0; 8], "{step:?}"),
        (Seen::Lost(state), outcome) => {
            assert_eq!(lost(outcome).map(|lost| lost.state), Some(state), "{step:?}");
        }
    }
    server.died();
    assert_eq!(lost(client.receive_response(LONG)), None, "reported once");
    // What it has sent before it could know was not started.
    let lost = lost(bystander.call(&request, LONG).map(drop)).map(|lost| lost.state);
    assert!(matches!(lost, None | Some(RequestState::NotStarted)), "{step:?}: {lost:?}");
    let server = worker(&scene);
    for mut client in [client, bystander] {
        client.reconnect(LONG).unwrap();
        works(&mut client);
    }
    server.stop();
}

#[test]
fn a_worker_killed_before_it_goes_to_sleep_is_seen_to_have_died() {
    for step in [("wait.before_sleep", 0), ("sleep.armed", 0)] {
        let scene = Scene::new();
        scene.expect_leftovers();
        let mut server = worker(&scene);
        let mut client = scene.client();
        works(&mut client);
        server.ask(&format!("arm {}", killing(step)), "armed");
        // It is asleep, or on its way there: a request wakes it, and is answered before it sleeps again.
        let outcome = client.call(&1_u64.to_le_bytes(), LONG).map(drop);
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::PeerDied, "{error}");
            let lost = error.lost_request().map(|lost| lost.state);
            assert!(matches!(lost, None | Some(RequestState::NotStarted)), "{error}");
        }
        server.died();
        drop(client);
        a_next_pair_works(&scene, Early::new(&scene));
    }
}

#[test]
fn a_worker_killed_while_it_passes_over_a_cancelled_request_has_not_started_the_next() {
    let scene = Scene::new();
    scene.expect_leftovers();
    let mut server = worker(&scene);
    let client = scene.client();
    let first = client.send_request(&GATE.to_le_bytes()).unwrap();
    eventually("the first is taken", || server.ask("calls", "calls") == "1");
    let second = client.send_request(&1_u64.to_le_bytes()).unwrap();
    let third = client.send_request(&2_u64.to_le_bytes()).unwrap();
    assert!(client.cancel(second));
    server.ask(&format!("arm {}", killing(("skip.before_state", 0))), "armed");
    server.say("open");
    let response = client.receive_response_for(first, LONG).unwrap();
    assert_eq!(response.data(), (GATE + 1).to_le_bytes());
    drop(response);
    let outcome = client.receive_response_for(third, LONG).map(drop);
    assert_eq!(lost(outcome).map(|lost| lost.state), Some(RequestState::NotStarted));
    server.died();
}

/// The steps of forgetting a client.
const END: [Step; 3] = [("end.abandoned", 0), ("end.shut_down", 0), ("end.punched", 0)];

#[test]
fn a_worker_killed_while_it_forgets_a_client_has_died_for_the_others() {
    for step in END {
        for is_killed in [true, false] {
            let scene = Scene::new();
            scene.expect_leftovers();
            let mut server = worker(&scene);
            let mut other = scene.client();
            works(&mut other);
            let mut leaving = caller(&scene);
            leaving.ask("connect", "ok");
            leaving.ask("call", "ok");
            server.ask(&format!("arm {}", killing(step)), "armed");
            if is_killed {
                leaving.kill();
            } else {
                leaving.stop();
            }
            server.died();
            assert_eq!(other.call(b"12345678", LONG).unwrap_err().kind(), ErrorKind::PeerDied);
            drop(other);
            a_next_pair_works(&scene, Early::new(&scene));
        }
    }
}

/// The steps of stopping cleanly.
pub(super) const STOP: [Step; 6] = [
    ("door.unpublished", 0),
    ("goodbye.forbidden", 0),
    ("goodbye.one_pid", 0),
    ("goodbye.before_bell", 0),
    ("goodbye.told", 0),
    ("goodbye.shut_down", 0),
];

#[test]
fn a_worker_killed_at_each_step_of_stopping_delivers_its_response_or_its_end() {
    for step in STOP {
        let scene = Scene::new();
        let mut server = worker(&scene);
        let config = ClientConfig::new().directory(&scene.directory).wait(WaitStrategy::Park);
        let client = Client::connect_with(NAME, LONG, config).expect("attaches");
        client.send_request(&3_u64.to_le_bytes()).unwrap();
        eventually("the response", || server.ask("calls", "calls") == "1");
        server.ask(&format!("arm {}", killing(step)), "armed");
        server.say("stop");
        server.died();
        let response = client.receive_response(LONG).expect("what was answered is delivered");
        assert_eq!(response.data(), 4_u64.to_le_bytes());
        drop(response);
        let error = client.receive_response(LONG).unwrap_err();
        let ends = [ErrorKind::PeerClosed, ErrorKind::PeerDied];
        assert!(ends.contains(&error.kind()), "{step:?}: {error:?}");
        assert_eq!(error.lost_request(), None, "nothing was in flight");
        drop(client);
        assert_eq!(scene.sockets(), [""; 0], "{step:?}: its name was removed first");
        a_next_pair_works(&scene, Early::new(&scene));
    }
}
