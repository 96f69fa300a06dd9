"""The bytes themselves: no copies, and no view that dangles."""

import gc
import os

import numpy as np
import pytest
import zerobuffer
from conftest import LONG
from zerobuffer import BufferConfig, Client, Reader, Server, Writer

HEIGHT, WIDTH = 1080, 1920


class Segment:
    """A segment, known by its number after it has lost its name."""

    def __init__(self, object_name):
        self.inode = str(os.stat(f"/dev/shm/{object_name}").st_ino)

    def mappings(self):
        """Where this process has it, as the operating system says."""
        gc.collect()
        with open("/proc/self/maps") as maps:
            lines = [line.split() for line in maps]
        ranges = [line[0] for line in lines if line[4] == self.inode]
        return [tuple(int(end, 16) for end in range.split("-")) for range in ranges]

    def offset(self, address):
        """Of a place in one of its mappings."""
        [start] = [start for start, end in self.mappings() if start <= address < end]
        return address - start


def test_a_1080p_picture_is_inverted_on_the_shared_bytes(name):
    """The array of the handler, that of the request buffer and that of the response lie in the two
    mappings of one segment, at one offset."""
    size = HEIGHT * WIDTH * 3
    addresses = []

    def invert(request):
        picture = np.asarray(request).reshape(HEIGHT, WIDTH, 3)
        addresses.append(picture.ctypes.data)
        np.invert(picture, out=picture)

    with Server(name, BufferConfig(64, 2 * size)) as server, Client(name, LONG) as client:
        server.start(invert)
        sent = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        with client.acquire_request_buffer(size) as buffer:
            picture = np.asarray(buffer).reshape(HEIGHT, WIDTH, 3)
            picture[:] = sent
            addresses.append(picture.ctypes.data)
            del picture
        response = client.receive_response_for(buffer.sequence, LONG)
        answer = np.asarray(response).reshape(HEIGHT, WIDTH, 3)
        addresses.append(answer.ctypes.data)
        assert np.array_equal(answer, ~sent)

        segment = Segment(f"{name}_duplex")
        assert len({segment.offset(address) for address in addresses}) == 1
        assert len(segment.mappings()) == 2, "the server's, and the client's"
        # Writable for its holder, and nobody else is there.
        answer[:] = 3
        assert response.data[size - 1] == 3
        del answer
        response.release()


@pytest.fixture
def pair(name):
    with Server(name, BufferConfig(64, 4096)) as server, Client(name, LONG) as client:
        yield server, client



def test_data_is_released_with_its_frame(pair):
    server, client = pair
    server.start(lambda request: None)
    with client.call(b"abc", LONG) as response:
        data = response.data
        assert data is response.data and bytes(data) == b"abc" and not data.readonly
    with pytest.raises(ValueError, match="released"):
        bytes(data)


def test_data_is_released_with_a_frame_that_is_abandoned(name):
    kept = []

    def handler(request):
        kept.append(request.data)
        raise RuntimeError("no")

    with Server(name, BufferConfig(64, 4096)) as server, Client(name, LONG) as client:
        server.start(handler, lambda error: None)
        with pytest.raises(zerobuffer.HandlerFailed):
            client.call(b"x", LONG)
        with pytest.raises(KeyError):
            with client.acquire_request_buffer(8) as buffer:
                kept.append(buffer.data)
                raise KeyError
        for data in kept:
            with pytest.raises(ValueError, match="released"):
                data[0] = 1


def test_a_frame_with_a_live_view_keeps_its_length(pair):
    server, client = pair
    buffer = client.acquire_request_buffer(3, capacity=64)
    view = np.asarray(buffer)
    with pytest.raises(BufferError):
        buffer.resize(2)
    del view
    buffer.resize(2)
    buffer.commit()
    request = server.receive(LONG)
    view = np.asarray(request)
    with pytest.raises(BufferError):
        request.resize(1)
    del view
    request.resize(1)
    request.respond()


def test_a_view_keeps_its_frame_and_its_memory(name):
    server = Server(name, BufferConfig(64, 4096))
    server.start(lambda request: None)
    client = Client(name, LONG)
    segment = Segment(f"{name}_duplex")
    array = np.asarray(client.call(b"abc", LONG))
    gc.collect()
    # The response lives as long as its view.
    assert bytes(client.call(b"defghi" * 20, LONG)) == b"defghi" * 20
    client.close()
    server.stop()
    del client, server
    assert segment.mappings() and bytes(array) == b"abc"
    del array
    assert not segment.mappings()


def test_frames_of_version_1_are_shared_bytes_if_asked_for(name):
    with Reader(name, BufferConfig(64, 4096), copy=False) as reader, Writer(name) as writer:
        writer.write_frame(bytes([1, 2, 3, 4]))
        frame = reader.read_frame(LONG)
        view = np.asarray(frame)
        segment = Segment(name)
        # Behind the header, the metadata, and the frame's own header.
        assert segment.offset(view.ctypes.data) == 128 + 64 + 16
        assert frame.is_valid and view.tolist() == [1, 2, 3, 4]
        header = frame.data[:3]
        with pytest.warns(ResourceWarning):
            frame.dispose()
    # What a program leaves behind stays readable.
    assert bytes(header) == bytes([1, 2, 3]) and view.tolist() == [1, 2, 3, 4]
    del header, frame
    assert segment.mappings()
    del view
    assert not segment.mappings()
