//! The thread that completes futures: when there is one, what it takes and what it costs. In a process of its
//! own, whose threads can be counted.
#![cfg(all(target_os = "linux", not(zerobuffer_unsupported)))]
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, ErrorKind, Frame, Server};

const LONG: Duration = Duration::from_secs(20);

/// The folders in /proc of the threads that complete calls.
fn completers() -> Vec<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let is_completer = |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "zb-completer")
    };
    tasks.filter(is_completer).collect()
}

fn status(task: &std::path::Path, key: &str) -> String {
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key}")).trim_start_matches(':').trim().to_owned()
}

/// How often it has been on a CPU.
fn turns(task: &std::path::Path) -> u64 {
    let count = |key| status(task, key).parse::<u64>().unwrap();
    count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches")
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The child's part of a fork: whether everything that the parent had is refused, without a wait.
fn refuses_everything(client: &zerobuffer::SharedClient, call: zerobuffer::CallFuture) -> bool {
    let mut call = call;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = std::future::Future::poll(std::pin::Pin::new(&mut call), &mut context);
    let is_wrong = |outcome: Result<_, zerobuffer::Error>| {
        outcome.is_err_and(|error| error.kind() == ErrorKind::WrongProcess)
    };
    let refused = match polled {
        std::task::Poll::Ready(outcome) => is_wrong(outcome.map(drop)),
        std::task::Poll::Pending => false,
    };
    drop(call);
    refused && is_wrong(client.start_call(b"child", LONG, |_| ()).map(drop))
}

#[test]
fn one_thread_completes_calls_and_is_there_only_when_it_is_needed() {
    let name = format!("completer-{}", std::process::id());
    let mut server = Server::create(&name, BufferConfig::new(0, 1 << 20)).unwrap();
    let (enter, entered) = channel();
    let (leave, may_leave) = channel::<()>();
    let may_leave = std::sync::Mutex::new(may_leave);
    server
        .start(move |frame: &mut Frame<'_>| {
            if frame.data() == b"wait" {
                enter.send(()).unwrap();
                let _ = may_leave.lock().unwrap().recv();
            }
        })
        .unwrap();
    let client = Client::connect(&name, LONG).unwrap().into_shared();
    client.call(b"blocking", LONG).unwrap();
    assert_eq!(completers().len(), 0, "a program without futures has no such thread");

    let (done, outcomes) = channel();
    let start = |data: &[u8]| {
        let done = done.clone();
        client.start_call(data, LONG, move |outcome| done.send(outcome).unwrap()).unwrap()
    };
    start(b"first");
    outcomes.recv_timeout(LONG).unwrap().unwrap();
    start(b"wait");
    entered.recv_timeout(LONG).unwrap();
    (0..1000_u32).for_each(|n| drop(start(&n.to_le_bytes())));
    let [completer] = &completers()[..] else { panic!("one thread") };
    // What callbacks start, such as threads of a pool, inherits it.
    let own = status(std::path::Path::new("/proc/thread-self"), "SigBlk");
    assert_eq!(status(completer, "SigBlk"), own, "as the thread that called first");
    // It looks for the server's death once in 10 ms, and does nothing for each call.
    let before = turns(completer);
    std::thread::sleep(Duration::from_millis(500));
    let turns = turns(completer) - before;
    assert!(turns < 200, "{turns} turns in half a second");

    let call = client.call_async(b"of the parent", LONG);
    // SAFETY: of what the child does, only the allocator minds that the child has no other threads, and glibc puts that
    // right.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            libc::_exit(i32::from(!refuses_everything(&client, call)));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert_eq!(status, 0, "SIGALRM says that the child waited");

    drop(leave);
    for _ in 0..1001 {
        outcomes.recv_timeout(LONG).unwrap().unwrap();
    }
    client.close();
    eventually("the end of the thread with its connection", || completers().is_empty());
    client.reconnect(LONG).unwrap();
    start(b"again");
    outcomes.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(completers().len(), 1);
    drop(client);
    assert_eq!(completers().len(), 0, "a dropped client has waited for it");
}
