"""The in-place channel: client and server."""

import functools
import subprocess
import threading
import time

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, WATCHDOG
from zerobuffer import BufferConfig, Client, RequestState, Server

SMALL = BufferConfig(256, 4096)


async def coroutine(request):
    pass


def generator(request):
    yield


async def asynchronous_generator(request):
    yield


class Asynchronous:
    async def __call__(self, request):
        pass


def invert(request):
    array = np.asarray(request)
    np.invert(array, out=array)


@pytest.fixture
def server(name):
    with Server(name, SMALL, metadata=b"of the server") as server:
        yield server


@pytest.fixture
def client(server, name):
    with Client(name, LONG, metadata=b"of the client") as client:
        yield client


def test_a_call_returns_what_the_handler_has_made_of_the_request(server, client):
    server.start(invert)
    for data in (b"\x00\x01", bytearray(3), memoryview(b"abcd")[1:], np.arange(5, dtype="<u4")):
        with client.call(data, LONG) as response:
            expected = bytes(255 - byte for byte in bytes(data))
            assert bytes(response) == expected == bytes(response.data)
            assert len(response) == len(expected)


def test_data_that_is_not_contiguous_is_sent_in_its_logical_order(server, client):
    server.start(lambda request: None)
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for view in (array[:, ::2], array.T, memoryview(bytes(range(10)))[::3]):
        assert bytes(client.call(view, LONG)) == memoryview(view).tobytes()
    with pytest.raises(TypeError):
        client.call("text", LONG)
    with pytest.raises(TypeError):
        client.send_request([1, 2])


def test_both_sides_see_each_others_metadata(server, client):
    seen = []
    server.start(lambda request: seen.append(request.metadata))
    client.call(b"x", LONG).release()
    assert (client.server_metadata, seen) == (b"of the server", [b"of the client"])


def test_answers_come_by_their_sequence_or_as_they_come(server, client):
    sequences = [client.send_request(bytes([number])) for number in range(4)]
    assert sequences == [1, 2, 3, 4]
    taken = [server.receive(LONG) for _ in sequences]
    for request in reversed(taken):
        request.respond()
    third = client.receive_response_for(3, LONG)
    rest = [client.receive_response(LONG) for _ in range(3)]
    assert bytes(third) == b"\x02"
    assert sorted((r.sequence, bytes(r)) for r in rest) == [(1, b"\0"), (2, b"\1"), (4, b"\3")]
    with pytest.raises(zerobuffer.UnknownSequence) as unknown:
        client.receive_response_for(3, LONG)
    assert unknown.value.sequence == 3


def test_a_request_is_written_where_the_server_edits_it(server, client):
    server.start(invert)
    with client.acquire_request_buffer(8, capacity=100, alignment=64) as buffer:
        assert buffer.capacity >= 100
        with pytest.raises(zerobuffer.ClaimOpen):
            client.send_request(b"x")
        np.asarray(buffer)[:] = 7
        buffer.resize(4)
        assert len(buffer) == 4
        written = np.asarray(buffer).ctypes.data
    with client.receive_response_for(buffer.sequence, LONG) as response:
        assert bytes(response) == b"\xf8" * 4
        assert np.asarray(response).ctypes.data == written
    with pytest.raises(zerobuffer.InvalidState):
        buffer.commit()


def test_a_request_buffer_sends_nothing_when_its_block_is_left_by_an_exception(server, client):
    server.start(invert)
    with pytest.raises(KeyError):
        with client.acquire_request_buffer(8) as buffer:
            view = np.asarray(buffer)
            raise KeyError("out")
    with pytest.raises(zerobuffer.InvalidState):
        memoryview(buffer)
    assert bytes(client.call(b"\0", LONG)) == b"\xff"
    assert len(view) == 8


