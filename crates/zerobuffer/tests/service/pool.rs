//! Pools: calls that go on while servers are killed, stopped and started.

use crate::peer::STAY;
use crate::scene::{LONG, NAME, Peer, Scene, eventually};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};
use zerobuffer::{ChannelKind, ClientConfig, Error, ErrorKind, OwnedResponse, Pool, RequestState};
use zerobuffer_test_support::unique;

type Outcome = Result<OwnedResponse, Error>;

fn pool(scene: &Scene, connections: usize) -> Pool {
    Pool::connect_with(NAME, connections, LONG, scene.client_config()).expect("a pool connects")
}

fn start(pool: &Pool, data: &[u8], timeout: Duration) -> Receiver<Outcome> {
    let (done, outcome) = channel();
    pool.start_call(data, timeout, move |response| done.send(response).unwrap()).unwrap();
    outcome
}

fn call(pool: &Pool, number: u64) {
    let response = pool.call(&number.to_le_bytes(), LONG).unwrap();
    assert_eq!(response.data(), (number + 1).to_le_bytes());
}

fn is_in_doubt(error: &Error) -> bool {
    error.lost_request().is_some_and(|lost| lost.state == RequestState::InDoubt)
}

/// Threads that call through a pool, each request with a number of its own, and what became of them.
struct Load {
    next: AtomicU64,
    done: AtomicU64,
    is_over: AtomicBool,
    in_doubt: Mutex<Vec<u64>>,
}

impl Load {
    /// Runs `disturb` while eight threads call: six that wait, and two with several calls under way.
    fn run(pool: &Pool, disturb: impl FnOnce(&Self)) -> Self {
        let load = Self {
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            in_doubt: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let load = &load;
                scope.spawn(move || {
                    // A thread that panics ends the test, and not only itself.
                    let _over = Over(load);
                    while !load.is_over.load(Ordering::Relaxed) {
                        if thread < 6 { load.call(pool) } else { load.start_some(pool) }
                    }
                });
            }
            let _over = Over(&load);
            load.progress("under way");
            disturb(&load);
            load.progress("to the end");
        });
        load
    }

    /// Waits for a hundred more responses.
    fn progress(&self, what: &str) {
        let goal = self.done.load(Ordering::Relaxed) + 100;
        let is_over = || self.is_over.load(Ordering::Relaxed);
        eventually(what, || self.done.load(Ordering::Relaxed) >= goal || is_over());
        assert!(!is_over(), "a thread has panicked");
    }

    fn call(&self, pool: &Pool) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.note(number, pool.call(&number.to_le_bytes(), LONG));
    }

    fn start_some(&self, pool: &Pool) {
        let numbers: Vec<u64> = (0..8).map(|_| self.next.fetch_add(1, Ordering::Relaxed)).collect();
        let started = numbers.into_iter().map(|n| (n, start(pool, &n.to_le_bytes(), LONG)));
        for (number, outcome) in started.collect::<Vec<_>>() {
            self.note(number, outcome.recv_timeout(2 * LONG).expect("an outcome"));
        }
    }

    fn note(&self, number: u64, outcome: Outcome) {
        match outcome {
            Ok(response) => {
                assert_eq!(response.data(), (number + 1).to_le_bytes());
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_in_doubt(&error) => self.in_doubt.lock().unwrap().push(number),
            Err(error) => panic!("request {number}: {error}"),
        }
    }
}

struct Over<'l>(&'l Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// How often each request was started.
fn journal(scene: &Scene) -> HashMap<u64, u32> {
    let bytes = std::fs::read(format!("{}/journal", scene.directory)).expect("a journal");
    let mut started = HashMap::new();
    for number in bytes.chunks_exact(8) {
        let number = u64::from_le_bytes(number.try_into().unwrap());
        *started.entry(number).or_default() += 1;
    }
    started
}

fn with_journal(scene: &Scene) -> Peer {
    std::fs::create_dir_all(&scene.directory).unwrap();
    scene.peer(&format!("role=server journal={}/journal", scene.directory))
}

