"""Plots for the results page: bars as SVG, made from the same measurements as the tables. Pure.

`report` asks for them when it writes `docs/benchmarks.md`. SVG is written by hand here: bars need
no library, and the same measurements give the same file, so that a test can compare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks import cases
from benchmarks.figures import BARE, OURS, Results

PLOTTED: Final = (
    ("first_result", "square(3)", "From the start of a program to its first result"),
    ("round_trip", "idle workers", "One small call and its result"),
    ("noop", "100 000 tasks", "100 000 calls that do nothing, one by one"),
    ("noop_map", "1 000 000 items", "A map over a million items that do nothing"),
    ("chain", "10 000 links", "A chain of 10 000 calls"),
    ("tree", "4 096 leaves", "A tree that adds 4 096 leaves in pairs"),
    ("shared_array", "256 MiB of the driver, 40 readers", "40 calls read 256 MiB of the program"),
    ("shared_array", "256 MiB made by a call, 40 readers", "40 calls read 256 MiB of another call"),
    ("large_results", "40 x 32 MiB", "40 results of 32 MiB, in the program"),
    ("granularity", "1 ms, one by one", "Share of the machine that calls of 1 ms use"),
    ("memory_idle", "after warm-up", "Memory of the program and its idle workers"),
)
"""Which variant of which case has a plot, and its title. The order is that of the page."""

WIDTH: Final = 640
LABELS: Final = 120
VALUES: Final = 84
BAR: Final = 16
STEP: Final = 24
TOP: Final = 50

SPREAD_FOR_LOGARITHM: Final = 30.0
"""From this ratio of the longest bar to the shortest one the axis is logarithmic: on a linear one
the short bars could not be told apart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One peer."""

    peer: str
    median: float
    least: float
    most: float


def name_of(case: str, variant: str) -> str:
    """The name of the file."""
    return re.sub(r"[^a-z0-9]+", "-", f"{case} {variant}".lower()).strip("-") + ".svg"


def _text(value: float) -> str:
    shown = f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{value:.3g}"
    return shown.replace(",", "\N{NO-BREAK SPACE}")


def svg(title: str, axis: str, bars: Sequence[Bar]) -> str:
    """A plot of bars, in the order given.

    Each bar has its median as text, and a line from the least to the greatest measurement.
    """
    values = [value for bar in bars for value in (bar.least, bar.most) if value > 0]
    low, high = min(values), max(values)
    logarithmic = high / low > SPREAD_FOR_LOGARITHM
    base = 10 ** math.floor(math.log10(low * 0.8)) if logarithmic else 0.0

    def place(value: float) -> float:
        if logarithmic:
            share = math.log(max(value, base) / base) / math.log(high / base)
        else:
            share = value / high
        return LABELS + share * (WIDTH - LABELS - VALUES)

    def lines() -> Iterator[str]:
        height = TOP + STEP * len(bars) + 8
        axis_text = f"{axis}, logarithmic scale" if logarithmic else axis
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
        )
        yield f"<title>{escape(title)}</title>"
        yield f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        yield f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>'
        yield f'<text x="12" y="38" fill="#555555">{escape(axis_text)}</text>'
        for number, bar in enumerate(bars):
            y = TOP + STEP * number
            middle = y + BAR / 2
            colour = {OURS: "#c0392b", BARE: "#bbbbbb"}.get(bar.peer, "#5b7a99")
            end = place(bar.median)
            weight = ' font-weight="bold"' if bar.peer == OURS else ""
            yield (
                f'<text x="{LABELS - 8}" y="{middle + 4:.1f}" text-anchor="end"{weight}>'
                f"{escape(bar.peer)}</text>"
            )
            yield (
                f'<rect x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR}" '
                f'fill="{colour}"/>'
            )
            yield (
                f'<line x1="{place(bar.least):.1f}" x2="{place(bar.most):.1f}" y1="{middle:.1f}" '
                f'y2="{middle:.1f}" stroke="#222222"/>'
            )
            after = place(max(bar.median, bar.most)) + 6
            yield (f'<text x="{after:.1f}" y="{middle + 4:.1f}"{weight}>{_text(bar.median)}</text>')
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def plots(results: Results) -> Iterator[tuple[str, str, str]]:
    """Title, name of the file and SVG of each plot that these measurements have."""
    for case_name, variant, title in PLOTTED:
        case = cases.load(case_name)
        bars = []
        for peer, row in results.rows(case_name, variant).items():
            median, values = row.median(case.metric), row.values(case.metric)
            if median is not None and median > 0:
                bars.append(Bar(peer, median, min(values), max(values)))
        if len(bars) > 1:
            bars.sort(key=lambda bar: bar.median, reverse=case.better == "higher")
            axis = f"{case.metric}, {case.better} is better"
            yield title, name_of(case_name, variant), svg(title, axis, bars)
