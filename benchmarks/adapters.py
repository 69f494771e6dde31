"""The adapters beside what they stand in for: joblib's loky, executors, Dask, plain pandas.

``python -m benchmarks.adapters`` runs each program on mars and on its peers in turns, in one
process with warm workers. Each turn begins with another one. It prints medians with the least and
the most of all turns, and how many times as long as mars a peer takes: the median of the turns' own
ratios, so that a slow minute of the machine falls on both. ``--adapters joblib dask`` chooses some.

Every process gets one thread for numeric libraries, as calls on one core each have.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.case import Params, seconds_for
from benchmarks.turns import in_turns, median_ratio, save

CORES: Final = 2
OURS: Final = "mars"
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Way = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Program:
    """One program, on mars and on what else runs it."""

    adapter: str
    name: str
    ways: Mapping[str, Way]
    """By the name of the system; ours is called "mars"."""
    most_turns: int | None = None
    """At the most so many count, where a peer takes minutes for each; None: all."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the turns of a program took, in seconds, by the name of the system."""

    adapter: str
    program: str
    seconds: Mapping[str, Sequence[float]]

    def ratio(self, peer: str) -> float:
        """How many times as long as mars a peer takes."""
        return median_ratio(self.seconds[peer], self.seconds[OURS])


def measured(program: Program, turns: int) -> Row:
    """Run a program on each system, turn after turn, once more than is counted."""
    names = list(program.ways)
    for name in names:
        program.ways[name]()  # workers start, and load what they need
    turns = min(turns, program.most_turns or turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in in_turns(names, turns):
        seconds[name].append(seconds_for(program.ways[name]))
    return Row(program.adapter, program.name, seconds)


# -- the programs ---------------------------------------------------------------------------------


def joblib_programs(tiny: bool) -> Generator[Program, None, None]:
    """Searches, forests, short calls and large arrays, on mars, loky and threads."""
    import joblib

    import mars.joblib  # noqa: F401 (registers the name)
    from benchmarks.cases.joblib_backends import CASE, WORK

    def on(backend: str, work: Way) -> object:
        with joblib.parallel_config(backend, n_jobs=CORES):
            return work()

    sizes: Mapping[str, Params] = CASE.tiny if tiny else CASE.full
    for name, params in sizes.items():
        work, _ = WORK[params["work"]](params, CORES)
        backends = (OURS, "loky", "threading")
        yield Program("joblib", name, {one: partial(on, one, work) for one in backends})


def _stream(executor: Any, calls: int) -> None:
    futures = [executor.submit(abs, -number) for number in range(calls)]
    assert [future.result() for future in futures] == list(range(calls))


def _round_trips(executor: Any, calls: int) -> None:
    for number in range(calls):
        assert executor.submit(abs, -number).result() == number


def _array_sum(array: Any) -> float:
    return float(array[:: 1 << 16].sum())


def _large(executor: Any, array: Any, calls: int) -> None:
    assert len(set(executor.map(_array_sum, [array] * calls))) == 1


def executor_programs(tiny: bool) -> Generator[Program, None, None]:
    """Submits one by one, round trips and large arguments, on mars, the standard pool and loky."""
    from concurrent.futures import ProcessPoolExecutor

    import numpy as np
    from joblib.externals.loky import ProcessPoolExecutor as Loky

    import mars

    calls, trips, mib = (20, 5, 1) if tiny else (3_000, 500, 64)
    array = np.ones(mib * 2**17)
    with mars.Executor(CORES) as ours, ProcessPoolExecutor(CORES) as plain, Loky(CORES) as loky:
        pools = {OURS: ours, "ProcessPoolExecutor": plain, "loky": loky}
        for name, run in {
            f"{calls} submits, then all results": partial(_stream, calls=calls),
            f"{trips} round trips": partial(_round_trips, calls=trips),
            f"map over 8 arrays of {mib} MiB": partial(_large, array=array, calls=8),
        }.items():
            yield Program("Executor", name, {one: partial(run, pools[one]) for one in pools})


def dask_programs(tiny: bool) -> Generator[Program, None, None]:
    """Arrays and frames, on mars and on Dask's threads; large graphs also on distributed."""
    import dask
    from distributed import Client

    import mars.dask
    from benchmarks import dask_collections

    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        for name, make in ({} if tiny else dask_collections.cases()).items():
            collection = make()
            yield Program(
                "Dask",
                name,
                {one: partial(collection.compute, scheduler=one) for one in (OURS, "threads")},
            )
    parts, leaves = (3, 20) if tiny else (97, 100_000)
    with Client(n_workers=CORES, threads_per_worker=1, dashboard_address=None) as client:
        for what, (graph, keys) in (
            ("shuffle", dask_collections.shuffle(parts)),
            ("tree", dask_collections.tree(leaves)),
        ):
            # "synchronous" is the work of the tasks, one after the other: what is left is overhead.
            gets = {OURS: mars.dask.get, "distributed": client.get, "synchronous": dask.get}
            ways = {one: partial(get, graph, keys) for one, get in gets.items()}
            yield Program("Dask", f"{what} of {len(graph):,} tasks".replace(",", " "), ways, 2)


def pandas_programs(tiny: bool) -> Generator[Program, None, None]:
    """Python functions on rows, values and groups, on mars and in pandas itself."""
    import numpy as np
    import pandas as pd

    import mars.pandas
    from benchmarks.dask_collections import slow

    rows = 200 if tiny else 100_000
    numbers = np.random.default_rng(0)
    frame = pd.DataFrame({"k": numbers.integers(0, 500, rows), "v": numbers.random(rows)})
    groups = frame.groupby("k")["v"]
    by_row: Callable[[Any], float] = lambda row: row["v"] * 2 + slow(row["k"])
    by_group: Callable[[Any], int] = lambda group: sum(map(slow, group))
    yield Program("pandas", f"apply on {rows} rows", {
        OURS: lambda: frame.apply(by_row, axis=1, engine=mars.pandas),
        "pandas": lambda: frame.apply(by_row, axis=1),
    })  # fmt: skip
    yield Program("pandas", f"map over {rows} values", {
        OURS: lambda: frame["v"].map(slow, engine=mars.pandas),
        "pandas": lambda: frame["v"].map(slow),
    })  # fmt: skip
    yield Program("pandas", "apply on 500 groups", {
        OURS: lambda: mars.pandas.apply_groups(groups, by_group),
        "pandas": lambda: groups.apply(by_group),
    })  # fmt: skip


ADAPTERS: Final[Mapping[str, Callable[[bool], Generator[Program, None, None]]]] = {
    "joblib": joblib_programs,
    "executor": executor_programs,
    "dask": dask_programs,
    "pandas": pandas_programs,
}


# -- what is printed ------------------------------------------------------------------------------


def spread(seconds: Sequence[float]) -> str:
    """Median of some times, with the least and the most."""
    median = statistics.median(seconds)
    digits = 3 if median < 1 else 2
    return f"{median:.{digits}f} s ({min(seconds):.{digits}f} .. {max(seconds):.{digits}f})"


def lines(row: Row) -> Iterator[str]:
    """The rows of the table for one program: one for each peer."""
    ours = spread(row.seconds[OURS])
    for peer in row.seconds:
        if peer != OURS:
            theirs, ratio = spread(row.seconds[peer]), row.ratio(peer)
            yield f"| {row.adapter} | {row.program} | {ours} | {peer} | {theirs} | {ratio:.2f} |"


def main(argv: list[str] | None = None) -> None:
    """Print the table of all adapters, or of those that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--adapters", nargs="+", choices=ADAPTERS, default=list(ADAPTERS))
    parser.add_argument("--turns", type=int, default=7, help="runs that count (default: 7)")
    parser.add_argument("--tiny", action="store_true", help="does it work? no numbers")
    parser.add_argument("--json", type=Path, help="also write all times there")
    options = parser.parse_args(argv)
    os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy and all workers
    import mars

    warnings.simplefilter("ignore")
    busy = machine.busy_cores(1.0)
    print(f"Before, others kept {busy:.1f} of {os.cpu_count()} cores busy.\n")
    print("| adapter | program | mars: median (least .. most) | peer | peer | peer ÷ mars |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows: list[Row] = []
    # The programs of one adapter at a time: their workers are gone before the next ones come.
    for adapter in options.adapters:
        with (
            mars.new_session(n_cpu=CORES),
            contextlib.closing(ADAPTERS[adapter](options.tiny)) as made,
        ):
            for program in made:
                rows.append(measured(program, options.turns))
                print("\n".join(lines(rows[-1])), flush=True)
    if options.json is not None:
        told = [
            {"adapter": one.adapter, "program": one.program, "seconds": dict(one.seconds)}
            for one in rows
        ]
        save(options.json, busy, told, turns=options.turns)


if __name__ == "__main__":
    main()
