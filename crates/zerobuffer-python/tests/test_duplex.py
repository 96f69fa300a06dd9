"""One factory, three kinds of server, and one client that talks to all of them."""

import threading
import time

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, await_sleep, interrupted
from zerobuffer import BufferConfig
from zerobuffer._native import TwoBufferClient
from zerobuffer.duplex import DuplexChannelFactory, DuplexClient, IDuplexServer, ProcessingMode

MS = int(LONG * 1000)
SIZES = BufferConfig(4096, 1 << 20)
FACTORY = DuplexChannelFactory.get_instance()


def invert(request):
    np.invert(np.asarray(request), out=np.asarray(request))


def reply_inverted(frame, writer):
    writer.write_frame(~np.asarray(frame))


SERVERS = {
    "in place": (FACTORY.create_in_place_duplex_server, invert),
    "mutable": (FACTORY.create_mutable_server, invert),
    "immutable": (FACTORY.create_immutable_server, reply_inverted),
}


@pytest.fixture(params=SERVERS)
def server(request, name):
    create, handler = SERVERS[request.param]
    server = create(name, SIZES)
    server.start(handler)
    yield server
    server.stop()
    assert not server.is_running


@pytest.fixture
def client(server, name):
    options = {"timeout_ms": MS, "response_buffer": SIZES}
    with FACTORY.create_client(name, **options) as client:
        yield client


def test_the_client_is_the_same_for_every_kind(server, client):
    assert isinstance(server, IDuplexServer) and server.is_running
    assert client.is_in_place == isinstance(server, zerobuffer.InPlaceDuplexServer)
    assert client.is_server_connected and client.max_request_size > 500_000
    for data in (b"\1", bytes(100_000), np.arange(10, dtype=np.int32)):
        with client.call(data, MS) as response:
            assert response.to_bytes() == bytes(255 - byte for byte in bytes(data))
    first = client.send_request(b"\2")
    second, buffer = client.acquire_request_buffer(2)
    with pytest.raises(zerobuffer.ZeroBufferException):
        client.send_request(b"x")
    array = np.frombuffer(buffer, np.uint8)
    array[:] = 3
    client.commit_request()
    del array, buffer
    assert second == first + 1
    for sequence, expected in ((first, b"\xfd"), (second, b"\xfc\xfc")):
        response = client.receive_response_for(sequence, MS)
        assert (response.sequence, response.to_bytes()) == (sequence, expected)
        response.dispose()
    assert not client.receive_response(1).is_valid
    assert not client.cancel(second)
    abandoned = client.acquire_request_buffer(5)
    del abandoned


def test_requests_larger_than_everything_are_refused(server, client):
    with pytest.raises(zerobuffer.FrameTooLargeException):
        client.send_request(bytes(2 << 20))


def test_one_thread_receives_while_another_sends(server, client):
    received = []

    def receive():
        while len(received) < 200:
            with client.receive_response(MS) as response:
                received.append(response.sequence)

    thread = threading.Thread(target=receive)
    thread.start()
    for number in range(200):
        client.send_request(bytes([number]))
    thread.join()
    assert received == list(range(1, 201))


def test_a_failing_handler_in_place_tells_the_client(name):
    errors = []
    with FACTORY.create_in_place_duplex_server(name, SIZES, metadata=b"m") as server:
        server.add_error_handler(errors.append)
        server.start(lambda request: [][0])
        with FACTORY.create_client(name, metadata=b"own") as client:
            assert client.server_metadata == b"m"
            with pytest.raises(zerobuffer.HandlerFailed, match="list index out of range"):
                client.call(b"x" * 40, MS)
    assert isinstance(errors[0].exception, IndexError)


def test_a_failing_handler_of_a_mutable_server_closes_the_connection(name):
    errors = []

    def handler(request):
        assert request.metadata == b"own"
        if request.data[0] == 0:
            raise ValueError("refused")
        if request.data[0] == 1:
            request.fail("refused in other words")
        request.data[0] += 1 if not request.sequence == 0 and request.size else 0

    with FACTORY.create_mutable_server(name, SIZES) as server:
        server.add_error_handler(errors.append)
        server.start(handler)
        client = FACTORY.create_client(name, response_buffer=SIZES, metadata=b"own")
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"\0", MS)
        assert client.reconnect(MS) == []
        assert client.call(b"\5", MS).to_bytes() == b"\6"
        client.close()
    assert str(errors[0].exception) == "refused"


def test_a_call_of_another_thread_ends_when_the_client_of_two_buffers_reconnects(name):
    in_hand, let_go = threading.Event(), threading.Event()
    ended = []

    def handler(request):
        if request.data[0] == 0:
            in_hand.set()
            assert let_go.wait(LONG)

    def call():
        with pytest.raises(zerobuffer.InvalidState) as closed:
            client.call(b"\0", 4 * MS)
        ended.append(closed.value)
        let_go.set()

    with FACTORY.create_mutable_server(name, SIZES) as server:
        server.start(handler)
        with FACTORY.create_client(name, response_buffer=SIZES) as client:
            thread = threading.Thread(target=call)
            thread.start()
            assert in_hand.wait(LONG)
            assert client.reconnect(MS) == []
            thread.join(LONG)
            assert len(ended) == 1
            assert client.call(b"\1", MS).to_bytes() == b"\1"


