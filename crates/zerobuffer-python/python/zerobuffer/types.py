"""What channels and buffers are made of."""

from dataclasses import dataclass

from ._layout import OIEB, BLOCK_ALIGNMENT, FrameHeader, ProtocolVersion, align_to_boundary
from ._native import Frame

__all__ = [
    "BLOCK_ALIGNMENT",
    "BufferConfig",
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
            raise ValueError("metadata_size must be positive")
        if self.payload_size <= 0:
            raise ValueError("payload_size must be positive")
