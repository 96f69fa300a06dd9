//! What channels have in shared memory.

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
