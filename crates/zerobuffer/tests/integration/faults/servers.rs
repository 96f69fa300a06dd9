//! Servers that are killed at each of their steps.

use super::{Early, Step, a_next_pair_works, killing};
use crate::death::lost;
use crate::harness::{LONG, SOON, Scene, eventually, fails, scene};
use crate::peer::{Op, edited, op};
use zerobuffer::{Client, ClientConfig, ErrorKind, RequestState, WaitStrategy};

/// The steps of making a segment; the counts leave out those of the one before.
pub(super) const CREATE: [Step; 13] = [
    ("create.locked", 0),
    ("create.named", 0),
    ("create.reserved", 0),
    ("unlink.semaphore", 0),
    ("unlink.semaphore", 3),
    ("create.semaphore", 0),
    ("create.semaphore", 1),
    ("create.semaphore", 2),
    ("create.semaphore", 3),
    ("create.sizes", 0),
    ("metadata.written", 0),
    ("create.written", 0),
    ("create.ready", 0),
];

#[test]
fn a_server_killed_at_each_step_of_making_its_segment_leaves_nothing_in_the_way() {
    scene(|t| {
        for step in CREATE {
            killed_while_it_creates(t, step);
        }
    });
}

pub(super) fn killed_while_it_creates(t: &Scene, step: Step) {
    t.expect_leftovers();
    let early = Early::new(t);
    t.peer(&format!("role=server metadata=x wait=park {}", killing(step))).died();
    fails(Client::connect(t.name(), std::time::Duration::ZERO), ErrorKind::NotRunning);
    a_next_pair_works(t, early);
}

#[test]
fn a_server_killed_while_it_clears_a_leftover_leaves_the_rest_to_the_next() {
    scene(|t| {
        for step in [("clear.locked", 0), ("clear.unlinked", 0), ("unlink.semaphore", 2)] {
            t.kill(t.server(""));
            killed_while_it_creates(t, step);
        }
    });
}

/// What a client gets whose one request is on its way when the server dies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Answer,
    Lost(RequestState),
}

const NOT_STARTED: Seen = Seen::Lost(RequestState::NotStarted);
const IN_DOUBT: Seen = Seen::Lost(RequestState::InDoubt);

pub(super) const AT_WORK: [(Step, Seen); 6] = [
    (("wait.token_taken", 0), NOT_STARTED),
    (("take.before_count", 0), NOT_STARTED),
    (("take.counted", 0), IN_DOUBT),
    (("answer.before_state", 0), IN_DOUBT),
    (("answer.after_state", 0), Seen::Answer),
    (("answer.before_post", 0), Seen::Answer),
];

#[test]
fn a_server_killed_at_each_step_of_its_work_is_reported_with_what_is_known_of_the_request() {
    scene(|t| {
        for (step, seen) in AT_WORK {
            for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark] {
                killed_at_work(t, step, seen, wait);
            }
        }
    });
}

pub(super) fn killed_at_work(t: &Scene, step: Step, seen: Seen, wait: WaitStrategy) {
    t.expect_leftovers();
    let mut server = t.server("handler=ops wait=park");
    let mut client = t.client_with(ClientConfig::new().wait(wait));
    server.ask(&format!("arm {}", killing(step)), "armed");
    let request = op(Op::Edit, 7, 40_000);
    let mut call = || client.call(&request, LONG).map(|answer| answer.data().to_vec());
    let mut outcome = call();
    while step.0 == "wait.token_taken" && outcome.is_ok() {
        // The request was found before its token.
        outcome = call();
    }
    match seen {
        Seen::Answer => assert_eq!(outcome.unwrap(), edited(&request), "{step:?}"),
        Seen::Lost(state) => {
            assert_eq!(lost(outcome).map(|lost| lost.state), Some(state), "{step:?}")
        }
    }
    server.died();
    assert_eq!(lost(client.receive_response(SOON)), None, "reported once");
    let server = t.server("handler=ops");
    client.reconnect(LONG).unwrap();
    assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
    drop(client);
    server.stop();
}

