//! Tells of the deaths of other processes, for those who sleep on a semaphore and so cannot sleep on a
//! pidfd.
//!
//! One thread polls the pidfds of all that are to be told. It is made when the first one asks, ends with
//! the last one, and takes no signals. All of this is a convenience: where anything is missing (the
//! process is in another pid namespace, the kernel has no pidfds, there is no descriptor or no thread to
//! be had) nobody is told, and finds out by looking now and then.

use super::fork::Descriptor;
use super::process::PidFd;
use super::signals::BlockedSignals;
use super::{fork, is_this_thread, kernel, last_errno, uncancelled};
use crate::sys::Errno;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The wish to be told of one death; ends when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u64,
    generation: u32,
}

struct Entry {
    id: u64,
    pidfd: Arc<PidFd>,
    tell: Box<dyn FnOnce() + Send>,
}

/// Who is to be told, and the thread that does it.
#[derive(Default)]
struct Registry {
    entries: Vec<Entry>,
    next: u64,
    teller: Option<WatcherThread>,
}

struct WatcherThread {
    bell: Arc<WakeFd>,
    thread: JoinHandle<()>,
}

/// This process's; a forked child begins with a new one, as the old one may have been locked.
static WISHES: AtomicPtr<Mutex<Registry>> = AtomicPtr::new(null_mut());

/// In the child of a fork: neither the thread nor the descriptors are here.
pub(super) fn forget() {
    WISHES.store(null_mut(), Ordering::Relaxed);
}

