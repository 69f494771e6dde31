"""Efficiency with small tasks."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, affordable, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Ideal time over actual time; a task counts CPU time, so preemption is not work."""
    seconds = params["seconds"]
    call = peer.map if params["batched"] else peer.one_by_one

    def work(count: int) -> None:
        call(workload.spin, [seconds] * count)

    count = affordable(params["tasks"], params["budget_s"], work)
    actual_s = seconds_for(lambda: work(count))
    return {"efficiency": seconds * count / peer.workers / actual_s, "tasks": count}


def _variant(seconds: float, tasks: int, batched: bool) -> dict[str, object]:
    # Three times what a plain serial loop would take, and never less than two seconds.
    budget_s = max(2.0, 3 * seconds * tasks)
    return {"seconds": seconds, "tasks": tasks, "batched": batched, "budget_s": budget_s}


CASE = Case(
    question="How much of the machine is left for tasks of 100 us, 1 ms and 10 ms?",
    metric="efficiency",
    bare="a plain loop in one process (one by one), two forked processes (map)",
    better="higher",
    run=run,
    full={
        "100 us, one by one": _variant(1e-4, 10_000, False),
        "100 us, map": _variant(1e-4, 10_000, True),
        "1 ms, one by one": _variant(1e-3, 1_500, False),
        "1 ms, map": _variant(1e-3, 1_500, True),
        "10 ms, one by one": _variant(1e-2, 200, False),
    },
    quick={
        "100 us, one by one": _variant(1e-4, 2_000, False),
        "1 ms, one by one": _variant(1e-3, 400, False),
        "10 ms, one by one": _variant(1e-2, 40, False),
    },
    tiny={"100 us, one by one": _variant(1e-4, 4, False), "100 us, map": _variant(1e-4, 4, True)},
    size="tasks",
    note=(
        "Efficiency is ideal time, the tasks' CPU time over the number of workers, divided by "
        "actual time. 1/workers is what a plain serial loop reaches."
    ),
)
