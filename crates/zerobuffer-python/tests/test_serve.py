"""`zerobuffer.serve`: services in one process and in several."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import zerobuffer
from conftest import LONG, until
from zerobuffer import Client, serve
from test_services import sockets

PROGRAM = """
import logging, os, sys
import numpy as np
import zerobuffer
from zerobuffer import BufferConfig

logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
name, processes = sys.argv[1], int(sys.argv[2])
added = np.uint8(1)

def handler(request):
    if bytes(request[:1]) == b"?":
        request.write(os.getpid().to_bytes(4, "little"))
    elif bytes(request[:1]) == b"!":
        os._exit(3)
    else:
        np.asarray(request)[:] += added

HANDLERS = dict(function=handler, closure=lambda request: handler(request))
print("up", flush=True)
zerobuffer.serve(name, HANDLERS[sys.argv[3]], BufferConfig(64, 1 << 16), processes=processes)
print("over", flush=True)
""".replace("request[:1]", "request.data[:1]")


def pid_of(client):
    with client.call(b"?" * 4, LONG) as response:
        return int.from_bytes(bytes(response), "little")


def is_running(pid):
    """Nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # The second one if it has ended between the opening and the reading.
        return False


def serving(child, name, processes, handler="function"):
    """A program that serves, with all its processes."""
    program = child(PROGRAM, name, processes, handler)
    assert program.line() == "up"
    until(lambda: len(sockets(name)) == processes)
    return program


def pids(name, processes):
    """The processes that serve, by asking them: each has the clients that are there spread over it."""
    clients, found = [], set()
    deadline = time.monotonic() + LONG
    while len(found) < processes:
        assert time.monotonic() < deadline
        clients.append(Client(name, LONG))
        found.add(pid_of(clients[-1]))
    return clients, found


@pytest.mark.parametrize("handler", ["function", "closure"])
def test_four_processes_share_the_clients_and_end_with_a_signal(name, child, handler):
    program = serving(child, name, 4, handler)
    clients, found = pids(name, 4)
    assert program.process.pid not in found
    for client in clients:
        assert bytes(client.call(b"abc", LONG)) == b"bcd"
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == "over\n"
    assert not any(is_running(pid) for pid in found) and not sockets(name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_process_serves_itself_and_ends_with_a_signal(name, child, number):
    program = serving(child, name, 1)
    with Client(name, LONG) as client:
        assert pid_of(client) == program.process.pid
        program.process.send_signal(number)
        assert program.finish() == "over\n"
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"abc", LONG)
    assert not sockets(name)


def test_ctrl_c_reaches_all_processes_and_ends_them_cleanly(name, child):
    program = child(PROGRAM.replace("print(\"up\"", "os.setpgid(0, 0); print(\"up\""), name, 2, "function", stderr=-1)
    assert program.line() == "up"
    until(lambda: len(sockets(name)) == 2)
    clients, found = pids(name, 2)
    os.killpg(program.process.pid, signal.SIGINT)
    output, complaints = program.process.communicate(timeout=4 * LONG)
    assert (program.process.returncode, output, complaints) == (0, b"over\n", b"")
    for client in clients:
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"abc", LONG)
    assert not any(is_running(pid) for pid in found) and not sockets(name)


def test_a_process_that_dies_is_started_again(name, child):
    program = serving(child, name, 2)
    clients, found = pids(name, 2)
    victim = clients[0]
    killed = pid_of(victim)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(zerobuffer.PeerDied):
        victim.call(b"abc", LONG)
    until(lambda: not is_running(killed))
    # The other one goes on.
    for client in clients:
        if client is not victim and client.is_server_connected:
            assert bytes(client.call(b"abc", LONG)) == b"bcd"
    _, again = pids(name, 2)
    assert len(again - found) == 1
    # A handler that ends its process.
    with pytest.raises(zerobuffer.PeerDied):
        clients[1].call(b"!", LONG)
    clients[1].reconnect(LONG)
    assert bytes(clients[1].call(b"abc", LONG)) == b"bcd"
    # The next one removes what was left of it.
    pids(name, 2)
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == "over\n"


def test_the_processes_end_when_their_parent_is_killed(name, child):
    program = serving(child, name, 3)
    _, found = pids(name, 3)
    program.kill()
    until(lambda: not any(is_running(pid) for pid in found))
    assert not sockets(name)


def test_a_signal_to_one_process_replaces_it_and_leaves_the_others(name, child):
    program = serving(child, name, 2)
    clients, found = pids(name, 2)
    stopped = pid_of(clients[0])
    os.kill(stopped, signal.SIGTERM)
    until(lambda: not is_running(stopped))
    with pytest.raises(zerobuffer.PeerClosed):
        clients[0].call(b"abc", LONG)
    _, again = pids(name, 2)
    assert stopped not in again and program.process.poll() is None
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == "over\n"


