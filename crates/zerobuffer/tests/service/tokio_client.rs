//! The client for tokio, on both kinds of runtime.

use crate::peer::STAY;
use crate::scene::{LONG, NAME, Scene};
use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use zerobuffer::tokio::Client;
use zerobuffer::{
    BufferConfig, ClientConfig, ErrorKind, OwnedResponse, RequestLayout, RequestState, Server,
};

fn runtimes() -> [Runtime; 2] {
    let mut many = Builder::new_multi_thread();
    let built = [
        Builder::new_current_thread().enable_all().build(),
        many.worker_threads(2).enable_all().build(),
    ];
    built.map(|runtime| runtime.expect("a runtime"))
}

/// Runs a story on a runtime of each kind, each with a scene of its own.
fn on_each<F: Future<Output = ()>>(story: impl Fn(std::rc::Rc<Scene>) -> F) {
    for runtime in runtimes() {
        let story = story(std::rc::Rc::new(Scene::new()));
        runtime.block_on(async { tokio::time::timeout(2 * LONG, story).await.expect("an end") });
    }
}

async fn connect(scene: &Scene) -> Client {
    Client::connect_with(NAME, LONG, scene.client_config()).await.unwrap()
}

fn echo(number: u64) -> [u8; 8] {
    (number + 1).to_le_bytes()
}

fn kind(outcome: Result<OwnedResponse, zerobuffer::Error>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

#[test]
fn calls_get_their_responses_one_by_one_and_all_at_once() {
    on_each(async |scene| {
        let mut server = scene.peer("role=server ring=1024 workers=2");
        let client = connect(&scene).await;
        for number in 0..500_u64 {
            let response = client.call(&number.to_le_bytes(), LONG).await.unwrap();
            assert_eq!(response.data(), echo(number));
        }
        let call = |number: u64| {
            let client = client.clone();
            tokio::spawn(async move {
                let fill = move |to: &mut [u8]| to.copy_from_slice(&number.to_le_bytes());
                let response = client.call_with(8, RequestLayout::new(), fill, LONG).await;
                assert_eq!(response.unwrap().data(), echo(number));
            })
        };
        for task in (0..1000).map(call).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(client.is_server_connected() && client.name() == NAME);
        assert!(client.max_request_size() > 0 && client.server_metadata().is_empty());
        drop(client);
        server.ask("stop", "stopped");
    });
}

/// Each of a thousand calls has one outcome, and it is true: what has a response was started, and what is said to
/// be not started was not.
#[test]
fn a_killed_server_leaves_no_call_without_its_true_outcome() {
    on_each(async |scene| {
        let journal = format!("{}-journal", scene.directory);
        let server = scene.peer(&format!("role=server ring=8192 workers=2 journal={journal}"));
        let client = connect(&scene).await;
        let (under_way, first_done) = (1000_u64, tokio::sync::Notify::new());
        let first_done = std::sync::Arc::new(first_done);
        let tasks: Vec<_> = (0..under_way)
            .map(|number| {
                let (client, first_done) = (client.clone(), first_done.clone());
                tokio::spawn(async move {
                    let response = client.call(&number.to_le_bytes(), LONG).await?;
                    assert_eq!(response.data(), echo(number));
                    first_done.notify_one();
                    Ok::<(), zerobuffer::Error>(())
                })
            })
            .collect();
        first_done.notified().await;
        scene.kill(server);
        let (mut done, mut not_started) = (HashSet::new(), HashSet::new());
        for (number, task) in (0..).zip(tasks) {
            let Err(error) = task.await.unwrap() else {
                done.insert(number);
                continue;
            };
            assert_eq!(error.kind(), ErrorKind::PeerDied);
            if error.lost_request().expect("its request").state == RequestState::NotStarted {
                not_started.insert(number);
            }
        }
        let started = std::fs::read(&journal).unwrap();
        let numbers = started.chunks_exact(8).map(|number| number.try_into().unwrap());
        let started: HashSet<u64> = numbers.map(u64::from_le_bytes).collect();
        assert!(done.is_subset(&started), "a response without a request");
        assert!(not_started.is_disjoint(&started), "it was started");
        assert_eq!(kind(client.call(b"later", LONG).await), ErrorKind::PeerDied);
        std::fs::remove_file(journal).unwrap();
        // The next server is another client's.
        let mut server = scene.peer("role=server");
        let client = connect(&scene).await;
        assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).await.unwrap().data(), echo(1));
        drop(client);
        server.ask("stop", "stopped");
    });
}

