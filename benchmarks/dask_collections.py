"""Collections of Dask on mars, against Dask's threads and distributed.

``python -m benchmarks.dask_collections`` takes turns between mars and the threads of Dask, and
prints the best time of each. ``--overhead`` measures what a task of a large graph costs, with mars
and with distributed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil

import mars
import mars.dask

ROWS = 400_000
SIDE = (8000, 4000)


def slow(value: object) -> int:
    """Python code that holds the interpreter: some microseconds."""
    return sum(map(ord, str(value))) + sum(range(300))


def summary(group: Any) -> int:
    return sum(map(slow, group.v.to_numpy()))


def tables() -> Any:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"k": rng.integers(0, 500, ROWS), "v": rng.random(ROWS)})
    frame["o"] = pd.Series([f"row-{n}" for n in range(ROWS)], dtype=object)
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_pandas(frame, npartitions=8)


def cases() -> dict[str, Callable[[], Any]]:
    whole = np.random.default_rng(0).random(SIDE)
    d = tables()

    def array(rows: int, columns: int) -> Any:
        return da.from_array(whole, chunks=(rows, columns))

    def product() -> Any:
        x = array(2000, 1000)
        return (x.T @ x).sum()

    return {
        "random array made, scaled and summed, 256 MB": lambda: (
            (da.random.random(SIDE, chunks=(1000, 4000)) + 1) * 2
        ).sum(),
        "array of the program scaled, all back, 256 MB": lambda: (array(1000, 4000) + 1) * 2,
        "array of the program summed": lambda: array(1000, 4000).sum(),
        "array of the program, standard deviation": lambda: array(1000, 4000).std(axis=0),
        "x.T @ x, summed": product,
        "groupby, mean": lambda: d.groupby("k").v.mean(),
        "groupby, apply of Python": lambda: d.groupby("k").apply(summary, meta=(None, "i8")),
        "object column, map of Python": lambda: d.o.map(slow, meta=("o", "i8")).sum(),
        "map_partitions of Python": lambda: d.map_partitions(
            lambda part: part.v.map(slow), meta=("v", "i8")
        ).sum(),
    }


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def busy_s() -> tuple[float, list[float]]:
    """Processor time of this process, and of each worker that it has."""
    own = psutil.Process()
    workers = {one.pid: one.cpu_times() for one in own.children(recursive=True)}
    return sum(own.cpu_times()[:2]), [sum(times[:2]) for _, times in sorted(workers.items())]


def compare(rounds: int) -> None:
    """Best times; and processor time: of the threads, and of the program and the busiest worker.

    On free cores, the last is what a computation takes at least. Threads that hold the interpreter
    take all of theirs one after the other.
    """
    with mars.new_session(n_cpu=2, default=True):
        for name, make in cases().items():
            with dask.config.set({"dataframe.shuffle.method": "tasks"}):
                collection = make()
                walls = {"threads": 1e9, "mars": 1e9}
                used = {"threads": 1e9, "mars": 1e9}
                for number in range(rounds + 1):
                    for scheduler in ("threads", "mars"):
                        own, workers = busy_s()
                        took = timed(lambda: collection.compute(scheduler=scheduler))  # noqa: B023
                        own_after, workers_after = busy_s()
                        if not number:  # the first round starts workers and imports
                            continue
                        walls[scheduler] = min(walls[scheduler], took)
                        most = 0.0
                        if len(workers) == len(workers_after):
                            pairs = zip(workers, workers_after, strict=True)
                            most = max(after - before for before, after in pairs)
                        used[scheduler] = min(used[scheduler], own_after - own + most)
            ratio = walls["threads"] / walls["mars"]
            busy = " | ".join(f"{used[one]:.2f} s" for one in used)
            times = " | ".join(f"{walls[one]:.3f} s" for one in walls)
            print(f"| {name} | {times} | {ratio:.2f} | {busy} |", flush=True)


def increment(n: int) -> int:
    return n + 1


def tree(count: int) -> tuple[Any, Any]:
    level: list[Any] = [("leaf", i) for i in range(count // 2)]
    graph: dict[Any, Any] = {key: (increment, key[1]) for key in level}
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [("add", len(level), i) for i in range(len(pairs))]
        graph.update({key: (sum, pair) for key, pair in zip(level, pairs, strict=True)})
    return graph, level[0]


def shuffle(parts: int) -> tuple[Any, Any]:
    frame = pd.DataFrame({"k": np.arange(parts * 20), "v": np.arange(parts * 20.0)})
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        moved = dd.from_pandas(frame, npartitions=parts).shuffle("k", max_branch=1000).optimize()
    return dict(moved.__dask_graph__()), list(moved.__dask_keys__())


def overhead(system: str, get: Callable[[Any, Any], object]) -> None:
    get({f"a{i}": (increment, i) for i in range(8)}, [f"a{i}" for i in range(8)])
    graph, keys = shuffle(4)  # workers have started and imported by then
    get(graph, keys)
    for name, made in (("shuffle", shuffle(97)), ("tree", tree(100_000))):
        graph, keys = made
        start, (own, workers) = time.perf_counter(), busy_s()
        get(graph, keys)
        wall, (own_after, workers_after) = time.perf_counter() - start, busy_s()
        parts = (wall, own_after - own, sum(workers_after) - sum(workers))
        took, driver, others = [part / len(graph) * 1e6 for part in parts]
        print(
            f"{system}, {name} of {len(graph)} tasks, microseconds a task: {took:.0f} of wall "
            f"clock; processor time {driver:.0f} of the program, {others:.0f} of workers",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--overhead", action="store_true", help="cost of a task of a large graph")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    if not chosen.overhead:
        compare(chosen.rounds)
        return
    with mars.new_session(n_cpu=2, default=True):
        overhead("mars", mars.dask.get)
    overhead("synchronous", dask.get)
    from distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        overhead("distributed", client.get)


if __name__ == "__main__":
    main()
