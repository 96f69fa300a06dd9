//! Debian packages that the tests need, installed where that is possible.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Installs Debian packages, which takes root and apt-get; says which are missing otherwise.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    let advice = format!("please install: apt-get install {}", packages.join(" "));
    println!("installing {}", packages.join(" "));
    // A list of packages that is out of date is worth a try; a failure shows in the next step.
    let _ = apt_get(&["update", "-qq"]).status();
    let status = apt_get(&["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .status()
        .with_context(|| format!("there is no apt-get; {advice}"))?;
    ensure!(status.success(), "apt-get failed ({status}); {advice}");
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
