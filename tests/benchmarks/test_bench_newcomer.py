"""The twelve programs: turns, ratios, goals, and that a program runs in processes of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import newcomer
from benchmarks.newcomer_programs import PROGRAMS, Program
from tests.benchmarks.conftest import Ran


def _program(number: int, *systems: str, goals: tuple[str, ...]) -> Program:
    ways = {name: lambda size: lambda: size for name in systems}
    return Program(number, "some", full=1, tiny=1, ways=ways, goals=goals)


def _row(
    number: int, ours: list[float], theirs: list[float], mib: tuple[float, float]
) -> newcomer.Row:
    runs = {
        "mars": [newcomer.Run(seconds, 0, 0, "") for seconds in ours],
        "threads": [newcomer.Run(seconds, 0, 0, "") for seconds in theirs],
    }
    program = _program(number, *runs, goals=("threads",))
    return newcomer.Row(program, runs, dict(zip(runs, mib, strict=True)))


def _runner(ran: list[str], answer: Callable[[str], str]) -> Callable[..., newcomer.Run]:
    def run(program: Program, system: str, size: int, watch: bool) -> newcomer.Run:
        ran.append(system + "?" * watch)
        return newcomer.Run(1.0, 1.0, 7.0 if watch else 0.0, answer(system))

    return run


def test_each_turn_begins_with_another_system_and_memory_has_a_run_of_its_own() -> None:
    ran: list[str] = []
    program = _program(1, "mars", "joblib", goals=("joblib",))
    row = newcomer.compared(program, 2, 1, _runner(ran, lambda system: "same"))
    assert ran == ["mars?", "joblib?", "mars", "joblib", "joblib", "mars"]
    assert row.peak_mib == {"mars": 7.0, "joblib": 7.0}
    assert {name: len(runs) for name, runs in row.runs.items()} == {"mars": 2, "joblib": 2}


def test_systems_that_find_different_things_are_no_measurement() -> None:
    program = _program(1, "mars", "joblib", goals=("joblib",))
    with pytest.raises(AssertionError, match="program 1: systems disagree"):
        newcomer.compared(program, 1, 1, _runner([], str))


def test_a_ratio_compares_runs_of_the_same_turn() -> None:
    # The machine was five times as slow in the second turn, for both.
    row = _row(9, [2.0, 10.0, 2.0], [1.0, 5.0, 1.0], (10, 10))
    assert row.ratio("threads") == 2.0
    assert list(newcomer.lines(row)) == [
        "| 9 | some | mars | 2.00 (2.00 .. 10.00) | 0.0 | 10 |  |",
        "| 9 | some | threads | 1.00 (1.00 .. 5.00) | 0.0 | 10 | 2.00 |",
    ]


def test_what_is_behind_its_goal_is_named() -> None:
    within = _row(9, [1.09], [1.0], (90, 10))  # memory is a goal of program 8 only
    slow = _row(9, [1.2], [1.0], (10, 10))
    hungry = _row(8, [1.0], [1.0], (12, 10))
    assert list(newcomer.behind([within])) == []
    assert list(newcomer.behind([slow, hungry])) == [
        "program 9: 1.20 times the seconds of threads, goal 1.1",
        "program 8: 1.20 times the memory of threads, goal 1.1",
    ]


def test_a_program_runs_on_all_of_its_systems(tiny: Ran) -> None:
    printed, (row,) = tiny("newcomer", "--programs", "9")
    assert {name: len(runs) for name, runs in row["runs"].items()} == {"mars": 1, "threads": 1}
    assert min(row["peak_mib"].values()) > 1
    assert len([line for line in printed.splitlines() if line.startswith("| 9 | ")]) == 2


def test_a_program_that_fails_says_why() -> None:
    program = next(one for one in PROGRAMS if one.number == 9)
    with pytest.raises(RuntimeError, match=r"(?s)program 9 on nobody failed.*KeyError: 'nobody'"):
        newcomer.measured(program, "nobody", 1, False)
