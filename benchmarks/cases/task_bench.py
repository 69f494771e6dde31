"""Task Bench.

The patterns of Task Bench (Slaughter et al., SC20): a grid of `width` points over `steps` steps,
where a point reads points of the step before it. The answer is the granularity, wall clock times
workers over tasks, at which the tasks' own work is half of what the workers could have done.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from benchmarks.case import Case, Metrics, OverBudget, Params, seconds_for
from benchmarks.peer import Levels, Peer

EFFICIENCY = 0.5
SHORTEST_S = 1e-6
LONGEST_S = 0.1
"""Past this the machine is busy with something else."""

BUDGET_S = 0.2
"""Time for one run of the grid without work; fewer steps if a peer would need longer."""

SEARCH_S = 15.0
"""Time for the whole search: half of a busy machine cannot be had with tasks of any length."""

PROBE_STEPS = 10
"""Steps of the grid that tells how many the peer can have; no peer gets fewer."""

RADIUS = 2
FRACTION = 0.5
"""Of `random_nearest`: how far points may read, and the share of those that they do read."""


def inputs(pattern: str, width: int, step: int, point: int) -> list[int]:
    """Which points of the step before `step` this point reads."""
    if step == 0 or pattern == "trivial":
        return []
    if pattern == "stencil_1d":
        return [p for p in (point - 1, point, point + 1) if 0 <= p < width]
    if pattern == "fft":
        reach = 1 << ((step - 1) % max(1, int(math.log2(width))))
        return [p for p in (point - reach, point, point + reach) if 0 <= p < width]
    if pattern == "tree":
        # Widens from one point to all of them, then every point goes on alone.
        return [point // 2] if (1 << (step - 1)) < width else [point]
    if pattern == "all_to_all":
        return list(range(width))
    if pattern == "random_nearest":
        chance = random.Random(f"{step} {point}")
        near = range(max(0, point - RADIUS), min(width, point + RADIUS + 1))
        return [p for p in near if p == point or chance.random() < FRACTION]
    raise ValueError(f"unknown pattern {pattern}")


def grid(pattern: str, width: int, steps: int) -> Levels:
    """All inputs of all points; `tree` begins with fewer points than `width`."""
    return [
        [
            inputs(pattern, width, step, point)
            for point in range(min(width, 1 << step) if pattern == "tree" else width)
        ]
        for step in range(steps)
    ]


def half_point(
    efficiency: Callable[[float], float], start_s: float, halvings: int, wanted: float = EFFICIENCY
) -> float:
    """The length of work at which `efficiency` is `wanted`.

    Two lengths around it are found by doubling or halving `start_s`, drawn together `halvings`
    times, and interpolated between on a logarithmic scale.
    """
    low_s = high_s = max(SHORTEST_S, start_s)
    at_low = at_high = efficiency(low_s)
    while at_high < wanted:
        if high_s > LONGEST_S:
            raise RuntimeError(f"{at_high:.2f} of the machine with tasks of {high_s * 1e3:.0f} ms")
        low_s, at_low = high_s, at_high
        high_s *= 2
        at_high = efficiency(high_s)
    while at_low >= wanted and low_s > SHORTEST_S:
        high_s, at_high = low_s, at_low
        low_s = max(SHORTEST_S, low_s / 2)
        at_low = efficiency(low_s)
    if at_low >= wanted:
        return low_s  # there is nothing shorter to ask for
    for _ in range(halvings):
        middle_s = math.sqrt(low_s * high_s)
        at_middle = efficiency(middle_s)
        if at_middle < wanted:
            low_s, at_low = middle_s, at_middle
        else:
            high_s, at_high = middle_s, at_middle
    return low_s * float((high_s / low_s) ** ((wanted - at_low) / (at_high - at_low)))


def run(peer: Peer, params: Params) -> Metrics:
    """Fewer steps for a peer that needs longer than `BUDGET_S` for the grid without work."""
    pattern, width, steps = params["pattern"], params["width"], params["steps"]
    wanted = params.get("efficiency", EFFICIENCY)
    short = min(steps, PROBE_STEPS)
    empty_s = seconds_for(lambda: peer.grid(grid(pattern, width, short), 0.0)) / short * steps
    if empty_s > BUDGET_S:
        steps = max(short, int(steps * BUDGET_S / empty_s))
    levels = grid(pattern, width, steps)
    tasks = sum(len(level) for level in levels)

    def granularity_s(work_s: float) -> float:
        return seconds_for(lambda: peer.grid(levels, work_s)) * peer.workers / tasks

    end = time.perf_counter() + SEARCH_S

    def efficiency(work_s: float) -> float:
        found = work_s / granularity_s(work_s)
        if found < wanted and time.perf_counter() > end:
            share = f"{found:.2f} of the machine with tasks of {work_s * 1e6:.0f} us"
            raise OverBudget(f"{share} after {SEARCH_S:g} s of search")
        return found

    overhead_s = granularity_s(0.0)
    work_s = half_point(efficiency, overhead_s, params["halvings"], wanted)
    return {
        "metg_us": work_s / wanted * 1e6,
        "empty_us_per_task": overhead_s / peer.workers * 1e6,
        "steps": steps,
    }


PATTERNS = ("trivial", "stencil_1d", "fft", "tree", "all_to_all", "random_nearest")

CASE = Case(
    question="How small may tasks with dependencies be before half of the machine is lost?",
    metric="metg_us",
    better="lower",
    run=run,
    full={
        f"{pattern}, width 8, 100 steps": {
            "pattern": pattern,
            "width": 8,
            "steps": 100,
            "halvings": 2,
        }
        for pattern in PATTERNS
    },
    quick={
        f"{pattern}, width 8, 20 steps": {
            "pattern": pattern,
            "width": 8,
            "steps": 20,
            "halvings": 1,
        }
        for pattern in ("stencil_1d",)
    },
    tiny={
        # Of a machine on which all tests run, some share can be had always, half of it cannot.
        f"{pattern}, width 4, 3 steps": {
            "pattern": pattern,
            "width": 4,
            "steps": 3,
            "halvings": 0,
            "efficiency": 0.02,
        }
        for pattern in PATTERNS
    },
    limit_s=90,
    size="steps",
    note=(
        "METG(50 %) is from the Task Bench paper: wall clock time multiplied by workers and "
        "divided by tasks, at the size where the own work of the tasks is half of it. Runtimes "
        "with graphs get the whole grid at once. The others go level by level, with one message "
        "for each worker and level. On two workers 50 % is as fast as a plain serial loop. So the "
        "figure says from which size of task on parallel work pays."
    ),
)
