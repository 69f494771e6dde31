"""JSON lines -> the results page. `python -m benchmarks.report RUN.jsonl... [--output PAGE.md]`.

Losses stand in the same column as wins. Called by `__main__` after a run, and by `make bench-page`
to write `docs/benchmarks.md` and `docs/plots/` from the measurements in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import cases, chaos, peers, plots
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

PLOT_FOLDER: Final = "plots"
BUSY: Final = (
    "**The machine was busy, so two cores gave less than twice what one gives. The errors are an "
    "upper limit; measure again where it is quiet.**"
)
PREDICTED: Final = "what-if.json"  # as `benchmarks.what_if --json` writes it
"""Beside the runs."""

UNDER_FIRE: Final = "under_fire"  # runs of `benchmarks.chaos --json`
"""A folder beside the runs."""

READ_IT: Final = """
- *mars* runs with its defaults: a call survives three deaths. With one attempt in twenty killed,
  one call in 160 000 dies a fourth time. So about one run in sixteen of this length ends with a
  `WorkerDied` for one call, and counts as failed.
- *ppe* (`ProcessPoolExecutor`) and *loky* break as a whole. The program makes a new executor and
  submits again what was lost. It holds 32 calls at a time, so that few are lost with it.
- *ray* has `max_retries=-1`. *dask* has `allowed_failures=10000`, and its results are fetched as
  they come.
- Only workers that have run a call are killed. So a worker that takes seconds to start is spared
  meanwhile. A program that loses a worker each hour, and not five each second, sees none of these
  differences. A row of what did not finish does not say how far it comes on a quiet machine.
- What was begun again after its end had signed as ended. Between this moment and the moment when
  its result is kept, a call can still lose its worker.
- The calls sleep, so the added time does not depend on free cores. With `--spin` they compute.
""".strip()
"""How to read the table of `under_fire_lines`."""

METHOD: Final = f"""
## How it was measured

- **One question per file.** Each file in `benchmarks/cases/` asks one question. Each file in
  `benchmarks/peers/` is the adapter of one peer. The tasks stand in `benchmarks/workload.py` and
  are the same for all peers.
- **The peers take turns.** In each round all peers run a few neighbouring cases, and each round
  begins with another peer. So a slow minute of the machine hits all of them. The tables show the
  median over the rounds, and the smallest and the largest value.
- **Each peer has a fresh process in each round.** The peer starts and runs 64 empty tasks before it
  is asked the cases, except where starting is the question. Where warm memory would change the
  answer, each case and size has a process of its own. Processes that a peer leaves behind are ended
  before the next peer starts.
- **Each size has a time budget,** which stands in its file. Small runs first find out how fast a
  peer is. A slower peer gets a smaller problem, and *cut to* says how small. If not even half of it
  fits into the budget, the peer is left out, and its row says how long it would have taken. The
  rule holds for mars as well. A peer gets {LEAST_ROUNDS} rounds of a case. It gets more, up to the
  number of the run, as long as all of them together took less than {SHARE_S:g} s.
- **Each peer is used in its best way.** A peer that takes futures as arguments gets them. Other
  peers run level by level, with one message for each worker. Each peer uses its own chunks, stores
  and shared memory. mars runs with its defaults: its logs, timestamps and fault handling cannot be
  switched off.
- **Results are checked.** A wrong answer is no measurement.
- Numerical libraries have one working thread for all peers, and numpy is loaded before the cases
  about arrays begin. Ray's workers run at nice 15 by default, which gives the machine to all other
  processes. Here they run at normal priority.

## How far to trust it

- Two workers on a virtual machine with few cores say little about large machines. They say nothing
  about clusters, and Ray, Dask and Parsl are made for clusters.
- Two rows are equal if their medians are closer to each other than the range min .. max.
- Numbers of small tasks change by a factor of two with the cores on which the system places the
  processes. A message to a process on the same core takes a fifth of the time of a message to
  another, idle core.
- ‡ marks rows during which other processes used more than {NOISY_CORES} cores. Ray's daemons leave
  no record of their CPU time, so Ray is judged by the load just before it starts.
- † marks rows that were measured in another run than the row of mars.
- Pools do less than the other peers: they have no graphs, no log of a call, and no second attempt
  when a worker dies. Their rows show how much time that saves.
- `python -m benchmarks --cases CASE --peers PEER,PEER` repeats any row. `make bench` repeats all.
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
        f"These are the goals of this project, next to the best peer of the same table below. "
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
        yield from ["", "Why mars misses the others:", ""]
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
        "The cost of one call, item or argument of mars, by how many there are. If the cost grows "
        "linearly, all numbers of a row are equal. A larger first number is the cost of starting."
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


def plot_lines(results: Results, folder: str) -> Iterator[str]:
    """The plots, which are in a folder beside the page."""
    yield from ["", "## Plots", ""]
    yield (
        "Bars are medians. The line on a bar goes from the smallest to the largest measurement. "
        "The red bar is `mars`. The grey bar is `bare`, the machine without any runtime. The "
        "tables under [Cases](#cases) have all numbers."
    )
    for title, name, _ in plots.plots(results):
        yield from ["", f"![{title}]({folder}/{name})"]