#[test]
fn a_dropped_future_cancels_its_request_and_a_deadline_is_kept() {
    on_each(async |scene| {
        let mut server = scene.peer("role=server");
        let client = connect(&scene).await;
        let stays = client.call(STAY, Duration::MAX);
        server.expect("staying");
        let (short, start) = (Duration::from_millis(30), Instant::now());
        let (late, soon) = (client.call(b"late", LONG), client.call(b"soon", short));
        assert_eq!(kind(soon.await), ErrorKind::Timeout);
        assert!(start.elapsed() >= short);
        drop(stays);
        server.expect("cancelled");
        assert_eq!(late.await.unwrap().data(), b"late");
        drop(client);
        server.ask("stop", "stopped");
    });
}

#[test]
fn two_clients_of_one_runtime_do_not_know_each_other() {
    on_each(async |scene| {
        let mut server = scene.peer("role=server");
        let (one, two) = (connect(&scene).await, connect(&scene).await);
        for number in 0..200_u64 {
            let calls = [&one, &two].map(|client| client.call(&number.to_le_bytes(), LONG));
            for call in calls {
                assert_eq!(call.await.unwrap().data(), echo(number));
            }
        }
        let lost = one.call(STAY, Duration::MAX);
        server.expect("staying");
        one.close();
        assert_eq!(kind(lost.await), ErrorKind::Closed);
        assert_eq!(kind(one.call(b"later", LONG).await), ErrorKind::Closed);
        server.expect("cancelled");
        assert_eq!(two.call(&7_u64.to_le_bytes(), LONG).await.unwrap().data(), echo(7));
        drop((one, two));
        server.ask("stop", "stopped");
    });
}

#[test]
fn calls_end_with_the_last_client_and_with_the_runtime() {
    for ends_runtime in [false, true] {
        for runtime in runtimes() {
            let scene = Scene::new();
            let service = scene.service();
            let client = runtime.block_on(connect(&scene));
            let call = client.call(b"nobody responds", Duration::MAX);
            if ends_runtime {
                drop(runtime);
                let [other, _] = runtimes();
                let ended = other.block_on(async { tokio::time::timeout(LONG, call).await });
                assert_eq!(kind(ended.expect("an end")), ErrorKind::Closed);
                assert_eq!(kind(other.block_on(client.call(b"later", LONG))), ErrorKind::Closed);
            } else {
                drop(client);
                assert_eq!(kind(runtime.block_on(call)), ErrorKind::Closed);
            }
            drop(service);
        }
    }
}

#[test]
fn a_channel_is_not_supported_and_a_name_without_a_server_is_waited_for() {
    let name = format!("tokio-{}", std::process::id());
    on_each(async |scene| {
        let server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
        let error = Client::connect(&name, LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        drop(server);
        let soon = Duration::from_millis(10);
        let error = Client::connect_with(NAME, soon, scene.client_config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRunning);
    });
}

/// For how many milliseconds the calling thread has had a CPU.
fn milliseconds() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").expect("can be read");
    status.split(' ').next().expect("a time").parse::<u64>().expect("nanoseconds") / 1_000_000
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("can be read").count()
}

/// A program with one thread: says how many threads there are after a thousand calls, and for how much of half a
/// second with nothing to do it needed a CPU.
pub(crate) fn run(config: ClientConfig) {
    let keeps = Duration::from_millis(1);
    let runtime = Builder::new_current_thread().enable_all().thread_keep_alive(keeps).build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::connect_with(NAME, LONG, config).await.expect("connects");
        let calls: Vec<_> =
            (0..1000_u64).map(|number| client.call(&number.to_le_bytes(), LONG)).collect();
        for call in calls {
            call.await.expect("a response");
        }
        // The thread that has connected.
        while threads() > 1 {
            tokio::time::sleep(keeps).await;
        }
        let before = milliseconds();
        tokio::time::sleep(Duration::from_millis(500)).await;
        zerobuffer_test_support::say(&format!(
            "threads {} cpu {}",
            threads(),
            milliseconds() - before
        ));
    });
}

#[test]
fn no_thread_is_there_and_an_idle_client_sleeps() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut client = scene.start("role=tokio");
    let milliseconds: u64 = client.expect("threads 1 cpu ").parse().unwrap();
    assert!(milliseconds < 50, "{milliseconds} ms of 500");
    client.finish();
    server.ask("stop", "stopped");
}
