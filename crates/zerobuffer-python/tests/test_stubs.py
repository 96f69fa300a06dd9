"""The type stubs say what the extension module offers, and the package has what the library has."""

import subprocess
import sys

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
    kinds = dict(
        BadName=1, BadConfig=2, NotRunning=3, Busy=4, AlreadyRunning=5, PermissionDenied=6,
        ForeignObject=7, Incompatible=8, NoSpace=9, Timeout=10, Full=11, TooLarge=12, PeerDied=13,
        PeerClosed=14, HandlerFailed=15, ProtocolViolation=16, WrongProcess=17, UnknownSequence=18,
        ClaimOpen=19, SequenceExhausted=20, InvalidState=21, System=22, Unsupported=23,
        Closed=24,
        WouldNeverFit=100, NotConnectedYet=101, SequenceError=102,
        MetadataAlreadyWrittenException=103, EmptyFrame=104, Desynchronised=105, SequenceUnknown=106,
    )  # fmt: skip
    for name, code in kinds.items():
        exception = getattr(zerobuffer.exceptions, name)
        assert issubclass(exception, zerobuffer.ZeroBufferException)
        assert exception.code == code, name
