"""What the measurements say: medians, ratios, targets, growth. Pure; `report` puts it on a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from benchmarks import cases

OURS: Final = "mars"
BARE: Final = "bare"
"""Not a peer: what the machine does without any runtime. Never ranked."""

Record = Mapping[str, Any]
Better = Literal["higher", "lower"]

UNCOUNTED: Final = ("ray",)
"""Peers whose daemons leave no record of their CPU time, so that they would count as others.
They are judged by the load just before they start."""


def load_of(record: Record) -> float:
    """Cores that others used, as far as can be known."""
    key = "load_before" if record["peer"] in UNCOUNTED else "load_during"
    return float(record[key])


def times_better(better: Better, ours: float, theirs: float) -> float | None:
    """How many times better ours is; below 1: behind. None where a quotient says nothing."""
    if ours <= 0 or theirs <= 0:
        return None
    return ours / theirs if better == "higher" else theirs / ours


@dataclass(slots=True)
class Row:
    """One peer's answers to one variant of a case, over the rounds of one run."""

    peer: str
    run: int
    records: list[Record] = field(default_factory=list)

    @property
    def good(self) -> list[Record]:
        return [record for record in self.records if record["outcome"] == "ok"]

    def values(self, metric: str) -> list[float]:
        """One for each round that worked."""
        return [float(r["metrics"][metric]) for r in self.good if metric in r["metrics"]]

    def median(self, metric: str) -> float | None:
        """None: it never worked."""
        values = self.values(metric)
        return statistics.median(values) if values else None

    def load(self) -> float:
        """Median load by others, in cores."""
        return statistics.median([load_of(record) for record in self.good or self.records])


class Results:
    """All measurements, by case, variant and peer.

    Runs may be pieces of one whole, or repeat parts of it: of each row the latest run counts.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.heads: list[Record] = []
        self.seconds: dict[int, float] = {}
        self._rows: dict[str, dict[str, dict[str, Row]]] = {}
        for record in records:
            if record["kind"] == "machine":
                self.heads.append(record)
            elif record["kind"] == "end":
                self.seconds[len(self.heads) - 1] = float(record["seconds"])
            else:
                self._add(record)
        if len({head["size"] for head in self.heads}) > 1:
            raise ValueError("measurements of different sizes do not belong on one page")

    def _add(self, record: Record) -> None:
        rows = self._rows.setdefault(record["case"], {}).setdefault(record["variant"], {})
        run = len(self.heads) - 1
        row = rows.get(record["peer"])
        if row is None or row.run != run:
            row = rows[record["peer"]] = Row(record["peer"], run)
        row.records.append(record)

    def cases(self) -> list[str]:
        """In the order of the page, whatever order they ran in."""
        return [name for name in cases.NAMES if name in self._rows]

    def variants(self, case: str) -> list[str]:
        """In the order of the case's file; those it does not have any more come last."""
        known = [v for size in ("full", "quick", "tiny") for v in cases.load(case).variants(size)]
        found = self._rows.get(case, {})
        return sorted(found, key=lambda v: known.index(v) if v in known else len(known))

    def rows(self, case: str, variant: str) -> dict[str, Row]:
        """By peer."""
        return self._rows.get(case, {}).get(variant, {})

    def median(self, case: str, variant: str, peer: str, metric: str) -> float | None:
        """None: not measured, or it never worked."""
        row = self.rows(case, variant).get(peer)
        return row.median(metric) if row else None

    def best_peer(
        self, case: str, variant: str, metric: str, better: Better
    ) -> tuple[str, float] | None:
        """The best but ours."""
        found = [
            (peer, value)
            for peer, row in self.rows(case, variant).items()
            if peer not in (OURS, BARE) and (value := row.median(metric)) is not None
        ]
        if not found:
            return None
        choose = max if better == "higher" else min
        return choose(found, key=lambda pair: pair[1])


