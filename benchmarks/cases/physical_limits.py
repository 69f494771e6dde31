"""The machine itself."""

from __future__ import annotations

import time

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, seconds_for
from benchmarks.peer import Peer

GIB = 1024**3


def run(peer: Peer, params: Params) -> Metrics:
    """Round trips over a socketpair, and copies between pages that exist already."""
    import numpy as np

    trips = params["trips"]
    begin = time.perf_counter()
    for _ in range(trips):
        peer.gather([peer.submit(workload.nothing)])
    trip_us = (time.perf_counter() - begin) / trips * 1e6
    source = workload.filled(params["mib"])
    target = np.ones_like(source)
    best_s = min(seconds_for(lambda: np.copyto(target, source)) for _ in range(5))
    return {
        "memcpy_gb_per_s": source.nbytes / best_s / 1e9,
        "socketpair_round_trip_us": trip_us,
        "socketpair_round_trips_per_s": 1e6 / trip_us,
    }


CASE = Case(
    question="What can this machine do without any runtime? The limits that no peer can pass.",
    metric="memcpy_gb_per_s",
    bare="the machine itself",
    better="higher",
    run=run,
    full={"100 B ping-pong, 256 MiB copy": {"trips": 20_000, "mib": 256}},
    quick={"100 B ping-pong, 64 MiB copy": {"trips": 2_000, "mib": 64}},
    tiny={"100 B ping-pong, 1 MiB copy": {"trips": 20, "mib": 1}},
    only=("bare",),
)
