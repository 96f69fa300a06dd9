//! Calls that no thread blocks for: futures on several executors, and callbacks.

use crate::harness::{LONG, eventually, fails, scene};
use crate::peer::{Op, edited, op};
use crate::work;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, Client, ClientConfig, ErrorKind, Frame, RequestLayout, RequestState, Server,
    ServerConfig,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn echo(name: &str, payload: usize) -> Server {
    let mut server = Server::create(name, BufferConfig::new(0, payload)).unwrap();
    server.start(|_: &mut Frame<'_>| {}).unwrap();
    server
}

fn silent(name: &str) -> Server {
    Server::create(name, BufferConfig::new(0, 1 << 16)).unwrap()
}

#[test]
fn a_future_runs_on_the_smallest_executor() {
    scene(|t| {
        let _server = echo(t.name(), 1 << 16);
        let client = t.client().into_shared();
        let numbers = 0..1000_u32;
        for n in numbers {
            let response = block_on(client.call_async(&n.to_le_bytes(), LONG)).unwrap();
            assert_eq!(response.data(), n.to_le_bytes());
        }
        let fill = |data: &mut [u8]| data.fill(7);
        let layout = RequestLayout::new().capacity(200).alignment(64);
        let response = block_on(client.call_async_with(100, layout, fill, LONG)).unwrap();
        assert_eq!(response.data(), [7; 100]);
    });
}

/// More than the ring holds: what has no room waits in the background, in order.
#[test]
fn a_thousand_calls_at_once_through_a_ring_that_holds_a_few() {
    scene(|t| {
        let _server = echo(t.name(), 4096);
        let client = t.client().into_shared();
        tokio().block_on(async {
            let calls: Vec<_> =
                (0..1000_u32).map(|n| client.call_async(&[n as u8; 100], LONG)).collect();
            for (n, call) in calls.into_iter().enumerate() {
                assert_eq!(call.await.unwrap().data(), [n as u8; 100]);
            }
        });
    });
}

/// Each call gets its response, or the one answer that it may be half done, while the server is killed and
/// another one takes its place.
#[test]
fn a_thousand_calls_at_once_survive_kills_of_the_server() {
    scene(|t| {
        let mut server = Some(t.server("handler=ops workers=2"));
        let client = t.client_with(ClientConfig::new().resend_not_started(true)).into_shared();
        let in_doubt = AtomicU64::new(0);
        let total = AtomicU64::new(0);
        let call = async |task: u64| {
            for round in 0..5 {
                let request = op(Op::Edit, task * 5 + round, 100);
                loop {
                    match client.call_async(&request, LONG).await {
                        Ok(response) => break assert_eq!(response.data(), edited(&request)),
                        // The one thing that is not repeated without being asked for.
                        Err(error) => assert_eq!(
                            error.lost_request().map(|lost| lost.state),
                            Some(RequestState::InDoubt),
                            "{error:?}"
                        ),
                    }
                    in_doubt.fetch_add(1, Ordering::Relaxed);
                }
                total.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| tokio().block_on(join_all((0..1000).map(call))));
            // On the thread with which the servers die.
            for kill in 1..=3 {
                eventually("calls", || total.load(Ordering::Relaxed) > kill * 1000);
                t.kill(server.take().unwrap());
                server = Some(t.server("handler=ops workers=2"));
            }
        });
        assert_eq!(total.into_inner(), 5000);
        drop(client);
        server.unwrap().stop();
    });
}

/// Polls each of them whenever one may have got on.
async fn join_all<F: Future<Output = ()>>(tasks: impl Iterator<Item = F>) {
    let mut tasks: Vec<_> = tasks.map(|task| Some(Box::pin(task))).collect();
    std::future::poll_fn(|context| {
        for task in &mut tasks {
            if task.as_mut().is_some_and(|task| task.as_mut().poll(context).is_ready()) {
                *task = None;
            }
        }
        match tasks.iter().all(Option::is_none) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// What is sent and what waits for room: neither reaches the server once its future is dropped.
#[test]
fn a_future_that_is_dropped_cancels_its_request() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let client = t.client().into_shared();
        let calls: Vec<_> = (0..8_u8).map(|n| client.call_async(&[n; 8], LONG)).collect();
        let mut calls = calls.into_iter().enumerate();
        let kept: Vec<_> =
            calls.by_ref().filter(|(n, _)| n % 2 == 1).map(|(_, call)| call).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in [1, 3, 5, 7] {
                    let request = server.receive(LONG).unwrap();
                    assert_eq!(request.data(), [n; 8]);
                    request.respond();
                }
            });
            for (call, n) in kept.into_iter().zip([1, 3, 5, 7]) {
                assert_eq!(block_on(call).unwrap().data(), [n; 8]);
            }
        });
    });
}

