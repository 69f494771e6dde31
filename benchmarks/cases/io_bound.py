"""Calls that wait: for a server, a disk, somebody else."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks import memory, workload
from benchmarks.case import Case, Metrics, Params
from benchmarks.peer import Peer


def _measured(work: Callable[[], list[int]], count: int, after_s: float) -> tuple[float, float]:
    """Seconds that the work takes, and the memory in MiB of all processes in its middle."""
    found: list[float] = []
    timer = threading.Timer(after_s, lambda: found.append(memory.tree_pss_bytes()[0] / 2**20))
    timer.start()
    begin = time.perf_counter()
    values = work()
    took_s = time.perf_counter() - begin
    timer.join()
    if values != [1] * count:
        raise AssertionError(f"{len(values)} values, not {count} times 1")
    return took_s, found[0]


def run(peer: Peer, params: Params) -> Metrics:
    """In turns with a `ThreadPoolExecutor`, so both meet the same machine."""
    import mars
    import mars.remote as mr

    count, threads, seconds = params["calls"], params["threads"], params["seconds"]
    items = [seconds] * count
    middle_s = count / threads * seconds / 2

    def pool() -> list[int]:
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(workload.waited, items))

    def spawned() -> list[int]:
        calls = [mr.spawn(workload.waited, args=(item,), threads=threads) for item in items]
        return list(mr.ExecutableTuple(calls).execute().fetch())

    def mapped() -> list[int]:
        return list(mr.map(workload.waited, items, threads=threads).execute().fetch())

    theirs, ours, maps = [], [], []
    for _ in range(params["rounds"]):
        theirs.append(_measured(pool, count, middle_s))  # without a session: its memory is not ours
        with mars.new_session(n_cpu=peer.workers or 2, default=True):
            ours.append(_measured(spawned, count, middle_s))
            maps.append(_measured(mapped, count, middle_s))
    pool_s, pool_mib, ours_s, ours_mib, map_s = (
        statistics.median(values)
        for values in (
            *zip(*theirs, strict=True),
            *zip(*ours, strict=True),
            [took_s for took_s, _ in maps],
        )
    )
    return {
        "seconds": ours_s,
        "map_s": map_s,
        "pool_s": pool_s,
        "times_pool": ours_s / pool_s,
        "mib": ours_mib,
        "pool_mib": pool_mib,
    }


CASE = Case(
    question="What do calls take that wait, many at a time, beside a ThreadPoolExecutor?",
    metric="seconds",
    better="lower",
    only=("mars",),
    started=False,
    run=run,
    full={"400 at 50": {"calls": 400, "threads": 50, "seconds": 0.6, "rounds": 3}},
    quick={"400 at 50": {"calls": 400, "threads": 50, "seconds": 0.1, "rounds": 3}},
    tiny={"8 at 4": {"calls": 8, "threads": 4, "seconds": 0.05, "rounds": 1}},
    note="Memory is that of all processes, the program with its libraries included.",
)
