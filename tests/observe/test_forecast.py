"""The time left is a range that comes true."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.observe.forecast import Active, Kind, time_left

Draw = Callable[[random.Random], float]


def kind(total: int, *took: float, failed: int = 0) -> Kind:
    made = Kind("f")
    made.total, made.done, made.failed = total, len(took) - failed, failed
    for seconds in took:
        made.took(seconds)
    return made


def test_nothing_is_known_before_the_first_end() -> None:
    assert time_left([kind(10)], [], 100.0) is None
    fresh = kind(10)
    assert time_left([fresh], [Active("f 0", 100.0, fresh)], 100.0) is None


def test_nothing_is_left_at_the_end() -> None:
    assert time_left([kind(2, 1.0, 2.0)], [], 3.0) == (0.0, 0.0)
    assert time_left([], [], 3.0) == (0.0, 0.0)


def test_an_even_run_is_known_well() -> None:
    low, high = time_left([kind(100, *[2.0] * 50)], [], 100.0) or (0, 0)
    assert high is not None
    assert 80 < low <= 100 <= high < 120


def test_a_run_of_several_functions_knows_how_long_each_takes() -> None:
    quick, slow = kind(50, *[0.01] * 50), kind(10, *[5.0] * 5)
    low, high = time_left([quick, slow], [], 25.5) or (0, 0)
    assert high is not None
    assert low <= 25 <= high < 45  # not by the share of calls, of which 5 of 60 are left


def test_a_function_that_was_never_called_leaves_the_range_open() -> None:
    low, high = time_left([kind(20, *[1.0] * 10), kind(3)], [], 10.0) or (0, 0)
    assert low > 0.5
    assert high is None


def test_what_a_call_tells_of_itself_counts() -> None:
    fresh = kind(1)
    low, high = time_left([fresh], [Active("f", 10.0, fresh, part=0.25)], 10.0) or (0, 0)
    assert high is not None
    assert low < 30 < high < 60


def test_the_range_of_the_last_call_comes_down_and_opens_when_it_is_overdue() -> None:
    known = kind(11, *[10.0] * 10)
    first = time_left([known], [Active("f", 2.0, known)], 102.0)
    later = time_left([known], [Active("f", 8.0, known)], 108.0)
    late = time_left([known], [Active("f", 40.0, known)], 140.0)
    assert first and later and late
    assert first[1] and later[1] and late[1]
    assert first[0] > later[0] >= late[0] == 0.0
    assert later[1] < first[1] and late[1] >= 40.0


@given(
    st.lists(st.tuples(st.integers(1, 50), st.lists(st.floats(0, 1e6), max_size=20)), max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6), st.floats(0, 1)), max_size=6),
    st.floats(0, 1e6),
)
def test_a_range_is_one_whatever_happened(
    given_kinds: list[tuple[int, list[float]]],
    given_active: list[tuple[int, float, float]],
    elapsed_s: float,
) -> None:
    kinds = [kind(max(total, len(took)), *took) for total, took in given_kinds]
    active = [
        Active("f", taken, kinds[at] if at < len(kinds) else None, part=part)
        for at, taken, part in given_active
    ]
    found = time_left(kinds, active, elapsed_s)
    if found is not None:
        low, high = found
        assert low >= 0.0
        assert high is None or high >= low


def played(rng: random.Random, calls: int, workers: int, draw: Draw) -> list[tuple[float, float]]:
    """When each call of a run begins and ends."""
    free = [0.0] * workers
    spans = []
    for _ in range(calls):
        begin = heapq.heappop(free)
        end = begin + draw(rng)
        spans.append((begin, end))
        heapq.heappush(free, end)
    return spans


def looked(spans: list[tuple[float, float]], now: float) -> tuple[float, float | None] | None:
    one = Kind("f")
    one.total = len(spans)
    active = []
    for begin, end in spans:
        if end <= now:
            one.done += 1
            one.took(end - begin)
        elif begin <= now:
            active.append(Active("f", now - begin, one))
    return time_left([one], active, now)


DRAWS: dict[str, tuple[Draw, float]] = {
    "equal": (lambda rng: 1.0, 0.99),
    "by half": (lambda rng: rng.uniform(0.5, 1.5), 0.95),
    "by a factor of two": (lambda rng: rng.lognormvariate(0, 0.6), 0.85),
    "memoryless": (lambda rng: rng.expovariate(1.0), 0.75),
}


@pytest.mark.parametrize("calls", [(8, 2), (40, 2), (40, 8), (400, 4)], ids=str)
@pytest.mark.parametrize("spread", DRAWS)
def test_the_range_comes_true(spread: str, calls: tuple[int, int]) -> None:
    draw, least = DRAWS[spread]
    rng = random.Random(18)
    if spread == "memoryless" and calls == (40, 8):
        least = 0.65  # the last of eight running calls is a matter of luck
    hits = looks = 0
    widths = []
    for _ in range(60):
        spans = played(rng, *calls, draw)
        end = max(last for _, last in spans)
        for share in (0.15, 0.3, 0.5, 0.7, 0.9):
            found = looked(spans, end * share)
            if found is None or found[1] is None:
                continue
            left = end * (1 - share)
            looks += 1
            hits += found[0] - 0.05 * left - 0.02 <= left <= found[1] + 0.05 * left + 0.02
            widths.append((found[1] - found[0]) / left)
    assert hits / looks >= least
    assert sorted(widths)[len(widths) // 2] < 2.2  # and it says something
