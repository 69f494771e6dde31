"""What is known of a program's runs: its attempts, runs, workers and inputs, in memory and as JSON.

All views of the past (`report`, `timeline`, `what_if`) are pure functions over a `Record`. It is
made of the engine's table of attempts, or read from a file that `Report.save` wrote. Pure, but for
what `mars.report.delays` asks the system.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from mars.errors import UsageError
from mars.observe.attempts import Rows, Times
from mars.observe.observation import EndedAttempt, each_attempt, each_link
from mars.report.delays import shares

FORMAT: Final = "mars run 1"
"""How a file says what it is. Another number: another form."""

_LOW: Final = 2**32 - 1


class RunRow(NamedTuple):
    """One run: an `execute` of the program, or of a call (then ``asker`` is its attempt)."""

    number: int
    session: str
    depth: int
    asker: int
    began: float
    ended: float | None


class WorkerRow(NamedTuple):
    """One worker process, and when it was asked for and was ready (None: not known)."""

    number: int
    group: str
    node: str
    pid: int
    asked: float | None
    ready: float | None


class Record(NamedTuple):
    """All that is known of the runs of a session.

    Attributes
    ----------
    attempts : list of EndedAttempt
        In the order of their ends.
    inputs : dict
        By `EndedAttempt.serial` (its low 32 bits): the serials of what the call has read.
    runs, workers : dict
        By number.
    cores : float
        Cores of the engine.
    now : float
        When the record was made, in seconds of the program's `time.monotonic`.
    folded : dict
        Of attempts that are not kept any more, by function: attempts, calls, failed attempts,
        seconds that the function ran, and seconds of processor time.
    held : frozenset of int
        Serials of calls that could not start because of memory, although a worker was free.
    starved : dict of int to float
        By worker: of the time in which its calls ran and did not compute, the part in which they
        waited for a core. Workers of which it is not known are missing.
    since : float
        Everything that ended after this moment is in ``attempts``, in seconds like ``now``. 0: all
        attempts are kept.
    """

    attempts: list[EndedAttempt]
    inputs: dict[int, tuple[int, ...]]
    runs: dict[int, RunRow]
    workers: dict[int, WorkerRow]
    cores: float
    now: float
    folded: dict[str, tuple[int, int, int, float, float]]
    held: frozenset[int] = frozenset()
    starved: Mapping[int, float] = MappingProxyType({})
    since: float = 0.0

    @property
    def missing(self) -> int:
        """Attempts that are not kept any more."""
        return sum(sums[0] for sums in self.folded.values())


def record_of(rows: Rows, session: str | None = None, run: int | None = None) -> Record:
    """What is known of the runs of a session.

    Parameters
    ----------
    rows : Rows
        All rows of an engine's table.
    session : str, optional
        Id of the session. Default: all sessions of the engine.
    run : int, optional
        Only this run, with what its calls have asked for. Default: all runs.
    """
    runs = {
        number: RunRow(number, *run)
        for number, run in rows.runs.items()
        if run[3] and session in (None, run[0])
    }
    everything = list(each_attempt(rows))
    attempts = [one for one in everything if session is None or one.run in runs]
    if run is not None:
        runs = _with_nested(run, runs, attempts)
        attempts = [one for one in attempts if one.run in runs]
    return Record(
        attempts,
        {serial: inputs for serial, _, inputs in each_link(rows)},
        runs,
        {number: WorkerRow(number, *worker[:5]) for number, worker in rows.workers.items()},
        rows.cores,
        rows.now,
        dict(rows.folded),
        rows.held & {one.serial for one in attempts},
        shares(everything),
        next((one.ended for one in everything if one.ended), 0.0) if rows.folded else 0.0,
    )


def _with_nested(
    top: int, runs: dict[int, RunRow], attempts: list[EndedAttempt]
) -> dict[int, RunRow]:
    """A run, and those that its calls have asked for, however deep."""
    run_of = {one.number: one.run for one in attempts}
    found: dict[int, RunRow] = {}
    for number, run in sorted(runs.items()):  # a run begins after the one that asks for it
        if number == top or run_of.get(run.asker) in found:
            found[number] = run
    return found


def inputs_of(record: Record, attempt: EndedAttempt) -> tuple[int, ...]:
    """The serials of what the call of an attempt has read."""
    return record.inputs.get(attempt.serial & _LOW, ())


def windows(record: Record) -> list[tuple[float, float]]:
    """When runs of the program were under way: from and until, without overlaps, in order.

    What happened between two runs is the program's own time. Nothing is said of the time in which
    attempts ended that are not kept any more.
    """
    spans = [
        (max(run.began, record.since), record.now if run.ended is None else run.ended)
        for run in record.runs.values()
        if not run.depth
    ]
    return union(spans)


def union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans without overlaps, in order."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        elif end > begin:
            joined.append((begin, end))
    return joined


def blocked(record: Record) -> dict[int, list[tuple[float, float]]]:
    """By attempt: when it waited for runs of its own, so that its cores were free for others."""
    spans: dict[int, list[tuple[float, float]]] = {}
    for run in record.runs.values():
        if run.asker:
            ended = record.now if run.ended is None else run.ended
            spans.setdefault(run.asker, []).append((run.began, ended))
    return {asker: union(some) for asker, some in spans.items()}


def without(
    begin: float, end: float, holes: Iterable[tuple[float, float]]
) -> list[tuple[float, float]]:
    """What is left of a span without holes; these are in order and do not overlap."""
    left = []
    for low, high in holes:
        if high <= begin or low >= end:
            continue
        if low > begin:
            left.append((begin, low))
        begin = max(begin, high)
    if end > begin:
        left.append((begin, end))
    return left


# -- files ------------------------------------------------------------------------------------

_PLAIN: Final = tuple(name for name in EndedAttempt._fields if name != "times")


def to_json(record: Record) -> str:
    """A record as text that `from_json` reads."""
    return json.dumps(
        {
            "format": FORMAT,
            "cores": record.cores,
            "now": record.now,
            "attempt columns": [*_PLAIN, *Times._fields],
            "attempts": [
                [*[getattr(one, name) for name in _PLAIN], *(one.times or (None,) * 8)]
                for one in record.attempts
            ],
            "inputs": [[serial, *inputs] for serial, inputs in record.inputs.items()],
            "run columns": RunRow._fields,
            "runs": list(record.runs.values()),
            "worker columns": WorkerRow._fields,
            "workers": list(record.workers.values()),
            "folded": record.folded,
            "held": sorted(record.held),
            "starved": list(record.starved.items()),
            "since": record.since,
        }
    )


def from_json(text: str, name: str = "this file") -> Record:
    """The record that was saved as ``text``.

    Raises
    ------
    UsageError
        It is no such text.
    """
    try:
        known: Mapping[str, Any] = json.loads(text)
        if known["format"] != FORMAT:
            raise UsageError(
                f"{name} has the form {known['format']!r}; this version of mars reads {FORMAT!r}"
            )
        columns: list[str] = known["attempt columns"]
        split = columns.index(Times._fields[0], len(columns) - len(Times._fields))
        attempts = []
        for row in known["attempts"]:
            facts = dict(zip(columns[:split], row[:split], strict=True))
            times = None if row[split] is None else Times(*row[split:])
            attempts.append(EndedAttempt(times=times, **facts))
        return Record(
            attempts,
            {row[0]: tuple(row[1:]) for row in known["inputs"]},
            {row[0]: RunRow(*row) for row in known["runs"]},
            {row[0]: WorkerRow(*row) for row in known["workers"]},
            float(known["cores"]),
            float(known["now"]),
            {function: tuple(sums) for function, sums in known["folded"].items()},
            frozenset(known["held"]),
            dict(known.get("starved", ())),  # files of before have none
            float(known.get("since", 0.0)),
        )
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"{name} is no saved run ({type(error).__name__}: {error}); "
            f'session.report().save("run.json") writes one'
        ) from None
