//! The machine, and where the two ends sit.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::process::Command;

/// What a reader of the figures wants to know about where they come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// CPUs that this process may use.
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    /// Where client and server are pinned; `None` with a single CPU.
    pub(crate) seats: Option<Seats>,
}

/// Two CPUs that are not one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seats {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

impl Machine {
    /// This machine; `chosen` are the CPUs for client and server if the user named them.
    pub(crate) fn describe(chosen: Option<&[usize]>) -> Result<Self> {
        let usable = usable_cpus()?;
        let seats = match chosen {
            Some(&[client, server]) => {
                ensure!(client != server, "--cpus needs two different CPUs");
                for cpu in [client, server] {
                    ensure!(usable.contains(&cpu), "CPU {cpu} is not among the usable {usable:?}");
                }
                Some(Seats { client, server })
            }
            Some(_) => bail!("--cpus needs two CPUs"),
            None => choose(&usable, siblings),
        };
        let cpu = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| field(&text, "model name"))
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy().into_owned();
        Ok(Self { cpu, cpus: usable.len(), kernel, seats })
    }
}

/// The commit that this program was built from, with a mark if it was changed since.
pub(crate) fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    match git(&["rev-parse", "HEAD"]) {
        None => "unknown".to_owned(),
        Some(head) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changes) if changes.is_empty() => head,
            _ => format!("{head}-dirty"),
        },
    }
}

/// The day, in UTC.
pub(crate) fn today() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (year, month, day) = civil((since.as_secs() / 86_400) as i64);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970, by counting in years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// This thread, and those it makes, on one CPU; where it was before when this is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).with_context(|| format!("pin to CPU {cpu}"))?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// All threads of another process on one CPU; threads that it makes later inherit it.
pub(crate) fn pin_process(pid: u32, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        // A thread that has just ended needs no seat.
        let _ = sched_setaffinity(thread, &only);
    }
    Ok(())
}

/// Lets this process and its children have as many descriptors as they may.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn usable_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("ask for the usable CPUs")?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The first CPU and the first one that is not the same core; two threads of one core if there is
/// only one core.
fn choose(usable: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Option<Seats> {
    let client = *usable.first()?;
    let same_core = siblings(client);
    let others = || usable.iter().copied().filter(|cpu| *cpu != client);
    let server = others().find(|cpu| !same_core.contains(cpu)).or_else(|| others().next())?;
    Some(Seats { client, server })
}

fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map(|list| parse_list(&list)).unwrap_or_default()
}

/// Numbers as the kernel lists them: `0,64` or `0-1`.
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_get_two_cores_if_there_are_two() {
        let threads_of_a_core = |cpu: usize| vec![cpu & !1, cpu | 1];
        let seats = |usable: &[usize]| choose(usable, threads_of_a_core);
        assert_eq!(seats(&[0, 1, 2, 3]), Some(Seats { client: 0, server: 2 }));
        assert_eq!(seats(&[0, 1]), Some(Seats { client: 0, server: 1 }));
        assert_eq!(seats(&[5]), None);
        assert_eq!(seats(&[]), None);
    }

    #[test]
    fn days_have_their_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_783), (2026, 11, 26));
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(parse_list("0,64\n"), [0, 64]);
        assert_eq!(parse_list("2-4,7"), [2, 3, 4, 7]);
        assert_eq!(parse_list(""), [] as [usize; 0]);
    }
}
