//! The lock files that say that a buffer has a reader.
//!
//! C++ and Python readers lock `/tmp/zerobuffer/{name}.lock`; C# readers lock
//! `${TMPDIR:-/tmp}/zerobuffer/locks/{name}.lock`. Ours lock both (rule L1), always in this order.
//!
//! Every reader of an existing v1 program, when it starts, scans all lock files of its folder; it unlocks a file
//! that it could lock *before* it deletes it, and by then the file may belong to another process. Hence
//! the care below: a new file is locked before it gets its name, a file's name is compared with the
//! open file after locking, and nothing here ever ends in `.lock` but a lock (rule L7).

use crate::error::{Error, Medium, Result};
use crate::name::BufferName;
use crate::sys::{self, Errno, Identity, LockFile, Place};
use std::time::Duration;

/// A lock that is held may be a scanning reader's for a moment: ask again after this (rule L3).
const PAUSE: Duration = Duration::from_millis(5);
const TRIES: u32 = 10;
/// Peers lock a file as soon as they have made it. One that is older, and not locked, was left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Both lock files of one buffer, held until dropped.
#[derive(Debug)]
pub(super) struct Locks {
    held: Vec<LockGuard>,
}

/// One lock file, locked.
#[derive(Debug)]
struct LockGuard {
    path: String,
    identity: Identity,
    /// It was there before, left over by a reader that has ended.
    found: bool,
    fork_generation: u32,
    /// The lock lives as long as the file is open. A forked child closes its copy at birth, and the
    /// descriptor is not inherited by programs (rules L15 and P5).
    _file: LockFile,
}

fn folders() -> [String; 2] {
    let temporary = std::env::var("TMPDIR").ok().filter(|path| !path.is_empty());
    let temporary = temporary.as_deref().unwrap_or("/tmp").trim_end_matches('/');
    ["/tmp/zerobuffer".to_owned(), format!("{temporary}/zerobuffer/locks")]
}

fn path(folder: &str, name: &BufferName) -> String {
    format!("{folder}/{name}.lock")
}

/// Whether somebody holds one of the buffer's locks at this moment.
pub(super) fn is_held(name: &BufferName) -> bool {
    folders().iter().any(|folder| {
        LockFile::open_to_probe(&path(folder, name))
            .and_then(|file| file.is_free())
            .is_ok_and(|free| !free)
    })
}

/// Removes lock files of readers that were killed, if nobody has used their names for long and nothing else
/// is left of them: `is_in_use` says whether something is (rule L6).
///
/// Peers scan one of the folders only, so the file in the other one would stay for ever, unless a reader
/// of the same name comes.
pub(super) fn remove_abandoned(is_in_use: impl Fn(&BufferName) -> bool) {
    for folder in folders() {
        for file in sys::old_empty_files(&folder, ABANDONED) {
            let name = file.strip_suffix(".lock").and_then(|stem| BufferName::new(stem).ok());
            let Some(name) = name.filter(|name| !is_in_use(name)) else { continue };
            let path = path(&folder, &name);
            let locked = LockFile::open(&path).and_then(|file| LockGuard::lock(file, &path, true));
            let Ok(Some(mut held)) = locked else { continue };
            // A process that uses the name now had the lock meanwhile.
            if is_in_use(&name) {
                held.leave();
            }
        }
    }
}

impl Locks {
    /// Takes both locks, the first one in any case, the second unless its folder is out of reach.
    ///
    /// # Errors
    /// `AlreadyRunning` if somebody holds one of them; `PermissionDenied`; `NoSpace`; `System`.
    pub(super) fn acquire(name: &BufferName, mode: u32) -> Result<Self> {
        let [common, csharp] = folders();
        let mut locks = Self { held: vec![LockGuard::acquire(&common, name, mode)?] };
        match LockGuard::acquire(&csharp, name, mode) {
            Ok(held) => locks.held.push(held),
            // Wherever TMPDIR points: a C# peer of ours could not lock there either.
            Err(error) if sys::has_no_folder(&error) => {}
            Err(error) => {
                locks.release();
                return Err(error);
            }
        }
        Ok(locks)
    }

    /// Whether one of the files was left over by a reader that has ended.
    pub(super) fn were_left_over(&self) -> bool {
        self.held.iter().any(|held| held.found)
    }

    /// Whether the paths still stand for the files that are locked.
    pub(super) fn are_in_place(&self) -> bool {
        self.held.iter().all(LockGuard::is_in_place)
    }

