//! The Python package: built, tested, and packed.

use crate::python::{v1_venv, venv};
use crate::run::{root, step};
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

/// The tests of the package, among them programs that were written for the existing package.
pub(crate) fn test() -> Result<()> {
    let python = built()?;
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).current_dir(package());
    // Its folders would stay in /tmp otherwise.
    pytest.arg("--basetemp").arg(root().join("target/pytest"));
    pytest.env("ZEROBUFFER_V1_PYTHON", v1_venv()?);
    step("tests of the Python package", pytest)?;
    let mut mypy = Command::new(&python);
    mypy.args(["-m", "mypy", "--strict", "python/zerobuffer"]).current_dir(package());
    mypy.arg("--cache-dir").arg(root().join("target/mypy"));
    step("types of the Python package", mypy)
}

/// What `wheel` has made.
pub(crate) struct Wheels {
    /// `target/wheels`.
    pub(crate) folder: PathBuf,
    pub(crate) package: PathBuf,
    /// The distribution `zerobuffer-ipc`, which is for pip alone.
    pub(crate) stand_in: PathBuf,
}

/// A wheel for every Python from 3.11 on, the source package, and the wheel that stands for
/// `zerobuffer-ipc`, in `target/wheels`.
pub(crate) fn wheel() -> Result<()> {
    wheels(&["--sdist"]).map(drop)
}

/// The wheels. With `--sdist` among the options everything is compiled again, from the source package.
pub(crate) fn wheels(options: &[&str]) -> Result<Wheels> {
    let folder = root().join("target/wheels");
    // Of earlier versions none may be left.
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let python = interpreter()?;
    let mut build = maturin(&python, "build");
    build.args(["--release", "--out"]).arg(&folder).args(options);
    step("the Python package's wheel", build)?;
    let mut stand_in = Command::new(&python);
    stand_in.args(["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    // In a copy, since setuptools builds beside the sources.
    stand_in.arg("--wheel-dir").arg(&folder).arg(stand_in_sources()?);
    step("the wheel that stands for zerobuffer-ipc", stand_in)?;
    let [package, stand_in] = ["zerobuffer-", "zerobuffer_ipc-"].map(|name| find(&folder, name));
    Ok(Wheels { folder, package: package?, stand_in: stand_in? })
}

fn stand_in_sources() -> Result<PathBuf> {
    let copy = root().join("target/zerobuffer-ipc");
    std::fs::create_dir_all(&copy)?;
    for file in ["pyproject.toml", "README.md", "zerobuffer.py"] {
        std::fs::copy(package().join("zerobuffer-ipc").join(file), copy.join(file))?;
    }
    Ok(copy)
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let wheels = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(name) && file.ends_with(".whl")
    };
    wheels.into_iter().find(is_it).with_context(|| format!("no wheel {name}* was made"))
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

pub(crate) fn package() -> PathBuf {
    root().join("crates/zerobuffer-python")
}
