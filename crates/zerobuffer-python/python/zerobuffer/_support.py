"""What the extension module calls."""

import atexit
import inspect
import logging
import os
import sys
import traceback
import warnings
import weakref
from typing import Any, Callable, Optional

from .exceptions import WrongProcess, ZeroBufferException

_log = logging.getLogger("zerobuffer.server")


def array(frame: Any, shape: Any, dtype: Any) -> Any:
    """The bytes of ``frame`` as a numpy array of this shape and type, without a copy."""
    import numpy as np

    view = memoryview(frame)
    kind = np.dtype(np.uint8 if dtype is None else dtype)
    try:
        flat = np.asarray(view).view(kind)
        return flat if shape is None else flat.reshape(shape)
    except ValueError as error:
        what = f"an array of {kind}" if shape is None else f"an array of {kind} and shape {shape}"
        raise ValueError(f"{view.nbytes} bytes do not make {what}: {error}") from None


def as_array(frame: Any, dtype: Any, copy: Optional[bool]) -> Any:
    """What ``frame.__array__`` returns. numpy comes here only if the frame shows no bytes any more, which the
    view raises."""
    import numpy as np

    flat = np.asarray(memoryview(frame))
    if copy is False and dtype is not None and flat.dtype != dtype:
        raise ValueError(f"bytes become {dtype} by a copy only; use array(shape, dtype)")
    return np.array(flat, dtype=dtype) if copy else np.asarray(flat, dtype=dtype)


def warn_of_views(what: str, alive: int) -> None:
    """Says where a frame was left whose end has to wait."""
    ends = {"frame": "released", "response": "released", "request": "answered"}[what]
    warnings.warn(
        f"{alive} view(s) of this {what} are alive (an array, a memoryview, a slice of one): it is {ends} "
        "when the last one is deleted; delete them before, or copy what is to be kept",
        ResourceWarning,
        stacklevel=2,
    )


def check_handler(handler: Any) -> None:
    """Refuses what cannot handle requests."""
    if not callable(handler):
        raise TypeError(f"a handler is called with each request; {handler!r} cannot be called")
    for function in (handler, getattr(type(handler), "__call__", None)):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"nobody would await {handler!r}: requests for coroutines come from AsyncServer")
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"nobody would run the generator that {handler!r} returns: a handler edits its request")


def refuse_returned(value: Any) -> None:
    """Raises the TypeError for what a handler has returned."""
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        # Its body never ran, and nobody has to hear that again.
        value.close()
    raise TypeError(
        f"handler returned {type(value).__name__}: nobody gets it; edit the request, as with request.write(data)"
    )


def log_views(channel: str, sequence: int, alive: int) -> None:
    """Says why a client waits for its response. For each server once."""
    _log.warning(
        "channel %r: %d view(s) of request %d are alive (an array, a memoryview, a slice of one), so its client "
        "waits until the last one is deleted; delete them before, work in a function of its own, or copy what is "
        "to be kept. This is said once",
        channel,
        alive,
        sequence,
    )


def clear_frames(error: Optional[BaseException]) -> None:
    """Lets go of what the functions held that an exception has ended: the local arrays of a handler."""
    chain, seen = [error], set()
    while chain:
        error = chain.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            chain += [error.__cause__, error.__context__]


def log_failure(channel: str, error: BaseException) -> None:
    """Logs a handler's exception that nobody else has asked for."""
    _log.error("the handler of channel %r failed", channel, exc_info=error)


def program() -> str:
    """What a client calls itself: the name of the program."""
    given = getattr(sys, "argv", None) or [""]
    name = os.path.basename(given[0]) or os.path.basename(sys.executable)
    # A service takes no more.
    return name.encode(errors="replace")[:192].decode(errors="ignore")


def stop_at_exit(channel: str, stop: Callable[[], None]) -> Callable[[], None]:
    """Has a running server stopped in order when the interpreter exits, so that clients are told and
    no names are left behind. Returns what ``atexit.unregister`` takes."""

    def stop_quietly() -> None:
        try:
            stop()
        except WrongProcess:
            # A forked child: the server is its parent's.
            pass
        except Exception:
            _log.exception("the server of channel %r did not stop in order", channel)

    atexit.register(stop_quietly)
    return stop_quietly


# The servers of this process by their channels' names.
_servers: "weakref.WeakValueDictionary[str, Any]" = weakref.WeakValueDictionary()


def remember(channel: str, server: Any) -> None:
    """Notes the server that this process has for a channel."""
    _servers[channel] = server


def stop_previous(channel: str) -> None:
    """Stops the server that this process has for a channel, if it has one."""
    previous = _servers.get(channel)
    if previous is not None:
        try:
            previous.stop()
        except ZeroBufferException as error:
            _log.warning("the previous server of channel %r has ended with: %s", channel, error)
