"""What a case is: one question, asked with several sets of parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.peer import Peer

Params = Mapping[str, Any]
Metrics = dict[str, float]

LIMIT_S: Final = 60.0
"""Time for one measurement unless the case says otherwise; start of the peer included."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question.

    `run` gets a started and warmed-up peer, unless `started` is false. `metric` names the entry of
    its answer that is ranked; the others are printed beside it.
    """

    question: str
    metric: str
    better: Literal["higher", "lower"]
    run: Callable[[Peer, Params], Metrics]
    full: Mapping[str, Params]
    quick: Mapping[str, Params]
    limit_s: float = LIMIT_S
    started: bool = True
    only: tuple[str, ...] = ()
    """The peers that are asked; empty: all."""


def seconds_for(work: Callable[[], object]) -> float:
    """Wall clock of one run of `work`."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def expect(found: object, wanted: object) -> None:
    """A wrong answer is no measurement."""
    if found != wanted:
        raise AssertionError(f"wrong result: {found!s:.60}, wanted {wanted!s:.60}")
