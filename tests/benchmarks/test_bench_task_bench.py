"""Task Bench: the patterns as its paper has them, and the search for METG."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.cases.task_bench import PATTERNS, SHORTEST_S, grid, half_point, inputs

WIDTH = 8


@pytest.mark.parametrize("pattern", PATTERNS)
def test_points_read_points_that_exist_and_each_once(pattern: str) -> None:
    levels = grid(pattern, WIDTH, 20)
    assert all(inputs == [] for inputs in levels[0])
    for before, level in itertools.pairwise(levels):
        for read in level:
            assert len(set(read)) == len(read)
            assert all(0 <= point < len(before) for point in read)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_grid_is_the_same_each_time(pattern: str) -> None:
    assert grid(pattern, WIDTH, 9) == grid(pattern, WIDTH, 9)


def test_patterns_are_those_of_the_paper() -> None:
    assert inputs("trivial", WIDTH, 3, 4) == []
    assert inputs("stencil_1d", WIDTH, 3, 4) == [3, 4, 5]
    assert inputs("stencil_1d", WIDTH, 3, 0) == [0, 1]
    assert [inputs("fft", WIDTH, step, 4) for step in (1, 2, 3, 4)] == [
        [3, 4, 5],
        [2, 4, 6],
        [0, 4],
        [3, 4, 5],
    ]
    assert inputs("all_to_all", WIDTH, 1, 4) == list(range(WIDTH))
    assert [len(level) for level in grid("tree", WIDTH, 5)] == [1, 2, 4, 8, 8]
    assert inputs("tree", WIDTH, 2, 3) == [1]
    assert inputs("tree", WIDTH, 4, 3) == [3]
    near = [inputs("random_nearest", WIDTH, step, 4) for step in range(1, 200)]
    assert all(4 in read and set(read) <= set(range(2, 7)) for read in near)
    assert 2.5 < sum(map(len, near)) / len(near) < 3.5  # itself, and half of four neighbours


def runtime(overhead_s: float, least_s: float = 0.0):  # type: ignore[no-untyped-def]
    """Efficiency of a runtime whose tasks cost ``overhead_s``, and never less than ``least_s``."""
    return lambda work_s: work_s / max(work_s + overhead_s, least_s)


@pytest.mark.parametrize("overhead_s", [2e-5, 1e-4, 5e-3])
@pytest.mark.parametrize("guess", [0.1, 1.0, 9.0])
def test_half_of_the_machine_is_where_work_equals_overhead(overhead_s: float, guess: float) -> None:
    found = half_point(runtime(overhead_s), overhead_s * guess, halvings=2)
    assert found == pytest.approx(overhead_s, rel=0.02)


def test_a_floor_under_the_length_of_a_task_is_found_too() -> None:
    assert half_point(runtime(1e-5, 1e-3), 1e-4, halvings=3) == pytest.approx(5e-4, rel=0.02)


def test_another_share_of_the_machine_can_be_asked_for() -> None:
    found = half_point(runtime(1e-3), 1e-3, halvings=3, wanted=0.9)
    assert found == pytest.approx(9e-3, rel=0.02)


def test_no_overhead_at_all_ends_at_the_shortest_work() -> None:
    assert half_point(runtime(0.0), 1e-3, halvings=2) == SHORTEST_S


def test_a_machine_that_never_gets_there_is_a_failure_and_not_a_number() -> None:
    with pytest.raises(RuntimeError, match=r"0\.10 of the machine"):
        half_point(lambda _: 0.1, 1e-3, halvings=2)
