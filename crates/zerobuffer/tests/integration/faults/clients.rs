//! Clients that are killed at each of their steps.

use super::{Step, killing};
use crate::death::next_client_is_served;
use crate::harness::{LONG, Scene, eventually, scene};
use crate::peer::{Op, edited, op};

/// What a client is told to do, one line after the other, and at which step it dies of the last.
pub(super) struct Life {
    pub(super) commands: &'static [&'static str],
    pub(super) steps: &'static [Step],
    /// How often the handler runs at the most; for what was not committed it is never.
    pub(super) handled: u64,
}

pub(super) const LIVES: [Life; 10] = [
    Life {
        commands: &["connect metadata=x"],
        steps: &[
            ("attach.opened", 0),
            ("attach.mapped", 0),
            ("attach.fresh", 0),
            ("attach.locked", 0),
            ("attach.semaphores", 0),
            ("attach.looked_again", 0),
            ("attach.one_pid", 0),
            ("attach.pids", 0),
            ("metadata.written", 0),
            ("attach.metadata", 0),
            ("attach.before_post", 0),
        ],
        handled: 0,
    },
    Life { commands: &["connect", "claim len=1000"], steps: &[("claim.claimed", 0)], handled: 0 },
    Life {
        commands: &["connect", "send len=1000 seed=512"],
        steps: &[("commit.entered", 0), ("commit.before_state", 0)],
        handled: 0,
    },
    Life {
        commands: &["connect", "send len=1000 seed=512"],
        steps: &[("commit.after_state", 0), ("commit.before_post", 0)],
        handled: 1,
    },
    // The second request fits behind a marker only.
    Life {
        commands: &["connect", "call len=2500 seed=512", "call len=2000 seed=512"],
        steps: &[("marker.before_state", 0), ("marker.after_state", 0)],
        handled: 1,
    },
    // And here only at the start of an empty ring.
    Life {
        commands: &["connect", "call len=2500 seed=512", "call len=3000 seed=512"],
        steps: &[("marker.before_state", 0), ("marker.after_state", 0), ("claim.drained", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect wait=park", "op op=1 arg=60 len=100"],
        steps: &[("wait.before_sleep", 0), ("wait.token_taken", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "call len=1000 seed=512"],
        steps: &[("release.before_count", 0), ("release.before_post", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "op op=1 arg=60 len=100 ms=5"],
        steps: &[("cancel.before_state", 0), ("cancel.after_state", 0)],
        handled: 1,
    },
    Life {
        commands: &["connect", "send len=100 seed=512", "close"],
        steps: &[
            ("close.cancelled", 0),
            ("close.one_pid", 0),
            ("close.before_post", 0),
            ("close.before_unlock", 0),
        ],
        handled: 1,
    },
];

/// A client lives, and dies at `step` of its last command.
pub(super) fn killed(t: &Scene, life: &Life, step: Step) {
    let mut client = t.peer("role=client");
    client.expect("ready");
    let (last, before) = life.commands.split_last().expect("a life");
    for command in before {
        client.ask(command, "ok");
    }
    client.ask(&format!("arm {}", killing(step)), "ok");
    client.say(last);
    while step.0 == "wait.token_taken" && client.hear_or_end().is_some() {
        // The answer was found before its token.
        client.say(last);
    }
    client.died();
}

#[test]
fn a_client_killed_at_each_of_its_steps_makes_room_for_the_next() {
    scene(|t| {
        for workers in [1, 2] {
            for life in &LIVES {
                for step in life.steps {
                    let mut server =
                        t.server(&format!("handler=ops payload=4096 wait=park workers={workers}"));
                    killed(t, life, *step);
                    next_client_is_served(t);
                    let calls: u64 = server.ask("calls", "").parse().unwrap();
                    assert!(calls <= life.handled + 1, "{step:?}: {calls} calls");
                    server.stop();
                }
            }
        }
    });
}

#[test]
fn both_sides_killed_at_steps_of_theirs_leave_nothing_in_the_way_of_the_next_pair() {
    scene(|t| {
        t.expect_leftovers();
        let servers = ["take.counted", "answer.before_state", "answer.after_state"];
        let clients = ["commit.after_state", "wait.before_sleep", "release.before_post"];
        for on_server in servers {
            for on_client in clients {
                let mut server = t.server("handler=ops wait=park");
                let mut client = t.peer("role=client");
                client.expect("ready");
                client.ask("connect wait=park", "ok");
                client.ask(&format!("arm {}", killing((on_client, 0))), "ok");
                server.ask(&format!("arm {}", killing((on_server, 0))), "armed");
                client.say("op op=1 arg=20 len=5000");
                // Where one dies before the other has got to its step, that one is killed from outside.
                server.kill();
                client.kill();
                let server = t.server("handler=ops");
                next_client_is_served(t);
                server.stop();
            }
        }
    });
}

#[test]
fn a_hundred_clients_killed_asleep_leave_no_trace_in_the_semaphores() {
    scene(|t| {
        let mut server = t.server("handler=ops wait=park");
        for _ in 0..100 {
            let mut client = t.peer("role=client");
            client.expect("ready");
            client.ask("connect wait=park", "ok");
            client.say("op op=8 arg=0 len=100");
            server.expect("gate");
            let asleep = || sleepers(t).is_some_and(|(response, _)| response > 0);
            eventually("the client asleep", asleep);
            client.kill();
            server.say("open");
        }
        next_client_is_served(t);
        eventually("the server asleep, and nobody else", || sleepers(t) == Some((0, 1)));
        server.stop();
    });
}

#[test]
fn servers_killed_asleep_leave_no_trace_in_the_semaphores() {
    scene(|t| {
        let mut server = t.server("handler=ops wait=park");
        let mut client = t.client();
        for n in 0..30 {
            let request = op(Op::Edit, n, 100);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
            eventually("the server asleep, and nobody else", || sleepers(t) == Some((0, 1)));
            t.kill(server);
            server = t.server("handler=ops wait=park");
            client.reconnect(LONG).unwrap();
        }
        drop(client);
        server.stop();
    });
}

/// How many threads sleep on `response ready` and `request ready`, as glibc counts them: in the upper
/// half of the first word.
fn sleepers(t: &Scene) -> Option<(u32, u32)> {
    let count = |semaphore: &str| {
        let bytes = std::fs::read(format!("/dev/shm/sem.sem-{semaphore}-{}", t.name())).ok()?;
        Some(u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?))
    };
    Some((count("response-ready")?, count("request-ready")?))
}
