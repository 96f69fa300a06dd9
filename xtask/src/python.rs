//! Virtual environments of Python; first of all the one with the existing package of version 1.

use crate::packages::apt_install;
use crate::run::root;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 2] = ["zerobuffer-ipc==1.3.0", "posix-ipc==1.3.2"];

/// Whether the package is there and can do atomic additions; without libatomic it loses bytes of its
/// account under load, which would be counted against us.
const CHECK: &str = "import zerobuffer, zerobuffer.oieb_view as view, sys; \
                     sys.exit(0 if view._fetch_add_8 else 'libatomic is missing: apt-get install libatomic1')";

/// The variable by which tests find the interpreter with the existing package.
pub(crate) const V1_PYTHON: &str = "ZEROBUFFER_V1_PYTHON";

/// Makes `target/venv-v1` if it is not there, and returns its interpreter.
pub(crate) fn v1_venv() -> Result<PathBuf> {
    venv("target/venv-v1", &PACKAGES, CHECK)
}

/// A virtual environment with these packages, made if `check`, a line of Python, fails there; returns
/// its interpreter.
pub(crate) fn venv(folder: &str, packages: &[&str], check: &str) -> Result<PathBuf> {
    let environment = root().join(folder);
    let python = environment.join("bin/python");
    let run_check = || {
        let output = Command::new(&python).args(["-c", check]).output();
        output.with_context(|| format!("{} cannot be started", python.display()))
    };
    if !run_check().is_ok_and(|output| output.status.success()) {
        let made = make(&environment, &python, packages);
        if made.is_err() || !run_check()?.status.success() {
            apt_install(&["python3-venv", "libatomic1"])?;
            make(&environment, &python, packages)?;
        }
        let output = run_check()?;
        let reason = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{folder} does not work: {}", reason.trim());
    }
    Ok(python)
}

fn make(environment: &Path, python: &Path, packages: &[&str]) -> Result<()> {
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(environment))
        .context("python3 with its venv module is needed: apt-get install python3-venv")?;
    let mut pip = Command::new(python);
    run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
