"""How a server of version 1 runs its handler."""

from enum import Enum


class ProcessingMode(Enum):
    """How a server runs its handler on requests."""

    SINGLE_THREAD = "single_thread"
    """One after the other, on one background thread."""
    THREAD_POOL = "thread_pool"
    """Not possible with two buffers, whose responses come in the order of the requests. An in-place
    server takes ``workers``."""
