//! A client that an event loop drives, which sleeps on the descriptor and nowhere else: what is not told there
//! ends a test after its timeout.

use crate::peer::STAY;
use crate::scene::{LONG, NAME, Scene};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use zerobuffer::{
    BufferConfig, CallHandle, ErrorKind, EventLoopClient, Frame, OwnedResponse, RequestLayout,
    RequestState, Server,
};

type Outcome = Result<OwnedResponse, zerobuffer::Error>;

fn connect(scene: &Scene) -> EventLoopClient {
    EventLoopClient::connect_with(NAME, LONG, scene.client_config()).unwrap()
}

fn start(
    client: &EventLoopClient,
    data: &[u8],
    timeout: Duration,
) -> (CallHandle, Receiver<Outcome>) {
    let (done, outcome) = channel();
    let on_done = move |response| drop(done.send(response));
    (client.start_call(data, timeout, on_done).unwrap(), outcome)
}

/// Whether the descriptor becomes readable within this time.
pub(crate) fn is_readable(client: &EventLoopClient, within: Duration) -> bool {
    let mut poll =
        libc::pollfd { fd: client.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(within.as_millis()).unwrap();
    // SAFETY: one pollfd that can be written.
    let ready = unsafe { libc::poll(&mut poll, 1, milliseconds) };
    assert!(
        ready >= 0 || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    );
    ready > 0
}

/// The event loop, until `found` finds what it looks for.
fn run<T>(client: &EventLoopClient, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    // What was started since is told by the descriptor.
    let mut until = None;
    loop {
        if let Some(found) = found() {
            return found;
        }
        let left = until.map_or(end, |until: Instant| until.min(end)) - Instant::now();
        let came = is_readable(client, left + Duration::from_millis(1));
        assert!(came || until.is_some_and(|until| until < end), "nothing was told");
        until = client.process();
    }
}

fn outcome(client: &EventLoopClient, outcome: &Receiver<Outcome>) -> Outcome {
    run(client, || outcome.try_recv().ok())
}

fn echo(number: u64) -> [u8; 8] {
    (number + 1).to_le_bytes()
}

#[test]
fn callbacks_and_futures_get_responses_one_by_one() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = connect(&scene);
    for number in 0..2000_u64 {
        let (_, first) = start(&client, &number.to_le_bytes(), LONG);
        assert_eq!(outcome(&client, &first).unwrap().data(), echo(number));
        let mut future = Box::pin(client.call_async(&number.to_le_bytes(), LONG));
        let second =
            run(&client, || match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Some(outcome),
                Poll::Pending => None,
            });
        assert_eq!(second.unwrap().data(), echo(number));
    }
    assert!(client.in_flight() <= 1 && client.name() == NAME && client.is_server_connected());
    assert!(!is_readable(&client, Duration::from_millis(20)), "nothing is left to do");
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_thousand_calls_at_once_through_a_ring_that_holds_a_few() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server ring=1024 workers=2");
    let client = connect(&scene);
    let calls: Vec<_> =
        (0..1000_u64).map(|number| start(&client, &number.to_le_bytes(), LONG).1).collect();
    for (number, call) in (0..).zip(&calls) {
        assert_eq!(outcome(&client, call).unwrap().data(), echo(number));
    }
    drop(client);
    server.ask("stop", "stopped");
}

/// Calls come from threads that do not drive it, and responses are released on them.
#[test]
fn other_threads_call_and_release() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server ring=1024");
    let client = connect(&scene);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let client = &client;
                scope.spawn(move || {
                    for number in (0..500).map(|number| 1000 * thread + number) {
                        let (_, outcome) = start(client, &number.to_le_bytes(), LONG);
                        let response = outcome.recv_timeout(LONG).unwrap().unwrap();
                        assert_eq!(response.data(), echo(number));
                    }
                })
            })
            .collect();
        let is_done = || callers.iter().all(|caller| caller.is_finished()).then_some(());
        let start = Instant::now();
        while is_done().is_none() {
            assert!(start.elapsed() < LONG);
            is_readable(&client, Duration::from_millis(100));
            client.process();
        }
    });
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_response_that_is_released_elsewhere_makes_room() {
    let scene = Scene::new();
    let mut service = zerobuffer::Service::create(NAME, scene.service_config().ring(256)).unwrap();
    let client = connect(&scene);
    let calls: Vec<_> = (0..5_u8).map(|number| start(&client, &[number; 8], LONG).1).collect();
    let mut serve = |number: u8| {
        let request = service.receive(LONG).unwrap();
        assert_eq!(request.data(), [number; 8]);
        request.respond();
    };
    (0..4).for_each(&mut serve);
    let mut held: Vec<_> = calls[..4].iter().map(|call| outcome(&client, call).unwrap()).collect();
    client.process();
    assert!(!is_readable(&client, Duration::from_millis(20)), "the ring is full");
    let first = held.remove(0);
    std::thread::spawn(move || drop(first)).join().unwrap();
    assert!(is_readable(&client, LONG), "there is room");
    client.process();
    serve(4);
    assert_eq!(outcome(&client, &calls[4]).unwrap().data(), [4; 8]);
}

