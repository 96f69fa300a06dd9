"""What can be sent: whatever has bytes, in both protocols, and nothing that only means something here."""

import ctypes

import numpy as np
import pytest
from conftest import LONG
from zerobuffer import BufferConfig, Client, Reader, Server, Writer
from zerobuffer.duplex import DuplexChannelFactory

SIZES = BufferConfig(64, 1 << 16)
FACTORY = DuplexChannelFactory.get_instance()


class Pair(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int32), ("ratio", ctypes.c_double)]


class Named(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int32), ("name", ctypes.c_char_p)]


GRID = np.arange(24, dtype=np.uint8).reshape(4, 6)
RECORDS = np.array([(1, 2.5)], dtype=[("Of", "<i4"), ("Px", "<f8")])

SENT = {
    "array of ctypes": ((ctypes.c_int32 * 3)(1, 2, 3), np.array([1, 2, 3], np.int32).tobytes()),
    "grid of ctypes": (((ctypes.c_uint8 * 2) * 2)((1, 2), (3, 4)), bytes([1, 2, 3, 4])),
    "structure": (Pair(7, 0.5), bytes(Pair(7, 0.5))),
    "number of ctypes": (ctypes.c_uint16(513), b"\x01\x02"),
    "array without dimensions": (np.array(1.5), np.array(1.5).tobytes()),
    "scalar": (np.float32(1.5), np.float32(1.5).tobytes()),
    "slice with steps": (GRID[:, ::2], GRID[:, ::2].tobytes()),
    "backwards": (GRID[::-1], GRID[::-1].tobytes()),
    "transposed": (GRID.T, GRID.T.tobytes()),
    "records, whose names look like formats": (RECORDS, RECORDS.tobytes()),
    "complex numbers": (np.array([1 + 2j]), np.array([1 + 2j]).tobytes()),
    "dates": (np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-01"], "M8[D]").tobytes()),
}

REFUSED = {
    "array of objects": np.array([object(), None], dtype=object),
    "records with objects": np.array([(1, None)], dtype=[("number", "<i4"), ("any", object)]),
    "pointers": (ctypes.POINTER(ctypes.c_int) * 1)(),
    "structure with a pointer": Named(1, b"text"),
    "addresses": (ctypes.c_void_p * 2)(1, 2),
    "text": "text",
    "list": [1.5, 2],
}


@pytest.fixture(params=["call", "write in place", "write to two buffers", "write_frame"])
def send(request, name):
    """A way to send: a function from data to the bytes that arrive."""
    if request.param == "write_frame":
        with Reader(name, SIZES) as reader, Writer(name) as writer:

            def frame(data):
                writer.write_frame(data)
                with reader.read_frame(LONG) as frame:
                    return bytes(frame)

            yield frame
        return

    def call(data):
        with client.call(data, LONG) as response:
            return bytes(response)

    def write(data):
        with client._native.acquire_request_buffer(100) as buffer:
            size = buffer.write(data)
        with client._native.receive_response_for(buffer.sequence, LONG) as response:
            return bytes(response)[:size]

    if request.param == "call":
        with Server(name, SIZES) as server, Client(name, LONG) as client:
            server.start(lambda request: None)
            yield call
        return
    in_place = request.param == "write in place"
    create = FACTORY.create_in_place_duplex_server if in_place else FACTORY.create_mutable_server
    with create(name, SIZES) as server:
        server.start(lambda request: None)
        with FACTORY.create_client(name, response_buffer=SIZES) as client:
            yield write


@pytest.mark.parametrize("kind", SENT)
def test_everything_with_bytes_is_sent_in_its_logical_order(send, kind):
    data, expected = SENT[kind]
    assert send(data) == expected


@pytest.mark.parametrize("kind", REFUSED)
def test_what_means_something_in_this_process_only_is_not_sent(send, kind):
    with pytest.raises(TypeError):
        send(REFUSED[kind])
    assert send(b"after") == b"after"
