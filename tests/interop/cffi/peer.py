"""The peer on the C interface, by cffi; see the README of `tests/interop`."""

import argparse
import random
import sys
import time

import numpy
from zb import Client, Failed, View, check, ffi, fill, lib

PATIENCE = 20
CONNECT = 10
KINDS = {
    "in-place": lib.ZB_CHANNEL_IN_PLACE,
    "two-buffers": lib.ZB_CHANNEL_TWO_BUFFERS,
    "service": lib.ZB_CHANNEL_SERVICE,
}
WAITS = {"default": lib.ZB_WAIT_DEFAULT, "park": lib.ZB_WAIT_PARK, "spin": lib.ZB_WAIT_SPIN}
ROUNDS = 4096


def say(line: str) -> None:
    print(line, flush=True)


# ---- the server ----


def transform(data: "ffi.CData", size: int) -> None:
    """Byte 0 becomes `t`, every other byte b becomes 255 - b."""
    if size > 0:
        data[0] = ord("t")
        rest = numpy.frombuffer(ffi.buffer(data, size), numpy.uint8)[1:]
        numpy.invert(rest, out=rest)


def refuse(frame: "ffi.CData", message: bytes) -> int:
    check(lib.zb_frame_fail(frame, message, len(message)))
    return 1


@ffi.callback("zb_handler", error=1)
def handle(frame: "ffi.CData", _user: "ffi.CData") -> int:
    op = bytes([frame.data[0]]) if frame.len > 0 else b""
    if op == b"F":
        return refuse(frame, b"refused on request")
    if op == b"M":
        data, length = ffi.new("uint8_t const **"), ffi.new("size_t *")
        check(lib.zb_frame_metadata(frame, data, length))
        check(lib.zb_frame_resize(frame, length[0]))
        ffi.memmove(frame.data, data[0], length[0])
        return 0
    if op == b"H":
        transform(frame.data, frame.len // 2)
        say("hanging")
        time.sleep(60)
        return 0
    if op not in (b"T", b"S"):
        return refuse(frame, b"no such request")
    if op == b"S":
        time.sleep(0.2)
    transform(frame.data, frame.len)
    return 0


def create(options: argparse.Namespace) -> "ffi.CData":
    is_service, name = options.kind == "service", options.channel.encode()
    config = ffi.new("zb_service_config *" if is_service else "zb_server_config *")
    fields = {"metadata_size": options.metadata, "wait": WAITS[options.wait]}
    fields["ring_size" if is_service else "payload_size"] = options.payload
    if options.kind == "two-buffers":
        fields["kind"] = lib.ZB_SERVER_MUTABLE
    else:
        fields["workers"] = options.workers
        fields["metadata"] = options.server_metadata
    kept = fill(config, fields)
    server = ffi.new("zb_server **")
    make = lib.zb_service_create if is_service else lib.zb_server_create
    check(make(name, config, server))
    del kept
    return server


def serve(options: argparse.Namespace) -> None:
    server = create(options)
    check(lib.zb_server_start(server[0], handle, ffi.NULL, ffi.NULL))
    say("ready")
    sys.stdin.read()
    check(lib.zb_server_stop(server[0]))
    lib.zb_server_close(server[0])


# ---- the client ----


def ensure(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(otherwise)


class Contents:
    """Requests of one size, and their answers: windows of the same bytes, each a byte further on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = random.randbytes(size + ROUNDS)
        self.answered = self.sent.translate(bytes(255 - byte for byte in range(256)))

    def request(self, op: bytes, round_: int) -> bytes:
        start = round_ % ROUNDS
        return op + self.sent[start + 1 : start + self.size]

    def check(self, round_: int, view: View) -> None:
        start = round_ % ROUNDS
        expected = b"t" + self.answered[start + 1 : start + self.size]
        ensure(view.data[:] == expected, f"the answer of round {round_} has wrong bytes")


def connect(options: argparse.Namespace) -> Client:
    return Client(
        options.channel,
        CONNECT,
        channel=KINDS[options.kind],
        wait=WAITS[options.wait],
        metadata=options.client_metadata,
        response_metadata_size=4096,
        response_payload_size=16 << 20,
    )


def roundtrips(client: Client, size: int, count: int) -> None:
    contents = Contents(size)
    for round_ in range(count):
        sequence = client.send(contents.request(b"T", round_))
        with client.receive(sequence, PATIENCE) as view:
            contents.check(round_, view)


def out_of_order(client: Client) -> None:
    contents = Contents(100)
    slow = client.send(contents.request(b"S", 0))
    quick = client.send(contents.request(b"T", 1))
    for sequence, round_ in ((quick, 1), (slow, 0)):
        with client.receive(0, PATIENCE) as view:
            ensure(view.sequence == sequence, f"{view.sequence} came before its turn")
            contents.check(round_, view)


def failed(client: Client, sequence: int) -> Failed:
    """The error that comes instead of an answer."""
    try:
        with client.receive(sequence, PATIENCE) as view:
            sys.exit(f"there is an answer of {len(view.data)} bytes instead of a failure")
    except Failed as error:
        return error


def failure(client: Client, options: argparse.Namespace) -> None:
    refused = client.send(Contents(100).request(b"F", 0))
    error = failed(client, refused)
    if options.kind == "two-buffers":
        ensure(error.status == lib.ZB_PEER_CLOSED, str(error))
        client.close()
        client = connect(options)
    else:
        ensure(error.status == lib.ZB_HANDLER_FAILED and error.handler_status == 1, str(error))
        ensure(error.sequence == refused, f"the failure is said to be that of {error.sequence}")
        ensure(error.detail == "refused on request", f"the message is {error.detail!r}")
    roundtrips(client, 100, 1)
    client.close()


def killed(client: Client) -> None:
    sequence = client.send(Contents(100_000).request(b"H", 0))
    error = failed(client, sequence)
    ensure(error.status == lib.ZB_PEER_DIED and error.sequence == sequence, str(error))
    ensure(error.request_state == lib.ZB_REQUEST_IN_DOUBT, f"its state is {error.request_state}")


def hold(client: Client) -> None:
    client.send(Contents(100).request(b"S", 0))
    say("sent")
    sys.stdin.read()
    sys.exit("nobody killed this client")


def metadata(client: Client, text: str, own: str) -> None:
    found = client.server_metadata()
    ensure(found == text, f"the server's metadata is {found!r}")
    sequence = client.send(b"M".ljust(len(own)))
    with client.receive(sequence, PATIENCE) as view:
        ensure(view.data[:] == own.encode(), f"the server sees {view.data[:]!r}")


def restart(client: Client, options: argparse.Namespace) -> None:
    roundtrips(client, 100, 1)
    say("ready")
    start = time.monotonic()
    while time.monotonic() - start < PATIENCE:
        try:
            client.receive(0, 0.1)
            sys.exit("there is an answer instead of the server's end")
        except Failed as error:
            if error.status == lib.ZB_PEER_CLOSED:
                break
            ensure(error.status == lib.ZB_TIMEOUT, str(error))
    else:
        sys.exit("the server does not end")
    if options.kind != "two-buffers":
        client.reconnect(CONNECT)
    else:
        client.close()
        client = connect(options)
    roundtrips(client, 100, 1)
    client.close()


def bench(client: Client, count: int) -> None:
    def calls(count: int) -> int:
        start = time.perf_counter_ns()
        for number in range(count):
            head = number.to_bytes(4, "little")
            with client.call(b"T" + head + bytes(3), PATIENCE) as view:
                answer = view.data[:]
            expected = b"t" + bytes(255 - byte for byte in head) + b"\xff\xff\xff"
            ensure(answer == expected, f"the answer is {answer!r}")
        return time.perf_counter_ns() - start

    calls(count // 10)
    print(f"{calls(count) / count:.1f}")


def run(options: argparse.Namespace) -> None:
    client, words = connect(options), options.case[1:]
    match options.case[0]:
        case "roundtrips":
            roundtrips(client, int(words[0]), int(words[1]))
        case "out-of-order":
            out_of_order(client)
        case "failure":
            return failure(client, options)
        case "killed":
            killed(client)
        case "hold":
            hold(client)
        case "metadata":
            metadata(client, words[0], options.client_metadata)
        case "restart":
            return restart(client, options)
        case "bench":
            bench(client, int(words[0]))
        case other:
            sys.exit(f"no such case: {other}")
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    for role in ("server", "client"):
        options = roles.add_parser(role)
        options.add_argument("channel")
        options.add_argument("--kind", choices=KINDS, required=True)
        options.add_argument("--wait", choices=WAITS, default="default")
        if role == "server":
            options.add_argument("--payload", type=int, required=True)
            options.add_argument("--metadata", type=int, required=True)
            options.add_argument("--workers", type=int, default=1)
            options.add_argument("--server-metadata", default="")
        else:
            options.add_argument("--client-metadata", default="")
            options.add_argument("case", nargs="+")
    options = parser.parse_args()
    serve(options) if options.role == "server" else run(options)


main()
