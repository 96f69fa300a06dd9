use super::*;
use crate::error::ErrorKind;
use crate::{BufferConfig, CallHandle, Client, ClientConfig, Frame, Server, SharedClient};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

const LONG: Duration = Duration::from_secs(30);

fn start(client: &SharedClient, size: usize) -> Receiver<Result<OwnedResponse>> {
    let (done, outcome) = channel();
    let on_done = move |response| done.send(response).unwrap();
    client.start_call(&vec![1; size], Duration::MAX, on_done).unwrap();
    outcome
}

#[test]
fn a_completer_that_panics_ends_its_calls_and_the_next_call_starts_another() {
    let name = format!("broken-{}", std::process::id());
    let mut server = Server::create(&name, BufferConfig::new(0, 256)).unwrap();
    let client = Client::connect(&name, LONG).unwrap().into_shared();
    // Some are sent, and some wait for room.
    let calls: Vec<_> = (0..8).map(|_| start(&client, 8)).collect();
    client.inner.completions.breaks.store(true, Ordering::Relaxed);
    client.inner.completions.ring();
    for outcome in calls {
        let error = outcome.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState);
        assert!(error.to_string().contains("zb-completer"), "{error}");
    }
    server.start(|frame: &mut Frame<'_>| frame.data_mut().fill(2)).unwrap();
    // The places of what was in flight are free again.
    for _ in 0..20 {
        let response = start(&client, 8).recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(response.data(), [2; 8]);
    }
}

/// It goes back to the queue if its turn has not come, and is due before what was added meanwhile.
#[test]
fn a_call_in_hand_is_still_due() {
    let mut state = State::default();
    state.expects(100);
    state.in_hand = Some((1, false));
    state.expects(500);
    assert_eq!(state.soonest, 100);
    state.in_hand = None;
    state.expects(500);
    assert_eq!(state.soonest, 500);
}

/// The completer uses the client while it fills a request: that must not keep the client open.
#[test]
fn once_the_last_handle_is_dropped_every_callback_has_run() {
    let name = format!("last-drop-{}", std::process::id());
    let mut server = Server::create(&name, BufferConfig::new(0, 256)).unwrap();
    let client = Client::connect(&name, LONG).unwrap().into_shared();
    let (filling, is_filling) = channel();
    let (go_on, is_to_go_on) = channel::<()>();
    let first = start(&client, 150);
    let fill = move |_: &mut [u8]| {
        filling.send(()).unwrap();
        // Until the main thread is about to drop the client, and a little longer.
        let _ = is_to_go_on.recv();
        std::thread::sleep(Duration::from_millis(50));
    };
    let (done, outcome) = channel();
    let on_done = move |response: Result<_>| done.send(response.map(drop)).unwrap();
    // There is no room for it until the first one has its response.
    let layout = crate::RequestLayout::new();
    client.start_call_with(150, layout, fill, Duration::MAX, on_done).unwrap();
    server.receive(LONG).unwrap().respond();
    drop(first.recv_timeout(LONG).unwrap());
    is_filling.recv_timeout(LONG).unwrap();
    drop(go_on);
    drop(client);
    let ended = outcome.try_recv().expect("its callback has run");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

/// A client with a call whose completer waits for the next server, which is not there.
fn reconnecting(name: &str) -> (SharedClient, CallHandle, Receiver<Result<()>>) {
    let server = Server::create(name, BufferConfig::new(0, 4096)).unwrap();
    let config = ClientConfig::new().resend_not_started(true);
    let client = Client::connect_with(name, LONG, config).unwrap().into_shared();
    drop(server);
    let (done, outcome) = channel();
    let on_done = move |response: Result<_>| drop(done.send(response.map(drop)));
    let call = client.start_call(&[1], LONG, on_done).unwrap();
    // Until it does, this thread may reconnect, and finds no server.
    while client.reconnect(Duration::ZERO).unwrap_err().kind() != ErrorKind::Timeout {
        std::thread::yield_now();
    }
    (client, call, outcome)
}

#[test]
fn the_last_drop_ends_a_reconnection_of_its_completer() {
    let name = format!("drop-mends-{}", std::process::id());
    let (client, _, outcome) = reconnecting(&name);
    drop(client);
    let ended = outcome.try_recv().expect("its callback has run");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_server_that_comes_while_the_last_handle_is_dropped_gets_nothing() {
    let name = format!("drop-sends-{}", std::process::id());
    let (client, _, outcome) = reconnecting(&name);
    let calls = Arc::clone(&client.inner.completions);
    let dropping = std::thread::spawn(move || drop(client));
    while !calls.state().over {
        std::thread::yield_now();
    }
    let mut server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let handled = Arc::new(AtomicBool::new(false));
    let handles = Arc::clone(&handled);
    server.start(move |_: &mut Frame<'_>| handles.store(true, Ordering::Relaxed)).unwrap();
    dropping.join().unwrap();
    let ended = outcome.try_recv().expect("its callback has run");
    server.stop().unwrap();
    assert!(!handled.load(Ordering::Relaxed), "a request of a client that is dropped");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

/// While its completer waits for the next server for it.
#[test]
fn a_call_that_is_cancelled_waits_for_no_server() {
    let name = format!("cancel-mends-{}", std::process::id());
    let (client, call, outcome) = reconnecting(&name);
    let next = start(&client, 1);
    assert!(call.cancel());
    let error = outcome.recv_timeout(LONG / 2).unwrap_err();
    assert_eq!(error, RecvTimeoutError::Disconnected, "its callback is dropped soon");
    drop(client);
    let ended = next.try_recv().expect("its callback has run");
    assert_eq!(ended.map(drop).unwrap_err().kind(), ErrorKind::Closed);
}