#[test]
fn calls_of_eight_threads_go_on_while_servers_are_killed_and_none_is_started_twice() {
    let scene = Scene::new();
    let mut servers = [(); 2].map(|()| with_journal(&scene));
    let pool = pool(&scene, 2);
    assert_eq!(pool.connections(), 2);
    let load = Load::run(&pool, |load| {
        for round in 0..8 {
            let next = with_journal(&scene);
            scene.kill(std::mem::replace(&mut servers[round % 2], next));
            load.progress("after a kill");
        }
    });
    let started = journal(&scene);
    let in_doubt = load.in_doubt.into_inner().unwrap();
    assert!(in_doubt.len() <= 8 * 2, "one for each handler that was killed: {in_doubt:?}");
    for number in 0..load.next.into_inner() {
        let times = started.get(&number).copied().unwrap_or_default();
        let fits = if in_doubt.contains(&number) { times <= 1 } else { times == 1 };
        assert!(fits, "request {number} was started {times} times");
    }
    drop(pool);
    servers.iter_mut().for_each(|server| _ = server.ask("stop", "stopped"));
    let _ = std::fs::remove_file(format!("{}/journal", scene.directory));
}

#[test]
fn five_rolling_restarts_under_load_fail_no_call() {
    let scene = Scene::new();
    let mut servers = [(); 2].map(|()| scene.peer("role=server workers=2"));
    let pool = pool(&scene, 2);
    let load = Load::run(&pool, |load| {
        for _ in 0..5 {
            for server in &mut servers {
                let next = scene.peer("role=server workers=2");
                server.ask("stop", "stopped");
                *server = next;
                load.progress("after a restart");
            }
        }
    });
    assert_eq!(load.in_doubt.into_inner().unwrap(), [0; 0]);
    drop(pool);
    servers.iter_mut().for_each(|server| _ = server.ask("stop", "stopped"));
}

/// The calls wait for a server, each within its own timeout.
#[test]
fn restarts_of_the_only_server_fail_no_call() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let pool = pool(&scene, 4);
    let load = Load::run(&pool, |load| {
        for _ in 0..5 {
            server.ask("stop", "stopped");
            server = scene.peer("role=server");
            load.progress("after a restart");
        }
    });
    assert_eq!(load.in_doubt.into_inner().unwrap(), [0; 0]);
    drop(pool);
    server.ask("stop", "stopped");
}

#[test]
fn a_pool_of_one_survives_restarts_of_a_channels_server() {
    let scene = Scene::new();
    let name = unique("pool");
    let serve = || scene.peer(&format!("role=channel name={name}"));
    let mut server = serve();
    let config = ClientConfig::new().channel(ChannelKind::InPlace);
    let pool = Pool::connect_with(&format!("channel:{name}"), 4, LONG, config).unwrap();
    assert_eq!(pool.connections(), 1, "a channel has one client");
    for round in 0..6 {
        call(&pool, round);
        if round % 2 == 0 {
            server.ask("stop", "stopped");
            drop(server);
        } else {
            server.kill();
        }
        server = serve();
    }
    call(&pool, 10);
    assert_eq!(pool.connections(), 1);
    drop(pool);
    server.ask("stop", "stopped");
}

#[test]
fn what_is_in_doubt_is_reported_and_not_sent_again() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let pool = pool(&scene, 1);
    let blocked = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| pool.call(STAY, LONG).map(drop));
        server.expect("staying");
        let started = start(&pool, b"12345678", LONG);
        let pid = server.pid();
        // SAFETY: the process is the test's own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let mut next = scene.peer("role=server");
        let response = started.recv_timeout(LONG).unwrap().unwrap();
        assert_ne!(response.data(), b"12345678", "it was not started before");
        next.ask("stop", "stopped");
        blocked.join().unwrap()
    });
    let error = blocked.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert!(is_in_doubt(&error), "{error}");
    scene.kill(server);
    drop(pool);
}

#[test]
fn new_servers_are_taken_up_each_once() {
    let scene = Scene::new();
    let mut servers = vec![scene.peer("role=server")];
    let pool = pool(&scene, 3);
    assert_eq!(pool.connections(), 1);
    servers.extend((0..3).map(|_| scene.peer("role=server")));
    eventually("three connections", || {
        call(&pool, 1);
        pool.connections() == 3
    });
    let mut clients: Vec<_> =
        servers.iter_mut().map(|server| server.ask("clients", "clients")).collect();
    clients.sort();
    assert_eq!(clients, ["0", "1", "1", "1"]);
    drop(pool);
    servers.iter_mut().for_each(|server| _ = server.ask("stop", "stopped"));
}

#[test]
fn a_call_goes_where_the_fewest_are_under_way() {
    let scene = Scene::new();
    let mut servers = [(); 2].map(|()| scene.peer("role=server"));
    let pool = pool(&scene, 2);
    // Each server works on one request at a time: one that stays would keep the others waiting.
    let stays = start(&pool, STAY, Duration::MAX);
    assert_eq!(pool.in_flight(), 1);
    for number in 0..100 {
        call(&pool, number);
    }
    pool.close();
    let error = stays.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(pool);
    for server in &mut servers {
        server.say("stop");
        while server.hear() != "stopped" {}
    }
}

