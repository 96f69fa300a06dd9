//! What a peer can leave in shared memory, met by the library as it is shipped, through its public
//! interface: each target takes any bytes and must come to an end without a panic.

mod attach;
mod packets;
mod server;
mod service;
mod version_1;

use std::sync::{Mutex, PoisonError};
use zerobuffer::{ChannelName, ErrorKind, v1};

/// What a target does with any bytes.
pub type Target = fn(&[u8]);

/// All targets, by their names.
pub const TARGETS: [(&str, Target); 8] = [
    ("names", names),
    ("attach", attach::run),
    ("server", server::run),
    ("hello", service::hello),
    ("reply", service::reply),
    ("status", service::status),
    ("v1-writer", version_1::writer),
    ("v1-reader", version_1::reader),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(found, _)| *found == name).map(|(_, target)| *target)
}

/// Names that are accepted stay within the grammar, whatever they are.
fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match ChannelName::new(&text) {
        Ok(name) => {
            let object = name.segment();
            let (slash, rest) = object.split_at(1);
            assert!(slash == "/" && !rest.starts_with('.') && rest.len() <= 255);
            assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::BadName),
    }
    match v1::is_duplex_server_running(&text) {
        Ok(_) => assert!(!text.contains(['/', '\0']) && text.len() <= 245),
        Err(error) => assert_eq!(error.kind(), ErrorKind::BadName),
    }
}

/// A name of this process's own.
fn own_name(what: &str) -> String {
    format!("fuzz-{what}-{}z", std::process::id())
}

/// Paths that go with the process.
static PATHS: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn remove_paths() {
    for path in PATHS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
    }
}

/// Removes `files` in /dev/shm when the process ends.
fn remove_at_exit(files: &[String]) {
    files.iter().for_each(|file| remove_at_exit_all(&format!("/dev/shm/{file}")));
}

/// Removes a file, or a directory with all that is in it, when the process ends.
fn remove_at_exit_all(path: &str) {
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    if paths.is_empty() {
        // SAFETY: the function touches nothing but a static that is never dropped.
        unsafe { libc::atexit(remove_paths) };
    }
    paths.push(path.to_owned());
}

/// The bytes of an input, taken from its front as numbers.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    /// The next byte; 0 at the end.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
