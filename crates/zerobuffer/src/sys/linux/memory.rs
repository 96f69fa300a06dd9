//! How much memory this process may still take.

use super::uncancelled;
use std::fs::read_to_string;

/// Bytes that are free for this process: of the machine, or of the cgroup that has least; `None` if
/// nothing says so.
pub(crate) fn free_memory() -> Option<u64> {
    uncancelled(|| {
        let machine = read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
        let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
        let cgroups = groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            free_in_cgroup(controllers, path)
        });
        cgroups.chain(machine).min()
    })
}

/// "MemAvailable" of /proc/meminfo.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The least that a cgroup and those above it leave; version 2, or the memory controller of version 1.
fn free_in_cgroup(controllers: &str, path: &str) -> Option<u64> {
    let (root, limit, used) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        }
        _ => return None,
    };
    let number = |folder: &str, file: &str| -> Option<u64> {
        read_to_string(format!("{root}{folder}/{file}")).ok()?.trim().parse().ok()
    };
    let mut least = None;
    let mut folder = path.trim_end_matches('/');
    loop {
        // "max" is no number: no limit.
        if let (Some(limit), Some(used)) = (number(folder, limit), number(folder, used)) {
            let free = limit.saturating_sub(used);
            least = Some(least.map_or(free, |least: u64| least.min(free)));
        }
        match folder.rfind('/') {
            Some(end) => folder = &folder[..end],
            None => return least,
        }
    }
}

/// The user id that stands for everybody whom this process's user namespace does not know.
pub(crate) fn overflow_uid() -> u32 {
    let text = uncancelled(|| read_to_string("/proc/sys/kernel/overflowuid"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65534)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_in_bytes() {
        let text = "MemTotal:  8000 kB\nMemFree:  10 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(available(text), Some(4 << 20));
        assert_eq!(available("MemTotal: 8000 kB\n"), None);
        assert!(free_memory().is_some_and(|free| free > 1 << 20));
    }
}
