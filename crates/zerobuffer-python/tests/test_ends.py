"""Ends of objects: by the collector, twice, while they are used, and while somebody waits for them."""

import asyncio
import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, nothing, until
from zerobuffer import AsyncClient, AsyncServer, BufferConfig, Client, Server
from zerobuffer.duplex import DuplexChannelFactory

SMALL = BufferConfig(64, 4096)
FACTORY = DuplexChannelFactory.get_instance()


def objects(name):
    return [path.name for path in Path("/dev/shm").iterdir() if name in path.name]


SERVERS = {
    "in place": lambda name: Server(name, SMALL),
    "in place, of the factory": lambda name: FACTORY.create_in_place_duplex_server(name, SMALL),
    "two buffers": lambda name: FACTORY.create_mutable_server(name, SMALL),
}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("started", [False, True])
def test_a_server_that_is_collected_stops(name, kind, started):
    server = SERVERS[kind](name)
    if started:
        server.start(nothing)
        with FACTORY.create_client(name, response_buffer=SMALL) as client:
            client.call(b"x", int(LONG * 1000)).dispose()
    # Between two clients a server has no names for a moment.
    until(lambda: objects(name))
    del server
    gc.collect()

    def has_released_the_name():
        try:
            SERVERS[kind](name).stop()
        except zerobuffer.AlreadyRunning:
            return False
        return True

    until(has_released_the_name)
    until(lambda: not objects(name))


def test_a_server_that_is_collected_while_a_client_is_attached_tells_it(name):
    server = Server(name, SMALL)
    server.start(nothing)
    with Client(name, LONG) as client:
        client.call(b"x", LONG).release()
        del server
        gc.collect()
        until(lambda: not client.is_server_connected)
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"x", LONG)


def test_a_server_whose_handler_lets_go_of_it_stops(name):
    holder = [Server(name, SMALL)]
    holder[0].start(lambda request: holder.clear())
    with Client(name, LONG) as client:
        client.call(b"x", LONG).release()
        until(lambda: not client.is_server_connected)
    until(lambda: not objects(name))


def test_a_server_of_asyncio_that_is_collected_stops(name):
    async def main():
        server = AsyncServer(name, SMALL)
        client = await AsyncClient.connect(name)
        call = asyncio.create_task(client.call(b"x", LONG))
        with await server.receive() as request:
            del request
        (await call).release()
        del server
        gc.collect()
        await asyncio.to_thread(until, lambda: not client.is_server_connected)
        await client.close()

    asyncio.run(main())
    until(lambda: not objects(name))


def test_a_client_of_asyncio_that_is_collected_makes_room_for_the_next(name):
    async def main():
        client = await AsyncClient.connect(name)
        (await client.call(b"x", LONG)).release()
        del client
        gc.collect()
        async with await AsyncClient.connect(name, LONG) as client:
            (await client.call(b"x", LONG)).release()

    with Server(name, SMALL) as server:
        server.start(nothing)
        asyncio.run(main())


def test_a_cell_that_is_run_again_replaces_its_server(name):
    seen = []
    for run in range(3):
        server = Server(name, SMALL, replace=True)
        server.start(lambda request, run=run: seen.append(run))
        with Client(name, LONG) as client:
            client.call(b"x", LONG).release()
        former = server
    assert seen == [0, 1, 2] and former.is_running
    # Between two clients a server has no names for a moment, and another one could take them.
    with Client(name, LONG), pytest.raises(zerobuffer.AlreadyRunning):
        Server(name, SMALL)
    server.stop()


def test_only_servers_of_this_process_are_replaced(name, child):
    other = child(
        "import sys\n"
        "from zerobuffer import BufferConfig, Server\n"
        "with Server(sys.argv[1], BufferConfig(64, 4096)):\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n",
        name,
    )
    assert other.line() == "up"
    with pytest.raises(zerobuffer.AlreadyRunning):
        Server(name, SMALL, replace=True)
    other.finish()


CLIENTS = {
    "in place": FACTORY.create_in_place_duplex_server,
    "two buffers": FACTORY.create_mutable_server,
}


@pytest.fixture(params=CLIENTS)
def native(request, name):
    with CLIENTS[request.param](name, SMALL) as server:
        server.start(nothing)
        with FACTORY.create_client(name, response_buffer=SMALL) as client:
            yield client._native


