"""The client of duplex channels of all kinds."""

import time
from typing import Any, List, Optional, Tuple, Union

from .._native import (
    Client,
    Frame,
    PrivateRequest,
    RequestBuffer,
    Response,
    Stop,
    TwoBufferClient,
    is_duplex_server_running,
)
from ..exceptions import (
    Busy,
    Closed,
    LostRequest,
    NoSpace,
    NotRunning,
    Timeout,
    ZeroBufferException,
)
from ..types import BufferConfig
from .interfaces import DuplexResponse, IDuplexClient

# What clients of version 1 have always made, and the least that is worth while.
_RESPONSE_BUFFER = BufferConfig(metadata_size=4096, payload_size=256 * 1024 * 1024)
_LEAST_PAYLOAD = 4 * 1024 * 1024
# How long a server of two buffers has to answer a new client.
_PATIENCE = 5.0


class DuplexClient(IDuplexClient):
    """A client of whatever kind of server has the name: in place, or with two buffers.

    Timeouts are in milliseconds, as they are in version 1. For in-place channels alone,
    :class:`zerobuffer.Client` has more.
    """

    def __init__(
        self,
        channel_name: str,
        *,
        timeout_ms: int = 0,
        response_buffer: Optional[BufferConfig] = None,
        metadata: bytes = b"",
        wait: str = "default",
        strict_views: bool = False,
    ) -> None:
        """Connects to the server of ``channel_name``, waiting for one up to ``timeout_ms``.

        ``response_buffer``: the sizes of the buffer that a client makes for the responses of a server of
        two buffers. Default 256 MiB, or as much of it as there is memory for.
        ``strict_views``: with an in-place server, whether ``commit_request()`` refuses to send while an array
        or another view of the buffer is alive. With two buffers the buffer is memory of one's own.

        Raises NotRunning, or Busy if the server has another client.
        """
        self._name = channel_name
        self._response_buffer = response_buffer
        self._options: Any = {"metadata": metadata, "wait": wait}
        self._strict_views = strict_views
        self._closed = False
        # Ends a connecting that is under way.
        self._stop = Stop()
        self._pending: Union[RequestBuffer, PrivateRequest, None] = None
        self._native: Union[Client, TwoBufferClient] = self._connect(timeout_ms / 1000)

    def _connect(self, timeout: float) -> Union[Client, TwoBufferClient]:
        """An in-place channel comes first if there are both."""
        deadline = time.monotonic() + timeout
        while True:
            # By another thread, while this one looks for a server.
            if self._closed:
                raise Closed("Client is closed")
            try:
                return Client(
                    self._name, 0, strict_views=self._strict_views, **self._options
                )
            except (NotRunning, Busy):
                left = deadline - time.monotonic()
                if is_duplex_server_running(self._name):
                    return self._connect_two_buffers(max(left, _PATIENCE))
                if left <= 0:
                    raise
            time.sleep(0.01)

    def _connect_two_buffers(self, timeout: float) -> TwoBufferClient:
        deadline = time.monotonic() + timeout
        sizes = self._response_buffer or _RESPONSE_BUFFER
        while True:
            try:
                left = deadline - time.monotonic()
                return TwoBufferClient(
                    self._name, left, response_buffer=sizes, stop=self._stop, **self._options
                )
            except NoSpace:
                smaller = sizes.payload_size // 2
                if self._response_buffer is not None or smaller < _LEAST_PAYLOAD:
                    raise
                sizes = BufferConfig(sizes.metadata_size, smaller)

    def _open(self) -> Union[Client, TwoBufferClient]:
        if self._closed:
            raise Closed("Client is closed")
        return self._native

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def is_in_place(self) -> bool:
        """Whether the answer lies where the request was."""
        return isinstance(self._native, Client)

    @property
    def server_metadata(self) -> bytes:
        """What an in-place server has published about itself; b"" if nothing, or with two buffers."""
        return self._native.server_metadata if isinstance(self._native, Client) else b""

    @property
    def max_request_size(self) -> int:
        """The most bytes that a request can have."""
        return self._native.max_request_size

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return self._native.in_flight

    def send_request(self, data: Any) -> int:
        """Copies ``data`` (bytes, or anything with the buffer protocol) into the channel and sends it.
        Returns its sequence number."""
        native = self._open()
        if self._pending is not None:
            raise ZeroBufferException("Previous request not committed")
        return native.send_request(data)

    def acquire_request_buffer(self, size: int) -> Tuple[int, memoryview]:
        """A buffer of ``size`` bytes in the channel, to be filled in place, and the sequence number that
        ``commit_request()`` sends it with."""
        native = self._open()
        if self._pending is not None:
            raise ZeroBufferException("Previous request not committed")
        buffer = native.acquire_request_buffer(size)
        self._pending = buffer
        return buffer.sequence, buffer.data

    def commit_request(self) -> None:
        """Sends the buffer that was acquired. Arrays and other views of it may be alive: what is written
        through them from now on can disturb this client's requests.

        Raises BufferError if the client has ``strict_views`` and a view is alive: then nothing is sent, and
        the buffer is abandoned.
        """
        self._open()
        if self._pending is None:
            raise ZeroBufferException("No pending request to commit")
        pending, self._pending = self._pending, None
        pending.commit()

    def receive_response(self, timeout_ms: int) -> DuplexResponse:
        """The next response; one that is not valid if there is none within ``timeout_ms``.

        Raises HandlerFailed, PeerDied or PeerClosed, the last two of which are WriterDeadException as
        well.
        """
        return self._response(lambda: self._open().receive_response(timeout_ms / 1000))

    def receive_response_for(self, sequence: int, timeout_ms: int) -> DuplexResponse:
        """The response to request ``sequence``; one that is not valid if it does not come within
        ``timeout_ms``. Then the request is cancelled, unless the timeout is 0."""
        receive = self._open().receive_response_for
        return self._response(lambda: receive(sequence, timeout_ms / 1000))

    def _response(self, receive: Any) -> DuplexResponse:
        try:
            response: Union[Frame, Response] = receive()
        except Timeout:
            return DuplexResponse(sequence=0, data=None)
        return DuplexResponse(response.sequence, response.data, response)

    def call(self, data: Any, timeout_ms: int = 5000) -> DuplexResponse:
        """Sends ``data`` and waits for the response, both within ``timeout_ms``. A request that has no response by
        then is cancelled.

        Raises Full if there was no room to send it, Timeout, and as ``receive_response`` does.
        """
        response = self._open().call(data, timeout_ms / 1000)
        return DuplexResponse(response.sequence, response.data, response)

    def cancel(self, sequence: int) -> bool:
        """Cancels a request: no response to it will be delivered. True if it was waiting."""
        return self._open().cancel(sequence)

    def reconnect(self, timeout_ms: int = 5000) -> List[LostRequest]:
        """Connects to the channel's present server, after the previous one has ended. Returns what is known
        of the requests that were in flight, as far as the channel tells.

        With two buffers sequence numbers start again at 1, so ask for no old one; calls of other threads
        that wait raise Closed.

        Raises NotRunning or Busy: try again later.
        """
        native = self._open()
        self._pending = None
        if isinstance(native, Client):
            return native.reconnect(timeout_ms / 1000)
        native.close()
        successor = self._connect(timeout_ms / 1000)
        self._native = successor
        if self._closed:
            # Closed is closed, also if that was while this thread was looking for a server.
            successor.close()
            self._open()
        return []

    def release_response(self, response: DuplexResponse) -> None:
        """Releases a response's place, as ``response.dispose()`` does."""
        response.dispose()

    @property
    def is_server_connected(self) -> bool:
        """Whether the server is there at this moment."""
        return not self._closed and self._native.is_server_connected

    def close(self) -> None:
        """Closes the channel. Responses that are held stay readable."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        if self._pending is not None:
            self._pending.abandon()
            self._pending = None
        self._native.close()

    def __enter__(self) -> "DuplexClient":
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.close()