# A program that runs `PREPARED` first.
PREPARING = PROGRAM.replace("name, processes = ", "exec(sys.argv[4])\nname, processes = ")

FORK_FAILS_ONCE = """
import errno
fork, forks = os.fork, 0

def failing():
    global forks
    forks += 1
    if forks == FAILS_AT:
        raise BlockingIOError(errno.EAGAIN, "there are too many processes")
    return fork()

os.fork = failing
"""


def prepared(child, name, processes, preparation, **options):
    program = child(PREPARING, name, processes, "function", preparation, **options)
    assert program.line() == "up"
    return program


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def replaced(name, number):
    """Ends one of two processes by a signal, and waits until there are two again."""
    clients, found = pids(name, 2)
    killed = pid_of(clients[0])
    os.kill(killed, number)
    until(lambda: not is_running(killed))
    for client in clients:
        client.close()
    clients, again = pids(name, 2)
    for client in clients:
        client.close()
    assert len(again - found) == 1
    return again


def over(program, found):
    """Tells a program to end, and waits until it has, with all its processes."""
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == "over\n"
    assert not any(is_running(pid) for pid in found)


def test_a_process_that_cannot_be_started_again_at_once_is_started_later(name, child):
    program = prepared(child, name, 2, FORK_FAILS_ONCE.replace("FAILS_AT", "3"), stderr=-1)
    until(lambda: len(sockets(name)) == 2)
    before = descriptors(program.process.pid)
    found = replaced(name, signal.SIGKILL)
    # No pipes are left of the failed start. (What a process says of its own start may not be read yet.)
    until(lambda: descriptors(program.process.pid) <= before)
    program.process.send_signal(signal.SIGTERM)
    output, complaints = program.process.communicate(timeout=4 * LONG)
    assert (program.process.returncode, output) == (0, b"over\n")
    assert complaints.count(b"too many processes") == 1
    assert not any(is_running(pid) for pid in found)


def test_a_start_that_fails_is_raised_and_ends_the_processes_that_were_started(name, child):
    program = prepared(child, name, 3, FORK_FAILS_ONCE.replace("FAILS_AT", "3"), stderr=-1)
    output, complaints = program.process.communicate(timeout=4 * LONG)
    assert (program.process.returncode, output) == (1, b"")
    assert complaints.splitlines()[-1].startswith(b"BlockingIOError")
    assert not sockets(name)


def test_a_process_that_a_signal_without_a_name_ends_is_started_again(name, child):
    program = serving(child, name, 2)
    over(program, replaced(name, 40))


@pytest.mark.parametrize("ends", ["signal.SIG_IGN", "lambda *_: os.waitpid(-1, 0)"])
def test_a_process_whose_end_is_not_for_its_parent_to_hear_is_started_again(name, child, ends):
    program = prepared(child, name, 2, f"import signal\nsignal.signal(signal.SIGCHLD, {ends})")
    until(lambda: len(sockets(name)) == 2)
    over(program, replaced(name, signal.SIGKILL))


IGNORED = """
import os, signal, sys, zerobuffer

def is_ignored():
    return signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN

def handler(request):
    request.write(b"1" if is_ignored() else b"0")

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("up", flush=True)
zerobuffer.serve(sys.argv[1], handler, processes=2)
print(is_ignored(), flush=True)
"""


def test_children_that_a_program_ignores_are_ignored_in_its_processes_and_afterwards(name, child):
    program = child(IGNORED, name)
    assert program.line() == "up"
    with Client(name, LONG) as client:
        assert bytes(client.call(b"x", LONG)) == b"1"
    program.process.send_signal(signal.SIGTERM)
    assert program.finish() == "True\n"


FAILING = """
import sys, zerobuffer
try:
    zerobuffer.serve(sys.argv[1], lambda request: None, processes=int(sys.argv[2]), metadata=bytes(5000))
except zerobuffer.TooLarge as error:
    print(error.max, flush=True)
"""


@pytest.mark.parametrize("processes", [1, 3])
def test_what_no_process_can_serve_is_raised(name, child, processes):
    assert child(FAILING, name, processes, stderr=-1).finish() == "4088\n"
    assert not sockets(name)


def test_what_cannot_be_served_from_here_is_refused(name):
    def nothing(request):
        pass

    with pytest.raises(TypeError, match="cannot be called"):
        serve(name, 3)
    with pytest.raises(ValueError, match="processes is 0"):
        serve(name, nothing, processes=0)
    raised = []

    def elsewhere():
        try:
            serve(name, nothing)
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in raised[0]
    let_go = threading.Event()
    other = threading.Thread(target=let_go.wait, name="somebody")
    other.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="somebody"):
        serve(name, nothing, processes=2)
    let_go.set()
    other.join()
    assert signal.getsignal(signal.SIGTERM) is before and not sockets(name)
