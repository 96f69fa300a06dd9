"""Views that live longer than the frame that they show: numpy users keep arrays, and everything goes on."""

import gc
import os
import threading
import time
import warnings
from datetime import timedelta
from random import Random

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, nothing
from zerobuffer import BufferConfig, Client, Reader, Server, Writer
from zerobuffer.duplex import DuplexChannelFactory

SIZES = BufferConfig(64, 1 << 16)
FACTORY = DuplexChannelFactory.get_instance()

VIEWS = {
    "array": np.asarray,
    "memoryview": memoryview,
    "slice": lambda frame: frame.data[1:2],
    "array of data": lambda frame: np.asarray(frame.data),
    "typed array": lambda frame: frame.array((3,), np.uint8),
}


@pytest.fixture
def server(name):
    with Server(name, SIZES) as server:
        yield server


@pytest.fixture
def client(server, name):
    with Client(name, LONG) as client:
        yield client


KINDS = {
    "in place": FACTORY.create_in_place_duplex_server,
    "two buffers": FACTORY.create_mutable_server,
}


@pytest.fixture(params=KINDS)
def either(request, name):
    """A native client of either kind, with a server that changes nothing."""
    with KINDS[request.param](name, SIZES) as server:
        server.start(nothing)
        with FACTORY.create_client(name, response_buffer=SIZES) as client:
            yield client._native


@pytest.mark.parametrize("kind", VIEWS)
def test_a_request_is_committed_whether_or_not_views_of_it_live(either, kind):
    kept = []
    for turn in range(300):
        with either.acquire_request_buffer(3) as buffer:
            np.asarray(buffer)[:] = turn % 256
            kept.append(VIEWS[kind](buffer))
        with either.receive_response_for(buffer.sequence, LONG) as response:
            assert bytes(response) == bytes([turn % 256]) * 3


def test_the_idiom_that_everybody_writes_works(either):
    frame = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    for _ in range(3):
        with either.acquire_request_buffer(frame.nbytes) as b:
            a = np.asarray(b).reshape(frame.shape)
            a[:] = frame
        with either.receive_response_for(b.sequence, LONG) as response:
            assert np.array_equal(response.array(frame.shape, frame.dtype), frame)


def test_a_late_write_disturbs_nobody_but_the_ring_of_its_client(name):
    """The writer's own channel may break, with an error; another one in the same process does not."""
    with Server(name, SIZES) as server, Client(name, LONG) as client:
        server.start(nothing)
        with Server(f"{name}o", SIZES) as other, Client(f"{name}o", LONG) as unharmed:
            other.start(nothing)
            with client.acquire_request_buffer(30_000) as buffer:
                late = np.asarray(buffer)
            client.receive_response_for(buffer.sequence, LONG).release()
            for turn in range(200):
                try:
                    sequence = client.send_request(bytes(100))
                    late[:] = 255
                    client.receive_response_for(sequence, 0.2).release()
                except zerobuffer.ZeroBufferException:
                    pass
                assert bytes(unharmed.call(b"abc", LONG)) == b"abc"
                if turn > 20 and not client.is_server_connected:
                    break


def test_strict_views_refuse_the_commit_and_the_client_goes_on(name):
    with Server(name, SIZES) as server, Client(name, LONG, strict_views=True) as client:
        server.start(nothing)
        buffer = client.acquire_request_buffer(3)
        view = np.asarray(buffer)
        with pytest.raises(BufferError, match="1 view"):
            buffer.commit()
        with pytest.raises(zerobuffer.InvalidState):
            buffer.commit()
        with pytest.raises(BufferError):
            with client.acquire_request_buffer(3) as buffer:
                view = np.asarray(buffer)
        assert client.in_flight == 0
        assert bytes(client.call(b"abc", LONG)) == b"abc"
        assert len(view) == 3


def test_strict_views_are_an_option_of_the_factorys_client(name):
    with FACTORY.create_in_place_duplex_server(name, SIZES) as server:
        server.start(nothing)
        options = {"response_buffer": SIZES, "strict_views": True}
        with FACTORY.create_client(name, **options) as client:
            _, data = client.acquire_request_buffer(3)
            view = np.asarray(data)
            with pytest.raises(BufferError):
                client.commit_request()
            assert client.call(b"abc", int(LONG * 1000)).to_bytes() == b"abc"
            assert len(view) == 3


