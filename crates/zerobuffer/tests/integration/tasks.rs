//! Async handlers: each request a task of the test's own executor.

use crate::harness::{LONG, Scene, scene};
use crate::work;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, Semaphore};
use zerobuffer::{
    BufferConfig, Client, Error, ErrorKind, OwnedRequest, RequestState, Server, ServerConfig,
};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn server_with(t: &Scene, set: impl FnOnce(ServerConfig) -> ServerConfig) -> Server {
    Server::create(t.name(), set(ServerConfig::new(BufferConfig::new(256, 1 << 18)))).unwrap()
}

/// Why the call of `request` failed in the handler.
fn failure(client: &mut Client, request: &[u8]) -> (u16, String) {
    match client.call(request, LONG) {
        Err(Error::HandlerFailed { status, message, .. }) => (status, message),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_thousand_requests_are_under_way_at_the_same_time() {
    const COUNT: usize = 1000;
    scene(|t| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut server = server_with(t, |config| config);
        // Nobody responds before all are there.
        let all = Arc::new(Barrier::new(COUNT));
        let handler = move |mut request: OwnedRequest| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                tokio::time::sleep(Duration::from_micros(request.sequence() % 7 * 500)).await;
                work::edit(request.data_mut());
                request.respond();
            }
        };
        server.start_async(move |task| handle.spawn(task), handler).unwrap();
        let client = t.client();
        for round in 0..3 {
            let sent: Vec<u64> = (0..COUNT)
                .map(|n| client.send_request(&work::bytes(n % 100, n as u64)).unwrap())
                .collect();
            for (n, sequence) in sent.into_iter().enumerate() {
                let response = client.receive_response_for(sequence, LONG).unwrap();
                work::check(response.data(), n % 100, n as u64);
                assert_eq!(response.sequence(), sequence, "round {round}");
            }
        }
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn a_task_that_does_not_respond_fails_at_the_client_and_harms_no_other() {
    scene(|t| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut server = server_with(t, |config| config);
        let spawn = move |task: Task| {
            handle.spawn(task);
        };
        let handler = |mut request: OwnedRequest| {
            assert!(request.data() != b"handler panics", "at once");
            async move {
                tokio::task::yield_now().await;
                match request.data() {
                    b"fails" => request.fail("not today"),
                    b"forgets" => drop(request),
                    b"panics" => panic!("in request {}", request.sequence()),
                    b"panics oddly" => std::panic::panic_any(7),
                    b"another thread's" => {
                        // Its own affair: no task panics.
                        let moved = std::thread::spawn(move || {
                            let _request = request;
                            std::panic::resume_unwind(Box::new("elsewhere"));
                        });
                        assert!(moved.join().is_err());
                    }
                    _ => {
                        request.data_mut().reverse();
                        request.respond();
                    }
                }
            }
        };
        server.start_async(spawn, handler).unwrap();
        let mut client = t.client();
        for _ in 0..20 {
            assert_eq!(failure(&mut client, b"fails"), (1, "not today".to_owned()));
            let (status, message) = failure(&mut client, b"forgets");
            assert!(status == 3 && message.starts_with("the request was dropped"), "{message}");
            let (status, message) = failure(&mut client, b"panics");
            assert!(status == 2 && message.starts_with("in request "), "{status} {message}");
            assert_eq!(failure(&mut client, b"panics oddly").0, 2);
            assert_eq!(failure(&mut client, b"handler panics"), (2, "at once".to_owned()));
            assert_eq!(failure(&mut client, b"another thread's").0, 3);
            assert_eq!(client.call(b"abc", LONG).unwrap().data(), b"cba");
        }
        assert_eq!(client.in_flight(), 0);
        t.expect_few_tokens();
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn an_executor_that_drops_tasks_or_panics_fails_them_at_the_client() {
    scene(|t| {
        let mut server = server_with(t, |config| config);
        let mut count = 0;
        let spawn = move |task: Task| {
            count += 1;
            if count % 2 == 0 {
                panic!("the executor has ended");
            }
            drop(task);
        };
        let handler = |request: OwnedRequest| async move { request.respond() };
        server.start_async(spawn, handler).unwrap();
        let mut client = t.client();
        for _ in 0..3 {
            assert_eq!(failure(&mut client, b"dropped").0, 3);
            let panicked = (2, "the executor has ended".to_owned());
            assert_eq!(failure(&mut client, b"a request with room for it all"), panicked);
        }
        drop(client);
        server.stop().unwrap();
    });
}

#[test]
fn no_more_tasks_are_under_way_than_the_server_allows() {
    const MAX: usize = 3;
    scene(|t| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut server = server_with(t, |config| config.max_concurrent(MAX));
        let (running, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (began, begun) = channel();
        let handler = {
            let (running, gate) = (Arc::clone(&running), Arc::clone(&gate));
            move |request: OwnedRequest| {
                let (running, gate, began) =
                    (Arc::clone(&running), Arc::clone(&gate), began.clone());
                async move {
                    began.send(running.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
                    gate.acquire().await.unwrap().forget();
                    running.fetch_sub(1, Ordering::Relaxed);
                    request.respond();
                }
            }
        };
        server.start_async(move |task| handle.spawn(task), handler).unwrap();
        let client = t.client();
        let sent: Vec<u64> = (0..20).map(|_| client.send_request(b"x").unwrap()).collect();
        for done in 0..sent.len() {
            // The first MAX begin by themselves, each further one when one has ended.
            let beginning = if done == 0 { MAX } else { usize::from(done + MAX <= sent.len()) };
            for _ in 0..beginning {
                assert!(begun.recv_timeout(LONG).unwrap() <= MAX);
            }
            assert!(begun.try_recv().is_err());
            gate.add_permits(1);
            drop(client.receive_response(LONG).unwrap());
        }
        // A server that has no place left can be stopped, and what it has not taken is not started.
        let sent: Vec<u64> = (0..5).map(|_| client.send_request(b"x").unwrap()).collect();
        for _ in 0..MAX {
            begun.recv_timeout(LONG).unwrap();
        }
        server.closer().close();
        gate.add_permits(MAX);
        let stopped = std::thread::spawn(move || server.stop());
        for (n, sequence) in sent.into_iter().enumerate() {
            let outcome = client.receive_response_for(sequence, LONG);
            match (n < MAX, outcome) {
                (true, outcome) => drop(outcome.unwrap()),
                (false, Err(error)) => {
                    let lost = error.lost_request().unwrap();
                    assert_eq!(lost.state, RequestState::NotStarted, "{error}");
                }
                (false, Ok(response)) => panic!("{response:?}"),
            }
        }
        stopped.join().unwrap().unwrap();
    });
}

#[test]
fn a_server_without_any_place_is_refused() {
    scene(|t| {
        let config = ServerConfig::new(BufferConfig::new(0, 4096)).max_concurrent(0);
        let error = Server::create(t.name(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadConfig);
    });
}

/// Answers its requests when the test wants it: an executor with a queue and no thread.
#[test]
fn a_task_that_outlives_its_server_leaves_the_request_in_doubt_and_does_no_harm() {
    scene(|t| {
        let mut server = server_with(t, |config| config.stop_timeout(Duration::from_millis(20)));
        let queue: Arc<Mutex<Vec<Task>>> = Arc::default();
        let queued = Arc::clone(&queue);
        let handler = |mut request: OwnedRequest| async move {
            assert!(request.cancelled());
            work::edit(request.data_mut());
            request.respond();
        };
        server.start_async(move |task| queued.lock().unwrap().push(task), handler).unwrap();
        let client = t.client();
        let sequence = client.send_request(&work::bytes(100, 1)).unwrap();
        while queue.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        server.stop().unwrap();
        let error = client.receive_response_for(sequence, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        assert_eq!(error.lost_request().unwrap().state, RequestState::InDoubt);
        drop(client);
        let runtime = Builder::new_current_thread().build().unwrap();
        queue.lock().unwrap().drain(..).for_each(|task| runtime.block_on(task));
    });
}

#[test]
fn stopping_waits_for_tasks_whose_requests_are_still_wanted() {
    scene(|t| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut server = server_with(t, |config| config);
        let closer = server.closer();
        let (began, begun) = channel();
        let handler = move |mut request: OwnedRequest| {
            began.send(()).unwrap();
            let closer = closer.clone();
            async move {
                while !closer.is_closed() {
                    tokio::task::yield_now().await;
                }
                for at in 0..request.len() {
                    if request.cancelled() {
                        break;
                    }
                    request.data_mut()[at] ^= 0xff;
                }
                request.respond();
            }
        };
        server.start_async(move |task| handle.spawn(task), handler).unwrap();
        let client = t.client();
        let sequence = client.send_request(&[1; 20_000]).unwrap();
        begun.recv_timeout(LONG).unwrap();
        let stopping = std::thread::spawn(move || server.stop());
        let response = client.receive_response_for(sequence, LONG).unwrap();
        assert!(response.data().iter().all(|byte| *byte == 0xfe), "half a response");
        drop(response);
        drop(client);
        stopping.join().unwrap().unwrap();
    });
}

#[test]
fn tasks_of_a_client_that_was_killed_end_and_the_next_client_is_served() {
    scene(|t| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut server = server_with(t, |config| config);
        let ((began, begun), (ended, end)) = (channel(), channel());
        let handler = move |mut request: OwnedRequest| {
            let ended = ended.clone();
            began.send(()).unwrap();
            async move {
                while request.len() == 1 && !request.cancelled() {
                    tokio::task::yield_now().await;
                }
                if request.len() == 1 {
                    ended.send(()).unwrap();
                }
                work::edit(request.data_mut());
                request.respond();
            }
        };
        server.start_async(move |task| handle.spawn(task), handler).unwrap();
        for _ in 0..3 {
            let mut client = t.client_peer("");
            client.ask("call len=100 seed=1", "ok");
            (0..5).for_each(|_| drop(client.ask("send len=1 seed=1", "ok")));
            (0..6).for_each(|_| begun.recv_timeout(LONG).unwrap());
            t.kill(client);
            (0..5).for_each(|_| end.recv_timeout(LONG).unwrap());
        }
        server.stop().unwrap();
    });
}
