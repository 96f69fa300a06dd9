"""What the classes of this package have in common, as abstract classes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Optional, Tuple, Type, Union

from .._native import Frame, Reader, Request, Response, Writer
from .._support import array, as_array
from ..error_event_args import ErrorEventArgs
from ..exceptions import InvalidState
from ..types import BufferConfig
from .processing_mode import ProcessingMode

ErrorHandler = Callable[[ErrorEventArgs], None]


@dataclass(repr=False)
class DuplexResponse:
    """A response, read where the server left it; without data if there was none in time.

    Its place is released by ``dispose()``, or at the end of a ``with`` block.
    """

    sequence: int
    data: Optional[memoryview]
    _frame: Union[Frame, Response, None] = None

    @property
    def is_valid(self) -> bool:
        """Whether there is data."""
        return len(self) > 0

    def to_bytes(self) -> bytes:
        """A copy of the data."""
        return b"" if self.data is None else bytes(self.data)

    def array(self, shape: Any = None, dtype: Any = None) -> Any:
        """The bytes as a numpy array of this shape and type, without a copy; by default all bytes in a row.

        Raises ValueError if the array would have another size, and if there is no data.
        """
        return array(self._shown(), shape, dtype)

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Any:
        return as_array(self._shown(), dtype, copy)

    def _shown(self) -> Any:
        if self._frame is None:
            raise InvalidState("there is no data: the response was disposed of, or did not come in time")
        return self._frame

    def __len__(self) -> int:
        data = vars(self).get("data")
        return len(data) if data else 0

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"DuplexResponse({fields})"

    def __getattr__(self, name: str) -> Any:
        # A released memoryview would be an array of one object for numpy.
        if name == "data":
            raise InvalidState("the response was disposed of: copy what is to be kept")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def dispose(self) -> None:
        """Releases the place; while an array or another view is alive, with the last one. Called again it
        does nothing."""
        if isinstance(self._frame, Response):
            del self.data
            self._frame.release()
        elif self._frame is not None:
            self._frame.dispose()
        self._frame = None

    def __enter__(self) -> "DuplexResponse":
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_val: Optional[BaseException],
        exc_tb: Optional[TracebackType],
    ) -> None:
        self.dispose()


class IDuplexClient(ABC):
    """The client's side of a duplex channel."""

    @abstractmethod
    def send_request(self, data: bytes) -> int:
        """Copies ``data`` into the channel and sends it. Returns its sequence number."""

    @abstractmethod
    def acquire_request_buffer(self, size: int) -> Tuple[int, memoryview]:
        """A buffer to fill, and the sequence number that ``commit_request()`` sends it with."""

    @abstractmethod
    def commit_request(self) -> None:
        """Sends the buffer that was acquired."""

    @abstractmethod
    def receive_response(self, timeout_ms: int) -> DuplexResponse:
        """The next response; one that is not valid if there is none within ``timeout_ms``."""

    @property
    @abstractmethod
    def is_server_connected(self) -> bool:
        """Whether the server is there at this moment."""

    @abstractmethod
    def close(self) -> None:
        """Closes the channel."""

    @abstractmethod
    def __enter__(self) -> "IDuplexClient":
        """Enters a ``with`` block."""

    @abstractmethod
    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        """Closes the channel at the end of a ``with`` block."""


class IDuplexServer(ABC):
    """What all servers have in common."""

    @abstractmethod
    def stop(self) -> None:
        """Stops serving."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether requests are served."""

    @abstractmethod
    def add_error_handler(self, handler: ErrorHandler) -> None:
        """Has ``handler`` called with every error from now on."""

    @abstractmethod
    def remove_error_handler(self, handler: ErrorHandler) -> None:
        """Has ``handler`` called no more."""


class IImmutableDuplexServer(IDuplexServer):
    """A server of two buffers whose handler writes new data."""

    @property
    @abstractmethod
    def request_reader(self) -> Optional[Reader]:
        """The reader of the requests, while the server runs."""

    @abstractmethod
    def start(
        self,
        handler: Callable[[Frame, Writer], None],
        on_init: Optional[Callable[[memoryview], None]] = None,
        mode: ProcessingMode = ProcessingMode.SINGLE_THREAD,
    ) -> None:
        """Runs ``handler(frame, writer)`` on every request, in the background. ``on_init`` gets the
        client's metadata with its first request."""


class IMutableDuplexServer(IDuplexServer):
    """A server whose handler edits the request's bytes."""

    @abstractmethod
    def start(
        self,
        handler: Callable[[Request], None],
        mode: ProcessingMode = ProcessingMode.SINGLE_THREAD,
    ) -> None:
        """Runs ``handler(request)`` on every request, in the background."""


class IDuplexChannelFactory(ABC):
    """Makes servers and clients."""

    @abstractmethod
    def create_immutable_server(
        self, channel_name: str, config: BufferConfig, timeout: Optional[float] = None
    ) -> IImmutableDuplexServer:
        """A server of two buffers whose handler writes new data."""

    @abstractmethod
    def create_mutable_server(self, channel_name: str, config: BufferConfig) -> IMutableDuplexServer:
        """A server of two buffers whose handler edits a copy of the request."""

    @abstractmethod
    def create_client(self, channel_name: str) -> IDuplexClient:
        """A client of whatever kind of server has the name."""
