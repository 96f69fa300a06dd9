//! Every system call fails with every error that its manual names, one at a time: the outcome is a
//! typed error that names the object and the operation, or nothing at all; everything is undone; and
//! the same operation works afterwards. An interruption (EINTR) is never seen.

mod in_place;
mod service;
mod two_buffers;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zerobuffer::faults::{Fault, Struck, with_fault, with_fault_in};
use zerobuffer::{Error, ErrorKind};
use zerobuffer_test_support::{Census, names, unique, with_mount};

/// For what succeeds at once on an idle machine.
const LONG: Duration = Duration::from_secs(20);
/// No call with a fault inside takes longer than this, whatever its own deadline says.
const HANG: Duration = Duration::from_secs(30);

/// One run of an operation with one fault in it.
struct Run<'n> {
    name: &'n str,
    /// The thread of the library's own that meets it; the calling one if it is empty.
    thread: &'static str,
    /// What the library has of the system, by the name.
    take: fn(&str) -> Census,
    at: usize,
    choice: usize,
    lasting: bool,
    /// The fault, once it has struck.
    struck: Option<Fault>,
    /// The most calls that one operation made.
    calls: usize,
    errors: u32,
}

impl Run<'_> {
    /// The operation, which must be undone if it fails.
    #[track_caller]
    fn undone<T>(&mut self, operation: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let before = self.census();
        let outcome = self.typed(operation);
        if outcome.is_err() {
            before.check_unchanged(|| self.census(), &self.describe());
        }
        outcome
    }

    fn census(&self) -> Census {
        (self.take)(self.name)
    }

    /// The operation, which fails with an error that says what and where, or not at all.
    #[track_caller]
    fn typed<T>(&mut self, operation: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let start = Instant::now();
        let (at, choice, lasting) = (self.at, self.choice, self.lasting);
        let (outcome, struck) = match self.thread {
            "" => with_fault(at, choice, lasting, operation),
            thread => with_fault_in(thread, at, choice, lasting, operation),
        };
        assert!(start.elapsed() < HANG, "{}: took {:?}", self.describe(), start.elapsed());
        self.struck = self.struck.or(struck.fault);
        self.calls = self.calls.max(struck.calls);
        if let Err(error) = &outcome {
            assert!(self.struck.is_some(), "failed without a fault: {error:?}");
            self.check(error);
            self.errors += 1;
        }
        outcome
    }

    /// An operation that has no way to fail.
    #[track_caller]
    fn silent(&mut self, operation: impl FnOnce()) {
        let outcome = self.typed(|| {
            operation();
            Ok(())
        });
        outcome.expect("it cannot fail");
    }

    #[track_caller]
    fn check(&self, error: &Error) {
        let described = self.describe();
        let fault = self.struck.expect("struck");
        assert_ne!(fault.errno, libc::EINTR, "{described}: seen as {error}");
        let says_which = match error {
            Error::System { object, operation, errno } => {
                !operation.is_empty() && object.contains(self.name) && *errno == fault.errno
                    || object.contains("zerobuffer")
            }
            Error::PermissionDenied { object, operation, .. } => {
                !operation.is_empty()
                    && (object.contains(self.name) || object.contains("zerobuffer"))
            }
            Error::NoSpace { object, reason, .. } => {
                (object.contains(self.name) || object.contains("zerobuffer")) && !reason.is_empty()
            }
            Error::ForeignObject { object, .. } => object.contains(self.name),
            Error::NotRunning { name, .. }
            | Error::Busy { name, .. }
            | Error::AlreadyRunning { name, .. } => name.contains(self.name),
            Error::Unsupported { .. } => fault.errno == libc::ENOSYS,
            Error::Timeout { .. } | Error::NotConnectedYet { .. } => true,
            // What is no memfd has no seals.
            Error::ProtocolViolation { .. } => {
                fault == Fault { call: "fcntl", errno: libc::EINVAL }
            }
            // Of services: what the other side says, or did.
            Error::Explained { message, .. } => message.contains(self.name),
            Error::PeerClosed { .. } | Error::PeerDied { .. } => {
                !self.thread.is_empty() || ["send", "recv", "recvmsg"].contains(&fault.call)
            }
            _ => false,
        };
        assert!(says_which, "{described}: {error:?}");
    }

    fn describe(&self) -> String {
        let lasting = if self.lasting { " from there on" } else { "" };
        match self.struck {
            Some(Fault { call, errno }) => {
                let error = std::io::Error::from_raw_os_error(errno);
                format!("call {} ({call}) fails{lasting}: {error}", self.at)
            }
            None => format!("no fault at call {}", self.at),
        }
    }
}

