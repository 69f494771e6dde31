"""A wide fan-in."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """The many calls are part of the time."""

    def work(width: int) -> None:
        expect(peer.fan_in(width), width)

    width = affordable(params["width"], params["budget_s"], work, least=params["least"])
    seconds = seconds_for(lambda: work(width))
    return {"us_per_argument": seconds / width * 1e6, "width": width, "seconds": seconds}


def _variant(width: int, budget_s: float, least: float) -> dict[str, object]:
    return {"width": width, "budget_s": budget_s, "least": least}


CASE = Case(
    question="What does an argument cost when one call takes the results of very many?",
    metric="us_per_argument",
    better="lower",
    run=run,
    full={
        "1 000 arguments": _variant(1_000, 3.0, 0.0),
        "10 000 arguments": _variant(10_000, 3.0, 0.0),
        "100 000 arguments": _variant(100_000, 8.0, 0.5),
        "1 000 000 arguments": _variant(1_000_000, 25.0, 0.5),
    },
    quick={
        "1 000 arguments": _variant(1_000, 0.6, 0.0),
        "10 000 arguments": _variant(10_000, 2.0, 0.5),
    },
    tiny={"10 arguments": _variant(10, 1.0, 0.0)},
    limit_s=90,
    size="width",
    note="Pools fetch the results in batches and send them on in one message: no graph.",
)