@pytest.mark.parametrize("kind", VIEWS)
def test_a_response_is_released_when_its_last_view_goes_and_not_before(server, client, kind):
    server.start(nothing)
    sequence = client.send_request(b"abc")
    with client.receive_response_for(sequence, LONG) as response:
        view = VIEWS[kind](response)
        expected = bytes(view)
    response.release()
    for use in (memoryview, np.asarray, lambda response: response.data):
        with pytest.raises(zerobuffer.InvalidState):
            use(response)
    # What comes later finds another place, as long as there is one.
    for _ in range(20):
        with client.call(b"z" * 1000, LONG) as other:
            assert len(other) == 1000
        assert bytes(view) == expected
    assert client.in_flight > 1, "the ring is released in order, from the place that is kept"
    del view
    client.call(b"x", LONG).release()
    assert client.in_flight == 1


def test_a_ring_that_a_kept_response_fills_has_room_again_when_the_view_is_deleted(name):
    with Server(name, BufferConfig(64, 4096)) as server:
        server.start(nothing)
        with Client(name, LONG, send_timeout=0.05) as client:
            with client.call(bytes(3000), LONG) as response:
                kept = np.asarray(response)
            with pytest.raises(zerobuffer.Full):
                client.send_request(bytes(3000))
            del kept
            client.call(bytes(3000), LONG).release()


@pytest.mark.parametrize("kind", VIEWS)
def test_a_request_is_answered_when_its_last_view_goes_and_not_before(server, client, kind):
    sequence = client.send_request(b"abc")
    request = server.receive(LONG)
    view = VIEWS[kind](request)
    request.respond()
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response_for(sequence, 0)
    for again in (request.respond, lambda: request.fail("no"), lambda: request.resize(1)):
        with pytest.raises(zerobuffer.InvalidState):
            again()
    with pytest.raises(zerobuffer.InvalidState):
        memoryview(request)
    view[0:1] = np.array([120], np.uint8) if isinstance(view, np.ndarray) else b"x"
    del view
    assert b"x" in bytes(client.receive_response_for(sequence, LONG))


def test_a_request_fails_when_its_last_view_goes_and_not_before(server, client):
    sequence = client.send_request(b"abc" * 20)
    request = server.receive(LONG)
    view = np.asarray(request)
    request.fail("of my own")
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response_for(sequence, 0)
    assert bytes(view) == b"abc" * 20
    del view
    with pytest.raises(zerobuffer.HandlerFailed, match="of my own"):
        client.receive_response_for(sequence, LONG)


def test_a_handler_that_keeps_a_view_holds_up_its_own_request_only_and_is_named(server, client, caplog, recwarn):
    kept = []

    def handler(request):
        array = np.asarray(request)
        if array[0] == 0:
            kept.append(array)

    server.start(handler)
    held = client.send_request(b"\0abc")
    assert bytes(client.call(b"\1", LONG)) == b"\1"
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response_for(held, 0)
    assert len(recwarn) == 1 and recwarn[0].category is ResourceWarning
    [record] = [r for r in caplog.records if "view" in r.getMessage()]
    assert record.name == "zerobuffer.server" and client.name in record.getMessage()
    kept.clear()
    assert bytes(client.receive_response_for(held, LONG)) == b"\0abc"


def test_a_loop_whose_array_outlives_its_request_is_told_why_the_client_waits(server, client, caplog):
    """The name lives until the next request, which this client does not send before it has the answer."""

    def serve():
        for request in server:
            with request:
                array = np.asarray(request)
                array += 1

    thread = threading.Thread(target=serve)
    thread.start()
    sequences = [client.send_request(b"\0") for _ in range(3)]
    for sequence in sequences[:2]:
        assert bytes(client.receive_response_for(sequence, LONG)) == b"\1"
    deadline = time.monotonic() + LONG
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.001)
    [record] = caplog.records
    assert "its client waits" in record.getMessage() and client.name in record.getMessage()
    server.stop()
    thread.join(LONG)
    assert bytes(client.receive_response_for(sequences[2], LONG)) == b"\1"


def test_a_failing_handlers_arrays_do_not_hold_up_its_answer(server, client):
    """They live in the frames of its traceback, which the caller of on_error keeps."""
    errors = []

    def edit(request):
        array = np.asarray(request).reshape(2, -1)
        raise LookupError("inner")

    def handler(request):
        array = np.asarray(request)
        try:
            edit(request)
        except LookupError as error:
            raise ValueError("outer") from error

    server.start(handler, errors.append)
    with pytest.raises(zerobuffer.HandlerFailed, match="outer"):
        client.call(b"abcd" * 20, LONG)
    assert type(errors[0]) is ValueError and errors[0].__traceback__ is not None


def test_an_exception_in_a_with_block_fails_its_request_when_its_arrays_are_deleted(server, client):
    sequence = client.send_request(b"x" * 40)

    def serve():
        with server.receive(LONG) as request:
            array = np.asarray(request)
            raise KeyError("mine")

    with pytest.raises(KeyError):
        serve()
    gc.collect()
    with pytest.raises(zerobuffer.HandlerFailed, match="mine"):
        client.receive_response_for(sequence, LONG)


