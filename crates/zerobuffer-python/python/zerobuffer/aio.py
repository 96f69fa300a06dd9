"""Services and in-place channels for asyncio. The loop never waits, and a client needs no thread of Python: of a
service the loop watches the connection itself, and calls on a channel are completed by a thread of the library."""

import asyncio
import inspect
import os
import threading
import time
import weakref
from types import TracebackType
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    ClassVar,
    Dict,
    List,
    Optional,
    Self,
    Set,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
)

from ._native import (
    BaseServer,
    Calls,
    Client,
    LoopClient,
    Pool,
    Request,
    Response,
    Server,
    Service,
    Stop,
)
from ._support import log_failure
from .exceptions import (
    AlreadyRunning,
    Closed,
    ForeignObject,
    InvalidState,
    ProtocolViolation,
    Timeout,
    WrongProcess,
    ZeroBufferException,
)

_Client = TypeVar("_Client", Client, LoopClient, Pool, Union[Client, LoopClient])

# How long the thread of a server waits before it checks whether it is still needed.
_SLICE = 0.2
# The pause before another try to make the memory for the next client.
_RETRY = 0.1
# What a server does not go on after; Closed is an InvalidState.
_FINAL = (AlreadyRunning, ForeignObject, InvalidState, WrongProcess)


def _tell(loop: asyncio.AbstractEventLoop, call: Any, *arguments: Any) -> None:
    """Has the loop make a call; one that is closed has no use for it."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        pass


async def _connected(connect: Callable[..., _Client], *arguments: Any, **options: Any) -> _Client:
    """What ``connect`` makes in a thread. Once nobody awaits it any more, the thread ends, and what it has connected
    all the same is closed: a loop that ends waits for its threads."""
    stop = Stop()
    made: List[_Client] = []

    def close_unwanted() -> None:
        try:
            made.pop().close()
        except IndexError:
            # There is none, or the other thread closes it.
            pass

    def work() -> None:
        made.append(connect(*arguments, stop=stop, **options))
        if stop.is_set():
            close_unwanted()

    try:
        await asyncio.to_thread(work)
    except BaseException:
        stop.set()
        close_unwanted()
        raise
    return made.pop()


def _deliver(reference: "weakref.ref[_Calls]") -> None:
    """The loop's callback; it does not keep the client."""
    client = reference()
    if client is not None:
        client._deliver()


def _wake(reference: "weakref.ref[_Calls]") -> None:
    """The loop's timer; it does not keep the client."""
    client = reference()
    if client is not None:
        client._timer = None
        client._deliver()


def _forget(
    loop: asyncio.AbstractEventLoop,
    client: Union[Client, LoopClient, Pool],
    calls: Union[Calls, LoopClient],
) -> None:
    """Ends a client that nobody has any more, on whatever thread it was collected."""

    def close() -> None:
        # The descriptor stays open until the loop does not watch it any more.
        loop.remove_reader(calls.fileno())
        client.close()

    if not isinstance(client, LoopClient):
        client.close()
    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:
        # It is closed, and watches nothing.
        client.close()


def _take(
    reference: "weakref.ref[AsyncServer]",
    native: BaseServer,
    loop: asyncio.AbstractEventLoop,
    requests: Any,
    asked: threading.Semaphore,
) -> None:
    """The thread of a server: takes a request whenever one is asked for, and none ahead: what waits in the ring is
    not started, and safe to send again."""
    wanted = False
    while reference() is not None:
        wanted = wanted or asked.acquire(timeout=_SLICE)
        if not wanted:
            continue
        try:
            request = native.receive(_SLICE)
            wanted = False
            _tell(loop, requests.put_nowait, (request, None))
            del request
        except (Timeout, ProtocolViolation):
            # A client that broke the protocol is not served any more; the next one is.
            continue
        except Exception as error:
            if isinstance(error, ZeroBufferException) and not isinstance(error, _FINAL):
                # The memory for the next client could not be made now, for want of memory or descriptors.
                time.sleep(_RETRY)
                continue
            _tell(loop, requests.put_nowait, (None, error))
            return


