//! What compiles C and C++, and where.

use crate::run::root;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of ours under target/.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let path = root().join("target/cpp").join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// The compiler of a language, as strict as a careful user has it.
pub(crate) fn compiler(language: &str) -> Command {
    let (compiler, standard) = match language {
        "c" => ("gcc", "-std=c11"),
        _ => ("g++", "-std=c++20"),
    };
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra"]);
    command
}

/// What pkg-config says of the installed library.
pub(crate) fn pkg_config(prefix: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "zerobuffer"]);
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let output = command.output().context("pkg-config cannot be started")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pkg-config does not find zerobuffer: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}
