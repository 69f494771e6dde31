"""The critical path of a run: the calls that it waits for on any number of cores. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mars.observe.observation import EndedAttempt
from mars.report.losses import counted
from mars.report.record import Record, blocked, inputs_of, without

_LOW: Final = 2**32 - 1
_NEVER: Final = (0.0,) * 8


class Path(NamedTuple):
    """Its calls, first to last, and how long their functions ran together."""

    seconds: float
    attempts: list[EndedAttempt]
    own_s: list[float]


def own_seconds(record: Record) -> list[float]:
    """Of each attempt: how long its function ran, without waiting for calls of its own."""
    away = blocked(record)
    seconds = []
    for one in record.attempts:
        if one.times is None:
            seconds.append(0.0)
        else:
            spans = without(one.times.called, one.times.returned, away.get(one.number, ()))
            seconds.append(sum(end - begin for begin, end in spans))
    return seconds


def critical_path(
    record: Record, own: Sequence[float] | None = None, useful: Sequence[bool] | None = None
) -> Path:
    """The longest chain of calls of which each reads a result of the one before.

    A block of a map counts as its longest item, because others could have run beside it. Calls that
    a call has asked for, and waited for, count with it.

    ``own`` and ``useful`` are what `own_seconds` and `counted` give, for whoever has them already.
    """
    own = own_seconds(record) if own is None else own
    useful = counted(record) if useful is None else useful
    best: dict[int, tuple[float, int]] = {}  # by serial: length up to its end, and its attempt
    of_run: dict[int, tuple[float, int]] = {}
    asked: dict[int, list[int]] = {}
    for run in record.runs.values():
        if run.asker:
            asked.setdefault(run.asker, []).append(run.number)
    before: dict[int, int] = {}  # by attempt: the one that it waited for
    inside: dict[int, list[int]] = {}  # by attempt: the last of each run that it asked for
    counts: dict[int, float] = {}
    for at in sorted(range(len(own)), key=lambda at: record.attempts[at].ended):
        one = record.attempts[at]
        if not useful[at]:
            continue
        length = own[at]
        if one.size > 1:
            length = min(length, one.longest_s or length / one.size)
        counts[at] = length
        for run_number in asked.get(one.number, ()):
            if run_number in of_run:
                nested_s, last = of_run[run_number]
                length += nested_s
                inside.setdefault(at, []).append(last)
        found = max((best[low] for low in inputs_of(record, one) if low in best), default=None)
        if found is not None:
            length += found[0]
            before[at] = found[1]
        serial = one.serial & _LOW
        best[serial] = max(best.get(serial, (0.0, -1)), (length, at))
        of_run[one.run] = max(of_run.get(one.run, (0.0, -1)), (length, at))
    top = {number for number, run in record.runs.items() if not run.depth}
    if not of_run:
        return Path(0.0, [], [])
    seconds, last = max(
        (found for number, found in of_run.items() if number in top), default=max(of_run.values())
    )
    chain: list[int] = []
    pending = [last]
    while pending:
        at = pending.pop()
        chain.append(at)
        if at in before:
            pending.append(before[at])
        pending.extend(inside.get(at, ()))
    chain.sort(key=lambda at: ((record.attempts[at].times or _NEVER)[3], at))
    return Path(seconds, [record.attempts[at] for at in chain], [counts[at] for at in chain])
