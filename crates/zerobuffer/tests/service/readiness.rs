//! A service without a handler whose thread waits for its descriptor.

use crate::scene::{LONG, NAME, Scene};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use zerobuffer::{Client, ErrorKind, Frame, Service, WaitStrategy};

/// Sleeps until the descriptor is readable, for a long time at most; whether it is.
fn is_readable_in(service: &Service, seconds: i64) -> bool {
    let mut descriptors = [PollFd::new(service, PollFlags::IN)];
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut descriptors, Some(&timeout)).expect("it is a descriptor") > 0
}

fn await_readable(service: &Service) {
    assert!(is_readable_in(service, 20), "nothing made the descriptor readable");
}

/// Clients that sleep after each request, so that each wake-up counts, and more clients than events in one look.
#[test]
fn what_clients_send_makes_the_descriptor_readable() {
    const CALLS: u64 = 300;
    for clients in [1, 8, 70] {
        let scene = Scene::new();
        let config = scene.service_config().max_clients(100);
        let mut service = Service::create(NAME, config).expect("a service starts");
        let served = AtomicBool::new(false);
        scope(|scope| {
            let calls = CALLS / clients.min(8);
            let config = || scene.client_config().wait(WaitStrategy::Park);
            let threads: Vec<_> = (0..clients)
                .map(|_| {
                    let mut client = Client::connect_with(NAME, LONG, config()).expect("attaches");
                    scope.spawn(move || {
                        for number in 0..calls {
                            let response = client.call(&number.to_le_bytes(), LONG).unwrap();
                            assert_eq!(response.data(), (number + 1).to_le_bytes());
                        }
                    })
                })
                .collect();
            let mut left = clients * calls;
            while left > 0 {
                while let Some(mut request) = service.try_receive().expect("it serves") {
                    let number = u64::from_le_bytes(request.data().try_into().unwrap());
                    request.data_mut().copy_from_slice(&(number + 1).to_le_bytes());
                    request.respond();
                    left -= 1;
                }
                if left > 0 {
                    await_readable(&service);
                }
            }
            threads.into_iter().for_each(|thread| thread.join().expect("its calls were answered"));
            served.store(true, Ordering::Relaxed);
        });
        assert!(served.load(Ordering::Relaxed));
    }
}

#[test]
fn a_descriptor_with_nothing_new_is_not_readable() {
    let scene = Scene::new();
    let mut service = scene.service();
    assert!(service.try_receive().unwrap().is_none());
    assert!(!is_readable_in(&service, 0), "nobody is there");
    let client = scene.client();
    let first = client.send_request(b"1").unwrap();
    let second = client.send_request(b"2").unwrap();
    for _ in [first, second] {
        await_readable(&service);
        service.try_receive().unwrap().expect("a request").respond();
        // The second one was told of together with the first.
        if let Some(request) = service.try_receive().unwrap() {
            request.respond();
            break;
        }
    }
    assert!(service.try_receive().unwrap().is_none());
    assert!(!is_readable_in(&service, 0), "all was taken");
    for sequence in [first, second] {
        client.receive_response_for(sequence, LONG).unwrap();
    }
}

#[test]
fn the_end_makes_the_descriptor_readable_and_is_told() {
    let scene = Scene::new();
    let mut service = scene.service();
    assert!(service.try_receive().unwrap().is_none());
    let closer = service.closer();
    let closing = std::thread::spawn(move || closer.close());
    await_readable(&service);
    closing.join().expect("it has closed");
    assert_eq!(service.try_receive().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_handler_has_the_requests() {
    let scene = Scene::new();
    let mut service = scene.service();
    service.start(|_: &mut Frame<'_>| {}).unwrap();
    assert_eq!(service.try_receive().unwrap_err().kind(), ErrorKind::InvalidState);
}
