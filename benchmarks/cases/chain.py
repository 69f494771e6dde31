"""A dependent chain."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """As a graph where the peer has graphs; with the driver between the links where not."""
    length = params["links"]
    results: list[int] = []
    seconds = seconds_for(lambda: results.append(peer.chain(length)))
    expect(results, [length])
    return {"links_per_s": length / seconds}


CASE = Case(
    question="How many links of a chain a second, each call on the result of the one before?",
    metric="links_per_s",
    better="higher",
    run=run,
    full={"1 000 links": {"links": 1_000}, "10 000 links": {"links": 10_000}},
    quick={"300 links": {"links": 300}},
)
