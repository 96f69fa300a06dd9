"""A program on rocket-welder-sdk, and the GStreamer side that it expects, as two processes:

    rocket_welder_program.py user|camera oneway|duplex NAME WIDTH HEIGHT FRAMES

Both use whatever package `zerobuffer` is on the path, by the names of zerobuffer-ipc 1.3.0 only. Each prints how
many frames were right.
"""

import json
import struct
import sys
import time
from datetime import timedelta

import numpy as np

role, mode, name = sys.argv[1:4]
WIDTH, HEIGHT, FRAMES = map(int, sys.argv[4:])
SIZE = WIDTH * HEIGHT * 3
LIMIT = 300.0
CAPS = f"video/x-raw, format=(string)RGB, width=(int){WIDTH}, height=(int){HEIGHT}, framerate=(fraction)30/1"
METADATA = json.dumps(
    {"type": "zerosink", "version": "1.0", "element_name": "zerosink0", "caps": CAPS}
).encode()


def shade(number):
    return number % 251


HEADER = struct.Struct("<QQQ")
# One for all, since new memory for each takes longer than all else.
FRAME = bytearray(HEADER.size + SIZE)
PIXELS = np.frombuffer(FRAME, np.uint8, offset=HEADER.size)


def frame(number):
    HEADER.pack_into(FRAME, 0, number, number * 33_000_000, 2**64 - 1)
    PIXELS[:] = shade(number)
    return FRAME


def patiently(attempt):
    """What `attempt` returns, once the other side is there."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return attempt()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def user():
    import cv2
    import rocket_welder_sdk

    right, kept = [], []

    def draw(picture):
        cv2.rectangle(picture, (0, 0), (9, 9), (255, 254, 253), -1)
        # Arrays outlive their frames.
        kept.append((picture, picture[-1, -1].copy()))
        del kept[:-3]
        right.append(picture[0, 0].tolist() == [255, 254, 253] and picture.shape == (HEIGHT, WIDTH, 3))

    def one_way(picture):
        assert int(picture[-1, -1, 0]) == shade(len(right)), "frames come in order"
        draw(picture)

    def duplex(given, wanted):
        np.copyto(wanted, given)
        draw(wanted)

    url = f"shm://{name}?size=64MB&metadata=4KB&mode={mode}&timeout=10000"
    client = rocket_welder_sdk.Client.from_connection_string(url)
    client.start(duplex if mode == "duplex" else one_way)
    end = time.monotonic() + LIMIT
    while len(right) < FRAMES and time.monotonic() < end:
        time.sleep(0.01)
    if mode == "duplex":
        # The last response is on its way.
        sys.stdin.readline()
    unharmed = all((picture[-1, -1] == corner).all() for picture, corner in kept)
    print("right:", sum(right) if unharmed else "kept pictures have changed", flush=True)
    client.stop()


def camera_oneway():
    from zerobuffer import Writer

    writer = patiently(lambda: Writer(name))
    writer.write_timeout = timedelta(seconds=60)
    writer.set_metadata(METADATA)
    for number in range(FRAMES):
        writer.write_frame(frame(number))
    print("written:", writer.frames_written, flush=True)
    sys.stdin.readline()
    writer.close()


def camera_duplex():
    from zerobuffer.duplex import DuplexChannelFactory

    factory = DuplexChannelFactory.get_instance()
    try:
        client = patiently_once_there(lambda: factory.create_client(name, metadata=METADATA))
    except TypeError:
        # The existing package's clients set no metadata; its GStreamer element does.
        client = patiently_once_there(lambda: factory.create_client(name))
        client._request_writer.set_metadata(METADATA)
    right = 0
    for number in range(FRAMES):
        client.send_request(frame(number))
        with client.receive_response(60_000) as response:
            if len(response) == SIZE:
                drawn, rest = bytes(response.data[:3]), response.data[-1]
                right += drawn == bytes([255, 254, 253]) and rest == shade(number)
    print("right:", right, flush=True)
    sys.stdin.readline()
    client.close()


def patiently_once_there(attempt):
    def checked():
        try:
            return attempt()
        except TypeError as error:
            return error

    result = patiently(checked)
    if isinstance(result, TypeError):
        raise result
    return result


if __name__ == "__main__":
    {"user": user, "camera": camera_duplex if mode == "duplex" else camera_oneway}[role]()