#[test]
fn closing_a_pool_ends_all_waits() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let pool = pool(&scene, 2);
    let closed = |outcome: Outcome| {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
    };
    // With a server that is busy, and then with none at all.
    let ready = Barrier::new(3);
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| pool.call(STAY, Duration::MAX));
        server.expect("staying");
        let pid = server.pid();
        // SAFETY: the process is the test's own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        assert!(is_in_doubt(&blocked.join().unwrap().unwrap_err()));
        assert!(!pool.is_server_connected());
        let waiting = [(); 2].map(|()| {
            scope.spawn(|| {
                ready.wait();
                pool.call(b"waits", Duration::MAX)
            })
        });
        let started = start(&pool, b"waits", Duration::MAX);
        let future = pool.call_async(b"waits", Duration::MAX);
        ready.wait();
        std::thread::sleep(crate::raw::MOMENT);
        let closer = pool.closer();
        assert!(!closer.is_closed());
        closer.close();
        waiting.into_iter().for_each(|thread| closed(thread.join().unwrap()));
        closed(started.recv_timeout(LONG).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        closed(runtime.block_on(future));
        assert!(closer.is_closed());
    });
    closed(pool.call(b"later", LONG));
    assert_eq!(pool.connections(), 0);
    scene.kill(server);
}

#[test]
fn a_deadline_is_kept_while_there_is_no_server() {
    let scene = Scene::new();
    let server = scene.peer("role=server");
    let pool = pool(&scene, 2);
    scene.kill(server);
    let short = Duration::from_millis(50);
    for _ in 0..2 {
        let start = Instant::now();
        let error = pool.call(b"nobody", short).unwrap_err();
        assert!(start.elapsed() >= short, "{error}");
        // The first one knows of the server's end, the next of no server.
        let not_started = error.lost_request().map(|lost| lost.state);
        let not_started = not_started == Some(RequestState::NotStarted);
        assert!(not_started || error.kind() == ErrorKind::NotRunning, "{error}");
    }
    let error = start(&pool, b"nobody", short).recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    let error = pool.call(b"nobody", Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    assert_eq!((pool.in_flight(), pool.connections()), (0, 0));
    // It goes on with the next one.
    let mut server = scene.peer("role=server");
    call(&pool, 1);
    drop(pool);
    server.ask("stop", "stopped");
}

#[test]
fn calls_that_wait_for_a_server_can_be_cancelled() {
    let scene = Scene::new();
    let server = scene.peer("role=server");
    let pool = pool(&scene, 1);
    scene.kill(server);
    let dropped = std::sync::Arc::new(());
    let held = dropped.clone();
    let call = pool.start_call(b"nobody", Duration::MAX, move |_| drop(held)).unwrap();
    assert!(call.cancel());
    assert_eq!(std::sync::Arc::strong_count(&dropped), 1, "its callback is dropped");
    assert!(!call.cancel() && !pool.cancel_call(call.id()));
    drop(pool.call_async(b"nobody", Duration::MAX));
    drop(pool);
}

#[test]
fn a_pool_that_is_dropped_leaves_neither_threads_nor_descriptors() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut pool = scene.peer("role=pool");
    for _ in 0..3 {
        pool.ask("call", "called");
        server.ask("stop", "stopped");
        pool.say("call");
        server = scene.peer("role=server");
        pool.expect("called");
    }
    assert_eq!(pool.ask("drop", "left"), "1 0 0", "threads, descriptors, mappings");
    server.ask("stop", "stopped");
}

#[test]
fn an_impossible_number_of_connections_is_refused() {
    for connections in [0, 1025] {
        let error = Pool::connect("nobody", connections, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadConfig);
    }
    let error = Pool::connect(&unique("nobody"), 1, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
}

/// A probe that keeps calls away until the server is there must find it without any.
#[test]
fn a_pool_that_is_asked_whether_its_server_is_there_looks_for_the_next_one() {
    let scene = Scene::new();
    let server = scene.peer("role=server");
    let pool = pool(&scene, 2);
    assert!(pool.is_server_connected());
    server.kill();
    eventually("the pool to notice", || !pool.is_server_connected());
    let server = scene.peer("role=server");
    eventually("the pool to find the next one", || pool.is_server_connected());
    drop(pool);
    server.finish();
}
