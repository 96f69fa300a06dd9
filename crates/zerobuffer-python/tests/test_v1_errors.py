"""Programs of version 1 also tell errors by the name of their type: it is that of the existing package."""

import pickle
from datetime import timedelta

import pytest
import zerobuffer
from conftest import LONG
from zerobuffer import BufferConfig, Reader, Writer
from zerobuffer.duplex import DuplexChannelFactory

SIZES = BufferConfig(64, 4096)


def raised(call, *arguments):
    with pytest.raises(zerobuffer.ZeroBufferException) as info:
        call(*arguments)
    return info.value


@pytest.fixture
def ends(name):
    with Reader(name, SIZES) as reader, Writer(name) as writer:
        writer.write_timeout = timedelta(milliseconds=20)
        yield reader, writer


def test_a_full_ring_is_called_as_the_existing_package_calls_it_and_has_its_numbers(ends):
    _, writer = ends
    writer.write_frame(bytes(3000))
    for call, argument in ((writer.write_frame, bytes(3000)), (writer.get_frame_buffer, 3000)):
        error = raised(call, argument)
        assert type(error).__name__ == "BufferFullException"
        assert isinstance(error, zerobuffer.Full) and error.needed > error.free > 0


@pytest.mark.parametrize(
    "action, name, kind",
    [
        (lambda reader, writer: writer.write_frame(bytes(9000)), "FrameTooLargeException", "TooLarge"),
        (lambda reader, writer: writer.write_frame(b""), "InvalidFrameSizeException", "EmptyFrame"),
        (lambda reader, writer: Writer(writer.name), "WriterAlreadyConnectedException", "Busy"),
        (lambda reader, writer: Reader(reader.name), "ReaderAlreadyConnectedException", "AlreadyRunning"),
        (lambda reader, writer: Writer("not-there"), "ZeroBufferException", "NotRunning"),
        (lambda reader, writer: Writer("a/b"), "ZeroBufferException", "BadName"),
        (lambda reader, writer: writer.commit_frame(), "ZeroBufferException", "InvalidState"),
        (lambda reader, writer: (writer.close(), writer.write_frame(b"x")), "ZeroBufferException", "InvalidState"),
        (lambda reader, writer: (writer.close(), reader.read_frame(0)), "WriterDeadException", "NotConnectedYet"),
        (lambda reader, writer: (reader.close(), writer.write_frame(b"x")), "ReaderDeadException", None),
    ],
)  # fmt: skip
def test_an_error_has_the_existing_name_and_is_of_its_own_kind(ends, action, name, kind):
    error = raised(action, *ends)
    assert type(error).__name__ == name
    assert isinstance(error, getattr(zerobuffer, name))
    assert isinstance(error, getattr(zerobuffer, kind or name))


def test_a_reader_tells_a_dead_writer_from_one_that_did_not_come(ends):
    reader, writer = ends
    writer.write_frame(b"x")
    writer.close()
    reader.read_frame(LONG).dispose()
    error = raised(reader.read_frame, LONG)
    assert type(error) is zerobuffer.WriterDeadException and error.closed


def test_errors_go_to_other_processes(ends):
    _, writer = ends
    error = raised(writer.write_frame, bytes(9000))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and copy.max == error.max


def test_a_client_of_two_buffers_names_the_end_of_its_server_as_the_existing_one_does(name):
    factory = DuplexChannelFactory()
    server = factory.create_mutable_server(name, SIZES)
    server.start(lambda request: None)
    with factory.create_client(name, response_buffer=SIZES) as client:
        client.send_request(b"x")
        client.receive_response(int(LONG * 1000)).dispose()
        assert type(raised(client.send_request, bytes(9000))).__name__ == "FrameTooLargeException"
        server.stop()
        error = raised(client.receive_response, int(LONG * 1000))
        assert type(error).__name__ == "WriterDeadException"
        error = raised(client.send_request, b"x")
        assert type(error).__name__ == "ReaderDeadException"
        assert isinstance(error, (zerobuffer.PeerClosed, zerobuffer.PeerDied))