# -- targets --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What ours should reach: a number, a multiple of a peer's, or both in two targets."""

    what: str
    case: str
    variant: str
    metric: str
    better: Better
    value: float | None = None
    unit: str = ""
    peer: str = ""
    """A peer's name, `bare`, or `best`: the best of all peers."""
    factor: float = 1.0
    """How many times better than that peer."""
    why: str = ""
    """What keeps ours from it, where it is missed: shown below the table then."""


def _task_bench(pattern: str) -> str:
    return f"{pattern}, width 8, 100 steps"


_NOOP: Final = ("noop", "100 000 tasks", "tasks_per_s", "higher")
_MILLION: Final = ("memory_tasks", "1 000 000 tasks")

_TWO_CORES: Final = (
    "The program's thread describes all calls before the first one runs. Then the engine's thread "
    "and two workers share two cores. `cost_of_a_call` says how much time each of them takes, and "
    "how much of it is Python's collector, which only the program should switch off."
)
_HALF_OF_IT: Final = (
    "On two busy cores a call loses half of the time that `cost_of_a_call` counts. The target was "
    "made from figures of the peers for `map`."
)
_BLOCKS: Final = (
    "Two forked processes without a runtime reach the row `bare` of `granularity`. mars sends a "
    "message for each 0.1 s of work, so that calls that take longer than others do not keep one "
    "worker waiting."
)
_ONE_COPY: Final = (
    "The best peer reads the array in the process that made it, and copies nothing. mars writes it "
    "once to memory that all workers read, so that both workers can read it."
)
_FRESH_MEMORY: Final = (
    "Most of the time goes into making such arrays and writing each of them once. `shared_write` "
    "of `physical_limits` measures this without any runtime, and without the large pages that mars "
    "uses where it may. Memory that was never used before costs more than the copy."
)
_MESSAGES: Final = (
    "Calls of 50 µs would have to cost no more than 50 µs; `cost_of_a_call` says what they cost. A "
    "link of a chain, which waits for no other worker, costs a quarter of this. The rest is the "
    "cost of messages, and of staying awake for them: each step needs what the other worker has "
    "told the engine."
)
_COLLECTOR: Final = (
    "Python's collector looks at the whole heap of the program in one go. With a million calls it "
    "finds three objects for each. Only the program should switch it off or call `gc.freeze()`."
)

