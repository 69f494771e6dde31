"""When an attempt went through its stages, where it ran, and the table of attempts that have ended.

Whoever hears that an attempt has ended notes it: the scheduler, or the inline engine. It does so in
the task, for `Object.attempts`, and in the engine's table `Attempts`, for all views of attempts. On
one machine the clocks of the program and its workers are one, the machine's monotonic clock. Pure.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from mars.settings import ATTEMPTS_KEPT, RUNS_KEPT
from mars.task import RECORD, TIMING, Call, Task

ENDINGS: Final = ("value", "error", "stopped", "died", "lost", "unknown")
VALUE, ERROR, STOPPED, DIED, LOST, UNKNOWN = range(6)

NOTED: Final = 200
"""In place of a worker's status: what the engine noted itself; `NOTED` and a place in `ENDINGS`.
Then items that raised stand where the log starts."""

SMALL_RESULT: Final = 16
"""Results of up to so many bytes are kept in the table, because it costs more to cut them out."""

_LOW: Final = 2**32 - 1
_SIZE: Final = struct.Struct("<I")
_NONE: Final = _SIZE.pack(0)
_LABELLED: Final = 1 << 31  # above are labels of calls with a name or cores of their own


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
    gpus: float = 0


class Rows(NamedTuple):
    """A part of the table of attempts as one moment had it; `mars.observe.observation` decodes it.

    Attributes
    ----------
    first : int
        The number of the first row: how many have been noted before it.
    data : bytes
        Rows, each as `mars.engines.wire.messages.RECORD` with what follows it.
    pieces : list of (int, int)
        What the rows came in: how many there are, and the number of the worker.
    labels : dict
        By their numbers.
    changes : dict
        By attempt: how it ended in truth, and items that raised.
    dropped : dict
        By attempt: from which row on what a worker tells of it does not count.
    sent : sequence of (int, float)
        From which attempt on calls were sent at which moment.
    workers : dict
        By the worker's number: address of its group, node, process id, when its process was asked
        for and was ready, in seconds (None: not known), and nanoseconds that its clock is ahead.
    links : bytes
        Of calls with inputs: serial, seconds from queued to ready, number of inputs, and the serial
        of each input; `LINK`, then as many ``<I``. Serials are their low 32 bits.
    runs : dict
        By the run's number: its session, how deep it is nested, the number of the attempt that
        asked for it (0: the program), when it began and ended (None: it has not), in seconds.
    folded : dict
        What is left of rows before the oldest that is kept, by function: attempts, calls, failed
        attempts, seconds that the function ran, seconds of processor time.
    held : frozenset of int
        Serials of calls that could not start because of memory, although a worker was free.
    on_gpus : dict
        By attempt: bytes that it had on GPUs at most, and how far it used them, 0 to 1.
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
    pieces: list[tuple[int, int]]
    labels: dict[int, Label]
    changes: dict[int, tuple[int, int]]
    dropped: dict[int, int]
    sent: tuple["array[int]", "array[float]"]
    workers: dict[int, tuple[str, str, int, float | None, float | None, int]]
    links: bytes
    runs: dict[int, tuple[str, int, int, float, float | None]]
    folded: dict[str, tuple[int, int, int, float, float]]
    held: frozenset[int]
    on_gpus: dict[int, tuple[int, float]]
    missed: int
    next: int
    now: float = 0.0
    cores: float = 1.0


LINK: Final = struct.Struct("<IfH")
_ONE_LINK: Final = struct.Struct("<IfHI")


