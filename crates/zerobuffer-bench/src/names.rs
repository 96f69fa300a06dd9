//! Names for objects of one measurement, and removing what others leave under them.

use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other run and no other measurement has.
pub(crate) fn unique_name(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("zerobuffer-bench-{kind}-{}-{count}", std::process::id())
}

/// Whatever has this in its name leaves shared memory when this is dropped.
pub(crate) struct Leftovers(pub(crate) String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(&self.0) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
