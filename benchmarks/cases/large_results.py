"""Large results in the driver."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, load_numpy, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The driver holds all results at once and reads every page; making them is included."""
    mib, count = params["mib"], params["results"]
    load_numpy(peer)
    sums: list[float] = []

    def work() -> None:
        sums.extend(workload.touch(a) for a in peer.one_by_one(workload.filled, [mib] * count))

    seconds = seconds_for(work)
    expect(sums, [mib * 1024 * 1024 / 8 / workload.PAGE_ITEMS] * count)
    return {"gb_per_s": mib * count * 1024 * 1024 / seconds / 1e9, "seconds": seconds}


CASE = Case(
    question="How fast do large results reach the driver?",
    metric="gb_per_s",
    limit="memcpy_gb_per_s",
    better="higher",
    run=run,
    full={"40 x 32 MiB": {"mib": 32, "results": 40}},
    quick={"10 x 32 MiB": {"mib": 32, "results": 10}},
    tiny={"2 x 2 MiB": {"mib": 2, "results": 2}},
    fresh="full",
)
