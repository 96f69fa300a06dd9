//! Another process, and the line by line conversation with it.

use crate::sleeper::expect_naps;
use crate::{LONG, eventually};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// What a peer's own lines begin with; others are the program's own.
const MARK: &str = "> ";

/// For a child process: says a line to the test.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // In one piece, and flushed: the next thing may be a kill.
    let _ = out.write_all(format!("{MARK}{line}\n").as_bytes());
    let _ = out.flush();
}

/// For a child process: the test's commands, until the test has ended.
pub fn commands() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map_while(Result::ok)
}

/// A child process. It ends with the thread that made it, and when it is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Peer {
    /// Starts a program that speaks like this.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: prctl is async-signal-safe, and touches nothing of the parent's.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let spawned = command.spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(MARK) {
                    let _ = sender.send(said.trim_end().to_owned());
                }
            }
        });
        Self { stdin: child.stdin.take(), child, lines }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a command.
    ///
    /// # Panics
    /// If nobody reads it.
    #[track_caller]
    pub fn say(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().expect("the conversation is open");
        writeln!(stdin, "{command}").expect("the peer listens");
    }

    /// The next line from the peer, if there is one already.
    pub fn heard(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// The next line from the peer; `None` if it ends before.
    pub fn hear_or_end(&mut self) -> Option<String> {
        self.lines.recv_timeout(LONG * 5).ok()
    }

    /// The next line from the peer.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        match self.lines.recv_timeout(LONG * 5) {
            Ok(line) => line,
            Err(end) => panic!("the peer said nothing: {end}, {:?}", self.child.try_wait()),
        }
    }

    /// The rest of the next line, which must start with `start`.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    pub fn expect(&mut self, start: &str) -> String {
        let line = self.hear();
        match line.strip_prefix(start) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("expected {start:?}, the peer said {line:?}"),
        }
    }

    /// Sends a command and returns the rest of the answer, which must start with `start`.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    pub fn ask(&mut self, command: &str, start: &str) -> String {
        let line = self.reply(command);
        match line.strip_prefix(start) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{command:?}: expected {start:?}, the peer said {line:?}"),
        }
    }

    /// Sends a command and returns the answer.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn reply(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }

    /// Sends a command and returns the answer; `None` if the peer has ended, or ends before.
    pub fn reply_or_end(&mut self, command: &str) -> Option<String> {
        let stdin = self.stdin.as_mut()?;
        writeln!(stdin, "{command}").ok()?;
        self.hear_or_end()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If that is not possible.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects, and the pid is that of a child not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits until its first thread has gone to sleep so many times from now on, between the polls of a
    /// call.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn expect_naps(&self, count: u64) {
        expect_naps(&format!("/proc/{0}/task/{0}", self.pid()), count);
    }

    /// Lets a stopped process go on.
    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    /// SIGKILL, and waits until the process no longer exists.
    pub fn kill(mut self) {
        self.kill_and_bury();
    }

    /// The same, of a process that is asked about afterwards.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn kill_and_bury(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGKILL, and leaves it unburied: a zombie.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn kill_unburied(&mut self) {
        self.child.kill().expect("a child can be killed");
        // SAFETY: an all-zero siginfo is valid, and the call fills it.
        let waited = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, self.child.id(), &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        assert_eq!(waited, 0);
    }

    /// Waits for the end of a process that kills itself with SIGKILL.
    ///
    /// # Panics
    /// If it ends in another way, or not at all.
    #[track_caller]
    pub fn died(mut self) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None => assert!(start.elapsed() < LONG, "it lives: its step was not reached"),
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        // The shell that stands before an isolated process tells it in its own way.
        let killed = status.signal() == Some(libc::SIGKILL) || status.code() == Some(137);
        assert!(killed, "{status}");
    }

    /// Stops the process, and waits until none of its threads runs any more; [`Peer::go_on`] lets them.
    ///
    /// # Panics
    /// If it ends, or does not stop.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        self.has_stopped();
    }

    /// Waits until a process has stopped itself with SIGSTOP.
    ///
    /// # Panics
    /// If it ends, or does not stop.
    #[track_caller]
    pub fn has_stopped(&self) {
        eventually("its step", || self.is_stopped());
    }

    /// Whether the process has stopped since this was asked last.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn is_stopped(&self) -> bool {
        let mut status = 0;
        // SAFETY: the child was not waited for, and `status` can be written.
        let found =
            unsafe { libc::waitpid(self.pid(), &mut status, libc::WUNTRACED | libc::WNOHANG) };
        assert!(found == 0 || libc::WIFSTOPPED(status), "it ended: {status:#x}");
        found != 0
    }

    /// Fails if the process has ended.
    ///
    /// # Panics
    /// With how it ended.
    #[track_caller]
    pub fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("it has ended: {status}");
        }
    }

    /// Waits for the end of a process that ends by itself.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Ends the conversation; the process must end well.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn finish(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}");
    }

    /// Ends cleanly: the peer drops all it has, and must be as it was before its first call:
    /// descriptors, threads, mappings.
    ///
    /// # Panics
    /// If anything is left.
    #[track_caller]
    pub fn stop(mut self) {
        self.say("stop");
        self.stopped();
    }

    /// After "stop" was said.
    ///
    /// # Panics
    /// If anything is left.
    #[track_caller]
    pub fn stopped(mut self) {
        self.expect("unchanged");
        self.finish();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs what follows in a pid namespace and a mount namespace of its own, with an empty /tmp; /dev/shm is
/// shared. A shell is the first process there, as nobody can kill that one from inside. It opens the program
/// before, which may lie in the /tmp that is hidden then.
pub fn isolation(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--propagation", "private"]);
    command
        .args(["sh", "-c"])
        .arg("exec 9< \"$0\" && mount -t tmpfs none /tmp && /proc/self/fd/9 \"$@\"; exit $?")
        .arg(program);
    command
}

/// Why children cannot be isolated here, if they cannot.
pub fn no_isolation() -> Option<String> {
    let output = isolation(Path::new("/bin/true")).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}
