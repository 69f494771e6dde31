"""What one call costs beside its own work."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from pathlib import Path

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params
from benchmarks.cases.task_bench import grid
from benchmarks.memory import descendants
from benchmarks.peer import Peer

WIDTH = 8
"""Of a `task_bench` grid, as there."""


def _threads_us(pid: int) -> dict[int, float]:
    """Processor time so far of a process, by thread."""
    found = {}
    with contextlib.suppress(OSError):  # it ends
        for task in Path("/proc", str(pid), "task").iterdir():
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e3
    return found


def _spent_us() -> dict[str, float]:
    """Processor time so far, by who spent it."""
    here = _threads_us(os.getpid())
    program = here.pop(threading.main_thread().native_id or 0)
    workers = sum(sum(_threads_us(pid).values()) for pid in descendants(os.getpid()))
    return {"program_us": program, "its_threads_us": sum(here.values()), "workers_us": workers}


def run(peer: Peer, params: Params) -> Metrics:
    """Run it twice: what only the first time takes is not in question."""
    count, shape, seconds = params["tasks"], params["shape"], params.get("seconds", 0.0)

    def work() -> None:
        if shape == "chain":
            peer.chain(count)
        elif shape == "one by one":
            peer.one_by_one(workload.spin if seconds else workload.nothing, [seconds] * count)
        else:
            peer.grid(grid(shape, WIDTH, count // WIDTH), seconds)

    work()
    gc.collect()
    if not params.get("collector", True):
        gc.disable()
    try:
        before, begin = _spent_us(), time.perf_counter()
        work()
        wall_us = (time.perf_counter() - begin) * 1e6 / count
        spent = {name: (us - before[name]) / count for name, us in _spent_us().items()}
    finally:
        gc.enable()
    busy_us = sum(spent.values())
    spent["workers_us"] -= seconds * 1e6
    return {
        "cpu_us": busy_us - seconds * 1e6,
        **spent,
        "wall_us": wall_us,
        "busy_cores": busy_us / wall_us,
    }


CASE = Case(
    question="How much processor time does a call take beside its own work, and whose is it?",
    metric="cpu_us",
    better="lower",
    run=run,
    full={
        "empty": {"shape": "one by one", "tasks": 20_000},
        "empty, without Python's collector": {
            "shape": "one by one",
            "tasks": 20_000,
            "collector": False,
        },
        "chain": {"shape": "chain", "tasks": 5_000},
        "100 us": {"shape": "one by one", "tasks": 5_000, "seconds": 1e-4},
        "1 ms": {"shape": "one by one", "tasks": 1_000, "seconds": 1e-3},
        "stencil_1d of 50 us": {"shape": "stencil_1d", "tasks": 800, "seconds": 5e-5},
        "stencil_1d of 150 us": {"shape": "stencil_1d", "tasks": 800, "seconds": 1.5e-4},
    },
    quick={"empty": {"shape": "one by one", "tasks": 2_000}},
    tiny={
        "empty": {"shape": "one by one", "tasks": 20},
        "chain": {"shape": "chain", "tasks": 10},
        "stencil_1d of 1 us": {"shape": "stencil_1d", "tasks": 16, "seconds": 1e-6},
    },
    only=("mars", "ppe", "pool"),
    note=(
        "All numbers are microseconds for one call. If all cores are always busy, this cost "
        "decides: on two cores a call takes at least half of the sum of its own work and this "
        "cost. `program` is the thread that describes the calls and waits. `its_threads` are the "
        "threads of the runtime in the same process; for mars this is the engine. A worker of "
        "mars stays awake for up to 0.3 ms while it waits for a small call, and this time is "
        "counted. Only peers without daemons are asked, because the time of a daemon could not be "
        "seen."
    ),
)
