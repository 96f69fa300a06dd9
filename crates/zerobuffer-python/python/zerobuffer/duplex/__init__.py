"""Requests and responses: the channels of version 1 with two buffers, and the one in place.

Servers of all kinds come from one factory, and one client talks to all of them.
"""

from .client import DuplexClient
from .factory import DuplexChannelFactory
from .interfaces import (
    DuplexResponse,
    IDuplexChannelFactory,
    IDuplexClient,
    IDuplexServer,
    IImmutableDuplexServer,
    IMutableDuplexServer,
)
from .processing_mode import ProcessingMode
from .server import ImmutableDuplexServer, InPlaceDuplexServer, MutableDuplexServer

__all__ = [
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
]
