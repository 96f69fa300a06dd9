"""Named objects of version 1 on Linux."""

import ctypes
import errno
import fcntl
import mmap
import os
import time
from pathlib import Path
from typing import Any, Optional

from ..exceptions import ZeroBufferException

__all__ = ["LinuxFileLock", "LinuxSemaphore", "LinuxSharedMemory"]


class _Closing:
    """A ``with`` block that closes."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.close()


class LinuxSharedMemory(_Closing):
    """Shared memory by name."""

    def __init__(self, name: str, size: int, create: bool = False) -> None:
        """``size`` is for new memory; what exists has its own."""
        self._name = name
        plain = name.lstrip("/")
        if "/" in plain or plain in ("", ".", ".."):
            raise ZeroBufferException(f"shared memory has no name with a slash in it, as {name!r} has, and no empty one")
        self._path = "/dev/shm/" + plain
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            file = os.open(self._path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
        except OSError as error:
            verb = "created" if create else "opened"
            raise ZeroBufferException(
                f"shared memory {name!r} cannot be {verb}: {error.strerror}"
            ) from error
        try:
            if create:
                os.posix_fallocate(file, 0, size)
            self._size = os.fstat(file).st_size
            self._memory: Optional[mmap.mmap] = mmap.mmap(file, self._size)
        except (OSError, ValueError, OverflowError) as error:
            if create:
                os.unlink(self._path)
            raise ZeroBufferException(f"shared memory {name!r} cannot be mapped: {error}") from error
        finally:
            os.close(file)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._size

    def get_buffer(self) -> memoryview:
        """A view of all its bytes, which must be released before close() can unmap them."""
        if self._memory is None:
            raise RuntimeError(f"shared memory {self._name!r} was closed")
        return memoryview(self._memory)

    def flush(self) -> None:
        """Does nothing: what one process writes, all others that map the memory see."""

    def close(self) -> None:
        """Unmaps it; with views of it alive, the last one does."""
        memory, self._memory = self._memory, None
        if memory is not None:
            try:
                memory.close()
            except BufferError:
                # The views hold it.
                pass

    def unlink(self) -> None:
        """Takes the name away, if it is there."""
        Path(self._path).unlink(missing_ok=True)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sem_open.restype = ctypes.c_void_p
for _function in ("sem_close", "sem_post", "sem_wait"):
    getattr(_libc, _function).argtypes = [ctypes.c_void_p]
_libc.sem_clockwait.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class LinuxSemaphore(_Closing):
    """A semaphore by name."""

    def __init__(self, name: str, initial_value: int = 0, create: bool = False) -> None:
        """With ``create``, a new one with ``initial_value`` takes the place of one that has the name."""
        self._name = "/" + name.lstrip("/")
        path = self._name.encode()
        if create:
            _libc.sem_unlink(path)
        flags = os.O_CREAT | os.O_EXCL if create else 0
        mode, value = ctypes.c_uint(0o666), ctypes.c_uint(initial_value)
        self._address: Optional[int] = _libc.sem_open(path, flags, mode, value)
        if self._address is None:
            reason = os.strerror(ctypes.get_errno())
            verb = "created" if create else "opened"
            raise ZeroBufferException(f"semaphore {name!r} cannot be {verb}: {reason}")

    def _open(self) -> int:
        if self._address is None:
            raise ZeroBufferException(f"semaphore {self._name!r} was closed")
        return self._address

    def acquire(self, timeout: Optional[float] = None) -> bool:
        """Takes one, waiting for it up to ``timeout`` seconds (None: for ever); whether there was one."""
        deadline = None
        if timeout is not None:
            until = time.monotonic_ns() + max(0, int(timeout * 1e9))
            deadline = _Timespec(*divmod(until, 10**9))
        while True:
            if deadline is None:
                status = _libc.sem_wait(self._open())
            else:
                clock = time.CLOCK_MONOTONIC
                status = _libc.sem_clockwait(self._open(), clock, ctypes.byref(deadline))
            if status == 0:
                return True
            number = ctypes.get_errno()
            if number == errno.ETIMEDOUT:
                return False
            # Python has run its handlers of the signal that interrupted the call.
            if number != errno.EINTR:
                raise ZeroBufferException(
                    f"waiting for semaphore {self._name!r} failed: {os.strerror(number)}"
                )

    def release(self) -> None:
        """Gives one."""
        if _libc.sem_post(self._open()) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise ZeroBufferException(f"semaphore {self._name!r} cannot be posted: {reason}")

    def close(self) -> None:
        """Lets go of it. No thread may be waiting for it."""
        address, self._address = self._address, None
        if address is not None:
            _libc.sem_close(address)

    def unlink(self) -> None:
        """Takes the name away, if it is there."""
        _libc.sem_unlink(self._name.encode())


class LinuxFileLock(_Closing):
    """A file that is locked as long as this object is open, and removed when it is closed."""

    def __init__(self, path: str) -> None:
        """Makes the file and its folder if they are not there."""
        self._path = path
        self._file: Optional[int] = None
        while self._file is None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                raise ZeroBufferException(f"lock file {path!r} cannot be made: {error.strerror}") from error
            if not _try_lock(file):
                os.close(file)
                raise ZeroBufferException(f"somebody else holds lock file {path!r}")
            if _has_name(file, path):
                self._file = file
            else:
                # Its holder has removed it in between.
                os.close(file)

    def is_locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def close(self) -> None:
        """Removes the file, and lets go of it."""
        file, self._file = self._file, None
        if file is not None:
            # While it is locked, so that nobody else's is removed.
            Path(self._path).unlink(missing_ok=True)
            os.close(file)

    @staticmethod
    def try_remove_stale(path: str) -> bool:
        """Removes the file if nobody holds it; whether it was removed."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            if not _try_lock(file) or not _has_name(file, path):
                return False
            os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_name(file: int, path: str) -> bool:
    """Whether the open file is still the one that is found there: another may have been made since."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
