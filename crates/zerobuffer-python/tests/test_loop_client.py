"""asyncio's client of a service: the loop watches the connection itself, and no thread is there for it."""

import asyncio
import gc
import threading
import time
from pathlib import Path

import pytest
import zerobuffer
from conftest import LONG
from zerobuffer import AsyncClient, AsyncPool, BufferConfig, Pool, RequestState, Server, Service

SMALL = BufferConfig(64, 4096)


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 4 * LONG))


def completers():
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return names.count("zb-completer")


async def eventually(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def double(request):
    request.data[0] = request.data[0] * 2 % 256


def test_a_thousand_calls_at_once_need_no_thread(name):
    async def main(service):
        async with await AsyncClient.connect(name, LONG, metadata=b"loop") as client:
            assert (client.name, client.server_metadata) == (name, b"served")

            async def call(number):
                with await client.call(bytes([number % 256]) * 30, LONG) as response:
                    assert response.data[0] == number * 2 % 256

            # Far more than the ring has room for at a time.
            await asyncio.gather(*(call(number) for number in range(1000)))
            assert completers() == 0
            for number in range(200):
                await call(number)
            assert client.is_server_connected and service.clients == 1
        with pytest.raises(zerobuffer.Closed):
            await client.call(b"x", LONG)
        await client.close()
        await eventually(lambda: service.clients == 0)

    with Service(name, SMALL, metadata=b"served", workers=2) as service:
        service.start(double)
        run(main(service))


def test_timeouts_and_cancellations_reach_their_own_calls(name):
    let_go = threading.Event()
    seen = []

    def handler(request):
        seen.append(request.data[0])
        if request.data[0] == 1:
            assert let_go.wait(LONG)

    async def main():
        async with await AsyncClient.connect(name, LONG) as client:
            in_hand = asyncio.create_task(client.call(b"\1", 0.2))
            await eventually(lambda: seen == [1])
            cancelled = asyncio.create_task(client.call(b"\2", LONG))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(zerobuffer.Timeout) as late:
                await in_hand
            assert late.value.waited == 0.2
            forever = asyncio.create_task(client.call(b"\3", None))
            let_go.set()
            assert bytes(await forever) == b"\3"
            assert seen == [1, 3], "the request was cancelled before its turn"
            with pytest.raises(zerobuffer.TooLarge):
                await client.call(bytes(10_000), LONG)
            let_go.clear()
            last = asyncio.create_task(client.call(b"\1", None))
            await eventually(lambda: seen == [1, 3, 1])
            await client.close()
            with pytest.raises(zerobuffer.Closed):
                await last
            let_go.set()

    with Service(name, SMALL) as service:
        service.start(handler)
        run(main())


def test_a_servers_end_ends_calls_and_the_client_reaches_the_next_one(name):
    let_go = threading.Event()
    taken = threading.Event()

    def stay(request):
        taken.set()
        let_go.wait(LONG)

    async def main():
        first = Service(name, SMALL, stop_timeout=0.01)
        first.start(stay)
        client = await AsyncClient.connect(name, LONG)
        assert await client.reconnect(LONG) == [], "a connection that works stays"
        calls = [asyncio.create_task(client.call(b"x", LONG)) for _ in range(3)]
        await asyncio.to_thread(taken.wait, LONG)
        stopping = asyncio.create_task(asyncio.to_thread(first.stop))
        states = []
        for call in calls:
            with pytest.raises(zerobuffer.PeerClosed) as ended:
                await call
            states.append(ended.value.state)
        assert states == [RequestState.IN_DOUBT] + [RequestState.NOT_STARTED] * 2
        let_go.set()
        await stopping
        with pytest.raises(zerobuffer.PeerClosed):
            await client.call(b"x", LONG)
        reconnecting = asyncio.create_task(client.reconnect(LONG))
        await asyncio.sleep(0.01)
        meanwhile = asyncio.create_task(client.call(b"\4", LONG))
        with Service(name, SMALL) as second:
            second.start(double)
            assert await reconnecting == []
            assert bytes(await meanwhile) == b"\10"
            assert second.clients == 1
            await client.close()

    run(main())


def test_a_close_ends_a_reconnection(name):
    async def main():
        with Service(name, SMALL) as service:
            service.start(double)
            client = await AsyncClient.connect(name, LONG)
        reconnecting = asyncio.create_task(client.reconnect(None))
        await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(zerobuffer.Closed):
            await reconnecting

    run(main())


def test_a_client_that_nobody_has_any_more_leaves(name):
    async def main(service):
        client = await AsyncClient.connect(name, LONG)
        assert bytes(await client.call(b"\1", LONG)) == b"\2"
        assert service.clients == 1
        del client
        gc.collect()
        await eventually(lambda: service.clients == 0)

    with Service(name, SMALL) as service:
        service.start(double)
        run(main(service))


def test_requests_that_are_to_be_sent_again_and_channels_have_the_librarys_thread(name):
    async def main(**options):
        async with await AsyncClient.connect(name, LONG, **options) as client:
            assert bytes(await client.call(b"\1", LONG)) == b"\2"
            assert completers() == 1
        await eventually(lambda: completers() == 0)

    with Service(name, SMALL) as service:
        service.start(double)
        run(main(resend_not_started=True))
    with Server(name, SMALL) as server:
        server.start(double)
        run(main())


def test_a_pool_that_is_closed_has_left_while_the_program_keeps_it(name):
    async def left(service):
        await eventually(lambda: service.clients == 0)

    with Service(name, SMALL) as service:
        service.start(double)
        pool = Pool(name, 2, LONG)
        assert bytes(pool.call(b"\1", LONG)) == b"\2" and service.clients == 1
        pool.close()
        run(left(service))
        with pytest.raises(zerobuffer.Closed):
            pool.call(b"\1", LONG)
        assert (pool.name, pool.connections, pool.in_flight, pool.max_request_size) == (name, 0, 0, 0)
        assert not pool.is_server_connected


def test_the_calls_of_a_pool_are_awaited_and_go_on_over_servers_that_stop(name):
    def serve():
        service = Service(name, SMALL)
        service.start(double)
        return service

    async def main():
        first, second = serve(), serve()
        pool = await AsyncPool.connect(name, 2, LONG, label="a pool")
        assert (pool.name, pool.connections) == (name, 2) and pool.is_server_connected

        async def call(number):
            with await pool.call(bytes([number % 256]) * 30, LONG) as response:
                return response.data[0] == number * 2 % 256

        # The servers are replaced, one after the other, while calls are under way.
        calls = asyncio.gather(*(call(number) for number in range(1000)))
        await asyncio.to_thread(first.stop)
        third = serve()
        assert all(await calls)
        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(third.stop)
        waits = asyncio.ensure_future(call(7))
        await asyncio.sleep(0)
        assert not waits.done()
        fourth = serve()
        assert await waits
        await pool.close()
        with pytest.raises(zerobuffer.Closed):
            await pool.call(b"x", LONG)
        await pool.close()
        await eventually(lambda: fourth.clients == 0)
        fourth.stop()

    run(main())


def test_calls_of_a_pool_end_with_their_task_their_time_and_the_pool(name):
    async def main(service):
        async with await AsyncPool.connect(name, timeout=LONG) as pool:
            with pytest.raises(zerobuffer.Timeout):
                await pool.call(b"x", 0.01)
            cancelled = asyncio.ensure_future(pool.call(b"x", LONG))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            closed = asyncio.ensure_future(pool.call(b"x", LONG))
            await asyncio.sleep(0)
        with pytest.raises(zerobuffer.Closed):
            await closed
        forgotten = await AsyncPool.connect(name, timeout=LONG)
        await eventually(lambda: service.clients == 1)
        del forgotten
        gc.collect()
        await eventually(lambda: service.clients == 0)

    # Nothing is answered.
    with Service(name, SMALL) as service:
        run(main(service))
