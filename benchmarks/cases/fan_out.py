"""A wide fan-out."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The result is a small integer; `shared_array` asks the same with a large one."""
    width = params["width"]
    results: list[int] = []
    seconds = seconds_for(lambda: results.append(peer.fan_out(width)))
    expect(results, [2 * width])
    return {"seconds": seconds}


CASE = Case(
    question="How long until very many calls have had the result of one?",
    metric="seconds",
    better="lower",
    run=run,
    full={"10 000 readers": {"width": 10_000}},
    quick={"1 000 readers": {"width": 1_000}},
)
