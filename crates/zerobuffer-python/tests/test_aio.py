"""asyncio: many calls at once, and a loop that never waits."""

import asyncio
import logging
import logging.handlers
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, until
from zerobuffer import AsyncClient, AsyncServer, AsyncService, BufferConfig, Client, RequestState, Server

SMALL = BufferConfig(64, 4096)


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 4 * LONG))


def invert(request):
    np.invert(np.asarray(request), out=np.asarray(request))


def test_many_calls_are_under_way_at_once(name):
    async def main(server):
        async with await AsyncClient.connect(name, metadata=b"async") as client:
            assert client.server_metadata == b"served" and client.is_server_connected

            async def call(number):
                with await client.call(bytes([number % 256]) * 30, LONG) as response:
                    assert bytes(response) == bytes([255 - number % 256]) * 30

            # Far more than the ring has room for at a time.
            await asyncio.gather(*(call(number) for number in range(400)))

    with Server(name, SMALL, metadata=b"served", workers=2) as server:
        server.start(invert)
        run(main(server))


def test_the_loop_runs_while_calls_wait_and_answers_come_out_of_order(name):
    let_go = threading.Event()

    def handler(request):
        if request.data[0] == 0:
            assert let_go.wait(LONG)

    async def main():
        ticks = 0
        async with await AsyncClient.connect(name) as client:
            slow = asyncio.create_task(client.call(b"\0", LONG))
            for _ in range(20):
                await asyncio.sleep(0.005)
                ticks += 1
            assert bytes(await client.call(b"\1", LONG)) == b"\1"
            assert not slow.done() and ticks == 20
            let_go.set()
            assert bytes(await slow) == b"\0"

    with Server(name, SMALL, workers=2) as server:
        server.start(handler)
        run(main())


def test_failures_timeouts_and_cancellations_reach_their_own_calls(name):
    let_go = threading.Event()
    seen = []

    def handler(request):
        seen.append(request.data[0])
        if request.data[0] == 0:
            raise ValueError("zero is refused")
        if request.data[0] == 1:
            assert let_go.wait(LONG)

    async def main():
        async with await AsyncClient.connect(name) as client:
            with pytest.raises(zerobuffer.HandlerFailed, match="zero is refused") as failed:
                await client.call(b"\0" * 40, LONG)
            assert failed.value.sequence == 1
            in_hand = asyncio.create_task(client.call(b"\1", 1.5))
            while 1 not in seen:
                await asyncio.sleep(0.001)
            with pytest.raises(zerobuffer.Timeout) as late:
                await in_hand
            assert late.value.waited == 1.5
            # The handler is still busy with the one before.
            cancelled = asyncio.create_task(client.call(b"\2", LONG))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            let_go.set()
            assert bytes(await client.call(b"\3", LONG)) == b"\3"
            assert seen == [0, 1, 3], "the request was cancelled before its turn"
            with pytest.raises(zerobuffer.TooLarge):
                await client.call(bytes(10_000), LONG)
        with pytest.raises(zerobuffer.InvalidState):
            await client.call(b"\3", LONG)

    with Server(name, SMALL) as server:
        server.start(handler, lambda error: None)
        run(main())


def test_requests_are_taken_by_async_for(name):
    async def main():
        async with AsyncServer(name, SMALL) as server:

            async def serve():
                async for request in server:
                    try:
                        with request:
                            if request.data[0] == 9:
                                raise RuntimeError("nine is refused")
                            request.data[0] += 1
                    except RuntimeError:
                        continue

            serving = asyncio.create_task(serve())
            async with await AsyncClient.connect(name) as client:
                answers = await asyncio.gather(
                    *(client.call(bytes([number]) * 40, LONG) for number in range(20)),
                    return_exceptions=True,
                )
                for number, answer in enumerate(answers):
                    if number == 9:
                        assert isinstance(answer, zerobuffer.HandlerFailed)
                        assert answer.message == "RuntimeError: nine is refused"
                    else:
                        assert bytes(answer)[0] == number + 1
                assert server.is_client_connected
                del answers, answer
            await server.stop()
            await serving
        with pytest.raises(zerobuffer.InvalidState):
            await server.receive()

    run(main())


