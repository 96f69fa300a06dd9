"""Another process edits your data in place: duplex channels over shared memory.

A client writes a request into a ring in shared memory, a server in another process modifies it where it lies,
and the client reads the answer at the same address::

    from zerobuffer import BufferConfig, Client, Server

    with Server("image-proc", BufferConfig(4096, 100 << 20)) as server:
        server.start(invert)                 # def invert(request): np.asarray(request)[:] ^= 255
        ...

    with Client("image-proc") as client:
        with client.call(image) as response:
            show(np.asarray(response))

``AsyncClient``, ``AsyncPool`` and ``AsyncServer`` are the same for asyncio. ``Reader`` and ``Writer`` are version 1's one-way
buffers, and ``zerobuffer.duplex`` has the classes of version 1's duplex channels: programs that were written for
the package ``zerobuffer-ipc`` run unchanged.
"""

import logging as _logging
import os as _os

from ._native import (
    Client,
    Frame,
    Pool,
    Request,
    RequestBuffer,
    Response,
    Server,
    Service,
    Writer,
    __version__,
)
from ._serve import serve
from .aio import AsyncClient, AsyncPool, AsyncServer, AsyncService
from .duplex import (
    DuplexChannelFactory,
    DuplexClient,
    DuplexResponse,
    IDuplexChannelFactory,
    IDuplexClient,
    IDuplexServer,
    IImmutableDuplexServer,
    IMutableDuplexServer,
    ImmutableDuplexServer,
    InPlaceDuplexServer,
    MutableDuplexServer,
    ProcessingMode,
)
from .error_event_args import ErrorEventArgs
from .exceptions import (
    AlreadyRunning,
    BadConfig,
    BadName,
    BufferFullException,
    Busy,
    ClaimOpen,
    Closed,
    Desynchronised,
    EmptyFrame,
    ForeignObject,
    FrameTooLargeException,
    Full,
    HandlerFailed,
    Incompatible,
    InvalidFrameSizeException,
    InvalidState,
    LostRequest,
    MetadataAlreadyWrittenException,
    NoSpace,
    NotConnectedYet,
    NotRunning,
    PeerClosed,
    PeerDied,
    PermissionDenied,
    ProtocolViolation,
    ReaderAlreadyConnectedException,
    ReaderDeadException,
    RequestState,
    SequenceError,
    SequenceExhausted,
    SequenceUnknown,
    System,
    Timeout,
    TooLarge,
    UnknownSequence,
    Unsupported,
    WouldNeverFit,
    WriterAlreadyConnectedException,
    WriterDeadException,
    WrongProcess,
    ZeroBufferException,
)
from .reader import Reader
from .types import OIEB, BufferConfig, ClientIdentity, FrameHeader

_level = _os.environ.get("ZEROBUFFER_LOG_LEVEL", "").upper()
if _level in _logging.getLevelNamesMapping():
    _logging.getLogger(__name__).setLevel(_level)

__all__ = [
    # Services and in-place channels
    "AsyncClient",
    "AsyncPool",
    "AsyncServer",
    "AsyncService",
    "BufferConfig",
    "Client",
    "ClientIdentity",
    "Pool",
    "Request",
    "RequestBuffer",
    "Response",
    "Server",
    "Service",
    "serve",
    # Version 1
    "ErrorEventArgs",
    "Frame",
    "FrameHeader",
    "OIEB",
    "Reader",
    "Writer",
    # Duplex channels of all kinds
    "DuplexChannelFactory",
    "DuplexClient",
    "DuplexResponse",
    "IDuplexChannelFactory",
    "IDuplexClient",
    "IDuplexServer",
    "IImmutableDuplexServer",
    "IMutableDuplexServer",
    "ImmutableDuplexServer",
    "InPlaceDuplexServer",
    "MutableDuplexServer",
    "ProcessingMode",
    # Exceptions, and what is in them
    "AlreadyRunning",
    "BadConfig",
    "BadName",
    "BufferFullException",
    "Busy",
    "ClaimOpen",
    "Closed",
    "Desynchronised",
    "EmptyFrame",
    "ForeignObject",
    "FrameTooLargeException",
    "Full",
    "HandlerFailed",
    "Incompatible",
    "InvalidFrameSizeException",
    "InvalidState",
    "LostRequest",
    "MetadataAlreadyWrittenException",
    "NoSpace",
    "NotConnectedYet",
    "NotRunning",
    "PeerClosed",
    "PeerDied",
    "PermissionDenied",
    "ProtocolViolation",
    "ReaderAlreadyConnectedException",
    "ReaderDeadException",
    "RequestState",
    "SequenceError",
    "SequenceExhausted",
    "SequenceUnknown",
    "System",
    "Timeout",
    "TooLarge",
    "UnknownSequence",
    "Unsupported",
    "WouldNeverFit",
    "WriterAlreadyConnectedException",
    "WriterDeadException",
    "WrongProcess",
    "ZeroBufferException",
]
