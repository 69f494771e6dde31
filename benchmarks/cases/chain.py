"""A dependent chain."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """As a graph where the peer has graphs; with the driver between the links where not."""

    def work(length: int) -> None:
        expect(peer.chain(length), length)

    length = affordable(params["links"], params["budget_s"], work, least=params["least"])
    seconds = seconds_for(lambda: work(length))
    return {"links_per_s": length / seconds, "links": length}


CASE = Case(
    question="How many links of a chain a second, each call on the result of the one before?",
    metric="links_per_s",
    better="higher",
    run=run,
    full={
        "1 000 links": {"links": 1_000, "budget_s": 3.0, "least": 0.0},
        "10 000 links": {"links": 10_000, "budget_s": 6.0, "least": 0.5},
    },
    quick={"1 000 links": {"links": 1_000, "budget_s": 0.6, "least": 0.0}},
    tiny={"5 links": {"links": 5, "budget_s": 1.0, "least": 0.0}},
    size="links",
)
