"""Empty tasks, one at a time."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Describe, run and fetch; every task with an argument of its own and a result."""

    def work(count: int) -> None:
        expect(len(peer.one_by_one(workload.nothing, range(count))), count)

    count = affordable(params["tasks"], params["budget_s"], work, least=params["least"])
    seconds = seconds_for(lambda: work(count))
    return {"tasks_per_s": count / seconds, "tasks": count}


def _variant(tasks: int, budget_s: float, least: float) -> dict[str, object]:
    return {"tasks": tasks, "budget_s": budget_s, "least": least}


CASE = Case(
    question="How many tasks that do nothing are completed in a second, one task at a time?",
    metric="tasks_per_s",
    better="higher",
    run=run,
    full={
        "1 000 tasks": _variant(1_000, 3.0, 0.0),
        "10 000 tasks": _variant(10_000, 3.0, 0.0),
        "100 000 tasks": _variant(100_000, 10.0, 0.5),
        "1 000 000 tasks": _variant(1_000_000, 20.0, 0.5),
    },
    quick={"2 000 tasks": _variant(2_000, 0.6, 0.0), "20 000 tasks": _variant(20_000, 2.0, 0.5)},
    tiny={"20 tasks": _variant(20, 1.0, 0.0)},
    size="tasks",
)