def test_a_request_buffer_that_is_collected_does_not_block_its_client(native):
    native.acquire_request_buffer(10)
    gc.collect()
    assert bytes(native.call(b"x", LONG)) == b"x"
    view = np.asarray(native.acquire_request_buffer(10))
    del view
    gc.collect()
    assert bytes(native.call(b"y", LONG)) == b"y"


def release(response):
    # With two buffers it is a frame.
    response.release() if isinstance(response, zerobuffer.Response) else response.dispose()


def test_what_has_ended_ends_again_without_harm(native):
    buffer = native.acquire_request_buffer(1)
    buffer.commit()
    uses = [buffer.commit, lambda: buffer.write(b"x"), lambda: buffer.data, lambda: memoryview(buffer)]
    if isinstance(buffer, zerobuffer.RequestBuffer):
        uses.append(lambda: buffer.resize(1))
    for again in uses:
        with pytest.raises(zerobuffer.InvalidState):
            again()
    buffer.abandon()
    response = native.receive_response_for(buffer.sequence, LONG)
    release(response)
    release(response)
    with response:
        pass
    assert bytes(native.call(b"x", LONG)) == b"x"
    native.close()
    native.close()
    release(response)
    for use in (native.send_request, native.call, lambda data: native.acquire_request_buffer(1)):
        with pytest.raises(zerobuffer.ZeroBufferException):
            use(b"x")


