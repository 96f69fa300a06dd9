//! A test's scene: a channel name of its own, its child processes, a watchdog, and the look at what is
//! left at the end.
// Some of it serves the tests at the steps of the protocol only.
#![cfg_attr(not(feature = "failpoints"), allow(dead_code))]

use crate::{peer, work};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Client, ClientConfig, Error, ErrorKind, Server};

/// For calls that succeed at once on an idle machine; this one is shared.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// A peer's death, and the next client's service, must be there well before this.
pub(crate) const SOON: Duration = Duration::from_millis(500);
/// A test that takes longer hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `body` under a watchdog, in a scene with a channel name of its own.
pub(crate) fn scene(body: impl FnOnce(&Scene) + Send + 'static) {
    let scene = Arc::new(Scene::new());
    let (done, finished) = channel();
    let inside = Arc::clone(&scene);
    let thread = std::thread::spawn(move || {
        // Children die with the thread that made them, so the end is looked at on this one.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            body(&inside);
            inside.expect_unchanged();
        }));
        inside.sweep();
        let _ = done.send(());
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    });
    let patience = WATCHDOG * work::factor();
    if finished.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        scene.sweep();
        panic!("hangs: not finished after {patience:?} (channel {})", scene.name);
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// The stage of one test.
#[derive(Debug)]
pub(crate) struct Scene {
    name: String,
    /// Every child ever made, for the sweep.
    pids: Mutex<Vec<i32>>,
    /// A side was killed: the next server of the name is to clean up, nobody else has to.
    killed: AtomicBool,
    /// Children live in a pid namespace, and with a /tmp, of their own.
    isolated: AtomicBool,
}

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Ends in a letter, so that no test's name is part of another one's.
        let name = format!("it{}n{count}z", std::process::id());
        let (killed, isolated) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { name, pids: Mutex::default(), killed, isolated }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A further name of this test.
    pub(crate) fn other(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Starts a child process; `more` are its properties (see [`peer::run`]).
    pub(crate) fn peer(&self, more: &str) -> Peer {
        let mut description = format!("name={} ", self.name);
        let _ = write!(description, "{more}");
        let peer = Peer::spawn(&description, self.isolated.load(Ordering::Relaxed));
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(peer.pid());
        peer
    }

    /// From now on each child lives in a pid namespace of its own, and with a /tmp of its own.
    pub(crate) fn isolate(&self) {
        self.isolated.store(true, Ordering::Relaxed);
    }

    /// A server in a child process, ready for clients.
    pub(crate) fn server(&self, more: &str) -> Peer {
        let mut server = self.peer(&format!("role=server {more}"));
        server.expect("ready");
        server
    }

    /// A client in a child process, attached.
    pub(crate) fn client_peer(&self, more: &str) -> Peer {
        let mut client = self.peer(&format!("role=client {more}"));
        client.expect("ready");
        client.ask("connect", "ok");
        client
    }

    /// As [`Scene::client_peer`], for a server in this process that `pump` keeps going.
    pub(crate) fn client_peer_while(&self, mut pump: impl FnMut()) -> Peer {
        let mut client = self.peer("role=client");
        client.expect("ready");
        client.say("connect");
        let start = Instant::now();
        while start.elapsed() < LONG {
            pump();
            std::thread::sleep(Duration::from_millis(1));
            if let Ok(line) = client.lines.try_recv() {
                assert!(line.starts_with("ok"), "{line}");
                return client;
            }
        }
        panic!("the client never attached");
    }

    /// A process that is no child of this one, to be killed at the end.
    pub(crate) fn adopt(&self, pid: i32) {
        assert!(pid > 0, "{pid} stands for more than one process");
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }

    /// A client in this process.
    pub(crate) fn client(&self) -> Client {
        self.client_with(ClientConfig::new())
    }

    pub(crate) fn client_with(&self, config: ClientConfig) -> Client {
        Client::connect_with(&self.name, LONG, config).expect("a client attaches")
    }

    /// A server in this process, without a handler.
    pub(crate) fn own_server(&self, payload: usize) -> Server {
        Server::create(&self.name, BufferConfig::new(256, payload)).expect("a server starts")
    }

    /// Kills `peer` with SIGKILL and waits for its end; what it leaves behind is for the next server.
    pub(crate) fn kill(&self, peer: Peer) {
        self.expect_leftovers();
        peer.kill();
    }

    /// The last server of the name did not end in good order.
    pub(crate) fn expect_leftovers(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Every semaphore of this test's channels holds two tokens at the most (I7).
    pub(crate) fn expect_few_tokens(&self) {
        for file in names(&self.name).iter().filter(|file| file.starts_with("sem.")) {
            let Ok(bytes) = std::fs::read(format!("/dev/shm/{file}")) else { continue };
            let Some(value) = bytes.first_chunk::<4>() else { continue };
            let value = u32::from_le_bytes(*value);
            assert!(value <= 2, "{value} tokens in {file}");
        }
    }

    /// As before the test: no name, no descriptor, no mapping of its channels (I8). A leftover of a kill
    /// must go with the next server of the same name.
    fn expect_unchanged(&self) {
        if self.killed.load(Ordering::Relaxed) {
            self.own_server(64).stop().expect("the next server starts and stops");
        }
        let traces = traces(&self.name);
        assert!(traces.is_empty(), "left behind: {traces:#?}");
    }

    /// Leaves nothing behind, whatever happened.
    fn sweep(&self) {
        for pid in self.pids.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: kill has no memory effects. A peer that was waited for already has had its pid
            // freed, but pids are not used again within the seconds of a test.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for file in names(&self.name) {
            let path = format!("/dev/shm/{file}");
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}

/// The names in /dev/shm that hold `name`.
pub(crate) fn names(name: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").expect("/dev/shm can be read").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|file| file.contains(name))
        .collect();
    names.sort();
    names
}

/// Names, descriptors and mappings of channels whose name holds `name`.
pub(crate) fn traces(name: &str) -> Vec<String> {
    let mut traces = names(name);
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        if let Ok(target) = std::fs::read_link(entry.path())
            && target.to_string_lossy().contains(name)
        {
            traces.push(format!("descriptor of {}", target.display()));
        }
    }
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    traces.extend(maps.lines().filter(|line| line.contains(name)).map(str::to_owned));
    traces
}

/// Runs what follows in a pid namespace and a mount namespace of its own, with an empty /tmp; /dev/shm is
/// shared. A shell is the first process there, as nobody can kill that one from inside. It opens the program
/// before, which may lie in the /tmp that is hidden then.
fn isolation(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
        ])
        .arg("exec 9< \"$0\" && mount -t tmpfs none /tmp && /proc/self/fd/9 \"$@\"; exit $?")
        .arg(program);
    command
}

