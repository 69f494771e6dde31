"""Which running calls have printed nothing for so long that somebody should hear of it.

A call that hangs, or was stopped, is never taken for dead: nobody but its user can tell it from
one that works. So whoever waits gets a line about it, and again when it has lasted twice as long.
`Silence` decides, `Listener` is what a waiting thread does meanwhile. No call costs anything:
the engine is only asked when a thread waits, about once a second.
"""

from __future__ import annotations

import os
import threading
import time

from mars.settings import SILENCE_LOOK_S, SILENCE_OF_EXPECTED

TYPE_CHECKING = False  # known to type checkers; `typing` itself would cost 8 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class RunningCall:
    """A call that runs now.

    Attributes
    ----------
    worker : int
        The worker that runs it.
    pid : int
        Its process.
    name : str
        The call's function.
    sign : object
        What changes with every sign of life: which attempt, bytes of its log, its progress.
    expected_s : float
        Seconds that earlier calls of the function have taken; 0 when none has ended.
    """

    __slots__ = ("expected_s", "name", "pid", "sign", "worker")

    def __init__(self, worker: int, pid: int, name: str, sign: object, expected_s: float) -> None:
        self.worker = worker
        self.pid = pid
        self.name = name
        self.sign = sign
        self.expected_s = expected_s


class Silence:
    """Since when running calls have been silent, and who was told.

    Parameters
    ----------
    is_stopped : callable
        Whether a process is kept from running by a signal; asked about late calls only.
    advise : callable, optional
        For a late call, and whether there are more of them: on which node it runs, as it is to be
        written behind the worker, and what shows where it is. Default: as on this machine.
    """

    def __init__(
        self,
        is_stopped: Callable[[int], bool],
        advise: Callable[[RunningCall, bool], tuple[str, str]] | None = None,
    ) -> None:
        self._is_stopped = is_stopped
        self._advise = advise_here if advise is None else advise
        self._since: dict[int, tuple[object, float, float]] = {}  # sign, since, times told as 2**n
        self._told_at: float | None = None
        self._lock = threading.Lock()

    def lines(self, running: Iterable[RunningCall], now: float, after_s: float) -> list[str]:
        """What to tell whoever waits: nothing, or one line, and one for each stopped worker.

        Parameters
        ----------
        running : iterable of RunningCall
            Calls that run now.
        now : float
            Monotonic time, seconds.
        after_s : float
            Silence from which on a call is told of, in seconds; also the time between two lines.
        """
        if not self._lock.acquire(blocking=False):
            return []  # another thread waits, too, and looks just now
        try:
            late = self._late(running, now, after_s)
            if not late or (self._told_at is not None and now - self._told_at < after_s):
                return []
            self._told_at = now
            for call, _, _ in late:
                sign, since, factor = self._since[call.worker]
                while factor * after_s <= now - since:
                    factor *= 2
                self._since[call.worker] = sign, since, factor
        finally:
            self._lock.release()
        busy = [(call, silent_s) for call, silent_s, stopped in late if not stopped]
        lines = [_stopped_line(call) for call, _, stopped in late if stopped]
        return [*lines, self._silent_line(busy)] if busy else lines

    def _late(
        self, running: Iterable[RunningCall], now: float, after_s: float
    ) -> list[tuple[RunningCall, float, bool]]:
        """Calls to tell of: for how long each has been silent, and whether it is stopped."""
        before, self._since = self._since, {}
        late = []
        for call in running:
            known = before.get(call.worker)
            if known is None or known[0] != call.sign:
                known = call.sign, now, 1.0
            self._since[call.worker] = known
            silent_s = now - known[1]
            if silent_s >= known[2] * after_s:
                stopped = self._is_stopped(call.pid)
                # That a call takes as long as those before it is no news.
                if stopped or silent_s >= SILENCE_OF_EXPECTED * call.expected_s:
                    late.append((call, silent_s, stopped))
        return late

    def _silent_line(self, late: Sequence[tuple[RunningCall, float]]) -> str:
        from mars.observe.progress import format_duration

        call, silent_s = max(late, key=lambda pair: pair[1])
        took = format_duration(silent_s)
        node, look = self._advise(call, len(late) > 1)
        worker = f"in worker {call.worker} (pid {call.pid}){node}"
        if len(late) == 1:
            return (
                f"mars: {call.name}(...) has run for {took} without output {worker}; "
                f"{look} shows where it is"
            )
        return (
            f"mars: {len(late)} calls have run without output, such as {call.name}(...) for {took} "
            f"{worker}; {look} shows where they are"
        )


def _stopped_line(call: RunningCall) -> str:
    return (
        f"mars: {call.name}(...) waits: worker {call.worker} (pid {call.pid}) is stopped by a "
        f'signal, such as SIGSTOP; "kill -CONT {call.pid}" lets it go on'
    )


def advise_here(call: RunningCall, several: bool) -> tuple[str, str]:
    """On which node a call runs, which need not be said here, and what shows where it is."""
    return "", f'"mars stack {os.getpid() if several else call.pid}"'


class Listener:
    """What a thread that waits for a run does meanwhile: tells of silent calls.

    Parameters
    ----------
    ask : callable
        Gives the lines to show, for a number of seconds; see `mars.engine.Engine.silent_calls`.
    after_s : float or None
        Silence from which on a call is told of, seconds. 0 or None: nothing is told.
    show : callable
        Shows one line.
    """

    def __init__(
        self,
        ask: Callable[[float], Sequence[str]],
        after_s: float | None,
        show: Callable[[str], object],
    ) -> None:
        self._ask = ask
        self._after_s = after_s or 0.0
        self._show = show
        self._every_s = min(SILENCE_LOOK_S, self._after_s / 4)
        self._next = time.monotonic() + self._every_s

    def listen(self) -> None:
        """Look whether there is something to tell, if it is time to."""
        if not self._after_s or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_s
        for line in self._ask(self._after_s):
            self._show(line)

    def wait(self, wait: Callable[[float | None], bool], timeout_s: float | None = None) -> bool:
        """As ``wait(timeout_s)``, in steps."""
        if not self._after_s:
            return wait(timeout_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            step_s = self._every_s
            if deadline is not None:
                step_s = min(step_s, deadline - time.monotonic())
            if wait(step_s):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self.listen()