def test_answers_may_be_longer_and_shorter_than_their_requests(server, client):
    def handler(request):
        size = request.size
        with pytest.raises(zerobuffer.TooLarge):
            request.resize(request.capacity + 1)
        request.resize(size + 3 if size == 5 else 1)

    server.start(handler)
    with client.acquire_request_buffer(5, capacity=8) as buffer:
        buffer.data[:] = b"hello"
    assert bytes(client.receive_response_for(buffer.sequence, LONG)) == b"hello\0\0\0"
    assert bytes(client.call(b"ab", LONG)) == b"a"


def test_a_handlers_exception_reaches_the_client_with_its_message(server, client):
    reported = []

    def handler(request):
        array = np.asarray(request)
        if array[0] == 0:
            raise LookupError("refused on request")
        raise ValueError

    server.start(handler, reported.append)
    with pytest.raises(zerobuffer.HandlerFailed, match="refused on request") as failed:
        client.call(b"\0" * 20, LONG)
    assert (failed.value.sequence, failed.value.status) == (1, 1)
    assert failed.value.message == "LookupError: refused on request"
    with pytest.raises(zerobuffer.HandlerFailed, match="ValueError"):
        client.call(b"\1" * 40, LONG)
    assert [type(error) for error in reported] == [LookupError, ValueError]


def test_a_handlers_exception_is_logged_with_its_traceback_and_told_with_its_type(server, client, caplog):
    def handler(request):
        array = np.asarray(request)
        return array[0] / (1 // int(array[1]))

    server.start(handler)
    with pytest.raises(zerobuffer.HandlerFailed, match="ZeroDivisionError: integer division"):
        client.call(b"\1\0" * 40, LONG)
    deadline = time.monotonic() + LONG
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.001)
    [record] = caplog.records
    assert record.name == "zerobuffer.server" and record.exc_info[0] is ZeroDivisionError
    assert "return array[0] / (1 // int(array[1]))" in caplog.text


def test_a_handlers_exception_is_seen_without_any_configuration(child, name):
    """The server of a first hour: nobody has set up logging."""
    program = f"""
from zerobuffer import BufferConfig, Client, Server
with Server({name!r}, BufferConfig(64, 4096)) as server, Client({name!r}, {LONG}) as client:
    server.start(lambda request: undefined)
    try:
        client.call(bytes(100), {LONG})
    except Exception as error:
        print(error)
"""
    started = child(program, stderr=subprocess.PIPE)
    output, errors = started.process.communicate(timeout=WATCHDOG)
    assert "NameError: name 'undefined' is not defined" in output.decode()
    assert "Traceback" in errors.decode() and "NameError" in errors.decode()


NO_HANDLERS = {
    "nothing": None,
    "a result": b"bytes",
    "a coroutine function": coroutine,
    "a part of a coroutine function": functools.partial(coroutine),
    "an object with a coroutine function": Asynchronous(),
    "a method that is one": Asynchronous().__call__,
    "a generator function": generator,
    "an asynchronous generator function": asynchronous_generator,
}


@pytest.mark.parametrize("kind", NO_HANDLERS)
def test_what_can_handle_no_request_is_refused_at_the_start(server, kind):
    with pytest.raises(TypeError):
        server.start(NO_HANDLERS[kind])
    # It is unchanged.
    server.start(invert)


NO_RESULTS = {
    "bytes": lambda request: bytes(3),
    "another array": lambda request: ~np.asarray(request),
    "a number": lambda request: 1,
    "a coroutine": lambda request: coroutine(request),
    "a generator": lambda request: generator(request),
}


@pytest.mark.parametrize("kind", NO_RESULTS)
@pytest.mark.filterwarnings("error")
def test_a_handler_whose_result_nobody_gets_has_failed(server, client, kind):
    reported = []
    server.start(NO_RESULTS[kind], reported.append)
    with pytest.raises(zerobuffer.HandlerFailed, match="TypeError: handler returned"):
        client.call(b"x" * 100, LONG)
    assert [type(error) for error in reported] == [TypeError]


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_handler_may_return_what_it_has_edited(server, client, size):
    server.start(lambda request: np.invert(request.array(), out=request.array()))
    assert bytes(client.call(bytes(size), LONG)) == b"\xff" * size