#[test]
fn a_queued_call_that_is_cancelled_lets_the_next_one_be_sent() {
    let scene = Scene::new();
    let mut service = scene.service();
    service.start(|_: &mut Frame<'_>| {}).unwrap();
    let client = connect(&scene);
    let (_, first) = start(&client, &[0; 600_000], LONG);
    let held = outcome(&client, &first).unwrap();
    let (waits, _) = start(&client, &[1; 600_000], Duration::MAX);
    let (_, behind) = start(&client, &[2], Duration::MAX);
    client.process();
    assert!(!is_readable(&client, Duration::from_millis(20)), "the ring is full");
    assert!(waits.cancel());
    assert_eq!(outcome(&client, &behind).unwrap().data(), [2]);
    drop(held);
}

#[test]
fn deadlines_are_kept_by_the_time_that_process_returns() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = connect(&scene);
    let (stays, forever) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    assert_eq!(client.process(), None, "no call is ever due");
    let short = Duration::from_millis(30);
    let began = Instant::now();
    let (_, late) = start(&client, b"late", LONG / 2);
    let (_, soon) = start(&client, b"soon", short);
    let error = outcome(&client, &soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= short);
    late.try_recv().unwrap_err();
    assert!(stays.cancel());
    server.expect("cancelled");
    outcome(&client, &late).unwrap();
    forever.recv().expect_err("the callback is dropped");
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_killed_server_ends_every_call_and_the_descriptor_falls_silent() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = connect(&scene);
    let (_, taken) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    let waiting: Vec<_> =
        (0..50_u64).map(|number| start(&client, &number.to_le_bytes(), LONG).1).collect();
    scene.kill(server);
    let lost = |call: &Receiver<Outcome>| {
        let error = outcome(&client, call).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerDied);
        error.lost_request().unwrap().state
    };
    assert_eq!(lost(&taken), RequestState::InDoubt);
    for call in &waiting {
        assert_eq!(lost(call), RequestState::NotStarted);
    }
    client.process();
    assert!(!is_readable(&client, Duration::from_millis(20)), "the end was told");
    let error = client.start_call(b"later", LONG, |_| unreachable!()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().unwrap().state, RequestState::NotStarted);
}

/// The bell of a response and the end of the server: an edge-triggered loop that was busy is told once of both.
#[test]
fn an_end_that_comes_with_a_bell_needs_no_other_turn() {
    let scene = Scene::new();
    // With two workers it has received every bell when it is killed, and its end is no reset.
    let mut server = scene.peer("role=server workers=2");
    let client = connect(&scene);
    let (_, first) = start(&client, &1_u64.to_le_bytes(), LONG);
    let (_, second) = start(&client, STAY, Duration::MAX);
    server.expect("staying");
    scene.kill(server);
    client.process();
    assert_eq!(first.try_recv().unwrap().unwrap().data(), echo(1));
    assert_eq!(second.try_recv().unwrap().unwrap_err().kind(), ErrorKind::PeerDied);
}

