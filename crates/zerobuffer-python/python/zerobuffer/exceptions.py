"""The exceptions of this package: one hierarchy, with the facts as attributes.

The names that end in ``Exception``, and ``SequenceError``, are those of version 1; programs that catch them go
on to work. What readers, writers and clients of version 1 raise also has these names as the name of its type,
which programs match on: a full ring of version 1 raises a ``Full`` whose type is called
``BufferFullException``. ``code`` is the kind's number, the same in every language.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Dict, Optional, Tuple, Type


class RequestState(Enum):
    """What is known of a request whose server has ended."""

    NOT_STARTED = "not started"
    """The handler never ran on it: it is safe to send it again."""
    IN_DOUBT = "in doubt"
    """The server had taken it: whether to send it again is the application's decision."""


@dataclass(frozen=True)
class LostRequest:
    """A request and what is known of it, as a peer's end leaves it."""

    sequence: int
    state: RequestState


class ZeroBufferException(Exception):
    """The base of all exceptions of this package."""

    code: ClassVar[int] = 0


# ---- version 1 ----


class WriterDeadException(ZeroBufferException):
    """The writer has ended, and all that it wrote was read."""

    code = 13
    sequence: Optional[int] = None
    state: Optional[RequestState] = None
    closed: bool = False
    """Whether it closed cleanly."""

    def __init__(self, message: str = "Writer process is dead") -> None:
        super().__init__(message)


class ReaderDeadException(ZeroBufferException):
    """The reader has ended."""

    code = 13
    sequence: Optional[int] = None
    state: Optional[RequestState] = None
    closed: bool = False
    """Whether it closed cleanly."""

    def __init__(self, message: str = "Reader process is dead") -> None:
        super().__init__(message)


class WriterAlreadyConnectedException(ZeroBufferException):
    """Another writer is attached."""

    code = 4

    def __init__(self, message: str = "Another writer is already connected") -> None:
        super().__init__(message)


class ReaderAlreadyConnectedException(ZeroBufferException):
    """Another reader has the buffer."""

    code = 5

    def __init__(self, message: str = "Another reader is already connected") -> None:
        super().__init__(message)


class BufferFullException(ZeroBufferException):
    """There was no room until the deadline."""

    code = 11

    def __init__(self, message: str = "Buffer is full") -> None:
        super().__init__(message)


class FrameTooLargeException(ZeroBufferException):
    """More bytes than can ever fit."""

    code = 12

    def __init__(self, message: str = "Frame size exceeds buffer capacity") -> None:
        super().__init__(message)


class InvalidFrameSizeException(ZeroBufferException):
    """A frame of version 1 has at least one byte."""

    code = 104

    def __init__(self, message: str = "Invalid frame size (zero or too large)") -> None:
        super().__init__(message)


class SequenceError(ZeroBufferException):
    """A frame is missing; the reader cannot go on."""

    code = 102

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"Sequence error: expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class MetadataAlreadyWrittenException(ZeroBufferException):
    """Metadata is written once in a buffer's life, and it has been."""

    code = 103

    def __init__(self, message: str = "Metadata has already been written") -> None:
        super().__init__(message)


# ---- both versions ----


class BadName(ZeroBufferException, ValueError):
    """The channel name breaks its grammar."""

    code = 1
    name: str
    reason: str


class BadConfig(ZeroBufferException, ValueError):
    """A configuration value lies outside of what is allowed."""

    code = 2
    what: str
    asked: int
    allowed: str


class NotRunning(ZeroBufferException):
    """No server serves the channel; no reader has the buffer."""

    code = 3
    name: str
    found: str


class Busy(WriterAlreadyConnectedException):
    """Another client holds the channel; another writer the buffer."""

    name: str


class AlreadyRunning(ReaderAlreadyConnectedException):
    """Another server serves the channel; another reader has the buffer."""

    name: str


class PermissionDenied(ZeroBufferException):
    """The operating system refuses access to an object."""

    code = 6
    object: str
    operation: str
    owner: Optional[int]
    """The user id of the object's owner, if there is an object that can be examined."""
    mode: Optional[int]


class ForeignObject(ZeroBufferException):
    """An object of that name exists, but is not ours or not what it should be; it was left alone."""

    code = 7
    object: str
    uid: int
    reason: str


class Incompatible(ZeroBufferException):
    """The segment speaks another protocol or version."""

    code = 8
    object: str
    field: str
    found: int
    expected: int


class NoSpace(ZeroBufferException):
    """An object could not be made for want of memory, of files, or of the permission to make one so large."""

    code = 9
    object: str
    needed: int
    reason: str