/// Waits until the thread of a server that was started can be counted: it gives itself its name.
fn await_thread() {
    let threads = || std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let is_named = || {
        let names = threads().map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.flatten().any(|name| name.starts_with("zerobuffer-"))
    };
    while !is_named() {
        std::thread::yield_now();
    }
}

/// One test at a time: each counts what the process has.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `operation` with each fault in turn until no call is left that could fail.
#[track_caller]
fn every_fault(what: &str, operation: impl Fn(&mut Run<'_>)) {
    every_fault_in(what, "", Census::of_library, |_| (), |run, ()| operation(run));
}

/// As [`every_fault`], next to something that lives through all of them.
#[track_caller]
fn every_fault_beside<L>(
    what: &str,
    living: impl Fn(&str) -> L,
    operation: impl Fn(&mut Run<'_>, &L),
) {
    let take = |name: &str| Census::of_library(name).without_pidfds();
    every_fault_in(what, "", take, living, operation);
}

/// As [`every_fault_beside`], in a thread of the library's own unless `thread` is empty, and with what is to be undone
/// as `take` sees it.
#[track_caller]
fn every_fault_in<L>(
    what: &str,
    thread: &'static str,
    take: fn(&str) -> Census,
    living: impl Fn(&str) -> L,
    operation: impl Fn(&mut Run<'_>, &L),
) {
    let _alone = alone();
    let start = Instant::now();
    let (mut faults, mut errors) = (0, 0);
    let name = unique(what);
    let living = living(&name);
    let operation = |run: &mut Run<'_>| operation(run, &living);
    for lasting in [false, true] {
        let (mut at, mut choice) = (0, 0);
        loop {
            let (struck, calls) = (None, 0);
            let run =
                Run { name: &name, thread, take, at, choice, lasting, struck, calls, errors: 0 };
            let run = one_run(run, &operation);
            if run.struck.is_some() {
                (faults, errors, choice) = (faults + 1, errors + run.errors, choice + 1);
            } else if run.calls > at {
                (at, choice) = (at + 1, 0);
            } else {
                break;
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    println!("{what}: {faults} faults, {errors} of them seen as errors, in {took:.1} s");
    assert!(faults > 0 && (errors > 0 || what.ends_with("quiet")), "{what}: nothing is ever seen");
}

fn one_run<'n>(mut run: Run<'n>, operation: &impl Fn(&mut Run<'_>)) -> Run<'n> {
    let before = run.census();
    operation(&mut run);
    before.check_unchanged(|| run.census(), &format!("{}, at the end", run.describe()));
    run
}

#[test]
fn bad_names_are_refused_before_any_system_call() {
    let long = "x".repeat(246);
    for name in ["", ".", "..", "a/b", "a\0b", &long] {
        let (refused, Struck { calls, .. }) = with_fault(0, 0, false, || {
            let v1 = zerobuffer::v1::Reader::create(name, zerobuffer::BufferConfig::default());
            let errors = [
                zerobuffer::Server::create(name, zerobuffer::BufferConfig::default()).err(),
                zerobuffer::Client::connect(name, LONG).err(),
                v1.err(),
                zerobuffer::v1::Writer::connect(name, LONG).err(),
            ];
            errors.into_iter().all(|error| error.is_some_and(|e| e.kind() == ErrorKind::BadName))
        });
        assert!(refused && calls == 0, "{name:?}: {calls} system calls");
    }
}

/// An older kernel lets only the privileged do it in the other way, and says that nothing is there.
#[test]
fn without_proc_and_without_the_other_way_it_says_what_is_missing() {
    let _alone = alone();
    with_mount("no /proc, on an older kernel", "/proc", "size=4k", || {
        let name = unique("proc");
        let create =
            || zerobuffer::Server::create(&name, zerobuffer::BufferConfig::default()).err();
        let refused = Some(Fault { call: "linkat", errno: libc::ENOENT });
        let (mut refusals, mut at) = (0, 0);
        loop {
            let runs: Vec<_> =
                (0..30).map(|choice| with_fault(at, choice, false, create)).collect();
            if runs.iter().all(|(_, struck)| struck.fault.is_none()) {
                break;
            }
            let errors = runs.into_iter().filter(|(_, struck)| struck.fault == refused);
            for error in errors.filter_map(|(error, _)| error) {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("/proc"), "{error}");
                refusals += 1;
            }
            assert_eq!(names(&name), [""; 0]);
            at += 1;
        }
        // The segment and four semaphores; again where the run before could not remove them.
        assert!(refusals >= 5, "{refusals}");
    });
}

/// The counterpart is in the tests that are built for release: those builds hold nothing of this.
#[test]
fn this_build_holds_faults() {
    assert!(zerobuffer_trust::holds_faults());
}
