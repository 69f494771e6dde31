"""How long recorded runs would take on other machines: its calls once more, in virtual time.

The calls, with the durations, inputs, cores and priorities that were measured, go through the same
scheduler as in an engine, on simulated machines. Nothing runs. What the model leaves out stands in
`ASSUMPTIONS`.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from mars.calls.options import DEFAULT_OPTIONS, Options
from mars.engines.driver.simulation.machine import Behaviour, Chances
from mars.engines.driver.simulation.world import World
from mars.errors import UsageError
from mars.observe.attempts import Times
from mars.report.losses import counted
from mars.report.path import own_seconds
from mars.report.record import Record, RunRow, inputs_of, windows
from mars.report.words import format_seconds
from mars.task import Call, Function

ASSUMPTIONS: Final = (
    "A call takes as long as it took, whatever runs beside it: no memory, cache or disk is shared.",
    "Cores and GPUs are as fast as those of the recorded run.",
    "A message takes 0.1 ms on a machine, 0.5 ms between machines, and large values no time.",
    "Workers are there from the start. Nothing fails, and attempts that were repeated count once.",
    "Items of a map that travelled together travel together.",
    "A call that asked for calls of its own runs after these, for as long as it did not wait.",
)

NEAR_S: Final = 1e-4
FAR_S: Final = 5e-4
KNEE: Final = 0.8
"""The knee of a curve: the most cores on which at least this part of each core is used."""

MOST_POINTS: Final = 12

_LOW: Final = 2**32 - 1


class Point(NamedTuple):
    """What a run would be like on some machines.

    Attributes
    ----------
    nodes : int
        Machines.
    cpus : float
        Cores of each.
    gpus : int
        GPUs of each.
    wall_s : float
        Seconds that the runs would take.
    efficiency : float
        Part of all cores' time in which functions run, 0 to 1.
    core_hours : float
        Hours, times all cores.
    cost : float or None
        ``core_hours`` times the price of one; None: no price was given.
    """

    nodes: int
    cpus: float
    wall_s: float
    efficiency: float
    core_hours: float
    cost: float | None
    gpus: int = 0


class WhatIf(NamedTuple):
    """A prediction, and how it changes with the number of machines.

    Attributes
    ----------
    asked : Point
        For the machines that were asked for.
    measured_s : float
        Seconds that the recorded runs took.
    curve : list of Point
        From one machine to as many as were asked for.
    knee : Point
        The most machines on which at least four fifths of all cores' time is used.
    """

    asked: Point
    measured_s: float
    curve: list[Point]
    knee: Point

    def __str__(self) -> str:
        return as_text(self)


def what_if(
    record: Record,
    nodes: int = 1,
    cpus: float = 1,
    price: float | None = None,
    gpus: int | None = None,
) -> WhatIf:
    """Predict how long a recorded run takes on ``nodes`` machines of ``cpus`` cores each.

    ``gpus`` are those of each machine; None: as many as the call needs that has asked for most.

    Raises
    ------
    UsageError
        The machines are none, or smaller than what a call has asked for, or nothing was recorded.
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise UsageError(f"nodes={nodes!r}: give a whole number of machines, 1 or more")
    if not cpus >= 1 or cpus == float("inf"):
        raise UsageError(f"cpus={cpus!r}: give the cores of one machine, 1 or more")
    if price is not None and not price >= 0:
        raise UsageError(f"price={price!r}: give what one core costs for an hour, 0 or more")
    plan = _Plan(record)
    if not plan.runs:
        raise UsageError("no call has ended yet: run the program first, then ask what if")
    if plan.widest > cpus:
        raise UsageError(
            f"cpus={cpus:g}: a call of `{plan.widest_name}` has asked for cpus={plan.widest:g}; "
            f"give machines with at least as many"
        )
    if gpus is None:
        gpus = math.ceil(plan.most_gpus)
    elif isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 0:
        raise UsageError(f"gpus={gpus!r}: give the GPUs of one machine, 0 or more")
    if plan.most_gpus > gpus:
        raise UsageError(
            f"gpus={gpus}: a call of `{plan.most_gpus_name}` has asked for "
            f"gpus={plan.most_gpus:g}; give machines with at least as many"
        )
    curve = [_point(plan, count, cpus, gpus, price) for count in _counts(nodes)]
    knee = max((one for one in curve if one.efficiency >= KNEE), default=curve[0])
    measured_s = sum(end - begin for begin, end in windows(record))
    return WhatIf(curve[-1], measured_s, curve, knee)


def _counts(most: int) -> list[int]:
    """Numbers of machines from 1 on: all of few, else ever larger steps."""
    if most <= MOST_POINTS:
        return list(range(1, most + 1))
    steps = {round(most ** (step / (MOST_POINTS - 1))) for step in range(MOST_POINTS)}
    return sorted(steps | {1, most})