def test_several_workers_answer_out_of_order(name):
    slow_may_end = threading.Event()

    def handler(request):
        if request.data[0] == 0:
            assert slow_may_end.wait(LONG)

    with Server(name, SMALL, workers=2) as server, Client(name, LONG) as client:
        server.start(handler)
        slow, quick = client.send_request(b"\0"), client.send_request(b"\1")
        assert client.receive_response(LONG).sequence == quick
        slow_may_end.set()
        assert client.receive_response_for(slow, LONG).sequence == slow


def test_requests_are_taken_by_iteration_and_answered_by_with_blocks(server, client):
    def serve():
        for request in server:
            with request:
                if request.data[0] == 9:
                    raise RuntimeError("nine")
                request.data[0] += 1

    def run():
        with pytest.raises(RuntimeError):
            serve()
        serve()

    thread = threading.Thread(target=run)
    thread.start()
    assert bytes(client.call(b"\1", LONG)) == b"\2"
    with pytest.raises(zerobuffer.HandlerFailed, match="nine"):
        client.call(b"\x09", LONG)
    assert bytes(client.call(b"\3", LONG)) == b"\4"
    server.stop()
    thread.join(LONG)
    assert not thread.is_alive()


def test_a_request_is_answered_once_and_fails_if_it_is_forgotten(server, client):
    first, second = client.send_request(b"1" * 40), client.send_request(b"2" * 40)
    request = server.receive(LONG)
    request.fail("of my own")
    with pytest.raises(zerobuffer.InvalidState):
        request.respond()
    with pytest.raises(zerobuffer.HandlerFailed, match="of my own"):
        client.receive_response_for(first, LONG)
    del request
    server.receive(LONG)
    with pytest.raises(zerobuffer.HandlerFailed, match="unanswered") as dropped:
        client.receive_response_for(second, LONG)
    assert dropped.value.status == 3


def test_timeouts_say_how_long_they_were_and_a_late_answer_is_swallowed(server, client):
    with pytest.raises(zerobuffer.Timeout) as late:
        client.call(b"x", 0.15)
    assert late.value.waited == 0.15 and isinstance(late.value, TimeoutError)
    sequence = client.send_request(b"x")
    taken = server.receive(LONG)
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response_for(sequence, 0.12)
    taken.respond()
    with pytest.raises(zerobuffer.UnknownSequence):
        client.receive_response_for(sequence, LONG)
    sequence = client.send_request(b"y")
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response_for(sequence, 0)
    server.receive(LONG).respond()
    assert client.receive_response(LONG).sequence == sequence
    with pytest.raises(zerobuffer.Timeout):
        client.receive_response(-1)
    with pytest.raises(zerobuffer.Timeout):
        server.receive(0.01)
    with pytest.raises(ValueError):
        client.receive_response(float("nan"))


def test_a_cancelled_request_is_not_answered(server, client):
    sequence = client.send_request(b"x")
    assert client.cancel(sequence) and not client.cancel(sequence)
    with pytest.raises(zerobuffer.UnknownSequence):
        client.receive_response_for(sequence, LONG)


def test_a_full_ring_and_a_request_beyond_it_are_told_apart(server, name):
    with Client(name, LONG, send_timeout=0.05) as client:
        client.send_request(bytes(3000))
        with pytest.raises(zerobuffer.Full) as full:
            client.send_request(bytes(3000))
        facts = full.value
        assert facts.needed > facts.free and facts.in_flight == 1
        assert isinstance(facts, zerobuffer.BufferFullException)
        with pytest.raises(zerobuffer.TooLarge) as too_large:
            client.send_request(bytes(5000))
        assert (too_large.value.asked, too_large.value.max) == (5000, client.max_request_size)