def what_if_lines(found: dict[str, Any]) -> Iterator[str]:
    """How well runs were predicted, and the article's case."""
    yield from [
        "", "## Predictions", "",
        (
            "`session.what_if` predicts from one run how long it would take on other machines. "
            f"Each program ran {found['rounds']} times on one core and on two; the medians are "
            f"compared. `make bench-what-if` fails if an error is above {found['limit']:.0%}. "
            f"Measured {found['time']}, commit {found['commit']}, while others kept "
            f"{found['busy_cores']:g} of {found['cores']} cores busy."
        ),
        *(["", BUSY] if found["busy_cores"] > 0.25 * found["cores"] else []),
        "",
    ]  # fmt: skip
    yield from table(
        ["program", "from", "to", "predicted", "measured", "error"],
        (
            [row["program"], _cores(row["from cores"]), _cores(row["to cores"]),
             f"{row['predicted_s']:.3f} s", f"{row['measured_s']:.3f} s", f"{row['error']:+.1%}"]
            for row in found["rows"]
        ),
    )  # fmt: skip
    case = found["article"]
    if case:
        yield from [
            "",
            (
                f"The article's case: the 36 models of `examples/model_search.py`, with "
                f"{case['rows']:,} of its 61,878 rows, took {case['measured_s']:.1f} s on "
                f"{_cores(case['cores'])}. On ten machines of eight cores they are predicted to "
                f"take {case['predicted_s']:.1f} s, {case['speedup']:.1f} times less; the most "
                f"machines on which four fifths of all cores' time is used are {case['knee']}. "
                f"Assumed:"
            ),
            "",
            *(f"- {line}" for line in case["assumed"]),
        ]


def under_fire_lines(records: list[dict[str, Any]]) -> Iterator[str]:
    """What is lost when workers are killed again and again, one table for each run."""
    yield from [
        "", "## Under fire", "",
        (
            "`make chaos` gives each system the same calls, undisturbed and then under fire: again "
            "and again it ends a random worker with SIGKILL, and checks that the kill worked. Each "
            "attempt signs in a ledger when it begins and when it ends. It holds a lock meanwhile, "
            "so that two attempts beside each other are noticed. Under fire a system has "
            f"{chaos.BEYOND[0]:g} times its undisturbed time and {chaos.BEYOND[1]:g} s more."
        ),
    ]  # fmt: skip
    begins = [number_ for number_, one in enumerate(records) if one["kind"] == "machine"]
    for begin, end in zip(begins, [*begins[1:], len(records)], strict=True):
        head, *found = records[begin:end]
        fire = next(one for one in found if one["every_s"] is not None)
        versions = ", ".join(f"{name} {text}" for name, text in head["versions"].items())
        yield from [
            "",
            (
                f"{head['time']}, commit {head['commit']}: {count(fire['tasks'])} calls of "
                f"{fire['task_s'] * 1000:g} ms that {'compute' if fire['spin'] else 'sleep'}, on "
                f"{fire['workers']} workers, with a kill every {fire['every_s'] * 1000:g} ms on "
                f"average, seed {fire['seed']}. {head.get('note', '')}"
            ).rstrip(),
            f"Python {head['python']}, {versions}.",
            "",
            chaos.render(found),
        ]
    yield from ["", READ_IT]


def _cores(number_: int) -> str:
    return "1 core" if number_ == 1 else f"{number_} cores"


def render(
    records: Iterable[Record],
    plot_folder: str | None = None,
    predicted: dict[str, Any] | None = None,
    under_fire: list[dict[str, Any]] | None = None,
) -> str:
    """The results page; with plots if they are in a folder beside it, and with what is given."""
    results = Results(records)
    lines = [
        "# Benchmarks",
        "",
        "`make bench-page` writes this page from measurements. Do not edit it. The page compares",
        "mars (*ours*) with what people use today (*peers*), in the versions named below, each in",
        "its best way.",
    ]
    if any(head["size"] != "full" for head in results.heads):
        lines += ["", "**Small sizes and few rounds: to see that all works, not to be quoted.**"]
    lines += target_lines(results)
    if plot_folder is not None:
        lines += plot_lines(results, plot_folder)
    lines += growth_lines(results)
    if predicted is not None:
        lines += what_if_lines(predicted)
    if under_fire:
        lines += under_fire_lines(under_fire)
    lines += [*machine_lines(results), "", METHOD]
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


def read_predicted(folder: Path) -> dict[str, Any] | None:
    """What `benchmarks.what_if` has found, if it is kept in a folder."""
    path = folder / PREDICTED
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_under_fire(folder: Path) -> list[dict[str, Any]]:
    """The runs of `benchmarks.chaos` that are kept in a folder."""
    return read(sorted((folder / UNDER_FIRE).glob("*.jsonl")))


def main() -> None:
    """Write the page for stored measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="JSON lines, oldest run first")
    parser.add_argument("--output", type=Path, help="default: standard output, without plots")
    options = parser.parse_args()
    records = read(options.runs)
    folder = options.runs[0].parent
    more = read_predicted(folder), read_under_fire(folder)
    if not options.output:
        print(render(records, None, *more), end="")
        return
    folder = options.output.parent / PLOT_FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for _, name, drawing in plots.plots(Results(records)):
        (folder / name).write_text(drawing, encoding="utf-8")
    options.output.write_text(render(records, PLOT_FOLDER, *more), encoding="utf-8")


if __name__ == "__main__":
    main()
