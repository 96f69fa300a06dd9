"""Round trips between two Python processes, as the benchmark starts it:

    echo.py version-1|pipe|shared-memory CHANNEL BYTES SECONDS CLIENT_CPU SERVER_CPU

The server adds one to byte 0 and sends everything back. Prints nanoseconds per round trip.
"""

import multiprocessing
import os
import sys
import time

what, channel, size, seconds, client_cpu, server_cpu = sys.argv[1:]
size, seconds = int(size), float(seconds)
context = multiprocessing.get_context("fork")


def measure(round_trip):
    """The median of batches, after a warm-up."""
    os.sched_setaffinity(0, {int(client_cpu)})
    for _ in range(20):
        round_trip()
    count, batches = 1, []
    begin = time.perf_counter()
    while not batches or time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        for _ in range(count):
            round_trip()
        took = time.perf_counter() - start
        if took < seconds / 20:
            count *= 2
        else:
            batches.append(took / count)
    print(sorted(batches)[len(batches) // 2] * 1e9, flush=True)


def child(body, *arguments):
    def pinned():
        os.sched_setaffinity(0, {int(server_cpu)})
        body(*arguments)

    process = context.Process(target=pinned, daemon=True)
    process.start()
    return process


def pipe():
    ours, theirs = context.Pipe()

    def serve(connection):
        while True:
            data = bytearray(connection.recv_bytes())
            data[0] = (data[0] + 1) & 255
            connection.send_bytes(data)

    server = child(serve, theirs)
    data = bytes(size)

    def round_trip():
        ours.send_bytes(data)
        if ours.recv_bytes()[0] != 1:
            sys.exit("a wrong answer")

    measure(round_trip)
    server.terminate()
    server.join()


def shared_memory():
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=size)
    requests, responses = context.SimpleQueue(), context.SimpleQueue()

    def serve():
        while True:
            requests.get()
            memory.buf[0] = (memory.buf[0] + 1) & 255
            responses.put(True)

    server = child(serve)

    def round_trip():
        memory.buf[0] = 0
        requests.put(True)
        responses.get()
        if memory.buf[0] != 1:
            sys.exit("a wrong answer")

    measure(round_trip)
    server.terminate()
    server.join()
    memory.close()
    memory.unlink()


def version_1():
    from zerobuffer import BufferConfig
    from zerobuffer.duplex import DuplexChannelFactory

    ready, stop = context.Event(), context.Event()

    def serve():
        def handler(request, responses):
            data = bytearray(request.data)
            data[0] = (data[0] + 1) & 255
            responses.write_frame(data)

        config = BufferConfig(4096, 2 * size + (1 << 20))
        server = DuplexChannelFactory.get_instance().create_immutable_server(channel, config, 5.0)
        server.start(handler)
        ready.set()
        stop.wait()
        server.stop()

    server = child(serve)
    ready.wait()
    time.sleep(0.1)
    client = DuplexChannelFactory.get_instance().create_client(channel)
    data = bytes(size)

    def round_trip():
        client.send_request(data)
        with client.receive_response(5000) as response:
            if response.to_bytes()[0] != 1:
                sys.exit("a wrong answer")

    measure(round_trip)
    client.close()
    stop.set()
    server.join()


{"version-1": version_1, "pipe": pipe, "shared-memory": shared_memory}[what]()