#[test]
fn a_deadline_needs_no_timer_of_the_runtime() {
    scene(|t| {
        let _server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let client = t.client().into_shared();
        let short = Duration::from_millis(30);
        let start = Instant::now();
        let calls: Vec<_> = (0..8).map(|_| client.call_async(&[1; 8], short)).collect();
        let outcomes: Vec<_> = calls.into_iter().map(block_on).collect();
        assert!(start.elapsed() >= short);
        let kinds: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.unwrap_err().kind()).collect();
        assert_eq!(kinds[..4], [ErrorKind::Timeout; 4], "they were sent");
        assert_eq!(kinds[4..], [ErrorKind::Full; 4], "they found no room");
        // An earlier deadline than the one that is waited for.
        let name = t.other("b");
        let _server = silent(&name);
        let client = Client::connect(&name, LONG).unwrap().into_shared();
        let long = client.call_async(&[1; 8], LONG);
        fails(block_on(client.call_async(&[1; 8], short)), ErrorKind::Timeout);
        drop(long);
    });
}

#[test]
fn a_close_and_the_last_drop_end_every_call() {
    scene(|t| {
        let _server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let client = t.client().into_shared();
        let calls: Vec<_> = (0..8).map(|_| client.call_async(&[1; 8], Duration::MAX)).collect();
        client.close();
        for call in calls {
            fails(block_on(call), ErrorKind::Closed);
        }
        fails(block_on(client.call_async(&[1; 8], LONG)), ErrorKind::Closed);
        let name = t.other("b");
        let _server = Server::create(&name, BufferConfig::new(0, 256)).unwrap();
        let client = Client::connect(&name, LONG).unwrap().into_shared();
        let calls: Vec<_> = (0..8).map(|_| client.call_async(&[1; 8], Duration::MAX)).collect();
        drop(client);
        for call in calls {
            fails(block_on(call), ErrorKind::Closed);
        }
    });
}

#[test]
fn the_servers_end_ends_every_call_and_tells_what_is_known() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let client = t.client().into_shared();
        let calls: Vec<_> = (0..8).map(|_| client.call_async(&[1; 8], LONG)).collect();
        std::mem::forget(server.receive(LONG).unwrap());
        drop(server);
        let mut states = calls.into_iter().map(|call| {
            let error = fails(block_on(call), ErrorKind::PeerClosed);
            error.lost_request().map(|lost| lost.state)
        });
        assert_eq!(states.next(), Some(Some(RequestState::InDoubt)));
        assert!(states.all(|state| state == Some(RequestState::NotStarted)), "or never sent");
    });
}

#[test]
fn a_call_after_the_servers_end_says_that_it_is_not_started() {
    scene(|t| {
        let server = silent(t.name());
        let mut client = t.client();
        drop(server);
        let is_not_started = |error: zerobuffer::Error| {
            let lost =
                error.lost_request().unwrap_or_else(|| panic!("not about the call: {error}"));
            assert_eq!(
                (error.kind(), lost.state),
                (ErrorKind::PeerClosed, RequestState::NotStarted)
            );
            lost.sequence
        };
        // The first one may be sent to a server that has ended already.
        is_not_started(client.call(b"x", LONG).unwrap_err());
        let check = |error| assert_eq!(is_not_started(error), 0);
        check(client.call(b"x", LONG).unwrap_err());
        let client = client.into_shared();
        check(client.call(b"x", LONG).unwrap_err());
        check(client.try_call(b"x", LONG).unwrap_err());
        check(client.call(&[1; 2000], LONG).unwrap_err());
        check(block_on(client.call_async(b"x", LONG)).unwrap_err());
        check(client.start_call(b"x", LONG, |_| unreachable!()).unwrap_err());
    });
}

#[test]
fn queued_calls_end_as_the_server_did_if_no_other_one_comes_in_time() {
    scene(|t| {
        let server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let config = ClientConfig::new().resend_not_started(true);
        let client = Client::connect_with(t.name(), LONG, config).unwrap().into_shared();
        let timeout = Duration::from_millis(200);
        let calls: Vec<_> = (0..12).map(|_| client.call_async(&[1; 8], timeout)).collect();
        drop(server);
        for call in calls {
            let error = fails(block_on(call), ErrorKind::PeerClosed);
            assert_eq!(error.lost_request().unwrap().state, RequestState::NotStarted);
        }
    });
}

/// Sets a flag when it is dropped.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_callback_gets_the_outcome_once_or_is_dropped_when_it_is_cancelled() {
    scene(|t| {
        let mut server = silent(t.name());
        let client = t.client().into_shared();
        let (done, outcomes) = channel();
        let start = |n: u8| {
            let done = done.clone();
            client.start_call(&[n], LONG, move |outcome| done.send(outcome).unwrap()).unwrap()
        };
        let first = start(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let guard = Dropped(Arc::clone(&dropped));
        let cancelled = client.start_call(&[2], LONG, move |_| drop(guard)).unwrap();
        assert!(cancelled.cancel() && !cancelled.cancel());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        let panics = client.start_call(&[3], LONG, |_| panic!("on purpose")).unwrap();
        let last = start(4);
        for n in [1, 3, 4] {
            let request = server.receive(LONG).unwrap();
            assert_eq!(request.data(), [n]);
            request.respond();
        }
        for n in [1, 4] {
            assert_eq!(outcomes.recv_timeout(LONG).unwrap().unwrap().data(), [n]);
        }
        assert!(![first, panics, last].iter().any(zerobuffer::CallHandle::cancel));
    });
}

