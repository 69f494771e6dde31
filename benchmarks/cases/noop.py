"""Empty tasks, one at a time."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Describe, run and fetch; every task with an argument of its own and a result."""
    count = params["tasks"]
    results: list[object] = []
    seconds = seconds_for(lambda: results.extend(peer.one_by_one(workload.nothing, range(count))))
    expect(len(results), count)
    return {"tasks_per_s": count / seconds}


CASE = Case(
    question="How many tasks that do nothing are completed in a second, one task at a time?",
    metric="tasks_per_s",
    better="higher",
    run=run,
    full={
        "10 000 tasks": {"tasks": 10_000},
        "100 000 tasks": {"tasks": 100_000},
        "1 000 000 tasks": {"tasks": 1_000_000},
    },
    quick={"2 000 tasks": {"tasks": 2_000}},
    limit_s=100,
)