fn wishes() -> &'static Mutex<Registry> {
    // Acquire: pairs with the Release below, so the mutex is complete.
    let mut found = WISHES.load(Ordering::Acquire);
    if found.is_null() {
        let new = Box::into_raw(Box::<Mutex<Registry>>::default());
        match WISHES.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => found = new,
            Err(faster) => {
                found = faster;
                // SAFETY: `new` came from a box just now, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
    // SAFETY: the pointer came from a box that is never freed once it is published.
    unsafe { &*found }
}

fn lock(wishes: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    wishes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscription {
    /// Calls `tell` on another thread when the process `pid` ends; at once if it has. `None` where that
    /// is not to be had.
    pub(crate) fn of(pid: u64, tell: impl FnOnce() + Send + 'static) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let pidfd = Arc::new(PidFd::open(pid).ok()?);
        let mut wishes = lock(wishes());
        if wishes.teller.is_none() {
            wishes.teller = start();
        }
        // It looks once this has let go of the lock. There is no notice before: to drop one takes the lock.
        wishes.teller.as_ref()?.bell.ring();
        let id = wishes.next;
        wishes.next += 1;
        wishes.entries.push(Entry { id, pidfd, tell: Box::new(tell) });
        Some(Self { id, generation: fork::generation() })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let mut wishes = lock(wishes());
        let withdrawn: Vec<_> =
            wishes.entries.extract_if(.., |entry| entry.id == self.id).collect();
        let teller = match wishes.entries.is_empty() {
            true => wishes.teller.take(),
            false => None,
        };
        drop(wishes);
        drop(withdrawn);
        if let Some(WatcherThread { bell, thread }) = teller {
            bell.ring();
            // Whoever drops this while being told is on that very thread.
            if !is_this_thread(&thread) {
                super::super::join(thread);
            }
        }
    }
}

fn start() -> Option<WatcherThread> {
    let bell = Arc::new(WakeFd::new().ok()?);
    let mine = Arc::clone(&bell);
    let builder = std::thread::Builder::new().name("zb-death-watch".to_owned());
    // New threads inherit the mask: signals are for the program's own threads.
    let _blocked = BlockedSignals::all();
    let thread = builder.stack_size(256 << 10).spawn(move || watch(&mine)).ok()?;
    Some(WatcherThread { bell, thread })
}

/// The thread's life, until its bell is no longer the one that is rung.
fn watch(bell: &Arc<WakeFd>) {
    loop {
        let watched: Vec<(u64, Arc<PidFd>)> = {
            let wishes = lock(wishes());
            let current = wishes.teller.as_ref();
            // Not entered yet while `start` has just made this thread: then the lock was waited for.
            if current.is_none_or(|teller| !Arc::ptr_eq(&teller.bell, bell)) {
                return;
            }
            wishes.entries.iter().map(|entry| (entry.id, Arc::clone(&entry.pidfd))).collect()
        };
        let ended = await_ends(bell, &watched);
        let due: Vec<Entry> = {
            let mut wishes = lock(wishes());
            wishes.entries.extract_if(.., |entry| ended.contains(&entry.id)).collect()
        };
        drop(watched);
        due.into_iter().for_each(|entry| (entry.tell)());
    }
}

/// Sleeps until the bell rings or processes end; which.
fn await_ends(bell: &WakeFd, watched: &[(u64, Arc<PidFd>)]) -> Vec<u64> {
    let descriptors =
        std::iter::once(bell.file.fd()).chain(watched.iter().map(|(_, pidfd)| pidfd.fd()));
    let mut polls: Vec<libc::pollfd> =
        descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polls` are so many valid pollfds, and their descriptors are open: they are held here.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) };
    if ready < 0 {
        // No memory in the kernel, or a debugger: not in a busy loop.
        super::super::sleep(std::time::Duration::from_millis(10));
        return Vec::new();
    }
    bell.silence();
    let ended = polls[1..].iter().zip(watched).filter(|(poll, _)| poll.revents != 0);
    ended.map(|(_, (id, _))| *id).collect()
}

/// Wakes the thread: an eventfd.
#[derive(Debug)]
struct WakeFd {
    file: Descriptor,
}

impl WakeFd {
    fn new() -> Result<Self, Errno> {
        let file = Descriptor::open(|| {
            kernel::call("eventfd", || {
                // SAFETY: eventfd takes two integers and touches no memory of ours.
                let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
                if fd < 0 { Err(last_errno()) } else { Ok(fd) }
            })
        })?;
        Ok(Self { file })
    }

    fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight bytes that can be read. It fails only if the bell rings already.
        uncancelled(|| unsafe { libc::write(self.file.fd(), one.as_ptr().cast(), one.len()) });
    }

    fn silence(&self) {
        let mut rings = [0_u8; 8];
        // SAFETY: eight bytes that can be written. It fails only if the bell is silent.
        unsafe { libc::read(self.file.fd(), rings.as_mut_ptr().cast(), rings.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_death_is_told_once_and_to_those_who_asked() {
        let (mut first, mut second) = (sleeper(), sleeper());
        let (told, tells) = channel();
        let wish = |name: &'static str, child: &Child| {
            let told = told.clone();
            Subscription::of(child.id().into(), move || told.send(name).unwrap()).unwrap()
        };
        let kept = [wish("first", &first), wish("second", &second), wish("first", &first)];
        drop(wish("withdrawn", &first));
        first.kill().unwrap();
        for _ in 0..2 {
            assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok("first"));
        }
        assert!(tells.recv_timeout(Duration::from_millis(20)).is_err());
        second.kill().unwrap();
        assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok("second"));
        // Who asks later is told at once: a zombie is dead.
        let late = wish("late", &second);
        assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok("late"));
        drop((kept, late));
        first.wait().unwrap();
        second.wait().unwrap();
        assert!(
            Subscription::of(0, || ()).is_none() && Subscription::of(u64::MAX, || ()).is_none()
        );
    }

    /// In a process of its own, which has one descriptor left: for the pidfd, and none for the bell.
    #[test]
    fn a_wish_that_cannot_be_fulfilled_for_want_of_a_thread_or_a_bell_is_refused() {
        // What happens once in the life of a process has happened then.
        let parent = std::process::id();
        drop(PidFd::open(parent as i32).unwrap());
        // SAFETY: of what the child does, only the allocator minds that other threads are gone, and glibc
        // puts that right; the places that calls write to and read from are valid.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::alarm(30);
                let last = libc::dup(0);
                libc::close(last);
                let limit = last as libc::rlim_t + 1;
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
                let refused = || Subscription::of(parent.into(), || ()).is_none();
                let has_pidfd = PidFd::open(parent as i32).is_ok();
                libc::_exit(i32::from(!(has_pidfd && refused() && refused())));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert_eq!(status, 0, "SIGALRM says that the child waited for itself");
    }

    #[test]
    fn a_wish_can_end_on_the_thread_that_fulfils_it() {
        let mut child = sleeper();
        let (told, tells) = channel();
        let slot: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let own = Arc::clone(&slot);
        let tell = move || {
            drop(own.lock().unwrap().take());
            told.send(()).unwrap();
        };
        *slot.lock().unwrap() = Subscription::of(child.id().into(), tell);
        child.kill().unwrap();
        assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok(()));
        child.wait().unwrap();
    }
}
