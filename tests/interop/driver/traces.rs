//! What pairs could leave behind: names, lock files, mappings, descriptors, processes.

use crate::Channel;
use crate::process::MARK;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Server, Servers, v1};

/// For a server to let go of a client that was killed, and for the ends of processes to be seen.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// Where the services of all that is started for a channel are.
pub(crate) fn runtime_directory(channel: &str) -> String {
    format!("/tmp/{channel}")
}

/// Removes what killed peers have left of a channel, as the next user of its name would.
pub(crate) fn sweep(channel: &str, kind: Channel) -> Result<()> {
    if kind == Channel::Service {
        let directory = runtime_directory(channel);
        if Servers::of(channel)?.directory(&directory).clean()? {
            std::fs::remove_dir(&directory).with_context(|| directory.clone())?;
        }
        return Ok(());
    }
    // By taking the server's place for a moment.
    Server::create(channel, BufferConfig::new(0, 64))?.stop()?;
    for buffer in ["request", "response"] {
        v1::remove_leftovers(&format!("{channel}_{buffer}"))?;
    }
    Ok(())
}

/// Fails if anything with `channel` in its name is left. What is found is removed.
pub(crate) fn check_names(channel: &str) -> Result<()> {
    let temporary = std::env::var("TMPDIR").unwrap_or_default();
    let temporary = if temporary.is_empty() { "/tmp" } else { &temporary };
    let locks = format!("{temporary}/zerobuffer/locks");
    let folders = ["/dev/shm", "/tmp", "/tmp/zerobuffer", &locks].map(Path::new);
    let mut left = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            if path.to_string_lossy().contains(channel) {
                let removed = match path.is_dir() {
                    true => std::fs::remove_dir_all(&path),
                    false => std::fs::remove_file(&path),
                };
                removed.with_context(|| path.display().to_string())?;
                left.push(path.display().to_string());
            }
        }
    }
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

/// Fails if the process still holds memory of `channel` that has no name any more.
pub(crate) fn check_let_go(pid: u32, channel: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let held = nameless(pid, channel)?;
        if held.is_empty() {
            return Ok(());
        }
        let held = held.join("\n  ");
        ensure!(
            start.elapsed() < PATIENCE,
            "the server holds on to what has no name any more:\n  {held}"
        );
        std::thread::sleep(LOOK);
    }
}

fn nameless(pid: u32, channel: &str) -> Result<Vec<String>> {
    let is_nameless = |text: &str| text.contains(channel) && text.ends_with("(deleted)");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).context("read its mappings")?;
    let mut found: Vec<String> =
        maps.lines().filter(|line| is_nameless(line)).map(str::to_owned).collect();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // It may be closed meanwhile.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if is_nameless(&target) {
            found.push(format!("descriptor of {target}"));
        }
    }
    Ok(found)
}

/// Descriptors that this process has open.
pub(crate) fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd").context("list descriptors")?.count())
}

/// Fails if this process has more descriptors than before.
pub(crate) fn check_descriptors(before: usize) -> Result<()> {
    let start = Instant::now();
    // Threads that read what peers say close their end a moment later.
    while descriptors()? > before && start.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    let open = descriptors()?;
    ensure!(open <= before, "the driver has {open} open descriptors, and had {before} before");
    Ok(())
}

/// Fails if there is a process that was started for this channel by the driver, or by what that has
/// started. What is found is killed.
pub(crate) fn check_processes(channel: &str) -> Result<()> {
    let start = Instant::now();
    let mut left = processes(channel)?;
    while !left.is_empty() && start.elapsed() < PATIENCE / 10 {
        std::thread::sleep(LOOK);
        left = processes(channel)?;
    }
    for (pid, _) in &left {
        let kill = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        ensure!(kill?.success(), "process {pid} is left and cannot be killed");
    }
    let list: Vec<_> = left.iter().map(|(pid, line)| format!("{pid} ({line})")).collect();
    ensure!(left.is_empty(), "processes were left: {}", list.join(", "));
    Ok(())
}

/// Processes with the channel in their environment, with their command lines.
fn processes(channel: &str) -> Result<Vec<(u32, String)>> {
    let mark = format!("{MARK}={channel}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_string_lossy().parse().ok() else { continue };
        // Other users' cannot be read, and any may have ended meanwhile.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
        }
    }
    Ok(found)
}