class _Calls:
    """Calls that a loop awaits, of a client of any kind."""

    def __init__(
        self, client: Union[Client, LoopClient, Pool], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Use ``connect``."""
        self._loop = loop
        # When calls of a service are due next.
        self._timer: Optional[asyncio.TimerHandle] = None
        self._watch(client)
        self._waiting: Dict[int, "asyncio.Future[Response]"] = {}
        self._last = 0
        self._closed = False

    def _watch(self, client: Union[Client, LoopClient, Pool]) -> None:
        self._client = client
        self._calls = client if isinstance(client, LoopClient) else client.calls()
        self._descriptor = self._calls.fileno()
        self._loop.add_reader(self._descriptor, _deliver, weakref.ref(self))
        self._forget = weakref.finalize(self, _forget, self._loop, client, self._calls)
        # The server notices the end of the process.
        self._forget.atexit = False

    def _unwatch(self) -> None:
        if self._forget.detach() is not None:
            self._loop.remove_reader(self._descriptor)

    @property
    def name(self) -> str:
        """The name of the service or channel."""
        return self._client.name

    @property
    def is_server_connected(self) -> bool:
        """Whether a server is there at this moment."""
        return self._client.is_server_connected

    async def call(self, data: Any, timeout: Optional[float] = 5.0) -> Response:
        """Sends ``data`` and returns the response, both within ``timeout`` seconds. Calls that find no room
        wait for it in their order. If the task is cancelled, the request is cancelled, too.

        Raises as the ``call`` of the client for threads does: Full if there was no room to send it.
        """
        if self._closed:
            raise Closed("the client is closed; make a new one")
        self._last = key = self._last + 1
        future: "asyncio.Future[Response]" = self._loop.create_future()
        self._waiting[key] = future
        call = None
        try:
            call = self._calls.start(key, data, timeout)
            return await future
        finally:
            if self._waiting.pop(key, None) is not None and call is not None:
                # Should it be done already, what comes is released: nobody waits under its key.
                self._calls.cancel(call)

    def _deliver(self) -> None:
        if isinstance(self._calls, LoopClient):
            left, outcomes = self._calls.process()
            self._wake_in(left)
        else:
            outcomes = self._calls.take()
        for key, response, error in outcomes:
            future = self._waiting.pop(key, None)
            if future is None or future.done():
                if response is not None:
                    response.release()
            elif response is not None:
                future.set_result(response)
            elif error is not None:
                future.set_exception(error)

    def _wake_in(self, left: Optional[float]) -> None:
        """Has calls looked at again in so many seconds. The timer is left alone if it comes then anyway."""
        when = None if left is None else self._loop.time() + left
        if self._timer is not None:
            if when is not None and abs(self._timer.when() - when) < 0.001:
                return
            self._timer.cancel()
        self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, _wake, weakref.ref(self))

    async def close(self) -> None:
        """Closes it cleanly, for good. Calls, and a reconnection, that are under way raise
        Closed. Called again it does nothing, or goes on if it was cancelled."""
        self._closed = True
        self._unwatch()
        await asyncio.to_thread(self._client.close)
        self._deliver()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Closed("the client was closed"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        await self.close()


class AsyncClient(_Calls):
    """A client of a service or an in-place channel for one event loop; many calls can be under way at once::

        async with await AsyncClient.connect("image-proc") as client:
            with await client.call(image) as response:
                show(np.asarray(response))
    """

    _client: Union[Client, LoopClient]

    def __init__(
        self, client: Union[Client, LoopClient], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Use :meth:`connect`."""
        super().__init__(client, loop)
        self._steady = asyncio.Event()
        self._steady.set()

    @classmethod
    async def connect(
        cls, name: str, timeout: Optional[float] = 5.0, **options: Any
    ) -> "AsyncClient":
        """Attaches to the service or the server of channel ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Client`, but there is no ``send_timeout``: a call has one for all of it."""
        if "send_timeout" in options:
            raise TypeError("there is no send_timeout here: the timeout of a call is for all of it")
        loop = asyncio.get_running_loop()
        client = await _connected(Client.for_loop, name, timeout, **options)
        return cls(client, loop)

    @property
    def server_metadata(self) -> bytes:
        """What the server has published about itself."""
        return self._client.server_metadata

    async def call(self, data: Any, timeout: Optional[float] = 5.0) -> Response:
        """Sends ``data`` and returns the response, both within ``timeout`` seconds. Calls that find no room
        wait for it in their order. If the task is cancelled, the request is cancelled, too.

        Raises as :meth:`zerobuffer.Client.call` does: Full if there was no room to send it.
        """
        if not self._steady.is_set():
            timeout = await self._wait_until_steady(timeout)
        return await super().call(data, timeout)

    async def _wait_until_steady(self, timeout: Optional[float]) -> Optional[float]:
        """Waits for a reconnection under way; what is left of the timeout."""
        start = self._loop.time()
        try:
            await asyncio.wait_for(self._steady.wait(), timeout)
        except TimeoutError:
            late = Timeout(f"timeout after {timeout} s: waiting for the client to reconnect")
            late.waited, late.what = timeout, "waiting for the client to reconnect"
            raise late from None
        return None if timeout is None else max(0.0, timeout - (self._loop.time() - start))

    async def reconnect(self, timeout: Optional[float] = 5.0) -> Any:
        """As :meth:`zerobuffer.Client.reconnect`. Calls that wait for the previous server raise PeerDied or
        PeerClosed; those that are made meanwhile wait, and are sent to the new one. Of a service the list is
        empty: what became of each request its call has said."""
        while not self._steady.is_set():
            await self._steady.wait()
        self._steady.clear()
        work = asyncio.ensure_future(self._renew(self._client, timeout))
        work.add_done_callback(lambda _: self._steady.set())
        # A call that is cancelled here does not stop the thread.
        return await asyncio.shield(work)

    async def _renew(self, client: Union[Client, LoopClient], timeout: Optional[float]) -> Any:
        try:
            if isinstance(client, LoopClient):
                return await self._replace(client, timeout)
            return await asyncio.to_thread(client.reconnect, timeout)
        except asyncio.CancelledError:
            # The loop ends, and would wait for the thread.
            client.close()
            raise

    async def _replace(self, client: LoopClient, timeout: Optional[float]) -> Any:
        following = await asyncio.to_thread(client.next, timeout)
        if following is None:
            return []
        if self._closed:
            following.close()
            raise Closed("the client was closed")
        # What the previous server's end ends.
        self._deliver()
        self._unwatch()
        self._watch(following)
        await asyncio.to_thread(client.close)
        return []


class AsyncPool(_Calls):
    """:class:`zerobuffer.Pool` for one event loop: a client that mends itself, for programs that run for long::

        async with await AsyncPool.connect("image-proc", connections=4) as pool:
            with await pool.call(image) as response:
                show(np.asarray(response))

    A thread of the library connects to new servers and completes the calls; the loop never waits.
    """

    _client: Pool

    @classmethod
    async def connect(
        cls,
        name: str,
        connections: int = 1,
        timeout: Optional[float] = 5.0,
        **options: Any,
    ) -> "AsyncPool":
        """Connects to up to ``connections`` servers of ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Pool`."""
        loop = asyncio.get_running_loop()
        pool = await _connected(Pool.for_loop, name, connections, timeout, **options)
        return cls(pool, loop)

    @property
    def connections(self) -> int:
        """How many connections there are at the moment, as far as is known."""
        return self._client.connections


class AsyncServer:
    """A server of an in-place channel whose requests are taken by a coroutine::

        async with AsyncServer("image-proc", BufferConfig(4096, 100 << 20)) as server:
            async for request in server:
                with request:
                    np.asarray(request)[:] ^= 255

    Requests may be answered in any order, by ``respond()`` or ``fail()``, also by other tasks and threads.
    """

    _server_type: ClassVar[Any] = Server

    def __init__(self, name: str, config: Any = None, **options: Any) -> None:
        """Creates the channel ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Server`; there are no workers."""
        self._server: BaseServer = self._server_type(name, config, **options)
        self._requests: Optional["asyncio.Queue[Tuple[Optional[Request], Any]]"] = None
        self._thread: Optional[threading.Thread] = None
        # One for each request that the thread is to take.
        self._asked = threading.Semaphore(0)
        # Those that were asked for by a receive() that was cancelled.
        self._spare = 0

    @property
    def name(self) -> str:
        """The name of the channel or service."""
        return self._server.name

    @property
    def is_client_connected(self) -> bool:
        """Whether a client is attached at this moment."""
        return self._server.is_client_connected

    async def receive(self) -> Request:
        """The next request.

        Raises Closed after ``stop()``, or what keeps the server from going on.
        """
        requests = self._queue()
        if self._spare > 0:
            self._spare -= 1
        else:
            self._asked.release()
        try:
            request, error = await requests.get()
        except asyncio.CancelledError:
            # The thread takes it all the same, for the next one that asks.
            self._spare += 1
            raise
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
                    self._asked,
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

    async def serve(
        self, handler: Callable[[Request], Awaitable[Any]], *, concurrency: int = 64
    ) -> None:
        """Runs ``await handler(request)`` for every request, each as a task of its own and at most
        ``concurrency`` at a time, until ``stop()``. The response goes out when the handler returns; what it
        raises fails the request. ``request.cancelled`` tells a long handler that its client does not want the
        response any more; it stays false while the server stops, which delivers what comes in time::

            async with AsyncServer("tiles", config) as server:
                await server.serve(handle)
        """
        if not any(map(inspect.iscoroutinefunction, (handler, getattr(handler, "__call__", None)))):
            raise TypeError(f"serve() awaits an `async def`; {handler!r} is none")
        room = asyncio.Semaphore(concurrency)
        tasks: Set["asyncio.Task[None]"] = set()
        try:
            while True:
                await room.acquire()
                task = asyncio.create_task(_handle(self.name, handler, await self.receive()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: room.release())
        except Closed:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()

    async def stop(self) -> None:
        """Stops cleanly, as :meth:`zerobuffer.Server.stop` does; ``async for`` ends. Called
        again it does nothing, or goes on if it was cancelled."""
        try:
            await asyncio.to_thread(self._server.stop)
            self._asked.release()
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        await self.stop()


class _Watch:
    """Has the loop watch a descriptor, a copy of its own: the original may be closed at any time."""

    def __init__(self, descriptor: int, tell: "weakref.WeakMethod[Callable[[], None]]") -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.dup(descriptor)
        self._tell = tell
        self._watched = False

    def begin(self) -> None:
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._descriptor, self._on_readable)

    def end(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._descriptor)

    def _on_readable(self) -> None:
        tell = self._tell()
        if tell is not None:
            tell()

    def close(self) -> None:
        """On any thread, once the service has ended."""
        if self._descriptor >= 0:
            _tell(self._loop, self._close)

    def _close(self) -> None:
        self.end()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class AsyncService(AsyncServer):
    """A server of a service whose requests are taken by a coroutine, as :class:`AsyncServer` is of a channel::

        async with AsyncService("tiles") as service:
            await service.serve(handle, concurrency=100)

    Creating it takes the options of :class:`zerobuffer.Service` and raises what that does; there are no workers.
    """

    _server_type = Service

    def __init__(self, name: str, config: Any = None, **options: Any) -> None:
        """Creates a server of the service ``name``. ``options``, and what is raised: those of
        :class:`zerobuffer.Service`; there are no workers."""
        super().__init__(name, config, **options)
        # Set when there may be a request.
        self._readable = asyncio.Event()
        self._watch: Optional[_Watch] = None

    async def receive(self) -> Request:
        """The next request.

        Raises Closed after ``stop()``.
        """
        native = cast(Service, self._server)
        if self._watch is None:
            self._watch = _Watch(native.fileno(), weakref.WeakMethod(self._tell))
            self._forget = weakref.finalize(self, self._watch.close)
            self._forget.atexit = False
        # Other tasks run between two requests, however fast these come.
        await asyncio.sleep(0)
        while True:
            self._readable.clear()
            request = native.try_receive()
            if request is not None:
                return request
            self._watch.begin()
            await self._readable.wait()

    def _tell(self) -> None:
        if self._readable.is_set() and self._watch is not None:
            # Nobody has asked since: there is no use in being told again and again.
            self._watch.end()
        self._readable.set()

    async def stop(self) -> None:
        """Stops cleanly, as :meth:`zerobuffer.Service.stop` does; ``async for`` ends. Called again it does nothing,
        or goes on if it was cancelled."""
        await asyncio.to_thread(self._server.stop)
        if self._watch is not None:
            self._watch.close()
        self._readable.set()

    @property
    def clients(self) -> int:
        """How many clients are attached to this server at this moment."""
        return cast(Service, self._server).clients


async def _handle(
    channel: str, handler: Callable[[Request], Awaitable[Any]], request: Request
) -> None:
    """One request of :meth:`AsyncServer.serve`."""
    try:
        with request:
            await handler(request)
    except Exception as error:
        # The client gets the message; the traceback is for the server's log.
        log_failure(channel, error)
        # A log that keeps the traceback would keep its arrays, and the client waiting.
        request.clear_frames(error)
