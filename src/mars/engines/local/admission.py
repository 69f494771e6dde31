"""Which calls may run at the same time, by the memory that they need. Pure.

A call needs what its ``memory=`` says, else what calls of its function were seen to use. One
that the kernel ended for want of memory runs once more, with nothing beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from mars.engines.local.queues import Taken
from mars.settings import FUNCTIONS_KEPT, PEAK_FLOOR_BYTES
from mars.task import Task

OUT_OF_MEMORY: Final = "memory"
"""Blame of a task whose worker the kernel ended because memory ran out."""


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
