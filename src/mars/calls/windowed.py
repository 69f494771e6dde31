"""`as_completed` with a window: only so many objects are under way or unread at a time.

Each object is a run of its own, which starts when the program has read another one. So a program
that reads slowly holds few results, and an iterator of objects is read only as far as needed. The
runs are one `Series`: they store a large argument once. Made by `mars.calls.completed`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait

from mars.calls.objects import MapObjects
from mars.completion import Completed, Ends
from mars.engine import Run
from mars.execution import Execution
from mars.settings import FUTURE_CANCEL_WAIT_S
from mars.task import Handle

Start = Callable[[Handle, Callable[[Run], object]], Execution]
"""Starts the call of an object, and says later that its run has ended."""


class Windowed(Completed):
    """Objects as their calls end, of which at most ``window`` are started and not yet given.

    Parameters
    ----------
    objects : iterable of Handle
        What to execute. An iterator is read as far as there is room in the window.
    window : int
        How many objects may be under way, or have ended and wait to be read.
    start : callable
        See `Start`.
    listen : callable
        Waits by a function, and tells of silent calls meanwhile.
    """

    __module__ = "mars.remote"  # where programs find it

    def __init__(
        self,
        objects: Iterable[object],
        window: int,
        start: Start,
        listen: Callable[[Callable[[float | None], bool], float | None], bool],
    ) -> None:
        self._begin(Ends(), listen)
        self._window, self._start = window, start
        self._known = _count(objects)
        self._coming = _leaves(objects)
        self._numbers = itertools.count()
        self._under_way: dict[int, tuple[Handle, Execution]] = {}
        self._given, self._stopped = 0, False
        self._broken: BaseException | None = None  # what ended a run that should have gone on
        self._fill()

    def __len__(self) -> int:
        if self._known is None:
            raise TypeError("nobody knows how many objects will come: they are from an iterator")
        return self._known - self._given

    def _fill(self) -> None:
        """Start calls until the window is full."""
        ends = self._ends
        while len(self._under_way) + len(self._ready) < self._window and self._broken is None:
            one = next(self._coming, None)
            if one is None:
                return
            number = next(self._numbers)

            # It must not hold the object: only the program decides how long a value is kept.
            def ended(run: Run, number: int = number) -> None:
                ends.put_number(number, run.error)

            self._under_way[number] = one, self._start(one, ended)

    def _step(self) -> bool:
        """Whether there is something to give, or no more will come."""
        if self._ready:
            return True
        self._woken.clear()
        self._take()
        if self._ready:
            return True
        if not self._under_way:
            if self._broken is not None:
                error, self._broken = self._broken, None
                self._known, self._coming = self._given, iter(())
                raise error
            self._fill()
        return not self._under_way and not self._ready

    def _take(self) -> None:
        """Make ready what has ended since the last look."""
        unread = self._ends.numbers
        while unread:
            number, error = unread.popleft()
            found = self._under_way.pop(number, None)
            if found is not None and error is None:
                self._ready.append(found[0])
            elif found is not None:
                self._broken = error

    def _give(self) -> object:
        """The next object. Another call starts now, so that it runs while the program reads."""
        one = self._ready.popleft()
        try:
            self._take()
            self._fill()
        except BaseException:  # of the program's iterator, or there is no room: nothing is lost
            self._ready.appendleft(one)
            raise
        self._given += 1
        return one

    def stop(self) -> None:
        """Cancel what is under way, and start nothing any more; for Ctrl-C."""
        self._coming, self._stopped = iter(()), True
        runs = [run for _, run in self._under_way.values()]
        for run in runs:
            run.cancel_soon()
        wait(runs, FUTURE_CANCEL_WAIT_S)

    def _progress(self) -> str:
        state = "cancelled" if self._stopped else "under way"
        return f"{self._given} read, {len(self._under_way)} {state}"

    def _what_is_left(self) -> str:
        if self._known is None:
            return "objects are still to come"
        return super()._what_is_left()


def _count(objects: Iterable[object]) -> int | None:
    """How many objects will come; None: nobody knows."""
    if not isinstance(objects, (list, tuple, deque)):
        return None
    leaves = [leaf for one in objects if isinstance(one, Handle) for leaf in one.leaves()]
    return sum(len(leaf) if isinstance(leaf, MapObjects) else 1 for leaf in leaves)


def _leaves(objects: Iterable[object]) -> Iterator[Handle]:
    """The single objects, in order. What has been given is not held any more."""
    if isinstance(objects, (list, tuple)):
        given = deque(objects)
        del objects
        objects = (given.popleft() for _ in range(len(given)))
    for one in objects:
        if not isinstance(one, Handle):
            raise TypeError(f"as_completed takes objects made by spawn or map, got {one!r:.80}")
        leaves = deque(one.leaves())
        del one  # nor held here while its call runs
        while leaves:
            whole = leaves[0] if isinstance(leaves[0], MapObjects) else None
            if whole is None:
                yield leaves.popleft()
                continue
            for index in range(len(whole)):
                yield whole.loose(index)
            leaves.popleft()
            del whole


__all__ = ["Windowed"]
