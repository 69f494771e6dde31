"""The 22 queries of TPC-H, compared with what pandas gives, and timed.

``python -m benchmarks.tpch`` makes the tables of scale factor 1 (a minute, and 1 GB in
``build/tpch``), runs each query with pandas, with the threads of Dask and with mars, one after the
other, and prints seconds and totals. Each run reads its files. It exits with 1 if an answer of mars
is wrong.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.tpch import tables
from benchmarks.tpch.queries import QUERIES, Answer


class Tables:
    """The tables by name; each is opened when a query asks for it."""

    def __init__(self, home: Path, scale: float, read: Callable[[str], Any]) -> None:
        self._home, self._read, self.scale = home, read, scale
        self._opened: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in tables.NAMES:
            raise AttributeError(name)
        if name not in self._opened:
            self._opened[name] = self._read(str(self._home / name))
        return self._opened[name]


def by_pandas(home: Path, scale: float, query: Callable[[Any, Any], Answer]) -> Any:
    return _finished(query(Tables(home, scale, pd.read_parquet), pd), lambda frame: frame)


def by_dask(home: Path, scale: float, query: Callable[[Any, Any], Answer]) -> Any:
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.shuffle.method": "tasks", "scheduler": "threads"}):
        answer = query(Tables(home, scale, dd.read_parquet), dd)
        return _finished(answer, lambda frame: frame.compute())


def by_mars(home: Path, scale: float, query: Callable[[Any, Any], Answer]) -> Any:
    import mars.dataframe as md

    answer = query(Tables(home, scale, md.read_parquet), md)
    return _finished(answer, lambda frame: frame.execute(show_progress=False).fetch())


def _finished(answer: Answer, value: Callable[[Any], Any]) -> Any:
    """The answer in its order, of so many rows. That is little work, and pandas does it."""
    made = value(answer.frame) if hasattr(answer.frame, "dtype") or answer.by else answer.frame
    if not answer.by:
        return float(made if not hasattr(made, "execute") else made.execute().fetch())
    made = made.sort_values(answer.by, ascending=answer.ascending)
    return made.head(answer.limit) if answer.limit else made


def wrong(got: Any, wanted: Any, answer_by: list[str]) -> str | None:
    """What is wrong with an answer; None: nothing. Rows that are equal may change places."""
    if isinstance(wanted, float):
        return None if np.isclose(got, wanted, rtol=1e-9) else f"{got} instead of {wanted}"
    if list(got.columns) != list(wanted.columns) or len(got) != len(wanted):
        return f"{len(got)} rows of {list(got.columns)} instead of {len(wanted)}"
    for name in wanted.columns:
        one, two = got[name].to_numpy(), wanted[name].to_numpy()
        if wanted[name].dtype.kind == "f":
            same = np.allclose(one.astype(float), two, rtol=1e-9)
        else:
            same = bool((one == two).all())
        if not same:
            return f"column {name} differs"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="scale factor (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path("build/tpch"))
    parser.add_argument("--queries", type=int, nargs="*", default=list(QUERIES))
    parser.add_argument("--without", nargs="*", default=[], choices=["dask", "pandas", "mars"])
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many (default: 1)")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    home = tables.made(chosen.folder, chosen.scale)
    systems: dict[str, Callable[..., Any]] = {"pandas": by_pandas, "dask": by_dask, "mars": by_mars}
    for name in chosen.without:
        del systems[name]
    if "mars" in systems:
        import mars

        mars.new_session()
    total = dict.fromkeys(systems, 0.0)
    failed = 0
    print("query  " + "".join(f"{name:>10}" for name in systems))
    for number in chosen.queries:
        answers: dict[str, Any] = {}
        spent: dict[str, float] = {}
        for name, run in systems.items():
            for _ in range(chosen.rounds):
                gc.collect()
                start = time.perf_counter()
                answers[name] = run(home, chosen.scale, QUERIES[number])
                spent[name] = min(spent.get(name, 1e9), time.perf_counter() - start)
            total[name] += spent[name]
        said = ""
        for name in systems:
            if "pandas" in answers and name != "pandas":
                problem = wrong(answers[name], answers["pandas"], [])
                if problem:
                    failed += name == "mars"
                    said += f"  {name}: {problem}"
        print(f"q{number:<6}" + "".join(f"{spent[name]:10.2f}" for name in systems) + said)
        sys.stdout.flush()
    print("total  " + "".join(f"{total[name]:10.2f}" for name in systems))
    if "mars" in systems:
        mars.stop_server()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
