"""Frames of version 1 are memory of one's own: writable, and valid for as long as anybody holds them."""

import gc
import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import zerobuffer
from conftest import LONG
from zerobuffer import BufferConfig, Reader, Writer
from zerobuffer.duplex import DuplexChannelFactory

MS = int(LONG * 1000)
SIZES = BufferConfig(64, 4096)


@pytest.fixture
def ends(name):
    with Reader(name, SIZES) as reader, Writer(name) as writer:
        yield reader, writer


def test_a_frame_is_writable_and_outlives_its_end_its_reader_and_later_frames(ends):
    reader, writer = ends
    writer.write_frame(b"first")
    with reader.read_frame(LONG) as frame:
        array = np.frombuffer(frame.data[1:], np.uint8)
        whole = np.asarray(frame)
        view = frame.data
        array[:] = ord("x")
        assert bytes(frame) == bytes(whole) == b"fxxxx"
    for _ in range(500):
        writer.write_frame(b"other bytes that go around the ring")
        with reader.read_frame(LONG) as other:
            assert bytes(other) == b"other bytes that go around the ring"
    reader.close()
    del frame
    gc.collect()
    view[0] = ord("y")
    assert bytes(whole) == b"yxxxx"


def test_what_is_written_into_a_frame_reaches_nobody_else(ends):
    reader, writer = ends
    writer.write_frame(bytes(1000))
    first = reader.read_frame(LONG)
    np.asarray(first)[:] = 255
    writer.write_frame(bytes(1000))
    with reader.read_frame(LONG) as second:
        assert bytes(second) == bytes(1000)
    first.dispose()


def test_a_frame_that_is_not_disposed_of_keeps_its_room(ends):
    reader, writer = ends
    writer.write_timeout = timedelta(milliseconds=50)
    writer.write_frame(bytes(3000))
    frame = reader.read_frame(LONG)
    with pytest.raises(zerobuffer.BufferFullException):
        writer.write_frame(bytes(3000))
    array = np.asarray(frame)
    frame.dispose()
    frame.dispose()
    assert not frame.is_valid and array.size == len(frame) == 3000
    with pytest.raises(ValueError, match="disposed"):
        frame.data
    with pytest.raises(ValueError, match="disposed"):
        memoryview(frame)
    writer.write_frame(bytes(1000))


def test_a_frame_has_typed_arrays_of_a_shape(ends):
    reader, writer = ends
    writer.write_frame(np.arange(6, dtype=np.uint16))
    with reader.read_frame(LONG) as frame:
        array = frame.array((2, 3), np.uint16)
        array[1, 2] = 50
        assert bytes(frame)[-2:] == b"\x32\0"
    with pytest.raises(ValueError, match="disposed"):
        np.asarray(frame)


def test_a_reader_without_copies_shows_the_shared_bytes_read_only(name):
    with Reader(name, SIZES, copy=False) as reader, Writer(name) as writer:
        writer.write_frame(b"shared")
        frame = reader.read_frame(LONG)
        array = np.asarray(frame)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(TypeError, match="read-only"):
            frame.data[0] = 1
        assert bytes(array) == b"shared"
        del array
        frame.dispose()


def test_shared_bytes_stay_their_readers_until_the_last_view_is_deleted(name):
    with Reader(name, SIZES, copy=False) as reader, Writer(name) as writer:
        writer.write_timeout = timedelta(milliseconds=50)
        writer.write_frame(bytes(3000))
        with pytest.warns(ResourceWarning, match="view"):
            with reader.read_frame(LONG) as frame:
                header, array = frame.data[:6], np.asarray(frame)
        assert not frame.is_valid
        with pytest.raises(ValueError, match="disposed"):
            frame.data
        del array
        with pytest.raises(zerobuffer.BufferFullException):
            writer.write_frame(bytes([1]) * 3000)
        assert bytes(header) == bytes(6)
        del header
        writer.write_frame(bytes([1]) * 3000)


def test_metadata_is_writable_memory_of_ones_own(ends):
    reader, writer = ends
    writer.set_metadata(b"about")
    metadata = reader.get_metadata()
    metadata[0] = ord("A")
    assert (bytes(metadata), bytes(reader.get_metadata())) == (b"About", b"about")


@pytest.mark.parametrize("size", [5, 200_000])
def test_a_frame_is_committed_with_live_arrays_whose_later_writes_stay_private(name, size):
    with Reader(name, BufferConfig(64, 1 << 20)) as reader, Writer(name) as writer:
        array = np.frombuffer(writer.get_frame_buffer(size), np.uint8)
        array[:] = 7
        writer.commit_frame()
        array[:] = 9
        with reader.read_frame(LONG) as frame:
            assert bytes(frame) == bytes([7]) * size
        assert writer.frames_written == 1 and writer.bytes_written == size
        with pytest.raises(zerobuffer.ZeroBufferException, match="No pending frame"):
            writer.commit_frame()


def test_a_second_buffer_takes_the_place_of_the_one_that_is_open(ends):
    reader, writer = ends
    first = writer.get_frame_buffer(5)
    first[:] = b"first"
    smaller = writer.get_frame_buffer(3)
    assert bytes(smaller) == b"fir"
    first[0] = ord("F")
    larger = writer.get_frame_buffer(7)
    assert bytes(larger) == b"First\0\0"
    larger[5:] = b"!!"
    writer.commit_frame()
    with reader.read_frame(LONG) as frame:
        assert (frame.sequence, bytes(frame)) == (1, b"First!!")
    with pytest.raises(zerobuffer.ZeroBufferException, match="No pending frame"):
        writer.commit_frame()


