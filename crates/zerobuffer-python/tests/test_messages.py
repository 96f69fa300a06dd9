"""What the first hour runs into is said in words that lead on."""

import asyncio

import numpy as np
import pytest
import zerobuffer
from conftest import LONG, nothing
from zerobuffer import AsyncClient, BufferConfig, Client, Reader, Server
from zerobuffer.duplex import DuplexChannelFactory

FACTORY = DuplexChannelFactory.get_instance()


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("size", [1, 32, 33, 1000, 1920 * 1080 * 3])
def test_a_ring_for_frames_holds_exactly_so_many(name, size, in_flight):
    sizes = BufferConfig.for_frames(size, in_flight)
    with Server(name, sizes) as server, Client(name, LONG, send_timeout=0.02) as client:
        server.start(nothing)
        for _ in range(3):
            held = [client.call(bytes(size), LONG) for _ in range(in_flight)]
            with pytest.raises(zerobuffer.Full):
                client.send_request(bytes(size))
            for response in held:
                response.release()


def test_frames_that_no_ring_holds_are_refused():
    for size, in_flight in ((100, 0), (0, 0), (-1, 1)):
        with pytest.raises((ValueError, OverflowError)):
            BufferConfig.for_frames(size, in_flight)
    assert BufferConfig.for_frames(100, 2, metadata_size=64).metadata_size == 64


def test_a_full_ring_says_who_has_its_places(name):
    with Server(name, BufferConfig.for_frames(1000, 4)) as server:
        with Client(name, LONG, send_timeout=0.02) as client:
            sent = [client.send_request(bytes(1000)) for _ in range(4)]
            with pytest.raises(zerobuffer.Full, match="4 frames in flight.*receive their responses.*send_timeout.*for_frames.*cancelled") as full:
                client.send_request(bytes(1000))
            assert (full.value.in_flight, full.value.held) == (4, 0)
            server.start(nothing)
            held = [client.receive_response_for(sequence, LONG) for sequence in sent]
            view = np.asarray(held[0])
            held[0].release()
            message = "4 frames in flight.*4 responses.*held by this program.*release.*cancelled keeps its place"
            ways = (
                client.send_request,
                lambda data: client.call(data, 0.02),
                lambda data: client.acquire_request_buffer(len(data)),
            )
            for send in ways:
                with pytest.raises(zerobuffer.Full, match=message) as full:
                    send(bytes(1000))
                assert full.value.held == 4
            assert full.value.needed == 1088 and full.value.free == 0
            del view
            with pytest.raises(zerobuffer.Full, match="3 responses") as full:
                [client.send_request(bytes(1000)) for _ in range(2)]
            assert isinstance(full.value, zerobuffer.BufferFullException)


def test_a_gather_with_more_answers_than_fit_says_so(name):
    async def main():
        async with await AsyncClient.connect(name) as client:
            calls = [client.call(bytes(1000), 1) for _ in range(10)]
            with pytest.raises(zerobuffer.Full, match="4 responses.*held by this program.*release"):
                await asyncio.gather(*calls)
            done = await asyncio.gather(*(take(client) for _ in range(10)))
            assert done == [1000] * 10

    async def take(client):
        with await client.call(bytes(1000), LONG) as response:
            return len(response)

    with Server(name, BufferConfig.for_frames(1000, 4)) as server:
        server.start(nothing)
        asyncio.run(main())


def test_swapped_sizes_are_named(name):
    swapped = BufferConfig(100 << 20, 4096)
    for create in (
        lambda: Server(name, swapped),
        lambda: FACTORY.create_in_place_duplex_server(name, swapped),
        lambda: FACTORY.create_mutable_server(name, swapped),
    ):
        with pytest.raises(zerobuffer.BadConfig, match=r"swapped.*BufferConfig\(metadata_size, payload_size\)"):
            create()


@pytest.mark.parametrize("config", [100 << 20, "4096", (4096, 100 << 20)])
def test_what_is_no_configuration_is_named(name, config):
    message = r"BufferConfig\(metadata_size, payload_size\)"
    for create in (Server, Reader, FACTORY.create_mutable_server):
        with pytest.raises(TypeError, match=message):
            create(name, config)


def test_sizes_of_nothing_are_named():
    for sizes in ((0, 4096), (-1, 4096), (4096, 0)):
        with pytest.raises(ValueError, match=r"must be positive, not -?\d.*BufferConfig\(metadata_size, payload_size\)"):
            BufferConfig(*sizes)
