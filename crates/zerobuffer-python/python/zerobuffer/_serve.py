"""``serve``: a program that does nothing but serve, in one process or several."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any, Callable, List, Optional, Tuple

from ._native import Request, Service
from ._support import check_handler

_log = logging.getLogger("zerobuffer.server")

# Seconds. A process that has served for so long did not die of its start.
_SETTLED = 5.0
# Before one that keeps dying is started again; the first time it is started at once.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
# What a process may take beyond its stop_timeout to end.
_GRACE = 5.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(
    name: str,
    handler: Callable[[Request], Any],
    config: Any = None,
    *,
    processes: int = 1,
    on_error: Optional[Callable[[BaseException], Any]] = None,
    stop_timeout: float = 2.0,
    **options: Any,
) -> None:
    """Serves the service ``name`` until SIGTERM or SIGINT (Ctrl-C), then stops cleanly::

        zerobuffer.serve("image-proc", invert, processes=4)

    With several ``processes`` each of them, a fork of this one, is a server of the service, and clients spread over
    them: one interpreter uses one core. The handler may be any function, also a lambda or a closure, since nothing
    is pickled; what it refers to is there in each process. A process that dies is started again, after a pause that
    grows up to 5 s if it keeps dying. All end with this process, even if that is killed. ``handler`` and ``on_error``
    are those of :meth:`zerobuffer.Service.start`; ``config`` and ``options`` those of :class:`zerobuffer.Service`,
    for each process.

    Raises what these two raise; ValueError if ``processes`` is below 1; RuntimeError outside of the main thread,
    which alone gets signals, and if there are to be several processes while other threads run, whose locks would
    stay locked in the forks.
    """
    check_handler(handler)
    _check(processes)

    def make() -> Service:
        service = Service(name, config, stop_timeout=stop_timeout, **options)
        service.start(handler, on_error)
        return service

    signals = _Signals(*_SIGNALS)
    try:
        if processes == 1:
            with make():
                while not signals.have_come():
                    wait([signals.descriptor])
        else:
            _Processes(name, make, processes, stop_timeout).serve(signals)
    finally:
        signals.restore()


def _check(processes: int) -> None:
    """Refuses what ``serve`` cannot do from here."""
    if processes < 1:
        raise ValueError(f"processes is {processes}; allowed: 1 and more")
    this = threading.current_thread()
    if this is not threading.main_thread():
        raise RuntimeError(
            "serve() waits for signals, which only the main thread gets: call it there, or use "
            "Service(name).start(handler)"
        )
    others = ", ".join(thread.name for thread in threading.enumerate() if thread is not this)
    if processes > 1 and others:
        raise RuntimeError(
            f"serve() forks, and other threads run ({others}), whose locks would stay locked in the forks: call "
            "it before they are started, or with processes=1"
        )


class _Signals:
    """Notes the signals that tell this process to end. What it was started to ignore stays ignored.

    The main thread need not be the one that gets them, so that Python's handlers may run late; what the system's
    handler writes wakes it up."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        # Readable once one has come.
        self.descriptor, self._note = os.pipe()
        for end in (self.descriptor, self._note):
            os.set_blocking(end, False)
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
        self._told_before = signal.set_wakeup_fd(self._note, warn_on_full_buffer=False)

    def have_come(self) -> bool:
        """Whether one has come since this was asked before."""
        try:
            return any(number in self._numbers for number in os.read(self.descriptor, 512))
        except BlockingIOError:
            return False

    def restore(self) -> None:
        """Lets the signals do what they did before."""
        signal.set_wakeup_fd(self._told_before)
        for number, handler in self._before.items():
            # None: it was not set by Python, and cannot be set by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(self.descriptor)
        os.close(self._note)


class _Ends:
    """Has the system keep how children of this process have ended, also if it was told to ignore that."""

    def __init__(self) -> None:
        self._ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def restore(self) -> None:
        """Does as this process was told before; in a fork of it, too."""
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _has_ended(process: ForkProcess) -> bool:
    """Whether a process has ended, also if something else in this program has heard how: then its exit code stays
    unknown."""
    if process.exitcode is not None:
        return True
    try:
        os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _how(code: Optional[int]) -> str:
    """What a process has ended with, in words."""
    if code is None:
        return "has ended, and something else in this program has heard how"
    if code >= 0:
        return f"has exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        # Of the real-time signals only the first and the last have names.
        return f"was ended by signal {-code}"


def _close_left(failure: OSError) -> None:
    """Closes the pipes that multiprocessing leaves open when it cannot fork: they would become too many."""
    for frame, _ in traceback.walk_tb(failure.__traceback__):
        if frame.f_code.co_name == "_launch":
            for end in ("parent_r", "child_w", "child_r", "parent_w"):
                try:
                    os.close(frame.f_locals.get(end, -1))
                except OSError:
                    # It was not made, or is closed.
                    pass


