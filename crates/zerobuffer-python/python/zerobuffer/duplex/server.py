"""Servers of duplex channels."""

import atexit
import functools
import logging
import threading
import time
from types import TracebackType
from typing import Any, Callable, List, Optional, Type

from .._native import Frame, Reader, Request, Server, TwoBufferServer, Writer
from .._support import check_handler, stop_at_exit
from ..error_event_args import ErrorEventArgs
from ..exceptions import (
    NotConnectedYet,
    ReaderDeadException,
    WriterDeadException,
    ZeroBufferException,
)
from ..types import BufferConfig
from .interfaces import ErrorHandler, IImmutableDuplexServer, IMutableDuplexServer
from .processing_mode import ProcessingMode

logger = logging.getLogger(__name__)


def _invoke(handlers: List[ErrorHandler], exception: BaseException) -> None:
    """Logs an error, and calls everybody who asked for it."""
    logger.error("Error processing request: %r", exception, exc_info=exception)
    if isinstance(exception, Exception):
        _call(handlers, exception)


def _call(handlers: List[ErrorHandler], exception: Exception) -> None:
    for handler in list(handlers):
        try:
            handler(ErrorEventArgs(exception))
        except Exception as error:
            logger.error("Error in error handler: %r", error)


class _ErrorHandlers:
    """What servers call with their errors."""

    def __init__(self) -> None:
        self._error_handlers: List[ErrorHandler] = []

    def add_error_handler(self, handler: ErrorHandler) -> None:
        """Has ``handler`` called with every error from now on."""
        if handler not in self._error_handlers:
            self._error_handlers.append(handler)

    def remove_error_handler(self, handler: ErrorHandler) -> None:
        """Has ``handler`` called no more."""
        if handler in self._error_handlers:
            self._error_handlers.remove(handler)

    def _invoke_error_handlers(self, exception: BaseException) -> None:
        _invoke(self._error_handlers, exception)


def _check_mode(mode: ProcessingMode, instead: str) -> None:
    if mode is ProcessingMode.THREAD_POOL:
        raise NotImplementedError(f"THREAD_POOL mode is not yet implemented: {instead}")
    if mode is not ProcessingMode.SINGLE_THREAD:
        raise ValueError(f"Invalid processing mode: {mode}")


