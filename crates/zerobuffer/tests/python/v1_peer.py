"""An existing peer of version 1 (zerobuffer-ipc from PyPI) that takes orders, one a line, on its
standard input and answers each with one line that starts with "> ".

    v1_peer.py writer NAME
    v1_peer.py reader NAME METADATA_SIZE PAYLOAD_SIZE
    v1_peer.py server CHANNEL MODE TIMEOUT
    v1_peer.py client CHANNEL
"""

import os
import struct
import sys
import time
from datetime import timedelta

from zerobuffer import BufferConfig, Reader, Writer
from zerobuffer.duplex import DuplexChannelFactory


def say(text):
    sys.stdout.write(f"> {text}\n")
    sys.stdout.flush()


def pattern(number, size):
    """Byte i of frame `number` is (number + i) mod 256, as the existing tools have it."""
    start = number % 256
    lap = bytes(range(256)) * 2
    return (lap[start : start + 256] * (size // 256 + 1))[:size]


def serve_orders(orders):
    """Runs each line's order, and answers with its result or the exception's class."""
    say("ready")
    for line in sys.stdin:
        name, *arguments = line.split()
        try:
            result = orders[name](*arguments)
            say("ok" if result is None else result)
        except Exception as error:  # the test decides what was to be expected
            say(f"!{type(error).__name__} {error}")


class WriterOrders:
    def __init__(self, name):
        self.name = name
        self.writer = None
        self.frames = 0

    def table(self):
        return {
            "connect": self.connect,
            "metadata": lambda text="": self.writer.set_metadata(text.encode()),
            "timeout": self.timeout,
            "write": self.write,
            "acquire": self.acquire,
            "many": self.many,
            "fill": self.fill,
            "tail": self.tail,
            "connected": lambda: str(self.writer.is_reader_connected()),
            "keep_connecting": self.keep_connecting,
            "close": self.close,
        }

    def connect(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                self.writer = Writer(self.name)
                return None
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def timeout(self, seconds):
        self.writer.write_timeout = timedelta(seconds=float(seconds))

    def write(self, size):
        data = pattern(self.frames + 1, int(size))
        self.writer.write_frame(data)
        self.frames += 1
        return str(self.frames)

    def acquire(self, size):
        view = self.writer.get_frame_buffer(int(size))
        view[:] = pattern(self.frames + 1, int(size))
        view.release()
        self.writer.commit_frame()
        self.frames += 1
        return str(self.frames)

    def many(self, count, size):
        start = time.monotonic()
        for _ in range(int(count)):
            self.write(size)
        return str(time.monotonic() - start)

    def fill(self, size):
        """Writes until there is no more room; the answer counts the frames that fitted."""
        count = 0
        try:
            while True:
                self.write(size)
                count += 1
        except Exception as error:
            return f"{count} {type(error).__name__}"

    def tail(self, rest):
        """One frame that ends `rest` bytes before the end of the ring."""
        oieb = self.writer._oieb
        return self.write(oieb.payload_size - oieb.payload_write_pos - 16 - int(rest))

    def keep_connecting(self, seconds):
        """Connects and closes again and again; anything but a missing buffer is an error."""
        deadline = time.monotonic() + float(seconds)
        connected = 0
        while time.monotonic() < deadline:
            try:
                writer = Writer(self.name)
            except Exception as error:
                # It is not there, or closed since it was opened: both leave no claim.
                if "not found" not in str(error) and "No reader PID" not in str(error):
                    return f"!{error}"
                continue
            connected += 1
            writer.close()
        return str(connected)

    def close(self):
        self.writer.close()
        self.writer = None
        self.frames = 0


class ReaderOrders:
    def __init__(self, name, metadata_size, payload_size):
        self.name = name
        self.config = BufferConfig(int(metadata_size), int(payload_size))
        self.reader = None
        self.held = []

    def table(self):
        return {
            "create": self.create,
            "read": self.read,
            "hold": self.hold,
            "release": self.release,
            "many": self.many,
            "metadata": self.metadata,
            "connected": lambda: str(self.reader.is_writer_connected()),
            "close": self.close,
        }

    def create(self):
        self.reader = Reader(self.name, self.config)

    def take(self, timeout):
        frame = self.reader.read_frame(float(timeout))
        if frame is None:
            raise TimeoutError()
        return frame

    def read(self, timeout="5"):
        with self.take(timeout) as frame:
            good = bytes(frame.data) == pattern(frame.sequence, frame.size)
            return f"{frame.sequence} {frame.size} {'good' if good else 'bad'}"

    def hold(self):
        self.held.append(self.take("5"))

    def release(self, index):
        self.held.pop(int(index)).dispose()

    def many(self, count):
        start = time.monotonic()
        for expected in range(1, int(count) + 1):
            with self.take("10") as frame:
                if frame.sequence != expected or bytes(frame.data) != pattern(expected, frame.size):
                    return f"frame {expected} is damaged"
        return f"{time.monotonic() - start}"

    def metadata(self):
        view = self.reader.get_metadata()
        if view is None:
            return "none"
        data = bytes(view)
        view.release()
        return data.decode()

    def close(self):
        self.reader.close()
        self.reader = None


def serve_duplex(channel, mode, timeout="5"):
    served = 0

    def handler(request, responses):
        nonlocal served
        served += 1
        data = bytes(request.data)
        if mode == "fail-second" and served == 2:
            raise RuntimeError("the second request")
        if mode == "twice":
            responses.write_frame(data)
        if mode == "xor":
            data = bytes(byte ^ 0x55 for byte in data)
        if mode == "slow":
            time.sleep(0.1)
        if data == b"die":
            os._exit(1)
        responses.write_frame(data)

    config = BufferConfig(4096, 1024 * 1024)
    server = DuplexChannelFactory.get_instance().create_immutable_server(channel, config, float(timeout))
    server.start(handler)
    serve_orders({"running": lambda: str(server.is_running), "stop": server.stop})


class ClientOrders:
    def __init__(self, channel):
        self.channel = channel
        self.client = None

    def table(self):
        return {
            "connect": self.connect,
            "call": self.call,
            "send": lambda text: str(self.client.send_request(text.encode())),
            "receive": self.receive,
            "echo": self.echo,
            "zero_copy": self.zero_copy,
            "pipeline": self.pipeline,
            "rounds": self.rounds,
            "connected": lambda: str(self.client.is_server_connected),
            "close": self.close,
        }

    def connect(self):
        self.client = DuplexChannelFactory.get_instance().create_client(self.channel)

    def receive(self, timeout_ms="5000"):
        with self.client.receive_response(int(timeout_ms)) as response:
            return f"{response.sequence} {response.to_bytes().decode()}"

    def call(self, text):
        self.client.send_request(text.encode())
        return self.receive()

    def echo(self, size):
        data = pattern(7, int(size))
        self.client.send_request(data)
        with self.client.receive_response(5000) as response:
            return "good" if response.to_bytes() == data else "bad"

    def zero_copy(self, text):
        data = text.encode()
        _, view = self.client.acquire_request_buffer(len(data))
        view[:] = data
        view.release()
        self.client.commit_request()
        return self.receive()

    def pipeline(self, count):
        for number in range(int(count)):
            self.client.send_request(struct.pack("<Q", number))
        for number in range(int(count)):
            with self.client.receive_response(5000) as response:
                if response.to_bytes() != struct.pack("<Q", number):
                    return f"response {number} is another's"
        return "in order"

    def rounds(self, count, size):
        data = pattern(3, int(size))
        start = time.monotonic()
        for _ in range(int(count)):
            self.client.send_request(data)
            with self.client.receive_response(5000) as response:
                if len(response) != len(data):
                    return "bad"
        return str(time.monotonic() - start)

    def close(self):
        self.client.close()
        self.client = None


def main():
    role, *arguments = sys.argv[1:]
    if role == "writer":
        serve_orders(WriterOrders(*arguments).table())
    elif role == "reader":
        serve_orders(ReaderOrders(*arguments).table())
    elif role == "server":
        serve_duplex(*arguments)
    elif role == "client":
        serve_orders(ClientOrders(*arguments).table())
    else:
        sys.exit(__doc__)


main()
