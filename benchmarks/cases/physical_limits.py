"""The machine itself."""

from __future__ import annotations

import time

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Round trips over a socketpair, copies between pages that exist, and writes to new ones."""
    import numpy as np

    trips = params["trips"]
    begin = time.perf_counter()
    for _ in range(trips):
        peer.gather([peer.submit(workload.nothing)])
    trip_us = (time.perf_counter() - begin) / trips * 1e6
    source = workload.filled(params["mib"])
    target = np.ones_like(source)
    best_s = min(seconds_for(lambda: np.copyto(target, source)) for _ in range(5))
    size, count = params["result_mib"], params["results"]
    whole_s = seconds_for(lambda: expect(len(peer.map(workload.written, [size] * count)), count))
    return {
        "memcpy_gb_per_s": source.nbytes / best_s / 1e9,
        "shared_write_gb_per_s": size * count * 1024 * 1024 / whole_s / 1e9,
        "socketpair_round_trip_us": trip_us,
        "socketpair_round_trips_per_s": 1e6 / trip_us,
    }


CASE = Case(
    question="What can this machine do without any runtime? The limits that no peer can pass.",
    metric="memcpy_gb_per_s",
    bare="the machine itself",
    better="higher",
    run=run,
    full={
        "100 B ping-pong, 256 MiB copy": {
            "trips": 20_000,
            "mib": 256,
            "result_mib": 32,
            "results": 40,
        }
    },
    quick={
        "100 B ping-pong, 64 MiB copy": {
            "trips": 2_000,
            "mib": 64,
            "result_mib": 32,
            "results": 10,
        }
    },
    tiny={"100 B ping-pong, 1 MiB copy": {"trips": 20, "mib": 1, "result_mib": 1, "results": 2}},
    only=("bare",),
    note=(
        "`shared_write`: one process for each worker makes arrays of 32 MiB and writes each of "
        "them once to new shared memory, in pages as the system gives them. Nobody reads them. A "
        "runtime with large or warm pages can be faster than this."
    ),
)
