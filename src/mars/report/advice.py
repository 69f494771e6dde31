"""What would make a run faster: at most three sentences, each with its figure. Pure.

Each rule looks for one thing that can be done about a loss, and says how many seconds of wall time
it would save at the most. What saves less than a fiftieth of the wall time is not said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from mars.report.delays import starved_s, waited_s
from mars.report.losses import (
    AGAIN,
    DECODING,
    IMPORTING,
    NO_WORKER,
    ON_CPU,
    SENDING,
    STARTING,
    STORING,
    STRAGGLERS,
    WAITING,
)
from mars.report.path import Path
from mars.report.record import Record
from mars.report.words import format_seconds

MOST: Final = 3
_SHARE: Final = 0.02  # of the wall time that a piece of advice has to save
_SMALL_S: Final = 0.001  # a call that is shorter pays more for its way than for itself
_MANY: Final = 200

Found = tuple[float, str]


def advice_for(
    record: Record,
    path: Path,
    losses: dict[str, float],
    useful: Sequence[bool],
    wall_s: float,
    even_s: float,
) -> list[str]:
    """The sentences that save most, first.

    Parameters
    ----------
    record, path, losses, wall_s
        As in `Report`.
    useful : sequence of bool
        What `mars.report.losses.counted` says of the attempts.
    even_s : float
        The work divided by the cores.
    """
    if not record.attempts:
        return []
    cores = record.cores
    found: list[Found] = [
        *_critical(path, even_s, wall_s),
        *_small(record, losses, cores),
        *_repeated(record, cores),
        *_waiting(record, losses, cores),
        *_starved(record, losses, cores),
        *_again(record, losses, useful, cores),
        *_held(record, losses, cores),
        *_starting(losses, cores),
        *_importing(record, losses, cores),
        *_stragglers(record, losses, cores),
    ]
    found.sort(reverse=True)
    return [
        f"{text} (saves up to {format_seconds(saved)})"
        for saved, text in found[:MOST]
        if saved >= _SHARE * wall_s
    ]


def _critical(path: Path, even_s: float, wall_s: float) -> Iterator[Found]:
    """Few calls in a row are what the whole run waits for."""
    if path.seconds <= 1.1 * even_s or not path.seconds:
        return
    by_function: dict[str, list[float]] = defaultdict(list)
    for one, seconds in zip(path.attempts, path.own_s, strict=True):
        by_function[one.function].append(seconds)
    name, times = max(by_function.items(), key=lambda some: sum(some[1]))
    share = sum(times) / path.seconds
    saved = min(path.seconds - even_s, sum(times) / 2, wall_s)
    them = "them" if len(times) > 1 else "it"
    text = (
        f"{len(times)} call{'s' if len(times) > 1 else ''} of `{name}` "
        f"{'are' if len(times) > 1 else 'is'} {share:.0%} of the critical path "
        f"({format_seconds(sum(times))} of {format_seconds(path.seconds)}): split "
        f"{them} or start {them} first"
    )
    yield saved, text


def _small(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Calls that are shorter than their way to a worker and back."""
    by_function: dict[str, list[float]] = defaultdict(list)
    times_told = Counter(one.serial for one in record.attempts)  # often: it is a map already
    for one in record.attempts:
        single = one.size == 1 and times_told[one.serial] == 1
        if single and one.times is not None and one.ending == "value":
            by_function[one.function].append(one.times.running_s)
    around_s = sum(losses[cause] for cause in (SENDING, DECODING, STORING))
    total = sum(map(len, by_function.values()))
    for name, times in by_function.items():
        mean_s = sum(times) / len(times)
        if len(times) >= _MANY and mean_s < _SMALL_S:
            saved = around_s * len(times) / total / cores
            text = (
                f"{len(times):,} calls of `{name}` take {format_seconds(mean_s)} each, and "
                f"{format_seconds(around_s / total)} around it: use mr.map, which sends many "
                f"at once"
            )
            yield saved, text


def _repeated(record: Record, cores: float) -> Iterator[Found]:
    """The same function with the same arguments."""
    same: dict[tuple[str, int], list[float]] = defaultdict(list)
    for one in record.attempts:
        if one.arguments and one.size == 1 and one.times is not None and one.ending == "value":
            same[one.function, one.arguments].append(one.times.running_s)
    for (name, _), times in same.items():
        if len(times) > 1 and sum(times) / len(times) > 10 * _SMALL_S:
            again_s = sum(times) - max(times)
            text = (
                f"`{name}` ran {len(times)} times with the same arguments, "
                f"{format_seconds(sum(times))} together: if it gives the same each time, "
                f"spawn it once and pass the object"
            )
            yield again_s / cores, text