class ImmutableDuplexServer(_ErrorHandlers, IImmutableDuplexServer):
    """A server of two buffers whose handler gets the request and the writer of the responses.

    It serves one client, and stops when that has disconnected, as version 1 does; how many frames the handler writes
    for a request is its own affair. ``MutableDuplexServer`` serves one client after the other and
    answers every request.
    """

    def __init__(
        self, channel_name: str, config: BufferConfig, timeout: Optional[float] = None
    ) -> None:
        """``timeout``: how long the server waits for its client to come, in seconds; default 5."""
        super().__init__()
        self._channel_name = channel_name
        self._config = config
        self._timeout = 5.0 if timeout is None else timeout
        self._request_reader: Optional[Reader] = None
        self._running = False
        self._thread: Optional[threading.Thread] = None
        self._lock = threading.Lock()

    @property
    def request_reader(self) -> Optional[Reader]:
        """The reader of the requests, while the server runs."""
        return self._request_reader

    def start(
        self,
        handler: Callable[[Frame, Writer], None],
        on_init: Optional[Callable[[memoryview], None]] = None,
        mode: ProcessingMode = ProcessingMode.SINGLE_THREAD,
    ) -> None:
        """Runs ``handler(frame, writer)`` on every request, in the background, until ``stop()`` or until
        the client has disconnected. ``on_init`` gets the client's metadata with its first request."""
        with self._lock:
            if self._running:
                raise ZeroBufferException("Server is already running")
            _check_mode(mode, "responses come in the order of the requests")
            check_handler(handler)
            self._running = True
            at_exit = stop_at_exit(self._channel_name, self.stop)
            self._thread = threading.Thread(
                target=self._run, args=(handler, on_init, at_exit), daemon=True
            )
            self._thread.start()

    def _run(
        self,
        handler: Callable[[Frame, Writer], None],
        on_init: Optional[Callable[[memoryview], None]],
        at_exit: Callable[[], None],
    ) -> None:
        reader = None
        try:
            self._request_reader = reader = Reader(f"{self._channel_name}_request", self._config)
            served = False
            while not served and (writer := self._attach()) is not None:
                try:
                    served = self._serve(reader, writer, handler, on_init)
                finally:
                    writer.close()
        except Exception as error:
            self._invoke_error_handlers(error)
        finally:
            if reader is not None:
                reader.close()
            self._request_reader = None
            self._running = False
            atexit.unregister(at_exit)

    def _attach(self) -> Optional[Writer]:
        """The writer of the responses, whose buffer the client makes."""
        deadline = time.monotonic() + self._timeout
        while self._running and time.monotonic() < deadline:
            try:
                return Writer(f"{self._channel_name}_response")
            except Exception as error:
                logger.debug("no response buffer yet: %s", error)
                time.sleep(0.02)
        if self._running:
            logger.error("Failed to connect to response buffer of %s", self._channel_name)
        return None

    def _serve(
        self,
        reader: Reader,
        writer: Writer,
        handler: Callable[[Frame, Writer], None],
        on_init: Optional[Callable[[memoryview], None]],
    ) -> bool:
        """False if the client went before its first request: it tries again, with another buffer."""
        while self._running:
            try:
                frame = self._next(reader)
                if frame is None:
                    if reader.frames_read == 0 and not writer.is_reader_connected():
                        return False
                    continue
                with frame:
                    if on_init is not None:
                        initialise, on_init = on_init, None
                        self._initialise(reader, initialise)
                    handler(frame, writer)
            except (ReaderDeadException, WriterDeadException) as error:
                logger.info("client of %r disconnected: %s", self._channel_name, error)
                _call(self._error_handlers, error)
                return True
            except Exception as error:
                self._invoke_error_handlers(error)
        return True

    def _next(self, reader: Reader) -> Optional[Frame]:
        try:
            return reader.read_frame(timeout=0.2)
        except NotConnectedYet:
            return None

    def _initialise(self, reader: Reader, on_init: Callable[[memoryview], None]) -> None:
        metadata = reader.get_metadata()
        if metadata is None:
            return
        try:
            on_init(metadata)
        except Exception as error:
            self._invoke_error_handlers(error)

    def stop(self) -> None:
        """Stops, and waits up to 2 seconds for a running handler."""
        self._running = False
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)

    @property
    def is_running(self) -> bool:
        """Whether the server waits for its client, or serves it."""
        return self._running


class _NativeServer(_ErrorHandlers, IMutableDuplexServer):
    """A server whose work is done by the extension module."""

    def __init__(self, native: Any) -> None:
        super().__init__()
        self._native = native

    @property
    def name(self) -> str:
        """The channel's name."""
        return str(self._native.name)

    def start(
        self,
        handler: Callable[[Request], None],
        mode: ProcessingMode = ProcessingMode.SINGLE_THREAD,
    ) -> None:
        """Runs ``handler(request)`` on every request, in the background, until ``stop()``. What the
        request's bytes are when it returns is the answer. The client is told if it raises."""
        _check_mode(mode, "give an in-place server several workers")
        # Not a method of this object, which would keep the server from being collected.
        self._native.start(handler, functools.partial(_invoke, self._error_handlers))

    @property
    def is_running(self) -> bool:
        """Whether background threads are serving."""
        return bool(self._native.is_running)

    @property
    def is_client_connected(self) -> bool:
        """Whether a client is attached at this moment."""
        return bool(self._native.is_client_connected)

    def stop(self) -> None:
        """Stops cleanly. Called again it does nothing.

        Raises what made the server stop before, if anything did.
        """
        self._native.stop()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        self.stop()


class MutableDuplexServer(_NativeServer):
    """A server of two buffers whose handler edits a copy of the request, which becomes the response.

    It serves one client after the other. Version 1 has no failed answers: if the handler raises, the
    connection is closed, and the client can connect again.
    """

    def __init__(self, channel_name: str, config: BufferConfig, **options: Any) -> None:
        """``options``: ``wait``, ``mode`` and ``stop_timeout``, as for :class:`zerobuffer.Server`."""
        super().__init__(TwoBufferServer(channel_name, config, **options))


class InPlaceDuplexServer(_NativeServer):
    """A server of one buffer, whose handler edits the request where it lies: :class:`zerobuffer.Server`
    with the methods that all servers of this module have."""

    def __init__(self, channel_name: str, config: BufferConfig, **options: Any) -> None:
        """``options``: those of :class:`zerobuffer.Server`."""
        super().__init__(Server(channel_name, config, **options))