    /// Lets go without deleting what was there before: it says that somebody else's objects may still
    /// have to be looked after (rule L6).
    pub(super) fn release(mut self) {
        self.held.iter_mut().filter(|held| held.found).for_each(LockGuard::leave);
    }
}

impl LockGuard {
    fn acquire(folder: &str, name: &BufferName, mode: u32) -> Result<Self> {
        let path = path(folder, name);
        let place = Place::Folder(folder);
        sys::make_directories(folder).map_err(|errno| errno.making("create", folder, 0, place))?;
        for turn in 0..TRIES {
            if turn > 0 {
                crate::sys::sleep(PAUSE);
            }
            let tried = Self::try_acquire(folder, &path, mode);
            if let Some(held) = tried.map_err(|errno| errno.making("lock", &path, 0, place))? {
                return Ok(held);
            }
        }
        Err(Error::AlreadyRunning { medium: Medium::Buffer, name: name.to_string() })
    }

    /// `None` if the lock is held, or the file went away meanwhile.
    fn try_acquire(
        folder: &str,
        path: &str,
        mode: u32,
    ) -> std::result::Result<Option<Self>, Errno> {
        match sys::if_there(LockFile::open(path))? {
            Some(file) => Self::lock(file, path, true),
            None => Self::lock(LockFile::create_hidden(folder, mode)?, path, false),
        }
    }

    /// Locks a file that was found under `path`, or one that is to get this name. A lock on a file that
    /// was deleted meanwhile would keep nobody out (rule L3).
    fn lock(
        mut file: LockFile,
        path: &str,
        found: bool,
    ) -> std::result::Result<Option<Self>, Errno> {
        if !file.try_lock()? {
            return Ok(None);
        }
        // Before it gets its name: what fails from then on is undone by `LockGuard`.
        let identity = file.stat()?.identity;
        if !found && !sys::unless_taken(file.link(path))? {
            return Ok(None);
        }
        let held = Self {
            path: path.to_owned(),
            identity,
            found,
            fork_generation: sys::fork_generation(),
            _file: file,
        };
        Ok(held.is_in_place().then_some(held))
    }

    /// Lets the file stay.
    fn leave(&mut self) {
        // Nothing stands for no path, so drop deletes nothing.
        self.path.clear();
    }

    fn is_in_place(&self) -> bool {
        let found = sys::stat_path(&self.path);
        found.is_ok_and(|found| found.is_some_and(|stat| stat.identity == self.identity))
    }
}

