"""Shared memory by name, with its numbers and bytes at offsets: for tools that look at a segment of version 1."""

import struct

from .exceptions import ZeroBufferException
from .platform import PlatformSharedMemory

__all__ = ["SharedMemory", "SharedMemoryFactory"]

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class SharedMemory:
    """One segment. Offsets and lengths beyond its end raise ValueError."""

    def __init__(self, name: str, size: int = 0, create: bool = False) -> None:
        """``size`` is for new memory; what exists has its own.

        Raises ZeroBufferException if it is there and should not, or is not and should.
        """
        self._name = name if name.startswith("/") else "/" + name
        self._memory = PlatformSharedMemory(self._name, size, create)

    @property
    def name(self) -> str:
        """Its name, with a slash before it."""
        return self._name

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._memory.size

    def get_view(self, offset: int, length: int) -> memoryview:
        """A view of ``length`` bytes at ``offset``, which everybody writes into."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(
                f"{length} bytes at {offset} lie outside of {self._name!r}, which has {self.size}"
            )
        return self._memory.get_buffer()[offset : offset + length]

    def get_memoryview(self, offset: int, length: int) -> memoryview:
        """As ``get_view``."""
        return self.get_view(offset, length)

    def read_bytes(self, offset: int, length: int) -> bytes:
        """A copy of ``length`` bytes at ``offset``."""
        return bytes(self.get_view(offset, length))

    def write_bytes(self, offset: int, data: bytes) -> None:
        """Writes ``data`` at ``offset``."""
        self.get_view(offset, len(data))[:] = data

    def read_uint32(self, offset: int) -> int:
        """The number of 4 bytes at ``offset``."""
        number: int = _U32.unpack(self.get_view(offset, 4))[0]
        return number

    def write_uint32(self, offset: int, value: int) -> None:
        """Writes a number of 4 bytes."""
        self.write_bytes(offset, _U32.pack(value))

    def read_uint64(self, offset: int) -> int:
        """The number of 8 bytes at ``offset``."""
        number: int = _U64.unpack(self.get_view(offset, 8))[0]
        return number

    def write_uint64(self, offset: int, value: int) -> None:
        """Writes a number of 8 bytes."""
        self.write_bytes(offset, _U64.pack(value))

    def flush(self) -> None:
        """Does nothing: what one process writes, all others that map the memory see."""

    def close(self) -> None:
        """Unmaps it; with views of it alive, the last one does."""
        self._memory.close()

    def unlink(self) -> None:
        """Takes the name away, if it is there."""
        self._memory.unlink()


class SharedMemoryFactory:
    """Makes, opens and removes segments."""

    @staticmethod
    def create(name: str, size: int) -> SharedMemory:
        """A new segment of ``size`` bytes, all of them 0."""
        return SharedMemory(name, size, create=True)

    @staticmethod
    def open(name: str) -> SharedMemory:
        """The segment of that name."""
        return SharedMemory(name)

    @staticmethod
    def remove(name: str) -> None:
        """Takes a segment's name away, if it is there and this user may."""
        try:
            memory = SharedMemoryFactory.open(name)
        except ZeroBufferException:
            return
        try:
            memory.unlink()
        except PermissionError:
            pass
        finally:
            memory.close()
