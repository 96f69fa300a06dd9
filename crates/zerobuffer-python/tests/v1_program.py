"""A program of version 1, written for the existing package `zerobuffer-ipc`, which it uses through its public
names only. It knows nothing of ours; the tests run it unchanged with either package.

    v1_program.py reader|writer|full|modules|views|server|client NAME

Prints what it sees, line by line.
"""

import ctypes
import struct
import sys
import time
from datetime import timedelta

import zerobuffer
from zerobuffer import (
    BufferConfig,
    BufferFullException,
    ErrorEventArgs,
    Frame,
    FrameTooLargeException,
    InvalidFrameSizeException,
    MetadataAlreadyWrittenException,
    Reader,
    ReaderDeadException,
    SequenceError,
    Writer,
    WriterAlreadyConnectedException,
    WriterDeadException,
    ZeroBufferException,
)
from zerobuffer.duplex import (
    DuplexChannelFactory,
    DuplexResponse,
    IDuplexClient,
    IImmutableDuplexServer,
    ImmutableDuplexServer,
    ProcessingMode,
)
from zerobuffer.types import OIEB, FrameHeader, align_to_boundary

SIZES = [1, 33, 1000, 7, 4000, 2]


def say(*words):
    print(*words, flush=True)


def retried(attempt, seconds=10):
    """What `attempt` returns, once it does not raise any more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except ZeroBufferException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def pattern(number, size):
    return bytes((number + index) % 256 for index in range(size))


def raises(expected, call, *arguments):
    try:
        call(*arguments)
    except expected as error:
        say("raises", expected.__name__, isinstance(error, ZeroBufferException))
        return error
    raise AssertionError(f"{call} did not raise {expected}")


def reader(name):
    config = BufferConfig(metadata_size=100, payload_size=9000)
    say(config, config == BufferConfig(100, 9000), BufferConfig())
    for sizes in ({"metadata_size": 0}, {"payload_size": -1}):
        try:
            BufferConfig(**sizes)
        except ValueError as error:
            say("ValueError", str(error).split(",")[0])
    with Reader(name, config) as reader:
        say(reader.name == name, reader.frames_read, reader.bytes_read)
        say("ready")
        say("connected", reader.is_writer_connected(timeout_ms=10_000))
        first = reader.read_frame(timeout=10.0)
        metadata = reader.get_metadata()
        say("metadata", bytes(metadata), len(metadata), metadata.tobytes())
        metadata.release()
        with first as frame:
            say(type(frame) is Frame, frame, frame.is_valid, len(frame), frame.size, frame.sequence)
            say(bytes(frame.data) == bytes(frame) == pattern(1, SIZES[0]))
        say("after", first.is_valid)
        try:
            first.data
        except ValueError as error:
            say("ValueError", error)
        for number, size in enumerate(SIZES[1:] * 10, 2):
            frame = reader.read_frame()
            data = frame.data
            say(frame.sequence, len(data), data == pattern(number, size), data.format, data.ndim)
            if number % 2:
                reader.release_frame(frame)
            else:
                frame.dispose()
                frame.dispose()
        with reader.read_frame() as frame:
            header = frame.data[:4]
            say("header", struct.unpack("<I", header))
        in_place = reader.read_frame(timeout=None)
        say("in place", bytes(in_place.data))
        in_place.dispose()
        say("nothing", reader.read_frame(timeout=0.1))
        say("counted", reader.frames_read, reader.bytes_read)
        say("end")
        sys.stdin.readline()
        raises(WriterDeadException, reader.read_frame, 1.0)
        say("connected", reader.is_writer_connected())
    reader.close()
    say("closed", reader.is_writer_connected())
    raises(ZeroBufferException, reader.read_frame)
    raises(ZeroBufferException, reader.get_metadata)


def writer(name):
    raises(ZeroBufferException, Writer, name + "-not-there")
    with retried(lambda: Writer(name)) as writer:
        say(writer.name == name, writer.is_reader_connected(), writer.write_timeout)
        raises(WriterAlreadyConnectedException, Writer, name)
        raises(ZeroBufferException, writer.set_metadata, bytes(200))
        writer.set_metadata(bytearray(b"some metadata"))
        raises(MetadataAlreadyWrittenException, writer.set_metadata, b"more")
        raises(InvalidFrameSizeException, writer.write_frame, b"")
        raises(InvalidFrameSizeException, writer.get_frame_buffer, 0)
        raises(FrameTooLargeException, writer.write_frame, bytes(10_000))
        for number, size in enumerate([SIZES[0]] + SIZES[1:] * 10, 1):
            data = pattern(number, size)
            wrapped = [data, bytearray(data), memoryview(data)][number % 3]
            say(writer.write_frame(wrapped), writer.frames_written, writer.bytes_written)
        writer.write_frame(struct.pack("<I", 77) + b"rest")
        buffer = writer.get_frame_buffer(5)
        say(len(buffer), buffer.readonly, buffer.format)
        buffer[:] = b"hello"
        writer.commit_frame()
        raises(ZeroBufferException, writer.commit_frame)
        writer.write_timeout = timedelta(milliseconds=100)
        say(writer.write_timeout)
        try:
            writer.write_timeout = timedelta(0)
        except ValueError as error:
            say("ValueError", error)
        say("counted", writer.frames_written, writer.bytes_written)
        say("end")
        sys.stdin.readline()
    writer.close()
    say("closed", writer.is_reader_connected())
    raises(ZeroBufferException, writer.write_frame, b"x")


def full(name):
    """Both ends in one process: a full ring, and a reader that leaves."""
    reader = Reader(name, BufferConfig(64, 1024))
    writer = Writer(name)
    writer.write_timeout = timedelta(milliseconds=50)
    writer.write_frame(bytes(900))
    raises(BufferFullException, writer.write_frame, bytes(900))
    frame = reader.read_frame(1)
    del frame
    writer.write_frame(b"room again")
    with reader.read_frame(1) as frame:
        say(bytes(frame.data))
    reader.close()
    raises(ReaderDeadException, writer.write_frame, b"x")
    writer.close()
    error = SequenceError(3, 5)
    say(error, error.expected, error.got, WriterDeadException(), BufferFullException("mine"))
    header = FrameHeader(12, 7)
    say(header, FrameHeader.unpack(header.pack()) == header, header.is_wrap_marker(), OIEB.SIZE)
    say(align_to_boundary(65), ErrorEventArgs(ValueError("x")), sorted(mode.name for mode in ProcessingMode))
    say(all(hasattr(zerobuffer, public) for public in zerobuffer.__all__))


def modules(name):
    """What the package's modules offer to tools that look at a buffer."""
    from zerobuffer import platform
    from zerobuffer.oieb_view import OIEBView
    from zerobuffer.shared_memory import SharedMemory, SharedMemoryFactory

    with Reader(name, BufferConfig(64, 1024)) as reader, Writer(name) as writer:
        memory = SharedMemoryFactory.open(name)
        view = OIEBView(memory.get_memoryview(0, OIEBView.SIZE))
        say(memory.name == "/" + name, memory.size, isinstance(memory, SharedMemory))
        for index in range(3):
            writer.write_frame(bytes(100 * index + 100))
            say(view.payload_free_bytes, view.payload_write_pos, view.payload_written_count)
        with reader.read_frame(1):
            say(view.payload_free_bytes, view.payload_read_pos, view.payload_read_count)
        say(view.payload_free_bytes, view.used_bytes, view.has_space_for(500), view.has_space_for(600))
        say(view.oieb_size, view.version, view.metadata_size, view.payload_size)
        say(platform.process_exists(view.reader_pid), view.writer_pid == view.reader_pid)
        say(memory.read_uint32(0), memory.read_uint64(32), memory.read_bytes(192, 16).hex())
        for attempt in (lambda: memory.read_bytes(memory.size - 1, 2), lambda: OIEBView(memoryview(b""))):
            try:
                attempt()
            except ValueError:
                say("ValueError")
        view.dispose()
        memory.close()
        for call in (lambda: platform.create_shared_memory("/" + name, 10), lambda: Reader(name)):
            raises(ZeroBufferException, call)
    raises(ZeroBufferException, SharedMemoryFactory.open, name)
    raises(ZeroBufferException, platform.open_semaphore, name + "-not-there")

    memory = SharedMemoryFactory.create(name, 4096)
    view = OIEBView(memory.get_view(0, 128))
    view.initialize(64, 640, 77)
    view.update_after_write(600)
    view.update_after_write(40)
    view.update_after_read(600)
    view.atomic_add_payload_free_bytes(7)
    view.atomic_sub_payload_free_bytes(2)
    say(view.payload_free_bytes, view.atomic_read_payload_free_bytes(), view.reader_pid)
    say(OIEB.unpack(memory.read_bytes(0, 128)))
    view.dispose()
    memory.write_uint64(128, 2**63)
    memory.write_uint32(4092, 5)
    memory.write_bytes(140, b"bytes")
    say(memory.read_uint64(128), memory.read_uint32(4092), memory.read_bytes(140, 5))
    memory.flush()
    memory.close()
    SharedMemoryFactory.remove(name)
    SharedMemoryFactory.remove(name)

    with platform.create_semaphore(name, 1) as semaphore:
        other = platform.open_semaphore(name)
        say(other.acquire(timeout=5), other.acquire(timeout=0.05), semaphore.release(), other.acquire())
        other.close()
        semaphore.unlink()
    path = f"{platform.get_temp_directory()}/{name}.lock"
    lock = platform.create_file_lock(path)
    say(lock.is_locked(), platform.PlatformFileLock.try_remove_stale(path))
    raises(ZeroBufferException, platform.create_file_lock, path)
    lock.close()
    say(lock.is_locked(), platform.PlatformFileLock.try_remove_stale(path), platform.process_exists(0))
    open(path, "w").close()
    say(platform.PlatformFileLock.try_remove_stale(path))