/// Why children cannot be isolated here, if they cannot.
pub(crate) fn no_isolation() -> Option<String> {
    let output = isolation(Path::new("/bin/true")).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Says that something cannot be tested here; `cargo xtask test` repeats it at its end.
pub(crate) fn not_run(what: &str, why: &str) {
    let line = format!("not run: {what} ({why})");
    println!("{line}");
    if let Some(list) = std::env::var_os("ZEROBUFFER_NOT_RUN") {
        let file = std::fs::File::options().create(true).append(true).open(list);
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// A child process, and the line by line conversation with it.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Peer {
    fn spawn(description: &str, isolated: bool) -> Self {
        let this = std::env::current_exe().expect("this binary has a path");
        let mut command = if isolated { isolation(&this) } else { Command::new(this) };
        command
            .args(["--exact", "peer_entry", "--nocapture", "--test-threads=1"])
            .env(peer::VARIABLE, description)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: prctl is async-signal-safe, and touches nothing of the parent's.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("a child process starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test harness of the child writes to the same pipe.
                if let Some((_, said)) = line.split_once(peer::MARK) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Self { stdin: child.stdin.take(), child, lines }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a command.
    pub(crate) fn say(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().expect("the conversation is open");
        writeln!(stdin, "{command}").expect("the peer listens");
    }

    /// The next line from the peer.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        match self.lines.recv_timeout(LONG * 2) {
            Ok(line) => line,
            Err(end) => panic!("the peer said nothing: {end}, {:?}", self.child.try_wait()),
        }
    }

    /// The next line from the peer; `None` if it ends before.
    pub(crate) fn hear_or_end(&mut self) -> Option<String> {
        self.lines.recv_timeout(LONG * 2).ok()
    }

    /// The rest of the next line, which must start with `start`.
    #[track_caller]
    pub(crate) fn expect(&mut self, start: &str) -> String {
        let line = self.hear();
        match line.strip_prefix(start) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("expected {start:?}, the peer said {line:?}"),
        }
    }

    /// Sends a command and returns the rest of the answer, which must start with `start`.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str, start: &str) -> String {
        self.say(command);
        let line = self.hear();
        match line.strip_prefix(start) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{command:?}: expected {start:?}, the peer said {line:?}"),
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects, and the pid is that of a child not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits for the end of a process that kills itself with SIGKILL.
    #[track_caller]
    pub(crate) fn died(mut self) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None => assert!(start.elapsed() < LONG, "it lives: its step was not reached"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        // The shell that stands before an isolated process tells it in its own way.
        let killed = status.signal() == Some(libc::SIGKILL) || status.code() == Some(137);
        assert!(killed, "{status}");
    }

    /// Waits until a process has stopped itself with SIGSTOP.
    #[track_caller]
    pub(crate) fn has_stopped(&self) {
        eventually("its step", || {
            let mut status = 0;
            // SAFETY: the child was not waited for, and `status` can be written.
            let found =
                unsafe { libc::waitpid(self.pid(), &mut status, libc::WUNTRACED | libc::WNOHANG) };
            assert!(found == 0 || libc::WIFSTOPPED(status), "it ended: {status:#x}");
            found != 0
        });
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Waits for the end of a process that ends by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Ends in good order: the peer drops all it has, and must be as it was before its first call:
    /// descriptors, threads, mappings.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.say("stop");
        self.stopped();
    }

    /// After "stop" was said.
    #[track_caller]
    pub(crate) fn stopped(mut self) {
        self.expect("unchanged");
        drop(self.stdin.take());
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The error of a call that must fail with `kind`.
#[track_caller]
pub(crate) fn fails<T>(outcome: Result<T, Error>, kind: ErrorKind) -> Error {
    match outcome {
        Ok(_) => panic!("succeeded, expected {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}

/// Waits for `condition`, for as long as a shared machine may take.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
