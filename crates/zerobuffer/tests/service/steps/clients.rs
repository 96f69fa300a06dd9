//! Clients that are killed at each of their steps.

use super::{Step, caller, killing, next_client_is_served, worker, works};
use crate::scene::{Scene, eventually};
use zerobuffer_test_support::Peer;

/// What a client is told to do, one line after the other, and at which step it dies of the last.
pub(super) struct Life {
    pub(super) commands: &'static [&'static str],
    pub(super) steps: &'static [Step],
    /// How often the handler runs at the most; for what was not committed it is never.
    pub(super) handled: u64,
}

pub(super) const LIVES: [Life; 9] = [
    Life {
        commands: &["connect"],
        steps: &[
            ("connect.connected", 0),
            ("connect.greeted", 0),
            ("connect.accepted", 0),
            ("connect.mapped", 0),
            ("connect.one_pid", 0),
            ("metadata.written", 0),
            ("connect.announced", 0),
        ],
        handled: 0,
    },
    Life { commands: &["connect", "claim"], steps: &[("claim.claimed", 0)], handled: 0 },
    Life {
        commands: &["connect", "send len=1000"],
        steps: &[("commit.entered", 0), ("commit.before_state", 0)],
        handled: 0,
    },
    Life {
        commands: &["connect", "call len=1000"],
        steps: &[("commit.after_state", 0), ("commit.before_post", 0), ("bell.before_send", 0)],
        handled: 1,
    },
    // The second request fits behind a marker only, or at the start of an empty ring.
    Life {
        commands: &["connect", "call len=2500", "call len=3000"],
        steps: &[("marker.before_state", 0), ("marker.after_state", 0), ("claim.drained", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "call value=18446744073709551615"],
        steps: &[("wait.before_sleep", 0), ("sleep.armed", 0), ("wait.token_taken", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "call len=1000"],
        steps: &[("release.before_count", 0), ("release.before_post", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "call value=18446744073709551615 ms=5"],
        steps: &[("cancel.before_state", 0), ("cancel.after_state", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "send", "close"],
        steps: &[
            ("close.cancelled", 0),
            ("close.one_pid", 0),
            ("close.before_post", 0),
            ("close.before_unlock", 0),
        ],
        handled: 1,
    },
];

/// A client that has done all but the last of `life`, for which it is armed.
pub(super) fn about_to(scene: &Scene, life: &Life, armed: &str) -> (Peer, &'static str) {
    let mut client = caller(scene);
    let (last, before) = life.commands.split_last().expect("a life");
    for command in before {
        client.ask(command, "ok");
    }
    client.ask(&format!("arm {armed}"), "ok");
    (client, last)
}

#[test]
fn a_client_killed_at_each_of_its_steps_is_forgotten_and_disturbs_nobody() {
    for workers in [1, 2] {
        let scene = Scene::new();
        let mut server = scene.peer(&format!("role=worker workers={workers}"));
        let mut other = scene.client();
        let mut handled = 0;
        for life in &LIVES {
            for step in life.steps {
                works(&mut other);
                let (mut client, last) = about_to(&scene, life, &killing(*step));
                client.say(last);
                // On a busy machine one side may not have been asleep, or not late for its deadline.
                while client.hear_or_end().is_some() {
                    assert!(last.starts_with("call"), "{step:?}: it lives");
                    client.say(last);
                    handled += 1;
                }
                client.died();
                works(&mut other);
                next_client_is_served(&scene);
                eventually("it is forgotten", || server.ask("clients", "clients") == "1");
                handled += life.handled + 3;
                let calls: u64 = server.ask("calls", "calls").parse().unwrap();
                assert!(calls <= handled, "{step:?}: {calls} calls, at most {handled} were due");
            }
        }
        drop(other);
        server.stop();
    }
}

#[test]
fn both_sides_killed_at_steps_of_theirs_leave_nothing_in_the_way_of_the_next_pair() {
    let servers = ["take.counted", "answer.before_state", "answer.after_state", "bell.before_send"];
    let clients = ["commit.after_state", "sleep.armed", "release.before_post"];
    let scene = Scene::new();
    scene.expect_leftovers();
    for on_server in servers {
        for on_client in clients {
            let mut server = worker(&scene);
            let mut client = caller(&scene);
            client.ask("connect", "ok");
            client.ask(&format!("arm {}", killing((on_client, 0))), "ok");
            server.ask(&format!("arm {}", killing((on_server, 0))), "armed");
            client.say("call value=18446744073709551615");
            // Where one dies before the other has got to its step, that one is killed from outside.
            server.kill();
            client.kill();
            let server = worker(&scene);
            next_client_is_served(&scene);
            server.stop();
        }
    }
}
