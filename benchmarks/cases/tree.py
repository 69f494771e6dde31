"""A tree reduction."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """As a graph where the peer has graphs; in batched levels where not (far less to do)."""
    leaves = params["leaves"]
    results: list[int] = []
    seconds = seconds_for(lambda: results.append(peer.tree(leaves)))
    expect(results, [leaves])
    return {"tasks_per_s": (2 * leaves - 1) / seconds, "seconds": seconds}


CASE = Case(
    question="How many tasks a second in a tree that joins pairs until one is left?",
    metric="tasks_per_s",
    better="higher",
    run=run,
    full={"4 096 leaves": {"leaves": 4096}},
    quick={"512 leaves": {"leaves": 512}},
)