def _waiting(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Calls that hold a core while they wait for something else than a core."""
    by_function: dict[str, list[float]] = defaultdict(lambda: [0.0] * 5)
    for one in record.attempts:
        if one.times is not None and one.depth == 0 and one.cpus <= 1:
            sums = by_function[one.function]
            starved = starved_s(one, record.starved)
            sums[0] += one.times.running_s
            sums[1] += waited_s(one) - starved
            sums[2] += one.cpus
            sums[3] += 1
            sums[4] += starved
    waited_all_s = sum(map(waited_s, record.attempts))
    for name, (ran_s, waited, cpus, count, starved) in by_function.items():
        busy_s = ran_s - waited  # with what it waited for a core
        if count <= cores or busy_s > 0.5 * ran_s or not waited_all_s:
            continue
        share = max(0.05, min(0.5, busy_s / ran_s if ran_s else 0.5)) * cpus / count
        wise = 0.5 if share > 0.25 else 0.25 if share > 0.1 else 0.1
        if cpus / count <= wise:
            continue
        saved = losses[WAITING] * waited / waited_all_s / cores * (1 - wise)
        text = (
            f"calls of `{name}` ran {format_seconds(busy_s - starved)} on a CPU and waited "
            f"{format_seconds(waited)}: if that was for files or the network, give them more than "
            f"one per core with cpus={wise:g}"
        )
        yield saved, text


def _starved(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Calls that could have gone on, and waited for a core that something else had."""
    by_function: dict[str, float] = defaultdict(float)
    for one in record.attempts:
        by_function[one.function] += starved_s(one, record.starved)
    starved, waited = sum(by_function.values()), sum(map(waited_s, record.attempts))
    if not starved:
        return
    name = max(by_function, key=lambda function: by_function[function])
    text = (
        f"calls of `{name}` waited {format_seconds(by_function[name])} for a core that something "
        f"else had: let other programs end, give the session fewer cores with n_cpu=, or give "
        f"calls that start threads of their own as many cores with cpus="
    )
    yield losses[WAITING] * starved / waited / cores, text


def _again(
    record: Record, losses: dict[str, float], useful: Sequence[bool], cores: float
) -> Iterator[Found]:
    """Work that was done in vain."""
    lost: dict[str, list[float]] = defaultdict(list)
    for one, use in zip(record.attempts, useful, strict=True):
        if not use and one.ending != "lost" and one.ended:
            begun = one.times.received if one.times is not None else one.sent
            lost[one.function].append(one.ended - begun)
    if lost:
        name = max(lost, key=lambda function: sum(lost[function]))
        count = len(lost[name])
        text = (
            f"{count} attempt{'s' if count > 1 else ''} of `{name}` had to be repeated or came to "
            f"nothing, and took {format_seconds(sum(lost[name]))}: `call.attempts()` says how "
            f"each ended"
        )
        yield min(sum(lost[name]), losses[AGAIN]) / cores, text


def _held(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Calls for which there was a core, and no memory."""
    names: dict[str, set[int]] = defaultdict(set)
    for one in record.attempts:
        if one.serial in record.held:
            names[one.function].add(one.serial)
    if names:
        name = max(names, key=lambda function: len(names[function]))
        count = len(names[name])
        text = (
            f"memory, not cores, held back {count} call{'s' if count > 1 else ''} of `{name}`, and "
            f"cores were free for {format_seconds(losses[NO_WORKER])} meanwhile: have each take "
            f"less memory, or say what it takes with memory="
        )
        yield losses[NO_WORKER] / cores, text


def _starting(losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Workers that were not there yet."""
    text = (
        f"cores waited {format_seconds(losses[STARTING])} for workers to start: make the session "
        f"before other preparations, and keep one session for all runs"
    )
    yield losses[STARTING] / cores, text


def _importing(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Modules that each worker loads."""
    workers = len({one.worker for one in record.attempts})
    text = (
        f"{workers} worker{'s' if workers > 1 else ''} took {format_seconds(losses[IMPORTING])} to "
        f"load functions and what they import: keep one session for all runs, and "
        f"import in functions only what they use"
    )
    yield losses[IMPORTING] / cores, text


def _stragglers(record: Record, losses: dict[str, float], cores: float) -> Iterator[Found]:
    """Cores that had nothing left to do."""
    ended = [one for one in record.attempts if one.times is not None and one.ending == "value"]
    if not ended or losses[STRAGGLERS] <= 0 or losses[ON_CPU] + losses[WAITING] <= 0:
        return
    last = max(ended, key=lambda one: one.ended)
    assert last.times is not None
    text = (
        f"cores were idle for {format_seconds(losses[STRAGGLERS])} because nothing was left to "
        f"start, while the last call, `{last.name}`, ran for "
        f"{format_seconds(last.times.running_s)}: start the longest calls first with priority="
    )
    yield losses[STRAGGLERS] / cores, text
