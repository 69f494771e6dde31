"""A wide fan-in."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The many calls are part of the time."""
    width = params["width"]
    results: list[int] = []
    seconds = seconds_for(lambda: results.append(peer.fan_in(width)))
    expect(results, [width])
    return {"seconds": seconds}


CASE = Case(
    question="How long until one call has the results of very many?",
    metric="seconds",
    better="lower",
    run=run,
    full={"10 000 arguments": {"width": 10_000}},
    quick={"1 000 arguments": {"width": 1_000}},
)