def test_the_handler_of_a_mutable_server_may_keep_a_view_of_its_copy(name):
    kept = []
    with FACTORY.create_mutable_server(name, SIZES) as server:
        server.start(lambda request: kept.append(np.asarray(request)))
        with FACTORY.create_client(name, response_buffer=SIZES) as client:
            for turn in range(3):
                assert client.call(bytes([turn]), int(LONG * 1000)).to_bytes() == bytes([turn])
    assert [bytes(array) for array in kept] == [b"\0", b"\1", b"\2"]


def test_frames_left_with_views_are_told_of_as_resources(server, client):
    sequence = client.send_request(b"abc")
    with pytest.warns(ResourceWarning, match="1 view") as told:
        with server.receive(LONG) as request:
            view = np.asarray(request)
    assert told[0].filename == __file__
    del view
    with pytest.warns(ResourceWarning, match="1 view") as told:
        response = client.receive_response_for(sequence, LONG)
        view = np.asarray(response)
        response.release()
    assert told[0].filename == __file__
    del view, response
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sequence = client.send_request(b"abc")
        with server.receive(LONG) as request:
            np.asarray(request)[:] = 1
        with client.acquire_request_buffer(3) as buffer:
            view = np.asarray(buffer)
        server.receive(LONG).respond()
        with client.receive_response_for(sequence, LONG) as response:
            assert bytes(response.data) == b"\1\1\1"


def test_a_frame_that_nobody_has_any_more_is_released_with_its_last_view(server, client):
    server.start(nothing)
    view = np.asarray(client.call(b"abc", LONG))
    gc.collect()
    client.call(b"x", LONG).release()
    assert client.in_flight == 2 and bytes(view) == b"abc"
    del view
    client.call(b"x", LONG).release()
    assert client.in_flight == 1


def test_views_end_on_other_threads_while_calls_go_on(server, client):
    """Views that end anywhere, at any time: every answer is its own."""
    server.start(nothing)
    stop = threading.Event()
    kept, ended, wrong = [], [], []

    def call(number):
        data = bytes([number]) * 40
        while not stop.is_set():
            with client.call(data, LONG) as response:
                view = np.asarray(response)
            kept.append((view, data))
            if bytes(view) != data:
                wrong.append(data)
            if len(kept) > 20:
                view, data_then = kept.pop(0)
                if bytes(view) != data_then:
                    wrong.append(data_then)
                ended.append(len(data_then))
                del view

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONG
    while len(ended) < 2000 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(ended) >= 2000


@pytest.mark.parametrize("shape", [None, (2, 3), (3, -1), 6])
def test_an_array_has_its_shape_and_type_without_a_copy(server, client, shape):
    numbers = np.arange(6, dtype=np.float32)
    expected = numbers if shape is None else numbers.reshape(shape)
    with client.acquire_request_buffer(numbers.nbytes) as buffer:
        array = buffer.array(shape, np.float32)
        array[:] = expected
        assert array.shape == expected.shape and np.shares_memory(array, np.asarray(buffer))
    with server.receive(LONG) as request:
        array = request.array(shape, "float32")
        assert np.array_equal(array, expected)
        array += 1
        del array
    with client.receive_response_for(buffer.sequence, LONG) as response:
        assert np.array_equal(response.array(shape, np.float32), expected + 1)
        assert response.array().dtype == np.uint8
        with pytest.raises(ValueError, match="24 bytes"):
            response.array((5, 5), np.float32)
        with pytest.raises(ValueError, match="24 bytes"):
            response.array(None, np.dtype("V7"))
        with pytest.raises((TypeError, ValueError)):
            response.array(None, object)
    with pytest.raises(zerobuffer.InvalidState):
        response.array()


def test_an_empty_frame_is_an_empty_array(server, client):
    sequence = client.send_request(b"")
    with server.receive(LONG) as request:
        assert request.array((0, 3), np.float64).shape == (0, 3) and request.array().size == 0


def test_the_response_of_a_duplex_client_is_an_array_too(name):
    with FACTORY.create_in_place_duplex_server(name, SIZES) as server:
        server.start(nothing)
        with FACTORY.create_client(name) as client:
            with client.call(np.arange(4, dtype=np.int16), int(LONG * 1000)) as response:
                assert response.array((2, 2), np.int16).tolist() == [[0, 1], [2, 3]]
                assert np.asarray(response).tolist() == [0, 0, 1, 0, 2, 0, 3, 0]
            assert not response.is_valid and len(response) == 0 and "sequence=1" in repr(response)
            for use in (np.asarray, lambda response: response.array(), lambda response: np.asarray(response.data)):
                with pytest.raises(zerobuffer.InvalidState, match="disposed"):
                    use(response)


