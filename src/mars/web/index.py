"""What the page knows of calls: those that have ended, from the table, and those that have not.

It is only brought up to date while somebody looks, and for a small part of the time: decoding rows
takes the interpreter from the program. It then lags a little behind a flood of tiny calls, and
every view is told by how much.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from mars.calls.maps import MapCall
from mars.engine import Engine, Run
from mars.observe.attempts import Rows
from mars.observe.forecast import Kind
from mars.observe.observation import EndedAttempt, each_attempt, each_link
from mars.sessions.session import Session
from mars.settings import (
    PAGE_FREE_SHARE,
    PAGE_LATE_S,
    PAGE_LISTED,
    PAGE_ROWS,
    PAGE_SCAN_S,
    PAGE_SHARE,
    PAGE_STEP_ROWS,
    PAGE_TICK_S,
)
from mars.task import Call, Realm, Task

FUNCTION: Final = attrgetter("function.name")

_CONTENDED: Final = 2.0
"""A look that takes so many times its own processor time waits for others, and they for it."""

_FEW: Final = 20
"""So many attempts are looked at in any case: slow calls shall be told of when they end."""


def is_flood(unread: int) -> bool:
    """Whether calls end faster than they are read, by how many that have ended are unread."""
    return unread > PAGE_STEP_ROWS


class Shape(NamedTuple):
    """What a run consists of, which does not change while it goes on.

    Attributes
    ----------
    functions : Counter of str
        How many calls of each function there are.
    maps : bool
        Whether some are maps.
    arrows : Counter of (str, str)
        How often a function reads values of a function: the one that is read, and the reader.
    outside : Counter of str
        Values from outside the run that are read, by function.
    """

    functions: Counter[str]
    maps: bool
    arrows: Counter[tuple[str, str]]
    outside: Counter[str]


class Watched:
    """The calls of one run, so that their logs can be read and they can be cancelled.

    While the run goes on, the engine holds its calls anyway. From the next look on they are held
    weakly: a call that the program lets go of is gone here, too. That costs 0.3 us a call, so it is
    not done in the engine's thread.
    """

    __slots__ = (
        "_by_key", "_calls", "_ended", "_run", "_tasks", "counted", "shape", "total"
    )  # fmt: skip

    def __init__(self, run: Run, calls: Sequence[Call]) -> None:
        self._calls: list[Call] | None = list(calls)
        self.total = len(calls)
        self._tasks: list[weakref.ref[Task]] = []
        self._by_key: dict[str, weakref.ref[Task]] | None = None
        self.shape: Shape | None = None  # once somebody has looked at it
        self._ended = 0  # calls before this one have ended
        self.counted = 0  # calls before this one have been counted; -1: all have
        self._run = run

    def is_of(self, run: Run) -> bool:
        """Whether these are the calls of a run."""
        return run is self._run

    def settle(self) -> None:
        """Hold the calls weakly, if the run has ended and they were counted."""
        calls = self._calls
        if calls is not None and self.counted < 0 and self._run.ended:
            found = (call.task_in(self._run.realm) for call in calls)
            self._tasks = [weakref.ref(task) for task in found if task is not None]
            self._calls = None

    def calls(self) -> list[Call]:
        """All that are still there. Whoever asks must not change the list."""
        if self._calls is not None:
            return self._calls
        return [task.call for one in self._tasks if (task := one()) is not None]

    def to_count(self, most: int) -> list[Call]:
        """The next calls that have not been counted yet."""
        calls = self._calls or []
        begin = self.counted
        self.counted = begin + most if begin + most < len(calls) else -1
        return calls[begin : begin + most]

    def unended(self) -> Iterator[Call]:
        """The calls of a run that goes on from the first on that has not ended."""
        calls = self._calls
        if calls is None or self._run.ended:
            return
        realm, at = self._run.realm, self._ended
        while at < len(calls) and (task := calls[at].task_in(realm)) is not None and task.finished:
            at += 1
        self._ended = at  # those before it are not looked at again
        yield from itertools.islice(calls, at, None)

    @property
    def only_done(self) -> int | None:
        """How many calls have ended, if all of these have a value of this run.

        None: some have ended otherwise, or the run is over.
        """
        run = self._run
        plain = not (run.ended or run.failed or run.withdrawn or run.reused or run.cancelled)
        return run.done if plain and run.total == self.total else None

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._run.ended

    @property
    def run(self) -> int:
        """The number of the run; 0: the engine has not taken it yet."""
        return self._run.number

    def find(self, key: str) -> Call | None:
        """The call with a key, if it is one of these and still there."""
        if self._calls is not None:
            return next((call for call in self.calls() if call.key == key), None)
        if self._by_key is None:
            self._by_key = {
                task.call.key: one for one in self._tasks if (task := one()) is not None
            }
        one = self._by_key.get(key)
        task = None if one is None else one()
        return None if task is None else task.call


class Index:
    """Calls of an engine, for the page.

    Parameters
    ----------
    engine : Engine
        The engine.

    Attributes
    ----------
    rows : deque of EndedAttempt
        The newest attempts that have ended, oldest first.
    kinds : dict of str to Kind
        By function: how many calls there are, and how long they took.
    failed : dict of str to EndedAttempt
        By the key of a call: its last attempt, if that did not end with a value.
    functions : dict of str to str
        By the name of a call: its function.
    taken : int
        How many attempts have come into ``rows``.
    seen : int
        How many rows of the table have been looked at.
    behind : int
        How many have not.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._watched: list[Watched] = []
        self.rows: deque[EndedAttempt] = deque(maxlen=PAGE_ROWS)
        self.kinds: dict[str, Kind] = {}
        self.failed: dict[str, EndedAttempt] = {}
        self.runs: dict[int, tuple[str, int, int, float, float | None]] = {}
        self.functions: dict[str, str] = {}
        self.taken = 0
        self.seen = 0
        self.behind = 0
        self.cores = engine.n_cpu
        self._counted: set[int] = set()  # runs whose calls are in `Kind.total`, or will be
        self._to_count: list[Watched] = []
        self._held: dict[str, weakref.ref[Task]] = {}
        self._held_at = self._held_until = -PAGE_SCAN_S
        self._linked = 0
        self._reads: dict[int, tuple[int, ...]] = {}
        self._waited: dict[int, float] = {}
        self._rest_used_s = self._rest_until = 0.0
        self._part: tuple[Iterator[EndedAttempt], int] | None = None  # that is being looked at

    def begin_late(self, session: Session) -> None:
        """Watch a session that has run calls already."""
        runs = session.runs
        runs.watcher = self.watch
        for run, calls in list(runs.under_way.items()):
            if not any(one.is_of(run) for one in list(self._watched)):
                self.watch(run, calls)

    def watch(self, run: Run, calls: Sequence[Call]) -> None:
        """Remember the calls of a run that begins."""
        one = Watched(run, calls)
        with self._lock:
            self._settle()
            self._to_count.append(one)
        if len(self._watched) >= PAGE_LISTED:  # a loop of small runs: the oldest are let go
            self._watched = self._watched[PAGE_LISTED // 2 :]
        self._watched.append(one)

    def advance(self, budget_s: float) -> None:
        """Look at attempts that have ended since, for about so long."""
        with self._lock:
            self._count()  # before: rows of runs that are not counted are counted one by one
            until = time.perf_counter() + budget_s
            while self._step():
                self.behind = PAGE_STEP_ROWS  # at least; nobody knows how many more
                if time.perf_counter() > until:
                    break
            else:
                self.behind = 0
            self._settle()

    def keep_up(self, ended: int, known: bool) -> None:
        """Look at attempts that have ended since, while calls run: as much as costs them little.

        Where the interpreter or the cores are wanted by others it stops, and rests until the
        program has had enough processor time since. A flood of tiny calls on a busy machine is
        thus left alone, although by the clock much time goes by.

        Parameters
        ----------
        ended : int
            How many attempts have ended.
        known : bool
            Whether all runs are known. If not, it looks in any case.
        """
        if known and self.seen >= ended and not self._to_count:
            return
        resting = time.process_time() < self._rest_used_s and time.monotonic() < self._rest_until
        if known and resting and ended - self.seen > _FEW:
            return
        with self._lock:
            began, used_s = time.perf_counter(), time.thread_time()
            free = True
            while free:
                counted = self._count(20 * PAGE_STEP_ROWS)
                more = (self.seen < ended or not known) and self._step()
                known = True
                if not more and not counted:
                    break
                took_s = time.perf_counter() - began
                free = took_s <= _CONTENDED * (time.thread_time() - used_s)
                if took_s > PAGE_FREE_SHARE * PAGE_TICK_S:
                    break
            if not free:
                had_s = time.thread_time() - used_s
                self._rest_used_s = time.process_time() + had_s / PAGE_SHARE
                self._rest_until = time.monotonic() + PAGE_LATE_S

    def _step(self) -> bool:
        """Look at some more attempts; whether there were any."""
        if self._part is None:
            part = self._engine.table(self.seen, PAGE_STEP_ROWS)
            self.runs, self.cores = part.runs, part.cores
            self._follow(part)
            if part.next <= self.seen or not part.pieces:
                self.seen = max(self.seen, part.next)
                return False
            self._part = each_attempt(part, self._waited), part.next
        # What a worker has told at once comes at once, and may be thousands.
        rows, following = self._part
        before = self.taken
        for one in itertools.islice(rows, PAGE_STEP_ROWS):
            self._take(one)
        if self.taken - before < PAGE_STEP_ROWS:
            self._part, self.seen = None, following
        return True

    def _settle(self) -> None:
        for one in self._watched:
            one.settle()

    def _count(self, most: int | None = None) -> bool:
        """Count calls of new runs by function, so many at most, or all; whether there were any."""
        some = False
        while self._to_count and (self._to_count[0].run or self._to_count[0].over):
            one = self._to_count[0]
            if one.counted == 0:  # before its rows are: else they would be counted twice
                if len(self._counted) > PAGE_ROWS:  # of runs long gone
                    self._counted.clear()
                self._counted.add(one.run)
            some = True
            calls = one.to_count(PAGE_ROWS if most is None else most)
            if one.counted < 0:
                del self._to_count[0]
            for name, count in Counter(map(FUNCTION, calls)).items():
                self._kind(name).total += count
            for call in [
                one for one in calls if one.options.name is not None or type(one) is not Call
            ]:
                if call.options.name is not None and len(self.functions) < PAGE_ROWS:
                    self.functions[call.name] = call.function.name
                if isinstance(call, MapCall):
                    self._kind(call.function.name).total += call.count - 1
            if most is not None:
                break
        return some

    @property
    def uncounted(self) -> bool:
        """Whether there are calls that have not been counted yet."""
        return bool(self._to_count)

    def _kind(self, name: str) -> Kind:
        kind = self.kinds.get(name)
        if kind is None:
            kind = self.kinds[name] = Kind(name)
        return kind

    def _take(self, one: EndedAttempt) -> None:
        self.rows.append(one)
        self.taken += 1
        kind = self._kind(one.function)
        key = one.call if one.size == 1 else f"{one.call}-{one.number}"
        before = kind.done + kind.failed
        if one.ending == "value":
            if self.failed.pop(key, None) is not None:
                kind.failed -= one.size
            kind.done += one.size
        elif one.ending != "lost":
            if key not in self.failed:
                kind.failed += one.failed_items or one.size
                kind.done += one.size - (one.failed_items or one.size)
            if len(self.failed) < PAGE_LISTED or key in self.failed:
                self.failed[key] = one
        # Of runs that began before anybody watched, or are nested; others are counted, maybe later.
        if one.run not in self._counted and all(run.run != one.run for run in self._to_count):
            kind.total += max(0, kind.done + kind.failed - before)
        if one.times is not None:
            kind.took(one.times.running_s / one.size, one.size)

    def _follow(self, part: Rows) -> None:
        """Note the links that are new."""
        if len(part.links) < self._linked:  # the older half was let go
            self._linked = 0
            self._reads, self._waited = {}, {}
        for serial, waited_s, inputs in each_link(part, self._linked):
            self._reads[serial] = inputs
            self._waited[serial] = waited_s
        self._linked = len(part.links)

    def latest(self) -> list[EndedAttempt]:
        """The attempts that are kept, oldest first."""
        return self.since(0)[0]

    def since(self, cursor: int) -> tuple[list[EndedAttempt], int]:
        """Attempts that are kept from a cursor on, oldest first, and the cursor for the next time.

        Parameters
        ----------
        cursor : int
            The one of an earlier time; 0: all that are kept.
        """
        with self._lock:
            count = max(0, self.taken - cursor)
            if count >= len(self.rows):
                return list(self.rows), self.taken
            return list(itertools.islice(reversed(self.rows), count))[::-1], self.taken

    def find(self, key: str) -> Call | None:
        """The call with a key; None: it is unknown, or the program holds it no more."""
        for one in reversed(self._watched):
            found = one.find(key)
            if found is not None:
                return found
        scanned = self._scanned().get(key)
        task = None if scanned is None else scanned()
        return None if task is None else task.call

    def held(self, realm: Realm) -> list[Task]:
        """The tasks of a session whose calls the program holds, those of `put` among them."""
        found = (one() for one in list(self._scanned(0.0).values()))
        return [task for task in found if task is not None and task.realm is realm]

    def _scanned(self, old_s: float = PAGE_SCAN_S) -> dict[str, weakref.ref[Task]]:
        """All calls that there are, by key, also those of runs that ended before anybody watched.

        To note each call as it comes would cost every program something. The collector of garbage
        knows them anyway, and is asked when somebody looks, if it was asked more than ``old_s``
        seconds ago, and for a small part of the time.
        """
        with self._lock:
            now = time.monotonic()
            if now >= max(self._held_until, self._held_at + old_s):
                calls = [one for one in gc.get_objects() if issubclass(type(one), Call)]
                self._held = {
                    call.key: weakref.ref(task)
                    for call in calls
                    for task in _tasks_of(call)
                    if task.realm.engine is self._engine  # type: ignore[attr-defined]
                }
                took_s = time.monotonic() - now
                self._held_at = now
                self._held_until = now + 31 * took_s
            return self._held

    def calls_of(self, run: int) -> Iterator[Call]:
        """The calls of a run that the program holds; none if nobody watched it."""
        return itertools.chain.from_iterable(
            one.calls() for one in list(self._watched) if one.run == run
        )

    def run_of(self, run: int) -> Watched | None:
        """The calls of a run; None: nobody watched it."""
        return next((one for one in list(self._watched) if one.run == run), None)

    def watched_runs(self) -> list[int]:
        """The numbers of the runs whose calls are known; 0: the engine has not taken one yet."""
        return [one.run for one in list(self._watched)]

    def reads(self) -> dict[int, tuple[int, ...]]:
        """By the serial of a call that has begun: those of its inputs, all as their low 32 bits.

        It also brings `runs` up to date, which `keep_up` does only when attempts have ended.
        """
        with self._lock:
            part = self._engine.table(self.seen, 1)
            self.runs = part.runs
            self._follow(part)
            return self._reads

    def unended(self) -> Iterator[Call]:
        """The calls of runs that go on, with some that have ended."""
        return itertools.chain.from_iterable(one.unended() for one in list(self._watched))


def _tasks_of(call: Call) -> Iterator[Task]:
    task = call.task
    while task is not None:
        yield task
        task = task.elsewhere


__all__ = ["FUNCTION", "Index", "Shape", "Watched", "is_flood"]
