"""Version 1's header as a view of a segment's bytes, for tools that look at a buffer or write tests for one.
Nothing in this package reads or writes a channel through it."""

import struct
from typing import Optional

from ._native import add_u64

__all__ = ["OIEBView", "ProtocolVersion"]


class _Number:
    """A number at an offset of the bytes that its object views."""

    def __init__(self, offset: int, code: str = "<Q") -> None:
        self._offset = offset
        self._format = struct.Struct(code)

    def __get__(self, view: "_Bytes", owner: Optional[type] = None) -> int:
        number: int = self._format.unpack_from(view._bytes(), self._offset)[0]
        return number

    def __set__(self, view: "_Bytes", value: int) -> None:
        self._format.pack_into(view._bytes(), self._offset, value)


class _Bytes:
    __slots__ = ("_memory",)

    def __init__(self, memory: memoryview) -> None:
        self._memory: Optional[memoryview] = memory

    def _bytes(self) -> memoryview:
        if self._memory is None:
            raise ValueError("the view of the header was disposed of")
        return self._memory


class ProtocolVersion(_Bytes):
    """The four bytes of the version, at ``offset``."""

    __slots__ = ()

    major = _Number(0, "B")
    minor = _Number(1, "B")
    patch = _Number(2, "B")
    reserved = _Number(3, "B")

    def __init__(self, shm: memoryview, offset: int) -> None:
        super().__init__(shm[offset : offset + 4])

    def __repr__(self) -> str:
        return f"ProtocolVersion({self.major}.{self.minor}.{self.patch})"


class OIEBView(_Bytes):
    """The 128 bytes at the beginning of a segment, each field read and written where it lies."""

    __slots__ = ("_version",)

    SIZE = 128
    _FREE = 40

    oieb_size = _Number(0, "<I")
    metadata_size = _Number(8)
    metadata_free_bytes = _Number(16)
    metadata_written_bytes = _Number(24)
    payload_size = _Number(32)
    payload_free_bytes = _Number(_FREE)
    payload_write_pos = _Number(48)
    payload_read_pos = _Number(56)
    payload_written_count = _Number(64)
    payload_read_count = _Number(72)
    writer_pid = _Number(80)
    reader_pid = _Number(88)

    def __init__(self, shared_memory: memoryview) -> None:
        """``shared_memory``: at least 128 bytes, writable if a field is to be written."""
        if len(shared_memory) < self.SIZE:
            raise ValueError(f"the header has {self.SIZE} bytes; there are {len(shared_memory)}")
        super().__init__(shared_memory)
        self._version = ProtocolVersion(shared_memory, 4)

    @property
    def version(self) -> ProtocolVersion:
        """The version of the protocol."""
        return self._version

    @property
    def used_bytes(self) -> int:
        """Bytes between the read and the write position."""
        used = self.payload_write_pos - self.payload_read_pos
        return used if used >= 0 else used + self.payload_size

    def has_space_for(self, frame_size: int) -> bool:
        """Whether so many bytes are free."""
        return self.payload_free_bytes >= frame_size

    def atomic_add_payload_free_bytes(self, delta: int) -> None:
        """Adds to the free bytes, in one step for all processes."""
        add_u64(self._bytes(), self._FREE, delta)

    def atomic_sub_payload_free_bytes(self, delta: int) -> None:
        """Takes from the free bytes, in one step for all processes."""
        add_u64(self._bytes(), self._FREE, -delta)

    def atomic_read_payload_free_bytes(self) -> int:
        """The free bytes."""
        return add_u64(self._bytes(), self._FREE, 0)

    def update_after_write(self, frame_size: int) -> None:
        """Counts a frame of ``frame_size`` bytes as written."""
        self.payload_write_pos = (self.payload_write_pos + frame_size) % self.payload_size
        self.atomic_sub_payload_free_bytes(frame_size)
        self.payload_written_count += 1

    def update_after_read(self, frame_size: int) -> None:
        """Counts a frame of ``frame_size`` bytes as read and released."""
        self.payload_read_pos = (self.payload_read_pos + frame_size) % self.payload_size
        self.atomic_add_payload_free_bytes(frame_size)
        self.payload_read_count += 1

    def initialize(self, metadata_size: int, payload_size: int, reader_pid: int) -> None:
        """Writes the header of a new buffer: version 1.0.0, empty, without a writer."""
        self._bytes()[:96] = bytes(96)
        self.oieb_size = self.SIZE
        self.version.major = 1
        self.metadata_size = self.metadata_free_bytes = metadata_size
        self.payload_size = self.payload_free_bytes = payload_size
        self.reader_pid = reader_pid

    def dispose(self) -> None:
        """Releases the memoryview that this object was made with."""
        if self._memory is not None:
            if self._version._memory is not None:
                self._version._memory.release()
            self._memory.release()
            self._memory = None
