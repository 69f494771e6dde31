"""Calls that a program asks for one at a time: one run for as long as they come.

A run for each of them would cost more than the call. So all calls of one `Stream` are one run, and
what the program adds while the loop is busy comes to it in one go. The run ends when no call has
come for a while. Made by `DriverEngine.stream`, for `mars.Executor`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from mars.engine import Run
from mars.engines.driver.loop import Loop
from mars.task import Call, Realm, Task

if TYPE_CHECKING:
    from mars.attempt.followed import Surroundings


class Stream:
    """Takes calls without inputs and without large parts, and has them run.

    Who adds a call hears of its end through the `CallSet` of its options, or, if the whole run
    ends before, through ``begin``, which makes the runs.

    Parameters
    ----------
    loop : Loop
        Runs the calls.
    realm : Realm
        What the tasks belong to.
    begin : callable
        Makes a run. It is called in the loop's thread.
    surroundings : callable
        Gives what calls are told of the program as it is now.
    """

    def __init__(
        self,
        loop: Loop,
        realm: Realm,
        begin: Callable[[], Run],
        surroundings: Callable[[], Surroundings],
    ) -> None:
        self._loop = loop
        self._realm = realm
        self._begin = begin
        self._surroundings = surroundings
        self._added: deque[tuple[Task, Surroundings]] = deque()
        self._posted = False
        self._run: Run | None = None
        self._used = False  # since the last look

    def add(self, call: Call, place: int) -> None:
        """Start a call soon; from any thread."""
        task = Task(call, self._realm)
        task.place = place
        task.asked = True
        call.task = task
        self._added.append((task, self._surroundings()))
        if not self._posted:
            self._posted = True
            self._loop.post(self._take)

    def _take(self) -> None:
        """In the loop's thread: submit what has been added."""
        self._posted = False  # first: what is added from here on is posted again
        added = self._added
        while added:
            task, around = added.popleft()
            tasks = [task]
            while added and added[0][1] is around:
                tasks.append(added.popleft()[0])
            run = self._run
            if run is None or not run.live or run.surroundings is not around:
                self._release()
                run = self._run = self._begin()
                run.surroundings = around
                run.server = self._loop.thread
                run.remaining = 1  # so it goes on when no call is left; see `_release`
                self._loop.streams.add(self)
            self._used = True
            self._loop.submit(run, tasks)

    def look(self) -> None:
        """In the loop's thread, once a second: end the run if no call came and none is left."""
        if self._used:
            self._used = False
        elif self._run is not None and self._run.remaining == 1:
            self._loop.streams.discard(self)
            self._release()

    def _release(self) -> None:
        """Let the run end with its last call."""
        run, self._run = self._run, None
        if run is not None and run.live:
            run.remaining -= 1
            self._loop.submit(run, ())


__all__ = ["Stream"]