def test_requests_that_nobody_has_taken_fail_when_the_server_stops(name):
    async def main():
        server = AsyncServer(name, SMALL)
        client = await AsyncClient.connect(name)
        taken = asyncio.create_task(server.receive())
        calls = [asyncio.create_task(client.call(b"x" * 40, LONG)) for _ in range(2)]
        (await taken).respond()
        # Asked for, and not waited for.
        asked = asyncio.create_task(server.receive())
        await asyncio.sleep(0)
        asked.cancel()
        while server._requests.empty():
            await asyncio.sleep(0.005)
        await server.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await client.close()
        assert bytes(outcomes[0]) == b"x" * 40
        assert isinstance(outcomes[1], zerobuffer.ZeroBufferException)

    run(main())


def test_calls_end_with_their_server_and_go_on_with_the_next(name):
    async def main():
        first = Server(name, SMALL)
        client = await AsyncClient.connect(name)
        calls = [asyncio.create_task(client.call(b"x", LONG)) for _ in range(3)]
        taken = await asyncio.to_thread(first.receive, LONG)
        await asyncio.to_thread(first.stop)
        for call in calls:
            with pytest.raises((zerobuffer.PeerClosed, zerobuffer.HandlerFailed)):
                await call
        del taken
        with Server(name, SMALL) as second:
            second.start(invert)
            await client.reconnect(LONG)
            assert bytes(await client.call(b"\0", LONG)) == b"\xff"
        await client.close()

    run(main())


def test_a_response_that_came_before_its_call_was_cancelled_is_released(name):
    async def main(server):
        async with await AsyncClient.connect(name) as client:
            for _ in range(10):
                call = asyncio.create_task(client.call(bytes(2000), LONG))
                request = await asyncio.to_thread(server.receive, LONG)
                request.respond()
                del request
                # The response is here, and the loop has not taken it yet.
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

    with Server(name, SMALL) as server:
        run(main(server))


def test_a_reconnection_ends_the_calls_of_the_previous_server(name):
    async def main():
        first = Server(name, SMALL)
        async with await AsyncClient.connect(name) as client:
            old = asyncio.create_task(client.call(b"old", LONG))
            taken = await asyncio.to_thread(first.receive, LONG)
            await asyncio.to_thread(first.stop)
            second = Server(name, SMALL)
            reconnecting = asyncio.create_task(client.reconnect(LONG))
            await asyncio.sleep(0)
            new = asyncio.create_task(client.call(b"new", LONG))
            await reconnecting
            with pytest.raises(zerobuffer.PeerClosed) as ended:
                await old
            assert (ended.value.sequence, ended.value.state) == (1, RequestState.IN_DOUBT)
            del taken
            second.start(invert)
            assert bytes(await new) == bytes(255 - byte for byte in b"new")
            # A connection that works is left as it is, with its calls.
            assert await client.reconnect(LONG) == []
            assert bytes(await client.call(b"\0", LONG)) == b"\xff"
            await asyncio.to_thread(second.stop)

    run(main())


def test_requests_that_were_not_started_are_sent_again_if_that_was_asked_for(name):
    async def main():
        first = Server(name, SMALL)
        async with await AsyncClient.connect(name, resend_not_started=True) as client:
            calls = [asyncio.create_task(client.call(bytes([n]), LONG)) for n in range(3)]
            await asyncio.sleep(0)
            await asyncio.to_thread(first.stop)
            with Server(name, SMALL) as second:
                second.start(invert)
                assert [bytes(await call) for call in calls] == [b"\xff", b"\xfe", b"\xfd"]

    run(main())


