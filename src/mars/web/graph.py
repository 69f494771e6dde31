"""Which call reads the result of which, for the page: each call a box, or each function.

The calls of one run come from the table of attempts and from what the program holds. If there are
too many for a screen, those of one function are one box, with counts. Nothing here is laid out:
the page does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from mars.observe.observation import EndedAttempt
from mars.observe.states import DONE, QUEUED, REUSED, RUNNING, WAITING, title_of
from mars.settings import PAGE_GRAPH_BESIDE, PAGE_GRAPH_CALLS, PAGE_GRAPH_MOST
from mars.task import Call, Realm, Stage
from mars.web.index import Index

Json = dict[str, Any]
"""What the page is told, as JSON has it."""

_LOW: Final = 2**32 - 1
_ENDINGS: Final = {"value": DONE, "error": "failed", "died": "failed", "unknown": "failed"}
_STAGES: Final = {
    Stage.WAITING: WAITING, Stage.READY: QUEUED, Stage.ASSIGNED: QUEUED, Stage.RETRYING: QUEUED,
    Stage.MADE: DONE, Stage.DONE: DONE, Stage.FAILED: "failed", Stage.CANCELLED: "stopped",
    Stage.ABANDONED: "not started",
}  # fmt: skip


@dataclass(slots=True)
class Box:
    """One call, or all calls of one function: in which states they are, and how long they ran."""

    key: str
    name: str
    function: str
    calls: int = 1
    states: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    timed: int = 0
    reads: tuple[int, ...] = ()
    rows: int = 0

    def ended(self, one: EndedAttempt) -> None:
        """An attempt has ended: of the call, or of a block of its items."""
        self.rows += 1
        if one.times is not None:
            self.seconds += one.times.running_s
            self.timed += one.size
        if one.size > 1 or self.calls > 1 or (self.rows > 1 and one.attempt == 1):
            if one.failed_items:
                self.states["failed"] += one.failed_items
            self.states[DONE] += one.size - one.failed_items
        else:
            self.states = Counter({_ENDINGS.get(one.ending, "stopped"): 1})

    def settle(self, state: str) -> None:
        """Calls that have not ended are in this state."""
        rest = self.calls - sum(self.states.values())
        if rest > 0:
            self.states[state] += rest


def graph_of(
    index: Index, realm: Realm, shown: Callable[[str, int], str], run: int, by: str
) -> Json:
    """The boxes and arrows of one run.

    Parameters
    ----------
    index : Index
        What is known of calls.
    realm : Realm
        The session.
    shown : callable
        Makes a text of the program fit to be shown.
    run : int
        Its number; 0: the latest run of the program.
    by : str
        ``"function"``, ``"call"``, or empty: what fits a screen.
    """
    tops = [number for number, facts in list(index.runs.items()) if not facts[1]]
    tops += [one for one in index.watched_runs() if one and one not in tops]
    run = run if run in tops else max(tops, default=0)
    boxes = _boxes(index, realm, run)
    grouped = by == "function" or (by != "call" and not _fits(boxes))
    arrows = [(source, serial) for serial, box in boxes.items() for source in box.reads]
    left_out = 0
    if grouped:
        told, edges = _by_function(boxes, arrows)
    else:
        left_out = max(0, len(boxes) - PAGE_GRAPH_MOST)
        kept = dict(list(boxes.items())[:PAGE_GRAPH_MOST])
        place = {serial: at for at, serial in enumerate(kept)}
        told = list(kept.values())
        edges = Counter(
            (place[source], place[reader])
            for source, reader in arrows
            if source in place and reader in place
        )
    return {
        "run": run,
        "runs": sorted(tops)[-50:],
        "grouped": grouped,
        "calls": sum(box.calls for box in boxes.values()),
        "more": left_out,
        "boxes": [
            [box.key, shown(box.name, 120), box.calls, dict(box.states),
             box.seconds / box.timed if box.timed else None]
            for box in told
        ],
        "arrows": [[source, reader, count] for (source, reader), count in edges.items()],
    }  # fmt: skip


def _boxes(index: Index, realm: Realm, run: int) -> dict[int, Box]:
    """The calls of a run, and values of elsewhere that they read, by the low part of the serial.

    Calls inside calls are no part of it.
    """
    boxes: dict[int, Box] = {}
    calls = {call.serial & _LOW: call for call in index.calls_of(run)}
    latest = index.latest()
    for one in latest:
        low = one.serial & _LOW
        if one.ending == "lost" or one.run != run:
            continue
        box = boxes.get(low)
        if box is None:
            box = boxes[low] = Box(one.call, one.name, one.function, 0)
            box.calls = _count(calls[low]) if low in calls else 0
        box.ended(one)
        if low not in calls:  # the program has let go of it: its rows say how many items it had
            box.calls = sum(box.states.values())
    for low, call in calls.items():
        box = boxes.setdefault(low, _box_of(call))
        state = _state(call, realm)
        if box.calls == 1 and state in (WAITING, QUEUED):
            box.states.clear()  # it is tried again
        box.settle(state)
        wholes = dict.fromkeys(source.whole or source for source, _ in call.inputs)
        box.reads = tuple([whole.serial & _LOW for whole in wholes])
        for whole in wholes:
            if whole.serial & _LOW not in calls and whole.serial & _LOW not in boxes:
                outside = boxes[whole.serial & _LOW] = _box_of(whole)
                outside.settle(_state(whole, realm))
    gone = [low for low in boxes if low not in calls and not boxes[low].reads]
    if gone:
        _follow_links(boxes, gone, index.reads(), latest)
    return boxes


def _follow_links(
    boxes: dict[int, Box], gone: Iterable[int], reads: dict[int, tuple[int, ...]],
    latest: Iterable[EndedAttempt],
) -> None:  # fmt: skip
    """Give calls that the program has let go of the inputs that the table knows."""
    rows = {one.serial & _LOW: one for one in latest}
    for low in gone:
        boxes[low].reads = reads.get(low, ())
        for source in boxes[low].reads:
            known = rows.get(source)
            if source not in boxes and known is not None:
                boxes[source] = Box(known.call, known.name, known.function)
                boxes[source].ended(known)


def _box_of(call: Call) -> Box:
    return Box(call.key, title_of(call), call.function.name, _count(call))


def _count(call: Call) -> int:
    found: int = getattr(call, "count", 1)
    return found


def mark_running(told: Json, busy: Iterable[tuple[str, str, int]]) -> None:
    """Say of boxes that calls of them run: key, function and number of calls of each worker."""
    grouped = told["grouped"]
    by_key = {box[0] if not grouped else box[1]: box for box in told["boxes"]}
    for key, function, size in busy:
        box = by_key.get(function if grouped else key)
        if box is None:
            continue
        states = box[3]
        for waits in (QUEUED, WAITING):
            moved = min(size, states.get(waits, 0))
            if moved:
                states[waits] -= moved
                states[RUNNING] = states.get(RUNNING, 0) + moved
                size -= moved


def _state(call: Call, realm: Realm) -> str:
    task = call.task_in(realm)
    if task is None:  # it was not started, or nobody can ask for its value any more
        return DONE if call.satisfied else WAITING
    if task.reused:
        return REUSED
    return _STAGES[task.stage]


def _fits(boxes: dict[int, Box]) -> bool:
    """Whether a graph of single calls is readable: few of them, and few beside each other."""
    if len(boxes) > PAGE_GRAPH_CALLS:
        return False
    depth: dict[int, int] = {}

    def deep(serial: int) -> int:  # at most as deep as there are boxes, which are few
        if serial not in depth:
            depth[serial] = 0
            inside = [deep(one) for one in boxes[serial].reads if one in boxes]
            depth[serial] = 1 + max(inside, default=-1)
        return depth[serial]

    beside = Counter(deep(serial) for serial in boxes)
    return max(beside.values(), default=0) <= PAGE_GRAPH_BESIDE


def _by_function(
    boxes: dict[int, Box], arrows: Iterable[tuple[int, int]]
) -> tuple[list[Box], Counter[tuple[int, int]]]:
    """One box for each function: those with most calls, and one for all the others."""
    sizes: Counter[str] = Counter()
    for box in boxes.values():
        sizes[box.function] += box.calls
    kept = {name for name, _ in sizes.most_common(PAGE_GRAPH_CALLS)}
    groups: dict[str, Box] = {}
    places: dict[str, int] = {}
    place: dict[int, int] = {}
    for serial, box in boxes.items():
        name = box.function if box.function in kept else "all other functions"
        group = groups.setdefault(name, Box("", name, name, 0))
        place[serial] = places.setdefault(name, len(places))
        group.calls += box.calls
        group.states.update(box.states)
        group.seconds += box.seconds
        group.timed += box.timed
    edges = Counter((place[source], place[reader]) for source, reader in arrows if source in place)
    return list(groups.values()), edges


__all__ = ["Box", "graph_of", "mark_running"]
