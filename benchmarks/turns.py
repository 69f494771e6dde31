"""What benchmarks in turns have in common: their order, their ratio, and the file of their runs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import machine


def in_turns(names: Sequence[str], turns: int) -> Iterator[str]:
    """All names, so many times. Each turn begins with another one."""
    for turn in range(turns):
        for offset in range(len(names)):
            yield names[(turn + offset) % len(names)]


def median_ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """The median of the turns' own ratios: a slow minute of the machine falls on both."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def save(path: Path, busy: float, rows: Sequence[object], **facts: object) -> None:
    """Write rows, with what a reader needs to place them.

    Parameters
    ----------
    path : Path
        Where to.
    busy : float
        How many cores others kept busy before.
    rows : sequence
        What was measured.
    **facts : object
        What else belongs to the run.
    """
    told = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": machine.commit(Path(__file__).parent), **facts,
        "busy_cores": round(busy, 2), **machine.describe(), "rows": rows,
    }  # fmt: skip
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
