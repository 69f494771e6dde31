"""What stops a call that runs in the program's main thread: time limits, cancels and Ctrl-C.

Only the main thread can be interrupted, and it has one alarm clock. So the limits of all calls
that run there, one inside the other, are kept here together. What comes while code of the engine
runs waits until code of a call runs again: so nothing of ours is cut in two. In other threads
all of this does nothing, and a limit can only be looked at afterwards. Called by the inline engine.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_CAN_RING: Final = hasattr(signal, "setitimer")  # not on Windows


_Handler = Callable[[int, FrameType | None], object]


class Late(KeyboardInterrupt):
    """Raised in a call that has to stop: it, or one that waits for it."""

    def __init__(self, limit: Limit) -> None:
        super().__init__("the call has to stop")
        self.limit = limit


class Limit:
    """The time that one attempt of a call may take.

    Attributes
    ----------
    late : bool
        Whether the time is over.
    """

    __slots__ = ("at", "late", "told")

    def __init__(self, timeout_s: float | None) -> None:
        self.at = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self.late = False
        self.told = 0  # how deep in nested calls `Late` was raised for it; 0: not yet

    def end_now(self) -> None:
        """The attempt is to stop at once; called in any thread."""
        with _main.lock:
            self.at = time.monotonic()
            if self in _main.limits:
                _main.set_alarm()

    def passed_s(self) -> float:
        """Seconds since the time was over; negative before."""
        return time.monotonic() - self.at


class _MainThread:
    """How far the main thread is in calls of the inline engine."""

    def __init__(self) -> None:
        self.depth = 0  # calls that run, one inside the other
        self.in_call = False  # their code runs, and not ours
        self.interrupts = 0  # Ctrl-C so far
        self.pending = False  # a Ctrl-C that waits for code of a call, or for the program
        self.limits: list[Limit] = []  # outermost first
        self.lock = threading.RLock()  # held to set the alarm
        self._timer: tuple[float, float] = (0.0, 0.0)  # the program's own, and since when it waits
        self._since = 0.0
        self._on_alarm: _Handler | int | None = None  # the program's handlers
        self._on_interrupt: _Handler | None = None

    # -- limits -------------------------------------------------------------------------------

    def add(self, limit: Limit) -> None:
        with self.lock:
            if not self.limits:
                self._on_alarm = signal.signal(signal.SIGALRM, self._ring)
                self._timer = signal.setitimer(signal.ITIMER_REAL, 0)
                self._since = time.monotonic()
            self.limits.append(limit)
            self.set_alarm()

    def remove(self, limit: Limit) -> None:
        with self.lock:
            del self.limits[self.limits.index(limit) :]
            self.set_alarm()
            if self.limits:
                return
            # The clock is off: none of our alarms can reach the program's own handler.
            signal.signal(signal.SIGALRM, self._on_alarm or signal.SIG_DFL)
            first, interval = self._timer
            if first:
                left = first - (time.monotonic() - self._since)
                signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), interval)

    def set_alarm(self) -> None:
        next_at = min((limit.at for limit in self.limits if not limit.late), default=math.inf)
        wait_s = 0 if next_at == math.inf else max(next_at - time.monotonic(), 1e-6)
        signal.setitimer(signal.ITIMER_REAL, wait_s)

    def _ring(self, *_: object) -> None:
        now = time.monotonic()
        for limit in self.limits:
            limit.late |= limit.at <= now
        with self.lock:
            self.set_alarm()
        if self.in_call:
            self.tell()

    def tell(self) -> None:
        """Raise what has come, in code of a call: of the outermost limit first."""
        if self.pending:
            self.pending = False
            self._pass_on()
        for limit in self.limits:
            # Again, if a call inside of it has swallowed it.
            if limit.late and not 0 < limit.told <= self.depth:
                limit.told = self.depth
                raise Late(limit)

    # -- Ctrl-C -------------------------------------------------------------------------------

    def listen(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        if callable(before):  # else the program ignores it, or wants to end at once
            self._on_interrupt = before
            signal.signal(signal.SIGINT, self._interrupt)

    def listen_no_more(self) -> None:
        handler, self._on_interrupt = self._on_interrupt, None
        if handler is None:
            return
        if signal.getsignal(signal.SIGINT) == self._interrupt:  # else a call has set another
            signal.signal(signal.SIGINT, handler)
        if self.pending:
            self.pending = False
            handler(signal.SIGINT, None)

    def _interrupt(self, *_: object) -> None:
        if self.in_call:
            self._pass_on()
        else:
            self.pending = True

    def _pass_on(self) -> None:
        self.interrupts += 1
        handler: Callable[..., object] = self._on_interrupt or signal.default_int_handler
        handler(signal.SIGINT, None)


_main = _MainThread()


def _here() -> bool:
    return threading.current_thread() is threading.main_thread()


def interrupts() -> int:
    """How often Ctrl-C has struck in a call so far."""
    return _main.interrupts if _here() else 0


@contextlib.contextmanager
def code_of_the_engine() -> Iterator[None]:
    """In the block, what interrupts the main thread waits."""
    if not _here():
        yield
        return
    in_call, _main.in_call = _main.in_call, False
    outermost = not in_call and not _main.depth and _main._on_interrupt is None
    if outermost:
        _main.listen()
    try:
        yield
    finally:
        if outermost:
            _main.listen_no_more()
        _main.in_call = in_call
        if in_call:
            _main.tell()


@contextlib.contextmanager
def code_of_a_call(timeout_s: float | None) -> Iterator[Limit]:
    """In the block, the main thread can be interrupted, at the latest after ``timeout_s``."""
    limit = Limit(timeout_s)
    if not _here():
        yield limit
        return
    depth = _main.depth
    if _CAN_RING:
        _main.add(limit)
    try:
        try:
            _main.depth = depth + 1
            _main.in_call = True
            _main.tell()
            yield limit
        finally:
            _main.in_call = False
    finally:  # also if something struck in the line before
        _main.in_call = False
        _main.depth = depth
        if limit in _main.limits:
            _main.remove(limit)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """In the block, which only waits, the main thread can be interrupted as in a call."""
    if not _here():
        yield
        return
    in_call = _main.in_call
    try:
        _main.in_call = True
        _main.tell()
        yield
    finally:
        _main.in_call = in_call


__all__ = ["Late", "Limit", "code_of_a_call", "code_of_the_engine", "interrupts", "waiting"]
