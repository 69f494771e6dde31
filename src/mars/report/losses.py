"""Where the time of all cores went: each core-second of a run has one cause. Pure.

A sweep over the moments at which anything changes. At each moment, cores that run attempts are
counted by what these attempts do. Cores that are free are counted by what calls wait for then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Final

from mars.observe.observation import EndedAttempt
from mars.report.record import Record, blocked, windows, without

ON_CPU: Final = "running on a CPU"
WAITING: Final = "running but waiting"
DECODING: Final = "decoding inputs"
IMPORTING: Final = "importing"
STORING: Final = "storing results"
AGAIN: Final = "retried and lost attempts"
INPUTS: Final = "waiting for inputs"
NO_WORKER: Final = "no free worker"
SENDING: Final = "sending"
STARTING: Final = "starting workers"
STRAGGLERS: Final = "idle at the end"
UNTOLD: Final = "not told yet"

CAUSES: Final = (
    ON_CPU, WAITING, DECODING, IMPORTING, STORING, AGAIN, INPUTS, NO_WORKER, SENDING, STARTING,
    STRAGGLERS, UNTOLD,
)  # fmt: skip
"""In the order in which they are shown. All but the first are lost."""

_TYPICAL_DECODE_S: Final = 0.001  # of a function that was called once in each worker

# What is counted at a moment: cores of attempts by the first six causes, then what free cores could
# have done.
_PLACES: Final = {cause: place for place, cause in enumerate(CAUSES)}
_ACTIVE: Final = 6
_QUEUED, _WAITS, _SENT, _STARTS = range(_ACTIVE, _ACTIVE + 4)
_WANTED: Final = (
    (_STARTS, _PLACES[STARTING]), (_SENT, _PLACES[SENDING]), (_QUEUED, _PLACES[NO_WORKER])
)  # fmt: skip
"""What free cores could have done, and as what it counts."""


def counted(record: Record) -> list[bool]:
    """Of each attempt, whether what it did was of use: no other attempt had to do it again."""
    last: dict[tuple[str, int], int] = {}
    for one in record.attempts:
        if one.size == 1:
            key = one.call, one.run
            last[key] = max(last.get(key, 0), one.attempt)
    lost = {one.number for one in record.attempts if one.ending == "lost"}
    return [
        one.times is not None
        and one.number not in lost
        and (
            one.ending == "value"
            or (one.ending == "error" and (one.size > 1 or last[one.call, one.run] == one.attempt))
        )
        for one in record.attempts
    ]


def losses(record: Record, useful: Sequence[bool] | None = None) -> dict[str, float]:
    """Seconds of core time by cause; they add up to the wall time of the runs times all cores.

    ``useful`` is what `counted` gives, for whoever has it already.
    """
    events: list[tuple[float, int, float]] = []

    def add(begin: float, end: float, place: int, weight: float) -> None:
        if end > begin and weight > 0:
            events.append((begin, place, weight))
            events.append((end, place, -weight))

    away = blocked(record)
    imports = _imports(record)
    useful = counted(record) if useful is None else useful
    before: dict[int, float] = {}  # when the attempt before in the same worker ended
    order = sorted(range(len(record.attempts)), key=lambda at: _begun(record.attempts[at]))
    for at in order:
        one = record.attempts[at]
        _add_pending(one, add, before.get(one.worker, 0.0))
        if one.ending == "lost" or not one.ended:
            continue  # it was told once already, or never begun
        begun = _begun(one)
        before[one.worker] = max(before.get(one.worker, 0.0), one.ended)
        holes = away.get(one.number, ())
        times = one.times
        if times is None or not useful[at]:
            for begin, end in without(begun, one.ended, holes):
                add(begin, end, _PLACES[AGAIN], one.cpus)
            continue
        imported = min(times.called, times.received + imports.get(at, 0.0))
        add(times.received, imported, _PLACES[IMPORTING], one.cpus)
        add(imported, times.called, _PLACES[DECODING], one.cpus)
        spans = without(times.called, times.returned, holes)
        ran_s = sum(end - begin for begin, end in spans)
        share = min(1.0, one.cpu_s / (ran_s * one.cpus)) if ran_s else 0.0
        for begin, end in spans:
            add(begin, end, _PLACES[ON_CPU], one.cpus * share)
            add(begin, end, _PLACES[WAITING], one.cpus * (1 - share))
        add(times.returned, times.stored, _PLACES[STORING], one.cpus)
    for worker in record.workers.values():
        if worker.asked is not None:
            add(worker.asked, record.now if worker.ready is None else worker.ready, _STARTS, 1.0)
    live = any(run.ended is None for run in record.runs.values() if not run.depth)
    return _sweep(events, windows(record), record.cores, record.now if live else None)


def _begun(one: EndedAttempt) -> float:
    return one.times.received if one.times is not None else one.sent


def _add_pending(one: EndedAttempt, add: object, before: float) -> None:
    """What a call waited for before it began."""
    assert callable(add)
    begun = _begun(one)
    if one.attempt > 1:
        add(max(one.sent, before), begun, _SENT, one.cpus)
        return
    ready = min(one.ready if one.ready >= one.queued else begun, begun)  # else it is not known
    sent = min(max(one.sent, ready, before), begun)
    add(one.queued, ready, _WAITS, one.cpus)
    add(ready, sent, _QUEUED, one.cpus)
    add(sent, begun, _SENT, one.cpus)


def _imports(record: Record) -> dict[int, float]:
    """Of the first attempt of each function in each worker: how much longer it decoded."""
    first: dict[tuple[int, str], tuple[float, int, float]] = {}
    others: dict[str, list[float]] = defaultdict(list)
    for at, one in enumerate(record.attempts):
        if one.times is None:
            continue
        took = one.times.decoded - one.times.received
        key = one.worker, one.function
        known = first.get(key)
        if known is None:
            first[key] = one.times.received, at, took
        elif one.times.received < known[0]:
            first[key] = one.times.received, at, took
            others[one.function].append(known[2])
        else:
            others[one.function].append(took)
    typical = {function: median(some) for function, some in others.items()}
    return {
        at: max(0.0, took - typical.get(function, _TYPICAL_DECODE_S))
        for (_, function), (_, at, took) in first.items()
    }


def _sweep(
    events: list[tuple[float, int, float]],
    spans: list[tuple[float, float]],
    cores: float,
    live_until: float | None,
) -> dict[str, float]:
    events = sorted(events)
    level = [0.0] * (_STARTS + 1)
    sums = [0.0] * len(CAUSES)
    at, count = 0, len(events)
    for begin, end in spans:
        now = begin
        while now < end:
            while at < count and events[at][0] <= now:
                _, place, weight = events[at]
                level[place] += weight
                at += 1
            until = min(end, events[at][0]) if at < count else end
            _share(level, cores, until - now, sums, end == live_until)
            now = until
    return dict(zip(CAUSES, sums, strict=True))


def _share(level: list[float], cores: float, took_s: float, sums: list[float], live: bool) -> None:
    """Count all cores for a moment in which nothing changes.

    While a run is under way (``live``), calls that have not ended have told nothing. They may use
    the cores that seem to be free. This is done four times for each attempt, so it is written out.
    """
    active = 0.0
    for amount in level[:_ACTIVE]:
        if amount > 0:  # what is left of sums may be a little less
            active += amount
    shared_s = took_s * cores / active if active > cores else took_s
    for place, amount in enumerate(level[:_ACTIVE]):
        if amount > 0:
            sums[place] += amount * shared_s
    free = cores - active
    if free <= 0:
        return
    for wanted, place in _WANTED:
        amount = level[wanted]
        if amount > 0:
            if amount > free:
                amount = free
            sums[place] += amount * took_s
            free -= amount
    if live:
        rest = UNTOLD
    elif level[_WAITS] > 1e-9:
        rest = INPUTS
    elif active > 1e-9 or level[_QUEUED] > 1e-9 or level[_SENT] > 1e-9:
        rest = STRAGGLERS
    else:  # calls are on their way to workers, or their results to the program
        rest = SENDING
    sums[_PLACES[rest]] += free * took_s
