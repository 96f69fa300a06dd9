//! Shared memory must be after the tests as it was before.

use crate::run::not_run;
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where the library makes files, as the user root, and the rights there.
const FOLDERS: [(&str, u32); 3] =
    [("/dev/shm", 0o1777), ("/tmp/zerobuffer", 0o1777), (SERVICES, 0o700)];
const SERVICES: &str = "/run/zerobuffer";

/// The folders at one moment.
pub(crate) struct Snapshot {
    names: BTreeSet<String>,
    /// No other program sees these folders, so whatever is new there is the tests' own.
    private: bool,
}

impl Snapshot {
    /// To be called while this process has one thread. As root, this process and its children get
    /// folders of their own from here on, so that other programs may do what they like meanwhile.
    pub(crate) fn take() -> Result<Self> {
        let private = nix::unistd::geteuid().is_root() && own_folders();
        if !private {
            let why = "no right to mount; a run that is interrupted may leave objects there";
            not_run("/dev/shm, /tmp/zerobuffer and /run/zerobuffer for the tests alone", why)?;
        }
        Ok(Self { names: names()?, private })
    }

    /// Fails if there are objects of the library that were not there before. Processes that were just
    /// killed have some seconds to go.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let mut left = self.new_names()?;
        for _ in 0..50 {
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            left.retain(|name| Path::new(name).exists());
        }
        ensure!(left.is_empty(), "the tests left behind: {}", left.join(", "));
        println!("nothing is left in /dev/shm, and no socket of a service");
        Ok(())
    }

    fn new_names(&self) -> Result<Vec<String>> {
        let mut new: Vec<_> = names()?.difference(&self.names).cloned().collect();
        new.retain(|name| self.private || is_of_library(name));
        Ok(new)
    }
}

/// Marks the process that runs the steps.
const INSIDE: &str = "ZEROBUFFER_XTASK_INSIDE";

/// Runs this program again, and ends as that one does; returns at once there. The first one is not ended by
/// Ctrl-C, which ends everything that the second one has started: it removes what that leaves, or says so. What
/// is mounted goes with the processes that see it.
pub(crate) fn outlive_interruption() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    extern "C" fn go_on(_: i32) {}
    let missing = FOLDERS.map(|(folder, _)| folder).into_iter();
    let missing: Vec<_> = missing.filter(|folder| !Path::new(folder).exists()).collect();
    let before = names()?;
    // SAFETY: the handler does nothing, and a new program begins without it.
    unsafe { signal(Signal::SIGINT, SigHandler::Handler(go_on)) }?;
    let mut again = Command::new(std::env::current_exe()?);
    let status = again.args(std::env::args_os().skip(1)).env(INSIDE, "1").status()?;
    for folder in missing {
        // Made for a mount: a folder that is in use is not empty.
        let _ = std::fs::remove_dir(folder);
    }
    if status.code().is_none() {
        let mut left: Vec<_> = names()?.difference(&before).cloned().collect();
        left.retain(|name| is_of_library(name));
        eprintln!("interrupted ({status}); in shared memory since then: {left:?}");
    }
    std::process::exit(status.code().unwrap_or(1));
}

/// Mounts empty folders over [`FOLDERS`], for this process and its children only. False if the system
/// does not allow it, as in many containers.
fn own_folders() -> bool {
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let alone =
        unshare(CloneFlags::CLONE_NEWNS).and_then(|()| mount(none, "/", none, private, none));
    let empty = |(folder, mode): (&str, u32)| {
        if std::fs::create_dir(folder).is_ok() {
            // As the library makes it.
            let _ = std::fs::set_permissions(folder, Permissions::from_mode(mode));
        }
        let mode = format!("mode={mode:o}");
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(mode.as_str()))
    };
    alone.is_ok() && FOLDERS.into_iter().all(|folder| empty(folder).is_ok())
}

/// The paths of everything in shared memory, and of the sockets of services. A service leaves its folder, empty.
fn names() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    // The tests check lock files themselves: one of a killed reader may stay for an hour.
    let folder = Path::new(FOLDERS[0].0);
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        names.insert(entry?.path().display().to_string());
    }
    // There may be none, or one that this user must not read.
    let services = Path::new(SERVICES).read_dir().into_iter().flatten().flatten();
    for socket in services.filter_map(|service| service.path().read_dir().ok()).flatten() {
        names.insert(socket?.path().display().to_string());
    }
    Ok(names)
}

/// Whether an object has a name that the library gives. The name of a version 1 buffer is its user's
/// choice, but the library never leaves one without its semaphores.
fn is_of_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.ends_with("_duplex") || name.starts_with("sem.sem-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_other_programs_are_no_leftovers_and_those_of_the_library_are() {
        let snapshot = Snapshot { names: names().unwrap(), private: false };
        let unique = format!("xtask-{}", std::process::id());
        let foreign = format!("/dev/shm/{unique}-of-a-browser");
        let ours = format!("/dev/shm/sem.sem-w-{unique}");
        for file in [&foreign, &ours] {
            std::fs::write(file, "").unwrap();
        }
        let left = snapshot.new_names().unwrap();
        for file in [&foreign, &ours] {
            std::fs::remove_file(file).unwrap();
        }
        assert!(left.contains(&ours) && !left.contains(&foreign), "{left:?}");
    }
}
