//! What both kinds of victims have in common.

use crate::{in_place, two_buffers};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zerobuffer::{Error, ErrorKind, WaitStrategy};
use zerobuffer_test_support::{Census, Rng, say};

/// For what succeeds at once on an idle machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// By so much a call may outlive its deadline on a machine with other things to do.
const GRACE: Duration = Duration::from_secs(5);

/// Becomes the victim that `description` asks for.
pub(crate) fn run(description: &str) {
    let words: Vec<&str> = description.split(' ').collect();
    let &[role, kind, name, seed] = words.as_slice() else { panic!("{description}") };
    let seed: u64 = seed.parse().expect("a seed");
    // A thread of the library that panics must not go unnoticed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let before = Census::of_process("/dev/shm");
    let said = match (role, kind) {
        ("server", "in-place") => in_place::serve(name, seed),
        ("client", "in-place") => in_place::call(name, seed),
        ("server", "two-buffers") => two_buffers::serve(name, seed),
        ("client", "two-buffers") => two_buffers::call(name, seed),
        _ => panic!("{description}"),
    };
    // Names of the other side are there still; descriptors, mappings and threads are counted.
    before.check_unchanged(|| Census::of_process("/dev/shm"), role);
    say(&format!("unchanged {said}"));
}

/// Waits for a command from the test; the end of the input is one, too.
pub(crate) fn await_command(command: &str) {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).expect("stdin");
    if read == 0 {
        std::process::exit(1);
    }
    assert_eq!(line.trim(), command);
}

/// Set when the test wants a victim to come to rest.
pub(crate) fn flag_at(command: &'static str) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    std::thread::spawn(move || {
        await_command(command);
        shared.store(true, Ordering::Relaxed);
    });
    flag
}

pub(crate) fn strategy(rng: &mut Rng) -> WaitStrategy {
    match rng.below(4) {
        0 => WaitStrategy::Spin,
        1 => WaitStrategy::Park,
        _ => WaitStrategy::SpinThenPark,
    }
}

/// What calls came to, and how late the latest was.
#[derive(Default)]
pub(crate) struct Account {
    met: Mutex<BTreeMap<String, u64>>,
    latest: Mutex<Duration>,
}

impl Account {
    /// Makes a call that must be back by its deadline, with a response or with an error that a bad peer
    /// explains.
    #[track_caller]
    pub(crate) fn bounded<T>(
        &self,
        what: &str,
        timeout: Duration,
        call: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let outcome = call();
        let late = start.elapsed().saturating_sub(timeout);
        assert!(late < GRACE, "{what} was back {late:?} after its deadline of {timeout:?}");
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = late.max(*latest);
        match &outcome {
            Ok(_) => self.count("answers"),
            Err(error) => {
                assert!(may_be_met(error.kind()), "{what}: {error:?}");
                self.count(&format!("{:?}", error.kind()));
            }
        }
        outcome
    }

    pub(crate) fn count(&self, what: &str) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        *met.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn describe(&self) -> String {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{met:?}, at most {latest:?} after a deadline")
    }
}

/// The errors that a bad peer explains.
fn may_be_met(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ProtocolViolation
            | ErrorKind::Incompatible
            | ErrorKind::Timeout
            | ErrorKind::Full
            | ErrorKind::PeerClosed
            | ErrorKind::PeerDied
            | ErrorKind::HandlerFailed
            | ErrorKind::NotRunning
            | ErrorKind::Busy
            | ErrorKind::UnknownSequence
            // By a falsified size of the block for metadata.
            | ErrorKind::TooLarge
            // Version 1.
            | ErrorKind::SequenceGap
            | ErrorKind::SequenceUnknown
            | ErrorKind::Desynchronised
            | ErrorKind::NotConnectedYet
            | ErrorKind::WouldNeverFit
            | ErrorKind::MetadataAlreadyWritten
    )
}

/// Touches every byte, as a handler does.
pub(crate) fn invert(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

/// Reads every byte, as a user of a response does.
pub(crate) fn read(bytes: &[u8]) -> u64 {
    std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum())
}
