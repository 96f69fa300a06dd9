"""What all tests share: a channel name of their own, and the look at what is left of it."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

# Seconds: for what succeeds at once on an idle machine; this one is shared.
LONG = 20.0
# A child that takes longer hangs.
WATCHDOG = 100.0

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def runtime(tmp_path_factory):
    """Services of the tests, and of the programs that they start, have a runtime directory of their own."""
    directory = tmp_path_factory.mktemp("run")
    directory.chmod(0o700)
    os.environ["ZEROBUFFER_DIR"] = str(directory)
    return directory


@pytest.fixture
def name(request):
    """A channel name; of its objects nothing may be left at the end of the test."""
    channel = f"py{os.getpid()}n{next(_numbers)}z"
    threads = set(threading.enumerate())
    yield channel
    deadline = time.monotonic() + LONG
    while (left := _left(channel, threads)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def _left(channel, threads):
    objects = [path.name for path in Path("/dev/shm").iterdir() if channel in path.name]
    # A service leaves an empty directory.
    objects += [path.name for path in Path(os.environ["ZEROBUFFER_DIR"]).glob(f"*{channel}*/*")]
    # Threads that Python did not make have a dummy that stays for ever.
    made = [t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)]
    return objects + [thread for thread in made if thread not in threads]


def pytest_runtest_logreport(report):
    """Notes what was skipped, for the summary of `cargo xtask test`."""
    if report.skipped and (notes := os.environ.get("ZEROBUFFER_NOT_RUN")):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        with open(notes, "a") as file:
            file.write(f"not run: {report.nodeid} ({why})\n")


def nothing(request):
    """A handler that leaves the request as it is."""


def until(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def await_sleep(thread):
    """Waits until a thread sleeps inside of a call: it does so three times in a row, while nobody else has the
    lock of the interpreter."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    deadline = time.monotonic() + LONG
    in_a_row = 0
    while in_a_row < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
        # Its state stands behind its name, which is in parentheses.
        in_a_row = in_a_row + 1 if stat.read_text().rpartition(")")[2].startswith(" S") else 0


@pytest.fixture
def ctrl_c():
    """Sends SIGINT to this process once the test has had time to wait."""
    # A shell that starts the tests in the background may have them ignore it, which Python then leaves so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def send():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()
    signal.signal(signal.SIGINT, before)


def interrupted(call):
    """What SIGINT ends soon."""
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call()
    assert time.monotonic() - start < LONG


class Child:
    """A Python program of its own, spoken to line by line."""

    def __init__(self, program, *arguments, interpreter=sys.executable, stderr=None):
        self.process = subprocess.Popen(
            [interpreter, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # What was read ahead would be lost to `communicate`.
            bufsize=0,
            # It is ignored in what a shell runs in the background, and this is to be told by it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def line(self):
        line = self.process.stdout.readline()
        assert line, f"the child has ended with {self.process.wait()}"
        return line.decode().strip()

    def finish(self):
        """Ends its input, and returns the rest of its output."""
        output, _ = self.process.communicate(timeout=WATCHDOG)
        assert self.process.returncode == 0
        return output.decode()

    def suspend(self):
        """Stops all its threads, so that it hangs, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child():
    """Starts programs, and ends those that are left at the end of the test."""
    children = []

    def start(program, *arguments, **options):
        children.append(Child(program, *arguments, **options))
        return children[-1]

    yield start
    for started in children:
        if started.process.poll() is None:
            started.kill()
