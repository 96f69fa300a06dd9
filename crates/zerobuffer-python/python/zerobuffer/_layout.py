"""Version 1's header and frame header as plain values, for tools that look at a segment's bytes. Nothing
in this package reads or writes a channel through them."""

import struct
from dataclasses import dataclass
from typing import Any, List, Tuple

BLOCK_ALIGNMENT = 64


def align_to_boundary(size: int, alignment: int = BLOCK_ALIGNMENT) -> int:
    """``size``, rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def _checked(data: bytes, size: int, what: str) -> bytes:
    if len(data) < size:
        raise ValueError(f"Invalid {what} size: {len(data)} < {size}")
    return data[:size]


@dataclass
class ProtocolVersion:
    """Four bytes: major, minor, patch, reserved."""

    major: int
    minor: int
    patch: int
    reserved: int

    FORMAT = "<4B"
    SIZE = 4

    def pack(self) -> bytes:
        """The four bytes."""
        return struct.pack(self.FORMAT, self.major, self.minor, self.patch, self.reserved)

    @classmethod
    def unpack(cls, data: bytes) -> "ProtocolVersion":
        """The version in the first four bytes of ``data``."""
        return cls(*struct.unpack(cls.FORMAT, data[: cls.SIZE]))


@dataclass
class OIEB:
    """Version 1's header: the 128 bytes at the beginning of a segment."""

    oieb_size: int
    version: ProtocolVersion
    metadata_size: int
    metadata_free_bytes: int
    metadata_written_bytes: int
    payload_size: int
    payload_free_bytes: int
    payload_write_pos: int
    payload_read_pos: int
    payload_written_count: int
    payload_read_count: int
    writer_pid: int
    reader_pid: int
    _reserved: Tuple[int, int, int, int] = (0, 0, 0, 0)

    FORMAT = "<I4s11Q4Q"
    SIZE = 128

    def pack(self) -> bytes:
        """The 128 bytes."""
        return struct.pack(
            self.FORMAT,
            self.oieb_size,
            self.version.pack(),
            self.metadata_size,
            self.metadata_free_bytes,
            self.metadata_written_bytes,
            self.payload_size,
            self.payload_free_bytes,
            self.payload_write_pos,
            self.payload_read_pos,
            self.payload_written_count,
            self.payload_read_count,
            self.writer_pid,
            self.reader_pid,
            *self._reserved,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "OIEB":
        """The header in the first 128 bytes of ``data``."""
        size, version, *words = struct.unpack(cls.FORMAT, _checked(data, cls.SIZE, "OIEB data"))
        fields: List[Any] = [size, ProtocolVersion.unpack(version), *words[:11], tuple(words[11:])]
        return cls(*fields)

    def calculate_used_bytes(self) -> int:
        """Bytes between the read and the write position."""
        used = self.payload_write_pos - self.payload_read_pos
        return used if used >= 0 else used + self.payload_size


@dataclass
class FrameHeader:
    """What precedes each frame of version 1: its length and its sequence number."""

    payload_size: int
    sequence_number: int

    FORMAT = "<2Q"
    SIZE = 16
    WRAP_MARKER = 0

    def pack(self) -> bytes:
        """The 16 bytes."""
        return struct.pack(self.FORMAT, self.payload_size, self.sequence_number)

    @classmethod
    def unpack(cls, data: bytes) -> "FrameHeader":
        """The frame header in the first 16 bytes of ``data``."""
        return cls(*struct.unpack(cls.FORMAT, _checked(data, cls.SIZE, "frame header")))

    def is_wrap_marker(self) -> bool:
        """Whether the rest of the ring is skipped here."""
        return self.payload_size == self.WRAP_MARKER
