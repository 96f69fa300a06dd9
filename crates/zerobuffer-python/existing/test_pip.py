"""pip finds zerobuffer-ipc satisfied, and both packages over each other are noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


class Environment:
    def __init__(self, folder):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin/python"

    def pip(self, *arguments):
        # That of the environment that runs the tests: none has to be installed.
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        command = [*pip, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def imports(self):
        """What an import says."""
        line = "from zerobuffer import Client, Reader; print('works')"
        ran = subprocess.run([self.python, "-c", line], capture_output=True, text=True)
        return ran.stdout.strip() or ran.stderr.strip().splitlines()[-1]


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "venv")


@pytest.fixture
def wheels():
    folder = os.environ.get("ZEROBUFFER_WHEELS")
    assert folder, "ZEROBUFFER_WHEELS is not set: run `cargo xtask existing`"
    return sorted(map(str, Path(folder).glob("zerobuffer*.whl")))


def test_programs_that_require_zerobuffer_ipc_get_this_package(environment, wheels):
    environment.pip("install", "--no-index", *wheels)
    for requirement in ("zerobuffer-ipc", "zerobuffer-ipc==1.3.0", "zerobuffer-ipc>=1.1.17"):
        assert "already satisfied" in environment.pip("install", requirement)
    plan = ["install", "--quiet", "--dry-run", "--report", "-", "rocket-welder-sdk==3.3.0"]
    report = json.loads(environment.pip(*plan))
    installed = {item["metadata"]["name"].lower() for item in report["install"]}
    assert "rocket-welder-sdk" in installed and "zerobuffer-ipc" not in installed
    assert "zerobuffer-ipc" in environment.pip("show", "zerobuffer").replace("_", "-")
    assert environment.imports() == "works"


@pytest.mark.parametrize("order", ["theirs last", "ours last"])
def test_both_packages_over_each_other_are_refused_with_what_to_do(environment, wheels, order):
    ours = [wheel for wheel in wheels if Path(wheel).name.startswith("zerobuffer-")]
    install = [
        lambda: environment.pip("install", "--no-index", *ours),
        lambda: environment.pip("install", "--no-deps", "--only-binary=:all:", "zerobuffer-ipc==1.3.0"),
    ]
    for step in install if order == "theirs last" else install[::-1]:
        step()
    told = environment.imports()
    assert told.startswith("ImportError") and "pip uninstall zerobuffer zerobuffer-ipc" in told
    environment.pip("uninstall", "--yes", "zerobuffer", "zerobuffer-ipc")
    environment.pip("install", "--no-index", *wheels)
    assert environment.imports() == "works"


def test_files_that_a_former_zerobuffer_ipc_takes_along_are_missed(environment, wheels):
    """pip installs zerobuffer first, and then removes the former one that it replaces."""
    environment.pip("install", "--no-deps", "--only-binary=:all:", "zerobuffer-ipc==1.3.0")
    environment.pip("install", "--no-index", *wheels)
    told = environment.imports()
    assert told.startswith("ImportError") and "pip install --force-reinstall --no-deps" in told
    ours = [wheel for wheel in wheels if Path(wheel).name.startswith("zerobuffer-")]
    environment.pip("install", "--no-index", "--force-reinstall", "--no-deps", *ours)
    assert environment.imports() == "works"
