//! Reports the deaths of other processes to waits that sleep on a semaphore and so cannot sleep on a pidfd.
//!
//! One thread polls the pidfds of all subscriptions. It starts with the first one, ends with the last one, and
//! takes no signals. It is a convenience: where anything is missing (the process is in another pid namespace,
//! the kernel has no pidfds, no descriptor or no thread is available) nothing is reported, and the periodic
//! checks find the death.

use super::process::PidFd;
use super::signals::BlockedSignals;
use super::wake_fd::WakeFd;
use super::{fork, is_this_thread};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A subscription to one death; ends when dropped.
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

/// The subscriptions, and the thread that serves them.
#[derive(Default)]
struct Registry {
    entries: Vec<Entry>,
    next: u64,
    watcher: Option<WatcherThread>,
}

struct WatcherThread {
    wake_fd: Arc<WakeFd>,
    thread: JoinHandle<()>,
}

/// This process's; a forked child begins with a new one, as the old one may have been locked.
static REGISTRY: AtomicPtr<Mutex<Registry>> = AtomicPtr::new(null_mut());

/// In the child of a fork: neither the thread nor the descriptors are here.
pub(super) fn forget() {
    REGISTRY.store(null_mut(), Ordering::Relaxed);
}

fn registry() -> &'static Mutex<Registry> {
    // Acquire: pairs with the Release below, so the mutex is complete.
    let mut found = REGISTRY.load(Ordering::Acquire);
    if found.is_null() {
        let new = Box::into_raw(Box::<Mutex<Registry>>::default());
        match REGISTRY.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
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

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscription {
    /// Calls `tell` on another thread when the process `pid` ends; at once if it has. `None` where that
    /// is not available.
    pub(crate) fn of(pid: u64, tell: impl FnOnce() + Send + 'static) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let pidfd = Arc::new(PidFd::open(pid).ok()?);
        let mut registry = lock(registry());
        if registry.watcher.is_none() {
            registry.watcher = start();
        }
        // The thread reads the list once this has released the lock. It tells nothing before, as dropping a
        // subscription takes the lock.
        registry.watcher.as_ref()?.wake_fd.ring();
        let id = registry.next;
        registry.next += 1;
        registry.entries.push(Entry { id, pidfd, tell: Box::new(tell) });
        Some(Self { id, generation: fork::generation() })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let mut registry = lock(registry());
        let withdrawn: Vec<_> =
            registry.entries.extract_if(.., |entry| entry.id == self.id).collect();
        let watcher = match registry.entries.is_empty() {
            true => registry.watcher.take(),
            false => None,
        };
        drop(registry);
        drop(withdrawn);
        if let Some(WatcherThread { wake_fd, thread }) = watcher {
            wake_fd.ring();
            // A subscription that is dropped while `tell` runs is dropped on that very thread.
            if !is_this_thread(&thread) {
                super::super::join(thread);
            }
        }
    }
}

fn start() -> Option<WatcherThread> {
    let wake_fd = Arc::new(WakeFd::new().ok()?);
    let mine = Arc::clone(&wake_fd);
    let builder = std::thread::Builder::new().name("zb-death-watch".to_owned());
    // New threads inherit the mask: signals are for the program's own threads.
    let _blocked = BlockedSignals::all();
    let thread = builder.stack_size(256 << 10).spawn(move || watch(&mine)).ok()?;
    Some(WatcherThread { wake_fd, thread })
}

/// The thread's life, until its descriptor is no longer the registered one.
fn watch(wake_fd: &Arc<WakeFd>) {
    loop {
        let watched: Vec<(u64, Arc<PidFd>)> = {
            let registry = lock(registry());
            let current = registry.watcher.as_ref();
            // Not entered yet while `start` has just made this thread: then the lock was waited for.
            if current.is_none_or(|watcher| !Arc::ptr_eq(&watcher.wake_fd, wake_fd)) {
                return;
            }
            registry.entries.iter().map(|entry| (entry.id, Arc::clone(&entry.pidfd))).collect()
        };
        let ended = await_ends(wake_fd, &watched);
        let due: Vec<Entry> = {
            let mut registry = lock(registry());
            registry.entries.extract_if(.., |entry| ended.contains(&entry.id)).collect()
        };
        drop(watched);
        due.into_iter().for_each(|entry| (entry.tell)());
    }
}

/// Sleeps until the descriptor is rung or processes end; returns which ended.
fn await_ends(wake_fd: &WakeFd, watched: &[(u64, Arc<PidFd>)]) -> Vec<u64> {
    let descriptors =
        std::iter::once(wake_fd.fd()).chain(watched.iter().map(|(_, pidfd)| pidfd.fd()));
    let mut polls: Vec<libc::pollfd> =
        descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: `polls` are so many valid pollfds, and their descriptors are open: they are held here.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) };
    if ready < 0 {
        // No memory in the kernel, or a debugger: not in a busy loop.
        super::super::sleep(std::time::Duration::from_millis(10));
        return Vec::new();
    }
    wake_fd.silence();
    let ended = polls[1..].iter().zip(watched).filter(|(poll, _)| poll.revents != 0);
    ended.map(|(_, (id, _))| *id).collect()
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

    /// In a process of its own, which has one descriptor left: for the pidfd, and none for the thread's own.
    #[test]
    fn a_wish_that_cannot_be_fulfilled_for_want_of_a_thread_or_a_bell_is_refused() {
        // What happens once in the life of a process has happened then.
        let parent = std::process::id();
        drop(PidFd::open(parent as i32).unwrap());
        // SAFETY: of what the child does, only the allocator is affected by the missing threads, and glibc
        // repairs it; the places that calls write to and read from are valid.
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
