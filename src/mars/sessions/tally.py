"""Counts the calls of one run for those who watch it: by name, with times, and what runs or failed.

The thread that waits for the run asks `Tally.progress` now and then. A look goes over the calls
that had not ended at the last one. With many calls that takes a while, so looks become rarer then.
Nothing is counted for a run that nobody watches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mars.calls.maps import MapCall
from mars.engine import Engine, Run, SessionRealm
from mars.engines.outcome import never_again
from mars.observe.forecast import Active, Kind, time_left
from mars.observe.progress import KindFacts, Progress
from mars.settings import TALLY_FAILURES, TALLY_SHARE
from mars.task import TIMING, Call, Stage, Task


class _Left:
    """A call of the run that had not ended at the last look."""

    __slots__ = ("call", "kind", "name", "seen", "total")

    def __init__(self, name: str, call: Call, kind: Kind) -> None:
        self.name, self.call, self.kind = name, call, kind
        self.seen = 0  # of a map: its blocks that have been looked at
        self.total = 0  # of a map: the items that this run has to run


class Tally:
    """What is known of a run.

    Parameters
    ----------
    run : Run
        The run.
    realm : SessionRealm
        Its session.
    named : sequence of (str, Call)
        The calls of the run, with the names that people know them by.
    before : mapping of Call to Task
        What earlier runs have left of them.
    clock : callable, default `time.monotonic`
        Seconds.
    """

    def __init__(
        self,
        run: Run,
        realm: SessionRealm,
        named: Sequence[tuple[str, Call]],
        before: Mapping[Call, Task],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._realm, self._clock = run, realm, clock
        self._engine: Engine = realm.engine
        self._before = before
        self._kinds: dict[str, Kind] = {}
        self._names = {call.key: name for name, call in named}
        self._kind_of: dict[str, Kind] = {}
        self._left = [self._begin(name, call) for name, call in named]
        self._failures: list[str] = []
        self._look_at = 0.0

    def _begin(self, name: str, call: Call) -> _Left:
        kind = self._kinds.get(call.name)
        if kind is None:
            kind = self._kinds[call.name] = Kind(call.name)
        self._kind_of[call.key] = kind
        if not isinstance(call, MapCall):
            kind.total += 1
        return _Left(name, call, kind)

    def progress(self, final: bool = False) -> Progress:
        """How far the run is now.

        Parameters
        ----------
        final : bool, default False
            The run has ended: what is left to count is counted.
        """
        run, now = self._run, self._clock()
        elapsed_s = now - run.started_at
        if final or now >= self._look_at:
            self._count()
            self._look_at = now + (self._clock() - now) / TALLY_SHARE
        active = [] if final else self._active()
        kinds = [
            KindFacts(one.name, one.total, one.done, one.failed, one.mean_s)
            for one in self._kinds.values()
        ]
        return Progress(
            run.total,
            run.done,
            run.failed,
            len(active),
            elapsed_s,
            (0.0, 0.0) if final else time_left(self._kinds.values(), active, elapsed_s),
            run.partial_sum(),
            run.reused,
            run.saved_s,
            active=tuple([(one.name, one.elapsed_s) for one in active]),
            failures=tuple(self._failures),
            kinds=tuple(kinds),
        )

    def _active(self) -> list[Active]:
        """What runs now, the longest running first."""
        seen = self._engine.observe()
        number = self._run.number
        found = []
        for worker in seen.workers:
            if number not in worker.runs or not worker.attempt:
                continue
            part = 0.0
            if number in worker.runs and worker.progress:
                part = worker.progress[worker.runs.index(number)] or 0.0
            name = self._names.get(worker.call, worker.name)
            if worker.items is not None:
                first, count = worker.items
                name = f"{name} {first}" if count == 1 else f"{name} {first}…{first + count - 1}"
            found.append(
                Active(
                    name,
                    max(0.0, seen.now - worker.sent) if worker.sent else 0.0,
                    self._kind_of.get(worker.call),
                    1 if worker.items is None else worker.items[1],
                    part,
                )
            )
        return sorted(found, key=lambda one: -one.elapsed_s)

    def _count(self) -> None:
        """Count the calls that have ended since the last look."""
        self._left = [one for one in self._left if not self._has_ended(one)]

    def _has_ended(self, one: _Left) -> bool:
        task = one.call.task_in(self._realm)
        if task is None or task is self._before.get(one.call):
            return False  # the engine has not begun with it
        if isinstance(one.call, MapCall):
            over = never_again(task)
            self._count_blocks(one, task)
            return over
        if task.stage < Stage.MADE:
            return False
        if task.stage is Stage.FAILED:
            one.kind.failed += 1
            self._note_failure(one.name)
        elif task.stage in (Stage.DONE, Stage.MADE):
            one.kind.done += 1
        if task.timing is not None:
            one.kind.took(_took(task))
        return True

    def _count_blocks(self, one: _Left, whole: Task) -> None:
        known = one.total
        blocks: list[Task] = whole.parts[one.seen :]
        one.seen += len(blocks)
        blocks = [block for block in blocks if block.source is whole]  # of this run
        if whole.size:  # it is 0 once all items have ended
            one.total = whole.size
        elif not known:
            one.total = sum(len(block.items) for block in blocks)
        one.kind.total += one.total - known
        for block in blocks:
            size = len(block.items)
            if block.stage is Stage.DONE:
                failed = [block.items[offset] for offset in block.result[1]]
            else:
                failed = list(block.items)
            one.kind.done += size - len(failed)
            one.kind.failed += len(failed)
            for index in failed:
                self._note_failure(f"{one.name} {index}")
            if block.timing is not None and size:
                one.kind.took(_took(block) / size, size)

    def _note_failure(self, name: str) -> None:
        if len(self._failures) < TALLY_FAILURES:
            self._failures.append(name)


def _took(task: Task) -> float:
    """Seconds that the function of a task ran."""
    assert task.timing is not None
    _, _, called, returned, _ = TIMING.unpack(task.timing)
    return max(0.0, float(returned - called) * 1e-9)


__all__ = ["Tally"]
