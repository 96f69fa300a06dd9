"""One way in to every kind of duplex channel."""

from typing import Any, Optional

from ..types import BufferConfig
from .client import DuplexClient
from .interfaces import IDuplexChannelFactory
from .server import ImmutableDuplexServer, InPlaceDuplexServer, MutableDuplexServer


class DuplexChannelFactory(IDuplexChannelFactory):
    """Makes servers of all kinds, and clients that find out which kind they talk to. It has no state."""

    _instance: Optional["DuplexChannelFactory"] = None

    @classmethod
    def get_instance(cls) -> "DuplexChannelFactory":
        """The factory that everybody shares."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def create_in_place_duplex_server(
        self, channel_name: str, config: BufferConfig, **options: Any
    ) -> InPlaceDuplexServer:
        """A server of one buffer, whose handler edits the request where it lies. ``options``: those of
        :class:`zerobuffer.Server` (``workers``, ``metadata``, ``wait``, ``mode``, ``stop_timeout``)."""
        return InPlaceDuplexServer(channel_name, config, **options)

    def create_immutable_server(
        self, channel_name: str, config: BufferConfig, timeout: Optional[float] = None
    ) -> ImmutableDuplexServer:
        """A server of two buffers whose handler writes new data. ``timeout``: how long it waits for its
        client, in seconds; default 5."""
        return ImmutableDuplexServer(channel_name, config, timeout)

    def create_mutable_server(
        self, channel_name: str, config: BufferConfig, **options: Any
    ) -> MutableDuplexServer:
        """A server of two buffers whose handler edits a copy of the request."""
        return MutableDuplexServer(channel_name, config, **options)

    def create_client(self, channel_name: str, **options: Any) -> DuplexClient:
        """A client of whatever kind of server has the name. ``options``: those of
        :class:`DuplexClient` (``timeout_ms``, ``response_buffer``, ``metadata``, ``wait``)."""
        return DuplexClient(channel_name, **options)
