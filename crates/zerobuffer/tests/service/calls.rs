//! Many clients, many threads, both ways to serve.

use crate::peer::handler;
use crate::scene::{LONG, NAME, Scene, descriptors, eventually, mappings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::scope;
use std::time::Duration;
use zerobuffer::{Client, ErrorKind, Frame, RequestState, Service, WaitStrategy};

fn call_all(scene: &Scene, clients: usize, rounds: u64) {
    let clients: Vec<Client> = (0..clients).map(|_| scene.client()).collect();
    scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for number in 0..rounds {
                    let response = client.call(&number.to_le_bytes(), LONG).unwrap();
                    assert_eq!(response.data(), (number + 1).to_le_bytes());
                }
            });
        }
    });
}

#[test]
fn one_client_eight_and_sixty_four_get_their_own_responses() {
    for workers in [1, 4] {
        let scene = Scene::new();
        let mut server = scene.peer(&format!("role=server workers={workers}"));
        for (clients, rounds) in [(1, 3000), (8, 1000), (64, 100)] {
            call_all(&scene, clients, rounds);
        }
        eventually("all have left", || server.ask("clients", "clients") == "0");
        server.ask("stop", "stopped");
    }
}

#[test]
fn every_way_to_wait_serves_clients_that_wait_in_every_way() {
    let strategies = [WaitStrategy::SpinThenPark, WaitStrategy::Park, WaitStrategy::Spin];
    for strategy in strategies {
        let scene = Scene::new();
        let config = scene.service_config().wait(strategy);
        let mut service = Service::create(NAME, config).unwrap();
        service.start(handler).unwrap();
        for strategy in strategies {
            let config = scene.client_config().wait(strategy);
            let mut client = Client::connect_with(NAME, LONG, config).unwrap();
            for number in 0..200_u64 {
                let response = client.call(&number.to_le_bytes(), LONG).unwrap();
                assert_eq!(response.data(), (number + 1).to_le_bytes());
            }
        }
    }
}

/// Senders that wait for room and a receiver sleep on one socket at the same time.
#[test]
fn threads_that_share_a_client_sleep_on_one_socket() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server workers=2 ring=1024");
    let config = scene.client_config().wait(WaitStrategy::Park);
    let client = Client::connect_with(NAME, LONG, config).unwrap().into_shared();
    scope(|scope| {
        for thread in 0..8_u64 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..300 {
                    let number = thread << 32 | number;
                    let response = client.call(&number.to_le_bytes(), LONG).unwrap();
                    assert_eq!(response.data(), (number + 1).to_le_bytes());
                }
            });
        }
    });
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_handler_knows_who_asks() {
    let scene = Scene::new();
    let mut service = scene.service();
    let config = scene.client_config().label("camera\u{1b}").metadata("about me");
    let client = Client::connect_with(NAME, LONG, config).unwrap();
    client.send_request(b"who am I?").unwrap();
    let request = service.receive(LONG).unwrap();
    let identity = request.client().unwrap();
    assert_eq!(identity.pid(), std::process::id());
    // SAFETY: the calls have no preconditions.
    assert_eq!((identity.uid(), identity.gid()), unsafe { (libc::geteuid(), libc::getegid()) });
    assert_eq!((identity.label(), request.metadata()), ("camera\u{fffd}", &b"about me"[..]));
    assert!(identity.number() > 0);
}

