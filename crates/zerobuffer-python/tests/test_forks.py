"""What a forked child must not do with its parent's objects, and what it is told."""

import os
import signal
import threading

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, await_sleep
from zerobuffer import BufferConfig, Client, Reader, Server, Writer
from zerobuffer._native import TwoBufferClient, TwoBufferServer

SMALL = BufferConfig(64, 4096)
REFUSED = "WrongProcess"


def outcomes_in_a_child(*uses):
    """What each of them returns or raises in a forked child, by name."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Not pytest's process any more: only the status tells.
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(LONG))
            for use in uses:
                try:
                    outcome = repr(use())
                except Exception as error:
                    outcome = type(error).__name__
                os.write(writing, f"{outcome}\n".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading) as pipe:
        outcomes = pipe.read().splitlines()
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"ended with {status} after {outcomes}"
    return outcomes


class Waiting:
    """A thread that is in the middle of a call, in the locks that this takes."""

    def __init__(self, call):
        self.call = call
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.call()
        except zerobuffer.ZeroBufferException:
            pass

    def __enter__(self):
        self.thread.start()
        await_sleep(self.thread)

    def __exit__(self, *_):
        self.thread.join(LONG)
        assert not self.thread.is_alive()


def test_a_forked_child_is_told_and_disturbs_nothing(name):
    with Server(name, SMALL) as server, Client(name, LONG) as client:
        server.start(lambda request: None)
        buffer = client.acquire_request_buffer(4)
        told = outcomes_in_a_child(
            lambda: client.call(b"x", 0.1),
            lambda: client.receive_response(0.1),
            lambda: client.reconnect(0.1),
            lambda: memoryview(buffer),
            lambda: buffer.data,
            lambda: buffer.commit(),
            lambda: server.start(print),
            lambda: server.stop(),
        )
        assert told == 8 * [REFUSED]
        assert outcomes_in_a_child(client.close, lambda: client.is_server_connected) == [
            "None",
            "False",
        ]
        np.asarray(buffer)[:] = 5
        sequence = buffer.commit()
        assert bytes(client.receive_response_for(sequence, LONG)) == b"\5" * 4
        assert bytes(client.call(b"abc", LONG)) == b"abc"


def test_a_child_does_not_wait_for_a_thread_that_takes_requests(name):
    server = Server(name, SMALL)
    with Waiting(lambda: server.receive(None)):
        told = outcomes_in_a_child(
            lambda: server.is_client_connected,
            lambda: server.receive(0.1),
            lambda: next(server),
            lambda: server.stop(),
        )
        server.stop()
    assert told == ["False", REFUSED, REFUSED, REFUSED]


def test_a_child_does_not_wait_for_a_thread_that_writes(name):
    with Reader(name, SMALL) as reader, Writer(name) as writer:
        writer.write_frame(bytes(3000))
        with Waiting(lambda: writer.write_frame(bytes(3000))):
            told = outcomes_in_a_child(
                lambda: writer.commit_frame(),
                lambda: writer.write_frame(b"x"),
                lambda: writer.get_frame_buffer(1),
                lambda: writer.set_metadata(b"x"),
                lambda: writer.frames_written,
                lambda: writer.bytes_written,
                lambda: writer.is_reader_connected(),
                lambda: writer.close(),
            )
            reader.read_frame(LONG).dispose()
        assert told == 7 * [REFUSED] + ["None"]
        assert writer.frames_written == 2


def test_a_child_does_not_wait_for_a_thread_that_reads(name):
    with Reader(name, SMALL, copy=False) as reader, Writer(name) as writer:
        writer.write_frame(b"held")
        frame = reader.read_frame(LONG)
        with Waiting(lambda: reader.read_frame(None)):
            told = outcomes_in_a_child(
                lambda: reader.read_frame(0.1),
                lambda: reader.get_metadata(),
                lambda: reader.is_writer_connected(),
                lambda: reader.frames_read,
                lambda: reader.bytes_read,
                lambda: frame.data,
                lambda: memoryview(frame),
                lambda: reader.close(),
            )
            writer.write_frame(b"more")
        assert told == 7 * [REFUSED] + ["None"]
        assert bytes(frame) == b"held" and reader.frames_read == 2


def test_a_copied_frame_is_the_childs_too_and_its_room_is_the_parents(name):
    with Reader(name, SMALL) as reader, Writer(name) as writer:
        writer.write_frame(b"held")
        frame = reader.read_frame(LONG)
        told = outcomes_in_a_child(lambda: bytes(frame), lambda: frame.dispose())
        assert told == [repr(b"held"), "None"]
        assert frame.is_valid and bytes(frame) == b"held"


def test_a_child_does_not_wait_for_a_thread_that_waits_for_a_response(name):
    let_go = threading.Event()
    server = TwoBufferServer(name, SMALL)
    server.start(lambda request: let_go.wait(LONG) and None)
    client = TwoBufferClient(name, LONG, response_buffer=SMALL)
    buffer = client.acquire_request_buffer(1)
    buffer.commit()
    with Waiting(lambda: client.receive_response(None)):
        told = outcomes_in_a_child(
            lambda: client.in_flight,
            lambda: client.cancel(1),
            lambda: client.is_server_connected,
            lambda: client.send_request(b"x"),
            lambda: client.acquire_request_buffer(1),
            lambda: client.receive_response(0.1),
            lambda: client.receive_response_for(1, 0.1),
            lambda: client.call(b"x", 0.1),
            lambda: client.close(),
            lambda: server.start(print),
        )
        let_go.set()
    assert told == ["0", "False", "False"] + 5 * [REFUSED] + ["None", REFUSED]
    client.close()
    server.stop()


def test_a_child_does_not_wait_for_a_thread_that_stops_a_server(name):
    in_hand, let_go = threading.Event(), threading.Event()

    def handler(request):
        in_hand.set()
        assert let_go.wait(LONG)

    server = TwoBufferServer(name, SMALL, stop_timeout=LONG)
    server.start(handler)
    client = TwoBufferClient(name, LONG, response_buffer=SMALL)
    client.send_request(b"x")
    assert in_hand.wait(LONG)
    with Waiting(server.stop):
        told = outcomes_in_a_child(lambda: server.stop())
        let_go.set()
    assert told == [REFUSED]
    client.close()


def test_a_child_that_ends_in_order_leaves_its_parents_server_alone(name, child):
    program = """
import logging, os, sys, zerobuffer
logging.basicConfig(stream=sys.stdout)
server = zerobuffer.Server(sys.argv[1], zerobuffer.BufferConfig(64, 4096))
server.start(lambda request: None)
pid = os.fork()
if pid == 0:
    sys.exit()
status = os.waitpid(pid, 0)[1]
with zerobuffer.Client(sys.argv[1], 20) as client:
    print(status, bytes(client.call(b"served", 20)), flush=True)
"""
    assert child(program, name).finish() == "0 b'served'\n"