def test_a_buffer_that_is_written_while_another_thread_commits_it_is_sent_once(native):
    data = bytes(500)
    for _ in range(100):
        buffer = native.acquire_request_buffer(len(data))
        committed = []

        def commit(buffer=buffer, committed=committed):
            try:
                committed.append(buffer.commit())
            except zerobuffer.InvalidState:
                pass

        threads = [threading.Thread(target=commit) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            buffer.write(data)
        except zerobuffer.InvalidState:
            pass
        for thread in threads:
            thread.join()
        assert len(committed) == 1
        release(native.receive_response_for(committed[0], LONG))


def test_a_request_is_answered_once_by_the_first_that_tries(name):
    with Server(name, SMALL) as server, Client(name, LONG) as client:
        for _ in range(100):
            sequence = client.send_request(b"x" * 50)
            request = server.receive(LONG)
            ended = []

            def end(how, request=request, ended=ended):
                try:
                    how()
                    ended.append(how)
                except zerobuffer.InvalidState:
                    pass

            ways = (request.respond, lambda: request.fail("late"))
            threads = [threading.Thread(target=end, args=(way,)) for way in ways]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(ended) == 1
            try:
                client.receive_response_for(sequence, LONG).release()
            except zerobuffer.HandlerFailed:
                pass


def calling(call):
    """Runs a call on a thread of its own; how it has ended is in the list."""
    ended = []

    def run():
        try:
            call()
            ended.append(None)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


WAITS = {
    "receive": lambda client, sequence: client.receive_response(None),
    "receive one": lambda client, sequence: client.receive_response_for(sequence, None),
    "call": lambda client, sequence: client.call(b"x", None),
}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("wait", WAITS)
def test_closing_a_client_ends_the_waits_of_other_threads(name, kind, wait):
    in_hand, let_go = threading.Event(), threading.Event()

    def handler(request):
        in_hand.set()
        assert let_go.wait(LONG)

    with CLIENTS[kind](name, SMALL) as server:
        server.start(handler)
        with FACTORY.create_client(name, response_buffer=SMALL) as client:
            native = client._native
            sequence = native.send_request(b"x")
            assert in_hand.wait(LONG)
            thread, ended = calling(lambda: WAITS[wait](native, sequence))
            time.sleep(0.05)
            native.close()
            thread.join(LONG)
            assert isinstance(ended[0], zerobuffer.ZeroBufferException)
            let_go.set()


@pytest.mark.parametrize("take", [lambda server: server.receive(None), lambda server: next(server)])
def test_stopping_a_server_ends_the_waits_of_other_threads(name, take):
    server = Server(name, SMALL)
    thread, ended = calling(lambda: take(server))
    time.sleep(0.05)
    server.stop()
    thread.join(LONG)
    assert isinstance(ended[0], (zerobuffer.InvalidState, StopIteration))


def free_for(name, timeout=LONG):
    """Another client gets the channel, so nobody has it."""
    Client(name, timeout).close()


def test_a_client_that_is_closed_stays_closed_against_a_reconnection_under_way(name):
    for _ in range(5):
        server = Server(name, SMALL)
        client = Client(name, LONG)
        server.stop()
        thread, ended = calling(lambda client=client: client.reconnect(None))
        time.sleep(0.1)
        client.close()
        thread.join(LONG)
        assert isinstance(ended[0], zerobuffer.Closed)
        with Server(name, SMALL):
            time.sleep(0.1)
            free_for(name, 1)
        for use in (lambda: client.reconnect(LONG), lambda: client.call(b"x"), lambda: client.receive_response(0)):
            with pytest.raises(zerobuffer.Closed):
                use()


def test_a_call_that_is_sent_again_does_not_open_what_was_closed(name):
    server = Server(name, SMALL)
    client = Client(name, LONG, resend_not_started=True)
    thread, ended = calling(lambda: client.call(b"x", None))
    until(lambda: client.in_flight == 1)
    server.stop()
    time.sleep(0.1)
    client.close()
    thread.join(LONG)
    assert isinstance(ended[0], zerobuffer.Closed)
    with Server(name, SMALL):
        time.sleep(0.1)
        free_for(name, 1)


def test_a_client_of_two_buffers_that_is_closed_stays_closed_against_a_reconnection_under_way(name):
    server = FACTORY.create_mutable_server(name, SMALL)
    server.start(nothing)
    client = FACTORY.create_client(name, response_buffer=SMALL)
    server.stop()
    thread, ended = calling(lambda: client.reconnect(3_600_000))
    time.sleep(0.1)
    client.close()
    thread.join(LONG)
    assert isinstance(ended[0], zerobuffer.Closed)
    with FACTORY.create_mutable_server(name, SMALL) as server:
        server.start(nothing)
        with FACTORY.create_client(name, response_buffer=SMALL, timeout_ms=int(LONG * 1000)) as other:
            assert other.call(b"x", int(LONG * 1000)).to_bytes() == b"x"


def test_a_client_of_asyncio_that_is_closed_stays_closed_against_a_reconnection_under_way(name):
    async def main():
        server = Server(name, SMALL)
        client = await AsyncClient.connect(name)
        await asyncio.to_thread(server.stop)
        reconnection = asyncio.create_task(client.reconnect(None))
        waiting = asyncio.create_task(client.call(b"x", LONG))
        await asyncio.sleep(0.1)
        await client.close()
        for task in (reconnection, waiting):
            with pytest.raises(zerobuffer.Closed):
                await task
        server = Server(name, SMALL)
        await asyncio.sleep(0.1)
        free_for(name, 1)
        await asyncio.to_thread(server.stop)

    asyncio.run(asyncio.wait_for(main(), 4 * LONG))


def test_a_server_that_is_collected_as_the_interpreter_exits_leaves_nothing(name, child):
    """Its threads have not yet noticed that nobody has it."""
    started = child(
        "import sys\n"
        "from zerobuffer import BufferConfig, Server\n"
        "server = Server(sys.argv[1], BufferConfig(64, 4096), workers=2)\n"
        "server.start(lambda request: None)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
        "del server\n",
        name,
    )
    assert started.line() == "up" and objects(name)
    started.finish()
    assert not objects(name)


@pytest.mark.parametrize("side", ["request", "request buffer"])
def test_a_refused_call_does_not_stop_other_threads_that_look_at_its_object(name, side, monkeypatch):
    """Making an exception runs Python, where another thread may get the interpreter lock."""
    inside, looked = threading.Event(), threading.Event()
    plain = zerobuffer.FrameTooLargeException.__init__

    def slow(error, *arguments):
        inside.set()
        assert looked.wait(LONG), "the other thread waits for this one"
        plain(error, *arguments)

    def look(object):
        assert inside.wait(LONG)
        len(object)
        looked.set()

    with Server(name, SMALL) as server, Client(name, LONG) as client:
        buffer = client.acquire_request_buffer(1)
        frame = buffer
        if side == "request":
            buffer.commit()
            frame = server.receive(LONG)
        monkeypatch.setattr(zerobuffer.FrameTooLargeException, "__init__", slow)
        looker = threading.Thread(target=look, args=(frame,))
        looker.start()
        with pytest.raises(zerobuffer.TooLarge):
            frame.resize(1 << 40)
        looker.join(LONG)
        frame.respond() if side == "request" else frame.abandon()


def test_data_that_was_released_is_made_anew_though_a_slice_of_it_lives(name):
    with Server(name, SMALL), Client(name, LONG) as client:
        with client.acquire_request_buffer(4) as buffer:
            with buffer.data as view:
                rest = view[1:]
            buffer.data[:] = b"abcd"
            assert bytes(rest) == b"bcd"