def test_a_frame_written_while_a_buffer_is_open_goes_first_and_both_arrive(ends):
    reader, writer = ends
    buffer = writer.get_frame_buffer(6)
    writer.write_frame(b"in between")
    buffer[:] = b"opened"
    writer.commit_frame()
    for expected in (b"in between", b"opened"):
        with reader.read_frame(LONG) as frame:
            assert bytes(frame) == expected


def test_a_buffer_waits_for_room_and_a_full_ring_is_said_before_it_is_filled(ends):
    reader, writer = ends
    writer.write_frame(bytes(3000))
    writer.write_timeout = timedelta(milliseconds=50)
    with pytest.raises(zerobuffer.BufferFullException):
        writer.get_frame_buffer(2000)
    with pytest.raises(zerobuffer.FrameTooLargeException):
        writer.get_frame_buffer(5000)
    with pytest.raises(zerobuffer.InvalidFrameSizeException):
        writer.get_frame_buffer(0)
    reader.read_frame(LONG).dispose()
    writer.get_frame_buffer(1000)[:] = bytes(1000)
    writer.commit_frame()


def test_other_threads_write_after_the_open_buffer_was_committed(ends):
    reader, writer = ends
    buffer = writer.get_frame_buffer(6)
    other = threading.Thread(target=writer.write_frame, args=(b"second",))
    other.start()
    time.sleep(0.1)
    buffer[:] = b"first "
    writer.commit_frame()
    other.join()
    assert [bytes(reader.read_frame(LONG)) for _ in range(2)] == [b"first ", b"second"]


def test_an_open_buffer_of_a_closed_writer_stays_memory_and_is_not_sent(name):
    with Reader(name, SIZES) as reader:
        writer = Writer(name)
        buffer = writer.get_frame_buffer(4)
        writer.close()
        buffer[:] = b"late"
        with pytest.raises(zerobuffer.ZeroBufferException):
            writer.commit_frame()
        with pytest.raises(zerobuffer.WriterDeadException):
            reader.read_frame(0.1)


@pytest.mark.parametrize(
    "data", [[1, 2, 3], (1, 2, 3), range(1, 4), np.uint8([1, 2, 3])], ids=lambda data: type(data).__name__
)
def test_whatever_is_a_row_of_bytes_is_written(ends, data):
    reader, writer = ends
    writer.write_frame(data)
    with reader.read_frame(LONG) as frame:
        assert bytes(frame) == b"\1\2\3"


@pytest.mark.parametrize("data", ["text", 5, None, [300], {}])
def test_what_is_no_row_of_bytes_is_refused(ends, data):
    reader, writer = ends
    with pytest.raises((TypeError, ValueError, zerobuffer.InvalidFrameSizeException)):
        writer.write_frame(data)
    assert reader.read_frame(0) is None


@pytest.fixture
def client(name):
    """Of a server of two buffers that answers with the request turned round."""
    factory = DuplexChannelFactory()
    server = factory.create_immutable_server(name, SIZES, timeout=LONG)
    server.start(lambda frame, writer: writer.write_frame(bytes(frame)[::-1]))
    with factory.create_client(name, timeout_ms=MS, response_buffer=SIZES) as client:
        yield client
    server.stop()


def test_a_response_of_two_buffers_is_writable_and_outlives_its_client(client):
    client.send_request(b"abc")
    with client.receive_response(MS) as response:
        array = np.frombuffer(response.data, np.uint8)
        array[0] = ord("X")
    for _ in range(500):
        client.send_request(b"something else")
        client.receive_response(MS).dispose()
    client.close()
    assert bytes(array) == b"Xba"


def test_a_request_of_two_buffers_is_sent_with_live_arrays_whose_later_writes_stay_private(client):
    first, buffer = client.acquire_request_buffer(3)
    array = np.frombuffer(buffer, np.uint8)
    array[:] = list(b"abc")
    with pytest.raises(zerobuffer.ZeroBufferException):
        client.call(b"x", MS)
    client.commit_request()
    array[:] = 0
    second = client.send_request(b"def")
    array[:] = 1
    for sequence, expected in ((first, b"cba"), (second, b"fed")):
        response = client.receive_response(MS)
        assert (response.sequence, response.to_bytes()) == (sequence, expected)
    assert second == first + 1


def test_a_request_buffer_of_two_buffers_is_sent_once_and_none_is_left_open(client):
    buffer = client._native.acquire_request_buffer(2)
    with pytest.raises(zerobuffer.ClaimOpen):
        client._native.send_request(b"x")
    buffer.abandon()
    buffer.abandon()
    with pytest.raises(zerobuffer.InvalidState):
        buffer.commit()
    # Forgotten.
    client._native.acquire_request_buffer(2)
    with pytest.raises(zerobuffer.FrameTooLargeException):
        client._native.acquire_request_buffer(1 << 20)
    with client._native.acquire_request_buffer(2) as buffer:
        buffer.data[:] = b"ok"
    with client.receive_response(MS) as response:
        assert (response.sequence, response.to_bytes()) == (buffer.sequence, b"ko")
    late = client._native.acquire_request_buffer(2)
    client.close()
    with pytest.raises(zerobuffer.InvalidState):
        late.commit()