class Timeout(ZeroBufferException, TimeoutError):
    """The deadline passed."""

    code = 10
    waited: Optional[float]
    what: str


class Full(BufferFullException):
    """The ring had no room until the deadline: responses are being held, or requests unanswered."""

    needed: int
    free: int
    in_flight: int
    held: int = 0
    """Those of an in-place channel whose responses this program holds."""


class TooLarge(FrameTooLargeException):
    """A request that can never fit, or a length beyond the buffer that was acquired."""

    asked: int
    max: int


class PeerDied(ReaderDeadException, WriterDeadException):
    """The peer's process ended without closing the channel. If the failed call was about a request, its
    ``sequence`` and its ``state``."""

    code = 13


class PeerClosed(ReaderDeadException, WriterDeadException):
    """The peer closed the channel cleanly. If the failed call was about a request, its ``sequence``
    and its ``state``."""

    code = 14


class HandlerFailed(ZeroBufferException):
    """The server's handler failed on this request; the data was not delivered."""

    code = 15
    sequence: int
    status: int
    """1 error, 2 panic, 3 dropped unanswered, from 256 the application's own."""
    message: str


class ProtocolViolation(ZeroBufferException):
    """The peer broke the protocol; the channel cannot be used any more."""

    code = 16
    field: str
    observed: int
    allowed: int


class WrongProcess(ZeroBufferException):
    """The object was made before a fork and is used in the child."""

    code = 17


class UnknownSequence(ZeroBufferException):
    """No request with that sequence number is waiting for a response."""

    code = 18
    sequence: int


class ClaimOpen(ZeroBufferException):
    """A request buffer is open already: commit or abandon it first."""

    code = 19


class SequenceExhausted(ZeroBufferException):
    """All sequence numbers of this connection are used: reconnect."""

    code = 20


class InvalidState(ZeroBufferException):
    """The object is not in the state that the call needs: it was closed, for example."""

    code = 21
    reason: str


class System(ZeroBufferException):
    """A system call failed in a way that has no kind of its own."""

    code = 22
    operation: str
    object: str
    errno: int


class Unsupported(ZeroBufferException):
    """This platform, or this kind of channel, cannot do it."""

    code = 23
    what: str


class Closed(InvalidState):
    """The object was closed on this side, by another thread maybe."""

    code = 24


class WouldNeverFit(FrameTooLargeException):
    """Version 1: at the ring's present position a frame of this length can never be placed."""

    code = 100
    asked: int
    max: int


class NotConnectedYet(WriterDeadException):
    """Version 1: no writer has attached to the buffer yet."""

    code = 101
    waited: Optional[float]


class EmptyFrame(InvalidFrameSizeException):
    """Version 1: a frame has at least one byte."""


class Desynchronised(ZeroBufferException):
    """Version 1: responses can no longer be matched with requests; connect again."""

    code = 105
    reason: str


class SequenceUnknown(ZeroBufferException):
    """Version 1: a previous writer used the buffer, and its last sequence number cannot be determined."""

    code = 106
    name: str


# ---- the names of version 1's types ----


_Class = Type[ZeroBufferException]

_EXISTING = (
    WriterDeadException,
    ReaderDeadException,
    WriterAlreadyConnectedException,
    ReaderAlreadyConnectedException,
    BufferFullException,
    FrameTooLargeException,
    InvalidFrameSizeException,
    SequenceError,
    MetadataAlreadyWrittenException,
    ZeroBufferException,
)
_made: Dict[Tuple[_Class, _Class], _Class] = {}


def of_version_1(kind: _Class, existing: Optional[_Class] = None) -> _Class:
    """The class that version 1 raises for ``kind``: a subclass with the name of ``existing``, by default of the
    nearest class of version 1 that ``kind`` is."""
    if existing is None:
        existing = next(base for base in kind.__mro__ if base in _EXISTING)
    if kind is existing:
        return kind
    if (kind, existing) not in _made:

        def reduce(error: ZeroBufferException) -> Tuple[Any, ...]:
            # For pickle, which finds no class by such a name.
            return _again, (kind, existing, error.args), error.__dict__

        members = {"__doc__": kind.__doc__, "__module__": __name__, "__reduce__": reduce}
        _made[kind, existing] = type(existing.__name__, (kind,), members)
    return _made[kind, existing]


def _again(kind: _Class, existing: _Class, args: Tuple[Any, ...]) -> ZeroBufferException:
    return of_version_1(kind, existing)(*args)
