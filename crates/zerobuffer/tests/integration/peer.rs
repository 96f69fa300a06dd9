//! The other side: what a child process of a test does.
//!
//! It is described by `key=value` words, obeys commands on its standard input, answers each with one
//! line, and ends with its input.

use crate::work;
use std::collections::HashMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, Frame, OwnedRequest, OwnedResponse, RequestLayout,
    Server, ServerConfig, WaitStrategy,
};
pub(crate) use zerobuffer_test_support::say;
use zerobuffer_test_support::{Census, Rng, commands};

/// The variable that makes this binary a peer.
pub(crate) const VARIABLE: &str = "ZEROBUFFER_TEST_PEER";

/// What a handler of the kind `ops` does with a request: its first byte, an argument of 8 bytes after it.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Op {
    /// f.
    Edit = 0,
    /// f, after so many milliseconds.
    Sleep = 1,
    /// Fails with the rest of the request as the message.
    Fail = 2,
    Panic = 3,
    /// f on a frame of so many bytes.
    Resize = 4,
    /// Says so after f on so many per cent of the bytes, and never returns.
    Stick = 5,
    /// The same, but kills its own process.
    Die = 6,
    /// Fails, with a message about the frame.
    Facts = 7,
    /// f, once the test has said `open`.
    Gate = 8,
    /// f, and kills its own process so many milliseconds after the answer.
    DieLater = 9,
    /// Panics with a value that is no message.
    PanicOddly = 10,
    /// Panics with a value that panics when it is dropped.
    PanicTwice = 11,
}

/// A request for a handler of the kind `ops`, `len` bytes long.
pub(crate) fn op(op: Op, arg: u64, len: usize) -> Vec<u8> {
    let mut request = work::bytes(len.max(9), arg ^ len as u64);
    request[0] = op as u8;
    request[1..9].copy_from_slice(&arg.to_le_bytes());
    request
}

/// The answer to a request that was changed by f.
pub(crate) fn edited(request: &[u8]) -> Vec<u8> {
    let mut answer = request.to_vec();
    work::edit(&mut answer);
    answer
}

