"""JSON lines -> Markdown: medians, spread and ratios. `python -m benchmarks.report runs.jsonl`.

Losses stand in the same column as wins. Pure but for reading its input: called by `__main__` after
a run, and by hand to write the results page again from stored measurements.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import cases
from benchmarks.case import Case

OURS: Final = "mars"
BARE: Final = "bare"
"""Not a peer: what the machine does without any runtime. Never ranked."""

NOISY_CORES: Final = 0.25
"""Load by others from which a row is marked."""

UNCOUNTED: Final = ("ray",)
"""Peers whose daemons leave no record of their CPU time, so that they would count as others.
They are judged by the load just before they start."""

Record = Mapping[str, Any]


def load_of(record: Record) -> float:
    """Cores that others used, as far as can be known."""
    key = "load_before" if record["peer"] in UNCOUNTED else "load_during"
    return float(record[key])


def number(value: float) -> str:
    """Three digits that matter."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def headline(record: Record) -> str:
    """One line of progress."""
    where = f"{record['case']:17} {record['variant']:22} {record['peer']:12} #{record['round']}"
    if record["outcome"] != "ok":
        return f"{where}  {record['outcome']}: {record.get('detail', '')}"
    figures = "  ".join(f"{name}={number(value)}" for name, value in record["metrics"].items())
    return f"{where}  {figures}  (load {load_of(record):.2f})"


def _ratio(case: Case, ours: float, theirs: float) -> str:
    if not ours or not theirs:
        return "-"
    times = ours / theirs if case.better == "higher" else theirs / ours
    return f"{times:.3g} x" if times >= 1 else f"**{times:.2g} x** (behind)"


def _row(case: Case, peer: str, found: Sequence[Record], ours: float | None) -> list[str]:
    good = [record for record in found if record["outcome"] == "ok"]
    if not good:
        last = found[-1]
        return [peer, f"{last['outcome']}: {last.get('detail', '')}", "", "", "", ""]
    values = [record["metrics"][case.metric] for record in good]
    median = statistics.median(values)
    others = {
        name: statistics.median([record["metrics"][name] for record in good])
        for name in good[0]["metrics"]
        if name != case.metric
    }
    load = statistics.median([load_of(record) for record in good])
    notes = [f"{name} {number(value)}" for name, value in others.items()]
    # A peer that failed in some rounds must not look like one that never did.
    notes += [f"round {r['round']} {r['outcome']}" for r in found if r["outcome"] != "ok"]
    ranked = peer not in (OURS, BARE) and ours is not None
    return [
        peer,
        number(median) + (" ‡" if load > NOISY_CORES else ""),
        f"{number(min(values))} .. {number(max(values))}",
        str(len(values)),
        _ratio(case, ours, median) if ranked and ours is not None else "",
        ", ".join(notes),
    ]


def _table(case: Case, found: Sequence[Record]) -> Iterable[str]:
    by_peer: dict[str, list[Record]] = {}
    for record in found:
        by_peer.setdefault(record["peer"], []).append(record)
    own = [r["metrics"][case.metric] for r in by_peer.get(OURS, []) if r["outcome"] == "ok"]
    ours = statistics.median(own) if own else None
    yield f"| peer | {case.metric} | min .. max | rounds | mars is better by | also |"
    yield "|---|---|---|---|---|---|"

    def rank(peer: str) -> tuple[bool, float]:
        values = [r["metrics"][case.metric] for r in by_peer[peer] if r["outcome"] == "ok"]
        if not values:
            return True, 0.0
        median = statistics.median(values)
        return False, -median if case.better == "higher" else median

    for peer in sorted(by_peer, key=rank):
        if peer == BARE and rank(peer)[0]:
            continue  # what needs a runtime says nothing about a machine without one
        cells = [
            cell.replace("|", "/").replace("\n", " ")
            for cell in _row(case, peer, by_peer[peer], ours)
        ]
        yield f"| {' | '.join(cells)} |"


def render(records: Iterable[Record]) -> str:
    """The results page."""
    records = list(records)
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks` from its measurements; do not edit.",
        "Medians over rounds; every measurement in a fresh process, peers taking turns.",
        f"`bare` is the machine without a runtime. ‡: others used more than {NOISY_CORES} cores.",
        "",
    ]
    for head in (record for record in records if record["kind"] == "machine"):
        size = ", quick sizes (not for quoting)" if head["quick"] else ""
        lines += [
            (
                f"- {head['time']}: {head['processor']}, {head['cores']} cores, {head['memory']}, "
                f"{head['system']}, Python {head['python']}, {head['workers']} workers{size}"
            ),
            "- " + ", ".join(f"{name} {text}" for name, text in head["versions"].items()),
        ]
    grouped: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record["kind"] == "measurement":
            variants = grouped.setdefault(record["case"], {})
            variants.setdefault(record["variant"], []).append(record)
    for name, variants in grouped.items():
        case = cases.load(name)
        lines += ["", f"## {name}", "", f"{case.question} ({case.better} is better)"]
        for variant, found in variants.items():
            lines += ["", f"### {variant}", "", *_table(case, found)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page for stored measurements."""
    records = [
        json.loads(line)
        for path in sys.argv[1:]
        for line in Path(path).read_text().splitlines()
        if line.strip()
    ]
    print(render(records), end="")


if __name__ == "__main__":
    main()