def test_a_thousand_calls_wait_without_a_thread_of_python(name):
    async def main(server):
        async with await AsyncClient.connect(name) as client:
            before = threading.active_count()
            calls = [asyncio.create_task(client.call(b"x" * 40, LONG)) for _ in range(1000)]
            await asyncio.sleep(0)
            assert threading.active_count() == before
            server.start(invert)

            async def first_byte(call):
                with await call as response:
                    return response.data[0]

            done = await asyncio.gather(*(first_byte(call) for call in calls))
            assert done == [255 - ord("x")] * 1000

    with Server(name, SMALL) as server:
        run(main(server))


def test_closing_ends_the_calls_under_way(name):
    async def main():
        with Server(name, SMALL):
            client = await AsyncClient.connect(name)
            calls = [asyncio.create_task(client.call(b"x" * 1000, LONG)) for _ in range(8)]
            await asyncio.sleep(0)
            await client.close()
            for call in calls:
                with pytest.raises(zerobuffer.Closed):
                    await call
            await client.close()

    run(main())


def test_a_client_that_nobody_has_any_more_lets_the_next_one_in(name):
    async def main():
        with Server(name, SMALL) as server:
            server.start(invert)
            client = await AsyncClient.connect(name)
            assert bytes(await client.call(b"\0", LONG)) == b"\xff"
            del client
            async with await AsyncClient.connect(name, LONG) as client:
                assert bytes(await client.call(b"\1", LONG)) == b"\xfe"

    run(main())


def test_each_request_is_a_task_of_its_own(name):
    async def main():
        meeting = asyncio.Event()
        cancelled = asyncio.Event()

        async def handle(request):
            if request.data[0] == 0:
                await meeting.wait()
            elif request.data[0] == 1:
                meeting.set()
            elif request.data[0] == 2:
                raise ValueError("two is refused")
            else:
                while not request.cancelled:
                    await asyncio.sleep(0.001)
                cancelled.set()
            request.data[0] += 10

        async with AsyncServer(name, SMALL) as server:
            serving = asyncio.create_task(server.serve(handle))
            async with await AsyncClient.connect(name) as client:
                slow = asyncio.create_task(client.call(b"\0", LONG))
                assert bytes(await client.call(b"\1", LONG)) == b"\x0b"
                assert bytes(await slow) == b"\x0a"
                with pytest.raises(zerobuffer.HandlerFailed, match="two is refused"):
                    await client.call(b"\2" * 40, LONG)
                with pytest.raises(zerobuffer.Timeout):
                    await client.call(b"\3", 0.05)
                await asyncio.wait_for(cancelled.wait(), LONG)
            await server.stop()
            await serving

    run(main())


@pytest.fixture
def records():
    """The log of servers, kept with its exceptions and their tracebacks."""
    kept = logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL)
    logger = logging.getLogger("zerobuffer.server")
    logger.addHandler(kept)
    yield kept.buffer
    logger.removeHandler(kept)


@pytest.mark.parametrize("kind", [AsyncServer, AsyncService])
def test_a_failing_coroutine_with_arrays_fails_its_request_while_a_log_keeps_its_traceback(name, kind, records):
    async def handle(request):
        picture = request.array()
        await asyncio.sleep(0)
        picture[0] = picture[1000]

    async def main():
        async with kind(name, SMALL) as server:
            serving = asyncio.create_task(server.serve(handle))
            async with await AsyncClient.connect(name) as client:
                with pytest.raises(zerobuffer.HandlerFailed, match="IndexError"):
                    await client.call(b"x" * 40, LONG)
        await serving

    run(main())
    [record] = records
    assert record.exc_info[0] is IndexError and record.exc_info[1].__traceback__ is not None


