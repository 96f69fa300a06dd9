"""Clients that wait for their server: each try gets the time that a server needs, other threads run, and what waits
can be stopped."""

import asyncio
import os
import signal
import threading

import pytest
import zerobuffer
from conftest import LONG, await_sleep, nothing
from zerobuffer import AsyncClient, BufferConfig, Client, Pool, Service

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
    os.kill(server.process.pid, signal.SIGSTOP)
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
        os.kill(server.process.pid, signal.SIGCONT)
    server.finish()
