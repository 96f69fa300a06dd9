//! Calls that no thread blocks for.

use crate::peer::STAY;
use crate::raw::MOMENT;
use crate::scene::{LONG, NAME, Scene, eventually};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use zerobuffer::{
    CallHandle, Client, Error, ErrorKind, Frame, OwnedResponse, RequestLayout, RequestState,
    SharedClient,
};

type Outcome = Result<OwnedResponse, Error>;

fn start(client: &SharedClient, data: &[u8], timeout: Duration) -> (CallHandle, Receiver<Outcome>) {
    let (done, outcome) = channel();
    let call = client.start_call(data, timeout, move |response| done.send(response).unwrap());
    (call.unwrap(), outcome)
}

#[test]
fn callbacks_and_futures_get_responses() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client().into_shared();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..200_u64 {
        let (_, outcome) = start(&client, &number.to_le_bytes(), LONG);
        let future = client.call_async(&number.to_le_bytes(), LONG);
        let outcomes = [runtime.block_on(future), outcome.recv_timeout(LONG).unwrap()];
        for response in outcomes {
            assert_eq!(response.unwrap().data(), (number + 1).to_le_bytes());
        }
    }
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_deadline_is_kept_without_a_response() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client().into_shared();
    let (stays, _outcome) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    let (_, outcome) = start(&client, b"waits", Duration::from_millis(20));
    let error = outcome.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let future = client.call_async(b"waits", Duration::from_millis(20));
    assert_eq!(runtime.block_on(future).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(stays.cancel());
    server.expect("cancelled");
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_call_that_is_cancelled_ends_at_the_server_too() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client().into_shared();
    let (call, outcome) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    assert!(call.cancel());
    outcome.recv_timeout(LONG).expect_err("the callback is dropped");
    server.expect("cancelled");
    let (_, outcome) = start(&client, &1_u64.to_le_bytes(), LONG);
    assert_eq!(outcome.recv_timeout(LONG).unwrap().unwrap().data(), 2_u64.to_le_bytes());
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_killed_server_ends_every_call() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = scene.client().into_shared();
    let (_, taken) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    let waiting: Vec<_> =
        (0..50_u64).map(|n| start(&client, &n.to_le_bytes(), Duration::MAX).1).collect();
    scene.kill(server);
    let error = taken.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().unwrap().state, RequestState::InDoubt);
    for outcome in waiting {
        let error = outcome.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerDied);
        assert_eq!(error.lost_request().unwrap().state, RequestState::NotStarted);
    }
}

#[test]
fn calls_go_on_at_the_next_server_if_that_is_wanted() {
    let scene = Scene::new();
    let mut killed = scene.peer("role=server");
    let config = scene.client_config().resend_not_started(true);
    let client = Client::connect_with(NAME, LONG, config).unwrap().into_shared();
    let (_, taken) = start(&client, STAY, Duration::MAX);
    killed.expect("staying");
    let waiting: Vec<_> = (0..50_u64).map(|n| start(&client, &n.to_le_bytes(), LONG).1).collect();
    let mut server = scene.peer("role=server");
    scene.kill(killed);
    assert_eq!(taken.recv_timeout(LONG).unwrap().unwrap_err().kind(), ErrorKind::PeerDied);
    for (n, outcome) in waiting.into_iter().enumerate() {
        let response = outcome.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(response.data(), (n as u64 + 1).to_le_bytes());
    }
    drop(client);
    server.ask("stop", "stopped");
}

/// As much as there is room for once, and not twice.
const LARGE: usize = 600_000;

/// What waits for room keeps its turn to send. Nothing polls here: what waits behind it is told, or waits until its
/// own deadline.
#[test]
fn a_queued_call_that_is_cancelled_lets_others_send() {
    let scene = Scene::new();
    let mut service = scene.service();
    service.start(|_: &mut Frame<'_>| {}).unwrap();
    let client = scene.client().into_shared();
    let held = client.call(&vec![0; LARGE], LONG).unwrap();
    let queue = || {
        let call = client.call_async(&vec![1; LARGE], Duration::MAX);
        eventually("it has its turn", || {
            let acquired = client.acquire_request_buffer(1, RequestLayout::new(), Duration::ZERO);
            acquired.is_err_and(|error| error.kind() == ErrorKind::Full)
        });
        call
    };
    let waits = queue();
    // Until the completer sleeps.
    std::thread::sleep(MOMENT);
    drop(waits);
    assert_eq!(client.call(&[2], LONG).unwrap().data(), [2]);
    let waits = queue();
    let (_, behind) = start(&client, &[3], Duration::MAX);
    std::thread::sleep(MOMENT);
    drop(waits);
    assert_eq!(behind.recv_timeout(LONG).unwrap().unwrap().data(), [3]);
    drop(held);
}

/// The buffer stays open, so the call's turn never comes.
#[test]
fn a_killed_server_ends_a_call_behind_an_open_buffer() {
    let scene = Scene::new();
    let server = scene.peer("role=server");
    let client = scene.client().into_shared();
    let buffer = client.acquire_request_buffer(1, RequestLayout::new(), LONG).unwrap();
    let (_, behind) = start(&client, b"behind", Duration::MAX);
    std::thread::sleep(MOMENT);
    scene.kill(server);
    let error = behind.recv_timeout(LONG).expect("an outcome").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().unwrap().state, RequestState::NotStarted);
    drop(buffer);
}

/// The completer has both calls in its hands when the server has ended, and runs the callback of the first one.
#[test]
fn a_call_that_is_cancelled_during_anothers_callback_is_not_sent_again() {
    let scene = Scene::new();
    let mut killed = scene.peer("role=server");
    let config = scene.client_config().resend_not_started(true);
    let client = Client::connect_with(NAME, LONG, config).unwrap().into_shared();
    let (began, begun) = channel();
    let (end, may_end) = channel::<()>();
    let on_done = move |outcome: Outcome| {
        began.send(outcome.map(drop).unwrap_err().kind()).unwrap();
        let _ = may_end.recv();
    };
    client.start_call(STAY, Duration::MAX, on_done).unwrap();
    killed.expect("staying");
    let (call, outcome) = start(&client, &1_u64.to_le_bytes(), Duration::MAX);
    let journal = format!("{}-journal", scene.directory);
    let mut server = scene.peer(&format!("role=server journal={journal}"));
    scene.kill(killed);
    assert_eq!(begun.recv_timeout(LONG).unwrap(), ErrorKind::PeerDied);
    assert!(call.cancel());
    drop(end);
    let (_, next) = start(&client, &5_u64.to_le_bytes(), LONG);
    assert_eq!(next.recv_timeout(LONG).unwrap().unwrap().data(), 6_u64.to_le_bytes());
    outcome.recv_timeout(LONG).expect_err("the callback is dropped");
    assert_eq!(std::fs::read(&journal).unwrap(), 5_u64.to_le_bytes());
    std::fs::remove_file(journal).unwrap();
    drop(client);
    server.ask("stop", "stopped");
}
