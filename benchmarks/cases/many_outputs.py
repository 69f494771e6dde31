"""Very many results of one call."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Every result has a handle of its own where the peer has such; all are fetched."""

    def work(count: int) -> None:
        expect(peer.outputs(count), list(range(count)))

    count = affordable(params["results"], params["budget_s"], work, least=params["least"])
    seconds = seconds_for(lambda: work(count))
    return {"us_per_result": seconds / count * 1e6, "results": count, "seconds": seconds}


def _variant(results: int, budget_s: float, least: float) -> dict[str, object]:
    return {"results": results, "budget_s": budget_s, "least": least}


CASE = Case(
    question="What does a result cost when one call returns very many, each with its handle?",
    metric="us_per_result",
    better="lower",
    run=run,
    full={
        "1 000 results": _variant(1_000, 5.0, 0.0),
        "10 000 results": _variant(10_000, 5.0, 0.5),
        "100 000 results": _variant(100_000, 8.0, 0.5),
        "1 000 000 results": _variant(1_000_000, 20.0, 0.5),
    },
    quick={
        "1 000 results": _variant(1_000, 1.0, 0.0),
        "10 000 results": _variant(10_000, 2.0, 0.5),
    },
    tiny={"5 results": _variant(5, 1.0, 0.0)},
    size="results",
)
