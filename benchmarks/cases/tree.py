"""A tree reduction."""

from __future__ import annotations

from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """As a graph where the peer has graphs; in batched levels where not (far less to do)."""

    def work(count: int) -> None:
        leaves = 1 << (count.bit_length() - 1)  # the peers join pairs until one is left
        expect(peer.tree(leaves), leaves)

    fits = affordable(params["leaves"], params["budget_s"], work)
    leaves = 1 << (fits.bit_length() - 1)
    seconds = seconds_for(lambda: work(leaves))
    return {"tasks_per_s": (2 * leaves - 1) / seconds, "leaves": leaves, "seconds": seconds}


CASE = Case(
    question="How many tasks a second in a tree that joins pairs until one is left?",
    metric="tasks_per_s",
    better="higher",
    run=run,
    full={"4 096 leaves": {"leaves": 4096, "budget_s": 3.0}},
    quick={"1 024 leaves": {"leaves": 1024, "budget_s": 0.6}},
    tiny={"8 leaves": {"leaves": 8, "budget_s": 1.0}},
    size="leaves",
    note=(
        "Pools have no graphs. They run the tree level by level, with a few messages for each "
        "level, and the driver works between the levels. Runtimes with graphs get every node as a "
        "task of its own."
    ),
)
