"""What channels and buffers are made of."""

from dataclasses import dataclass
from typing import NamedTuple

from ._layout import OIEB, BLOCK_ALIGNMENT, FrameHeader, ProtocolVersion, align_to_boundary
from ._native import Frame, payload_size_for_frames

__all__ = [
    "BLOCK_ALIGNMENT",
    "BufferConfig",
    "ClientIdentity",
    "Frame",
    "FrameHeader",
    "OIEB",
    "ProtocolVersion",
    "align_to_boundary",
]


@dataclass
class BufferConfig:
    """The sizes of a channel's blocks in bytes; both are rounded up to a multiple of 64.

    An in-place channel has ``metadata_size`` bytes of metadata for each direction, and one ring of
    ``payload_size`` bytes, which requests and responses share.
    """

    metadata_size: int = 1024
    payload_size: int = 1024 * 1024

    def __post_init__(self) -> None:
        if self.metadata_size <= 0:
            self._refuse("metadata_size", self.metadata_size)
        if self.payload_size <= 0:
            self._refuse("payload_size", self.payload_size)

    @staticmethod
    def _refuse(what: str, size: int) -> None:
        raise ValueError(
            f"{what} must be positive, not {size}; sizes are given in bytes, as "
            "BufferConfig(metadata_size, payload_size), and rounded up to a multiple of 64"
        )

    @classmethod
    def for_frames(
        cls, frame_size: int, in_flight: int, *, metadata_size: int = 1024
    ) -> "BufferConfig":
        """Sizes of a ring that holds exactly ``in_flight`` frames of up to ``frame_size`` bytes at the same
        time: requests under way and responses that are held, together. With an alignment, frames of several
        sizes, or two buffers, ask for a frame more."""
        return cls(metadata_size, payload_size_for_frames(frame_size, in_flight))


class ClientIdentity(NamedTuple):
    """Who a client of a service is, by the system's word and by its own: ``request.client``."""

    number: int
    """Of its connection on this server, from 1; never used again."""
    pid: int
    """The process that connected; 0 if it is not visible from here."""
    uid: int
    """Its effective user when it connected."""
    gid: int
    """Its effective group when it connected."""
    label: str
    """What it says of itself."""