def views(name):
    """Frames and frame buffers with arrays on them, as programs with pictures have them."""
    with Reader(name, BufferConfig(64, 4096)) as reader, Writer(name) as writer:
        first = writer.get_frame_buffer(100)
        array = (ctypes.c_ubyte * 100).from_buffer(first)
        array[0:3] = [1, 2, 3]
        writer.commit_frame()
        raises(ZeroBufferException, writer.commit_frame)
        with reader.read_frame(1) as frame:
            picture = (ctypes.c_ubyte * 90).from_buffer(frame.data[10:])
            drawn = (ctypes.c_ubyte * 90).from_buffer(frame.data[:90])
            drawn[1] = 7
            say(list(drawn[:4]), bytes(frame)[:4], frame.data.readonly)
        say(drawn[0], len(picture), frame.size, len(frame), frame.is_valid)
        buffer = writer.get_frame_buffer(4)
        buffer[:] = b"1111"
        buffer = writer.get_frame_buffer(4)
        buffer[2:] = b"22"
        writer.commit_frame()
        raises(ZeroBufferException, writer.commit_frame)
        frame = reader.read_frame(1)
        data = frame.data
        say(bytes(data), data is not None, frame.sequence)
        del frame
        writer.write_frame([1, 2, 255])
        writer.write_frame((4, 5))
        say([bytes(reader.read_frame(1)) for _ in range(2)], reader.frames_read)
        metadata = b"{}"
        writer.set_metadata(memoryview(metadata))
        view = reader.get_metadata()
        say(view.readonly, bytes(view), view.obj is metadata)
        view.release()
    # Arrays that outlive everything: ours alone are sure to.
    del array, drawn, picture


