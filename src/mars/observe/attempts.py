"""When an attempt went through its stages, where it ran, and the table of attempts that have ended.

Whoever hears that an attempt has ended notes it: the scheduler, or the inline engine. It does so in
the task, for `Object.attempts`, and in the engine's table `Attempts`, for all views of attempts. On
one machine the clocks of the program and its workers are one, the machine's monotonic clock. Pure.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import struct
from array import array
from typing import Any, Final, NamedTuple

from mars.settings import ATTEMPTS_KEPT, RUNS_KEPT
from mars.task import MEASURED, TIMING, Task

NOTED: Final = struct.Struct("<QQIIIIBIIIddd")
"""What the engine knows of an attempt: its number, the call's serial, its label, run and worker,
tries before it, how it ended (a place in `ENDINGS`), calls that it counts for, items that raised,
bytes that it printed, and when it was queued, ready and sent (seconds)."""

ROW: Final = struct.Struct(NOTED.format + MEASURED.format.removeprefix("<"))
"""A row of the table: `NOTED`, then what the worker has measured."""

ENDINGS: Final = ("value", "error", "stopped", "died", "lost", "unknown")
VALUE, ERROR, STOPPED, DIED, LOST, UNKNOWN = range(6)

_NOTHING: Final = (-1, 0, 0, 0.0, 0)  # what follows `TIMING` in `MEASURED` if nobody has measured
_NEVER: Final = MEASURED.pack(0, 0, 0, 0, 0, *_NOTHING)
_FEW_BYTES: Final = 2**32 - 1


class Times(NamedTuple):
    """Eight moments of an attempt, in seconds of the program's `time.monotonic`.

    What a worker on another host saw is put into the program's time. That is wrong by half of the
    time that a message takes there and back, at the most; so there a call may seem to have been
    received a moment before it was sent.

    Attributes
    ----------
    queued : float
        Its run was submitted.
    ready : float
        All inputs were there. A call that is sent behind its inputs is sent before that.
    sent : float
        It was sent to a worker.
    received : float
        The worker took it from its queue.
    decoded : float
        Its function, inputs and arguments were there as objects.
    called : float
        The function was called.
    returned : float
        The function returned, or raised.
    stored : float
        The result was kept.
    """

    queued: float
    ready: float
    sent: float
    received: float
    decoded: float
    called: float
    returned: float
    stored: float

    @property
    def waiting_s(self) -> float:
        """Seconds from queued to received."""
        return self.received - self.queued

    @property
    def running_s(self) -> float:
        """Seconds that the function ran."""
        return self.returned - self.called


class Attempt(NamedTuple):
    """One attempt of a call that has ended.

    Attributes
    ----------
    node : str
        Name of the host; on a cluster with the node's address, as ``two (tls://10.0.0.3:41119)``.
    worker : int
        Process id of the worker there.
    ending : str
        ``"value"``, ``"error"``, ``"stopped"`` (by a timeout or a cancel), ``"died"`` (its worker
        did), ``"lost"`` (its value, with its node, before the program had it) or ``"unknown"``
        (its node was lost while it was queued there, so nobody knows whether it has begun).
    """

    node: str
    worker: int
    ending: str


class Label(NamedTuple):
    """What the attempts of many calls have in common."""

    name: str  # of the call
    function: str
    cpus: float


class Rows(NamedTuple):
    """A part of the table of attempts as one moment had it; `mars.observe.observation` decodes it.

    Attributes
    ----------
    first : int
        The number of the first row: how many have been noted before it.
    data : bytes
        The rows, each as `ROW`.
    labels : list of Label or None
        By their numbers.
    workers : dict
        By the worker's number: address of its group, node, process id, and when its process was
        asked for and was ready, in seconds; None: not known.
    edges : array
        Pairs: the serial of a call and that of one of its inputs, the low 32 bits of each.
    runs : dict
        By the run's number: its session, how deep it is nested, the number of the attempt that
        asked for it (0: the program), when it began and ended (None: it has not), in seconds.
    folded : dict
        What is left of rows before the oldest that is kept, by function: attempts, calls, failed
        attempts, seconds that the function ran, seconds of processor time.
    missed : int
        Rows that were asked for and are not kept any more.
    next : int
        The cursor for the next time.
    now : float
        When this was, in seconds.
    cores : float
        Cores of the engine.
    """

    first: int
    data: bytes
    labels: "list[Label | None]"
    workers: "dict[int, tuple[str, str, int, float | None, float | None]]"
    edges: "array[int]"
    runs: "dict[int, tuple[str, int, int, float, float | None]]"
    folded: "dict[str, tuple[int, int, int, float, float]]"
    missed: int
    next: int
    now: float = 0.0
    cores: float = 1.0


class Attempts:
    """The table of one engine: attempts that have ended, in the order of their ends.

    To note an attempt is on the path of each call, and most programs never look. So a row is packed
    and appended, and is decoded when somebody asks. Only the engine's thread changes it. Benchmarks
    `scheduler_alone` and `table_of_attempts` show what that costs.

    Parameters
    ----------
    limit : int
        So many rows are kept. Older ones are summed up by function.

    Attributes
    ----------
    rows : bytearray
        The rows that are kept, each as `ROW`.
    folded_rows : int
        Rows that were summed up.
    folded : dict
        By function: the sums, as in `Rows`.
    workers : dict
        By number: the state of a worker, and when its process was asked for and was ready.
    runs : dict
        By number: what `Rows.runs` has.
    """

    __slots__ = (
        "_chunk", "_full", "_label_of", "_labels", "_limit", "edges", "folded", "folded_rows",
        "rows", "runs", "workers",
    )  # fmt: skip

    def __init__(self, limit: int = ATTEMPTS_KEPT) -> None:
        self.rows = bytearray()
        self.edges = array("I")
        self.folded: dict[str, list[Any]] = {}
        self.folded_rows = 0
        self.workers: dict[int, list[Any]] = {}
        self.runs: dict[int, list[Any]] = {}
        self._labels: list[Label | None] = []
        self._label_of: dict[Any, int] = {}
        self._limit = limit
        self._chunk = max(1, limit // 128)  # so many are summed up at once: 1 us each
        self._full = (limit + self._chunk) * ROW.size

    @property
    def count(self) -> int:
        """All that have been noted."""
        return self.folded_rows + len(self.rows) // ROW.size

    def note(
        self,
        task: Task,
        worker: int,
        ending: int,
        timing: bytes | None = None,
        log: Any = None,
        failed_items: int = 0,
        ended: float = 0.0,
    ) -> None:
        """Record that an attempt has ended, before that changes its task.

        Parameters
        ----------
        task : Task
            It has the number of the attempt, and how many tries were before it.
        worker : int
            Number of the worker.
        ending : int
            A place in `ENDINGS`.
        timing : bytes, optional
            What the worker has measured, as `MEASURED`, or only the times.
        log : Log, optional
            What the attempt has printed.
        failed_items : int, default 0
            Of a block of a map: items that raised.
        ended : float, default 0
            When the attempt ended, in seconds, if the worker could not tell.
        """
        call = task.call
        whole = task.source or task
        runs = whole.runs
        options = call.options
        tries = task.tries + task.deaths
        # Most calls have no name of their own, and are told apart by their function and its cores.
        if options.name is None and options.cpus == 1:
            key: Any = call.function.name
        else:
            key = options.name, call.function.name, options.cpus
        label = self._label_of.get(key)
        if label is None:
            label = self._new_label(key, call.name, call.function.name, options.cpus)
        if timing is None:
            timing = _NEVER if not ended else MEASURED.pack(0, 0, 0, 0, int(ended * 1e9), *_NOTHING)
        elif len(timing) != MEASURED.size:
            timing = MEASURED.pack(*TIMING.unpack_from(timing), *_NOTHING)
        rows = self.rows
        rows += NOTED.pack(
            task.attempt, call.serial, label, runs[0].number if runs else 0, worker, tries, ending,
            task.size, failed_items, 0 if log is None else min(log.size(), _FEW_BYTES),
            whole.queued_at, whole.ready_at, task.sent_at,
        ) + timing  # fmt: skip
        if call.inputs and not tries:
            serial = call.serial & _FEW_BYTES
            for source, _ in call.inputs:
                of = source.whole or source
                self.edges.extend((serial, of.serial & _FEW_BYTES))
        if len(rows) >= self._full:
            self._fold()

    def _new_label(self, key: Any, name: str, function: str, cpus: float) -> int:
        label = self._label_of[key] = len(self._labels)
        self._labels.append(Label(name, function, cpus))
        return label

    def run_began(self, number: int, session: str, depth: int, asker: int, now: float) -> None:
        """Record that a run begins; ``asker`` is the attempt that asked for it, 0: the program."""
        runs = self.runs
        runs[number] = [session, depth, asker, now, None]
        if len(runs) > RUNS_KEPT:
            del runs[next(iter(runs))]

    def run_ended(self, number: int, now: float) -> None:
        """Record that a run has ended."""
        if number in self.runs:
            self.runs[number][4] = now

    def _fold(self) -> None:
        """Sum up the oldest rows, and let go of them."""
        count = self._chunk
        with memoryview(self.rows) as view:
            oldest = bytes(view[: count * ROW.size])
        del self.rows[: count * ROW.size]
        self.folded_rows += count
        folded = self.folded
        for row in ROW.iter_unpack(oldest):
            label = self._labels[row[2]]
            name = label.function if label is not None else ""
            sums = folded.get(name)
            if sums is None:
                if len(folded) > RUNS_KEPT:
                    name = "(others)"
                sums = folded.setdefault(name, [0, 0, 0, 0.0, 0.0])
            seconds = (row[16] - row[15]) * 1e-9
            sums[0] += 1
            sums[1] += row[7]
            sums[2] += row[6] != VALUE
            sums[3] += seconds
            sums[4] += row[18] * 1e-9 if row[18] >= 0 else seconds
        if len(self.edges) > 8 * self._limit:
            del self.edges[: 4 * self._limit]
        if len(self._label_of) > self._limit:
            self._forget_labels()

    def _forget_labels(self) -> None:
        """Let go of labels that no row has; a program may name each of its calls."""
        used = {row[2] for row in ROW.iter_unpack(bytes(self.rows))}
        self._label_of = {key: label for key, label in self._label_of.items() if label in used}
        for number in range(len(self._labels)):
            if number not in used:
                self._labels[number] = None

    def since(self, cursor: int, limit: int | None = None) -> Rows:
        """Rows noted after the first ``cursor`` ones, as far as they are kept.

        Parameters
        ----------
        cursor : int
            `Rows.next` of an earlier time; 0: all that are kept.
        limit : int, optional
            At most so many, the oldest of them. Default: all.
        """
        count = self.count
        first = min(max(cursor, self.folded_rows), count)
        end = count if limit is None else min(first + limit, count)
        size = ROW.size
        before = self.folded_rows
        with memoryview(self.rows) as view:
            data = bytes(view[(first - before) * size : (end - before) * size])
        return Rows(
            first,
            data,
            self._labels.copy(),
            {
                number: (state.address, *state.where, asked, ready)
                for number, (state, asked, ready) in self.workers.items()
            },
            self.edges[:],
            {number: tuple(run) for number, run in self.runs.items()},
            {name: tuple(sums) for name, sums in self.folded.items()},
            max(0, self.folded_rows - cursor),
            end,
        )


def attempts_of(task: Task) -> list[Attempt]:
    """The attempts of a task that have ended, first to last; none if a checkpoint had it.

    Parameters
    ----------
    task : Task
        Of an item of a map: the item's own.
    """
    return [Attempt(*one) for one in task.attempts()]


def times_of(task: Task) -> Times | None:
    """The moments of a task's last attempt; None before it has ended."""
    if task.timing is None:
        return None
    block = task if task.source is None else task.source
    there = [moment * 1e-9 for moment in TIMING.unpack_from(task.timing)]
    return Times(block.queued_at, block.ready_at, task.sent_at or there[0], *there)
