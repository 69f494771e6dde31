"""Tasks that print.

Ours keeps the line, findable by its call; the peers' output goes where the driver's goes.
"""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The same number of silent tasks first, in the same process, for the difference."""
    count = params["tasks"]
    results: list[object] = []
    silent_s = seconds_for(lambda: peer.one_by_one(workload.nothing, range(count)))
    talking_s = seconds_for(lambda: results.extend(peer.one_by_one(workload.talk, range(count))))
    expect(len(results), count)
    return {
        "talking_us_per_task": talking_s / count * 1e6,
        "silent_us_per_task": silent_s / count * 1e6,
    }


CASE = Case(
    question="What does a task cost that prints a line?",
    metric="talking_us_per_task",
    better="lower",
    run=run,
    full={"10 000 lines of 100 bytes": {"tasks": 10_000}},
    quick={"1 000 lines of 100 bytes": {"tasks": 1_000}},
)
