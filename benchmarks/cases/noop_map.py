"""Empty items, in batches."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Every peer batches in its own best way; all results come back as a list."""
    items = range(params["items"])
    results: list[object] = []
    seconds = seconds_for(lambda: results.extend(peer.map(workload.one, items)))
    expect(len(results), len(items))
    return {"items_per_s": len(items) / seconds}


CASE = Case(
    question="How many items that need nothing done does `map` get through in a second?",
    metric="items_per_s",
    better="higher",
    run=run,
    full={
        "10 000 items": {"items": 10_000},
        "100 000 items": {"items": 100_000},
        "1 000 000 items": {"items": 1_000_000},
    },
    quick={"20 000 items": {"items": 20_000}},
)
