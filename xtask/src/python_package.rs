//! The Python package: built, tested, and packed.

use crate::python::{v1_venv, venv};
use crate::steps::{root, step};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What builds and tests it.
const TOOLS: [&str; 4] = ["maturin==1.16.0", "mypy==2.4.1", "numpy", "pytest==9.2.0"];

/// Builds the package into an environment of its own, and returns the interpreter that has it.
pub(crate) fn built() -> Result<PathBuf> {
    let python = interpreter()?;
    let environment = python.ancestors().nth(2).context("the interpreter lies in bin/")?;
    let mut develop = maturin(&python, "develop");
    // The benchmark runs what this makes.
    develop.args(["--quiet", "--release"]).env("VIRTUAL_ENV", environment);
    step("Python package", develop)?;
    Ok(python)
}

/// The tests of the package, with programs that were written for the deployed one among them.
pub(crate) fn test() -> Result<()> {
    let python = built()?;
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).current_dir(package());
    pytest.env("ZEROBUFFER_V1_PYTHON", v1_venv()?);
    step("tests of the Python package", pytest)?;
    let mut mypy = Command::new(&python);
    mypy.args(["-m", "mypy", "--strict", "python/zerobuffer"]).current_dir(package());
    mypy.arg("--cache-dir").arg(root().join("target/mypy"));
    step("types of the Python package", mypy)
}

/// A wheel for every Python from 3.11 on, and the source package, in `target/wheels`.
pub(crate) fn wheel() -> Result<()> {
    let mut build = maturin(&interpreter()?, "build");
    build.args(["--release", "--sdist", "--out"]).arg(root().join("target/wheels"));
    step("wheel and source package", build)
}

/// The command of the matrix's peer.
pub(crate) fn peer() -> Result<String> {
    let peer = root().join("tests/interop/python/peer.py");
    Ok(format!("'{}' '{}'", built()?.display(), peer.display()))
}

fn interpreter() -> Result<PathBuf> {
    venv("target/venv-python", &TOOLS, "import maturin, mypy, numpy, pytest")
}

fn maturin(python: &Path, task: &str) -> Command {
    let mut command = Command::new(python.with_file_name("maturin"));
    command.arg(task).current_dir(package());
    command
}

fn package() -> PathBuf {
    root().join("crates/zerobuffer-python")
}
