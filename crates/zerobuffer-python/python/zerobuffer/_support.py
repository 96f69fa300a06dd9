"""What the extension module calls."""

import atexit
import logging
from typing import Any, Callable

from .exceptions import WrongProcess

_log = logging.getLogger("zerobuffer.server")


def log_failure(channel: str, error: BaseException) -> None:
    """Logs a handler's exception that nobody else has asked for."""
    _log.error("the handler of channel %r failed", channel, exc_info=error)


def stop_at_exit(server: Any) -> Callable[[], None]:
    """Has a running server stopped in order when the interpreter exits, so that clients are told and
    no names are left behind. Returns what ``atexit.unregister`` takes."""

    def stop() -> None:
        try:
            server.stop()
        except WrongProcess:
            # A forked child: the server is its parent's.
            pass
        except Exception:
            _log.exception("the server of channel %r did not stop in order", server.name)

    atexit.register(stop)
    return stop
