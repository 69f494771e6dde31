"""Tasks that print, with logs off where they can be."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The same number of silent tasks first, in the same process, for the difference."""

    def silent(count: int) -> None:
        expect(len(peer.one_by_one(workload.nothing, range(count))), count)

    def talking(count: int) -> None:
        expect(len(peer.one_by_one(workload.talk, range(count))), count)

    count = affordable(params["tasks"], params["budget_s"], talking)
    silent_s = seconds_for(lambda: silent(count))
    talking_s = seconds_for(lambda: talking(count))
    return {
        "talking_us_per_task": talking_s / count * 1e6,
        "silent_us_per_task": silent_s / count * 1e6,
        "tasks": count,
    }


CASE = Case(
    question="What does a task cost that prints 100 bytes, with logs off where they can be?",
    metric="talking_us_per_task",
    better="lower",
    run=run,
    full={"10 000 lines": {"tasks": 10_000, "budget_s": 3.0}},
    quick={"1 000 lines": {"tasks": 1_000, "budget_s": 0.5}},
    tiny={"5 lines": {"tasks": 5, "budget_s": 1.0}},
    size="tasks",
    note=(
        "mars keeps every line and knows which call printed it, and this cannot be switched off. "
        "Ray's lines stay in files of its workers (`log_to_driver=False`). With all other peers a "
        "line goes where the worker's output goes, and nobody knows which call printed it. "
        "`silent` is the same case without printing."
    ),
)
