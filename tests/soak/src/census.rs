//! What a process has of the operating system, to be the same at its end as at its beginning.

use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    descriptors: usize,
    threads: usize,
    /// Of the channels under test.
    mappings: usize,
}

impl Census {
    /// Of this process; `name` is a part of the channels' names.
    pub(crate) fn take(name: &str) -> Self {
        let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            mappings: maps.lines().filter(|line| line.contains(name)).count(),
        }
    }

    /// What is different now, if anything is; threads may take a moment to be gone from /proc.
    pub(crate) fn changes(&self, name: &str) -> Option<String> {
        let mut now = Self::take(name);
        for _ in 0..400 {
            if *self == now {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
            now = Self::take(name);
        }
        Some(format!("{self:?} has become {now:?}"))
    }
}

/// The names in /dev/shm that belong to channel `name`.
pub(crate) fn names(name: &str) -> Vec<String> {
    let ends = [format!("-{name}"), format!("{name}_duplex")];
    let entries = std::fs::read_dir("/dev/shm").map(|entries| entries.flatten().collect());
    let entries: Vec<std::fs::DirEntry> = entries.unwrap_or_default();
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|file| ends.iter().any(|end| file.ends_with(end))).collect()
}

/// The semaphore of `name` with the most tokens: its file and its value.
pub(crate) fn fullest_semaphore(name: &str) -> Option<(String, u32)> {
    let value = |file: String| {
        let bytes = std::fs::read(format!("/dev/shm/{file}")).ok()?;
        Some((file, u32::from_le_bytes(*bytes.first_chunk()?)))
    };
    let semaphores = names(name).into_iter().filter(|file| file.starts_with("sem."));
    semaphores.filter_map(value).max_by_key(|(_, tokens)| *tokens)
}
