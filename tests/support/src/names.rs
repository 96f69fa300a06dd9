//! Names of objects, and what is left of them.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// A channel name that no other test uses.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Ends in a letter, so that no name is part of another one.
    format!("zbt-{what}-{}n{count}z", std::process::id())
}

/// Where version 1's lock files are: C++ and Python look in the first one, C# in the other.
pub fn lock_folders() -> [String; 2] {
    let temporary = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned());
    ["/tmp/zerobuffer".to_owned(), format!("{temporary}/zerobuffer/locks")]
}

/// The paths of all files with `name` in their own name, in shared memory and among the lock files.
pub fn names(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["/dev/shm".to_owned()].into_iter().chain(lock_folders()) {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.extend(
            files.filter(|file| file.contains(name)).map(|file| format!("{folder}/{file}")),
        );
    }
    names.sort();
    names
}

/// Names, and this process's descriptors and mappings, of channels whose name holds `name`.
pub fn traces(name: &str) -> Vec<String> {
    let mut traces = names(name);
    let ours = descriptors().into_iter().filter(|target| target.contains(name));
    traces.extend(ours.map(|target| format!("descriptor of {target}")));
    traces.extend(mappings(name));
    traces
}

/// What this process's descriptors are open for.
pub(crate) fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

/// This process's mappings of files with `name` in their path.
pub(crate) fn mappings(name: &str) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    maps.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// The names of this process's threads.
pub(crate) fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}
