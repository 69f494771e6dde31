"""A wide fan-out."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The result is a small integer; `shared_array` asks the same with a large one."""

    def work(width: int) -> None:
        expect(peer.fan_out(width), 2 * width)

    width = affordable(params["width"], params["budget_s"], work)
    seconds = seconds_for(lambda: work(width))
    return {"us_per_reader": seconds / width * 1e6, "width": width, "seconds": seconds}


CASE = Case(
    question="What does a reader cost when very many calls take the result of one?",
    metric="us_per_reader",
    better="lower",
    run=run,
    full={"10 000 readers": {"width": 10_000, "budget_s": 3.0}},
    quick={"2 000 readers": {"width": 2_000, "budget_s": 0.6}},
    tiny={"10 readers": {"width": 10, "budget_s": 1.0}},
    size="width",
    note="Pools fetch the one result and send it out in batches: no graph.",
)
