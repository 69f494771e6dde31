"""How well runs are predicted: `make bench-what-if`, or ``python -m benchmarks.what_if``.

Five programs run on one core and on two: both programs of `examples/`, at a small size, and a tree,
chains and a map. From the record of each run the other one is predicted. Each program runs several
times, in turn, and the median of what was measured and of what was predicted counts. Then the
article's case: the 36 models of `examples/model_search.py` on ten machines of eight cores, from a
run here. ``--json`` keeps what was found; `benchmarks.report` puts it on the page.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import mars
import mars.remote as mr
from benchmarks import machine
from benchmarks.turns import save
from mars.report.record import Record, record_of
from mars.report.what_if import ASSUMPTIONS, what_if

LIMIT: Final = 0.10
"""The largest error for calls of 10 ms and more."""


def spin(seconds: float, *inputs: object) -> float:
    """Be on a processor for so long; a negative time is slept."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    time.sleep(max(0.0, -seconds))
    return seconds


def monte_carlo(scale: float) -> Any:
    """`examples/monte_carlo_pi.py`: its 20 chunks, with fewer points, and what reads them."""
    from examples import monte_carlo_pi as example

    points = int(1_000_000 * scale)
    chunks = [mr.spawn(example.calc_chunk, (points, n)) for n in range(20)]
    return mr.spawn(example.calc_pi, (chunks, 20 * points))


def model_search(scale: float, rows: int = 800) -> Any:
    """`examples/model_search.py`: its 36 models, with fewer rows and trees if asked for."""
    from examples import model_search as example

    data = mr.spawn(example.gen_data, (None, rows), n_output=4)
    return mr.ExecutableTuple([
        mr.spawn(train, args=tuple(data), kwargs=params)
        for _, train, params in example.candidates(scale)
    ])  # fmt: skip


def tree(scale: float) -> Any:
    """Sixteen leaves, joined two by two."""
    level = [mr.spawn(spin, 0.03 * scale) for _ in range(16)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [mr.spawn(spin, (0.03 * scale, *pair)) for pair in pairs]
    return level[0]


def chains(scale: float) -> Any:
    """Three chains beside each other."""
    ends = []
    for _ in range(3):
        end = mr.spawn(spin, 0.02 * scale)
        for _ in range(9):
            end = mr.spawn(spin, (0.02 * scale, end))
        ends.append(end)
    return mr.ExecutableTuple(ends)


def items(scale: float) -> Any:
    """A map of 100 items."""
    return mr.map(spin, [0.012 * scale] * 100)


def small_search(scale: float) -> Any:
    """The same with a tenth of its trees."""
    return model_search(0.1 * scale)


PROGRAMS: Final[dict[str, Callable[[float], Any]]] = {
    "monte_carlo_pi": monte_carlo,
    "model_search": small_search,
    "tree": tree,
    "chains": chains,
    "map": items,
}


def measured(cores: int, make: Callable[[float], Any], scale: float) -> Record:
    """The record of one run on workers that are there and have imported what they need."""
    with mars.new_session(n_cpu=cores, default=False) as session:
        warm = mr.ExecutableTuple([mr.spawn(spin, 0.05) for _ in range(4 * cores)])
        warm.execute(session=session, show_progress=False)
        for _ in range(2):
            make(scale).execute(session=session, show_progress=False)
        table = session.engine.table()
        last = max(number for number, run in table.runs.items() if not run[1])
        return record_of(table, session.session_id, last)


def wall_s(record: Record) -> float:
    """What its run took."""
    (run,) = [one for one in record.runs.values() if not one.depth]
    assert run.ended is not None
    return run.ended - run.began


def compared(rounds: int, scale: float, sleep: bool) -> Iterator[dict[str, Any]]:
    """For each program and each direction: predicted, measured, error."""
    for name, make in PROGRAMS.items():
        if sleep and make in (monte_carlo, small_search):
            continue  # they compute
        records: dict[int, list[Record]] = {1: [], 2: []}
        for _ in range(rounds):
            for cores, some in records.items():
                some.append(measured(cores, make, scale))
        for there, here in ((1, 2), (2, 1)):
            predicted = median(what_if(one, 1, here).asked.wall_s for one in records[there])
            real = median(map(wall_s, records[here]))
            yield {
                "program": name, "from cores": there, "to cores": here, "predicted_s": predicted,
                "measured_s": real, "error": predicted / real - 1,
            }  # fmt: skip


def article(rows: int, cores: int) -> dict[str, Any]:
    """36 models on 10 x 8 cores, predicted from a run of so many rows on this machine's cores."""
    with mars.new_session(n_cpu=cores, default=False) as session:
        model_search(1.0, rows).execute(session=session, show_progress=False)
        found = session.what_if(10, 8)
    return {
        "rows": rows, "cores": cores,
        "measured_s": found.measured_s, "predicted_s": found.asked.wall_s,
        "speedup": found.measured_s / found.asked.wall_s, "knee": found.knee.nodes,
        "assumed": list(ASSUMPTIONS),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if an error is larger than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much longer all calls are")
    parser.add_argument(
        "--sleep",
        action="store_true",
        help="calls sleep: what others do on the machine matters less",
    )
    parser.add_argument(
        "--article-rows", type=int, default=61_878,
        help="rows of the article's case (default: all 61 878; 0: leave it out)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write what was found there")
    options = parser.parse_args(argv)
    busy = machine.busy_cores(1.0)
    scale = -options.scale if options.sleep else options.scale
    print(f"{'program':<16}{'from':>6}{'to':>4}{'predicted':>12}{'measured':>12}{'error':>9}")
    rows = []
    for row in compared(options.rounds, scale, options.sleep):
        rows.append(row)
        print(
            f"{row['program']:<16}{row['from cores']:>6}{row['to cores']:>4}"
            f"{row['predicted_s']:>10.3f} s{row['measured_s']:>10.3f} s{row['error']:>+9.1%}",
            flush=True,
        )
    case = None
    if options.article_rows:
        case = article(options.article_rows, min(2, os.cpu_count() or 1))
        print(
            f"\n36 models, {case['rows']:,} rows, on 10 x 8 cores: {case['predicted_s']:.2f} s "
            f"instead of {case['measured_s']:.2f} s on {case['cores']} cores, "
            f"{case['speedup']:.1f} times faster; assumed:"
        )
        for line in case["assumed"]:
            print(f"  - {line}")
    if options.json is not None:
        save(
            options.json, busy, rows, rounds=options.rounds, sleep=options.sleep, limit=LIMIT,
            article=case,
        )  # fmt: skip
    return int(any(abs(row["error"]) > LIMIT for row in rows))


if __name__ == "__main__":
    sys.exit(main())