def test_numpy_says_when_a_frame_was_released(server, client):
    buffer = client.acquire_request_buffer(3)
    buffer.commit()
    request = server.receive(LONG)
    request.respond()
    response = client.receive_response_for(buffer.sequence, LONG)
    response.release()
    for released in (buffer, request, response):
        for read in (np.asarray, np.array, lambda frame: np.copyto(np.zeros(3, np.uint8), frame)):
            with pytest.raises(zerobuffer.InvalidState):
                read(released)


def test_a_frame_converts_itself_as_numpy_asks(server, client):
    server.start(nothing)
    with client.call(bytes([1, 2]), LONG) as response:
        assert response.__array__().tolist() == [1, 2]
        assert response.__array__(np.float64).dtype == np.float64
        assert not np.shares_memory(np.array(response), np.asarray(response))
        copy = response.__array__(copy=True)
        assert not np.shares_memory(copy, np.asarray(response))


@pytest.mark.parametrize("kind", VIEWS)
def test_a_shared_frame_of_version_1_is_released_when_its_last_view_goes_and_not_before(name, kind):
    with Reader(name, BufferConfig(64, 1024), copy=False) as reader, Writer(name) as writer:
        writer.write_timeout = timedelta(milliseconds=20)
        writer.write_frame(b"abc" * 200)
        with reader.read_frame(LONG) as frame:
            view = VIEWS[kind](frame) if kind != "typed array" else frame.array((150,), np.uint32)
            expected = bytes(view)
        for _ in range(3):
            with pytest.raises(zerobuffer.BufferFullException):
                writer.write_frame(b"xyz" * 200)
        assert bytes(view) == expected
        del view
        writer.write_frame(b"xyz" * 200)
        reader.read_frame(LONG).dispose()


@pytest.mark.parametrize("copy", [True, False])
def test_numpy_says_when_a_frame_of_version_1_was_disposed_of(name, copy):
    with Reader(name, SIZES, copy=copy) as reader, Writer(name) as writer:
        writer.write_frame(np.arange(6, dtype=np.int16))
        frame = reader.read_frame(LONG)
        assert frame.array((2, 3), np.int16).tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(ValueError, match="12 bytes"):
            frame.array((2, 2), np.int16)
        frame.dispose()
        for read in (np.asarray, np.array, lambda frame: frame.array()):
            with pytest.raises(ValueError, match="disposed"):
                read(frame)


class Cycle:
    """What only the collector ends."""

    def __init__(self, *held):
        self.held, self.me = held, self


def test_every_place_becomes_free_again_however_long_views_have_lived(name):
    """Arrays and frames on both sides, kept, dropped and left in cycles, by several threads; with a seed of its
    own, which ZEROBUFFER_TEST_SEED gives again."""
    seed = int(os.environ.get("ZEROBUFFER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"ZEROBUFFER_TEST_SEED={seed}")
    kept, wrong = [], []
    views = [*VIEWS.values(), lambda frame: frame.data, lambda frame: np.asarray(frame)[::-1]]

    def keep(frame, random):
        held = Cycle(random.choice(views)(frame), frame)
        if random.random() < 0.5:
            kept.append(held)

    def handler(request, random=Random(seed)):
        if random.random() < 0.1:
            keep(request, random)
        if random.random() < 0.1:
            raise ValueError
        if random.random() < 0.1:
            request.respond()
        else:
            request.array()[:] += 1

    def call(client, number):
        random = Random(seed + number)
        for _ in range(150):
            with client.acquire_request_buffer(3) as buffer:
                buffer.write(bytes([number] * 3))
                if random.random() < 0.3:
                    keep(buffer, random)
            try:
                with client.receive_response_for(buffer.sequence, 0.05) as response:
                    if bytes(response) not in (bytes([number] * 3), bytes([number + 1] * 3)):
                        wrong.append(bytes(response))
                    if random.random() < 0.3:
                        keep(response, random)
            except (zerobuffer.HandlerFailed, zerobuffer.Timeout):
                pass
            if random.random() < 0.05:
                kept.clear()
                gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with Server(name, SIZES, workers=2) as server, Client(name, LONG) as client:
            server.start(handler, lambda error: None)
            threads = [threading.Thread(target=call, args=(client, 10 * n)) for n in range(1, 4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            kept.clear()
            gc.collect()
            client.acquire_request_buffer(client.max_request_size).abandon()
    assert not wrong