/// The peer's life.
///
/// | key | |
/// |---|---|
/// | role | server, client |
/// | name | of the channel |
/// | cpu | the one CPU to run on |
/// | uid | whom to become first |
/// | alarm | 1: a signal without SA_RESTART for every thread, 1,000 times a second |
/// | quiet | 1: no messages about panics |
/// | point, signal, skip | the step of the library (feature `failpoints`) at which it signals itself |
///
/// and for a server: payload, block, metadata, workers, wait, mode, stop (ms), handler (f, ops, keep, task, none).
/// What a client is made of it learns with the command `connect`.
pub(crate) fn run(description: &str) {
    let words = Words::new(description);
    if let Some(cpu) = words.find("cpu") {
        run_on(cpu);
    }
    if let Some(uid) = words.find("uid") {
        become_user(uid);
    }
    if words.find("quiet") == Some(1) {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if words.find("alarm") == Some(1) {
        start_storm();
    }
    arm(&words);
    let before = Census::at_start(&words.get::<String>("name"));
    match words.get::<String>("role").as_str() {
        "server" => serve(&words, before),
        "client" => converse(&words, before),
        "racer" => crate::races::racer(&words),
        "forker" => crate::fork::forker(&words),
        role => panic!("no role {role}"),
    }
}

/// Arms a step of the library, if there is a `point`. With SIGUSR1 the thread that reaches it says `held`, and
/// goes on when the process gets SIGUSR2.
#[cfg(feature = "failpoints")]
fn arm(words: &Words) {
    if let Some(point) = words.find::<String>("point") {
        let signal = words.find("signal").unwrap_or(libc::SIGKILL);
        if signal == libc::SIGUSR1 {
            hold_at(signal, libc::SIGUSR2);
        }
        zerobuffer::failpoints::arm(&point, signal, words.find("skip").unwrap_or(0));
    }
}

/// Has a thread that gets `hold` wait there until some thread gets `release`.
#[cfg(feature = "failpoints")]
fn hold_at(hold: libc::c_int, release: libc::c_int) {
    static HELD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    extern "C" fn held(_: libc::c_int) {
        let line = b"\n> held\n";
        // SAFETY: write and usleep are async-signal-safe, and the line is as long as it is said to be.
        unsafe {
            libc::write(1, line.as_ptr().cast(), line.len());
            while HELD.load(Ordering::Acquire) {
                libc::usleep(500);
            }
        }
    }
    extern "C" fn released(_: libc::c_int) {
        HELD.store(false, Ordering::Release);
    }
    HELD.store(true, Ordering::Release);
    for (signal, action) in [(hold, held as extern "C" fn(_)), (release, released)] {
        // SAFETY: both handlers do what is async-signal-safe only.
        unsafe { libc::signal(signal, action as libc::sighandler_t) };
    }
}

#[cfg(not(feature = "failpoints"))]
fn arm(words: &Words) {
    assert!(words.find::<String>("point").is_none(), "needs the feature `failpoints`");
}

/// `key=value` words.
pub(crate) struct Words(HashMap<String, String>);

impl Words {
    pub(crate) fn new(line: &str) -> Self {
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn find<T: FromStr<Err: Debug>>(&self, key: &str) -> Option<T> {
        self.0.get(key).map(|value| value.parse().expect("a value of the right kind"))
    }

    pub(crate) fn get<T: FromStr<Err: Debug>>(&self, key: &str) -> T {
        self.find(key).unwrap_or_else(|| panic!("no {key}"))
    }

    fn wait(&self) -> WaitStrategy {
        strategy(&self.find::<String>("wait").unwrap_or_default())
    }
}

/// A wait strategy by its name.
pub(crate) fn strategy(name: &str) -> WaitStrategy {
    match name {
        "park" => WaitStrategy::Park,
        "spin" => WaitStrategy::Spin,
        _ => WaitStrategy::SpinThenPark,
    }
}

/// Says whether everything is as before.
fn compare(before: &Census, name: &str) {
    match before.changes(|| Census::of_process(name)) {
        None => say("unchanged"),
        Some(changes) => say(&format!("changed: {changes}")),
    }
}

// ---- server ----

/// A server's configuration from its words.
pub(crate) fn server_config(words: &Words) -> ServerConfig {
    let payload = words.find("payload").unwrap_or(1 << 16);
    let block = words.find("block").unwrap_or(256);
    let mut config = ServerConfig::new(BufferConfig::new(block, payload)).wait(words.wait());
    if let Some(workers) = words.find("workers") {
        config = config.workers(workers);
    }
    if let Some(metadata) = words.find::<String>("metadata") {
        config = config.metadata(metadata);
    }
    if let Some(mode) = words.find::<String>("mode") {
        config = config.mode(u32::from_str_radix(&mode, 8).expect("an octal mode"));
    }
    if let Some(ms) = words.find("stop") {
        config = config.stop_timeout(Duration::from_millis(ms));
    }
    config
}

fn serve(words: &Words, before: Census) {
    let name: String = words.get("name");
    let mut server = match Server::create(&name, server_config(words)) {
        Ok(server) => server,
        Err(error) => return say(&format!("failed {:?} {error}", error.kind())),
    };
    match words.find::<String>("handler").as_deref().unwrap_or("f") {
        "f" => server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())),
        "ops" => server.start(operate),
        "keep" => server.start(|_: &mut Frame<'_>| {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }),
        "task" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let spawn = move |task| runtime.block_on(task);
            server.start_async(spawn, |request: OwnedRequest| async move { request.respond() })
        }
        // Alive, but takes nothing.
        "none" => Ok(()),
        handler => panic!("no handler {handler}"),
    }
    .expect("a new server can be started");
    say("ready");
    for command in commands() {
        match command.as_str() {
            "stop" => {
                let stopped = server.stop();
                drop(server);
                return match stopped {
                    Ok(()) => compare(&before, &name),
                    Err(error) => say(&format!("failed {:?} {error}", error.kind())),
                };
            }
            "open" => GATE.open(),
            "running" => say(&format!("{}", server.is_running())),
            "client" => say(&format!("{}", server.is_client_connected())),
            command if command.starts_with("arm ") => {
                arm(&Words::new(command));
                say("armed");
            }
            "calls" => say(&format!("{}", CALLS.load(Ordering::Relaxed))),
            command => panic!("no command {command}"),
        }
    }
}

