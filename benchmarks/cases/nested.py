"""Calls inside calls."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """More calls wait at a time than there are workers: a runtime must lend their places."""
    depth = params["depth"]
    results: list[int] = []
    seconds = seconds_for(lambda: results.append(peer.nested(depth)))
    expect(results, [2**depth])
    return {"calls_per_s": (2 ** (depth + 1) - 1) / seconds, "seconds": seconds}


CASE = Case(
    question="How many calls a second when every call starts two calls and waits for them?",
    metric="calls_per_s",
    better="higher",
    run=run,
    full={"depth 3": {"depth": 3}, "depth 5": {"depth": 5}},
    quick={"depth 2": {"depth": 2}},
    tiny={"depth 1": {"depth": 1}},
    limit_s=45,
    note=(
        "With plain pools and executorlib the outer calls would wait for ever. Only Parsl starts "
        "the inner calls from its driver (join apps), where they hold no worker."
    ),
)
