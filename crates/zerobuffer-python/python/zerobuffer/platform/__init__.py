"""What version 1 is made of on this system: shared memory, semaphores and lock files by name. For tools that look
at a buffer, clean up after one, or write tests; readers and writers of this package do not use it."""

import os

from .linux import LinuxFileLock, LinuxSemaphore, LinuxSharedMemory

__all__ = [
    "FileLock",
    "PlatformFileLock",
    "PlatformSemaphore",
    "PlatformSharedMemory",
    "Semaphore",
    "SharedMemory",
    "create_file_lock",
    "create_semaphore",
    "create_shared_memory",
    "get_temp_directory",
    "open_semaphore",
    "open_shared_memory",
    "process_exists",
]

SharedMemory = LinuxSharedMemory
PlatformSharedMemory = LinuxSharedMemory
Semaphore = LinuxSemaphore
PlatformSemaphore = LinuxSemaphore
FileLock = LinuxFileLock
PlatformFileLock = LinuxFileLock


def create_shared_memory(name: str, size: int) -> SharedMemory:
    """New shared memory of ``size`` bytes, all of them 0.

    Raises ZeroBufferException if there is some of that name, or no room for it.
    """
    return SharedMemory(name, size, create=True)


def open_shared_memory(name: str) -> SharedMemory:
    """The shared memory of that name.

    Raises ZeroBufferException if there is none.
    """
    return SharedMemory(name, 0)


def create_semaphore(name: str, initial_value: int = 0) -> Semaphore:
    """A new semaphore, in place of one that has the name."""
    return Semaphore(name, initial_value, create=True)


def open_semaphore(name: str) -> Semaphore:
    """The semaphore of that name.

    Raises ZeroBufferException if there is none.
    """
    return Semaphore(name)


def create_file_lock(path: str) -> FileLock:
    """Makes the file ``path``, with its folder, and locks it.

    Raises ZeroBufferException if somebody else holds it.
    """
    return FileLock(path)


def get_temp_directory() -> str:
    """The folder of version 1's lock files."""
    return "/tmp/zerobuffer"


def process_exists(pid: int) -> bool:
    """Whether a process with that number runs, whichever user owns it."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
