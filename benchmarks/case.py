"""What a case is: one question, asked with several sets of parameters.

Sizes. A case states what it asks of everybody, and how many seconds it may take (`budget_s` among
its parameters). `affordable` finds out, with small runs first, whether a peer can do that; one that
is slower gets a smaller problem, and its row says how small, or no run at all, and its row says how
long it would have taken. Ours is under the same rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks import workload
from benchmarks.peer import Peer

Params = Mapping[str, Any]
Metrics = dict[str, float]
Variants = Mapping[str, Params]
Size = Literal["full", "quick", "tiny"]

LIMIT_S: Final = 60.0
"""Time for one measurement unless the case says otherwise; start of the peer included."""

PROBE_COUNT: Final = 100
"""How many tasks the first probe of a peer has; the next ones have ten times as many."""

PROBE_SHARE: Final = 0.05
"""A probe that took this share of the budget is long enough to be believed."""


class OverBudget(Exception):
    """A peer is far too slow for what is asked. Not a failure: a row of the table says so."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question.

    `run` gets a started and warmed-up peer, unless `started` is false. `metric` names the entry of
    its answer that is ranked; the others are printed beside it. Variants, and neighbouring cases,
    are asked in order in one process, unless `fresh` wants one for each: where memory that is warm
    already would answer. At full size only, or always.
    """

    question: str
    metric: str
    better: Literal["higher", "lower"]
    run: Callable[[Peer, Params], Metrics]
    full: Variants
    quick: Variants
    tiny: Variants
    """Of no use as numbers; the tests run them to see that the case still works."""
    limit_s: float = LIMIT_S
    started: bool = True
    fresh: Literal["", "full", "always"] = ""
    only: tuple[str, ...] = ()
    """The peers that are asked; empty: all."""
    bare: str = ""
    """What the machine does here without any runtime; empty: there is no such thing."""
    limit: str = ""
    """The figure of `physical_limits` that nobody can pass here."""
    size: str = ""
    """The parameter that says how much is to be done, where it may be cut or is seen to grow. An
    answer may have an entry of that name: how much it was in truth."""
    note: str = ""
    """What a reader should know before believing the numbers."""

    def variants(self, size: Size) -> Variants:
        """The sets of parameters of that size."""
        return {"full": self.full, "quick": self.quick, "tiny": self.tiny}[size]


def load_numpy(peer: Peer) -> None:
    """Have it loaded in all workers and here, where its own first use is not in question."""
    peer.one_by_one(workload.filled, [0] * (4 * peer.workers))


def seconds_for(work: Callable[[], object]) -> float:
    """Wall clock of one run of `work`."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def affordable(
    wanted: int,
    budget_s: float,
    probe: Callable[[int], object],
    *,
    least: float = 0.0,
    timed: Callable[[Callable[[], object]], float] = seconds_for,
) -> int:
    """How many of `wanted` fit into `budget_s`, by what `probe` takes for a few.

    Less than the share `least` of `wanted`: `OverBudget`.
    """
    count, seconds = 0, 0.0
    while seconds < PROBE_SHARE * budget_s:
        larger = count * 10 or PROBE_COUNT
        if larger * 2 > wanted:
            break  # a probe as large as the question is no probe
        count = larger
        seconds = timed(lambda: probe(count))  # noqa: B023  (called at once)
    if not count:
        return wanted
    whole_s = seconds * wanted / count
    if whole_s <= budget_s:
        return wanted
    fits = max(count, int(wanted * budget_s / whole_s))
    if fits < least * wanted:
        raise OverBudget(f"would take about {whole_s:.0f} s, and has {budget_s:g} s")
    return fits


def expect(found: object, wanted: object) -> None:
    """A wrong answer is no measurement."""
    if found != wanted:
        raise AssertionError(f"wrong result: {found!s:.60}, wanted {wanted!s:.60}")
