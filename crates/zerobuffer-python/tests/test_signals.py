"""Ctrl-C, and the peer's death."""

import threading

import pytest
import zerobuffer
from conftest import LONG, interrupted
from zerobuffer import BufferConfig, Client, Pool, Reader, RequestState, Server, Writer

SMALL = BufferConfig(64, 4096)

SERVER = """
import sys, time, zerobuffer
def handler(request):
    request.data[0] = 1
    print("in hand", flush=True)
    time.sleep(60)
server = zerobuffer.Server(sys.argv[1], zerobuffer.BufferConfig(64, 4096))
server.start(handler)
print("ready", flush=True)
sys.stdin.read()
"""

CLIENT = """
import sys, zerobuffer
client = zerobuffer.Client(sys.argv[1], 20)
sequence = client.send_request(b"x")
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pair(name):
    with Server(name, SMALL) as server, Client(name, LONG) as client:
        yield server, client


def test_ctrl_c_ends_a_call(pair, ctrl_c):
    _, client = pair
    interrupted(lambda: client.call(b"x", None))
    # The request was cancelled.
    with pytest.raises(zerobuffer.UnknownSequence):
        client.receive_response_for(1, LONG)


def test_ctrl_c_ends_a_wait_for_any_answer(pair, ctrl_c):
    interrupted(lambda: pair[1].receive_response(None))


def test_ctrl_c_ends_a_wait_for_room(name, ctrl_c):
    with Server(name, SMALL), Client(name, LONG, send_timeout=None) as client:
        client.send_request(bytes(3000))
        interrupted(lambda: client.send_request(bytes(3000)))


def test_ctrl_c_ends_a_wait_for_a_server(name, ctrl_c):
    interrupted(lambda: Client(name, None))


def test_ctrl_c_ends_a_pools_wait_for_a_server(name, ctrl_c):
    interrupted(lambda: Pool(name, 2, None))


def test_ctrl_c_ends_a_reconnection_and_the_client_can_try_again(name, ctrl_c):
    with Server(name, SMALL):
        client = Client(name, LONG)
    interrupted(lambda: client.reconnect(None))
    with Server(name, SMALL) as server, client:
        server.start(lambda request: None)
        client.reconnect(LONG)
        assert bytes(client.call(b"x", LONG)) == b"x"


def test_ctrl_c_ends_a_wait_for_requests(pair, ctrl_c):
    interrupted(lambda: next(pair[0]))


def test_ctrl_c_ends_a_read(name, ctrl_c):
    with Reader(name, SMALL) as reader, Writer(name):
        interrupted(lambda: reader.read_frame(timeout=None))


def test_a_stop_that_ctrl_c_ended_can_be_repeated(name, ctrl_c):
    in_hand, let_go = threading.Event(), threading.Event()

    def handler(request):
        in_hand.set()
        assert let_go.wait(LONG)

    server = Server(name, SMALL, stop_timeout=LONG)
    server.start(handler)
    with Client(name, LONG) as client:
        sequence = client.send_request(b"x")
        assert in_hand.wait(LONG)
        interrupted(server.stop)
        let_go.set()
        assert bytes(client.receive_response_for(sequence, LONG)) == b"x"
        server.stop()
        assert not client.is_server_connected
    # Its names are free.
    Server(name, SMALL).stop()


def test_a_server_killed_in_its_handler_leaves_the_request_in_doubt(name, child):
    server = child(SERVER, name)
    assert server.line() == "ready"
    with Client(name, LONG) as client:
        sequence = client.send_request(b"x" * 100)
        untouched = client.send_request(b"y")
        assert server.line() == "in hand"
        server.kill()
        for lost, state in (
            (sequence, RequestState.IN_DOUBT),
            (untouched, RequestState.NOT_STARTED),
        ):
            with pytest.raises(zerobuffer.PeerDied) as died:
                client.receive_response_for(lost, LONG)
            assert (died.value.sequence, died.value.state) == (lost, state)
            assert not died.value.closed
        assert not client.is_server_connected
        # The next server of the name cleans up.
        with Server(name, SMALL) as successor:
            successor.start(lambda request: None)
            assert client.reconnect(LONG) == []
            assert bytes(client.call(b"again", LONG)) == b"again"


def test_the_next_client_is_served_when_one_was_killed(name, child):
    with Server(name, SMALL) as server:
        server.start(lambda request: None)
        killed = child(CLIENT, name)
        assert killed.line() == "sent"
        killed.kill()
        with Client(name, LONG) as client:
            assert bytes(client.call(b"abc", LONG)) == b"abc"


def test_a_server_that_runs_when_its_program_ends_is_stopped_in_order(name, child):
    program = SERVER.replace("sys.stdin.read()", "sys.stdin.readline()")
    server = child(program, name)
    assert server.line() == "ready"
    with Client(name, LONG) as client:
        server.finish()
        with pytest.raises(zerobuffer.PeerClosed):
            client.receive_response(LONG)
