"""JSON lines -> the results page. `python -m benchmarks.report RUN.jsonl... [--output PAGE.md]`.

Losses stand in the same column as wins. Called by `__main__` after a run, and by `make bench-page`
to write `docs/benchmarks.md` from the measurements in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import cases, peers
from benchmarks.case import Case
from benchmarks.figures import (
    BARE,
    GROWTH,
    OURS,
    TARGETS,
    Record,
    Results,
    Row,
    Verdict,
    costs,
    judge,
    load_of,
    times_better,
)
from benchmarks.runner import LEAST_ROUNDS, SHARE_S

NOISY_CORES: Final = 0.25
"""Load by others from which a row is marked."""

METHOD: Final = f"""
## How it was measured

- **One question per file** in `benchmarks/cases/`, one adapter per file in `benchmarks/peers/`.
  What the tasks do stands in `benchmarks/workload.py` and is the same for everybody.
- **Taking turns.** A few neighbouring cases go round and round through all peers, each round
  beginning with another one, so that a slow minute of the machine falls on everybody. The tables
  show the median over the rounds, the smallest and the largest value.
- **A fresh process for each peer and round.** The peer starts, runs 64 empty tasks, and only then
  is asked those cases, except where starting is the question. Where memory that is warm already
  would answer, each case and size has a process of its own. Whatever a peer leaves behind is ended
  before the next one starts.
- **Nobody waits for the slowest.** Each size has a time budget, which stands in its file. Small
  runs first tell what a peer can do. One that is slower gets a smaller problem (*cut to* says how
  small); if not even half of it fits, it is left out, and its row says how long it would have
  taken. Ours is under the same rule. A peer gets {LEAST_ROUNDS} rounds of a case, and up to the
  run's number as long as all of them took less than {SHARE_S:g} s.
- **Everybody's best way.** Futures as arguments where a runtime takes them; level by level, in one
  message for each worker, where it does not; each runtime's own chunks, stores and shared memory.
  Ours runs as it comes: logs, timestamps and fault handling cannot be turned off, and are not.
- **Results are checked.** A wrong answer is no measurement.
- Working threads of numerical libraries are set to one for everybody, and numpy is loaded before
  the cases about arrays begin. Ray's workers run at nice 15
  unless told otherwise, which hands the machine to everybody else: here they are told.

## How far to trust it

- Two workers on few cores of a virtual machine say little about large machines and nothing about
  clusters, which is what Ray, Dask and Parsl are made for.
- Neighbours closer than their min .. max are equal.
- Fine-grained numbers move by a factor of two with where the system places processes: a message to
  a process on the same core takes a fifth of what one to another, idle core takes.
- ‡ marks rows during which others used more than {NOISY_CORES} cores. Ray's daemons leave no
  record of their CPU time, so Ray is judged by the load just before it starts.
- † marks rows that were measured in another run than ours.
- Pools do less than the others: no graphs, no logs of a call, no second attempt when a worker
  dies. Their rows show what that buys.
- `python -m benchmarks --cases CASE --peers PEER,PEER` repeats any row; `make bench` repeats all.
""".strip()


def number(value: float) -> str:
    """Three digits that matter."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")
    return f"{value:.3g}"


def count(value: float) -> str:
    """All digits, of something that was counted."""
    return f"{value:,.0f}".replace(",", " ")


def headline(record: Record) -> str:
    """One line of progress."""
    where = f"{record['case']:17} {record['variant']:22} {record['peer']:12} #{record['round']}"
    if record["outcome"] != "ok":
        return f"{where}  {record['outcome']}: {record.get('detail', '')}"
    figures = "  ".join(f"{name}={number(value)}" for name, value in record["metrics"].items())
    return f"{where}  {figures}  (load {load_of(record):.2f})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table; what cells say cannot break it."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in row)} |"


def ratio(times: float | None) -> str:
    """How many times better ours is. A loss is as easy to see as a win."""
    if times is None:
        return ""
    return f"{number(times)} ×" if times >= 1 else f"**{times:.2g} × (behind)**"


# -- the tables of cases --------------------------------------------------------------------------


def _notes(case: Case, row: Row) -> list[str]:
    notes = []
    for name in row.good[0]["metrics"]:
        value = row.median(name)
        if value is None or name == case.metric:
            continue
        asked = row.good[0].get("asked")
        if name == case.size:
            if asked is not None and value < asked:
                notes.append(f"cut to {count(value)} of {count(asked)}")
        else:
            notes.append(f"{name} {number(value)}")
    # A peer that failed in some rounds must not look like one that never did.
    return notes + [f"round {r['round']} {r['outcome']}" for r in row.records if r not in row.good]


def _row(case: Case, row: Row, ours: Row | None) -> list[str]:
    median = row.median(case.metric)
    if median is None:
        last = row.records[-1]
        return [row.peer, f"{last['outcome']}: {last.get('detail', '')}", "", "", "", ""]
    values = row.values(case.metric)
    own = ours.median(case.metric) if ours else None
    ranked = row.peer not in (OURS, BARE) and own is not None
    marks = " ‡" if row.load() > NOISY_CORES else ""
    marks += " †" if ours and row.run != ours.run else ""
    return [
        row.peer,
        number(median) + marks,
        f"{number(min(values))} .. {number(max(values))}",
        str(len(values)),
        ratio(times_better(case.better, own, median)) if ranked and own is not None else "",
        ", ".join(_notes(case, row)),
    ]


