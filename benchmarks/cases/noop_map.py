"""Empty items, in batches."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, affordable, expect, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Every peer batches in its own best way; all results come back as a list."""

    def work(count: int) -> None:
        expect(len(peer.map(workload.one, range(count))), count)

    count = affordable(params["items"], params["budget_s"], work, least=0.1)
    seconds = seconds_for(lambda: work(count))
    return {"items_per_s": count / seconds, "items": count}


def _variant(items: int) -> dict[str, object]:
    return {"items": items, "budget_s": 8.0}


CASE = Case(
    question="How many items that need nothing done does `map` get through in a second?",
    metric="items_per_s",
    better="higher",
    run=run,
    full={
        "10 000 items": _variant(10_000),
        "100 000 items": _variant(100_000),
        "1 000 000 items": _variant(1_000_000),
    },
    quick={"20 000 items": _variant(20_000), "200 000 items": _variant(200_000)},
    tiny={"50 items": _variant(50)},
    size="items",
    note=(
        "The items are a `range`, a sequence whose objects appear when it is indexed. Runtimes "
        "without chunks get blocks that are made by hand, as their manuals advise."
    ),
)
