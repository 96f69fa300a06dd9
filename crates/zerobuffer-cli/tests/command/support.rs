//! Starting the command, and checking what it leaves behind.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;
pub(crate) use zerobuffer_test_support::eventually as until;
use zerobuffer_test_support::unique;

/// The runtime directory of this build's tests.
pub(crate) const RUNTIME: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/runtime");

/// A name of a service or channel that no other test has. At the end of the test nothing of it may be in /dev/shm,
/// and at most an empty directory in the runtime directory, which goes.
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new(what: &str) -> Self {
        Self(unique(what))
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Fails unless it is empty, or where there is none.
        let _ = std::fs::remove_dir(directory_of(&self.0));
        if !std::thread::panicking() {
            assert_eq!(in_shm(&self.0), [""; 0], "left behind in /dev/shm");
            assert_eq!(sockets(&self.0), [""; 0], "left behind in the runtime directory");
        }
    }
}

/// Where the sockets of a service are.
pub(crate) fn directory_of(name: &str) -> String {
    format!("{RUNTIME}/{name}")
}

/// The names in a service's directory.
pub(crate) fn sockets(name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory_of(name)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The names in /dev/shm, and of lock files, that belong to a channel or a version 1 buffer.
pub(crate) fn in_shm(name: &str) -> Vec<String> {
    let mut paths: Vec<String> =
        ["request-ready", "response-ready", "response-consumed", "space-available"]
            .map(|role| format!("/dev/shm/sem.sem-{role}-{name}"))
            .into();
    paths.push(format!("/dev/shm/{name}_duplex"));
    let temporary = std::env::var("TMPDIR").unwrap_or("/tmp".to_owned());
    for buffer in [name.to_owned(), format!("{name}_request"), format!("{name}_response")] {
        paths.extend([
            format!("/dev/shm/{buffer}"),
            format!("/dev/shm/sem.sem-w-{buffer}"),
            format!("/dev/shm/sem.sem-r-{buffer}"),
            format!("/tmp/zerobuffer/{buffer}.lock"),
            format!("{temporary}/zerobuffer/locks/{buffer}.lock"),
        ]);
    }
    paths.retain(|path| Path::new(path).exists());
    paths
}

pub(crate) fn zerobuffer(args: &[&str]) -> Command {
    // In the background of a script, or by `nohup`, the tests are started with signals ignored that they send.
    with_signals(&["--default-signal=HUP,INT,TERM"], args)
}

/// The command, with signals as these options of `env` say.
pub(crate) fn with_signals(signals: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(signals).arg(env!("CARGO_BIN_EXE_zerobuffer"));
    command.env("ZEROBUFFER_DIR", RUNTIME);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run of the command came to.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Ended {
    /// Standard output, if it went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.text(), self.stderr);
        self.text()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one value of JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("{error}: {:?} {:?}", self.text(), self.stderr);
        })
    }

    /// Checks that it failed in this way, and says so with these words.
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.stderr);
        assert!(self.stderr.contains(words), "no {words:?} in {:?}", self.stderr);
    }
}

pub(crate) fn run(args: &[&str]) -> Ended {
    zerobuffer(args).output().unwrap().into()
}

pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Ended {
    let mut child = zerobuffer(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap().into()
    })
}

/// Sends a few bytes, and checks what comes back.
pub(crate) fn check_call(name: &str, more: &[&str]) {
    let folder = Folder::new();
    let (input, output) = (folder.write("in", b"a request"), folder.path("out"));
    let args = ["call", name, "--raw", &input, "--out", &output, "--wait", "10"];
    run(&[&args[..], more].concat()).ok();
    assert_eq!(std::fs::read(output).unwrap(), b"a request");
}

/// Until this process has the segment of a service that it shares with its server.
pub(crate) fn until_connected(client: &Child) {
    let maps = format!("/proc/{}/maps", client.id());
    until("the client to attach", || std::fs::read_to_string(&maps).unwrap().contains("/memfd:"));
}

/// A running `serve --json`.
pub(crate) struct Served {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) greeting: Value,
}

impl Served {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let all = [&["serve", name, "--json"], args].concat();
        Self::of(zerobuffer(&all).stdin(Stdio::piped()))
    }

    /// The same, started in another way.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let greeting: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(greeting["event"], "serving", "{line}");
        Self { child, lines, greeting }
    }

    /// Sends the signal, and returns the exit code and the last words.
    pub(crate) fn stop_by(mut self, signal: &str) -> (Option<i32>, Value) {
        kill(self.child.id(), signal);
        self.farewell()
    }

    pub(crate) fn stop(self) {
        let (code, farewell) = self.stop_by("TERM");
        assert_eq!((code, &farewell["event"]), (Some(0), &Value::from("stopped")));
    }

    /// The next line that it says.
    pub(crate) fn next_line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn farewell(&mut self) -> (Option<i32>, Value) {
        let code = wait(&mut self.child);
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        (code, serde_json::from_str(&line).unwrap_or_default())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process, but not for ever.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let mut status = None;
    until("the process to end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

pub(crate) fn kill(pid: u32, signal: &str) {
    let command = format!("kill -{signal} {pid}");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
}

/// A folder that goes away with the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(file), bytes).unwrap();
        self.path(file)
    }
}

/// Bytes without a pattern that a mistake could keep.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
