//! The same deaths with the other side in a pid namespace, and with a /tmp, of its own: only /dev/shm is
//! shared.

use super::clients::{LIVES, killed};
use super::servers::{AT_WORK, killed_at_work, killed_while_it_creates};
use crate::death::{lost, next_client_is_served};
use crate::harness::{LONG, SOON, Scene, no_isolation, not_run, scene};
use crate::peer::{Op, edited, op};
use zerobuffer::{LostRequest, RequestState, WaitStrategy};

/// Runs `body` with isolated children, or says that this is not possible here.
fn isolated(what: &'static str, body: impl FnOnce(&Scene) + Send + 'static) {
    if let Some(why) = no_isolation() {
        return not_run(what, &why);
    }
    scene(|t| {
        t.isolate();
        body(t);
    });
}

#[test]
fn a_server_in_another_namespace_serves_and_stops_as_any_other() {
    isolated("servers in other namespaces", |t| {
        let server = t.server("handler=ops");
        let mut client = t.client();
        for n in 0..20 {
            let request = op(Op::Edit, n, 3000);
            assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
        }
        assert!(client.is_server_connected());
        drop(client);
        server.stop();
    });
}

#[test]
fn a_server_killed_in_another_namespace_is_reported_as_any_other() {
    isolated("kills of servers in other namespaces", |t| {
        for (step, seen) in AT_WORK {
            killed_at_work(t, step, seen, WaitStrategy::SpinThenPark);
        }
        for step in [("create.named", 0), ("create.semaphore", 2), ("create.written", 0)] {
            killed_while_it_creates(t, step);
        }
        for percent in [25, 50, 75] {
            let server = t.server("handler=ops payload=4194304");
            let client = t.client();
            let sequence = client.send_request(&op(Op::Die, percent, 1 << 20)).unwrap();
            let state = RequestState::InDoubt;
            let expected = Some(LostRequest { sequence, state });
            assert_eq!(lost(client.receive_response_for(sequence, LONG)), expected);
            server.died();
        }
    });
}

#[test]
fn an_idle_server_killed_from_outside_of_its_namespace_is_seen_to_have_died() {
    isolated("kills of idle servers in other namespaces", |t| {
        t.expect_leftovers();
        let server = t.server("handler=none");
        let client = t.client();
        let sequence = client.send_request(&[1; 100]).unwrap();
        server.signal(libc::SIGKILL);
        let expected = Some(LostRequest { sequence, state: RequestState::NotStarted });
        assert_eq!(lost(client.receive_response(LONG)), expected);
        assert!(!client.is_server_connected());
        assert_eq!(lost(client.receive_response(SOON)), None);
        server.died();
    });
}

#[test]
fn clients_killed_in_another_namespace_make_room_for_the_next() {
    isolated("kills of clients in other namespaces", |t| {
        let mut server = t.server("handler=ops payload=4096 wait=park");
        for life in &LIVES {
            killed(t, life, life.steps[0]);
            next_client_is_served(t);
        }
        let mut client = t.client_peer("");
        client.say("op op=8 arg=0 len=100");
        server.expect("gate");
        client.kill();
        server.say("open");
        next_client_is_served(t);
        server.stop();
    });
}
