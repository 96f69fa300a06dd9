"""The other side of Program.cs, with the existing Python package `zerobuffer-ipc`. Arguments: serve NAME; call NAME."""

import sys
import time

from zerobuffer import BufferConfig, ZeroBufferException
from zerobuffer.duplex import DuplexChannelFactory, ProcessingMode

REQUESTS = 60
LENGTH = 30000
MARKED = 8
BAD = 5
METADATA = b'{"camera": 3}'
CHANGED = bytes(value ^ 0xA5 for value in range(256))
PATIENCE = 20


def sent(number: int) -> bytes:
    return bytes((number * 7 + index) % 256 for index in range(LENGTH))


def expected(request: bytes) -> bytes:
    return (bytes([1] * MARKED) + request[MARKED:]).translate(CHANGED)


def serve(name: str) -> bool:
    requests, described = [], []

    def handle(frame, writer) -> None:
        requests.append(frame.sequence)
        if len(requests) == BAD:
            raise ValueError("no picture")
        writer.write_frame(expected(bytes(frame.data)))

    server = DuplexChannelFactory().create_immutable_server(name, BufferConfig(512, 1 << 20), timeout=PATIENCE / 2)
    server.start(handle, lambda metadata: described.append(bytes(metadata)), ProcessingMode.SINGLE_THREAD)
    end = time.monotonic() + 2 * PATIENCE
    while server.is_running and time.monotonic() < end:
        time.sleep(0.01)
    server.stop()
    return requests == list(range(1, REQUESTS + 1)) and described == [METADATA]


def connect(name: str):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return DuplexChannelFactory().create_client(name)
        except ZeroBufferException:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def call(name: str) -> bool:
    right = 0
    with connect(name) as client:
        client._request_writer.set_metadata(METADATA)
        for number in range(1, REQUESTS + 1):
            request = sent(number)
            assert client.send_request(request) == number
            response = client.receive_response(500 if number == BAD else PATIENCE * 1000)
            if number == BAD:
                right += not response.is_valid
            else:
                right += bytes(response.data) == expected(request)
                response.dispose()
            del response
    return right == REQUESTS


if __name__ == "__main__":
    sys.exit(0 if {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2]) else 1)