@pytest.fixture
def busy(name):
    """A server of two buffers with little room, whose handler waits until it is let go, at the latest when what the
    test waits for has hung."""
    let_go = threading.Event()
    hung = threading.Timer(LONG, let_go.set)
    hung.start()

    def handler(request):
        assert let_go.wait(2 * LONG)

    with FACTORY.create_mutable_server(name, BufferConfig(64, 4096)) as server:
        server.start(handler)
        yield let_go
        let_go.set()
    hung.cancel()
    hung.join()


def native(name, **options):
    return TwoBufferClient(name, LONG, response_buffer=SIZES, **options)


def test_a_call_over_two_buffers_waits_for_room_no_longer_than_its_timeout(name, busy):
    # What is sent otherwise waits for ever.
    client = native(name, send_timeout=None)
    client.send_request(bytes(3000))
    for timeout in (0, 0.2):
        with pytest.raises(zerobuffer.Full):
            client.call(bytes(3000), timeout)
    assert not busy.is_set()
    client.close()


def test_a_call_over_two_buffers_waits_for_its_response_for_what_is_left_of_its_timeout(name):
    room, let_go = threading.Event(), threading.Event()
    too_late = threading.Timer(6.4, let_go.set)

    def handler(request):
        assert (let_go if request.sequence == 2 else room).wait(LONG)

    with FACTORY.create_mutable_server(name, BufferConfig(64, 4096)) as server:
        server.start(handler)
        client = native(name)
        client.send_request(bytes(3000))
        too_late.start()
        making_room = threading.Timer(3, room.set)
        making_room.start()
        with pytest.raises(zerobuffer.Timeout) as late:
            client.call(bytes(3000), 4)
        assert not let_go.is_set() and late.value.waited == 4
        # It was cancelled.
        with pytest.raises(zerobuffer.UnknownSequence):
            client.receive_response_for(2, LONG)
        let_go.set()
        client.close()
        for timer in (too_late, making_room):
            timer.cancel()
            timer.join()


def test_a_call_over_two_buffers_without_any_time_leaves_no_request(name, busy):
    client = native(name)
    with pytest.raises(zerobuffer.Timeout):
        client.call(b"x", 0)
    with pytest.raises(zerobuffer.UnknownSequence):
        client.receive_response_for(1, LONG)
    client.close()


HANGING = """
import sys
from zerobuffer import BufferConfig
from zerobuffer.duplex import DuplexChannelFactory
with DuplexChannelFactory.get_instance().create_mutable_server(sys.argv[1], BufferConfig(64, 4096)) as server:
    server.start(lambda request: None)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hanging(name, child):
    """A server of two buffers that hangs once it is suspended, until the end of the test."""
    server = child(HANGING, name)
    assert server.line() == "ready"
    yield server
    server.resume()
    server.finish()


def test_closing_ends_a_reconnection_to_a_server_of_two_buffers_that_hangs(name, hanging):
    client = DuplexClient(name, timeout_ms=MS, response_buffer=SIZES)
    hanging.suspend()
    ended = []

    def reconnect():
        with pytest.raises(zerobuffer.Closed) as closed:
            client.reconnect(4 * MS)
        ended.append(closed.value)

    thread = threading.Thread(target=reconnect)
    thread.start()
    await_sleep(thread)
    client.close()
    thread.join(LONG)
    assert len(ended) == 1


def test_ctrl_c_ends_a_wait_for_a_server_of_two_buffers_that_hangs(name, hanging, ctrl_c):
    hanging.suspend()
    interrupted(lambda: DuplexClient(name, timeout_ms=2 * MS, response_buffer=SIZES))


def test_without_a_server_the_client_says_so_at_the_deadline(name):
    start = time.monotonic()
    with pytest.raises(zerobuffer.NotRunning):
        FACTORY.create_client(name)
    with pytest.raises(zerobuffer.NotRunning):
        DuplexClient(name, timeout_ms=100)
    assert time.monotonic() - start >= 0.1


def test_an_immutable_server_waits_for_the_client_that_comes_back(name):
    server = FACTORY.create_immutable_server(name, SIZES, timeout=LONG)
    server.start(reply_inverted)
    # A client that makes its response buffer, and goes before it sends anything.
    with zerobuffer.Reader(f"{name}_response", SIZES) as responses:
        assert responses.is_writer_connected(timeout_ms=MS)
    with FACTORY.create_client(name, response_buffer=SIZES, timeout_ms=MS) as client:
        assert client.call(b"\0", MS).to_bytes() == b"\xff"
    server.stop()


def test_modes_that_are_not_there_are_refused(name):
    with FACTORY.create_in_place_duplex_server(name, SIZES) as server:
        with pytest.raises(NotImplementedError, match="workers"):
            server.start(invert, ProcessingMode.THREAD_POOL)
        with pytest.raises(ValueError):
            server.start(invert, "single_thread")


def test_the_default_response_buffer_takes_what_existing_clients_take(name):
    with FACTORY.create_mutable_server(name, BufferConfig(64, 16 << 20)) as server:
        server.start(invert)
        with FACTORY.create_client(name) as client:
            with client.call(bytes(8 << 20), MS) as response:
                assert len(response) == 8 << 20 and response.data[-1] == 255


def test_a_client_that_leaves_is_told_to_error_handlers_and_is_no_error_in_the_log(name, caplog):
    errors = []
    server = FACTORY.create_immutable_server(name, SIZES)
    server.add_error_handler(errors.append)
    server.start(reply_inverted)
    with FACTORY.create_client(name, timeout_ms=MS, response_buffer=SIZES) as client:
        client.call(b"x", MS).dispose()
    deadline = time.monotonic() + LONG
    while server.is_running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.is_running
    assert [type(error.exception) for error in errors] == [zerobuffer.WriterDeadException]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
