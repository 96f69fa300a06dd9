//! What a process has of the operating system, to be the same at its end as at its beginning.

use crate::eventually;
use crate::names::{descriptors, mappings, names, threads};
use std::fs;
use std::time::Duration;

/// A list of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census(Vec<String>);

impl Census {
    /// As [`Census::of_process`], for a process that has only begun: after what the first use of threads makes and
    /// keeps, so that nothing but what comes later makes a difference.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn at_start(name: &str) -> Self {
        let before = threads().len();
        std::thread::spawn(|| {}).join().expect("a thread ends");
        // The kernel lists a thread a moment longer than one waits for its end, under its parent's name.
        eventually("the end of a thread", || threads().len() == before);
        Self::of_process(name)
    }

    /// Every descriptor and thread of this process, and its mappings of channels whose name holds `name`.
    pub fn of_process(name: &str) -> Self {
        // The descriptors by which one looks at this are none that stay.
        let stays = |target: &String| !target.starts_with("/proc/");
        let descriptors = descriptors().into_iter().filter(stays);
        // What loses its name stays the same file.
        let descriptors =
            descriptors.map(|target| target.trim_end_matches(" (deleted)").to_owned());
        Self::of(descriptors, mappings(name), threads())
    }

    /// What the library has in this process, which does other things meanwhile; of names only those that
    /// hold `name`.
    pub fn of_library(name: &str) -> Self {
        let is_ours = |target: &String| {
            let ours =
                ["/dev/shm", "/zerobuffer", "pidfd"].iter().any(|ours| target.contains(ours));
            ours && !target.contains("/target/")
        };
        let descriptors = descriptors().into_iter().filter(is_ours);
        let threads = threads().into_iter().filter(|thread| thread.starts_with("zerobuffer-"));
        let Self(mut found) = Self::of(descriptors, mappings("/dev/shm"), threads);
        found.extend(names(name).iter().map(|path| format!("name {path}")));
        Self(found)
    }

    /// What services have in this process, and their sockets in the runtime directory `directory`.
    pub fn of_services(directory: &str) -> Self {
        let kinds = ["socket:", "/memfd:", "eventfd", "eventpoll", "inotify", directory];
        let is_ours = |target: &String| kinds.iter().any(|kind| target.contains(kind));
        let descriptors = descriptors().into_iter().filter(is_ours);
        let is_one =
            |thread: &String| ["zerobuffer-", "zb-"].iter().any(|one| thread.starts_with(one));
        let threads = threads().into_iter().filter(is_one);
        let Self(mut found) = Self::of(descriptors, mappings("/memfd:zerobuffer-"), threads);
        let services = fs::read_dir(directory).into_iter().flatten().flatten();
        let sockets = services.flat_map(|service| fs::read_dir(service.path())).flatten().flatten();
        found.extend(sockets.map(|socket| format!("name {}", socket.path().display())));
        Self(found)
    }

    fn of(
        descriptors: impl Iterator<Item = String>,
        mappings: Vec<String>,
        threads: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut found: Vec<_> =
            descriptors.map(|target| format!("descriptor of {target}")).collect();
        found.extend(threads.into_iter().map(|thread| format!("thread {thread}")));
        found.extend(mappings);
        found.sort();
        Self(found)
    }

    /// Without pidfds, next to something in this process that opens one when it likes.
    #[must_use]
    pub fn without_pidfds(mut self) -> Self {
        self.0.retain(|what| !what.contains("pidfd"));
        self
    }

    /// What is different now, if anything is. Threads and children of other tests take a moment to end,
    /// so it is taken again until it equals `self`, for two seconds.
    pub fn changes(&self, take: impl Fn() -> Self) -> Option<String> {
        let mut now = take();
        for _ in 0..400 {
            if *self == now {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
            now = take();
        }
        let Self(before) = self;
        let came: Vec<_> = now.0.iter().filter(|what| !before.contains(what)).collect();
        let went: Vec<_> = before.iter().filter(|what| !now.0.contains(what)).collect();
        Some(format!("came: {came:?}, went: {went:?}, {} were {}", now.0.len(), before.len()))
    }

    /// Fails if it does not become as it was.
    ///
    /// # Panics
    /// With what has changed.
    #[track_caller]
    pub fn check_unchanged(&self, take: impl Fn() -> Self, when: &str) {
        if let Some(changes) = self.changes(take) {
            panic!("{when}: not as before: {changes}");
        }
    }
}
