"""Which call reads the result of which, and which was made by which, for the page.

The calls of one run come from the table of attempts and from what the program holds; calls that
calls have made come from the table. Each call is a box. If there are too many for a screen, those
of one function are one box, with counts. Nothing here is laid out: the page does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from mars.calls.maps import MapCall
from mars.observe.forecast import Kind
from mars.observe.observation import EndedAttempt, WorkerFacts
from mars.observe.states import DONE, QUEUED, REUSED, RUNNING, WAITING, title_of
from mars.settings import PAGE_GRAPH_BESIDE, PAGE_GRAPH_CALLS, PAGE_GRAPH_MOST
from mars.task import Call, Realm, Stage, serial_of
from mars.web.index import FUNCTION, Index, Shape, Watched

Json = dict[str, Any]
"""What the page is told, as JSON has it."""

_LOW: Final = 2**32 - 1
_FACTS: Final = attrgetter("function.name", "task.stage", "task.reused", "task.realm")
_Arrows = Counter[tuple[int, int, bool]]
"""From which box, to which one, and whether the first has made the second: how often."""
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
    maker: int | None = None  # of a call inside a call: the one that made it
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
    index: Index, realm: Realm, shown: Callable[[str, int], str], workers: Sequence[WorkerFacts],
    run: int, by: str,
) -> Json:  # fmt: skip
    """The boxes and arrows of one run.

    An arrow is: from which box, to which one, how often, and whether the first has made the second
    instead of being read by it.

    Parameters
    ----------
    index : Index
        What is known of calls.
    realm : Realm
        The session.
    shown : callable
        Makes a text of the program fit to be shown.
    workers : sequence of WorkerFacts
        What the workers do now.
    run : int
        Its number; 0: the latest run of the program.
    by : str
        ``"function"``, ``"call"``, or empty: what fits a screen.
    """
    tops = [number for number, facts in list(index.runs.items()) if not facts[1]]
    tops += [one for one in index.watched_runs() if one and one not in tops]
    run = run if run in tops else max(tops, default=0)
    watched = None if by == "call" else index.run_of(run)
    many = None if watched is None else _by_function_at_once(watched, realm, index.kinds)
    if many is None:
        boxes = _boxes(index, realm, run)
        arrows = Counter(
            (source, serial, False) for serial, box in boxes.items() for source in box.reads
        )
    else:
        boxes, arrows = many
    place_of = {box.function: serial for serial, box in boxes.items()} if many else None
    for serial, box in _calls_inside(index, workers, run, place_of).items():
        if serial not in boxes and box.maker is not None:
            boxes[serial] = box
            arrows[box.maker, serial, True] += 1
    grouped = many is not None or by == "function" or (by != "call" and not _fits(boxes))
    left_out = 0
    if grouped:
        told, edges = _by_function(boxes, arrows)
    else:
        left_out = max(0, len(boxes) - PAGE_GRAPH_MOST)
        kept = dict(list(boxes.items())[:PAGE_GRAPH_MOST])
        place = {serial: at for at, serial in enumerate(kept)}
        told = list(kept.values())
        edges = Counter(
            {
                (place[source], place[reader], made): count
                for (source, reader, made), count in arrows.items()
                if source in place and reader in place
            }
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
        "arrows": [[begin, end, count, made] for (begin, end, made), count in edges.items()],
    }  # fmt: skip


def _by_function_at_once(
    watched: Watched, realm: Realm, kinds: Mapping[str, Kind]
) -> tuple[dict[int, Box], _Arrows] | None:
    """The functions of a run of many plain calls, each a box with a number below zero, and arrows.

    A box for each call would take 10 us a call from the program. None: there are few, or the
    program has let go of some, or some are maps, of which the table knows more.
    """
    calls = watched.calls()
    if len(calls) <= PAGE_GRAPH_MOST or len(calls) < watched.total:
        return None
    shape = watched.shape
    if shape is None:
        shape = watched.shape = _shape_of(calls)
    if shape.maps:
        return None
    boxes: dict[str, Box] = {}
    for (name, state), count in _states_of(shape, watched.only_done, calls, realm).items():
        box = boxes.setdefault(name, Box("", name, name, 0))
        box.calls += count
        box.states[state] += count
    for name, box in boxes.items():
        kind = kinds.get(name)
        if kind is not None and kind.mean_s is not None:  # of the session
            box.seconds, box.timed = kind.mean_s, 1
    for name, count in shape.outside.items():
        if name not in boxes:
            boxes[name] = Box("", name, name, count, Counter({DONE: count}))
    place = {name: -1 - at for at, name in enumerate(boxes)}
    arrows: _Arrows = Counter(
        {(place[a], place[b], False): count for (a, b), count in shape.arrows.items()}
    )
    return {place[name]: box for name, box in boxes.items()}, arrows


def _states_of(
    shape: Shape, done: int | None, calls: Sequence[Call], realm: Realm
) -> Counter[tuple[str, str]]:
    """How many calls of each function are in each state; ``done``: see `Watched.only_done`."""
    if done is not None and len(shape.functions) == 1 and not shape.arrows:
        # A flood of one function. The engine counts what ends; here it would take 0.3 us a call.
        (name,) = shape.functions
        return Counter({(name, DONE): done, (name, QUEUED): len(calls) - done})
    found: Counter[tuple[str, str]] = Counter()
    try:
        counted = Counter(map(_FACTS, calls))
    except AttributeError:  # one has no task: nobody can ask for its value any more
        counted = Counter()
    if counted and all(one is realm for *_, one in counted):
        for (name, stage, reused, _), count in counted.items():
            found[name, REUSED if reused else _STAGES[stage]] += count
    else:
        found.update((call.function.name, _state(call, realm)) for call in calls)
    return found


def _shape_of(calls: Sequence[Call]) -> Shape:
    functions = Counter(map(FUNCTION, calls))
    maps = any(issubclass(one, MapCall) for one in set(map(type, calls)))
    arrows: Counter[tuple[str, str]] = Counter()
    outside: dict[Call, None] = {}
    known: set[Call] | None = None
    for call in [one for one in calls if one.inputs]:
        if known is None:
            known = set(calls)
        for whole in dict.fromkeys(source.whole or source for source, _ in call.inputs):
            arrows[whole.function.name, call.function.name] += 1
            if whole not in known:
                outside[whole] = None
    return Shape(functions, maps, arrows, Counter(one.function.name for one in outside))


def _calls_inside(
    index: Index, workers: Sequence[WorkerFacts], run: int, place_of: Mapping[str, int] | None
) -> dict[int, Box]:
    """Calls that calls of a run have made, and calls that these have made, as far as they began.

    Parameters
    ----------
    index, workers, run
        As in `graph_of`.
    place_of : mapping of str to int, optional
        Of the functions that are boxes instead of their calls: the boxes.
    """
    inside = {number: facts[2] for number, facts in index.runs.items() if facts[1]}
    if not inside:
        return {}
    latest = index.latest()
    askers = set(inside.values())
    # Of attempts that have asked for calls: run, serial and function.
    asking = {
        one.number: (one.run, one.serial & _LOW, one.function)
        for one in latest
        if one.number in askers
    }
    for busy in workers:
        if busy.attempt in askers and busy.runs:
            function = index.functions.get(busy.name, busy.name)
            asking[busy.attempt] = busy.runs[0], serial_of(busy.call) & _LOW, function
    makers: dict[int, int] = {}  # by run: the box of the call that asked for it
    for number, asker in sorted(inside.items()):  # a run begins after the one that asks for it
        of_run, serial, function = asking.get(asker, (0, 0, ""))
        if of_run == run and place_of is not None:
            makers[number] = place_of.get(function, 0)
        elif of_run == run or of_run in makers:
            makers[number] = serial
    boxes: dict[int, Box] = {}
    for one in latest:
        if one.run in makers and one.ending != "lost":
            box = boxes.setdefault(
                one.serial & _LOW,
                Box(one.call, one.name, one.function, 0, maker=makers[one.run]),
            )
            box.ended(one)
            box.calls = sum(box.states.values())
    for busy in workers:
        maker = next((makers[one] for one in busy.runs if one in makers), None)
        if maker is not None and busy.call:
            function = index.functions.get(busy.name, busy.name)
            boxes[serial_of(busy.call) & _LOW] = Box(
                busy.call, busy.name, function, 1, Counter({RUNNING: 1}), maker=maker
            )
    return boxes


def _boxes(index: Index, realm: Realm, run: int) -> dict[int, Box]:
    """The calls of a run, and values of elsewhere that they read, by the low part of the serial."""
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
            maker = boxes[serial].maker
            before = [*boxes[serial].reads, *([] if maker is None else [maker])]
            inside = [deep(one) for one in before if one in boxes]
            depth[serial] = 1 + max(inside, default=-1)
        return depth[serial]

    beside = Counter(deep(serial) for serial in boxes)
    return max(beside.values(), default=0) <= PAGE_GRAPH_BESIDE


def _by_function(boxes: dict[int, Box], arrows: _Arrows) -> tuple[list[Box], _Arrows]:
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
    edges: _Arrows = Counter()
    for (source, reader, made), count in arrows.items():
        if source in place:
            edges[place[source], place[reader], made] += count
    return list(groups.values()), edges


__all__ = ["Box", "graph_of", "mark_running"]