TARGETS: Final = (
    Target("empty tasks, one by one", *_NOOP, 100_000, "tasks/s", why=_TWO_CORES),
    Target("empty tasks, one by one", *_NOOP, peer="ppe", factor=6),
    Target(
        "`map` over 10⁶ items",
        "noop_map", "1 000 000 items", "items_per_s", "higher", 1e6, "items/s",
    ),
    Target("round trip, median", "round_trip", "idle workers", "p50_us", "lower", peer="ppe"),
    Target(
        "chain of 10 000 links",
        "chain", "10 000 links", "links_per_s", "higher", 50_000, "links/s", why=_TWO_CORES,
    ),
    Target(
        "tree of 4 096 leaves", "tree", "4 096 leaves", "tasks_per_s", "higher", 60_000, "tasks/s"
    ),
    *(
        Target(variant, "shared_array", variant, "seconds", "lower", peer="best", why=_ONE_COPY)
        for variant in ("256 MiB of the driver, 40 readers", "256 MiB made by a call, 40 readers")
    ),
    Target(
        "40 × 32 MiB in the driver",
        "large_results", "40 x 32 MiB", "gb_per_s", "higher", 4, "GB/s", why=_FRESH_MEMORY,
    ),
    *(
        Target(f"efficiency, tasks of {name}, {how}", "granularity", f"{variant}, {how}",
               "efficiency", "higher", wanted, why=why)
        for how, why in (("map", _BLOCKS), ("one by one", _HALF_OF_IT))
        for name, variant, wanted in (("100 µs", "100 us", 0.93), ("1 ms", "1 ms", 0.98))
    ),
    Target(
        "METG(50 %), stencil_1d",
        "task_bench", _task_bench("stencil_1d"), "metg_us", "lower", 100, "µs", why=_MESSAGES,
    ),
    Target(
        "π, 20 × 10 M points, beside bare processes",
        "pi", "20 x 10 000 000 points", "seconds", "lower", peer=BARE, factor=0.97,
    ),
    Target("cold import", "cold_import", "warm page cache", "whole_ms", "lower", 80, "ms"),
    Target(
        "first result of a fresh process",
        "first_result", "square(3)", "first_result_ms", "lower", 200, "ms",
    ),
    Target("10⁶ tasks, all of it", *_MILLION, "seconds", "lower", 20, "s"),
    Target(
        "10⁶ tasks, memory of the driver",
        *_MILLION, "peak_bytes_per_task", "lower", 1024, "bytes/task",
    ),
    Target(
        "10⁶ tasks, longest pause",
        *_MILLION, "longest_pause_ms", "lower", 100, "ms", why=_COLLECTOR,
    ),
    Target("idle memory", "memory_idle", "after warm-up", "pss_mib", "lower", 45, "MiB"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target stands."""

    target: Target
    limit: float | None
    """What ours must reach; None: the peer that it is measured by has no figure."""
    ours: float | None
    best: tuple[str, float] | None
    times: float | None
    """How many times better than the best peer."""

    @property
    def reached(self) -> bool | None:
        """None: cannot be said."""
        if self.ours is None or self.limit is None:
            return None
        if self.target.better == "higher":
            return self.ours >= self.limit
        return self.ours <= self.limit


def judge(target: Target, results: Results) -> Verdict:
    """Measure ours by a target."""
    where = (target.case, target.variant)
    ours = results.median(*where, OURS, target.metric)
    best = results.best_peer(*where, target.metric, target.better)
    limit = target.value
    if target.peer:
        theirs = (
            (best[1] if best else None)
            if target.peer == "best"
            else results.median(*where, target.peer, target.metric)
        )
        if theirs is not None:
            higher = target.better == "higher"
            limit = theirs * target.factor if higher else theirs / target.factor
    times = times_better(target.better, ours, best[1]) if ours is not None and best else None
    return Verdict(target, limit, ours, best, times)


# -- growth ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Growth:
    """A cost that must not grow with the size of the problem."""

    what: str
    case: str
    metric: str
    unit: str
    rate: bool = False
    """The metric is so many a second; what is shown is microseconds for one."""
    only: str = ""
    """Variants must end so; empty: all."""


GROWTH: Final = (
    Growth("a task, one by one", "noop", "tasks_per_s", "µs", rate=True),
    Growth("an item of `map`", "noop_map", "items_per_s", "µs", rate=True),
    Growth("a link of a chain", "chain", "links_per_s", "µs", rate=True),
    Growth("an argument of one call", "fan_in", "us_per_argument", "µs"),
    Growth("a result of one call", "many_outputs", "us_per_result", "µs"),
    Growth("a task in the driver's memory", "memory_tasks", "peak_bytes_per_task", "bytes"),
    Growth(
        "a decision of the scheduler alone, 10 000 workers",
        "scheduler_alone", "decisions_per_s", "µs", rate=True, only="10 000 workers",
    ),
    Growth(
        "a task in the scheduler's memory, 10 000 workers",
        "scheduler_alone", "bytes_per_task", "bytes", only="10 000 workers",
    ),
)  # fmt: skip


def costs(growth: Growth, results: Results) -> Iterator[tuple[int, float]]:
    """What one costs us, by how many there are."""
    for variant in results.variants(growth.case):
        row = results.rows(growth.case, variant).get(OURS)
        value = row.median(growth.metric) if row else None
        if row is None or value is None or not variant.endswith(growth.only):
            continue
        size = cases.load(growth.case).size
        sizes: Sequence[float] = row.values(size) or [r["asked"] for r in row.good]
        yield int(statistics.median(sizes)), (1e6 / value if growth.rate else value)