#[test]
fn a_service_without_a_handler_takes_requests_of_all_clients_in_turn() {
    let scene = Scene::new();
    let mut service = scene.service();
    let (first, second) = (scene.client(), scene.client());
    // From their first requests on the service attends to both.
    for client in [&first, &second] {
        let sequence = client.send_request(b"first").unwrap();
        service.receive(LONG).unwrap().respond();
        client.receive_response_for(sequence, LONG).unwrap();
    }
    for number in 0..3_u8 {
        first.send_request(&[number]).unwrap();
    }
    let latest = second.send_request(b"x").unwrap();
    let mut taken = Vec::new();
    for _ in 0..4 {
        let request = service.receive(LONG).unwrap();
        taken.push(request.data()[0]);
        request.respond();
    }
    let place = taken.iter().position(|byte| *byte == b'x').unwrap();
    assert!(place <= 1, "one request of each in turn: {taken:?}");
    assert_eq!(second.receive_response_for(latest, LONG).unwrap().data(), b"x");
    assert_eq!(service.receive(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_clients_timeout_cancels_its_request() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut client = scene.client();
    let error = client.call(crate::peer::STAY, Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    server.expect("staying");
    server.expect("cancelled");
    assert_eq!(client.call(&7_u64.to_le_bytes(), LONG).unwrap().data(), 8_u64.to_le_bytes());
    server.ask("stop", "stopped");
}

#[test]
fn a_response_outlives_its_client_and_the_service() {
    let scene = Scene::new();
    let mut service = scene.service();
    service.start(handler).unwrap();
    let client = scene.client().into_shared();
    let response = client.call(&1_u64.to_le_bytes(), LONG).unwrap();
    drop(client);
    assert_eq!(response.data(), 2_u64.to_le_bytes());
    assert_eq!(service.clients(), 1, "it keeps its memory");
    service.stop().unwrap();
    assert_eq!(response.data(), 2_u64.to_le_bytes());
}

#[test]
fn a_service_stops_while_a_thread_waits_for_requests() {
    let scene = Scene::new();
    let mut service = scene.service();
    let closer = service.closer();
    let waited = scope(|scope| {
        let waiting = scope.spawn(|| service.receive(Duration::MAX).map(drop));
        closer.close();
        waiting.join().unwrap()
    });
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(service.receive(LONG).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn after_a_stop_clients_find_what_was_answered_and_learn_what_was_not_started() {
    let scene = Scene::new();
    let mut service = scene.service();
    let client = scene.client();
    let [first, second] = [(); 2].map(|()| client.send_request(b"request").unwrap());
    service.receive(LONG).unwrap().respond();
    service.stop().unwrap();
    assert_eq!(client.receive_response_for(first, LONG).unwrap().data(), b"request");
    let error = client.receive_response_for(second, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerClosed);
    let state = error.lost_request().unwrap().state;
    assert_eq!(state, zerobuffer::RequestState::NotStarted);
    assert!(!client.is_server_connected());
}

/// In a process where nothing else runs: what it has open is looked at.
#[test]
fn nothing_is_left_of_clients_that_have_left() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let label = "memfd:zerobuffer-";
    for _ in 0..20 {
        call_all(&scene, 4, 3);
    }
    eventually("all have left", || server.ask("clients", "clients") == "0");
    let server_has = |what: &str| {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
        maps.lines().filter(|line| line.contains(what)).count()
    };
    eventually("no mapping is left", || server_has(label) == 0);
    let sockets = || {
        let links = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
        let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    eventually("the listener alone is left", || sockets() == 1);
    let _ = (descriptors(label), mappings());
    server.ask("stop", "stopped");
}

#[test]
fn async_handlers_serve_services_as_they_serve_channels() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut service = scene.service();
    let (tasks, mut spawned) = tokio::sync::mpsc::unbounded_channel();
    let spawn = move |task| tasks.send(task).map_err(drop).unwrap();
    let handler = |mut request: zerobuffer::OwnedRequest| async move {
        request.data_mut().make_ascii_uppercase();
        request.respond();
    };
    service.start_async(spawn, handler).unwrap();
    let executor = std::thread::spawn(move || {
        runtime.block_on(async {
            while let Some(task) = spawned.recv().await {
                task.await;
            }
        });
    });
    let mut clients = [(); 3].map(|()| scene.client());
    for client in &mut clients {
        assert_eq!(client.call(b"hello", LONG).unwrap().data(), b"HELLO");
    }
    service.stop().unwrap();
    drop(service);
    executor.join().unwrap();
}

#[test]
fn a_channel_of_the_name_serves_where_there_is_no_service() {
    let scene = Scene::new();
    let name = format!("service-or-channel-{}", std::process::id());
    let mut server =
        zerobuffer::Server::create(&name, zerobuffer::BufferConfig::new(0, 1 << 16)).unwrap();
    server.start(|frame: &mut Frame<'_>| frame.data_mut().fill(b'c')).unwrap();
    let mut client = Client::connect_with(&name, LONG, scene.client_config()).unwrap();
    assert_eq!(client.call(b"?", LONG).unwrap().data(), b"c");
    let error = Service::create(&name, scene.service_config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    assert!(error.to_string().contains("allow a service beside it"), "{error}");
    let config = scene.service_config().beside_channel(true);
    let mut service = Service::create(&name, config).unwrap();
    service.start(|frame: &mut Frame<'_>| frame.data_mut().fill(b's')).unwrap();
    drop(client);
    for (prefix, by) in [("", b"s"), ("service:", b"s"), ("channel:", b"c")] {
        let name = format!("{prefix}{name}");
        let mut client = Client::connect_with(&name, LONG, scene.client_config()).unwrap();
        assert_eq!(client.call(b"?", LONG).unwrap().data(), by, "{prefix}");
    }
    service.stop().unwrap();
    let config = scene.client_config().channel(zerobuffer::ChannelKind::Service);
    let error = Client::connect_with(&name, Duration::ZERO, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    assert!(error.to_string().contains("service"), "{error}");
    server.stop().unwrap();
    Service::create(&name, scene.service_config()).expect("beside nothing");
}

#[test]
fn several_threads_work_on_the_requests_of_one_client() {
    let scene = Scene::new();
    let mut service = Service::create(NAME, scene.service_config().workers(3)).unwrap();
    let together = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&together);
    service
        .start(move |_: &mut Frame<'_>| {
            seen.fetch_add(1, Ordering::Relaxed);
            eventually("all three are at work", || seen.load(Ordering::Relaxed) == 3);
        })
        .unwrap();
    let client = scene.client();
    let sent = [(); 3].map(|()| client.send_request(b"together").unwrap());
    for sequence in sent {
        client.receive_response_for(sequence, LONG).unwrap();
    }
}

#[test]
fn a_handler_finishes_its_response_while_its_service_stops() {
    let scene = Scene::new();
    let mut service = scene.service();
    let closer = service.closer();
    let (began, begun) = channel();
    let handler = move |frame: &mut Frame<'_>| {
        began.send(()).unwrap();
        while !closer.is_closed() {
            std::thread::yield_now();
        }
        for at in 0..frame.len() {
            if frame.cancelled() {
                return;
            }
            frame.data_mut()[at] ^= 0xff;
        }
    };
    service.start_mut(handler).unwrap();
    let client = scene.client();
    let sequence = client.send_request(&[1; 20_000]).unwrap();
    begun.recv_timeout(LONG).unwrap();
    service.stop().unwrap();
    let response = client.receive_response_for(sequence, LONG).unwrap();
    assert!(response.data().iter().all(|byte| *byte == 0xfe), "half a response");
}

#[test]
fn nothing_comes_of_a_handler_that_is_in_its_work_past_the_stop_timeout() {
    let scene = Scene::new();
    let config = scene.service_config().stop_timeout(Duration::from_millis(20));
    let mut service = Service::create(NAME, config).unwrap();
    let (began, begun) = channel();
    let handler = move |frame: &mut Frame<'_>| {
        began.send(()).unwrap();
        while !frame.cancelled() {
            frame.data_mut()[0] ^= 1;
            std::thread::yield_now();
        }
    };
    service.start_mut(handler).unwrap();
    let client = scene.client();
    let sequence = client.send_request(&[0]).unwrap();
    begun.recv_timeout(LONG).unwrap();
    service.stop().unwrap();
    // Its thread, which drops the handler last.
    assert_eq!(begun.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    let error = client.receive_response_for(sequence, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerClosed);
    assert_eq!(error.lost_request().unwrap().state, RequestState::InDoubt);
}

/// A service for one client, whose handler fills each request with ones.
fn for_one_client(scene: &Scene) -> Service {
    let config = scene.service_config().max_clients(1);
    let mut service = Service::create(NAME, config).unwrap();
    service.start(|frame: &mut Frame<'_>| frame.data_mut().fill(1)).unwrap();
    service
}

fn connects(scene: &Scene) {
    let mut client = scene.client();
    assert_eq!(client.call(&[0; 9], LONG).unwrap().data(), [1; 9]);
}

#[test]
fn a_client_that_closes_makes_room_for_others_and_for_itself() {
    let scene = Scene::new();
    let _service = for_one_client(&scene);
    let client = scene.client().into_shared();
    for _ in 0..3 {
        assert_eq!(client.call(&[0; 9], LONG).unwrap().data(), [1; 9]);
        client.close();
        connects(&scene);
        client.reconnect(LONG).unwrap();
        assert_eq!(client.call(&[0; 9], LONG).unwrap().data(), [1; 9]);
        client.close();
        client.reconnect(LONG).unwrap();
    }
}

#[test]
fn a_client_of_an_event_loop_that_closes_makes_room_for_others() {
    let scene = Scene::new();
    let _service = for_one_client(&scene);
    let client = scene.client().into_event_loop().unwrap();
    client.close();
    connects(&scene);
    drop(client);
}

/// Its memory is the server's again as soon as the place is free.
#[test]
fn what_a_client_holds_that_closes_stays_readable_and_with_it_its_place() {
    let scene = Scene::new();
    let service = for_one_client(&scene);
    let shared = scene.client().into_shared();
    let mut held = vec![shared.call(&[0; 9], LONG).unwrap(), shared.call(&[0; 9], LONG).unwrap()];
    let uncollected = shared.send_request(&[0; 9]).unwrap();
    shared.poll_response_for(uncollected, LONG).map(drop).unwrap();
    shared.send_request(&[0; 9]).unwrap();
    shared.close();
    std::thread::sleep(crate::raw::MOMENT);
    assert_eq!(service.clients(), 1);
    while let Some(response) = held.pop() {
        assert_eq!(response.data(), [1; 9]);
        drop(response);
    }
    connects(&scene);
    eventually("it has left", || service.clients() == 0);
    let mut client = scene.client();
    let response = client.call(&[0; 9], LONG).unwrap().into_owned();
    drop(client);
    std::thread::sleep(crate::raw::MOMENT);
    assert_eq!((service.clients(), response.data()), (1, &[1; 9][..]));
    std::thread::spawn(move || drop(response)).join().unwrap();
    connects(&scene);
}

/// Each response that is handed out is whole for as long as it is held, however close the close is.
#[test]
fn a_response_that_is_handed_out_while_its_client_closes_is_whole() {
    let scene = Scene::new();
    let _service = for_one_client(&scene);
    let client = scene.client().into_shared();
    for round in 0..200_u32 {
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Ok(response) = client.call(&[0; 3000], LONG) {
                        (0..500).for_each(|_| std::hint::spin_loop());
                        assert!(response.data().iter().all(|byte| *byte == 1), "round {round}");
                    }
                });
            }
            (0..round % 40 * 500).for_each(|_| std::hint::spin_loop());
            client.close();
        });
        client.reconnect(LONG).unwrap();
    }
}