def _point(plan: _Plan, nodes: int, cpus: float, gpus: int, price: float | None) -> Point:
    wall_s = plan.play(nodes, cpus, gpus)
    core_hours = wall_s * nodes * cpus / 3600
    return Point(
        nodes, cpus, wall_s, min(1.0, plan.core_s / (wall_s * nodes * cpus)) if wall_s else 1.0,
        core_hours, None if price is None else core_hours * price, gpus,
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _options(cpus: float, gpus: float) -> Options:
    from mars.calls.options import parse_options

    if cpus == 1 and not gpus:
        return DEFAULT_OPTIONS
    return parse_options({"cpus": cpus, "gpus": gpus})


class _Step(NamedTuple):
    """One call of the plan, or one block of a map."""

    serial: int
    seconds: float
    cpus: float
    function: str
    inputs: tuple[int, ...]
    gpus: float


class _Plan:
    """What was recorded, ready to be played on any machines."""

    def __init__(self, record: Record) -> None:
        own = own_seconds(record)
        useful = counted(record)
        self.runs: list[list[_Step]] = []
        self.core_s = 0.0
        self.widest, self.widest_name = 0.0, ""
        self.most_gpus, self.most_gpus_name = 0.0, ""
        roots = _roots(record)
        steps: dict[int, list[_Step]] = defaultdict(list)
        asked, asker = _nesting(record)
        serials: dict[int, set[int]] = defaultdict(set)  # by run
        for one in record.attempts:
            serials[one.run].add(one.serial & _LOW)
        reads = {one.number: inputs_of(record, one) for one in record.attempts}
        order = sorted(range(len(own)), key=lambda at: record.attempts[at].ended)
        for at in order:  # what a call has read, or waited for, has ended before it
            one = record.attempts[at]
            if not useful[at] or one.times is None:
                continue
            inputs = {*reads[one.number], *reads.get(asker.get(one.run, 0), ())}
            for run in asked.get(one.number, ()):
                inputs |= serials[run]
            step = _Step(
                one.serial & _LOW, own[at] + _around(one.times), one.cpus,
                one.function, tuple(inputs - {one.serial & _LOW}), one.gpus,
            )  # fmt: skip
            steps[roots.get(one.run, one.run)] += [step]
            self.core_s += own[at] * one.cpus
            if one.cpus > self.widest:
                self.widest, self.widest_name = one.cpus, one.function
            if one.gpus > self.most_gpus:
                self.most_gpus, self.most_gpus_name = one.gpus, one.function
        self.runs = [steps[number] for number in sorted(steps)]

    def play(self, nodes: int, cpus: float, gpus: int) -> float:
        """Seconds that all runs take, one after the other."""
        return sum(self._play_run(steps, nodes, cpus, gpus) for steps in self.runs)

    def _play_run(self, steps: Sequence[_Step], nodes: int, cpus: float, gpus: int) -> float:
        world = World(
            0, [(f"node {n}", cpus) for n in range(nodes)], checked=False, devices=[gpus] * nodes
        )
        latency_s = 2 * (NEAR_S if nodes == 1 else FAR_S)  # it is the longest of most
        world.machine.chances = Chances(latency_s=latency_s, slow=0.0, lazy_reports=0.0)
        functions: dict[str, Function] = {}
        made: dict[int, list[Call]] = defaultdict(list)
        calls = []
        for step in steps:
            function = functions.get(step.function)
            if function is None:
                key = step.function.encode("utf-8", "replace")
                function = functions[step.function] = Function(key, step.function, b"")
            inputs = tuple((one, 0) for serial in step.inputs for one in made.get(serial, ()))
            call = Call(function, b"", (), inputs, _options(step.cpus, step.gpus), None)
            call.handles += 1
            world.behaviours[call] = Behaviour(step.seconds)
            made[step.serial].append(call)
            calls.append(call)
        world.start()
        world.play()  # until the workers are there
        begun = world.machine.now
        run = world.submit(calls, stop_on_error=False)
        assert run is not None
        world.play()
        ended = world.machine.now if run.ended_at is None else run.ended_at
        return ended - begun


def _around(times: Times) -> float:
    """What a worker does for a call besides its function."""
    return (times.called - times.received) + (times.stored - times.returned)


def _nesting(record: Record) -> tuple[dict[int, list[int]], dict[int, int]]:
    """By attempt: the runs that it has asked for; and by run: the attempt."""
    asked: dict[int, list[int]] = defaultdict(list)
    asker = {}
    for run in record.runs.values():
        if run.asker:
            asked[run.asker].append(run.number)
            asker[run.number] = run.asker
    return asked, asker


def _roots(record: Record) -> dict[int, int]:
    """By nested run: the run of the program that it was made for."""
    run_of = {one.number: one.run for one in record.attempts}

    def root(run: RunRow) -> int:
        seen = set()
        while run.asker and run.asker in run_of and run.number not in seen:
            seen.add(run.number)
            above = record.runs.get(run_of[run.asker])
            if above is None:
                break
            run = above
        return run.number

    return {number: root(run) for number, run in record.runs.items()}


def as_text(found: WhatIf) -> str:
    """A prediction for a terminal."""
    priced = found.asked.cost is not None
    head = f"{'nodes':>6} {'cores':>6} {'wall':>10} {'efficiency':>11} {'core hours':>11}"
    asked = found.asked
    lines = [
        f"measured:  {format_seconds(found.measured_s)}",
        f"predicted: {format_seconds(asked.wall_s)} on {asked.nodes} x {asked.cpus:g} cores"
        + (f", {asked.gpus} GPUs" if asked.gpus else ""),
        "",
        head + (f" {'cost':>10}" if priced else ""),
    ]
    for one in found.curve:
        mark = "  <- knee" if one is found.knee else ""
        cost = f" {one.cost:>10.4g}" if one.cost is not None else ""
        lines.append(
            f"{one.nodes:>6} {one.nodes * one.cpus:>6g} {format_seconds(one.wall_s):>10} "
            f"{one.efficiency:>11.0%} {one.core_hours:>11.4g}{cost}{mark}"
        )
    lines += ["", "assumed:"]
    lines += [f"  - {line}" for line in ASSUMPTIONS]
    return "\n".join(lines)
