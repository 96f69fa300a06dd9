"""What error handlers of servers are called with."""


class ErrorEventArgs:
    """An error that a server's handler, or its thread, has met."""

    def __init__(self, exception: Exception) -> None:
        if not isinstance(exception, Exception):
            raise TypeError("exception must be an Exception instance")
        self._exception = exception

    @property
    def exception(self) -> Exception:
        """The exception."""
        return self._exception

    def __str__(self) -> str:
        return f"ErrorEventArgs({type(self._exception).__name__}: {self._exception})"

    def __repr__(self) -> str:
        return f"ErrorEventArgs(exception={self._exception!r})"
