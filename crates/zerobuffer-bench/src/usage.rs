//! What a process uses, and what it does, as the kernel tells.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Memory and descriptors of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Bytes; of pages that others map too, only this process's share.
    pub(crate) memory: u64,
    /// Bytes of memory that is no shared memory.
    pub(crate) private: u64,
    pub(crate) descriptors: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            memory: self.memory + other.memory,
            private: self.private + other.private,
            descriptors: self.descriptors + other.descriptors,
        }
    }
}

impl Usage {
    pub(crate) fn of_this_process() -> Result<Self> {
        Self::of(std::process::id())
    }

    pub(crate) fn of(pid: u32) -> Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let rollup = std::fs::read_to_string(directory.join("smaps_rollup"))
            .with_context(|| format!("memory of process {pid}"))?;
        let memory = kib(&rollup, "Pss:").context("no Pss in smaps_rollup")? << 10;
        Ok(Self {
            memory,
            // Kernels before 5.10 do not tell them apart.
            private: memory - (kib(&rollup, "Pss_Shmem:").unwrap_or(0) << 10).min(memory),
            descriptors: directory.join("fd").read_dir()?.count() as u64,
        })
    }
}

/// What processes do for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    /// Of one CPU, in percent.
    pub(crate) cpu: f64,
    /// How often in a second their threads went to sleep or were put aside.
    pub(crate) switches: f64,
}

impl Activity {
    /// Watches this process and `peer` for at least half a second, while this thread sleeps.
    ///
    /// To ask costs some 10 us for each thread, of this process. So CPU time is asked last before, and first after; and
    /// nothing else is asked in between: to have the kernel count memory takes milliseconds.
    pub(crate) fn with_peer(peer: u32, time: Duration) -> Result<Self> {
        let tasks = [tasks(peer)?, tasks(std::process::id())?].concat();
        let sum = |of: fn(&Path) -> u64| tasks.iter().map(|task| of(task)).sum::<u64>();
        let (switches, cpu_ns, start) = (sum(switches_of), sum(cpu_ns_of), Instant::now());
        std::thread::sleep(time.max(Duration::from_millis(500)));
        let (elapsed, cpu_ns) = (start.elapsed(), sum(cpu_ns_of).saturating_sub(cpu_ns));
        let switches = sum(switches_of).saturating_sub(switches);
        Ok(Self {
            cpu: 100.0 * cpu_ns as f64 / elapsed.as_nanos() as f64,
            switches: switches as f64 / elapsed.as_secs_f64(),
        })
    }
}

/// The folders of a process's threads.
fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = PathBuf::from(format!("/proc/{pid}/task")).read_dir()?;
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// 0 of a thread that has ended.
fn cpu_ns_of(task: &Path) -> u64 {
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn switches_of(task: &Path) -> u64 {
    let text = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    let count = |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok();
    text.lines().filter_map(count).sum()
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_descriptors() {
        let before = Usage::of_this_process().unwrap();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let after = Usage::of_this_process().unwrap();
        assert!(after.memory >= before.memory + (60 << 20), "{before:?} {after:?}");
        assert!(after.descriptors >= 1);
        drop((memory, file));
    }

    #[test]
    fn who_is_busy_is_noticed() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let is_stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
        let busy = std::thread::scope(|scope| {
            scope.spawn(|| while !is_stopped() {});
            let busy = Activity::with_peer(std::process::id(), Duration::ZERO).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            busy
        });
        // Threads of other tests may end meanwhile, and take their counts with them.
        assert!(busy.cpu > 0.0, "{busy:?}");
    }
}
