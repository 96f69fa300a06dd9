//! What a process uses, as the kernel tells.

use anyhow::{Context, Result};
use std::path::PathBuf;

/// Memory, descriptors, CPU time and context switches of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Bytes; of pages that others map too, only this process's share.
    pub(crate) memory: u64,
    /// Bytes of memory that is no shared memory.
    pub(crate) private: u64,
    pub(crate) descriptors: u64,
    pub(crate) cpu_ns: u64,
    /// How often its threads went to sleep or were put aside.
    pub(crate) switches: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            memory: self.memory + other.memory,
            private: self.private + other.private,
            descriptors: self.descriptors + other.descriptors,
            cpu_ns: self.cpu_ns + other.cpu_ns,
            switches: self.switches + other.switches,
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
        let tasks: Vec<_> = directory.join("task").read_dir()?.collect::<Result<_, _>>()?;
        let cpu = |task: &std::fs::DirEntry| {
            // A thread that has just ended has no more say.
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        };
        let switches = |task: &std::fs::DirEntry| -> u64 {
            let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let count =
                |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok();
            text.lines().filter_map(count).sum()
        };
        let memory = kib(&rollup, "Pss:").context("no Pss in smaps_rollup")? << 10;
        Ok(Self {
            memory,
            // Kernels before 5.10 do not tell them apart.
            private: memory - (kib(&rollup, "Pss_Shmem:").unwrap_or(0) << 10).min(memory),
            descriptors: directory.join("fd").read_dir()?.count() as u64,
            cpu_ns: tasks.iter().map(cpu).sum(),
            switches: tasks.iter().map(switches).sum(),
        })
    }
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
        assert!(after.descriptors >= 1 && after.cpu_ns > 0);
        drop((memory, file));
    }
}