def case_lines(name: str, results: Results) -> Iterator[str]:
    """One case with all its variants, best first."""
    case = cases.load(name)
    yield from ["", f"### {name}", "", f"{case.question} ({case.metric}, {case.better} is better)"]
    if case.note:
        yield from ["", case.note]
    if case.bare:
        yield from ["", f"`bare`: {case.bare}."]
    for variant in results.variants(name):
        rows = results.rows(name, variant)

        def rank(row: Row) -> tuple[bool, float]:
            median = row.median(case.metric)
            if median is None:
                return True, 0.0
            return False, -median if case.better == "higher" else median

        cells = [_row(case, row, rows.get(OURS)) for row in sorted(rows.values(), key=rank)]
        if case.limit and (limit := _limit(case.limit, results)) is not None:
            cells.insert(0, [f"the machine's {case.limit}", number(limit), "", "", "", ""])
        yield from ["", f"**{variant}**", ""]
        yield from table(
            ["peer", case.metric, "min .. max", "rounds", "ours is better by", "also"], cells
        )


def _limit(metric: str, results: Results) -> float | None:
    for variant in results.variants("physical_limits"):
        return results.median("physical_limits", variant, BARE, metric)
    return None


# -- the tables over cases ------------------------------------------------------------------------


def _verdict(verdict: Verdict) -> list[str]:
    target = verdict.target
    sign, unit = ("≥" if target.better == "higher" else "≤"), target.unit and f" {target.unit}"
    if target.peer:
        name = {"best": "the best peer", BARE: "bare processes"}.get(target.peer, target.peer)
        aim = f"{sign} {name}"
        if target.factor != 1:
            aim += f" {'×' if target.better == 'higher' else '÷'} {target.factor:g}"
        if verdict.limit is not None:
            aim += f" ({number(verdict.limit)})"
    else:
        assert target.value is not None
        aim = f"{sign} {number(target.value)}{unit}"
    best = f"{verdict.best[0]} {number(verdict.best[1])}" if verdict.best else ""
    said = {True: "yes", False: "**no**", None: ""}[verdict.reached]
    ours = "not in this run" if verdict.ours is None else number(verdict.ours)
    return [f"{target.what} ({target.metric})", aim, ours, said, best, ratio(verdict.times)]


def target_lines(results: Results) -> Iterator[str]:
    """What this project wants to reach, and where it stands."""
    verdicts = [judge(target, results) for target in TARGETS]
    known = [verdict for verdict in verdicts if verdict.reached is not None]
    reached = sum(verdict.reached is True for verdict in known)
    yield from ["", "## Targets", ""]
    yield (
        f"What this project set out to reach, beside the best peer of the same table below. "
        f"Reached: {reached} of {len(known)}"
        + (
            f"; not in these runs: {len(verdicts) - len(known)}."
            if len(verdicts) > len(known)
            else "."
        )
    )
    yield ""
    yield from table(
        ["case", "target", "ours", "reached", "best peer", "ours is better by"],
        map(_verdict, verdicts),
    )
    reasons: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.reached is False and verdict.target.why:
            reasons.setdefault(verdict.target.why, []).append(verdict.target.what)
    if reasons:
        yield from ["", "What keeps ours from those that are missed:", ""]
    for why, missed in reasons.items():
        yield f"- *{'; '.join(missed)}*. {why}"


def growth_lines(results: Results) -> Iterator[str]:
    """What one costs, by how many there are."""
    found = {growth: dict(costs(growth, results)) for growth in GROWTH}
    sizes = sorted({size for by_size in found.values() for size in by_size})
    if not sizes:
        return
    yield from ["", "## How cost grows", ""]
    yield (
        "Ours: what one costs when there are so many. Linear growth is a row of equal numbers; a "
        "first number that is larger is what starting costs."
    )
    yield ""
    yield from table(
        ["cost of", "unit", *(count(size) for size in sizes), "last ÷ first"],
        (
            [
                growth.what,
                growth.unit,
                *(number(by_size[size]) if size in by_size else "" for size in sizes),
                number(list(by_size.values())[-1] / next(iter(by_size.values())))
                if len(by_size) > 1
                else "",
            ]
            for growth, by_size in found.items()
            if by_size
        ),
    )


def machine_lines(results: Results) -> Iterator[str]:
    """Where and when."""
    yield from ["", "## Machine and versions", ""]
    for number_, head in enumerate(results.heads):
        seconds = results.seconds.get(number_)
        facts = [
            head["processor"],
            f"{head['cores']} cores",
            head["memory"],
            head["system"],
            f"Python {head['python']}",
            f"{head['workers']} workers",
            f"{head['rounds']} rounds",
            f"commit {head['commit']}",
        ]
        facts += [f"{seconds / 60:.0f} minutes"] if seconds is not None else ["not finished"]
        yield f"- {head['time']}: {', '.join(facts)}"
        yield "- " + ", ".join(f"{name} {text}" for name, text in head["versions"].items())
    yield ""
    yield "How each is used:"
    yield ""
    asked = {name for head in results.heads for name in head["versions"]}
    for name in peers.NAMES:
        if name in asked:
            words = inspect.getdoc(peers.adapter(name)) or ""
            yield f"- `{name}`: {words.splitlines()[0]}"


def render(records: Iterable[Record]) -> str:
    """The results page."""
    results = Results(records)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench-page` from measurements; do not edit. Ours is `mars`; the peers",
        "are what people use today, in the versions named below, each in its best way.",
    ]
    if any(head["size"] != "full" for head in results.heads):
        lines += ["", "**Small sizes and few rounds: to see that all works, not to be quoted.**"]
    lines += [*target_lines(results), *growth_lines(results), *machine_lines(results), "", METHOD]
    lines += ["", "## Cases"]
    for name in results.cases():
        lines += case_lines(name, results)
    return "\n".join(lines) + "\n"


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """All records of some runs, in order."""
    return [
        json.loads(line)
        for path in paths
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def main() -> None:
    """Write the page for stored measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="JSON lines, oldest run first")
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args()
    page = render(read(options.runs))
    if options.output:
        options.output.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