/// A callback may start the next call, and drop the last handle of its client.
#[test]
fn a_callback_may_use_its_client() {
    scene(|t| {
        let _server = echo(t.name(), 1 << 16);
        let client = t.client().into_shared();
        let (done, outcomes) = channel();
        let next = client.clone();
        client
            .start_call(&[1], LONG, move |first| {
                first.unwrap();
                let done = move |second| done.send(second).unwrap();
                next.start_call(&[2], LONG, done).unwrap();
                drop(next);
            })
            .unwrap();
        assert_eq!(outcomes.recv_timeout(LONG).unwrap().unwrap().data(), [2]);
    });
}

#[test]
fn threads_that_block_and_futures_share_a_client() {
    scene(|t| {
        let config = ServerConfig::new(BufferConfig::new(0, 8192)).workers(2);
        let mut server = Server::create(t.name(), config).unwrap();
        server.start(|_: &mut Frame<'_>| {}).unwrap();
        let client = t.client().into_shared();
        let rounds = 3000 * u64::from(work::factor());
        std::thread::scope(|scope| {
            for thread in 1..=2_u8 {
                let client = &client;
                scope.spawn(move || {
                    for n in 0..rounds {
                        let data = [thread, n as u8];
                        assert_eq!(client.call(&data, LONG).unwrap().data(), data);
                    }
                });
                scope.spawn(move || {
                    tokio().block_on(join_all((0..16_u8).map(|task| async move {
                        for n in 0..rounds / 8 {
                            let data = [10 * thread + task, n as u8, 3];
                            let response = client.call_async(&data, LONG).await.unwrap();
                            assert_eq!(response.data(), data);
                        }
                    })));
                });
            }
            scope.spawn(|| {
                for n in 0..rounds {
                    client.send_request(&[9, n as u8, 9, 9]).unwrap();
                    assert_eq!(client.receive_response(LONG).unwrap().data()[0], 9);
                }
            });
        });
    });
}

/// An open buffer of the very thread that makes the call: it is sent when the buffer has been committed.
#[test]
fn a_call_waits_its_turn_behind_an_open_buffer_and_blocks_nobody() {
    scene(|t| {
        let _server = echo(t.name(), 1 << 16);
        let client = t.client().into_shared();
        let mut buffer = client.acquire_request_buffer(3, RequestLayout::new(), LONG).unwrap();
        let calls: Vec<_> = (0..3).map(|n| client.call_async(&[n], LONG)).collect();
        buffer.data_mut().copy_from_slice(b"one");
        let first = buffer.commit().unwrap();
        for (n, call) in (0..3).zip(calls) {
            let response = block_on(call).unwrap();
            assert_eq!(
                (response.data(), response.sequence()),
                (&[n][..], first + 1 + u64::from(n))
            );
        }
        assert_eq!(client.receive_response(LONG).unwrap().data(), b"one");
    });
}

/// With nothing in flight a large frame waits for the server to pass a wrap marker.
#[test]
fn calls_as_large_as_the_ring_follow_each_other() {
    scene(|t| {
        let _server = echo(t.name(), 4096);
        let client = t.client().into_shared();
        let size = client.max_request_size();
        for n in 0..20 {
            let call = client.call_async(&vec![n; size - 64 * usize::from(n % 3)], LONG);
            assert_eq!(block_on(call).unwrap().data()[0], n);
        }
        fails(block_on(client.call_async(&vec![0; size + 1], LONG)), ErrorKind::TooLarge);
    });
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn what_a_call_holds_may_panic_and_the_others_go_on() {
    scene(|t| {
        let mut server = Server::create(t.name(), BufferConfig::new(0, 256)).unwrap();
        let client = t.client().into_shared();
        let (done, outcomes) = channel();
        for _ in 0..8 {
            let (done, bomb) = (done.clone(), Bomb);
            // What waits for room is dropped by the completer, once it is sent.
            let fill = move |to: &mut [u8]| {
                let _held = &bomb;
                to.fill(1);
            };
            let on_done = move |response| {
                done.send(response).unwrap();
                std::panic::panic_any(Bomb);
            };
            let layout = RequestLayout::new();
            // The first ones are sent and dropped here.
            let start = || client.start_call_with(8, layout, fill, LONG, on_done).map(drop);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start));
        }
        let mut future = Box::pin(client.call_async(&[2; 8], LONG));
        let waker = Waker::from(Arc::new(PanickingWaker));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        server.start(|_: &mut Frame<'_>| {}).unwrap();
        for _ in 0..8 {
            assert_eq!(outcomes.recv_timeout(LONG).unwrap().unwrap().data(), [1; 8]);
        }
        assert_eq!(block_on(client.call_async(&[3; 8], LONG)).unwrap().data(), [3; 8]);
        assert_eq!(block_on(future).unwrap().data(), [2; 8]);
    });
}