/// How often the handler `ops` or `keep` ran.
static CALLS: AtomicU64 = AtomicU64::new(0);
static GATE: Gate = Gate { opened: Mutex::new(0), changed: Condvar::new() };

/// Lets one handler through for each `open`.
struct Gate {
    opened: Mutex<u64>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.opened.lock().expect("not poisoned") += 1;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let opened = self.opened.lock().expect("not poisoned");
        let mut opened = self.changed.wait_while(opened, |n| *n == 0).expect("not poisoned");
        *opened -= 1;
    }
}

/// The handler of the kind `ops`.
fn operate(frame: &mut Frame<'_>) -> Result<(), String> {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let Some((&op, rest)) = frame.data().split_first() else { return Ok(()) };
    let arg = rest.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let percent = |frame: &Frame<'_>| frame.len() * arg as usize / 100;
    match op {
        1 => std::thread::sleep(Duration::from_millis(arg)),
        2 => return Err(String::from_utf8_lossy(&rest[8..]).into_owned()),
        3 => panic!("the handler panics on {}", frame.sequence()),
        4 => frame.resize(arg as usize).map_err(|error| format!("{:?}", error.kind()))?,
        5 | 6 => {
            let part = percent(frame);
            work::edit_first(frame.data_mut(), part);
            if op == 6 {
                die();
            }
            say(&format!("stuck {}", frame.sequence()));
            loop {
                std::thread::park();
            }
        }
        7 => {
            return Err(format!(
                "len={} capacity={} page={} sequence={} metadata={}",
                frame.len(),
                frame.capacity(),
                frame.data().as_ptr().addr() % 4096,
                frame.sequence(),
                String::from_utf8_lossy(frame.metadata())
            ));
        }
        8 => {
            say(&format!("gate {}", frame.sequence()));
            GATE.pass();
        }
        9 => {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(arg));
                die();
            });
        }
        10 => std::panic::panic_any(arg),
        11 => std::panic::panic_any(Bomb),
        _ => {}
    }
    work::edit(frame.data_mut());
    Ok(())
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn die() {
    // SAFETY: kill has no memory effects; this one does not return.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

// ---- client ----

/// One line about an error.
pub(crate) fn describe(error: &Error) -> String {
    match error.lost_request() {
        Some(lost) => format!("err {:?} {:?} {}", error.kind(), lost.state, lost.sequence),
        None => format!("err {:?} {error}", error.kind()),
    }
}

/// Obeys commands about one client:
///
/// | command | |
/// |---|---|
/// | connect [ms=] [metadata=] [in_flight=] [owner=] [wait=] | |
/// | call len= seed= [ms=] | and checks the answer |
/// | calls count= largest= seed= | the same, of random lengths |
/// | send len= seed= / receive / hold | sends; receives and checks; receives, checks and keeps |
/// | op op= arg= len= | calls an `ops` handler; says the answer's length |
/// | claim len= | fills half of a request buffer and keeps it |
/// | arm point= [signal=] [skip=] | as at the start |
/// | close, exit, stop | closes; ends the process as it is; closes and ends |
fn converse(words: &Words, before: Census) {
    let name: String = words.get("name");
    let mut client: Option<Client> = None;
    let mut held: Vec<OwnedResponse> = Vec::new();
    let mut sent: HashMap<u64, (usize, u64)> = HashMap::new();
    say("ready");
    for command in commands() {
        let words = Words::new(&command);
        let timeout = Duration::from_millis(words.find("ms").unwrap_or(20_000));
        let (len, seed) = (words.find("len").unwrap_or(0), words.find("seed").unwrap_or(0));
        let verb = command.split_whitespace().next().unwrap_or_default();
        let outcome: Result<String, Error> = match verb {
            "connect" => {
                let connected = Client::connect_with(&name, timeout, client_config(&words));
                connected.map(|connected| {
                    client = Some(connected);
                    String::new()
                })
            }
            "close" => {
                client = None;
                Ok(String::new())
            }
            "exit" => std::process::exit(0),
            "stop" => {
                held.clear();
                drop(client);
                return compare(&before, &name);
            }
            "arm" => {
                arm(&words);
                Ok(String::new())
            }
            _ => {
                let client = client.as_mut().expect("connected");
                match verb {
                    "call" => client.call(&work::bytes(len, seed), timeout).map(|answer| {
                        work::check(answer.data(), len, seed);
                        answer.sequence().to_string()
                    }),
                    "calls" => calls(client, words.get("count"), words.get("largest"), seed),
                    "send" => client.send_request(&work::bytes(len, seed)).map(|sequence| {
                        sent.insert(sequence, (len, seed));
                        sequence.to_string()
                    }),
                    "receive" | "hold" => client.receive_response(timeout).map(|answer| {
                        let sequence = answer.sequence();
                        let (len, seed) = sent.remove(&sequence).expect("sent before");
                        work::check(answer.data(), len, seed);
                        if verb == "hold" {
                            held.push(answer.into_owned());
                        }
                        sequence.to_string()
                    }),
                    "op" => {
                        let mut request = work::bytes(len.max(9), seed);
                        request[0] = words.get("op");
                        request[1..9].copy_from_slice(&words.get::<u64>("arg").to_le_bytes());
                        client.call(&request, timeout).map(|answer| {
                            assert_eq!(answer.data(), edited(&request), "the answer is not f");
                            answer.len().to_string()
                        })
                    }
                    "claim" => client.acquire_request_buffer(len).map(|mut buffer| {
                        buffer.data_mut()[..len / 2].fill(0xA5);
                        // For ever: this process is about to be killed.
                        std::mem::forget(buffer);
                        String::new()
                    }),
                    _ => panic!("no command {command}"),
                }
            }
        };
        match outcome {
            Ok(result) => say(&format!("ok {result}")),
            Err(error) => say(&describe(&error)),
        }
    }
}

fn client_config(words: &Words) -> ClientConfig {
    let mut config = ClientConfig::new().wait(words.wait());
    if let Some(metadata) = words.find::<String>("metadata") {
        config = config.metadata(metadata);
    }
    if let Some(requests) = words.find("in_flight") {
        config = config.max_in_flight(requests);
    }
    if let Some(uid) = words.find("owner") {
        config = config.owner(uid);
    }
    config
}

fn calls(client: &mut Client, count: usize, largest: usize, seed: u64) -> Result<String, Error> {
    let mut rng = Rng(seed);
    for _ in 0..count {
        let (len, seed) = (rng.below(largest + 1), rng.next_word());
        let mut buffer = client.acquire_request_buffer_with(len, RequestLayout::new())?;
        buffer.data_mut().copy_from_slice(&work::bytes(len, seed));
        let sequence = buffer.commit()?;
        let answer = client.receive_response_for(sequence, Duration::from_secs(20))?;
        work::check(answer.data(), len, seed);
    }
    Ok(count.to_string())
}

// ---- the process ----

fn run_on(cpu: usize) {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set; the calls get a valid pointer to one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

pub(crate) fn become_user(uid: u32) {
    // SAFETY: the calls have no memory effects.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(uid), 0);
        assert_eq!(libc::setuid(uid), 0);
    }
}

/// Interrupts every thread's system calls, 1,000 times a second.
fn start_storm() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; an all-zero sigaction is valid, and without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(1));
            for task in std::fs::read_dir("/proc/self/task").expect("/proc").flatten() {
                if let Some(id) = task.file_name().to_str().and_then(|id| id.parse::<i32>().ok()) {
                    // SAFETY: tgkill has no memory effects; a thread that has ended is an error only.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGALRM) };
                }
            }
        }
    });
    std::thread::sleep(Duration::from_millis(5));
}
