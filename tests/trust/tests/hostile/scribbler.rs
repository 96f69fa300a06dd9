//! The hostile process.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use zerobuffer_test_support::Rng;

/// Writes into everything of the channel `name` until the time comes, calling `look` now and then.
/// Returns how many words were written.
pub(crate) fn scribble(
    kind: &str,
    name: &str,
    seed: u64,
    until: Instant,
    mut look: impl FnMut(),
) -> u64 {
    let mut rng = Rng(seed);
    let mut written = 0;
    while Instant::now() < until {
        look();
        let targets = targets(kind, name);
        // The objects are replaced all the time: not for long.
        for _ in 0..1 + rng.below(4) {
            written += spell(kind, &targets, &mut rng);
        }
        std::thread::sleep(Duration::from_micros(rng.below(12_000) as u64));
    }
    last_blow(kind, name, &mut rng);
    written
}

/// How the scribbling ends: every second time with a word that the server writes once, which nobody sets
/// right by working on.
fn last_blow(kind: &str, name: &str, rng: &mut Rng) {
    let targets = targets(kind, name);
    let segments = targets.iter().filter(|target| !target.is_semaphore());
    if rng.below(2) == 0
        && let Some(requests) = segments.clone().next()
    {
        let fixed = [0, 0x08, 0x20];
        let word = fixed[rng.below(fixed.len())];
        requests.write(word, value(requests.read(word), rng));
    }
    if kind == "two-buffers" {
        // Version 1 knows its peers by nothing but these words: the id of some living process keeps the
        // writer's place for as long as that lives, and there is no remedy but a restart.
        segments.for_each(|target| target.write(WRITER_PID_OF_VERSION_1, 0));
    }
}

const WRITER_PID_OF_VERSION_1: usize = 0x50;

/// What there is of the channel at this moment.
fn targets(kind: &str, name: &str) -> Vec<Target> {
    let semaphore = |which: &str| format!("sem.sem-{which}-{name}");
    let files = match kind {
        "in-place" => vec![
            format!("{name}_duplex"),
            semaphore("request-ready"),
            semaphore("response-ready"),
            semaphore("response-consumed"),
            semaphore("space-available"),
        ],
        _ => ["request", "response"]
            .into_iter()
            .flat_map(|part| {
                let semaphores = ["w", "r"].map(|which| format!("sem.sem-{which}-{name}_{part}"));
                [vec![format!("{name}_{part}")], semaphores.into()].concat()
            })
            .collect(),
    };
    files.iter().filter_map(|file| Target::open(&format!("/dev/shm/{file}"))).collect()
}

/// One object, mapped.
struct Target {
    base: *mut u8,
    len: usize,
}

impl Target {
    fn open(path: &str) -> Option<Self> {
        let file = File::options().read(true).write(true).open(path).ok()?;
        let len = file.metadata().ok()?.len() as usize;
        if len < 32 {
            return None;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so no existing mapping is touched; the file is open.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        (base != libc::MAP_FAILED).then_some(Self { base: base.cast(), len })
    }

    fn is_semaphore(&self) -> bool {
        self.len == 32
    }

    fn read(&self, offset: usize) -> u64 {
        assert!(offset + 8 <= self.len);
        // SAFETY: the bytes lie inside of the mapping; they may change at any time.
        unsafe { self.base.add(offset).cast::<u64>().read_volatile_unaligned() }
    }

    fn write(&self, offset: usize, value: u64) {
        assert!(offset + 8 <= self.len);
        // SAFETY: as in `read`.
        unsafe { self.base.add(offset).cast::<u64>().write_volatile_unaligned(value) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, which nothing else refers to.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Volatile accesses at any address, byte by byte where it must be.
trait Unaligned {
    unsafe fn read_volatile_unaligned(self) -> u64;
    unsafe fn write_volatile_unaligned(self, value: u64);
}

impl Unaligned for *mut u64 {
    unsafe fn read_volatile_unaligned(self) -> u64 {
        if self.is_aligned() {
            // SAFETY: the caller's.
            return unsafe { self.read_volatile() };
        }
        // SAFETY: the caller's.
        let bytes = (0..8).map(|n| unsafe { self.cast::<u8>().add(n).read_volatile() });
        bytes.rev().fold(0, |word, byte| word << 8 | u64::from(byte))
    }

    unsafe fn write_volatile_unaligned(self, value: u64) {
        if self.is_aligned() {
            // SAFETY: the caller's.
            return unsafe { self.write_volatile(value) };
        }
        for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { self.cast::<u8>().add(n).write_volatile(byte) };
        }
    }
}

/// Some time of one kind of evil.
fn spell(kind: &str, targets: &[Target], rng: &mut Rng) -> u64 {
    let segments: Vec<&Target> = targets.iter().filter(|t| !t.is_semaphore()).collect();
    let semaphores: Vec<&Target> = targets.iter().filter(|t| t.is_semaphore()).collect();
    let evil = rng.below(8);
    let of = if evil == 7 { &semaphores } else { &segments };
    if of.is_empty() {
        return 0;
    }
    let target = of[rng.below(of.len())];
    let (once, place) = (rng.below(2) == 0, place(kind, target, evil, rng));
    let value = value(target.read(place), rng);
    let mut written = 0;
    let end = Instant::now() + Duration::from_micros(1 + rng.below(2000) as u64);
    loop {
        match evil {
            // One value in one place, for as long as it lasts or once.
            0..=3 | 7 => target.write(place, value),
            // Other values in one place.
            4 => target.write(place, self::value(target.read(place), rng)),
            // Anything anywhere.
            _ => {
                let place = self::place(kind, target, rng.below(7), rng);
                target.write(place, self::value(target.read(place), rng));
            }
        }
        written += 1;
        if once && evil < 5 || Instant::now() >= end {
            return written;
        }
    }
}

/// A word worth writing to.
fn place(kind: &str, target: &Target, evil: usize, rng: &mut Rng) -> usize {
    let header = if kind == "in-place" { 176 } else { 128 };
    let metadata = header + 8 * rng.below(2);
    let ring = if kind == "in-place" { 4096 } else { 128 + 256 };
    if target.is_semaphore() {
        return 8 * rng.below(4);
    }
    let place = match evil {
        0 | 1 => match 8 * rng.below(header / 8) {
            // Sizes and version: every attempt to attach fails on them, and nothing else would be
            // tried. Not as often as their share.
            offset if offset % 88 < 0x28 && rng.below(8) > 0 => 0x28 + offset,
            offset => offset,
        },
        2 => metadata,
        // Headers of frames: on lines in place, anywhere with two buffers.
        3 if kind == "in-place" => ring + 64 * rng.below(64) + 8 * rng.below(4),
        3 => ring + rng.below(2000),
        _ => rng.below(target.len / 8) * 8,
    };
    place.min(target.len - 8)
}

/// A value worth writing in the place of `old`.
fn value(old: u64, rng: &mut Rng) -> u64 {
    let chosen = [
        0,
        1,
        2,
        31,
        64,
        88,
        128,
        4096,
        u64::MAX,
        1 << 63,
        i64::MAX as u64,
        u64::from(u32::MAX),
        1 << 32,
        u64::from(std::process::id()),
    ];
    match rng.below(9) {
        0..=2 => chosen[rng.below(chosen.len())],
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old ^ 1 << rng.below(64),
        // Another phase of the same sequence, if it is a state.
        6 => old & !0xff | rng.below(7) as u64,
        // The next sequences in the phases that they may have.
        7 => (old >> 8).wrapping_add(rng.below(3) as u64) << 8 | rng.below(6) as u64,
        _ => rng.next_word(),
    }
}
