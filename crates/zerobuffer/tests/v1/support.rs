//! What the tests of version 1 share: unique names, a look at the objects behind them, and child
//! processes.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Well before what would take [`LONG`], and late enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A name that nobody else uses. When it goes, nothing of that name may be left anywhere.
pub(crate) struct Unique(String);

impl Unique {
    pub(crate) fn new(tag: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(format!("zbt-{tag}-{}-{count}", std::process::id()))
    }

    /// All files whose name holds this one.
    pub(crate) fn traces(&self) -> Vec<String> {
        lock_folders()
            .into_iter()
            .chain(["/dev/shm".to_owned()])
            .flat_map(|folder| {
                let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
                entries
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .filter(|file| file.contains(&self.0))
                    .map(|file| format!("{folder}/{file}"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Those of them that are shared memory.
    pub(crate) fn traces_in_shm(&self) -> Vec<String> {
        self.traces().into_iter().filter(|path| path.starts_with("/dev/shm/")).collect()
    }

    /// Removes the semaphores that a Python reader never removes (rule L5), and says how many.
    pub(crate) fn remove_python_semaphores(&self) -> usize {
        let semaphores =
            self.traces().into_iter().filter(|path| path.starts_with("/dev/shm/sem.sem-"));
        semaphores.map(|path| std::fs::remove_file(path).unwrap()).count()
    }
}

impl std::ops::Deref for Unique {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Unique {
    fn drop(&mut self) {
        let traces = self.traces();
        for path in &traces {
            let _ = std::fs::remove_file(path);
        }
        if !std::thread::panicking() {
            assert!(traces.is_empty(), "left behind: {traces:?}");
        }
    }
}

pub(crate) fn lock_folders() -> [String; 2] {
    let temporary = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned());
    ["/tmp/zerobuffer".to_owned(), format!("{temporary}/zerobuffer/locks")]
}

/// The fields of the header, by their offsets.
pub(crate) mod field {
    pub(crate) const SIZE_AND_VERSION: u64 = 0x00;
    pub(crate) const METADATA_SIZE: u64 = 0x08;
    pub(crate) const METADATA_FREE: u64 = 0x10;
    pub(crate) const METADATA_WRITTEN: u64 = 0x18;
    pub(crate) const PAYLOAD_SIZE: u64 = 0x20;
    pub(crate) const FREE: u64 = 0x28;
    pub(crate) const WRITE_POS: u64 = 0x30;
    pub(crate) const READ_POS: u64 = 0x38;
    pub(crate) const WRITTEN_COUNT: u64 = 0x40;
    pub(crate) const READ_COUNT: u64 = 0x48;
    pub(crate) const WRITER_PID: u64 = 0x50;
    pub(crate) const READER_PID: u64 = 0x58;
}

/// A word of a buffer's header.
pub(crate) fn peek(name: &str, field: u64) -> u64 {
    let mut word = [0; 8];
    open(name).read_exact_at(&mut word, field).unwrap();
    u64::from_le_bytes(word)
}

/// Writes a word of a buffer's header, as a broken peer would.
pub(crate) fn poke(name: &str, field: u64, value: u64) {
    open(name).write_all_at(&value.to_le_bytes(), field).unwrap();
}

/// Bytes of the ring.
pub(crate) fn ring(name: &str, position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let start = 128 + peek(name, field::METADATA_SIZE);
    open(name).read_exact_at(&mut bytes, start + position).unwrap();
    bytes
}

fn open(name: &str) -> std::fs::File {
    let path = format!("/dev/shm/{name}");
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// The file of the semaphore that counts frames (`w`) or freed space (`r`).
pub(crate) fn semaphore_path(name: &str, which: char) -> String {
    format!("/dev/shm/sem.sem-{which}-{name}")
}

/// The value of a semaphore, as it lies in its file.
pub(crate) fn tokens(name: &str, which: char) -> u32 {
    let bytes = std::fs::read(semaphore_path(name, which)).unwrap();
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

pub(crate) fn set_tokens(name: &str, which: char, value: u32) {
    let path = semaphore_path(name, which);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), 0).unwrap();
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sets a flag when it goes, also when its test fails: a thread that waits for it ends then.
pub(crate) struct StopAtEnd<'f>(pub(crate) &'f std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that depend on the frame's number, for frames of any length.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new(longest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = (0..longest + 256).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        Self(bytes.collect())
    }

    pub(crate) fn frame(&self, number: u64, len: usize) -> &[u8] {
        let start = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        &self.0[start..start + len]
    }
}

/// A sequence of numbers that two processes can repeat.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A second process that takes orders on its standard input and answers on its standard output, one
/// line each. It is killed when it goes.
pub(crate) struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, orders, answers }
    }

    /// This test program itself, in the role of `role`.
    pub(crate) fn role(role: &str, arguments: &[&str]) -> Self {
        Self::start("process::child_process", role, arguments)
    }

    /// This test program itself, in the role of a test that does nothing without arguments.
    pub(crate) fn role_of(test: &str, arguments: &[&str]) -> Self {
        Self::start(test, "", arguments)
    }

    fn start(test: &str, role: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]);
        command.env("ZEROBUFFER_TEST_ROLE", role);
        command.env("ZEROBUFFER_TEST_ARGUMENTS", arguments.join("\n"));
        Self::spawn(&mut command)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("still open");
        writeln!(orders, "{order}").unwrap();
        orders.flush().unwrap();
    }

    /// The next answer; lines of the test harness are passed over.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the peer has ended: {:?}", self.child.wait());
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn expect(&mut self, answer: &str) {
        let heard = self.hear();
        assert_eq!(heard, answer);
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the process is our child, and not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
    }

    /// Kills it, and leaves it unburied: a zombie.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        // SAFETY: an all-zero siginfo is valid, and the call fills it.
        let waited = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, self.pid(), &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        assert_eq!(waited, 0);
    }

    /// Kills it, and buries it: deployed peers take a zombie for alive.
    pub(crate) fn kill_and_bury(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it finish by itself.
    pub(crate) fn finish(mut self) {
        self.orders = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For a child process: the next order; `None` once the parent has gone.
pub(crate) fn order() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim_end().to_owned())
}

/// For a child process: an answer. The harness may have begun a line.
pub(crate) fn answer(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n> {text}").unwrap();
    out.flush().unwrap();
}
