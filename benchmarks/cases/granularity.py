"""Efficiency with small tasks."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Ideal time over actual time; a task counts CPU time, so preemption is not work."""
    seconds, count = params["seconds"], params["tasks"]
    call = peer.map if params["batched"] else peer.one_by_one
    actual_s = seconds_for(lambda: call(workload.spin, [seconds] * count))
    return {"efficiency": seconds * count / peer.workers / actual_s}


def _variant(seconds: float, tasks: int, batched: bool) -> dict[str, object]:
    return {"seconds": seconds, "tasks": tasks, "batched": batched}


CASE = Case(
    question="How much of the machine is left for tasks of 100 us, 1 ms and 10 ms?",
    metric="efficiency",
    better="higher",
    run=run,
    full={
        "100 us, one by one": _variant(1e-4, 10_000, False),
        "100 us, map": _variant(1e-4, 10_000, True),
        "1 ms, one by one": _variant(1e-3, 2_000, False),
        "1 ms, map": _variant(1e-3, 2_000, True),
        "10 ms, one by one": _variant(1e-2, 400, False),
    },
    quick={
        "100 us, one by one": _variant(1e-4, 2_000, False),
        "1 ms, one by one": _variant(1e-3, 400, False),
    },
)
