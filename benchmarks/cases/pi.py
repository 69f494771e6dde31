"""Pi by Monte Carlo."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Chunks of equal size; `bare` splits them over forked processes by hand."""
    import numpy as np

    np.random.default_rng(0).random(1)  # numpy's own first use is not in question
    chunks, points = params["chunks"], params["points"]
    items = [(points, seed) for seed in range(chunks)]
    call = peer.map if peer.name == "bare" else peer.one_by_one
    inside: list[int] = []
    seconds = seconds_for(lambda: inside.extend(call(workload.points_inside_of, items)))
    pi = 4 * sum(inside) / (chunks * points)
    if abs(pi - np.pi) > 0.01:
        raise AssertionError(f"pi is not {pi}")
    return {"seconds": seconds}


CASE = Case(
    question="How long does pi take, in 20 chunks, beside bare processes that need no runtime?",
    metric="seconds",
    bare="two forked processes with half of the chunks each",
    better="lower",
    run=run,
    full={"20 x 10 000 000 points": {"chunks": 20, "points": 10_000_000}},
    quick={"20 x 500 000 points": {"chunks": 20, "points": 500_000}},
    tiny={"20 x 10 000 points": {"chunks": 20, "points": 10_000}},
    limit_s=90,
)