impl Drop for LockGuard {
    /// The path goes while the lock is still held (rule L4).
    fn drop(&mut self) {
        if self.fork_generation == sys::fork_generation() && self.is_in_place() {
            let _ = sys::unlink_path(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn unique() -> BufferName {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        BufferName::new(&format!("locks-{}-{count}", std::process::id())).unwrap()
    }

    fn paths(name: &BufferName) -> [String; 2] {
        folders().map(|folder| path(&folder, name))
    }

    fn exist(name: &BufferName) -> [bool; 2] {
        paths(name).map(|path| std::fs::exists(path).unwrap())
    }

    /// Rule L1: both families of peers find the buffer locked, and both files go in the end.
    #[test]
    fn l1_both_lock_files_are_held_for_life() {
        let name = unique();
        assert!(!is_held(&name));
        let locks = Locks::acquire(&name, 0o600).unwrap();
        assert!(is_held(&name) && locks.are_in_place() && !locks.were_left_over());
        for path in paths(&name) {
            assert!(!LockFile::open(&path).unwrap().try_lock().unwrap(), "{path}");
        }
        let error = Locks::acquire(&name, 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
        assert!(locks.are_in_place());
        drop(locks);
        assert_eq!(exist(&name), [false, false]);
    }

    /// Rule L1: each lock alone keeps a second reader out, and its try leaves no trace.
    #[test]
    fn l1_one_foreign_lock_is_enough_to_be_refused() {
        for foreign in 0..2 {
            let name = unique();
            drop(Locks::acquire(&name, 0o600).unwrap());
            let path = &paths(&name)[foreign];
            std::fs::write(path, "").unwrap();
            let file = LockFile::open(path).unwrap();
            assert!(file.try_lock().unwrap());
            let error = Locks::acquire(&name, 0o600).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
            assert_eq!(exist(&name), [foreign == 0, foreign == 1]);
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Rule L3: a lock that a scanner holds for a moment is waited for, and a file that was deleted
    /// after it was opened is not taken for a lock.
    #[test]
    fn l3_a_scanner_that_locks_unlocks_and_deletes_is_survived() {
        let name = unique();
        drop(Locks::acquire(&name, 0o600).unwrap());
        let path = paths(&name)[0].clone();
        std::fs::write(&path, "").unwrap();
        let scanner = LockFile::open(&path).unwrap();
        assert!(scanner.try_lock().unwrap());
        let scan = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3);
            drop(scanner);
            std::fs::remove_file(&path).unwrap();
        });
        // Either it finds the file unlocked before it is deleted, and notices in `are_in_place`, or
        // it makes a new one.
        let locks = Locks::acquire(&name, 0o600).unwrap();
        scan.join().unwrap();
        assert!(locks.are_in_place() || locks.were_left_over());
        drop(locks);
        assert_eq!(exist(&name), [false, false]);
    }

    /// Rule L3: a file that was deleted between opening and locking is no lock.
    #[test]
    fn l3_a_deleted_file_is_not_taken_for_a_lock() {
        let name = unique();
        drop(Locks::acquire(&name, 0o600).unwrap());
        let path = &paths(&name)[0];
        std::fs::write(path, "").unwrap();
        let file = LockFile::open(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(LockGuard::lock(file, path, true).unwrap().is_none());
        std::fs::write(path, "").unwrap();
        let file = LockFile::open(path).unwrap();
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, "another's").unwrap();
        assert!(LockGuard::lock(file, path, true).unwrap().is_none());
        assert_eq!(std::fs::read(path).unwrap(), b"another's");
        std::fs::remove_file(path).unwrap();
    }

    /// Rule L6: what was there before is left where it is when the buffer turns out to be in use.
    #[test]
    fn l6_releasing_leaves_the_files_of_others() {
        let name = unique();
        drop(Locks::acquire(&name, 0o600).unwrap());
        let [common, _] = paths(&name);
        std::fs::write(&common, "").unwrap();
        let locks = Locks::acquire(&name, 0o600).unwrap();
        assert!(locks.were_left_over());
        locks.release();
        assert_eq!(exist(&name), [true, false]);
        std::fs::remove_file(common).unwrap();
    }

    /// Rule L6: a killed reader's lock file does not stay for ever, and no other file goes.
    #[test]
    fn l6_abandoned_lock_files_go_and_nothing_else_does() {
        let make = |folder: &str, name: &str, text: &str, age: Duration| {
            let path = format!("{folder}/{name}");
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
            path
        };
        let old = ABANDONED * 2;
        for folder in folders() {
            sys::make_directories(&folder).unwrap();
            let names: [BufferName; 6] = std::array::from_fn(|_| unique());
            let [gone, used, held, young, full, other] = &names;
            // Readers that others make meanwhile look at these files, too.
            let object = format!("/dev/shm/{used}");
            std::fs::write(&object, "").unwrap();
            let lock = |name: &BufferName| format!("{name}.lock");
            let gone = make(&folder, &lock(gone), "", old);
            let stay = [
                make(&folder, &lock(used), "", old),
                make(&folder, &lock(held), "", old),
                make(&folder, &lock(young), "", ABANDONED / 2),
                make(&folder, &lock(full), "text", old),
                make(&folder, &format!("{other}.text"), "", old),
            ];
            let lock = LockFile::open(&stay[1]).unwrap();
            assert!(lock.try_lock().unwrap());
            remove_abandoned(|name| name == used || !names.contains(name));
            let there = |path: &String| std::fs::exists(path).unwrap();
            assert!(!there(&gone));
            assert!(stay.iter().all(there), "{stay:?}");
            // Came into use while it was being locked.
            let looks = AtomicU32::new(0);
            remove_abandoned(|name| name != used || looks.fetch_add(1, Ordering::Relaxed) > 0);
            assert!(there(&stay[0]) && looks.into_inner() == 2);
            std::fs::remove_file(object).unwrap();
            stay.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
    }

    /// Rule L7: whatever stands in the lock folders for a moment does not end in `.lock` before it is
    /// locked. A file without a name stands nowhere; the name of the fall-back is checked here.
    #[test]
    fn l7_no_helper_file_ends_in_lock() {
        let [folder, _] = folders();
        sys::make_directories(&folder).unwrap();
        let mut file = LockFile::create_hidden(&folder, 0o600).unwrap();
        let visible = || {
            let mine = format!(".new-{}", std::process::id());
            let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with(&mine)).count()
        };
        assert_eq!(visible(), 0);
        let path = format!("{folder}/.{}.new", unique());
        file.link(&path).unwrap();
        assert_eq!(file.link(&path), Err(Errno(libc::EEXIST)));
        std::fs::remove_file(path).unwrap();
    }
}