def test_many_threads_call_one_client_at_the_same_time(name):
    with Server(name, BufferConfig(64, 1 << 16), workers=2) as server, Client(name, LONG) as client:
        server.start(invert)
        wrong = []

        def work(number):
            for turn in range(300):
                data = bytes([number, turn % 256]) * 20
                with client.call(data, LONG) as response:
                    if bytes(response) != bytes(255 - byte for byte in data):
                        wrong.append((number, turn))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and client.in_flight <= 6


def test_one_thread_sends_while_another_receives(server, client):
    server.start(invert)
    received = []

    def receive():
        for _ in range(500):
            with client.receive_response(LONG) as response:
                received.append(response.sequence)

    thread = threading.Thread(target=receive)
    thread.start()
    for number in range(500):
        client.send_request(bytes([number % 256]))
    thread.join()
    assert sorted(received) == list(range(1, 501))


def test_other_threads_run_while_one_waits(server, client):
    counted = 0
    done = threading.Event()
    thread = threading.Thread(target=lambda: (time.sleep(0.3), done.set()))
    waiter = threading.Thread(target=lambda: pytest.raises(zerobuffer.Timeout, client.receive_response, 0.3))
    waiter.start()
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.001)
    waiter.join()
    thread.join()
    assert counted > 20


def test_names_and_configurations_are_checked(name):
    with pytest.raises(zerobuffer.BadName) as bad:
        Client("a/b", 0)
    assert isinstance(bad.value, ValueError) and bad.value.name == "a/b"
    with pytest.raises(zerobuffer.NotRunning) as none:
        Client(name, 0.06)
    assert none.value.name == name
    with pytest.raises(zerobuffer.BadConfig) as workers:
        Server(name, SMALL, workers=0)
    assert (workers.value.what, workers.value.asked) == ("workers", 0)
    with pytest.raises(ValueError, match="'default', 'park', 'spin'"):
        Server(name, SMALL, wait="sleep")
    with Server(name, SMALL) as server, Client(name, LONG):
        with pytest.raises(zerobuffer.AlreadyRunning):
            Server(name, SMALL)
        with pytest.raises(zerobuffer.Busy):
            Client(name, 0)
        assert server.is_client_connected


def test_what_is_closed_says_so(server, client):
    server.start(invert)
    with pytest.raises(zerobuffer.InvalidState):
        server.start(invert)
    with pytest.raises(zerobuffer.InvalidState):
        server.receive(0)
    assert server.is_running and client.is_server_connected
    response = client.call(b"\0", LONG)
    client.close()
    client.close()
    assert bytes(response) == b"\xff" and not client.is_server_connected
    for use in (client.send_request, client.call):
        with pytest.raises(zerobuffer.InvalidState, match="closed"):
            use(b"x")
    server.stop()
    server.stop()
    assert not server.is_running
    with pytest.raises(zerobuffer.InvalidState):
        server.start(invert)


def test_closing_a_client_ends_the_calls_of_other_threads(server, client):
    ended = []

    def call():
        with pytest.raises(zerobuffer.ZeroBufferException) as error:
            client.call(b"x", None)
        ended.append(error.value)

    thread = threading.Thread(target=call)
    thread.start()
    request = server.receive(LONG)
    client.close()
    thread.join(LONG)
    assert ended and isinstance(ended[0], zerobuffer.Closed)
    request.respond()


def test_a_restarted_server_is_reached_again_and_lost_requests_are_listed(name):
    first = Server(name, SMALL)
    with Client(name, LONG) as client:
        sent = client.send_request(b"x")
        first.stop()
        with pytest.raises(zerobuffer.NotRunning):
            client.reconnect(0)
        with Server(name, SMALL, metadata=b"second") as second:
            second.start(invert)
            assert client.reconnect(LONG) == [
                zerobuffer.LostRequest(sent, RequestState.NOT_STARTED)
            ]
            assert client.server_metadata == b"second"
            assert bytes(client.call(b"\0", LONG)) == b"\xff"
        with pytest.raises(zerobuffer.PeerClosed) as closed:
            client.call(b"y", LONG)
        assert isinstance(closed.value, zerobuffer.WriterDeadException)
        assert closed.value.closed


