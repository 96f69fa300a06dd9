"""Programs that were written for the existing package `zerobuffer-ipc` run unchanged with ours, and the two
packages talk to each other."""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("v1_program.py")
LIMIT = 100

# An existing reader that starts deletes the lock of one that is just starting, and then its buffer.
starting = threading.Lock()


@pytest.fixture(scope="module")
def existing():
    """The interpreter that has the existing package."""
    interpreter = os.environ.get("ZEROBUFFER_V1_PYTHON")
    if interpreter is None:
        pytest.skip("ZEROBUFFER_V1_PYTHON names no interpreter; `cargo xtask python` makes one")
    return interpreter


@pytest.fixture(autouse=True)
def cleaned(name):
    """Existing readers that were asked for metadata leave their semaphores behind."""
    yield
    for left in Path("/dev/shm").glob(f"sem.sem-[rw]-{name}[0-9]*"):
        left.unlink()


class Program:
    def __init__(self, interpreter, *arguments):
        self.process = subprocess.Popen(
            [interpreter, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What was read ahead would be lost to `communicate`.
            bufsize=0,
        )
        self.lines = []

    def until(self, word):
        while not self.lines or self.lines[-1].split()[:1] != [word]:
            line = self.process.stdout.readline().decode()
            assert line, "".join(self.lines)
            self.lines.append(line)

    def finish(self):
        output, _ = self.process.communicate(b"\n", timeout=LIMIT)
        self.lines.append(output.decode())
        assert self.process.returncode == 0, "".join(self.lines)
        return "".join(self.lines)


def stream(name, reading, writing):
    """What a reader and a writer print."""
    with starting:
        reader = Program(reading, PROGRAM, "reader", name)
        reader.until("ready")
    writer = Program(writing, PROGRAM, "writer", name)
    writer.until("end")
    reader.until("end")
    return writer.finish(), reader.finish()


def requests(name, serving, calling):
    """What a server and a client print."""
    with starting:
        server = Program(serving, PROGRAM, "server", name)
        server.until("ready")
        client = Program(calling, PROGRAM, "client", name)
        client.until("connected")
    output = client.finish()
    post(f"/sem-w-{name}_request")
    return output, server.finish()


def post(semaphore):
    """Wakes an existing server, which checks whether its client has disconnected after a frame or its timeout only."""
    libc = ctypes.CDLL(None)
    libc.sem_open.restype = ctypes.c_void_p
    address = libc.sem_open(semaphore.encode(), 0)
    # One of ours has noticed it, and taken the name away.
    if address is not None:
        libc.sem_post(ctypes.c_void_p(address))
        libc.sem_close(ctypes.c_void_p(address))


@pytest.mark.parametrize("scene", [stream, requests])
def test_both_packages_print_the_same_in_every_combination(name, existing, scene):
    pairs = list(product([existing, sys.executable], repeat=2))
    names = [f"{name}{number}" for number in range(len(pairs))]
    # They spend their time waiting.
    with ThreadPoolExecutor() as pool:
        transcripts = list(pool.map(scene, names, *zip(*pairs)))
    assert all(len(output) > 100 for output in transcripts[0])
    for pair, transcript in zip(pairs, transcripts):
        assert transcript == transcripts[0], pair


@pytest.mark.parametrize("part", ["full", "views", "modules"])
def test_what_happens_in_one_process_is_the_same(name, existing, part):
    outputs = [
        Program(python, PROGRAM, part, name).finish() for python in (existing, sys.executable)
    ]
    assert len(outputs[0]) > 100 and outputs[0] == outputs[1]


def test_the_existing_packages_own_programs_run_with_ours(name, existing):
    """Its command-line reader and writer, as files of their own."""
    where = "import zerobuffer, pathlib; print(pathlib.Path(zerobuffer.__file__).parent)"
    folder = subprocess.check_output([existing, "-c", where], text=True).strip()
    files = [Path(folder, "cross_platform", f"{role}.py") for role in ("reader", "writer")]
    options = ["--frames", 200, "--size", 500, "--json-output"]
    checked = [*options, "--verify", "sequential", "--checksum"]
    for number, pair in enumerate(product([existing, sys.executable], repeat=2)):
        channel = f"{name}{number}"
        reader = Program(pair[0], files[0], channel, *checked)
        connect = (
            "import sys, time, os, runpy\n"
            "while not os.path.exists('/dev/shm/sem.sem-r-' + sys.argv[1]): time.sleep(0.01)\n"
            "time.sleep(0.1)\n"
            f"runpy.run_path({str(files[1])!r}, run_name='__main__')\n"
        )
        writer = Program(pair[1], "-c", connect, channel, *options)
        written, read = json.loads(writer.finish()), json.loads(reader.finish())
        assert (written["frames_written"], read["frames_read"]) == (200, 200), pair
        assert not read["errors"] and read["verification_errors"] == 0


def test_both_packages_command_line_programs_understand_each_other(name, existing):
    common = ["--frames", 200, "--size", 500, "--json-output"]
    reports = []
    for number, pair in enumerate(product([existing, sys.executable], repeat=2)):
        channel = f"{name}{number}"
        module = ["-W", "ignore", "-m", "zerobuffer.cross_platform"]
        checked = [*common, "--verify", "random", "--checksum"]
        reader = Program(pair[0], *module[:3], f"{module[3]}.reader", channel, *checked)
        deadline = time.monotonic() + LIMIT
        while not Path(f"/dev/shm/sem.sem-r-{channel}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        written = [*common, "--pattern", "random", "--metadata", "about"]
        writer = Program(pair[1], *module[:3], f"{module[3]}.writer", channel, *written)
        reports.append([json.loads(writer.finish()), json.loads(reader.finish())])
    for pair in reports:
        for report in pair:
            for varying in ("buffer_name", "duration_seconds", "throughput_mbps"):
                del report[varying]
        # The existing one looks for metadata before there can be any.
        pair[1].pop("metadata_size")
        assert pair == reports[0]
    assert len(reports[0][1]["checksums"]) == 100 and not reports[0][1]["verification_errors"]


def test_all_public_names_of_the_existing_package_are_there(existing, name):
    """With the parameters of its functions, by position and by name, and their defaults."""
    listing = """
import importlib, inspect, json
def parameters(function):
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [(p.name, None if p.default is p.empty else repr(p.default))
            for p in signature.parameters.values()
            if p.name not in ("self", "cls") and p.kind is not p.VAR_KEYWORD]
def members(item):
    if not inspect.isclass(item):
        return {"()": parameters(item) if callable(item) else "attribute"}
    found = {"()": parameters(item)}
    for name in dir(item):
        if not name.startswith("_"):
            value = inspect.getattr_static(item, name)
            value = getattr(value, "__func__", value)
            found[name] = parameters(value) if callable(value) else "attribute"
    return found
def public(module):
    return getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__]
parts = ["", ".duplex", ".duplex.client", ".duplex.factory", ".duplex.interfaces", ".duplex.processing_mode",
         ".duplex.server", ".error_event_args", ".exceptions", ".oieb_view", ".platform", ".reader",
         ".shared_memory", ".types", ".writer", ".cross_platform", ".cross_platform.reader",
         ".cross_platform.writer"]
modules = {part: importlib.import_module("zerobuffer" + part) for part in parts}
print(json.dumps({f"zerobuffer{part}.{name}": members(getattr(module, name))
                  for part, module in modules.items() for name in public(module)}))
"""
    theirs, ours = (
        json.loads(subprocess.check_output([python, "-c", listing], text=True))
        for python in (existing, sys.executable)
    )
    # Frames are only made by readers.
    not_ours = {(f"{module}.Frame", "()") for module in ("zerobuffer", "zerobuffer.types")}
    # What its two programs check their data with is their own.
    own = ("reader.verify_frame_data", "writer.fill_frame_data")
    not_ours |= {(f"zerobuffer.cross_platform.{name}", "()") for name in own}
    for item, members in theirs.items():
        for member, parameters in members.items():
            if (item, member) in not_ours:
                continue
            assert item in ours and member in ours[item], f"{item}.{member} is missing"
            found = ours[item][member]
            if isinstance(parameters, list):
                same = [own[0] for own in found[: len(parameters)]]
                assert same == [theirs[0] for theirs in parameters], f"{item}.{member}"
                defaults = [own[1] for own in found[len(parameters) :]]
                assert all(default is not None for default in defaults), f"{item}.{member}"
                for own, their in zip(found, parameters):
                    assert own[1] == their[1], f"{item}.{member}: {own} instead of {their}"