def server(name):
    factory = DuplexChannelFactory.get_instance()
    say(factory is DuplexChannelFactory.get_instance())
    server = factory.create_immutable_server(name, BufferConfig(4096, 1 << 20), timeout=10)
    say(type(server) is ImmutableDuplexServer, isinstance(server, IImmutableDuplexServer))
    say(server.is_running, server.request_reader)
    errors = []
    refused = []

    def on_error(arguments):
        errors.append(arguments)

    def handler(request, responses):
        data = bytes(request.data)
        if data == b"fail":
            refused.append(request.sequence)
            raise RuntimeError("refused")
        if data == b"direct":
            buffer = responses.get_frame_buffer(3)
            buffer[:] = b"got"
            responses.commit_frame()
        else:
            responses.write_frame(data[::-1])

    server.add_error_handler(on_error)
    server.add_error_handler(on_error)
    server.add_error_handler(print)
    server.remove_error_handler(print)
    try:
        server.start(handler, mode=ProcessingMode.THREAD_POOL)
    except NotImplementedError:
        say("NotImplementedError")
    server.stop()
    # How long it waits for its client, and how long the existing one takes to notice that it has ended.
    server = ImmutableDuplexServer(name, BufferConfig(4096, 1 << 20), 60)
    server.add_error_handler(on_error)
    server.start(handler, lambda metadata: say("on_init", bytes(metadata)))
    raises(ZeroBufferException, server.start, handler)
    while server.request_reader is None:
        time.sleep(0.01)
    say("ready", server.is_running)
    while server.is_running:
        time.sleep(0.02)
    say("client has ended", server.is_running, refused)
    say([type(error.exception).__name__ for error in errors][:1], isinstance(errors[0], ErrorEventArgs))
    server.stop()


def client(name):
    client = retried(lambda: DuplexChannelFactory().create_client(name))
    say(isinstance(client, IDuplexClient))
    deadline = time.monotonic() + 10
    while not client.is_server_connected and time.monotonic() < deadline:
        time.sleep(0.01)
    say("connected", client.is_server_connected)
    with client:
        say(client.send_request(b"stressed"))
        response = client.receive_response(10_000)
        say(type(response) is DuplexResponse, response.sequence, response.is_valid, len(response))
        say(response.to_bytes(), bytes(response.data))
        response.dispose()
        response.dispose()
        sequence, buffer = client.acquire_request_buffer(6)
        raises(ZeroBufferException, client.send_request, b"x")
        raises(ZeroBufferException, client.acquire_request_buffer, 3)
        buffer[:] = b"direct"
        client.commit_request()
        raises(ZeroBufferException, client.commit_request)
        with client.receive_response(timeout_ms=10_000) as response:
            say(sequence, response.sequence, response.to_bytes())
        for size in (1, 33, 65536, 200_000):
            data = pattern(size, size)
            client.send_request(data)
            response = client.receive_response(10_000)
            say(size, response.to_bytes() == data[::-1])
            client.release_response(response)
        say(client.send_request(b"fail"))
        nothing = client.receive_response(300)
        say("nothing", nothing, nothing.is_valid, nothing.to_bytes(), len(nothing))
    say("closed", client.is_server_connected)
    client.close()
    raises(ZeroBufferException, client.send_request, b"x")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