class _Processes:
    """The processes of a service, seen from the one that looks after them. This has no threads, so that it can fork
    at any time."""

    def __init__(
        self, name: str, make: Callable[[], Service], count: int, stop_timeout: float
    ) -> None:
        self._name = name
        self._stop_timeout = stop_timeout
        # Readable in the processes once this one has ended, however it did.
        reading, writing = os.pipe()
        self._lifeline = (reading, writing)
        self._ends = _Ends()
        self._places = [_Place(name, make, self._lifeline, self._ends) for _ in range(count)]

    def serve(self, signals: _Signals) -> None:
        """Keeps them running until a signal comes. Raises what one of them has failed with at its first start."""
        try:
            while not signals.have_come():
                for place in self._places:
                    place.look_after()
                watched: List[Any] = [signals.descriptor]
                watched += [thing for place in self._places for thing in place.watched()]
                pause = min(place.pause() for place in self._places)
                wait(watched, None if pause == float("inf") else pause)
        finally:
            self._stop()
            self._ends.restore()

    def _stop(self) -> None:
        """Has all of them stop, at the same time."""
        running = [place.process for place in self._places if place.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._stop_timeout + _GRACE
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if not _has_ended(process):
                _log.error("process %d of service %r does not stop, and is killed", process.pid, self._name)
                process.kill()
                process.join()
        for end in self._lifeline:
            os.close(end)


class _Place:
    """One process of a service, and those that come after it."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Service],
        lifeline: Tuple[int, int],
        ends: _Ends,
    ) -> None:
        # Only one that was started.
        self.process: Optional[ForkProcess] = None
        self._name = name
        self._make = make
        self._lifeline = lifeline
        self._ends = ends
        # What the process says of its start: None, or what it has failed with.
        self._told: Optional[Connection] = None
        self._has_served = False
        # When a process was started here last.
        self._started: Optional[float] = None
        self._due = 0.0
        self._next_pause = 0.0

    def watched(self) -> List[Any]:
        """What is ready when there is something to look after."""
        watched: List[Any] = [] if self.process is None else [self.process.sentinel]
        return watched if self._told is None else [*watched, self._told]

    def pause(self) -> float:
        """How long there is nothing to look after, if nothing happens."""
        return float("inf") if self.process is not None else max(0.0, self._due - time.monotonic())

    def look_after(self) -> None:
        """Starts the process if it is due; hears what it says; notices its end."""
        if self.process is None:
            if self._due <= time.monotonic():
                self._start()
            return
        self.process.join(0)
        has_ended = _has_ended(self.process)
        # Should it have ended, what it has said is there.
        if self._told is not None and self._told.poll():
            self._hear(self._told)
        if has_ended:
            self._bury(self.process)

    def _start(self) -> None:
        """Starts a process. What keeps the first one of a place from that is raised; later there may be too many
        processes or descriptors for a while."""
        try:
            self._fork()
        except OSError as failure:
            _close_left(failure)
            if self._started is None:
                raise
            _log.error(
                "a process of service %r cannot be started; the next try is in %.1f s",
                self._name,
                self._back_off(),
                exc_info=failure,
            )

    def _fork(self) -> None:
        told, telling = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        arguments = (self._make, telling, self._lifeline, self._ends)
        process = context.Process(target=_work, args=arguments, name=f"zerobuffer-{self._name}")
        # Until it has handlers of its own: this process's would have this one stop.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
        except OSError:
            told.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            telling.close()
        self._told, self.process, self._started = told, process, time.monotonic()

    def _back_off(self) -> float:
        """Has the next process start after a pause, which grows; how long that is."""
        pause = self._next_pause
        self._due = time.monotonic() + pause
        self._next_pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
        return pause

    def _hear(self, told: Connection) -> None:
        try:
            failure = told.recv()
        except EOFError:
            failure = None
        else:
            self._has_served = self._has_served or failure is None
        told.close()
        self._told = None
        if failure is not None and not self._has_served:
            raise failure
        if failure is not None:
            _log.error("a process of service %r cannot serve", self._name, exc_info=failure)

    def _bury(self, process: ForkProcess) -> None:
        if self._started is not None and time.monotonic() - self._started >= _SETTLED:
            self._next_pause = 0.0
        _log.warning(
            "process %d of service %r %s; another one is started in %.1f s",
            process.pid,
            self._name,
            _how(process.exitcode),
            self._back_off(),
        )
        self.process = None
        if process.exitcode is not None:
            process.close()


def _work(
    make: Callable[[], Service], telling: Connection, lifeline: Tuple[int, int], ends: _Ends
) -> None:
    """The body of a process."""
    alive, parents_end = lifeline
    os.close(parents_end)
    # Ctrl-C reaches all of them; the parent says when to stop. Never restored: what comes later is not for the
    # parent's descriptor.
    signals = _Signals(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    ends.restore()
    try:
        service = make()
    except Exception as failure:
        telling.send(failure)
        return
    with service:
        telling.send(None)
        telling.close()
        while not signals.have_come() and alive not in wait([signals.descriptor, alive]):
            pass
