"""The in-place channel for asyncio. The loop never waits: a thread of its own does, for each client and
each server."""

import asyncio
import threading
import weakref
from types import TracebackType
from typing import Any, AsyncIterator, Dict, List, Optional, Tuple, Type

from ._native import Client, Request, Response, Server
from .exceptions import (
    Full,
    HandlerFailed,
    Closed,
    ProtocolViolation,
    Timeout,
    UnknownSequence,
    ZeroBufferException,
)

# How long the thread waits before it checks whether it is still needed.
_SLICE = 0.2


def _tell(loop: asyncio.AbstractEventLoop, call: Any, *arguments: Any) -> None:
    """Has the loop make a call; one that is closed has no use for it."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        pass


def _receive(
    reference: "weakref.ref[AsyncClient]", native: Client, wake: threading.Event
) -> None:
    """The thread of a client: hands every answer to the call that waits for it. It does not keep the client,
    so that one which nobody has any more ends."""
    while True:
        wake.clear()
        client = reference()
        if client is None:
            native.close()
            return
        if client._closed:
            return
        idle = not client._waiting or client._receive_one()
        del client
        if idle:
            wake.wait(_SLICE)


def _take(
    reference: "weakref.ref[AsyncServer]",
    native: Server,
    loop: asyncio.AbstractEventLoop,
    requests: Any,
) -> None:
    """The thread of a server: passes every request on, for as long as somebody has the server."""
    while reference() is not None:
        try:
            request = native.receive(_SLICE)
            _tell(loop, requests.put_nowait, (request, None))
            del request
        except (Timeout, ProtocolViolation):
            # A client that broke the protocol is not served any more; the next one is.
            continue
        except Exception as error:
            _tell(loop, requests.put_nowait, (None, error))
            return


class AsyncClient:
    """A client of an in-place channel for one event loop; many calls can be under way at once::

        async with await AsyncClient.connect("image-proc") as client:
            with await client.call(image) as response:
                show(np.asarray(response))
    """

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        """Use :meth:`connect`."""
        self._client = client
        self._loop = loop
        self._waiting: Dict[int, "asyncio.Future[Response]"] = {}
        self._wake = threading.Event()
        self._closed = False
        # Numbers grow for ever: those up to the last one are of requests that were sent before.
        self._last = 0
        self._steady = asyncio.Event()
        self._steady.set()
        self._thread = threading.Thread(
            target=_receive,
            args=(weakref.ref(self), client, self._wake),
            name=f"zerobuffer-{client.name}",
            daemon=True,
        )
        self._thread.start()

    @classmethod
    async def connect(
        cls, name: str, timeout: Optional[float] = 5.0, **options: Any
    ) -> "AsyncClient":
        """Attaches to the server of channel ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Client`, but there is no ``send_timeout``: a call has one for all of it."""
        loop = asyncio.get_running_loop()
        # A call that finds no room must not wait on the loop's thread.
        client = await asyncio.to_thread(Client, name, timeout, send_timeout=0, **options)
        return cls(client, loop)

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._client.name

    @property
    def server_metadata(self) -> bytes:
        """What the server has published about itself."""
        return self._client.server_metadata

    @property
    def is_server_connected(self) -> bool:
        """Whether the server is there at this moment."""
        return self._client.is_server_connected

    async def call(self, data: Any, timeout: Optional[float] = 5.0) -> Response:
        """Sends ``data`` and returns the answer, both within ``timeout`` seconds. If it is cancelled, the
        request is cancelled, too.

        Raises as :meth:`zerobuffer.Client.call` does: Full if there was no room to send it.
        """
        if self._closed:
            raise Closed("the client is closed; make a new one")
        refused: List[Full] = []
        try:
            async with asyncio.timeout(timeout):
                return await self._answer(data, refused)
        except TimeoutError as error:
            if isinstance(error, ZeroBufferException):
                raise
            if refused:
                raise refused[0] from None
            late = Timeout(f"timeout after {timeout} s: waiting for a response")
            late.waited, late.what = timeout, "waiting for a response"
            raise late from None

    async def _answer(self, data: Any, refused: List[Full]) -> Response:
        sequence = self._last = await self._send(data, refused)
        future: "asyncio.Future[Response]" = self._loop.create_future()
        self._waiting[sequence] = future
        self._wake.set()
        try:
            return await future
        finally:
            if self._waiting.pop(sequence, None) is not None:
                self._cancel(sequence)

    def _cancel(self, sequence: int) -> None:
        """Cancels a request, or takes the answer that is there already, so that its place is free."""
        if self._client.cancel(sequence):
            return
        try:
            self._client.receive_response_for(sequence, 0).release()
        except ZeroBufferException:
            # The thread has it: nobody waits for what it delivers, and it is released there.
            pass

    async def _send(self, data: Any, refused: List[Full]) -> int:
        """Sends as soon as there is room; ``refused`` says for as long as there is none who has it."""
        pause = 0.0005
        while True:
            await self._steady.wait()
            try:
                sequence = self._client.send_request(data)
                refused.clear()
                return sequence
            except Full as full:
                refused[:] = [full]
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.02)

    def _receive_one(self) -> bool:
        """Whether there is nothing to wait for until somebody reconnects."""
        last = self._last
        try:
            response = self._client.receive_response(_SLICE)
            _tell(self._loop, self._deliver, response.sequence, response, None)
        except Timeout:
            pass
        except HandlerFailed as error:
            _tell(self._loop, self._deliver, error.sequence, None, error)
        except ZeroBufferException as error:
            _tell(self._loop, self._lose, error, last)
            return getattr(error, "sequence", None) is None
        return False

    def _deliver(
        self, sequence: int, response: Optional[Response], error: Optional[Exception]
    ) -> None:
        future = self._waiting.pop(sequence, None)
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif response is not None:
            future.set_result(response)

    def _lose(self, error: Any, last: int) -> None:
        """The server has ended: about one request, or about all up to the last one that is left."""
        sequence = getattr(error, "sequence", None)
        if sequence is not None:
            self._deliver(sequence, None, error)
            return
        for sequence in [waiting for waiting in self._waiting if waiting <= last]:
            self._deliver(sequence, None, error)

    async def reconnect(self, timeout: Optional[float] = 5.0) -> Any:
        """As :meth:`zerobuffer.Client.reconnect`. Calls that wait for the previous server raise PeerDied or
        PeerClosed; those that are made meanwhile wait, and are sent to the new one."""
        while not self._steady.is_set():
            await self._steady.wait()
        self._steady.clear()
        work = asyncio.ensure_future(asyncio.to_thread(self._client.reconnect, timeout))
        work.add_done_callback(self._resume)
        # A call that is cancelled here does not stop the thread.
        return await asyncio.shield(work)

    def _resume(self, work: "asyncio.Future[Any]") -> None:
        self._steady.set()
        self._wake.set()
        if work.cancelled() or work.exception() is not None:
            return
        for lost in work.result():
            if lost.sequence in self._waiting:
                self._end_lost(lost.sequence)

    def _end_lost(self, sequence: int) -> None:
        try:
            self._client.receive_response_for(sequence, 0)
        except UnknownSequence:
            # The thread has said it.
            pass
        except ZeroBufferException as error:
            self._deliver(sequence, None, error)

    async def close(self) -> None:
        """Closes the channel cleanly, for good. Calls and a reconnection that are under way raise
        Closed. Called again it does nothing, or goes on if it was cancelled."""
        self._closed = True
        self._wake.set()
        try:
            await asyncio.to_thread(self._end)
        finally:
            self._lose(Closed("the client was closed"), self._last)

    def _end(self) -> None:
        self._client.close()
        self._thread.join()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        await self.close()


class AsyncServer:
    """A server of an in-place channel whose requests are taken by a coroutine::

        async with AsyncServer("image-proc", BufferConfig(4096, 100 << 20)) as server:
            async for request in server:
                with request:
                    np.asarray(request)[:] ^= 255

    Requests may be answered in any order, by ``respond()`` or ``fail()``, also by other tasks and threads.
    """

    def __init__(self, name: str, config: Any = None, **options: Any) -> None:
        """Creates the channel ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Server`; there are no workers."""
        self._server = Server(name, config, **options)
        self._requests: Optional["asyncio.Queue[Tuple[Optional[Request], Any]]"] = None
        self._thread: Optional[threading.Thread] = None

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._server.name

    @property
    def is_client_connected(self) -> bool:
        """Whether a client is attached at this moment."""
        return self._server.is_client_connected

    async def receive(self) -> Request:
        """The next request.

        Raises Closed after ``stop()``, or what keeps the server from going on.
        """
        request, error = await self._queue().get()
        if request is None:
            # For the next caller.
            self._queue().put_nowait((None, error))
            raise error
        return request

    def _queue(self) -> "asyncio.Queue[Tuple[Optional[Request], Any]]":
        if self._requests is None:
            self._requests = asyncio.Queue()
            self._thread = threading.Thread(
                target=_take,
                args=(
                    weakref.ref(self),
                    self._server,
                    asyncio.get_running_loop(),
                    self._requests,
                ),
                name=f"zerobuffer-{self.name}",
                daemon=True,
            )
            self._thread.start()
        return self._requests

    async def __aiter__(self) -> AsyncIterator[Request]:
        while True:
            try:
                request = await self.receive()
            except Closed:
                return
            yield request
            del request

    async def stop(self) -> None:
        """Stops cleanly, as :meth:`zerobuffer.Server.stop` does; ``async for`` ends. Called
        again it does nothing, or goes on if it was cancelled."""
        try:
            await asyncio.to_thread(self._server.stop)
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join)
        finally:
            self._drop_rest()

    def _drop_rest(self) -> None:
        """What nobody has taken out of the queue fails at its client."""
        requests = self._requests
        while requests is not None and not requests.empty():
            request, error = requests.get_nowait()
            if request is None:
                requests.put_nowait((None, error))
                return

    async def __aenter__(self) -> "AsyncServer":
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        await self.stop()
