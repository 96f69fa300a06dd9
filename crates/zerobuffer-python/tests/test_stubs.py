"""The type stubs say what the extension module offers, and the package has what the library has."""

import re
import subprocess
import sys
from pathlib import Path

import zerobuffer
import zerobuffer.exceptions


def test_the_stubs_agree_with_the_extension_module(tmp_path):
    # Python 3.12 and later show the buffer protocol as a method, 3.11 does not.
    allowed = tmp_path / "allowed"
    allowed.write_text(r".*\.__buffer__")
    options = ["--allowlist", str(allowed), "--ignore-unused-allowlist"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "zerobuffer._native", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_public_is_documented():
    undocumented = []
    for name in zerobuffer.__all__:
        item = getattr(zerobuffer, name)
        members = [f"{name}.{member}" for member in vars(item) if not member.startswith("_")]
        for path in [name, *members]:
            documented = item
            for part in path.split(".")[1:]:
                documented = getattr(documented, part)
            if callable(documented) and not documented.__doc__:
                undocumented.append(path)
    assert not undocumented


def test_every_kind_of_error_has_an_exception_with_its_number():
    table = Path(__file__).parents[2] / "zerobuffer/src/error/table.rs"
    rows = re.findall(r"^    (\w+) = (\d+) ", table.read_text(), re.M)
    existing = dict(SequenceGap="SequenceError", MetadataAlreadyWritten="MetadataAlreadyWrittenException")
    kinds = {existing.get(name, name): int(code) for name, code in rows}
    assert len(kinds) > 30
    for name, code in kinds.items():
        exception = getattr(zerobuffer.exceptions, name)
        assert issubclass(exception, zerobuffer.ZeroBufferException)
        assert exception.code == code, name
