"""The round trip of one call."""

from __future__ import annotations

import statistics
import time

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """One after the other, until there are enough or the time is up."""
    times: list[float] = []
    end = time.perf_counter() + params["limit_s"]
    while len(times) < params["calls"] and time.perf_counter() < end:
        begin = time.perf_counter()
        peer.gather([peer.submit(workload.nothing)])
        times.append(time.perf_counter() - begin)
    times.sort()
    return {
        "p50_us": statistics.median(times) * 1e6,
        "p99_us": times[int(len(times) * 0.99)] * 1e6,
        "calls": len(times),
    }


CASE = Case(
    question="How long is one call of nothing on its way, from the driver and back?",
    metric="p50_us",
    bare="100 bytes over a socketpair to an echo process and back",
    better="lower",
    run=run,
    full={"idle workers": {"calls": 2_000, "limit_s": 2.0}},
    quick={"idle workers": {"calls": 300, "limit_s": 0.5}},
    tiny={"idle workers": {"calls": 5, "limit_s": 1.0}},
)
