"""Services: any number of clients, and the rules of servers."""

import asyncio
import gc
import logging
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, await_sleep, nothing, until
from zerobuffer import AsyncClient, AsyncService, BufferConfig, Client, Pool, RequestState, Server, Service
from test_forks import REFUSED, Waiting, outcomes_in_a_child

SMALL = BufferConfig(64, 4096)


def sockets(name):
    return list(Path(os.environ["ZEROBUFFER_DIR"], name).glob("*"))


def test_many_clients_are_served_at_once_each_with_its_own_bytes(name):
    def handler(request):
        np.invert(np.asarray(request), out=np.asarray(request))

    with Service(name, SMALL, workers=2, metadata=b"served") as service:
        service.start(handler)
        clients = [Client(name, LONG) for _ in range(8)]
        assert service.clients == 8 and service.is_client_connected and service.is_running

        def calls(number):
            for _ in range(50):
                with clients[number].call(bytes([number]) * 40, LONG) as response:
                    assert bytes(response) == bytes([255 - number]) * 40

        threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clients[3].server_metadata == b"served"
        for client in clients:
            client.close()
        until(lambda: service.clients == 0)
        assert not service.is_client_connected
    assert not service.is_running and not sockets(name)
    assert repr(service) == f'Service("{name}")'


def test_a_request_says_who_has_sent_it(name):
    with Service(name, SMALL) as service:
        with Client(name, LONG, label="camera 3") as client, Client(name, LONG, metadata=b"other") as other:
            assert client.send_request(b"x") == 1 and other.send_request(b"y") == 1
            requests = {bytes(request): request for request in (service.receive(LONG), service.receive(LONG))}
            who = requests[b"x"].client
            assert (who.pid, who.uid, who.gid) == (os.getpid(), os.geteuid(), os.getegid())
            assert who.label == "camera 3" and who == requests[b"x"].client
            assert requests[b"y"].client.number != who.number
            # The program's own name.
            assert "py" in requests[b"y"].client.label and requests[b"y"].metadata == b"other"
            for request in requests.values():
                request.respond()
                with pytest.raises(zerobuffer.InvalidState):
                    request.client
    with Server(name, SMALL) as server, Client(name, LONG) as client:
        client.send_request(b"x")
        with server.receive(LONG) as request:
            assert request.client is None