#[test]
fn a_server_killed_before_it_goes_to_sleep_is_seen_to_have_died() {
    scene(|t| {
        t.expect_leftovers();
        let mut server = t.server("handler=ops wait=park");
        let mut client = t.client();
        server.ask(&format!("arm {}", killing(("wait.before_sleep", 0))), "armed");
        server.died();
        let outcome = client.call(&op(Op::Edit, 1, 100), LONG).map(drop);
        assert_eq!(lost(outcome).map(|lost| lost.state), Some(RequestState::NotStarted));
    });
}

#[test]
fn a_server_killed_while_it_passes_over_a_cancelled_request_has_not_started_the_next() {
    scene(|t| {
        t.expect_leftovers();
        let mut server = t.server("handler=ops");
        let client = t.client();
        let first = client.send_request(&op(Op::Sleep, 50, 100)).unwrap();
        let second = client.send_request(&op(Op::Edit, 1, 100)).unwrap();
        let third = client.send_request(&op(Op::Edit, 2, 100)).unwrap();
        assert!(client.cancel(second));
        server.ask(&format!("arm {}", killing(("skip.before_state", 0))), "armed");
        let answer = client.receive_response_for(first, LONG).unwrap();
        assert_eq!(answer.data(), edited(&op(Op::Sleep, 50, 100)));
        drop(answer);
        let outcome = client.receive_response_for(third, LONG).map(drop);
        assert_eq!(lost(outcome).map(|lost| lost.state), Some(RequestState::NotStarted));
        server.died();
    });
}

/// The steps of replacing a segment whose client has ended, the new one's making among them.
pub(super) const RETIRE: [Step; 13] = [
    ("retire.both_locked", 0),
    ("unlink.semaphore", 0),
    ("unlink.semaphore", 3),
    ("unlink.semaphores", 0),
    ("retire.unlinked", 0),
    ("retire.resigned", 0),
    ("create.locked", 0),
    ("create.named", 0),
    ("create.reserved", 0),
    ("create.semaphore", 2),
    ("create.written", 0),
    ("create.ready", 0),
    ("retire.renewed", 0),
];

#[test]
fn a_server_killed_at_each_step_of_replacing_a_segment_leaves_nothing_in_the_way() {
    scene(|t| {
        for (n, step) in RETIRE.into_iter().enumerate() {
            let killed_client = n % 2 == 0;
            t.expect_leftovers();
            let mut server = t.server("handler=ops");
            if killed_client {
                let mut client = t.client_peer("");
                client.ask("call len=100 seed=1", "ok");
                server.ask(&format!("arm {}", killing(step)), "armed");
                client.kill();
            } else {
                let mut client = t.client();
                drop(client.call(&op(Op::Edit, 1, 100), LONG).unwrap());
                server.ask(&format!("arm {}", killing(step)), "armed");
                drop(client);
            }
            // Comes to wait in the middle of it.
            let early = Early::new(t);
            server.died();
            a_next_pair_works(t, early);
        }
    });
}

pub(super) const STOP: [Step; 8] = [
    ("stop.one_pid", 0),
    ("stop.before_post", 0),
    ("stop.before_unlink", 0),
    ("unlink.semaphore", 0),
    ("unlink.semaphore", 3),
    ("unlink.semaphores", 0),
    ("stop.unlinked", 0),
    ("stop.resigned", 0),
];

#[test]
fn a_server_killed_at_each_step_of_stopping_delivers_its_answer_or_its_end() {
    scene(|t| {
        for step in STOP {
            t.expect_leftovers();
            let mut server = t.server("handler=ops stop=200");
            let client = t.client();
            let request = op(Op::Edit, 3, 2000);
            client.send_request(&request).unwrap();
            eventually("the answer", || server.ask("calls", "") == "1");
            server.ask(&format!("arm {}", killing(step)), "armed");
            server.say("stop");
            server.died();
            let answer = client.receive_response(SOON).expect("what was answered is delivered");
            assert_eq!(answer.data(), edited(&request));
            drop(answer);
            let error = client.receive_response(SOON).unwrap_err();
            let ends = [ErrorKind::PeerClosed, ErrorKind::PeerDied];
            assert!(ends.contains(&error.kind()), "{step:?}: {error:?}");
            drop(client);
            a_next_pair_works(t, Early::new(t));
        }
    });
}
