//! Calls that wait for room without a thread, in a ring of four small slots. Nothing polls here: a wake-up that
//! is lost ends a test after its timeout.

use crate::scene::{LONG, NAME, Scene};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use zerobuffer::{Error, Frame, OwnedResponse, Service, SharedClient};

type Outcome = Result<OwnedResponse, Error>;

/// A server that serves when it is asked to, and its client.
fn start(scene: &Scene) -> (Service, SharedClient) {
    let service = Service::create(NAME, scene.service_config().ring(256)).unwrap();
    (service, scene.client().into_shared())
}

fn call(client: &SharedClient, number: u8) -> (zerobuffer::CallHandle, Receiver<Outcome>) {
    let (done, outcome) = channel();
    let on_done = move |response| drop(done.send(response));
    (client.start_call(&[number; 8], Duration::MAX, on_done).unwrap(), outcome)
}

/// Until the completer sleeps, which a lost wake-up needs: more than the time that it spins.
fn let_it_sleep() {
    std::thread::sleep(Duration::from_millis(50));
}

fn serve_one(service: &mut Service, number: u8) {
    let request = service.receive(LONG).unwrap();
    assert_eq!(request.data(), [number; 8]);
    request.respond();
}

fn received(outcome: &Receiver<Outcome>) -> OwnedResponse {
    outcome.recv_timeout(LONG).expect("an outcome").unwrap()
}

#[test]
fn a_response_that_is_released_makes_room() {
    let scene = Scene::new();
    let (mut service, client) = start(&scene);
    let calls: Vec<_> = (0..5).map(|number| call(&client, number)).collect();
    (0..4).for_each(|number| serve_one(&mut service, number));
    let mut held: Vec<_> = calls[..4].iter().map(|(_, outcome)| received(outcome)).collect();
    let_it_sleep();
    drop(held.remove(0));
    serve_one(&mut service, 4);
    assert_eq!(received(&calls[4].1).data(), [4; 8]);
}

#[test]
fn a_cancelled_request_that_the_server_skips_makes_room() {
    let scene = Scene::new();
    let (mut service, client) = start(&scene);
    let calls: Vec<_> = (0..5).map(|number| call(&client, number)).collect();
    let_it_sleep();
    calls[..4].iter().for_each(|(call, _)| assert!(call.cancel()));
    let_it_sleep();
    serve_one(&mut service, 4);
    assert_eq!(received(&calls[4].1).data(), [4; 8]);
}

#[test]
fn a_late_response_to_a_cancelled_request_makes_room() {
    let scene = Scene::new();
    let (mut service, client) = start(&scene);
    let calls: Vec<_> = (0..5).map(|number| call(&client, number)).collect();
    let mut receive = || service.receive(LONG).unwrap().into_owned();
    let mut taken: Vec<_> = (0..4).map(|_| receive()).collect();
    calls[..4].iter().for_each(|(call, _)| assert!(call.cancel()));
    let_it_sleep();
    taken.remove(0).respond();
    serve_one(&mut service, 4);
    assert_eq!(received(&calls[4].1).data(), [4; 8]);
    drop(taken);
}

/// Each frame is larger than half of the ring: it waits until the server has passed a wrap marker.
#[test]
fn a_marker_that_the_server_retires_makes_room() {
    let scene = Scene::new();
    let (mut service, client) = start(&scene);
    service.start(|_: &mut Frame<'_>| {}).unwrap();
    for number in 0..50 {
        let small = call(&client, number).1;
        drop(received(&small));
        let (done, outcome) = channel();
        let on_done = move |response| drop(done.send(response));
        client.start_call(&[number; 150], Duration::MAX, on_done).unwrap();
        assert_eq!(received(&outcome).data(), [number; 150]);
    }
}

#[test]
fn a_buffer_that_was_open_before_is_in_no_calls_way_once_it_is_sent_or_dropped() {
    for sends in [true, false] {
        let scene = Scene::new();
        let config = scene.service_config().ring(256);
        let mut service = Service::create(NAME, config).unwrap();
        let client = scene.client();
        let mut buffer = client.acquire_request_buffer(8).unwrap().into_owned();
        buffer.data_mut().fill(1);
        let client = client.into_shared();
        let waiting = call(&client, 2).1;
        let_it_sleep();
        if sends {
            let sequence = buffer.commit().unwrap();
            serve_one(&mut service, 1);
            assert_eq!(client.receive_response_for(sequence, LONG).unwrap().data(), [1; 8]);
        } else {
            drop(buffer);
        }
        serve_one(&mut service, 2);
        assert_eq!(received(&waiting).data(), [2; 8]);
    }
}
