"""A service whose requests are taken by coroutines, without a thread of Python."""

import asyncio
import gc
import os
import select
import threading
import weakref

import pytest
import zerobuffer
from conftest import LONG
from zerobuffer import AsyncClient, AsyncService, BufferConfig, Client, Service

SMALL = BufferConfig(64, 4096)


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 4 * LONG))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_no_thread_takes_the_requests_of_many_clients(name):
    async def handle(request):
        await asyncio.sleep(0)
        request.write(bytes(request)[::-1])

    async def main():
        async with AsyncService(name, SMALL) as service:
            serving = asyncio.create_task(service.serve(handle))
            clients = [await AsyncClient.connect(name, LONG) for _ in range(8)]

            async def calls(client, number):
                for round in range(50):
                    with await client.call(bytes([number, round]), LONG) as response:
                        assert bytes(response) == bytes([round, number])

            await asyncio.gather(*(calls(client, number) for number, client in enumerate(clients)))
            ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("zerobuffer")]
            assert not ours
            for client in clients:
                await client.close()
        await serving

    run(main())


def test_several_coroutines_receive_and_a_cancelled_one_loses_no_request(name):
    async def main():
        async with AsyncService(name, SMALL) as service, await AsyncClient.connect(name) as client:
            cancelled = asyncio.create_task(service.receive())
            waiting = [asyncio.create_task(service.receive()) for _ in range(3)]
            await asyncio.sleep(0)
            cancelled.cancel()
            calls = [asyncio.create_task(client.call(bytes([number]), LONG)) for number in range(3)]
            for request in await asyncio.gather(*waiting):
                request.respond()
            assert [bytes(response) for response in await asyncio.gather(*calls)] == [b"\0", b"\1", b"\2"]

    run(main())


def test_a_request_that_nobody_asks_for_is_not_started_and_costs_no_cpu(name):
    async def main():
        async with AsyncService(name, SMALL) as service, await AsyncClient.connect(name) as client:
            first = asyncio.create_task(client.call(b"1", LONG))
            (await service.receive()).respond()
            assert bytes(await first) == b"1"
            told = 0
            original = service._tell

            def counted():
                nonlocal told
                told += 1
                original()

            service._tell = counted
            second = asyncio.create_task(client.call(b"2", LONG))
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert told <= 2 and not second.done()
            (await service.receive()).respond()
            assert bytes(await second) == b"2"

    run(main())


def test_stopping_ends_those_that_wait(name):
    async def main():
        service = AsyncService(name, SMALL)
        waiting = [asyncio.create_task(service.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        await service.stop()
        for task in waiting:
            with pytest.raises(zerobuffer.Closed):
                await task
        with pytest.raises(zerobuffer.Closed):
            await service.receive()
        await service.stop()

    run(main())


def test_a_service_that_nobody_has_any_more_leaves_no_descriptor(name):
    async def main():
        async def lost():
            service = AsyncService(name, SMALL)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(service.receive(), 0.01)
            return weakref.ref(service)

        await lost()
        gc.collect()
        await asyncio.sleep(0)
        before = descriptors()
        for _ in range(3):
            reference = await lost()
            gc.collect()
            assert reference() is None
            # The loop closes the copy.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert descriptors() == before

    run(main())


def test_a_program_waits_for_the_descriptor_with_select(name):
    with Service(name, SMALL) as service, Client(name, LONG) as client:
        assert service.try_receive() is None
        assert select.select([service], [], [], 0) == ([], [], [])
        sequence = client.send_request(b"abc")
        assert select.select([service], [], [], LONG)[0] == [service]
        with service.try_receive() as request:
            request.data[0] = ord("x")
        assert service.try_receive() is None
        assert bytes(client.receive_response_for(sequence, LONG)) == b"xbc"
        service.stop()
        with pytest.raises(zerobuffer.Closed):
            service.try_receive()
        with pytest.raises(zerobuffer.Closed):
            service.fileno()
    with Service(name, SMALL) as service:
        service.start(lambda request: None)
        with pytest.raises(zerobuffer.InvalidState):
            service.try_receive()
