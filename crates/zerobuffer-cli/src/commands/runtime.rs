//! Where a service's sockets are (docs/protocol-service.md, section 2 "Where a service is").

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The directory in which this process's server of the service has its socket.
pub(super) fn directory_of(service: &str) -> PathBuf {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    // A process belongs to its effective user.
    let uid = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    let root = variable("ZEROBUFFER_DIR").unwrap_or_else(|| match variable("XDG_RUNTIME_DIR") {
        _ if uid == 0 => "/run/zerobuffer".to_owned(),
        Some(directory) => format!("{directory}/zerobuffer"),
        None => format!("/tmp/zerobuffer-{uid}"),
    });
    PathBuf::from(root).join(service)
}

/// Removes the service's directory, unless a server has a socket in it.
pub(super) fn remove_directory_of(service: &str) {
    let _ = std::fs::remove_dir(directory_of(service));
}

/// Removes the sockets that killed servers of the service have left. What listens is left alone.
pub(super) fn sweep(service: &str) {
    let entries = std::fs::read_dir(directory_of(service)).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        // A server's socket is of another type than this one, so a live one refuses otherwise.
        let refused = || UnixStream::connect(&path).map_err(|error| error.kind());
        if is_of_server(&path) && refused().is_err_and(|kind| kind == ErrorKind::ConnectionRefused)
        {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Whether a server made it by itself: 16 hexadecimal digits, and the ending.
fn is_of_server(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".sock").is_some_and(|id| {
        id.len() == 16 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}
