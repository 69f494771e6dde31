"""The arithmetic of the results page: medians, ratios, targets, growth, sizes cut to a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.case import PROBE_COUNT, OverBudget, affordable
from benchmarks.figures import (
    GROWTH,
    OURS,
    TARGETS,
    Better,
    Growth,
    Results,
    Target,
    costs,
    judge,
    times_better,
)


def head(size: str = "full") -> dict[str, Any]:
    return {"kind": "machine", "size": size}


def record(
    peer: str,
    case: str = "noop",
    variant: str = "100 000 tasks",
    number: int = 0,
    load: float = 0.0,
    asked: int | None = None,
    **metrics: float,
) -> dict[str, Any]:
    outcome = {"outcome": "ok", "metrics": metrics} if metrics else {"outcome": "failed"}
    return {
        "kind": "measurement", "case": case, "variant": variant, "peer": peer, "round": number,
        "load_before": load, "load_during": load, "asked": asked, **outcome,
    }  # fmt: skip


def rate(peer: str, *values: float, **where: Any) -> list[dict[str, Any]]:
    return [record(peer, number=i, tasks_per_s=v, **where) for i, v in enumerate(values)]


# -- medians and ratios ---------------------------------------------------------------------------


def test_the_median_of_rounds_counts_those_that_worked() -> None:
    results = Results([head(), *rate(OURS, 10, 1000, 30), record(OURS, number=3)])
    row = results.rows("noop", "100 000 tasks")[OURS]
    assert row.median("tasks_per_s") == 30
    assert len(row.records) == 4 and len(row.good) == 3


def test_a_peer_that_never_worked_has_no_median() -> None:
    results = Results([head(), record("ray")])
    assert results.median("noop", "100 000 tasks", "ray", "tasks_per_s") is None
    assert results.median("noop", "100 000 tasks", "dask", "tasks_per_s") is None
    assert results.median("pi", "no such variant", "dask", "seconds") is None


@pytest.mark.parametrize(
    ("better", "ours", "theirs", "times"),
    [
        ("higher", 100.0, 50.0, 2.0),
        ("higher", 50.0, 100.0, 0.5),
        ("lower", 2.0, 8.0, 4.0),
        ("lower", 8.0, 2.0, 0.25),
        ("lower", 0.0, 2.0, None),
        ("higher", 5.0, -1.0, None),
    ],
)
def test_a_ratio_above_one_is_a_win_whichever_way_is_better(
    better: Better, ours: float, theirs: float, times: float | None
) -> None:
    assert times_better(better, ours, theirs) == times


def test_the_best_peer_is_neither_ours_nor_the_bare_machine() -> None:
    rows = [*rate(OURS, 900), *rate("bare", 9000), *rate("ppe", 100), *rate("pool", 300)]
    results = Results([head(), *rows, record("ray")])
    where = ("noop", "100 000 tasks", "tasks_per_s")
    assert results.best_peer(*where, "higher") == ("pool", 300)
    assert results.best_peer(*where, "lower") == ("ppe", 100)
    assert Results([head(), *rate(OURS, 1)]).best_peer(*where, "higher") is None


def test_a_row_comes_from_the_latest_run_that_has_it() -> None:
    results = Results([head(), *rate(OURS, 1, 1), *rate("ppe", 5), head(), *rate(OURS, 7, 9)])
    rows = results.rows("noop", "100 000 tasks")
    assert rows[OURS].values("tasks_per_s") == [7, 9]
    assert rows["ppe"].values("tasks_per_s") == [5]
    assert (rows[OURS].run, rows["ppe"].run) == (1, 0)


def test_sizes_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="sizes"):
        Results([head("full"), head("quick")])


# -- targets --------------------------------------------------------------------------------------


def test_every_target_and_every_growth_names_what_a_case_has() -> None:
    for target in TARGETS:
        case = cases.load(target.case)
        assert target.variant in case.full, target.what
        assert (target.value is None) == bool(target.peer), target.what
        if target.metric == case.metric:
            assert target.better == case.better, target.what
    for growth in GROWTH:
        case = cases.load(growth.case)
        assert case.size
        assert len([v for v in case.full if v.endswith(growth.only)]) > 1, growth.what


def of(**more: Any) -> Target:
    better = more.pop("better", "higher")
    return Target("what", "noop", "100 000 tasks", "tasks_per_s", better, **more)


@pytest.mark.parametrize(
    ("target", "limit", "reached"),
    [
        (of(value=100), 100, True),
        (of(value=101), 101, False),
        (of(better="lower", value=99), 99, False),
        (of(peer="ppe", factor=4), 100, True),
        (of(peer="ppe", factor=5), 125, False),
        (of(peer="best"), 50, True),
        (of(peer="bare", factor=2, better="lower"), 100, True),
        (of(peer="dask"), None, None),
    ],
)
def test_a_target_is_a_number_or_a_multiple_of_a_peer(
    target: Target, limit: float | None, reached: bool | None
) -> None:
    rows = [*rate(OURS, 100), *rate("ppe", 25), *rate("pool", 50), *rate("bare", 200)]
    verdict = judge(target, Results([head(), *rows]))
    assert verdict.ours == 100
    assert verdict.limit == limit
    assert verdict.reached is reached


def test_a_target_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert judge(of(value=1), Results([head(), *rate("ppe", 1)])).reached is None


# -- growth ---------------------------------------------------------------------------------------


def test_growth_is_the_cost_of_one_at_the_size_that_was_really_run() -> None:
    rows = [
        *(record(OURS, variant="1 000 tasks", tasks_per_s=2e5, tasks=1000, asked=1000),),
        *(record(OURS, variant="10 000 tasks", tasks_per_s=1e5, tasks=8000, asked=10_000),),
        *(record("ppe", variant="100 000 tasks", tasks_per_s=1, tasks=1, asked=1),),
    ]
    growth = Growth("a task", "noop", "tasks_per_s", "µs", rate=True)
    assert list(costs(growth, Results([head(), *rows]))) == [(1000, 5.0), (8000, 10.0)]


def test_variants_stand_in_the_order_of_their_case() -> None:
    names = ["10 000 tasks", "of an older suite", "1 000 tasks"]
    results = Results([head(), *(record("ppe", variant=v, tasks_per_s=1) for v in names)])
    assert results.variants("noop") == ["1 000 tasks", "10 000 tasks", "of an older suite"]


# -- sizes cut to a budget ------------------------------------------------------------------------


class Worker:
    """Runs each task in the same time, by a clock that only it moves."""

    def __init__(self, seconds: float, start_s: float = 0.0) -> None:
        self.seconds, self.start_s = seconds, start_s
        self.now = 0.0
        self.probes: list[int] = []

    def run(self, count: int) -> None:
        self.probes.append(count)
        self.now += self.start_s + count * self.seconds

    def timed(self, work: Callable[[], object]) -> float:
        begin = self.now
        work()
        return self.now - begin


def test_a_fast_peer_gets_all_that_was_asked_for() -> None:
    worker = Worker(1e-5)
    assert affordable(1_000_000, 20.0, worker.run, timed=worker.timed) == 1_000_000
    assert worker.now <= 0.1 * 20.0  # the probes are small beside the question


def test_a_slow_peer_gets_what_fits_into_the_budget() -> None:
    worker = Worker(2e-3)
    assert affordable(10_000, 5.0, worker.run, timed=worker.timed) == 2500


def test_a_peer_far_too_slow_is_told_how_long_it_would_have_taken() -> None:
    worker = Worker(2e-3)
    with pytest.raises(OverBudget, match="200 s, and has 10 s"):
        affordable(100_000, 10.0, worker.run, least=0.5, timed=worker.timed)


def test_a_small_question_is_not_probed() -> None:
    worker = Worker(1.0)
    assert affordable(PROBE_COUNT, 0.1, worker.run, timed=worker.timed) == PROBE_COUNT
    assert worker.probes == []


def test_what_a_call_costs_once_does_not_make_a_peer_look_slow() -> None:
    """A delay of 10 ms for any number of calls is 100 us each of 100, and 1 us each of 10 000."""
    worker = Worker(1e-6, start_s=0.01)
    assert affordable(1_000_000, 5.0, worker.run, timed=worker.timed) == 1_000_000
