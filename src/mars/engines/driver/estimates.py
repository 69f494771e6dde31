"""What calls are expected to take, time and memory, by what calls of their functions have taken.

`Estimates` predicts the time. `Admission` predicts the memory and says which calls may run at the
same time: a call needs what its ``memory=`` says, otherwise what calls of its function were seen
to use. A call that the kernel ended because memory ran out runs once more, with nothing beside it.
Called by the scheduler. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from mars.calls.options import Options
from mars.engines.driver.queues import Taken
from mars.settings import FUNCTIONS_KEPT, PEAK_FLOOR_BYTES, PREFETCH_BELOW_S, TASK_FLOOR_S
from mars.task import Task

OUT_OF_MEMORY: Final = "memory"
"""Blame of a task whose worker the kernel ended because memory ran out."""


class Estimates:
    """Says how long calls will take.

    Parameters
    ----------
    prefetch_below_s : float
        A call that is predicted to take longer is not sent ahead, seconds.

    Attributes
    ----------
    seconds : dict
        Predicted duration of each function's calls, by the function's key.
    """

    __slots__ = ("prefetch_below_s", "seconds")

    def __init__(self, prefetch_below_s: float) -> None:
        self.prefetch_below_s = prefetch_below_s
        self.seconds: dict[bytes, float] = {}

    def predict(self, task: Task) -> float:
        """Seconds that a task will take; for a function never seen, too long to send ahead."""
        seconds = self.seconds.get(task.call.function.key)
        if seconds is None:
            return self.prefetch_below_s
        return seconds if task.items is None else seconds * len(task.items)

    def predict_next(self, task: Task) -> float:
        """Seconds that the least that is given out of a task will take: of a map one item."""
        if task.items is None or task.source is not None:
            return self.predict(task)
        return self.seconds.get(task.call.function.key, self.prefetch_below_s)

    def ahead_below_s(self, options: Options) -> float:
        """Predicted seconds below which a call is sent ahead.

        Calls that must not run twice are not sent far ahead: if their node is lost, nobody knows
        whether they had begun.
        """
        return self.prefetch_below_s if options.death_retries else PREFETCH_BELOW_S

    def learn(self, task: Task, seconds: float) -> None:
        """A task has taken so many seconds."""
        key = task.call.function.key
        if task.items is not None:
            seconds /= len(task.items)
        elif seconds < TASK_FLOOR_S:
            seconds = TASK_FLOOR_S
        known = self.seconds.get(key)
        if known is None:
            if len(self.seconds) >= 4 * FUNCTIONS_KEPT:
                del self.seconds[next(iter(self.seconds))]
            self.seconds[key] = seconds
        else:
            # Quick to believe that calls got slower, slower to believe the opposite: work sent
            # ahead by mistake waits, work not sent ahead costs 0.1 ms.
            self.seconds[key] = known + (seconds - known) * (0.5 if seconds > known else 0.2)


class Admission:
    """Says whether a call fits beside those that run.

    Parameters
    ----------
    room : callable
        Bytes that running calls may take together, now.

    Attributes
    ----------
    most : float
        Bytes that one call can have: on a cluster, on the node that has most.
    """

    def __init__(self, room: Callable[[], float]) -> None:
        self._room = room
        self.most = inf
        self.peaks: dict[bytes, float] = {}  # by function, of those that need much
        self.strict = False  # some call has to run alone

    def need(self, task: Task) -> float:
        """Bytes that a call is expected to need; 0: too few to care, infinite: all there are."""
        if self.strict and task.blame == OUT_OF_MEMORY:
            return inf
        memory = task.call.options.memory
        if memory is not None:
            return memory
        peaks = self.peaks
        return min(peaks.get(task.call.function.key, 0), self.most) if peaks else 0

    def fits(self, need: float, taken: Taken, memory: float | None = None) -> bool:
        """Whether a worker that has nothing to do may start a call that needs ``need``.

        ``taken`` is what the others need: those of its node, and ``memory`` is then what calls may
        take there together; or all of them, if ``memory`` is None, as they are on this machine.
        """
        if not need and not self.strict:
            return True
        if memory is not None and memory < need < inf:
            return False  # another node has more
        if not taken.running:
            return True  # nothing else would make room: it has to be tried
        if need == inf:
            return False
        if not need:
            return taken.bytes < inf
        return taken.bytes + need <= (self._room() if memory is None else memory)

    def learn(self, key: bytes, peak: float) -> None:
        """A call of a function has used ``peak`` bytes."""
        known = self.peaks.get(key, 0)
        # As with time: quick to believe that calls need more, slower to believe the opposite.
        expected = peak if peak > known else known + (peak - known) * 0.2
        if expected >= PEAK_FLOOR_BYTES:
            if not known and len(self.peaks) >= 4 * FUNCTIONS_KEPT:
                del self.peaks[next(iter(self.peaks))]  # a program may make a function per call
            self.peaks[key] = expected
        elif known:
            del self.peaks[key]
