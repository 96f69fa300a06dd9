"""The peer in Python; see the README of `tests/interop`."""

import argparse
import sys
import time

import numpy as np
import zerobuffer
from zerobuffer import BufferConfig, DuplexClient, RequestState

# Seconds: for a call, and to connect.
PATIENCE = 20.0
CONNECT = 10.0
# Between two looks at whether the server has ended.
LOOK = 0.1
# Rounds after which contents come again.
ROUNDS = 4096
KINDS = ("in-place", "two-buffers", "service")


def say(text):
    print(text, flush=True)


def ensure(held, reason):
    if not held:
        raise AssertionError(reason)


# ---- what servers do to requests, and what clients expect of them ----


INVERTED = bytes(255 - byte for byte in range(256))
# Below, numpy takes longer to begin than the work takes.
SMALL = 256


def transform(data):
    """Byte 0 becomes `t`, every other byte b becomes 255 - b."""
    if len(data) < SMALL:
        data[:] = data.tobytes().translate(INVERTED)
    else:
        array = np.asarray(data)
        np.invert(array, out=array)
    data[0] = ord("t")


class Contents:
    """Requests of one size, and their answers: windows of the same bytes, each a byte further on."""

    def __init__(self, size):
        self.size = size
        self.sent = np.random.default_rng().integers(0, 256, size + ROUNDS, dtype=np.uint8)
        self.answered = ~self.sent

    def fill(self, op, number, request):
        start = number % ROUNDS
        array = np.asarray(request)
        array[:] = self.sent[start : start + self.size]
        array[0] = ord(op)

    def check(self, number, answer):
        array = np.asarray(answer)
        start = number % ROUNDS
        ensure(len(array) == self.size, f"{len(array)} bytes instead of {self.size}")
        ensure(array[0] == ord("t"), f"byte 0 is {array[0]} instead of 't'")
        same = np.array_equal(array[1:], self.answered[start + 1 : start + self.size])
        ensure(same, f"round {number}: a byte is wrong")


# ---- the server ----