class Attempts:
    """The table of one engine: attempts that have ended, in the order of their ends.

    Most programs never look at it, and each call is noted in it. So workers measure and pack, and
    the engine appends what they tell as it came: nothing is done for a single call. What only the
    engine knows is kept beside it: when calls were sent, attempts that ended otherwise than their
    worker could know, and inputs. All is put together when somebody asks. Only the engine's thread
    changes it. The benchmark `table_of_attempts` shows what that costs.

    Parameters
    ----------
    limit : int
        About so many rows are kept. Older ones are summed up by function.

    Attributes
    ----------
    count : int
        All rows that have come.
    folded_rows : int
        Rows that were summed up.
    folded : dict
        By function: the sums, as in `Rows`.
    workers : dict
        By number: the state of a worker, and when its process was asked for and was ready.
    ahead_ns : dict
        By number of a worker on another host: how far its clock is ahead.
    runs : dict
        By number: what `Rows.runs` has.
    """

    __slots__ = (
        "_base",
        "_changes",
        "_data",
        "_dropped",
        "_held",
        "_label_count",
        "_label_of",
        "_labels",
        "_limit",
        "_links",
        "_makers",
        "_offsets",
        "_on_gpus",
        "_sent",
        "_sent_at",
        "_starts",
        "ahead_ns",
        "count",
        "folded",
        "folded_rows",
        "runs",
        "workers",
    )  # fmt: skip

    def __init__(self, limit: int = ATTEMPTS_KEPT) -> None:
        self.count = 0
        self.folded_rows = 0
        self.folded: dict[str, list[Any]] = {}
        self.workers: dict[int, list[Any]] = {}
        self.ahead_ns: dict[int, int] = {}
        self.runs: dict[int, list[Any]] = {}
        self._limit = limit
        self._data = bytearray()
        self._base = 0  # bytes that were let go before its first one
        # The pieces in which rows come: number and offset of the first row of each, and its worker.
        self._starts, self._offsets, self._makers = array("Q"), array("Q"), array("Q")
        self._sent, self._sent_at = array("Q"), array("d")
        self._links = bytearray()
        self._changes: dict[int, tuple[int, int]] = {}
        self._dropped: dict[int, int] = {}
        self._held: set[int] = set()
        self._on_gpus: dict[int, tuple[int, float]] = {}
        self._labels: dict[int, Label] = {}
        self._label_of: dict[object, int] = {}
        self._label_count = _LABELLED

    # -- what the engine notes ----------------------------------------------------------------

    def add(self, worker: int, records: bytes, count: int) -> None:
        """Take what a worker has told of so many attempts."""
        if count == 1:  # as in a round trip
            records = records[: RECORD.size - _SIZE.size] + _NONE
        elif len(records) > count * (RECORD.size + SMALL_RESULT) or count < 4:
            records = _without_results(records)
        self._starts.append(self.count)
        self._offsets.append(self._base + len(self._data))
        self._makers.append(worker)
        self._data += records
        self.count += count
        if self.count - self.folded_rows > self._limit:
            self._fold()

    def sent(self, attempt: int, now: float) -> None:
        """From this attempt on calls are sent now."""
        self._sent.append(attempt)
        self._sent_at.append(now)

    def name(self, function: int, name: str) -> None:
        """Messages call a function by this number from now on."""
        self._labels[function] = Label(name, name, 1.0)

    def label_of(self, call: Call) -> int:
        """The number of what a call is called, if that is not its function's alone."""
        options = call.options
        key = options.name, call.function.name, options.cpus, options.gpus
        label = self._label_of.get(key)
        if label is None:
            self._label_count += 1
            label = self._label_of[key] = self._label_count
            self._labels[label] = Label(call.name, call.function.name, options.cpus, options.gpus)
        return label

    def note(
        self,
        task: Task,
        worker: int,
        ending: int,
        *,
        number: int = 0,
        run: int = 0,
        timing: bytes | None = None,
        ended: float = 0.0,
        cpu_s: float = -1.0,
        log_bytes: int = 0,
        peak: int = 0,
        failed_items: int = 0,
        read_bytes: int = 0,
        written_bytes: int = 0,
    ) -> None:
        """Record an attempt of which no worker has told, before its end changes its task.

        Parameters
        ----------
        task : Task
            It has the number of the attempt, and how many tries were before it.
        worker : int
            Number of the worker.
        ending : int
            A place in `ENDINGS`.
        number, run : int, optional
            Numbers of the attempt and of the run. Default: those that the task has.
        timing : bytes, optional
            Its times, as `mars.task.TIMING`.
        ended : float, default 0
            When it ended, in seconds, if there are no times.
        cpu_s : float, default -1
            Seconds of processor time. Default: not known.
        log_bytes, peak, failed_items : int, default 0
            What it has printed, bytes of memory that it took, and items of a block that raised.
        read_bytes, written_bytes : int, default 0
            Sizes of its arguments and inputs, and of its result.
        """
        whole = task.source or task
        number = number or task.attempt
        times = (0, 0, 0, 0, int(ended * 1e9)) if timing is None else TIMING.unpack(timing)
        record = RECORD.pack(
            number, NOTED + ending, 0, failed_items, log_bytes, *times, peak // 1024,
            cpu_s, float(read_bytes), float(written_bytes), 0.0,
            task.call.serial, run or (whole.runs[0].number if whole.runs else 0),
            self.label_of(task.call), max(task.size, 1), min(task.tries + task.deaths, 65_535),
            0, 0,
        )  # fmt: skip
        self.add(worker, record, 1)

    def stopped(self, attempt: int) -> None:
        """An attempt whose worker has told that it raised was stopped."""
        self._changes[attempt] = STOPPED, 0

    def on_gpus(self, attempt: int, memory: int, share: float) -> None:
        """What an attempt did with its GPUs: bytes that it had, and the part of its time in use."""
        self._on_gpus[attempt] = memory, share

    def failed_items(self, attempt: int, count: int) -> None:
        """So many items of a block raised."""
        self._changes[attempt] = ERROR, count

    def drop(self, attempt: int, again: bool) -> None:
        """What a worker has just told of an attempt does not count.

        ``again``: it has told it before, and that counts.
        """
        if attempt not in self._dropped:
            self._dropped[attempt] = self._starts[-1] if again and self._starts else 0

    def link(self, task: Task) -> None:
        """Record what a call has read, and when that was there."""
        call = task.call
        waited_s = task.ready_at - task.queued_at if task.ready_at else -1.0
        if len(call.inputs) == 1:  # as the links of a chain, of which there may be many
            ((one, _),) = call.inputs
            self._links += _ONE_LINK.pack(
                call.serial & _LOW, waited_s, 1, (one.whole or one).serial & _LOW
            )
            return
        inputs = {(one.whole or one).serial & _LOW for one, _ in call.inputs}
        few = list(inputs)[:65_535]
        self._links += LINK.pack(call.serial & _LOW, waited_s, len(few)) + struct.pack(
            f"<{len(few)}I", *few
        )

    def hold_back(self, task: Task) -> None:
        """A worker is free for a call, and memory is not; it may be told again and again."""
        if len(self._held) < RUNS_KEPT:
            self._held.add(task.call.serial)

    def told(self, worker: int) -> int:
        """The last attempt whose end a worker has told, also if the worker has ended."""
        return self.workers[worker][0].told if worker in self.workers else 0

    def run_began(self, number: int, session: str, depth: int, asker: int) -> None:
        """Record whose a run is; ``asker`` is the attempt that asked for it, 0: the program."""
        runs = self.runs
        runs[number] = [session, depth, asker, 0.0, None]
        if len(runs) > RUNS_KEPT:
            del runs[next(iter(runs))]

    def run_queued(self, number: int, now: float) -> None:
        """Record when the calls of a run were queued."""
        run = self.runs.get(number)
        if run is None:
            self.run_began(number, "", 0, 0)
            run = self.runs[number]
        run[3] = run[3] or now

    def run_ended(self, number: int, now: float) -> None:
        """Record that a run has ended."""
        if number in self.runs:
            self.runs[number][4] = now

    # -- what is left of the oldest -----------------------------------------------------------

    def _fold(self) -> None:
        """Sum up the oldest rows, and let go of them."""
        from mars.engines.wire.status import RETURNED  # late: most programs never come here

        target = self.count - self._limit + self._limit // 128  # many at once: 1 us each
        pieces = min(bisect_left(self._starts, target), len(self._starts) - 1)
        if not pieces:
            return
        end = self._offsets[pieces] - self._base
        oldest = bytes(self._data[:end])
        rows = self._starts[pieces] - self.folded_rows
        changes, dropped = self._changes, self._dropped
        for fields in _records(oldest):
            status, serial_label, size = fields[1], fields[17], fields[18]
            if status == RETURNED:
                continue
            label = self._labels.get(serial_label)
            name = label.function if label is not None else ""
            if name not in self.folded and len(self.folded) > RUNS_KEPT:
                name = ""
            sums = self.folded.setdefault(name, [0, 0, 0, 0.0, 0.0])
            seconds = max(0, fields[8] - fields[7]) * 1e-9
            sums[0] += 1
            sums[1] += size
            sums[2] += status not in (0, NOTED)
            sums[3] += seconds
            sums[4] += fields[11] if fields[11] >= 0 else seconds
            if changes or dropped:
                changes.pop(fields[0], None)
                dropped.pop(fields[0], None)
            if self._on_gpus:
                self._on_gpus.pop(fields[0], None)
        self.folded_rows += rows
        del self._data[:end]
        self._base += end
        for column in (self._starts, self._offsets, self._makers):
            del column[:pieces]
        if len(self._sent) > 2 * self._limit:
            del self._sent[: self._limit], self._sent_at[: self._limit]
        if len(self._links) > 64 * self._limit + 65_536:
            self._forget_links()
        if len(self._labels) > self._limit:
            self._forget_labels()

    def _forget_links(self) -> None:
        """Let go of the older half of the links."""
        position = 0
        while position < len(self._links) // 2:
            _, _, inputs = LINK.unpack_from(self._links, position)
            position += LINK.size + 4 * inputs
        del self._links[:position]

    def _forget_labels(self) -> None:
        """Let go of labels that no row has; a program may name each of its calls."""
        used = {fields[17] for fields in _records(bytes(self._data))}
        self._label_of = {key: label for key, label in self._label_of.items() if label in used}
        newest = max(self._labels)  # it may be of a call that has not ended
        self._labels = {
            number: label
            for number, label in self._labels.items()
            if number in used or number < _LABELLED or number == newest
        }

    # -- what views read ----------------------------------------------------------------------

    def since(self, cursor: int, limit: int | None = None) -> Rows:
        """Rows noted after the first ``cursor`` ones, as far as they are kept.

        Parameters
        ----------
        cursor : int
            `Rows.next` of an earlier time; 0: all that are kept.
        limit : int, optional
            About so many, the oldest of them. Default: all.
        """
        starts, offsets, count = self._starts, self._offsets, self.count
        begin = bisect_left(starts, cursor)
        end = len(starts)
        if limit is not None and begin < end:
            end = max(begin + 1, bisect_right(starts, starts[begin] + limit) - 1)
            end = len(starts) if starts[-1] < starts[begin] + limit else end
        first = starts[begin] if begin < len(starts) else count
        last = starts[end] if end < len(starts) else count
        low = (offsets[begin] - self._base) if begin < len(starts) else len(self._data)
        high = (offsets[end] - self._base) if end < len(starts) else len(self._data)
        marks = [*starts[begin:end], last]
        with memoryview(self._data) as view:
            data = bytes(view[low:high])
        return Rows(
            first,
            data,
            [
                (marks[at + 1] - marks[at], maker)
                for at, maker in enumerate(self._makers[begin:end])
            ],
            self._labels.copy(),
            self._changes.copy(),
            self._dropped.copy(),
            (self._sent[:], self._sent_at[:]),
            {
                number: (
                    state.address, *state.where, asked, ready, self.ahead_ns.get(number, 0),
                )
                for number, (state, asked, ready) in self.workers.items()
            },
            bytes(self._links),
            {number: tuple(run) for number, run in self.runs.items()},
            {name: tuple(sums) for name, sums in self.folded.items()},
            frozenset(self._held),
            self._on_gpus.copy(),
            max(0, self.folded_rows - cursor),
            last,
        )  # fmt: skip


def _records(data: bytes) -> Iterator[tuple[int, ...]]:
    """What records have, one after the other."""
    unpack, size_of = RECORD.unpack_from, RECORD.size
    position, end = 0, len(data)
    while position < end:
        fields = unpack(data, position)
        position += size_of + fields[-1]
        yield fields


def _without_results(records: bytes) -> bytes:
    """Records without what follows each of them."""
    cut = []
    position, size_of = 0, RECORD.size
    while position < len(records):
        cut.append(records[position : position + size_of - 4])
        (size,) = _SIZE.unpack_from(records, position + size_of - 4)
        position += size_of + size
    return _NONE.join([*cut, b""])


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
    there = [moment * 1e-9 for moment in TIMING.unpack(task.timing)]
    return Times(block.queued_at, block.ready_at, task.sent_at or there[0], *there)
