"""Ends of version 1's objects: twice, by two threads, in the middle of a use or a wait, or by the collector."""

import gc
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, WATCHDOG
from zerobuffer import BufferConfig, Reader, Writer
from zerobuffer.duplex import DuplexChannelFactory
from zerobuffer.oieb_view import OIEBView
from zerobuffer.shared_memory import SharedMemoryFactory

SIZES = BufferConfig(64, 4096)
FACTORY = DuplexChannelFactory.get_instance()


class Outcome(threading.Thread):
    """A call on a thread of its own, and what came of it."""

    def __init__(self, call, *arguments):
        super().__init__()
        self.call, self.arguments, self.outcome = call, arguments, None
        self.start()

    def run(self):
        try:
            self.outcome = self.call(*self.arguments)
        except Exception as error:
            self.outcome = error

    def result(self):
        self.join(LONG)
        assert not self.is_alive(), "it waits for ever"
        return self.outcome


def free(name):
    """The free bytes of a ring, as its header says."""
    memory = SharedMemoryFactory.open(name)
    header = OIEBView(memory.get_view(0, OIEBView.SIZE))
    count = header.payload_free_bytes
    header.dispose()
    memory.close()
    return count


def objects(name):
    return [path.name for path in Path("/dev/shm").iterdir() if name in path.name]


@pytest.mark.parametrize("wait", ["read_frame", "is_writer_connected"])
def test_closing_a_reader_ends_the_waits_of_other_threads(name, wait):
    reader = Reader(name, SIZES)
    arguments = {"read_frame": (None,), "is_writer_connected": (3_600_000,)}[wait]
    waits = [Outcome(getattr(reader, wait), *arguments) for _ in range(3)]
    time.sleep(0.1)
    Outcome(reader.close).result()
    assert not objects(name)
    for waiting in waits:
        outcome = waiting.result()
        assert outcome is False or isinstance(outcome, zerobuffer.Closed)


@pytest.mark.parametrize("wait", ["write_frame", "get_frame_buffer"])
def test_closing_a_writer_ends_the_waits_of_other_threads(name, wait):
    with Reader(name, SIZES) as reader:
        writer = Writer(name)
        writer.write_timeout = timedelta(hours=1)
        writer.write_frame(bytes(3000))
        argument = {"write_frame": bytes(3000), "get_frame_buffer": 3000}[wait]
        waits = [Outcome(getattr(writer, wait), argument) for _ in range(3)]
        time.sleep(0.1)
        Outcome(writer.close).result()
        assert all(isinstance(waiting.result(), zerobuffer.Closed) for waiting in waits)
        reader.read_frame(LONG).dispose()
        with pytest.raises(zerobuffer.WriterDeadException):
            reader.read_frame(LONG)


def test_closing_a_writer_ends_the_waits_for_another_threads_open_buffer(name):
    with Reader(name, SIZES):
        writer = Writer(name)
        writer.write_timeout = timedelta(hours=1)
        writer.get_frame_buffer(10)
        waiting = Outcome(writer.write_frame, b"later")
        time.sleep(0.1)
        Outcome(writer.close).result()
        assert isinstance(waiting.result(), zerobuffer.Closed)


def test_closing_a_client_of_two_buffers_ends_the_waits_of_other_threads(name):
    with FACTORY.create_mutable_server(name, SIZES) as server:
        server.start(lambda request: None)
        client = FACTORY.create_client(name, response_buffer=SIZES)
        waits = [Outcome(client.receive_response, 3_600_000) for _ in range(3)]
        time.sleep(0.1)
        Outcome(client.close).result()
        for waiting in waits:
            assert isinstance(waiting.result(), zerobuffer.ZeroBufferException)


@pytest.mark.parametrize("copy", [True, False])
def test_a_frame_that_two_threads_dispose_of_releases_its_room_once(name, copy):
    with Reader(name, SIZES, copy=copy) as reader, Writer(name) as writer:
        for _ in range(200):
            writer.write_frame(bytes(100))
            frame = reader.read_frame(LONG)
            ends = [Outcome(frame.dispose) for _ in range(3)]
            try:
                assert bytes(frame.data) == bytes(100)
            except ValueError:
                pass
            assert [end.result() for end in ends] == [None] * 3
            frame.dispose()
            del frame
        assert free(name) == 4096


def test_a_frame_that_is_collected_releases_its_room_and_views_keep_its_bytes(name):
    with Reader(name, SIZES) as reader, Writer(name) as writer:
        writer.write_frame(b"kept")
        frame = reader.read_frame(LONG)
        array = np.asarray(frame)
        circle = [frame]
        circle.append(circle)
        del frame, circle
        gc.collect()
        assert free(name) == 4096
        array[0] = ord("K")
        assert bytes(array) == b"Kept"


def test_a_buffer_that_two_threads_commit_is_sent_once(name):
    with Reader(name, SIZES) as reader, Writer(name) as writer:
        for _ in range(100):
            writer.get_frame_buffer(4)[:] = b"once"
            ends = [Outcome(writer.commit_frame) for _ in range(3)]
            outcomes = [end.result() for end in ends]
            assert outcomes.count(None) == 1
            with reader.read_frame(LONG) as frame:
                assert bytes(frame) == b"once"
        assert reader.read_frame(0) is None


def test_readers_and_writers_that_are_collected_end(name):
    reader, writer = Reader(name, SIZES), Writer(name)
    writer.write_frame(b"last")
    writer.get_frame_buffer(3)
    del writer
    gc.collect()
    assert bytes(reader.read_frame(LONG)) == b"last"
    with pytest.raises(zerobuffer.WriterDeadException):
        reader.read_frame(LONG)
    del reader
    gc.collect()
    assert not objects(name)


def test_what_is_closed_closes_again_and_says_so(name):
    reader, writer = Reader(name, SIZES), Writer(name)
    for end in [Outcome(thing.close) for thing in (writer, reader) for _ in range(3)]:
        assert end.result() is None
    uses = [
        lambda: reader.read_frame(0),
        lambda: reader.get_metadata(),
        lambda: writer.write_frame(b"x"),
        lambda: writer.get_frame_buffer(1),
        lambda: writer.set_metadata(b"x"),
    ]
    for use in uses:
        with pytest.raises(zerobuffer.Closed):
            use()
    assert not reader.is_writer_connected() and not writer.is_reader_connected()
    assert (reader.frames_read, writer.frames_written) == (0, 0)


def test_an_immutable_server_leaves_nothing_when_its_process_exits(name):
    program = (
        "import sys, time\n"
        "from zerobuffer import BufferConfig\n"
        "from zerobuffer.duplex import DuplexChannelFactory\n"
        "server = DuplexChannelFactory().create_immutable_server(sys.argv[1], BufferConfig(64, 4096), 60)\n"
        "server.start(lambda frame, writer: None)\n"
        "while server.request_reader is None: time.sleep(0.01)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, name], timeout=WATCHDOG)
    assert ran.returncode == 0
    assert not objects(name)