def handle(request):
    data = request.data
    op = data[:1].tobytes()
    if op == b"T":
        transform(data)
    elif op == b"S":
        time.sleep(0.2)
        transform(data)
    elif op == b"F":
        request.fail("refused on request")
    elif op == b"M":
        request.resize(len(request.metadata))
        request.data[:] = request.metadata
    elif op == b"H":
        transform(data[: len(data) // 2])
        say("hanging")
        time.sleep(60)
    else:
        raise ValueError(f"no such request: {op!r}")


def serve(options):
    # A BufferConfig of version 1 has metadata, be it ever so little.
    sizes = BufferConfig(max(options.metadata, 1), options.payload)
    factory = zerobuffer.DuplexChannelFactory.get_instance()
    if options.kind == "service":
        server = zerobuffer.Service(
            options.channel,
            sizes,
            workers=options.workers,
            wait=options.wait,
            metadata=options.server_metadata.encode(),
        )
    elif options.kind == "in-place":
        server = factory.create_in_place_duplex_server(
            options.channel,
            sizes,
            workers=options.workers,
            wait=options.wait,
            metadata=options.server_metadata.encode(),
        )
    else:
        server = factory.create_mutable_server(options.channel, sizes, wait=options.wait)
    with server:
        server.start(handle)
        say("ready")
        sys.stdin.read()


# ---- the client ----


class InPlace:
    """A client of an in-place channel, or of a service, which it finds by itself."""

    def __init__(self, options):
        self.client = zerobuffer.Client(
            options.channel, CONNECT, wait=options.wait, metadata=options.client_metadata.encode()
        )

    def send(self, contents, op, number=0):
        with self.client.acquire_request_buffer(contents.size) as buffer:
            contents.fill(op, number, buffer)
        return buffer.sequence

    def receive(self, timeout=PATIENCE):
        return self.client.receive_response(timeout)

    def receive_for(self, sequence):
        return self.client.receive_response_for(sequence, PATIENCE)

    def call(self, data):
        return self.client.call(data, PATIENCE)

    def reconnect(self):
        self.client.reconnect(CONNECT)

    def close(self):
        self.client.close()


class TwoBuffers:
    """A client of a channel of two buffers."""

    def __init__(self, options):
        self.client = DuplexClient(
            options.channel,
            timeout_ms=int(CONNECT * 1000),
            response_buffer=BufferConfig(4096, 16 << 20),
            wait=options.wait,
            metadata=options.client_metadata.encode(),
        )

    def send(self, contents, op, number=0):
        sequence, buffer = self.client.acquire_request_buffer(contents.size)
        contents.fill(op, number, buffer)
        self.client.commit_request()
        return sequence

    def receive(self, timeout=PATIENCE):
        return self.valid(self.client.receive_response(int(timeout * 1000)))

    def receive_for(self, sequence):
        return self.valid(self.client.receive_response_for(sequence, int(PATIENCE * 1000)))

    def valid(self, response):
        if not response.is_valid:
            raise zerobuffer.Timeout("no response in time")
        return response

    def call(self, data):
        return self.client.call(data, int(PATIENCE * 1000))

    def reconnect(self):
        self.client.reconnect(int(CONNECT * 1000))

    def close(self):
        self.client.close()


def connect(options):
    return TwoBuffers(options) if options.kind == "two-buffers" else InPlace(options)


def roundtrips(client, size, count):
    contents = Contents(size)
    for number in range(count):
        sequence = client.send(contents, "T", number)
        with client.receive_for(sequence) as response:
            ensure(response.sequence == sequence, f"{response.sequence} instead of {sequence}")
            contents.check(number, response.data)


def out_of_order(client):
    contents = Contents(100)
    slow = client.send(contents, "S", 0)
    quick = client.send(contents, "T", 1)
    for sequence, number in [(quick, 1), (slow, 0)]:
        with client.receive() as response:
            ensure(response.sequence == sequence, f"{response.sequence} came before its turn")
            contents.check(number, response.data)


def failure(client, options):
    refused = client.send(Contents(100), "F")
    try:
        client.receive_for(refused)
        raise AssertionError("F was answered as if all were well")
    except zerobuffer.HandlerFailed as error:
        ensure(options.kind != "two-buffers", "version 1 has no failed answers")
        ensure((error.sequence, error.status) == (refused, 1), repr(error))
        ensure(error.message == "refused on request", f"the message is {error.message!r}")
    except zerobuffer.PeerClosed:
        ensure(options.kind == "two-buffers", "the connection was closed")
        client.close()
        client = connect(options)
    roundtrips(client, 100, 1)
    client.close()


def killed(client):
    sequence = client.send(Contents(100_000), "H")
    try:
        client.receive_for(sequence)
        raise AssertionError("a killed server has answered")
    except zerobuffer.PeerDied as error:
        ensure(error.sequence == sequence, f"{error.sequence} is said to be lost")
        ensure(error.state is RequestState.IN_DOUBT, f"it is said to be {error.state}")


def hold(client):
    client.send(Contents(100), "S")
    say("sent")
    sys.stdin.read()
    raise AssertionError("nobody killed this client")


def metadata(client, of_server, own):
    found = client.client.server_metadata.decode()
    ensure(found == of_server, f"the server's metadata is {found!r}")
    with client.call(b"M".ljust(max(len(own), 1))) as response:
        seen = bytes(response).decode()
    ensure(seen == own, f"the server sees {seen!r} as the client's metadata")


def restart(client):
    roundtrips(client, 100, 1)
    say("ready")
    await_end(client)
    client.reconnect()
    roundtrips(client, 100, 1)


def await_end(client):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            client.receive(LOOK)
        except zerobuffer.PeerClosed:
            return
        except zerobuffer.Timeout:
            continue
        raise AssertionError("an answer to nothing")
    raise AssertionError("the server does not end")


def bench(client, count):
    call = client.client.call
    if isinstance(client, TwoBuffers):
        call = lambda data: client.call(data).to_bytes()  # noqa: E731

    expected = b"t" + b"1234567".translate(INVERTED)

    def calls(count):
        start = time.perf_counter_ns()
        for _ in range(count):
            if bytes(call(b"T1234567")) != expected:
                raise AssertionError("the answer is wrong")
        return time.perf_counter_ns() - start

    calls(count // 10)
    say(f"{calls(count) / count:.1f}")


def run(options):
    client = connect(options)
    match options.case:
        case ["roundtrips", size, count]:
            roundtrips(client, int(size), int(count))
        case ["out-of-order"]:
            out_of_order(client)
        case ["failure"]:
            failure(client, options)
        case ["killed"]:
            killed(client)
        case ["hold"]:
            hold(client)
        case ["metadata", text]:
            metadata(client, text, options.client_metadata)
        case ["restart"]:
            restart(client)
        case ["bench", count]:
            bench(client, int(count))
        case other:
            raise SystemExit(f"no such case: {other}")
    client.close()


def main():
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    for name in ("server", "client"):
        role = roles.add_parser(name)
        role.add_argument("channel")
        role.add_argument("--kind", choices=KINDS, required=True)
        role.add_argument("--wait", choices=("default", "spin", "park"), default="default")
    server, client = roles.choices["server"], roles.choices["client"]
    server.add_argument("--payload", type=int, required=True)
    server.add_argument("--metadata", type=int, required=True)
    server.add_argument("--workers", type=int, default=1)
    server.add_argument("--server-metadata", default="")
    client.add_argument("--client-metadata", default="")
    client.add_argument("case", nargs="+")
    options = parser.parse_args()
    serve(options) if options.role == "server" else run(options)


if __name__ == "__main__":
    main()
