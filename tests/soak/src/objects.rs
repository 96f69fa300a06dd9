//! What channels have in shared memory, and services in their directories.

use std::path::Path;

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

/// The sockets of the service `name` below `directory`. One of a process that was killed before it had its name
/// is not counted: for a minute it could be that of one that starts.
pub(crate) fn sockets(directory: &Path, name: &str) -> Vec<String> {
    let entries = directory.join(name).read_dir().into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|socket| !socket.ends_with(".new")).collect()
}
