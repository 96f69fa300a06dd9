"""Clients that wait for their server: each try gets the time that a server needs, other threads run, and what waits
can be stopped."""

import asyncio
import signal
import threading

import pytest
import zerobuffer
from conftest import LONG, await_sleep, nothing
from zerobuffer import AsyncClient, AsyncPool, BufferConfig, Client, Pool, Service

SMALL = BufferConfig(64, 4096)
# It takes a server more than 50 ms to make this one.
LARGE = 1 << 29

SERVER = """
import sys, zerobuffer
service = zerobuffer.Service(sys.argv[1], zerobuffer.BufferConfig(64, 4096))
service.start(lambda request: None)
print("ready", flush=True)
sys.stdin.read()
"""


class Waiting(threading.Thread):
    """What connects, in a thread of its own, which waits for the server."""

    def __init__(self, connect):
        super().__init__()
        self.connect = connect
        self.connected = self.failure = None
        self.start()
        await_sleep(self)

    def run(self):
        try:
            self.connected = self.connect()
        except Exception as failure:
            self.failure = failure

    def outcome(self):
        self.join()
        if self.failure is not None:
            raise self.failure
        return self.connected


def reconnecting(name, **options):
    """A client whose server has ended, to be connected again."""
    with Service(name, SMALL):
        client = Client(name, LONG, **options)

    def connect():
        client.reconnect(LONG)
        return client

    return connect


KINDS = {
    "client": lambda name, **options: lambda: Client(name, LONG, **options),
    "pool": lambda name, **options: lambda: Pool(name, 1, LONG, **options),
    "reconnection": reconnecting,
}


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_for_a_server_gets_a_ring_that_takes_long_to_make(name, kind):
    waiting = Waiting(KINDS[kind](name, ring=LARGE))
    with Service(name, SMALL) as service:
        service.start(nothing)
        with waiting.outcome() as client:
            assert bytes(client.call(b"abc", LONG)) == b"abc"


def test_a_loops_client_that_reconnects_gets_a_ring_that_takes_long_to_make(name):
    async def main():
        with Service(name, SMALL):
            client = await AsyncClient.connect(name, LONG, ring=LARGE)
        reconnecting = asyncio.create_task(client.reconnect(LONG))
        await asyncio.sleep(0.2)
        with Service(name, SMALL) as service:
            service.start(nothing)
            await reconnecting
            async with client:
                with await client.call(b"abc", LONG) as response:
                    assert bytes(response) == b"abc"

    asyncio.run(main())


def test_all_of_many_clients_attach_to_a_service_that_starts_while_they_wait(name):
    waiting = [Waiting(lambda: Client(name, LONG, ring=8 << 20)) for _ in range(64)]
    with Service(name, SMALL, max_clients=len(waiting)) as service:
        service.start(nothing)
        for client in [one.outcome() for one in waiting]:
            client.close()


def test_other_threads_run_while_a_server_that_hangs_is_tried_without_any_time(name, child):
    server = child(SERVER, name)
    assert server.line() == "ready"
    ticks = 0
    over = threading.Event()

    def tick():
        nonlocal ticks
        while not over.wait(0.01):
            ticks += 1

    ticking = threading.Thread(target=tick)
    server.suspend()
    ticking.start()
    try:
        before = ticks
        with pytest.raises(zerobuffer.NotRunning):
            Client(name, 0)
        # It waits for half a second and more.
        assert ticks - before > 3
    finally:
        over.set()
        ticking.join()
        server.resume()
    server.finish()


UNWANTED = """
import asyncio, sys, zerobuffer
from zerobuffer import AsyncClient, AsyncPool

async def main():
    connect = dict(client=AsyncClient, pool=AsyncPool)[sys.argv[2]].connect
    # More than an executor has threads.
    for _ in range(40):
        try:
            await asyncio.wait_for(connect(sys.argv[1], timeout=None), 0.01)
        except TimeoutError:
            pass
    print(await asyncio.to_thread(str, "free"), flush=True)

asyncio.run(main())
print("over", flush=True)
"""


@pytest.mark.parametrize("kind", ["client", "pool"])
def test_a_connection_that_is_not_awaited_any_more_keeps_no_thread(name, child, kind):
    assert child(UNWANTED, name, kind).finish() == "free\nover\n"


AWAITING = """
import asyncio, sys, zerobuffer

async def main():
    asyncio.get_running_loop().call_later(0.1, lambda: print("waiting", flush=True))
    await zerobuffer.AsyncClient.connect(sys.argv[1], timeout=None)

asyncio.run(main())
"""


def test_ctrl_c_ends_a_program_that_awaits_a_connection(name, child):
    program = child(AWAITING, name, stderr=-1)
    assert program.line() == "waiting"
    program.process.send_signal(signal.SIGINT)
    _, complaints = program.process.communicate(timeout=2 * LONG)
    assert complaints.splitlines()[-1].startswith(b"KeyboardInterrupt")


RECONNECTING = """
import asyncio, sys, zerobuffer
from zerobuffer import AsyncClient, BufferConfig, Server, Service

async def main():
    with dict(channel=Server, service=Service)[sys.argv[2]](sys.argv[1], BufferConfig(64, 4096)):
        client = await AsyncClient.connect(sys.argv[1])
    asyncio.get_running_loop().call_later(0.1, lambda: print("waiting", flush=True))
    await client.reconnect(None)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["channel", "service"])
def test_ctrl_c_ends_a_program_that_awaits_a_reconnection(name, child, kind):
    program = child(RECONNECTING, name, kind, stderr=-1)
    assert program.line() == "waiting"
    program.process.send_signal(signal.SIGINT)
    _, complaints = program.process.communicate(timeout=2 * LONG)
    assert complaints.splitlines()[-1].startswith(b"KeyboardInterrupt")


class Late:
    """A connection that comes after nobody awaits it any more."""

    def __init__(self):
        self.begun, self.let_go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def connect(self, *arguments, **options):
        self.begun.set()
        assert self.let_go.wait(LONG)
        return self

    def close(self):
        self.closed.set()


@pytest.mark.parametrize("kind", [AsyncClient, AsyncPool])
def test_a_connection_that_comes_too_late_is_closed(name, monkeypatch, kind):
    late = Late()

    class Native:
        for_loop = late.connect

    async def main():
        connecting = asyncio.create_task(kind.connect(name, timeout=None))
        await asyncio.to_thread(late.begun.wait, LONG)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        late.let_go.set()
        assert await asyncio.to_thread(late.closed.wait, LONG)

    monkeypatch.setattr(zerobuffer.aio, kind.__name__.removeprefix("Async"), Native)
    asyncio.run(main())