def test_a_failing_coroutine_that_keeps_an_array_is_named(name, records, recwarn):
    kept = []

    async def handle(request):
        kept.append(request.array())
        raise ValueError("refused")

    async def main():
        async with AsyncServer(name, SMALL) as server:
            serving = asyncio.create_task(server.serve(handle))
            async with await AsyncClient.connect(name) as client:
                call = asyncio.create_task(client.call(b"x" * 40, LONG))
                while len(records) < 2:
                    await asyncio.sleep(0.001)
                kept.clear()
                with pytest.raises(zerobuffer.HandlerFailed, match="refused"):
                    await call
        await serving

    run(main())
    assert "view(s) of request 1 are alive" in records[1].getMessage()


def test_plain_clients_and_async_servers_work_together(name):
    async def main():
        async with AsyncServer(name, SMALL) as server:

            def call():
                with Client(name, LONG) as client:
                    return bytes(client.call(b"abc", LONG))

            calling = asyncio.create_task(asyncio.to_thread(call))
            request = await server.receive()
            with request:
                request.data[:] = b"xyz"
            assert await calling == b"xyz"

    run(main())


def test_requests_beyond_the_concurrency_are_not_started(name):
    async def main():
        begun = 0
        two = asyncio.Event()
        never = asyncio.Event()

        async def handle(request):
            nonlocal begun
            begun += 1
            if begun == 2:
                two.set()
            await never.wait()

        server = AsyncServer(name, SMALL, stop_timeout=0.1)
        serving = asyncio.create_task(server.serve(handle, concurrency=2))
        async with await AsyncClient.connect(name) as client:
            calls = [asyncio.create_task(client.call(b"x", LONG)) for _ in range(10)]
            await asyncio.wait_for(two.wait(), LONG)
            await server.stop()
            done = await asyncio.gather(*calls, return_exceptions=True)
            states = [getattr(error, "state", None) for error in done]
            assert states.count(RequestState.NOT_STARTED) == 8, done
            assert begun == 2
        never.set()
        await serving

    run(main())


def test_a_cancelled_receive_loses_no_request(name):
    async def main():
        async with AsyncServer(name, SMALL) as server, await AsyncClient.connect(name) as client:
            for _ in range(3):
                asked = asyncio.create_task(server.receive())
                await asyncio.sleep(0)
                asked.cancel()
            call = asyncio.create_task(client.call(b"x", LONG))
            (await server.receive()).respond()
            assert bytes(await call) == b"x"

    run(main())


SHORT_OF_DESCRIPTORS = """
import asyncio, os, resource, sys
from zerobuffer import AsyncServer, BufferConfig

def take_all():
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        return taken

async def handle(request):
    pass

async def main():
    async with AsyncServer(sys.argv[1], BufferConfig(64, 4096)) as server:
        serving = asyncio.create_task(server.serve(handle))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        print("ready", flush=True)
        while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if command == "take":
                taken = take_all()
            else:
                for descriptor in taken:
                    os.close(descriptor)
            print(command, serving.done(), flush=True)
    await serving

asyncio.run(main())
"""


def test_a_server_that_cannot_make_room_for_the_next_client_at_once_tries_again(name, child):
    def tell(command):
        program.process.stdin.write(f"{command}\n".encode())
        return program.line()

    program = child(SHORT_OF_DESCRIPTORS, name)
    assert program.line() == "ready"
    with Client(name, LONG) as client:
        assert bytes(client.call(b"abc", LONG)) == b"abc"
        assert tell("take") == "take False"
    # The segment of that client is removed, and there are no descriptors for the next one.
    until(lambda: not Path(f"/dev/shm/{name}_duplex").exists())
    time.sleep(0.3)
    assert tell("free") == "free False"
    with Client(name, LONG) as client:
        assert bytes(client.call(b"abc", LONG)) == b"abc"
    program.finish()


def test_what_cannot_work_is_refused_at_once(name):
    async def main():
        with pytest.raises(TypeError, match="no send_timeout"):
            await AsyncClient.connect(name, send_timeout=1)
        async with AsyncServer(name, SMALL) as server:
            with pytest.raises(TypeError, match="async def"):
                await server.serve(lambda request: None)

    run(main())