def sleeps():
    """How often this thread has waited for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@pytest.mark.parametrize("kind", [Server, Service])
def test_asking_for_clients_waits_for_no_thread_that_takes_requests(name, kind):
    with kind(name, SMALL) as server:
        received = []
        receiving = threading.Thread(target=lambda: received.append(server.receive(None)))
        receiving.start()
        await_sleep(receiving)
        with Client(name, LONG) as client:
            asleep = 0
            for _ in range(40):
                time.sleep(0.005)
                before = sleeps()
                assert server.is_client_connected
                asleep += sleeps() - before
            assert asleep < 20
            sequence = client.send_request(b"x")
            receiving.join()
            received.pop().respond()
            assert bytes(client.receive_response_for(sequence, LONG)) == b"x"
        until(lambda: not server.is_client_connected)
    assert not server.is_client_connected


def test_a_service_and_a_channel_of_one_name_are_told_apart(name):
    with Service(name, SMALL) as service, Server(name, SMALL) as server:
        server.start(nothing)
        service.start(nothing)
        for prefix, found in (("", service), ("service:", service), ("channel:", server)):
            with Client(prefix + name, LONG):
                assert found.is_client_connected
            until(lambda found=found: not found.is_client_connected)


def test_the_rules_of_servers_hold(name, caplog):
    def handler(request):
        if request.data[0] == 0:
            raise ValueError("zero is refused")
        return b"nobody gets this"

    with Service(name, SMALL) as service, Client(name, LONG) as client:
        with pytest.raises(TypeError, match="cannot be called"):
            service.start(3)

        async def awaited(request):
            pass

        with pytest.raises(TypeError, match="AsyncServer"):
            service.start(awaited)
        service.start(handler)
        with pytest.raises(zerobuffer.InvalidState):
            service.start(handler)
        with pytest.raises(zerobuffer.InvalidState):
            service.receive(0)
        with caplog.at_level(logging.ERROR, "zerobuffer.server"):
            with pytest.raises(zerobuffer.HandlerFailed, match="ValueError: zero is refused"):
                client.call(bytes(60), LONG)
            with pytest.raises(zerobuffer.HandlerFailed, match="handler returned bytes"):
                client.call(b"\1" * 60, LONG)
            until(lambda: len(caplog.records) == 2)
        assert "line" in caplog.text and "in handler" in caplog.text


def test_a_client_has_ended_once_it_is_closed_and_has_released_its_responses(name):
    with Service(name, SMALL) as service:
        service.start(nothing)
        client = Client(name, LONG)
        held = client.call(b"held", LONG)
        client.close()
        time.sleep(0.1)
        # With its end the service takes the memory back.
        assert service.clients == 1 and bytes(held) == b"held"
        held.release()
        until(lambda: service.clients == 0)
        for use in (lambda: client.max_request_size, lambda: client.server_metadata, lambda: client.call(b"x")):
            with pytest.raises(zerobuffer.Closed):
                use()
        assert (client.in_flight, client.cancel(1), client.name) == (0, False, name)

        async def main():
            client = await AsyncClient.connect(name, LONG)
            (await client.call(b"x", LONG)).release()
            await client.close()
            await asyncio.to_thread(until, lambda: service.clients == 0)
            assert not client.is_server_connected

        asyncio.run(main())


def test_what_a_service_allows_is_said(name):
    for workers in (0, 1025):
        with pytest.raises(zerobuffer.BadConfig, match=f"workers is {workers}"):
            Service(name, workers=workers)
    with pytest.raises(TypeError, match="BufferConfig"):
        Service(name, 4096)
    with Service(name, SMALL, max_clients=1, max_ring=1 << 16) as service:
        with pytest.raises(zerobuffer.ZeroBufferException):
            Client(name, 0.2, ring=1 << 20)
        with Client(name, LONG, ring=8192) as client:
            assert client.max_request_size == 8192 - 64
            with pytest.raises(zerobuffer.Busy):
                Client(name, 0.2)
            assert service.clients == 1


def test_a_service_is_in_the_directory_that_is_named(name, tmp_path):
    tmp_path.chmod(0o700)
    with Service(name, SMALL, directory=tmp_path) as service:
        service.start(nothing)
        assert list((tmp_path / name).iterdir()) and not sockets(name)
        with pytest.raises(zerobuffer.NotRunning):
            Client(name, 0.1)
        with Client(name, LONG, directory=tmp_path) as client:
            assert bytes(client.call(b"abc", LONG)) == b"abc"
    assert not list((tmp_path / name).iterdir())
    tmp_path.chmod(0o777)
    with pytest.raises(zerobuffer.ForeignObject):
        Service(name, SMALL, directory=tmp_path)


def test_requests_are_taken_by_iteration_until_the_end(name):
    service = Service(name, SMALL)
    seen = []

    def take():
        for request in service:
            with request:
                seen.append(bytes(request))

    thread = threading.Thread(target=take)
    thread.start()
    with Client(name, LONG) as client:
        client.call(b"one", LONG).release()
        client.call(b"two", LONG).release()
        with pytest.raises(zerobuffer.Timeout):
            Service(name + "b", SMALL).receive(0.01)
        service.stop()
        thread.join(LONG)
        assert not thread.is_alive() and seen == [b"one", b"two"]
        with pytest.raises(zerobuffer.Closed):
            service.receive(0)
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"x", LONG)


def test_a_service_that_stops_has_no_socket_while_its_handlers_finish(name):
    in_hand, let_go = threading.Event(), threading.Event()

    def handler(request):
        in_hand.set()
        assert let_go.wait(LONG)
        request.data[0] = 7

    service = Service(name, SMALL, stop_timeout=LONG)
    service.start(handler)
    with Client(name, LONG) as client:
        taken, untaken = client.send_request(b"x"), client.send_request(b"y")
        assert in_hand.wait(LONG)
        stop = threading.Thread(target=service.stop)
        stop.start()
        until(lambda: not sockets(name))
        # Another worker can take over from here.
        assert stop.is_alive()
        let_go.set()
        stop.join(LONG)
        assert bytes(client.receive_response_for(taken, LONG)) == b"\7"
        with pytest.raises(zerobuffer.PeerClosed) as lost:
            client.receive_response_for(untaken, LONG)
        assert lost.value.state is RequestState.NOT_STARTED


@pytest.mark.parametrize("make", [Server, Service])
def test_a_stop_waits_once_for_a_handler_that_does_not_return(name, make):
    in_hand, let_go = threading.Event(), threading.Event()

    def handler(request):
        in_hand.set()
        assert let_go.wait(LONG)

    patience = 3.0
    server = make(name, SMALL, stop_timeout=patience)
    server.start(handler)
    client = Client(name, LONG)
    client.send_request(b"x")
    assert in_hand.wait(LONG)
    start = time.monotonic()
    server.stop()
    # There are seconds between one wait and two.
    assert patience <= time.monotonic() - start < 2 * patience
    server.stop()
    let_go.set()
    client.close()


def test_a_service_that_is_collected_stops(name):
    service = Service(name, SMALL)
    service.start(nothing)
    with Client(name, LONG) as client:
        client.call(b"x", LONG).release()
        del service
        gc.collect()
        until(lambda: not client.is_server_connected)
    assert not sockets(name)


def test_a_cell_that_is_run_again_replaces_its_service(name):
    seen = []
    for run in range(3):
        service = Service(name, SMALL, replace=True)
        service.start(lambda request, run=run: seen.append(run))
        with Client(name, LONG) as client:
            client.call(b"x", LONG).release()
    assert seen == [0, 1, 2] and len(sockets(name)) == 1
    service.stop()


def test_a_service_that_runs_when_its_program_ends_is_stopped(name, child):
    program = (
        "import sys, zerobuffer\n"
        "service = zerobuffer.Service(sys.argv[1])\n"
        "service.start(lambda request: None)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    server = child(program, name)
    assert server.line() == "up" and sockets(name)
    with Client(name, LONG) as client:
        assert bytes(client.call(b"abc", LONG)) == b"abc"
        server.finish()
        with pytest.raises(zerobuffer.PeerClosed):
            client.call(b"abc", LONG)
    assert not sockets(name)


def test_a_forked_child_is_told_and_disturbs_no_service(name):
    service = Service(name, SMALL)
    with Client(name, LONG) as client, Waiting(lambda: service.receive(None)):
        told = outcomes_in_a_child(
            lambda: service.clients,
            lambda: service.receive(0.1),
            lambda: service.start(print),
            lambda: service.stop(),
            lambda: client.call(b"x", 0.1),
        )
        assert told == ["0"] + 4 * [REFUSED]
        service.stop()
    with Service(name, SMALL) as service, Client(name, LONG) as client:
        service.start(nothing)
        outcomes_in_a_child(client.close)
        assert bytes(client.call(b"abc", LONG)) == b"abc" and service.clients == 1


def test_a_client_with_long_requests_leaves_a_worker_to_the_others(name):
    started, release = threading.Semaphore(0), threading.Semaphore(0)

    def handler(request):
        if request.size == 1:
            started.release()
            release.acquire()

    with Service(name, SMALL, workers=2, handlers_per_client=1) as service:
        service.start(handler)
        with Client(name, LONG) as greedy, Client(name, LONG) as other:
            sent = [greedy.send_request(b"1"), greedy.send_request(b"2")]
            assert started.acquire(timeout=LONG)
            assert bytes(other.call(b"other", LONG)) == b"other"
            assert not started.acquire(blocking=False)
            release.release(2)
            for sequence in sent:
                greedy.receive_response_for(sequence, LONG).release()


def test_coroutines_serve_any_number_of_clients(name):
    together = 3

    async def main():
        waiting = 0
        all_there = asyncio.Event()

        async def handle(request):
            nonlocal waiting
            waiting += 1
            if waiting == together:
                all_there.set()
            # None goes on before one of each client is there.
            await all_there.wait()
            request.data[0] = request.client.number

        async with AsyncService(name, SMALL) as service:
            serving = asyncio.create_task(service.serve(handle, concurrency=together))
            clients = [await AsyncClient.connect(name, LONG) for _ in range(together)]
            assert service.clients == together and service.is_client_connected
            responses = await asyncio.gather(*(client.call(b"\0", LONG) for client in clients))
            assert sorted(bytes(response)[0] for response in responses) == [1, 2, 3]
            for response in responses:
                response.release()
            for client in clients:
                await client.close()
        await serving

    asyncio.run(asyncio.wait_for(main(), 4 * LONG))


def test_a_pool_goes_on_over_servers_that_stop_and_says_what_it_is(name):
    def turn(request):
        request.write(bytes(request)[::-1])

    def serve():
        service = Service(name, SMALL)
        service.start(turn)
        return service

    first, second = serve(), serve()
    with Pool(name, 2, LONG, label="a pool") as pool:
        assert (pool.name, pool.connections) == (name, 2) and pool.is_server_connected
        assert first.clients + second.clients == 2
        first.stop()
        assert bytes(pool.call(b"one is left", LONG)) == b"tfel si eno"
        second.stop()
        third = serve()
        with pool.call(np.arange(4, dtype=np.uint8), LONG) as response:
            assert bytes(response) == bytes([3, 2, 1, 0])
        assert pool.max_request_size > 0 and pool.in_flight == 0
        third.stop()
        with pytest.raises((zerobuffer.NotRunning, zerobuffer.PeerClosed)):
            pool.call(b"nobody", 0.01)
    with pytest.raises(zerobuffer.Closed):
        pool.call(b"closed", LONG)
    assert not sockets(name)


def test_a_pool_of_one_mends_itself_on_a_channel_for_many_threads(name):
    def upper(request):
        request.write(bytes(request).upper())

    def serve():
        server = Server(name, SMALL, replace=True)
        server.start(upper)
        return server

    server = serve()
    pool = Pool(name, timeout=LONG)
    answers = []

    def call_again_and_again():
        for _ in range(50):
            answers.append(bytes(pool.call(b"abc", LONG)))

    threads = [threading.Thread(target=call_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.stop()
    server = serve()
    for thread in threads:
        thread.join()
    assert answers == [b"ABC"] * 200
    pool.close()
    server.stop()