@pytest.mark.parametrize("resends", [False, True])
def test_a_call_after_the_servers_end_says_that_it_was_not_started(name, resends):
    server = Server(name, SMALL)
    with Client(name, LONG, resend_not_started=resends) as client:
        server.stop()
        for _ in range(2):
            with pytest.raises(zerobuffer.PeerClosed) as closed:
                client.call(b"x", 0.05)
            assert closed.value.state == zerobuffer.RequestState.NOT_STARTED
        assert closed.value.sequence == 0


def test_a_call_is_sent_again_to_the_next_server_if_the_client_is_told_to(name):
    first = Server(name, SMALL)
    with Client(name, LONG, resend_not_started=True) as client:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(bytes(client.call(b"\0", LONG))))
        thread.start()
        while client.in_flight == 0:
            time.sleep(0.001)
        first.stop()
        with Server(name, SMALL) as second:
            second.start(invert)
            thread.join(LONG)
            assert answers == [b"\xff"]


def test_an_old_request_never_gets_the_answer_of_a_new_one_after_another_threads_reconnection(name):
    first = Server(name, SMALL)
    with Client(name, LONG) as client:
        ended = []

        def call():
            with pytest.raises(zerobuffer.PeerClosed) as closed:
                client.call(b"called", None)
            ended.append(closed.value)

        caller = threading.Thread(target=call)
        caller.start()
        taken = first.receive(LONG)
        old = client.send_request(b"old")
        first.stop()
        with Server(name, SMALL) as second:
            second.start(invert)
            reconnecting = threading.Thread(target=lambda: client.reconnect(LONG))
            reconnecting.start()
            reconnecting.join(LONG)
            del taken
            new = [client.send_request(data) for data in (b"one", b"two", b"three")]
            assert not set(new) & {1, old}
            with pytest.raises(zerobuffer.PeerClosed) as closed:
                client.receive_response_for(old, LONG)
            assert (closed.value.sequence, closed.value.state) == (old, RequestState.NOT_STARTED)
            with pytest.raises(zerobuffer.UnknownSequence):
                client.receive_response_for(old, LONG)
            caller.join(LONG)
            assert [error.sequence for error in ended] == [1]
            for sequence, data in zip(new, (b"one", b"two", b"three")):
                with client.receive_response_for(sequence, LONG) as response:
                    assert bytes(response) == bytes(255 - byte for byte in data)
                    assert response.sequence == sequence


def stopping(server):
    thread = threading.Thread(target=server.stop)
    thread.start()
    return thread


def test_a_handler_finishes_its_response_while_its_server_stops(server, client):
    began = threading.Event()

    def handle(request):
        began.set()
        while server.is_running:
            time.sleep(0.001)
        for at in range(len(request)):
            if request.cancelled:
                return
            request.data[at] ^= 0xFF

    server.start(handle)
    sequence = client.send_request(b"\x01" * 1000)
    assert began.wait(LONG)
    stop = stopping(server)
    with client.receive_response_for(sequence, LONG) as response:
        assert bytes(response) == b"\xfe" * 1000
    stop.join()


def test_nothing_comes_of_a_handler_that_is_in_its_work_past_the_stop_timeout(name):
    began, ended = threading.Event(), threading.Event()

    def handle(request):
        began.set()
        while not request.cancelled:
            request.data[0] ^= 1
            time.sleep(0.001)
        ended.set()

    with Server(name, SMALL, stop_timeout=0.02) as server:
        server.start(handle)
        with Client(name, LONG) as client:
            sequence = client.send_request(b"\0")
            assert began.wait(LONG)
            server.stop()
            assert ended.wait(LONG)
            with pytest.raises(zerobuffer.PeerClosed) as closed:
                client.receive_response_for(sequence, LONG)
            assert closed.value.state is RequestState.IN_DOUBT
