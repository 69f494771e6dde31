"""The benchmark of the adapters: turns, ratios, and that an adapter runs on all of its systems."""

from __future__ import annotations

from benchmarks import adapters
from tests.benchmarks.conftest import Ran


def test_each_turn_begins_with_another_system_and_the_first_run_does_not_count() -> None:
    ran: list[str] = []
    ways = {name: lambda name=name: ran.append(name) for name in ("mars", "loky", "threads")}
    row = adapters.measured(adapters.Program("joblib", "short calls", ways), turns=2)
    assert ran == ["mars", "loky", "threads", "mars", "loky", "threads", "loky", "threads", "mars"]
    assert {name: len(seconds) for name, seconds in row.seconds.items()} == {
        "mars": 2, "loky": 2, "threads": 2
    }  # fmt: skip


def test_a_ratio_compares_runs_of_the_same_turn() -> None:
    # The machine was five times as slow in the second turn, for both.
    row = adapters.Row("joblib", "search", {"mars": [1.0, 5.0, 1.0], "loky": [2.0, 10.0, 2.0]})
    assert row.ratio("loky") == 2.0
    assert list(adapters.lines(row)) == [
        "| joblib | search | 1.00 s (1.00 .. 5.00) | loky | 2.00 s (2.00 .. 10.00) | 2.00 |"
    ]


def test_an_adapter_runs_on_mars_and_on_its_peers(tiny: Ran) -> None:
    printed, rows = tiny("adapters", "--adapters", "executor")
    assert [set(row["seconds"]) for row in rows] == [{"mars", "ProcessPoolExecutor", "loky"}] * 3
    table = [line for line in printed.splitlines() if line.startswith("| Executor | ")]
    assert len(table) == 6  # one line for each peer
