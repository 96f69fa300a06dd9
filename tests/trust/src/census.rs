//! What a process has of the operating system on behalf of the library.

use std::fs;

/// Names, descriptors, mappings and threads that belong to channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census(Vec<String>);

impl Census {
    /// Counts what there is now; of names only those that hold `name`.
    pub fn take(name: &str) -> Self {
        let mut found: Vec<_> = names(name).iter().map(|path| format!("name {path}")).collect();
        found.extend(descriptors());
        found.extend(mappings());
        found.extend(threads());
        found.sort();
        Self(found)
    }

    /// As [`Census::take`], next to something in this process that opens a pidfd when it likes.
    pub fn take_beside(name: &str) -> Self {
        let Self(mut found) = Self::take(name);
        found.retain(|what| !what.contains("pidfd"));
        Self(found)
    }

    /// Descriptors, mappings and threads only.
    pub fn without_names(self) -> Self {
        Self(self.0.into_iter().filter(|what| !what.starts_with("name ")).collect())
    }

    /// Takes it again until it equals `self`; threads and children of other tests take a moment to be
    /// gone. Fails with both lists otherwise.
    #[track_caller]
    pub fn check_unchanged(&self, take: impl Fn() -> Self, when: &str) {
        let mut now = take();
        for _ in 0..400 {
            if *self == now {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            now = take();
        }
        panic!("{when}: not as before\nbefore: {:#?}\nnow: {:#?}", self.0, now.0);
    }
}

/// The names that hold `name` in /dev/shm and in the lock folders.
pub fn names(name: &str) -> Vec<String> {
    let temporary = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned());
    let folders = ["/dev/shm", "/tmp/zerobuffer", &format!("{temporary}/zerobuffer/locks")];
    let mut names = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.extend(
            files.filter(|file| file.contains(name)).map(|file| format!("{folder}/{file}")),
        );
    }
    names
}

fn descriptors() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    targets
        .filter(|target| {
            ["/dev/shm", "/zerobuffer", "pidfd"].iter().any(|ours| target.contains(ours))
        })
        .filter(|target| !target.contains("/target/"))
}

fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let ours = maps.lines().filter(|line| line.contains("/dev/shm"));
    ours.map(str::to_owned).collect()
}

fn threads() -> impl Iterator<Item = String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("zerobuffer-"))
}
