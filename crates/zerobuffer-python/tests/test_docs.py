"""Every Python example of the documents runs, and asserts what it says."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LONG, WATCHDOG
from zerobuffer import Client

ROOT = Path(__file__).parents[3]
PAGES = ["crates/zerobuffer-python/README.md", "docs/python.md", "README.md"]
# The channels of the examples; each test has them for itself, by its own name.
CHANNEL = re.compile(r'(Server|Service|serve|Client|Pool|Reader|Writer|connect|create_\w+)\("([\w-]+)"')
FILE = re.compile(r"# (\w+\.py)\n")


def examples(page):
    """The examples of a page, in order, and where they begin, for tracebacks."""
    text = (ROOT / page).read_text()
    for found in re.finditer(r"```python\n(.*?)```", text, re.S):
        yield "\n" * (text.count("\n", 0, found.start()) + 1) + found[1]


def renamed(code, name):
    return CHANNEL.sub(lambda found: f'{found[1]}("{name}{found[2]}"', code)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_one_after_the_other(page, name):
    scope, run = {}, 0
    for code in examples(page):
        if FILE.match(code.lstrip()):
            continue
        assert CHANNEL.search(code), f"an example without a channel: {code.strip()}"
        exec(compile(renamed(code, name), str(ROOT / page), "exec"), scope)
        run += 1
    assert run > 0
    # The shortest example leaves both to the reader.
    scope["client"].close()
    scope["service"].stop()


STRICT = [sys.executable, "-X", "dev", "-W", "error"]


@pytest.fixture
def options(name, tmp_path):
    """For running the examples that are files."""
    for code in examples("docs/python.md"):
        if found := FILE.match(code.lstrip()):
            (tmp_path / found[1]).write_text(renamed(code, name))
    return dict(cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_of_several_processes_serves(name, options):
    program = subprocess.Popen([*STRICT, "serve.py"], **options)
    try:
        with Client(name + "pictures", LONG) as client:
            assert bytes(client.call(b"\x0f" * 3, LONG)) == b"\xf0" * 3
        program.send_signal(signal.SIGTERM)
        assert program.communicate(timeout=WATCHDOG) == ("", "") and program.returncode == 0
    finally:
        program.kill()
        program.wait()


def test_the_filter_in_two_processes_runs(options):
    server = subprocess.Popen([*STRICT, "filter.py"], stdin=subprocess.PIPE, **options)
    try:
        client = subprocess.run([*STRICT, "camera.py"], timeout=WATCHDOG, **options)
        assert client.returncode == 0, client.stderr
        assert re.fullmatch(r"[\d.]+ ms for each frame\n", client.stdout)
        output = server.communicate("\n", timeout=WATCHDOG)
        assert server.returncode == 0 and output == ("Enter stops the filter", ""), output
    finally:
        server.kill()
        server.wait()
