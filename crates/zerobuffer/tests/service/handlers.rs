//! How many requests of one client are worked on at the same time.

use crate::raw::MOMENT;
use crate::scene::{LONG, NAME, Scene, eventually};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zerobuffer::{ErrorKind, Frame, OwnedRequest, Service};

/// A request on which the handler stays until the test lets it go.
const LONG_WORK: &[u8] = b"long";

/// The handler's side of a test, and the test's.
fn gate() -> (impl Fn(&[u8]) + Clone, Receiver<()>, Sender<()>) {
    let (starts, started) = channel();
    let (release, released) = channel();
    let released = Arc::new(Mutex::new(released));
    let pass = move |data: &[u8]| {
        if data == LONG_WORK {
            starts.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
    };
    (pass, started, release)
}

/// With both threads in the hands of the first client the second one would wait for ever.
#[test]
fn a_client_with_long_requests_leaves_a_thread_to_the_others() {
    let scene = Scene::new();
    let config = scene.service_config().workers(2).handlers_per_client(1);
    let mut service = Service::create(NAME, config).unwrap();
    let (pass, started, release) = gate();
    let pass = Mutex::new(pass);
    let handler = move |frame: &mut Frame<'_>| {
        let pass = pass.lock().unwrap().clone();
        pass(frame.data());
    };
    service.start(handler).unwrap();
    let greedy = scene.client();
    let sequences = [(); 3].map(|()| greedy.send_request(LONG_WORK).unwrap());
    started.recv().unwrap();
    let mut other = scene.client();
    for _ in 0..100 {
        assert_eq!(other.call(b"short", LONG).unwrap().data(), b"short");
    }
    assert!(started.recv_timeout(MOMENT).is_err(), "the second one is not started");
    // It comes back with each answer.
    for sequence in sequences {
        release.send(()).unwrap();
        assert_eq!(greedy.receive_response_for(sequence, LONG).unwrap().data(), LONG_WORK);
    }
    assert_eq!(started.try_iter().count(), 2);
    service.stop().unwrap();
}

#[test]
fn tasks_of_one_client_are_bounded_too() {
    let scene = Scene::new();
    let config = scene.service_config().max_concurrent(3).handlers_per_client(2);
    let mut service = Service::create(NAME, config).unwrap();
    let (tasks, held) = channel::<OwnedRequest>();
    let spawn = |task| {
        // The handler's future is over at once, and so is its place.
        std::thread::spawn(move || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = task;
            assert!(task.as_mut().poll(&mut context).is_ready());
        })
    };
    let handler = move |request: OwnedRequest| {
        let tasks = tasks.clone();
        async move { tasks.send(request).unwrap() }
    };
    service.start_async(spawn, handler).unwrap();
    let greedy = scene.client();
    let sequences = [(); 5].map(|()| greedy.send_request(b"task").unwrap());
    let mut started = vec![held.recv().unwrap(), held.recv().unwrap()];
    assert!(held.recv_timeout(MOMENT).is_err(), "two at a time");
    let other = scene.client();
    let sequence = other.send_request(b"other").unwrap();
    let request = held.recv_timeout(LONG).unwrap();
    assert_eq!(request.data(), b"other");
    request.respond();
    other.receive_response_for(sequence, LONG).unwrap();
    for _ in 0..3 {
        started.pop().unwrap().respond();
        started.push(held.recv_timeout(LONG).unwrap());
    }
    started.into_iter().for_each(OwnedRequest::respond);
    for sequence in sequences {
        greedy.receive_response_for(sequence, LONG).unwrap();
    }
    service.stop().unwrap();
}

#[test]
fn requests_that_are_pulled_are_bounded_and_wake_who_waits_for_the_next() {
    let scene = Scene::new();
    let mut service = Service::create(NAME, scene.service_config().handlers_per_client(1)).unwrap();
    let (greedy, other) = (scene.client(), scene.client());
    for number in 0..3_u8 {
        greedy.send_request(&[number]).unwrap();
    }
    let first = service.receive(LONG).unwrap().into_owned();
    let error = service.receive(MOMENT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(service.try_receive().unwrap().is_none());
    other.send_request(b"other").unwrap();
    let request = service.receive(LONG).unwrap();
    assert_eq!(request.data(), b"other");
    request.respond();
    // From another thread, while this one sleeps.
    let responder = std::thread::spawn(move || {
        std::thread::sleep(MOMENT);
        first.respond();
    });
    let second = service.receive(LONG).unwrap().into_owned();
    responder.join().unwrap();
    assert_eq!(second.data(), [1]);
    // It ends while it is set aside, and is not there again when its request is answered.
    assert!(service.try_receive().unwrap().is_none());
    drop(greedy);
    eventually("it is forgotten", || service.clients() == 1);
    second.respond();
    assert!(service.try_receive().unwrap().is_none());
    service.stop().unwrap();
}

/// Many answers race with as many looks: none is lost, and the bound holds at every moment.
#[test]
fn a_bound_of_one_holds_and_loses_nothing() {
    let scene = Scene::new();
    let config = scene.service_config().workers(3).handlers_per_client(1).max_clients(4);
    let mut service = Service::create(NAME, config).unwrap();
    let at_work: Arc<Mutex<HashMap<u64, Arc<AtomicU32>>>> = Arc::default();
    service
        .start(move |frame: &mut Frame<'_>| {
            let number = frame.client().unwrap().number();
            let own = Arc::clone(at_work.lock().unwrap().entry(number).or_default());
            let others = own.fetch_add(1, Ordering::SeqCst);
            frame.data_mut().make_ascii_uppercase();
            std::thread::sleep(Duration::from_micros(10));
            own.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(others, 0, "two at work");
        })
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let scene = &scene;
            let client = std::sync::Mutex::new(Some(scene.client()));
            scope.spawn(move || {
                let client = client.into_inner().unwrap().unwrap();
                for _ in 0..500 {
                    let sent = [(); 8].map(|()| client.send_request(b"a").unwrap());
                    for sequence in sent {
                        let response = client.receive_response_for(sequence, LONG).unwrap();
                        assert_eq!(response.data(), b"A");
                    }
                }
            });
        }
    });
    service.stop().unwrap();
}