#[test]
fn a_close_and_a_drop_end_every_call() {
    let scene = Scene::new();
    let service = scene.service();
    for closes in [true, false] {
        // A ring that holds some of them, and some wait for room.
        let client = EventLoopClient::connect_with(NAME, LONG, scene.client_config().ring(256));
        let client = client.unwrap();
        let calls: Vec<_> = (0..8).map(|_| start(&client, &[1; 8], Duration::MAX).1).collect();
        if closes {
            std::thread::scope(|scope| scope.spawn(|| client.close()).join().unwrap());
            for call in &calls {
                assert_eq!(outcome(&client, call).unwrap_err().kind(), ErrorKind::Closed);
            }
            let error = client.start_call(&[1], LONG, |_| unreachable!()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        drop(client);
        for call in calls {
            let ended = call.try_recv();
            assert!(ended.is_err() == closes, "a drop has waited for nobody");
            assert!(ended.is_err() || ended.unwrap().unwrap_err().kind() == ErrorKind::Closed);
        }
    }
    drop(service);
}

/// Writes over the state of the request with these bytes, as a server might that keeps to no rule.
fn overwrite_state(request: &[u8]) {
    let memory = std::fs::File::options().read(true).write(true).open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let segments = maps.lines().filter(|line| line.contains("/memfd:zerobuffer-"));
    let mut found = 0;
    for (start, end) in segments.filter_map(|line| line.split(' ').next()?.split_once('-')) {
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        // Those of other tests may go at any moment.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let at = bytes.windows(request.len()).position(|bytes| bytes == request);
        if let Some(at) = at {
            // A header of 32 bytes stands before the data, with the state in its second half.
            memory.write_all_at(&[0xff; 8], start + at as u64 - 16).unwrap();
            found += 1;
        }
    }
    assert_ne!(found, 0, "no such request");
}

/// One turn finds it in one request, and all others are told.
#[test]
fn a_violation_ends_every_call() {
    let scene = Scene::new();
    let service = scene.service();
    let client = connect(&scene);
    let calls = [b"request no. 1 of the violation", b"request no. 2 of the violation"];
    let calls = calls.map(|data| start(&client, data, Duration::MAX).1);
    overwrite_state(b"request no. 1 of the violation");
    client.process();
    for call in &calls {
        let error = outcome(&client, call).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
    }
    drop((client, service));
}

/// It may start calls, and ask for another turn; what it panics with stays with it.
#[test]
fn a_callback_may_use_its_client() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = Arc::new(connect(&scene));
    let (done, outcome) = channel();
    let inner = Arc::downgrade(&client);
    let on_done = move |first: Outcome| {
        drop(first);
        let client = inner.upgrade().unwrap();
        client.process();
        let on_done = move |second| done.send(second).unwrap();
        client.start_call(&2_u64.to_le_bytes(), LONG, on_done).unwrap();
        panic!("on purpose");
    };
    let fill = |to: &mut [u8]| to.fill(0);
    client.start_call_with(8, RequestLayout::new(), fill, LONG, on_done).unwrap();
    assert_eq!(run(&client, || outcome.try_recv().ok()).unwrap().data(), echo(2));
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn a_channel_has_no_descriptor() {
    let name = format!("event-loop-{}", std::process::id());
    let server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let error = EventLoopClient::connect(&name, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("call_async"), "{error}");
    drop(server);
    let sizes = BufferConfig::new(0, 4096);
    let mut server = zerobuffer::v1::DuplexServer::create(&name, sizes).unwrap();
    server.start_mutable(|_: &mut zerobuffer::v1::Draft<'_>| {}).unwrap();
    let error = EventLoopClient::connect(&name, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    drop(server);
}

/// The child's part of a fork.
fn refuses_everything(client: &EventLoopClient) -> bool {
    let refused = client.start_call(b"child", LONG, |_| ()).map(drop);
    client.process().is_none()
        && refused.is_err_and(|error| error.kind() == ErrorKind::WrongProcess)
        // SAFETY: the call reads the flags of a descriptor.
        && unsafe { libc::fcntl(client.as_fd().as_raw_fd(), libc::F_GETFD) } >= 0
        && closes_nothing(client)
}

/// What the child opens gets the numbers of descriptors that its parent has and it has not.
fn closes_nothing(client: &EventLoopClient) -> bool {
    // SAFETY: the name ends with a NUL; what is made is this child's own.
    let file = |_| unsafe {
        let fd = libc::memfd_create(c"child".as_ptr(), libc::MFD_CLOEXEC);
        std::fs::File::from_raw_fd(fd)
    };
    let files: [std::fs::File; 20] = std::array::from_fn(file);
    client.close();
    files.iter().all(|file| file.metadata().is_ok_and(|file| file.len() == 0))
}

#[test]
fn a_forked_child_has_no_part_in_it() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let client = connect(&scene);
    // SAFETY: of what the child does, only the allocator minds that the child has no other threads, and glibc puts that
    // right.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            libc::_exit(i32::from(!refuses_everything(&client)));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert_eq!(status, 0, "SIGALRM says that the child waited");
    let (_, call) = start(&client, &1_u64.to_le_bytes(), LONG);
    assert_eq!(outcome(&client, &call).unwrap().data(), echo(1));
    drop(client);
    server.ask("stop", "stopped");
}

/// The process has its main thread, those of the test's harness, and none of the library's.
#[test]
fn no_thread_is_there_and_nothing_happens_while_nothing_is_to_be_done() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    let mut client = scene.peer("role=event-loop");
    client.ask("call", "called");
    client.ask("threads", "threads 0");
    assert_eq!(client.ask("drop", "left"), "0 0", "descriptors, mappings");
    client.finish();
    server.ask("stop", "stopped");
}
