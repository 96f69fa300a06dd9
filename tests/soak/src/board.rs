//! A file that all processes of a lane map: what was killed when, and which requests a handler has seen.
//! What a process stores here survives its kill.
#![allow(unsafe_code)]

use anyhow::{Context, Result};
use memmap2::MmapRaw;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of the board.
const SERVER_LIFE: usize = 0;
const ANSWERED: usize = 1;
const CLIENT_END: usize = 2;
const BEGINS: usize = 64;
const KILLS: usize = BEGINS + LIVES;
const STOPS: usize = KILLS + LIVES;
const JOURNAL: usize = STOPS + LIVES;
/// How many servers back a client may be connected to.
const LIVES: usize = 256;
/// How many clients there may be at the same time, with numbers that differ by less.
pub(crate) const CLIENTS: usize = 4;
/// How many requests of one client may be undecided.
const REQUESTS: usize = 1 << 14;

/// Where a request's id has the number of its client.
pub(crate) const LIFE_SHIFT: u32 = 28;

/// How often a handler has begun, and ended, to work on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handled {
    pub(crate) begun: u8,
    pub(crate) ended: u8,
}

#[derive(Debug)]
pub(crate) struct Board {
    map: MmapRaw,
}

impl Board {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len((JOURNAL + CLIENTS * REQUESTS) as u64 * 8)?;
        Ok(Self { map: MmapRaw::map_raw(&file)? })
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::options().read(true).write(true).open(path);
        Ok(Self { map: MmapRaw::map_raw(&file.context("the lane's board")?)? })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.map.len() / 8);
        // SAFETY: inside of the mapping, which starts at a page and lives as long as `self`; all
        // processes access it through atomics only.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }

    fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    // ---- lives ----

    /// The number of the latest server.
    pub(crate) fn server_life(&self) -> u64 {
        self.load(SERVER_LIFE)
    }

    /// A server is about to be started.
    pub(crate) fn begin_server(&self, life: u64, now: u64) {
        self.store(BEGINS + life as usize % LIVES, now);
        self.store(KILLS + life as usize % LIVES, 0);
        self.store(STOPS + life as usize % LIVES, 0);
        self.store(SERVER_LIFE, life);
    }

    /// A server is about to be killed.
    pub(crate) fn kill_server(&self, life: u64, now: u64) {
        self.store(KILLS + life as usize % LIVES, now);
    }

    /// A server is about to be stopped cleanly.
    pub(crate) fn stop_server(&self, life: u64, now: u64) {
        self.store(STOPS + life as usize % LIVES, now);
    }

    /// When the server was killed; 0 if it was not.
    pub(crate) fn killed_at(&self, life: u64) -> u64 {
        self.load(KILLS + life as usize % LIVES)
    }

    /// When the server was stopped cleanly; 0 if it was not.
    pub(crate) fn stopped_at(&self, life: u64) -> u64 {
        self.load(STOPS + life as usize % LIVES)
    }

    /// For how long, in nanoseconds, there have been servers from `since` to `until`, the time of each counted.
    pub(crate) fn served(&self, since: u64, until: u64) -> u64 {
        let latest = self.server_life();
        let lives = latest.saturating_sub(LIVES as u64 - 1).max(1)..=latest;
        let time = |life: u64| {
            let ends = [self.killed_at(life), self.stopped_at(life)];
            let end = ends.into_iter().filter(|at| *at > 0).min().unwrap_or(until);
            let begin = self.load(BEGINS + life as usize % LIVES);
            end.min(until).saturating_sub(begin.max(since))
        };
        lives.map(time).sum()
    }

    /// When the latest client was killed or stopped.
    pub(crate) fn client_end(&self) -> u64 {
        self.load(CLIENT_END)
    }

    pub(crate) fn end_client(&self, now: u64) {
        self.store(CLIENT_END, now);
    }

    // ---- progress ----

    pub(crate) fn count_answer(&self) {
        self.word(ANSWERED).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) -> u64 {
        self.load(ANSWERED)
    }

    // ---- the journal ----
    // One word for each request: 48 bits of its id, how often it was begun, how often ended.

    fn entry(&self, id: u64) -> &AtomicU64 {
        let client = (id >> LIFE_SHIFT) as usize % CLIENTS;
        self.word(JOURNAL + client * REQUESTS + id as usize % REQUESTS)
    }

    /// Called by the client before it sends a new request.
    pub(crate) fn enter(&self, id: u64) {
        self.entry(id).store(id << 16, Ordering::SeqCst);
    }

    /// Called by the handler first of all. False: the client has long given this request up.
    pub(crate) fn begin(&self, id: u64) -> bool {
        self.add(id, 1 << 8)
    }

    /// Called by the handler last of all.
    pub(crate) fn end(&self, id: u64) {
        self.add(id, 1);
    }

    fn add(&self, id: u64, amount: u64) -> bool {
        let mine = |word: u64| (word >> 16 == id).then_some(word + amount);
        self.entry(id).fetch_update(Ordering::SeqCst, Ordering::SeqCst, mine).is_ok()
    }

    /// What handlers did with the request.
    pub(crate) fn handled(&self, id: u64) -> Handled {
        let word = self.entry(id).load(Ordering::SeqCst);
        assert_eq!(word >> 16, id, "the journal has forgotten a request that is undecided");
        Handled { begun: (word >> 8) as u8, ended: word as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_count_for_the_time_in_which_they_were_there() {
        let path = std::env::temp_dir().join(format!("zb-board-{}", std::process::id()));
        let board = Board::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(board.served(0, 100), 0, "none has begun");
        board.begin_server(1, 10);
        board.begin_server(2, 40);
        assert_eq!(board.served(20, 100), 80 + 60);
        board.kill_server(1, 50);
        board.stop_server(2, 60);
        assert_eq!(board.served(20, 100), 30 + 20);
        assert_eq!(board.served(70, 100), 0, "all have ended");
    }
}
